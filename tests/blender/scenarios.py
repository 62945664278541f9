# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenarios in a real Blender, one process each: python scenarios.py NAME ARCHIVE CONNECTION FOOTAGE WORK.

The process ends by `os._exit`, because bpy as a module crashes or hangs in its own clearing up.
"""
from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from blender.stage import Stage, burnt_number, files_below, read_picture

CORNERS = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))


def movie_with_trim(stage: Stage) -> None:
    """A plain movie goes as path and range; the frames beyond its trims are its handles."""
    strip = stage.movie(at=30, trim=(5, 7))
    stage.settings.handles = 3
    stage.select(strip)
    before = stage.snapshot()
    row, = stage.stylise()
    assert row.clip.media is not None, row.clip.exported
    assert (row.clip.head, row.clip.tail) == (3, 3)
    assert str(row.shot.plate.frames[0]) == "3-20", row.shot.plate.frames  # 5 trimmed, 3 handles, counted from 1
    assert stage.snapshot() == before
    stage.check_result(row, strip, film=True)
    assert burnt_number(stage.seen(35, 35, muted=(strip,))[0]) == 6


def sequence_from_1001(stage: Stage) -> None:
    """Frames keep the numbers of their files, also where the timeline is negative."""
    strip = stage.sequence("png", at=-3, trim=(4, 2))
    strip.transform.scale_x = strip.transform.scale_y = 0.5  # an even fit is no reason to export
    stage.select(strip)
    row, = stage.stylise()
    assert row.clip.media is not None, row.clip.exported
    assert str(row.shot.plate.frames[0]) == "1005-1022"
    stage.check_result(row, strip, film=True)  # edges are scaled in bytes before, in floats after
    strip.transform.scale_x = strip.transform.scale_y = stage.result(row).transform.scale_x = 1
    stage.result(row).transform.scale_y = 1
    assert burnt_number(stage.seen(1, 1, muted=(strip,))[0]) == 1005


def retimed(stage: Stage) -> None:
    """A strip at half speed is exported at the timeline's frames."""
    strip = stage.sequence("png", at=10)
    _set_speed(stage, strip, 50)
    start, end = stage.span(strip)
    assert end - start > 40
    row, = stage.stylise()
    assert row.clip.exported == "its speed is changed"
    shown = [burnt_number(picture) for picture in stage.seen(start, end - 1, muted=(stage.result(row),))]
    assert shown[:5] == [1001, 1001, 1002, 1002, 1003], shown
    assert [burnt_number(picture) for picture in stage.seen(start, end - 1, muted=(strip,))] == shown
    stage.check_result(row, strip)


def _set_speed(stage: Stage, strip: Any, percent: float) -> None:
    """By the operator: the data API crashes Blender before 5.2 when a strip has no keys yet."""
    stage.select(strip)
    stage.scene.sequence_editor.active_strip = strip
    with _sequencer(stage):
        bpy.ops.sequencer.retiming_segment_speed_set(speed=percent)


@contextmanager
def _sequencer(stage: Stage) -> Iterator[None]:
    """A sequencer on the screen, for operators that want one."""
    window = bpy.context.window_manager.windows[0]
    window.scene = stage.scene
    stage.module("compat").show_in_sequencer(bpy.context, stage.scene)
    area = window.screen.areas[0]
    area.type = "SEQUENCE_EDITOR"
    region = next(region for region in area.regions if region.type == "WINDOW")
    with bpy.context.temp_override(window=window, area=area, region=region):
        yield


def meta_strip(stage: Stage) -> None:
    """A meta strip is exported as what it shows, trims and handles included."""
    first, second = stage.sequence("png", at=1, channel=1), stage.sequence("exr", at=15, channel=2)
    compat = stage.module("compat")
    stage.select(first, second)
    with _sequencer(stage):
        bpy.ops.sequencer.meta_make()
    meta = next(strip for strip in stage.strips if strip.type == "META")
    compat.trim(meta, 6, 8)
    stage.settings.handles = 4
    stage.select(meta)
    before = stage.snapshot()
    row, = stage.stylise()
    assert row.clip.exported == "it is a meta strip"
    assert (row.clip.head, row.clip.tail) == (4, 4)
    assert stage.snapshot() == before
    stage.check_result(row, meta)
    compat.trim(stage.result(row), 0, 0)  # the handles are there: frames before the trim
    number = burnt_number(stage.seen(3, 3, muted=(meta,))[0])
    assert number == 1003, number


