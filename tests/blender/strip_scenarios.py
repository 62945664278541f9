# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenarios of strips: what is sent, what is exported, where the result lies, frame upon frame."""
from __future__ import annotations

import json
from pathlib import Path

import bpy
import numpy as np
from blender.stage import Stage, burnt_number, read_picture, refused, sequencer_shown, take_time

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
    record = json.loads(stage.result(row)["fresco"])
    assert (record["job"], record["state"], record["seed"], record["model"]) == (row.job.id, "delivered", 0, "embedded")
    assert record["shot"] == json.loads(row.shot.to_json()), "the strip carries its shot"
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
    stage.set_speed(strip, 50)
    start, end = stage.span(strip)
    assert end - start > 40
    row, = stage.stylise()
    assert row.clip.exported == "its speed is changed"
    shown = [burnt_number(picture) for picture in stage.seen(start, end - 1, muted=(stage.result(row),))]
    assert shown[0] == 1001 and shown == sorted(shown) and len(shown) > 1.8 * len(set(shown)), shown
    assert [burnt_number(picture) for picture in stage.seen(start, end - 1, muted=(strip,))] == shown
    stage.check_result(row, strip)
    stage.set_speed(strip, 25)
    refused(lambda: bpy.ops.fresco.snap_to_source(key=row.key), "the speed of its strip was changed since")


def meta_strip(stage: Stage) -> None:
    """A meta strip is exported as what it shows, trims and handles included."""
    first, second = stage.sequence("png", at=1, channel=1), stage.sequence("exr", at=15, channel=2)
    compat = stage.module("compat")
    stage.select(first, second)
    with sequencer_shown(stage):
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
    take_time(stage, steps=2)
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


def painted_matte(stage: Stage) -> None:
    """A matte of one frame, the playhead's, is carried on by the server along the motion."""
    strip, matte = stage.sequence("exr", at=1, trim=(0, 20)), stage.sequence("png", at=1, channel=5)
    stage.settings.matte, stage.settings.matte_strip, stage.settings.matte_propagate = "STRIP", matte.name, True
    stage.settings.matte_feather = 2
    stage.scene.frame_current = 90
    stage.select(strip)
    refused(lambda: bpy.ops.fresco.stylise(), "the playhead is not on the strip")
    stage.scene.frame_current = 3
    row, = stage.stylise()
    assert [path.name for path in Path(row.shot_folder, "matte").iterdir()] == ["matte.1003.png"]
    assert row.shot.matte.propagate and row.shot.matte.feather == 2
    stage.check_result(row, strip, muted=(matte,))


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


def matte_whatever_the_display(stage: Stage) -> None:
    """White is white, and grey is as grey, when the scene is made for another display, or graded."""
    strip, matte = stage.sequence("exr", at=1, trim=(0, 23)), stage.sequence("png", at=1, channel=5)
    timeline, panel = stage.module("timeline"), stage.module("properties")
    stage.settings.matte, stage.settings.matte_strip = "STRIP", matte.name
    stage.select(strip)
    drawn = []
    for display in ("sRGB", "Rec.1886", *(("Rec.2100-PQ",) if bpy.app.version >= (5, 0, 0) else ())):
        stage.scene.display_settings.display_device = display
        graded = stage.scene.render.image_settings
        graded.color_management = "OVERRIDE"
        graded.view_settings.use_curve_mapping = display != "sRGB"
        graded.view_settings.curve_mapping.curves[3].points[0].location = (0, 0.5)
        graded.view_settings.curve_mapping.update()
        clip, = timeline.collect(bpy.context, timeline.Extent.STRIP, handles=0, matte=panel.matte_of(stage.settings))
        row = stage.queue.add(clip, panel.choices_of(stage.settings), str(stage.work / "shots"))
        stage.queue.export_now(row)
        drawn.append(read_picture(Path(row.shot_folder) / "matte" / "matte.1001.png", raw=True))
        stage.queue.cancel(row)
    assert drawn[0].max() > 0.8
    assert all(np.abs(other - drawn[0]).max() < 0.002 for other in drawn), [one.max() for one in drawn]


