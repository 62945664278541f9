# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenarios of timelines as editors leave them: hidden channels, held frames, strips before zero, odd folders."""
from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from blender.stage import Picture, Stage, burnt_number, read_picture, refused, sequencer_shown


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
    reasons = {"gap.mp4": "its frames do not come evenly",
               "gap.mkv": "a file of the kind .mkv does not say whether its frames come evenly"}
    for name, reason in reasons.items():
        strip = stage.movie(name, at=1, trim=(0, 6))
        stage.select(strip)
        row, = stage.stylise()
        assert row.clip.exported == reason, row.clip.exported
        stage.check_result(row, strip, film=True, moves=False)
        assert burnt_number(stage.seen(20, 20, muted=(strip,))[0]) == 17
        for found in list(stage.strips):
            stage.strips.remove(found)


def movies_of_telephones(stage: Stage) -> None:
    """A movie that is to be turned, and the second stream of another: the result shows what Blender shows."""
    for name, stream in (("turned.mp4", 0), ("streams.mp4", 1), ("streams.mp4", 0)):
        strip = stage.movie(name, at=1, trim=(0, 18))
        strip.stream_index = stream
        stage.select(strip)
        row, = stage.stylise()
        stage.check_result(row, strip, film=True, moves=name != "turned.mp4")
        if name == "streams.mp4":
            assert burnt_number(stage.seen(3, 3, muted=(strip,))[0]) == 3 + 100 * stream
            assert (row.clip.exported is not None) is bool(stream)
        for found in list(stage.strips):
            stage.strips.remove(found)


def missing_files_of_what_is_exported(stage: Stage) -> None:
    """Blender would draw a file that is not there in black or in colour: it is refused, wherever it is used."""
    compat = stage.module("compat")
    shutil.copytree(stage.footage / "png", stage.work / "png")
    whole, broken = stage.sequence("exr", at=1, channel=1), stage.sequence("png", at=1, channel=2)
    broken.directory = str(stage.work / "png")
    (stage.work / "png" / "f.1010.png").unlink()
    compat.trim(broken, 0, 15)
    broken.use_flip_x = True
    stage.select(broken)
    stage.settings.handles = 1
    refused(lambda: bpy.ops.fresco.stylise(), "1 frames are missing on the disk")
    stage.settings.handles = 0
    compat.trim(broken, 0, 14)
    cross = stage.effect("CROSS", broken, whole)
    stage.select(cross)
    refused(lambda: bpy.ops.fresco.stylise(), "f.1010.png")
    stage.settings.matte, stage.settings.matte_strip = "STRIP", broken.name
    stage.select(whole)
    refused(lambda: bpy.ops.fresco.stylise(), "f.1010.png")
    stage.settings.matte = "NONE"
    stage.select(whole, broken, cross)
    with sequencer_shown(stage):
        bpy.ops.sequencer.meta_make()
    stage.select(next(found for found in stage.strips if found.type == "META"))
    refused(lambda: bpy.ops.fresco.stylise(), "f.1010.png")
    assert not stage.queue.rows


def folders_as_people_type_them(stage: Stage) -> None:
    """A folder that is no whole path lies beside the .blend, not where Blender happened to be started."""
    folder_of, home = stage.module("ticker").folder_of, stage.work / "show"
    typed = {"": "fresco", " ": "fresco", "renders": "renders", "//": "", "//../x": "../x", "a/b": "a/b"}
    for text in typed:
        stage.settings.folder = text
        assert folder_of(stage.scene) == str(Path(stage.module("preferences").user_folder()) / "shots"), text
    home.mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(home / "edit.blend"))
    for text, due in typed.items():
        stage.settings.folder = text
        assert folder_of(stage.scene) == os.path.normpath(home / due), (text, folder_of(stage.scene))
    stage.settings.folder = "~/looks"
    assert folder_of(stage.scene) == str(Path.home() / "looks")
    stage.settings.folder = "renders"
    strip = stage.sequence("png", trim=(0, 22))
    stage.select(strip)
    row, = stage.stylise()
    assert Path(row.folder).is_relative_to(home / "renders")
    stage.check_result(row, strip, moves=False)


def exported_by_a_child(stage: Stage) -> None:
    """In a window a second Blender exports. It ends with the first one, also with one that crashed."""
    program = stage.work / "blender"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).with_name("program.py")}" "$@"\n')
    program.chmod(0o755)
    bpy.app.binary_path = str(program)
    strip, isolation = stage.sequence("png", at=1, trim=(0, 12)), stage.module("isolation")
    strip.use_flip_x = True
    stage.select(strip)
    clip, = stage.module("timeline").collect(bpy.context, stage.module("timeline").Extent.STRIP, handles=0, matte=None)
    row = stage.queue.add(clip, stage.module("properties").choices_of(stage.settings), str(stage.work / "shots"))
    stage.until(lambda: row.is_ended)
    stage.check_result(row, strip)
    assert not list(Path(row.shot_folder).rglob("export.*"))
    export, = stage.module("timeline").extract(clip, str(stage.work / "crash")).exports
    child = isolation.ChildExport(export)
    stage.until(lambda: export.done() > 0)
    child._child.stdin.close()  # as the system does when this Blender is gone
    stage.until(lambda: child._child.poll() is not None)
    assert 0 < export.done() < export.total, export.done()


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