def transform_and_modifier(stage: Stage) -> None:
    """Both are in the exported plate; neither is applied a second time to the result."""
    other = stage.sequence("exr", at=1, channel=1)
    strip = stage.sequence("png", at=5, channel=2, trim=(1, 1))
    strip.transform.offset_x, strip.transform.rotation = 10, 0.3
    strip.blend_type = "ALPHA_OVER"
    modifier = strip.modifiers.new("grade", "COLOR_BALANCE")
    modifier.color_balance.gain = (0.6, 1.0, 0.9)
    stage.select(strip)
    before = stage.snapshot()
    row, = stage.stylise()
    assert row.clip.exported == "it has modifiers"
    assert stage.snapshot() == before
    assert stage.result(row).blend_type == "ALPHA_OVER"
    stage.check_result(row, strip, muted=(other,), film=True)  # edges blend in bytes before, in floats after


def mask_as_matte(stage: Stage) -> None:
    """A mask becomes a matte with the plate's numbers; outside it every pixel is the plate's."""
    strip = stage.sequence("exr", at=20, trim=(0, 20))
    mask = bpy.data.masks.new("window")
    spline = mask.layers.new(name="layer").splines.new()
    spline.points.add(4)
    for point, place in zip(spline.points, CORNERS, strict=False):  # it begins with a point
        point.co = point.handle_left = point.handle_right = place
    spline.use_cyclic = True
    stage.settings.matte, stage.settings.matte_mask = "MASK", mask
    _take_time(stage, steps=2)
    stage.select(strip)
    row, = stage.stylise()
    files = sorted(path.name for path in Path(row.shot_folder, "matte").iterdir())
    assert files == [f"matte.{number}.png" for number in range(1001, 1005)], files
    assert row.clip.media is not None, row.clip.exported
    result = stage.result(row)
    matte = read_picture(Path(row.shot_folder) / "matte" / files[0])[..., 0]
    plain, styled = stage.seen(20, 20, muted=(result,))[0], stage.seen(20, 20, muted=(strip,))[0]
    assert 0.3 < (matte > 0.9).mean() < 0.7 and (matte == 0).mean() > 0.3, "a window in the middle"
    assert np.array_equal(plain[matte == 0], styled[matte == 0])
    assert np.abs(plain - styled)[matte > 0.9].mean() > 0.01


def strip_as_matte(stage: Stage) -> None:
    """The brightness of a strip that is hidden on the timeline is the matte."""
    strip, matte = stage.sequence("exr", at=1, trim=(0, 20)), stage.sequence("png", at=1, channel=5)
    matte.mute = True
    stage.settings.matte, stage.settings.matte_strip = "STRIP", matte.name
    stage.select(strip, matte)
    row, = stage.stylise()
    drawn = read_picture(Path(row.shot_folder) / "matte" / "matte.1001.png")
    assert row.state == "delivered"
    assert abs(drawn[14, 4].mean() - 0.85) < 0.1 or abs(drawn[14, 4].mean() - 0.69) < 0.1, drawn[14, 4]
    assert drawn[14, 12].mean() < 0.1


def highlights_survive(stage: Stage) -> None:
    """Values over white come through files and through an export."""
    plain = stage.sequence("hdr", at=1, trim=(0, 21))
    exported = stage.sequence("hdr", at=40, trim=(0, 21))
    exported.use_flip_x = True
    stage.select(plain, exported)
    for row, strip in zip(stage.stylise(), (plain, exported), strict=True):
        assert row.shot.delivery.sequence.endswith(".exr")
        start = stage.span(strip)[0]
        assert stage.seen(start, start, muted=(strip,))[0].max() > 3.9
        stage.check_result(row, strip)


def two_at_once(stage: Stage) -> None:
    """Each selected strip is a job of its own; sound among them does not matter."""
    first, second = stage.sequence("png", at=1, channel=1), stage.sequence("exr", at=10, channel=3)
    stage.select(first, second)
    rows = stage.stylise()
    assert len(rows) == 2 and rows[0].job.id != rows[1].job.id
    assert stage.result(rows[0]).channel == 2
    assert stage.result(rows[1]).channel == 4
    for row, strip, other in zip(rows, (first, second), (second, first), strict=True):
        results = [stage.result(each) for each in rows if each is not row]
        stage.check_result(row, strip, muted=(other, *results))