def soft_alpha(stage: Stage) -> None:
    """What shines through a strip shines through its result, whatever way the strip went."""
    below = stage.sequence("exr", at=1, channel=1)
    for kind, flipped, file_format in (("straight", False, "EXR"), ("premultiplied", False, "EXR"),
                                       ("premultiplied", True, "EXR"), ("straight", False, "PNG")):
        strip = stage.sequence(kind, at=1, channel=2, trim=(0, 19))
        strip.blend_type, strip.use_flip_x = "ALPHA_OVER", flipped
        stage.settings.file_format = file_format
        stage.select(strip)
        row, = stage.stylise()
        over, alone = stage.seen(1, 1)[0], stage.seen(1, 1, muted=(below,))[0]
        assert np.abs(over - alone).max() > 0.1, "it shines through"
        stage.check_result(row, strip)
        stage.strips.remove(stage.result(row))
        stage.strips.remove(strip)


def names_in_any_language(stage: Stage) -> None:
    """Folders and strips may be called anything that the system allows."""
    for name in ("Größe 海 мир", "shot_#12 50%", "a{b}c", "x;y & z"):
        stage.settings.folder = str(stage.work / name)
        strip = stage.sequence("png", at=1, trim=(0, 20))
        strip.use_flip_x, strip.name = True, "海/мир: {x} #1 %d"
        stage.select(strip)
        row, = stage.stylise()
        stage.check_result(row, strip, moves=False)
        for found in list(stage.strips):
            stage.strips.remove(found)


def project_moved(stage: Stage) -> None:
    """A .blend with its folder beside it is moved elsewhere: the result is there all the same."""
    here, there = stage.work / "show", stage.work / "archive"
    here.mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(here / "edit.blend"))
    stage.settings.folder = "//fresco"
    strip = stage.sequence("png", at=1, trim=(0, 20))
    stage.select(strip)
    row, = stage.stylise()
    stage.check_result(row, strip)
    key = row.key
    bpy.ops.wm.save_mainfile()
    here.rename(there)
    bpy.ops.wm.open_mainfile(filepath=str(there / "edit.blend"))
    result = stage.module("results").strip_of_job(key)[1]
    assert result.directory.startswith("//"), result.directory
    assert burnt_number(stage.seen(2, 2, muted=(stage.strips["png"],))[0]) == 1002


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
    stage.module("results").remove(row.key)
    stage.scene.sequence_editor.channels[4].lock = True
    before = stage.snapshot()
    refused(lambda: bpy.ops.fresco.stylise(), "every channel above the strip is taken or locked")
    assert stage.snapshot() == before and len(stage.queue.rows) == 1


def in_to_out(stage: Stage) -> None:
    """The preview range cuts, and a range beside the strip is refused."""
    strip = stage.sequence("png", at=1)
    stage.settings.extent, stage.scene.use_preview_range = "IN_OUT", True
    stage.scene.frame_preview_start, stage.scene.frame_preview_end = 5, 7
    stage.select(strip)
    row, = stage.stylise()
    assert str(row.shot.plate.frames[0]) == "1005-1007" and stage.span(stage.result(row)) == (5, 8)
    assert burnt_number(stage.seen(6, 6, muted=(strip,))[0]) == 1006
    stage.scene.frame_preview_start = stage.scene.frame_preview_end = 200
    refused(lambda: bpy.ops.fresco.stylise(), "no selected strip lies in the range")


def inside_a_meta_strip(stage: Stage) -> None:
    """A strip inside metas is sent or exported alone; what the metas do acts on the result as on the strip."""
    strip, other = stage.sequence("png", at=5, channel=2, trim=(0, 18)), stage.sequence("exr", at=1, channel=1)
    stage.select(strip, other)
    compat = stage.module("compat")
    for _ in range(2):
        with sequencer_shown(stage):
            bpy.ops.sequencer.meta_make()
    outer = next(found for found in stage.strips if found.type == "META")
    inner = next(found for found in compat.strips_of(outer) if found.type == "META")
    outer.transform.offset_x = 9
    strip, other = (compat.strips_of(inner)[name] for name in ("png", "exr"))
    stage.scene.sequence_editor.display_stack(outer)
    stage.scene.sequence_editor.display_stack(inner)
    stage.select(strip)
    row, = stage.stylise()
    assert row.clip.media is not None
    assert stage.result(row).parent_meta() == inner and stage.span(stage.result(row)) == (5, 11)
    bpy.ops.fresco.delete_version(key=row.key)
    strip.use_flip_x = True
    stage.select(strip)
    before = stage.snapshot()
    row, = stage.stylise()
    assert row.clip.exported == "it is mirrored", row.clip.exported
    assert stage.snapshot() == before
    assert stage.result(row).parent_meta() == inner
    stage.check_result(row, strip, muted=(other,), film=True)