def no_pictures_of_their_own(stage: Stage) -> None:
    """A multicam selector, an adjustment layer, an effect over one, a meta strip of one: alone they would be black."""
    strip = stage.sequence("png", at=1, channel=1)
    camera, layer = _effect(stage, "MULTICAM", 5), _effect(stage, "ADJUSTMENT", 6)
    camera.multicam_source = 1
    blur = _effect(stage, "GAUSSIAN_BLUR", 7, above=layer)
    own = "an adjustment layer has no pictures"
    for chosen, words in ((camera, "a multicam selector shows other strips' pictures"), (layer, own), (blur, own)):
        stage.select(chosen)
        refused(lambda: bpy.ops.fresco.stylise(), words)
    stage.settings.matte, stage.settings.matte_strip = "STRIP", blur.name
    stage.select(strip)
    refused(lambda: bpy.ops.fresco.stylise(), "the matte would be black")
    stage.settings.matte = "NONE"
    for chosen in ((layer, blur), (layer, blur, strip)):
        stage.select(*chosen)
        with sequencer_shown(stage):
            bpy.ops.sequencer.meta_make()
        meta = next(found for found in stage.strips if found.type == "META")
        stage.select(meta)
        if strip in chosen:
            assert _plate(stage, meta)[0].max() > 0.5, "with what lies below it, it has pictures"
            return
        refused(lambda: bpy.ops.fresco.stylise(), own)
        with sequencer_shown(stage):
            stage.scene.sequence_editor.active_strip = meta
            bpy.ops.sequencer.meta_separate()


def _effect(stage: Stage, kind: str, channel: int, above: Any = None) -> Any:
    """An effect strip of eight frames, over one strip or none."""
    names = {"length": 8} if bpy.app.version >= (5, 0, 0) else {"frame_end": 9}
    name = "input1" if bpy.app.version >= (4, 5, 0) else "seq1"
    return stage.strips.new_effect(name=kind, type=kind, channel=channel, frame_start=1, **names,
                                   **({name: above} if above is not None else {}))


def _plate(stage: Stage, strip: Any, handles: int = 0) -> list[Picture]:
    """The pictures of a strip's exported plate; its result goes again."""
    timeline, panel = stage.module("timeline"), stage.module("properties")
    stage.select(strip)
    clip, = timeline.collect(bpy.context, panel.extent_of(stage.settings), handles=handles, matte=None)
    row = stage.queue.add(clip, panel.choices_of(stage.settings), str(stage.work / "shots"))
    stage.queue.export_now(row)
    assert row.problem is None, row.problem
    stage.queue.cancel(row)
    stage.module("results").remove(row.key)
    return [read_picture(path) for path in sorted(Path(row.shot_folder, "plate").iterdir())]


def sources_above_their_strip(stage: Stage) -> None:
    """A strip that masks a modifier, or that an effect takes, may lie above: the plate is that of the strip below."""
    strip, other = stage.sequence("png", at=1, trim=(0, 20)), stage.sequence("exr", at=1, channel=4, trim=(0, 20))
    other.use_flip_x = True
    modifier = strip.modifiers.new("grade", "BRIGHT_CONTRAST")
    modifier.bright, modifier.input_mask_strip = 0, other
    assert [burnt_number(picture) for picture in _plate(stage, strip)] == [1001, 1002, 1003, 1004]
    assert not other.mute, "only in the copy"
    strip.modifiers.clear()
    effect = stage.effect("CROSS", strip, other)
    above = _plate(stage, effect)
    effect.channel = 1
    assert all(np.array_equal(*pair) for pair in zip(above, _plate(stage, effect), strict=True))


def handles_everywhere(stage: Stage) -> None:
    """Handles of a part are what the strip shows beside it, too; at another speed they are where that shows them."""
    strip = stage.sequence("png", at=10, trim=(6, 6))
    stage.settings.extent, stage.scene.use_preview_range = "IN_OUT", True
    stage.scene.frame_preview_start, stage.scene.frame_preview_end = 18, 20
    stage.settings.handles = 4
    stage.select(strip)
    row, = stage.stylise()
    assert str(row.shot.plate.frames[0]) == "1005-1015" and stage.span(stage.result(row)) == (18, 21)
    assert burnt_number(stage.seen(19, 19, muted=(strip,))[0]) == 1010
    bpy.ops.fresco.delete_version(key=row.key)
    strip.use_flip_y = True
    turned = [burnt_number(picture[::-1]) for picture in _plate(stage, strip, handles=4)]
    assert turned == list(range(1005, 1016)), turned
    strip.use_flip_y, stage.settings.extent = False, "STRIP"
    stage.module("compat").trim(strip, 0, 0)
    stage.set_speed(strip, 50)
    stage.module("compat").trim(strip, 10, 6)
    shown = [burnt_number(picture) for picture in _plate(stage, strip)]
    longer = [burnt_number(picture) for picture in _plate(stage, strip, handles=5)]
    assert longer[5:-5] == shown and longer == sorted(longer) and longer[0] < shown[0] and longer[-1] > shown[-1]


def pieces_stay_pieces(stage: Stage) -> None:
    """Snap to Source takes each piece of a cut result along, and the cut stays at its frame."""
    strip = stage.sequence("png", at=1, trim=(2, 2))
    stage.settings.handles = 2
    stage.select(strip)
    row, = stage.stylise()
    pieces = stage.module("results").strips_of_job
    stage.result(row).split(frame=9, split_method="SOFT")
    for start in (5, 101):
        stage.module("compat").place(strip, start, start + 1, start + 22)
        bpy.ops.fresco.snap_to_source(key=row.key)
        found = sorted((*stage.span(piece), piece.channel) for _, piece in pieces(row.key))
        assert found == [(start + 1, start + 8, 3), (start + 8, start + 22, 3)], found
    assert burnt_number(stage.seen(109, 109, muted=(strip,))[0]) == 1009


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