def cancelled(stage: Stage) -> None:
    """Cancel ends the job at the server; the strip stays, and Delete takes strip and files."""
    strip = stage.sequence("png")
    _take_time(stage, steps=400)
    stage.select(strip)
    row, = stage.stylise(wait=False)
    stage.until(lambda: row.state == "running")
    bpy.ops.fresco.cancel(key=row.key)
    stage.until(lambda: row.is_ended)
    assert row.state == "cancelled" and stage.result(row) is not None
    bpy.ops.fresco.delete_version(key=row.key)
    assert "fresco" not in " ".join(strip.name for strip in stage.strips if "fresco" in strip)
    assert not Path(row.shot_folder).exists() and row not in stage.queue.rows


def server_killed(stage: Stage) -> None:
    """The server dies in the middle; the add-on starts another, and the job is finished there."""
    connection = stage.preferences.connection_file
    strip = stage.sequence("png", trim=(0, 16))
    _take_time(stage, steps=12)
    stage.select(strip)
    row, = stage.stylise(wait=False)
    stage.until(lambda: row.state == "running")
    _kill_server(stage, connection)
    stage.until(lambda: stage.queue.link.trouble is not None)
    assert not row.is_ended
    stage.preferences.python = os.environ["FRESCO_TEST_PYTHON"]
    bpy.ops.fresco.server_start()
    stage.until(lambda: row.is_ended)
    assert row.state == "delivered", row.problem
    assert files_below(row.folder) >= 8
    bpy.ops.fresco.server_stop()


def _take_time(stage: Stage, *, steps: int) -> None:
    """A real render, as small as can be."""
    settings = stage.settings
    settings.strength, settings.steps, settings.steadiness = 0.5, steps, "QUICK"
    settings.own_working_size, settings.working_size = True, 64


def _kill_server(stage: Stage, connection: str) -> None:
    protocol = stage.module("fresco_protocol.connection")
    os.kill(protocol.read_connection(connection).pid, signal.SIGKILL)


