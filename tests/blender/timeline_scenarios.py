# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenarios of timelines as editors leave them: hidden channels, held frames, strips before zero, odd folders."""
from __future__ import annotations

import shutil
from pathlib import Path

import bpy
from blender.stage import Stage, burnt_number, read_picture, refused


def hidden_channels(stage: Stage) -> None:
    """A matte, or a clip, on a channel that is switched off is exported as it is, not black."""
    strip, matte = stage.sequence("exr", at=1, trim=(0, 20)), stage.sequence("png", at=1, channel=5)
    strip.use_flip_x = True
    for channel in (1, 2, 5):
        stage.scene.sequence_editor.channels[channel].mute = True
    stage.settings.matte, stage.settings.matte_strip = "STRIP", matte.name
    stage.select(strip)
    row, = stage.stylise()
    for name in ("plate/plate.1001.exr", "matte/matte.1001.png"):
        assert read_picture(Path(row.shot_folder) / name).max() > 0.5, name
    assert [channel.mute for channel in stage.scene.sequence_editor.channels][1:6] == [True, True, False, False, True]


def movie_held_at_its_ends(stage: Stage) -> None:
    """A movie that is pulled longer than it is stands still there, and so does its result."""
    strip = stage.movie(at=30, trim=(-4, -6))
    stage.select(strip)
    row, = stage.stylise()
    assert row.clip.exported == "it holds its first or last frame"
    stage.check_result(row, strip, film=True, moves=False)
    assert [burnt_number(stage.seen(frame, frame, muted=(strip,))[0]) for frame in (27, 40, 58)] == [1, 11, 24]
    stage.strips.remove(stage.result(row))
    stage.scene.frame_current = 40
    bpy.ops.fresco.test_frame()
    assert str(stage.queue.rows[-1].shot.plate.frames[0]) == "11", "inside the movie its file is enough"


def movie_that_leaves_frames_out(stage: Stage) -> None:
    """Blender shows a movie by time, and the server counts its frames: behind a gap they would be others."""
    strip = stage.movie("gap", at=1, trim=(0, 6))
    stage.select(strip)
    row, = stage.stylise()
    assert row.clip.exported == "its frames do not come evenly", row.clip.exported
    stage.check_result(row, strip, film=True, moves=False)
    assert burnt_number(stage.seen(20, 20, muted=(strip,))[0]) == 17


def before_frame_zero(stage: Stage) -> None:
    """Files are sent from anywhere; Blender renders nothing before 0, which is said at once."""
    strip = stage.sequence("png", at=-30, trim=(0, 20))
    strip.use_flip_x = True
    stage.select(strip)
    refused(lambda: bpy.ops.fresco.stylise(), "Blender renders no frames before 0")
    assert not stage.queue.rows and len(stage.strips) == 1
    strip.use_flip_x = False
    row, = stage.stylise()
    assert row.state == "delivered" and stage.span(stage.result(row)) == (-30, -26)


def multicam_has_no_pictures(stage: Stage) -> None:
    """Alone it would be black."""
    length = {"length": 8} if bpy.app.version >= (5, 0, 0) else {"frame_end": 9}
    stage.sequence("png", at=1, channel=1)
    strip = stage.strips.new_effect(name="cameras", type="MULTICAM", channel=5, frame_start=1, **length)
    strip.multicam_source = 1
    stage.select(strip)
    refused(lambda: bpy.ops.fresco.stylise(), "a multicam selector shows other strips' pictures")


def signs_in_folders(stage: Stage) -> None:
    """What stands for a number in the name of a file is just a sign in the name of its folder."""
    for name in ("take #1", "100%04d", "shot@2"):
        shutil.copytree(stage.footage / "png", stage.work / name)
        strip = stage.strips.new_image(name="png", filepath=str(stage.work / name / "f.1001.png"), channel=2,
                                       frame_start=1)
        for number in range(1002, 1006):
            strip.elements.append(f"f.{number}.png")
        stage.select(strip)
        row, = stage.stylise()
        assert row.clip.media is not None, row.clip.exported
        stage.check_result(row, strip)
        for found in list(stage.strips):
            stage.strips.remove(found)