def snapped_to_source(stage: Stage) -> None:
    """A strip that was moved, slipped and trimmed takes its result along, in all versions, in one undo step."""
    compat, queue = stage.module("compat"), stage.queue
    strip, other = stage.sequence("png", at=10, trim=(6, 6)), stage.sequence("exr", at=60, channel=2)
    stage.settings.handles = 4
    stage.select(strip)
    first, = stage.stylise()
    stage.result(first).select = True
    compat.trim(stage.result(first), 6, 4)  # an artist cuts the result shorter
    bpy.ops.fresco.redo(key=first.key)
    second = queue.rows[-1]
    assert burnt_number(stage.seen(18, 18, muted=(strip,))[0]) == 1009, "a new version of a trimmed result"
    queue.tick()
    assert not queue.misplaced
    compat.place(strip, 50, 53, 68)  # moved by 40, trims changed, over 60 where another strip lies above
    other.channel = stage.result(second).channel
    queue.tick()
    assert queue.misplaced == {first.key, second.key}
    bpy.ops.ed.undo_push(message="before")
    bpy.ops.fresco.snap_to_source(key=first.key)
    strip = stage.strips["png"]
    for row in (first, second):
        result = stage.result(row)
        assert stage.span(result) == (53, 68), stage.span(result)
        others = [found for found in stage.strips if found != result and found.channel == result.channel]
        assert all(stage.span(found)[1] <= 53 or stage.span(found)[0] >= 68 for found in others)
    stage.strips["exr"].mute = True
    assert burnt_number(stage.seen(55, 55, muted=(strip,))[0]) == 1006
    bpy.ops.ed.undo()
    assert stage.span(stage.result(second)) != (53, 68)
    strip = stage.strips["png"]
    compat.place(strip, 50, 50, 74)  # four frames at both ends are not there, handles cover the rest
    stage.select(stage.result(first))
    bpy.ops.fresco.snap_to_source()
    assert stage.span(stage.result(first)) == (52, 72)
    strip.name = "renamed"
    refused(lambda: bpy.ops.fresco.snap_to_source(key=first.key), "the strip that it was made of is gone")


def effect_and_scene(stage: Stage) -> None:
    """An effect is exported with its inputs, a scene strip as its scene looks."""
    below = stage.sequence("exr", at=1, channel=1, trim=(0, 20))
    above = stage.sequence("png", at=1, channel=2, trim=(0, 20))
    effect = stage.effect("CROSS", below, above)
    stage.select(effect)
    row, = stage.stylise()
    assert row.clip.exported == "it is a cross strip"
    stage.check_result(row, effect, muted=(below, above), moves=False)
    scene = bpy.data.scenes.new("Set")
    scene.render.resolution_x, scene.render.resolution_y = stage.scene.render.resolution_x, 64
    strip = stage.strips.new_scene(name="set", scene=scene, channel=20, frame_start=30)
    stage.module("compat").trim(strip, 0, stage.span(strip)[1] - 32)
    strip.scene_input = "SEQUENCER"
    editor = scene.sequence_editor_create()
    inside = stage.module("compat").strips_of(editor).new_image(
        name="in", filepath=str(stage.footage / "png" / "f.1002.png"), channel=1, frame_start=1)
    inside.select = False
    stage.select(strip)
    row, = stage.stylise()
    assert row.clip.exported == "it is a scene strip"
    assert burnt_number(stage.seen(30, 30, muted=(strip,))[0]) == 1002


def names_of_sequences(stage: Stage) -> None:
    """Only files whose numbers follow one another are a sequence."""
    numbered = stage.module("media").numbered
    assert numbered(["a.0998.png", "a.0999.png", "a.1000.png"]) == ("a.####.png", 998)
    assert numbered(["9.exr", "10.exr"]) == ("#.exr", 9)
    assert numbered(["shot2-0001.exr", "shot2-0002.exr"]) == ("shot2-####.exr", 1)
    for names in (["a.png", "b.png"], ["a.1.png", "a.3.png"], ["a.1.png", "b.2.png"], ["a#.1.png", "a#.2.png"],
                  ["a.01.png", "a.2.png"], ["a.20260101120000.png", "a.20260101120001.png"], ["a.2.png", "a.1.png"]):
        assert numbered(names) is None, names