def saved_and_reopened(stage: Stage) -> None:
    """The .blend keeps the queue: opened again it follows the job that went on, and fills the strip."""
    strip = stage.sequence("png", trim=(0, 16))
    _take_time(stage, steps=12)
    stage.select(strip)
    row, = stage.stylise(wait=False)
    stage.until(lambda: row.state == "running")
    path = str(stage.work / "cut.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.read_homefile(use_factory_startup=False)
    assert not stage.queue.rows
    bpy.ops.wm.open_mainfile(filepath=path)
    again, = stage.queue.rows
    assert again is not row and again.key == row.key and not again.is_ended
    stage.until(lambda: again.is_ended)
    assert again.state == "delivered" and again.job.done == 8, again
    assert stage.span(stage.result(again)) == (1, 9)
    assert stage.seen(1, 1, muted=(stage.strips["png"],))[0].max() > 0.1


def rate_23976(stage: Stage) -> None:
    """The rate is a rational."""
    stage.scene.render.fps, stage.scene.render.fps_base = 24, 1.001
    strip = stage.sequence("png")
    stage.select(strip)
    row, = stage.stylise()
    assert str(row.shot.plate.rate) == "24000/1001"
    stage.check_result(row, strip)


def channels(stage: Stage) -> None:
    """Taken and locked channels are passed by; without a free one nothing happens, and a sentence says why."""
    strip = stage.sequence("png", channel=1, trim=(0, 20))
    stage.sequence("exr", channel=2)
    stage.scene.sequence_editor.channels[3].lock = True
    stage.select(strip)
    row, = stage.stylise()
    assert stage.result(row).channel == 4
    for channel in range(5, 129):
        stage.strips.new_image(name="full", filepath=strip.directory + "f.1001.png", channel=channel, frame_start=1)
    stage.module("timeline").remove(row.key)
    stage.scene.sequence_editor.channels[4].lock = True
    before = stage.snapshot()
    _refused(lambda: bpy.ops.fresco.stylise(), "every channel above the strip is taken or locked")
    assert stage.snapshot() == before and len(stage.queue.rows) == 1


def _refused(call: Any, sentence: str) -> None:
    try:
        call()
    except RuntimeError as error:
        assert sentence in str(error), error
    else:
        raise AssertionError(f"not refused: {sentence}")


def versions(stage: Stage) -> None:
    """A new prompt is a new version beside the old; one shows, and each can go with its files."""
    strip = stage.sequence("png", at=7, trim=(2, 18))
    strip.use_flip_x = True
    stage.select(strip)
    first, = stage.stylise()
    stage.settings.prompt = "an ink drawing"
    bpy.ops.fresco.redo(key=first.key)
    second = stage.queue.rows[-1]
    assert second.state == "delivered" and second.version == 2 and second.group == first.group
    assert second.shot.plate == first.shot.plate, "the plate is exported once"
    assert stage.result(first).mute and not stage.result(second).mute
    assert stage.span(stage.result(second)) == stage.span(strip)
    bpy.ops.fresco.show_version(key=first.key)
    assert not stage.result(first).mute and stage.result(second).mute
    bpy.ops.fresco.take_choices(key=first.key)
    assert stage.settings.prompt == "a watercolour painting"
    bpy.ops.fresco.delete_version(key=first.key)
    assert not Path(first.folder).exists() and Path(second.folder).exists()
    assert not stage.result(second).mute
    bpy.ops.fresco.delete_version(key=second.key)
    assert not Path(second.shot_folder).exists()


def undo_is_one_step(stage: Stage) -> None:
    """One undo takes the result strip away; the job is not forgotten."""
    strip = stage.sequence("png", trim=(0, 22))
    stage.select(strip)
    bpy.ops.ed.undo_push(message="before")
    row, = stage.stylise()
    assert len(stage.strips) == 2
    bpy.ops.ed.undo()
    assert [found.name for found in stage.strips] == ["png"]
    assert stage.queue.rows == [row] and row.state == "delivered"
    bpy.ops.ed.redo()
    assert stage.result(row) is not None


def refusals(stage: Stage) -> None:
    """A grey button says why, and a wrong strip is refused in a sentence."""
    operators = stage.module("operators")
    assert operators.why_not(bpy.context) == "Select a strip in the sequencer first"
    strip = stage.sequence("png")
    stage.select(strip)
    stage.settings.prompt = " "
    assert operators.why_not(bpy.context) == "Write a prompt first"
    stage.settings.prompt, stage.settings.matte = "a watercolour", "MASK"
    assert operators.why_not(bpy.context) == "Choose a matte, or set Matte to None"
    stage.settings.matte = "NONE"
    assert bpy.ops.fresco.stylise.poll()
    stage.scene.frame_current = 400
    assert not bpy.ops.fresco.test_frame.poll()
    stage.settings.keyframes = "MARKERS"
    _refused(lambda: bpy.ops.fresco.stylise(), 'no marker named "fresco" lies on the strip')
    stage.settings.keyframes = "AUTO"
    frame = stage.footage / "png" / "f.1003.png"
    frame.rename(frame.with_name("gone"))
    _refused(lambda: bpy.ops.fresco.stylise(), "1 frames are missing on the disk")
    frame.with_name("gone").rename(frame)
    assert len(stage.strips) == 1 and not stage.queue.rows


def test_frame_and_markers(stage: Stage) -> None:
    """The playhead's frame alone; the artist's keyframes by marker; a preset set, kept and read."""
    strip = stage.sequence("png", at=11)
    stage.select(strip)
    stage.scene.frame_current = 15
    bpy.ops.fresco.test_frame()
    row = stage.queue.rows[-1]
    assert str(row.shot.plate.frames[0]) == "1005"
    assert stage.span(stage.result(row)) == (15, 16) and row.state == "delivered"
    assert burnt_number(stage.seen(15, 15, muted=(strip,))[0]) == 1005
    for frame in (11, 20, 34, 90):
        stage.scene.timeline_markers.new("fresco key", frame=frame)
    stage.settings.keyframes = "MARKERS"
    row, = stage.stylise()
    assert [str(frames) for frames in row.shot.keyframing.frames] == ["1001", "1010", "1024"]
    stage.settings.prompt = "a mosaic"
    bpy.ops.fresco.preset_save(preset="Mine")
    stage.settings.prompt, stage.settings.keyframes = "x", "AUTO"
    bpy.ops.fresco.preset_load(preset="Mine")
    assert (stage.settings.prompt, stage.settings.keyframes) == ("a mosaic", "MARKERS")
    bpy.ops.fresco.preset_load(preset="Ink")
    assert stage.settings.prompt == "an ink drawing"


def in_to_out(stage: Stage) -> None:
    """The preview range cuts; inside a meta strip a result lies beside its strip, and an export is refused."""
    strip = stage.sequence("png", at=1)
    stage.settings.extent, stage.scene.use_preview_range = "IN_OUT", True
    stage.scene.frame_preview_start, stage.scene.frame_preview_end = 5, 7
    stage.select(strip)
    row, = stage.stylise()
    assert str(row.shot.plate.frames[0]) == "1005-1007" and stage.span(stage.result(row)) == (5, 8)
    assert burnt_number(stage.seen(6, 6, muted=(strip,))[0]) == 1006
    stage.scene.frame_preview_start = stage.scene.frame_preview_end = 200
    _refused(lambda: bpy.ops.fresco.stylise(), "no selected strip lies in the range")
    stage.settings.extent = "STRIP"
    bpy.ops.fresco.delete_version(key=row.key)
    stage.select(strip)
    with _sequencer(stage):
        bpy.ops.sequencer.meta_make()
    meta = next(found for found in stage.strips if found.type == "META")
    inner = stage.module("compat").strips_of(meta)["png"]
    stage.scene.sequence_editor.display_stack(meta)
    stage.select(inner)
    row, = stage.stylise()
    assert stage.result(row).parent_meta() == meta and stage.span(stage.result(row)) == (1, 25)
    inner.use_flip_x = True
    _refused(lambda: bpy.ops.fresco.stylise(), "the strip lies inside a meta strip")


def edits(stage: Stage) -> None:
    """An edit carries what the plate shows; the prompt is trimmed, numbers are the ones that were typed."""
    strip = stage.sequence("png")
    stage.select(strip)
    settings = stage.settings
    settings.task, settings.caption, settings.prompt = "EDIT", "a man on a boat", "  a robot on a boat "
    settings.strength, settings.controls, settings.control_strength = 0.6, "SOFT_EDGE", 0.8
    settings.keyframes, settings.interval, settings.steadiness, settings.optimisation = "INTERVAL", 6, "CUSTOM", False
    settings.file_format = "PNG"
    clip, = stage.module("timeline").collect(bpy.context, stage.module("timeline").Extent.STRIP, handles=0, matte=None)
    row = stage.queue.add(clip, stage.module("properties").choices_of(settings), str(stage.work / "shots"))
    shot = row.shot
    assert (shot.task.value, shot.editing.caption, shot.look.prompt) == ("edit", "a man on a boat", "a robot on a boat")
    assert shot.look.strength == 0.6 and shot.look.controls[0].strength == 0.8
    assert (shot.keyframing.minimum_gap, shot.keyframing.maximum_gap) == (6, 6)
    assert shot.coherence.optimisation is None and shot.coherence.temporal is not None
    assert shot.delivery.sequence.endswith(".####.png") and shot.delivery.color_space == "srgb"
    stage.queue.cancel(row)
    assert row.state == "stopped" and row.is_ended


def names_of_sequences(stage: Stage) -> None:
    """Only files whose numbers follow one another are a sequence."""
    numbered = stage.module("media").numbered
    assert numbered(["a.0998.png", "a.0999.png", "a.1000.png"]) == ("a.####.png", 998)
    assert numbered(["9.exr", "10.exr"]) == ("#.exr", 9)
    assert numbered(["shot2-0001.exr", "shot2-0002.exr"]) == ("shot2-####.exr", 1)
    for names in (["a.png", "b.png"], ["a.1.png", "a.3.png"], ["a.1.png", "b.2.png"], ["a#.1.png", "a#.2.png"],
                  ["a.01.png", "a.2.png"], ["a.20260101120000.png", "a.20260101120001.png"], ["a.2.png", "a.1.png"]):
        assert numbered(names) is None, names


def no_server(stage: Stage) -> None:
    """Without a server the job waits, and the add-on says so; the command gives up with a remedy."""
    stage.preferences.connection_file = str(stage.work / "nothing.json")
    stage.module("operators").__dict__["CONNECTING"] = 0.5
    strip = stage.sequence("png", trim=(0, 22))
    stage.select(strip)
    begun = time.monotonic()
    _refused(lambda: bpy.ops.fresco.stylise(), "no server runs")
    assert time.monotonic() - begun < 10
    row, = stage.queue.rows
    assert row.state == "waiting" and stage.result(row) is not None
    _refused(lambda: bpy.ops.fresco.server_start(), "Choose a Python with Fresco in the preferences")


SCENARIOS = {name: function for name, function in list(globals().items())
             if callable(function) and getattr(function, "__module__", None) == __name__ and not name.startswith("_")}


def main(name: str, archive: str, connection: str, footage: str, work: str) -> int:
    """The exit code: 0 when the scenario went well."""
    try:
        SCENARIOS[name](Stage(archive, connection, footage, work))
    except BaseException:  # noqa: BLE001, the process must end by its own hand
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
