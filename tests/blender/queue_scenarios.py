# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenarios of jobs: cancel, reload, versions, undo, deletion, refusals."""
from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import bpy
from blender.stage import SIZE, Stage, burnt_number, files_below, refused, take_time


def cancelled(stage: Stage) -> None:
    """Cancel ends the job at the server; the strip stays, and Delete takes strip and files."""
    strip = stage.sequence("png")
    take_time(stage, steps=400)
    stage.select(strip)
    row, = stage.stylise(wait=False)
    stage.until(lambda: row.state == "running")
    bpy.ops.fresco.cancel(key=row.key)
    stage.until(lambda: row.is_ended)
    assert row.state == "cancelled" and stage.result(row) is not None
    assert stage.result(row).mute, "an empty result does not hide its plate"
    bpy.ops.fresco.delete_version(key=row.key)
    assert "fresco" not in " ".join(strip.name for strip in stage.strips if "fresco" in strip)
    assert not Path(row.shot_folder).exists() and row not in stage.queue.rows


def shown_while_it_runs(stage: Stage) -> None:
    """The timeline is looked at, and rendered, before the frames are there; their size is known."""
    take_time(stage, steps=400)
    for kind in ("png", "exr"):
        strip = stage.sequence(kind)
        strip.use_flip_x = kind == "exr"
        stage.select(strip)
        row, = stage.stylise(wait=False)
        sizes = {(picture.orig_width, picture.orig_height) for picture in stage.result(row).elements}
        assert sizes == {SIZE}, sizes
        assert len(stage.seen(1, 24)) == 24
        stage.queue.cancel(row)
        stage.until(lambda row=row: row.is_ended)
        for found in list(stage.strips):
            stage.strips.remove(found)


def deleted_while_it_runs(stage: Stage) -> None:
    """The strip goes at once, the files when the worker has ended: it leaves nothing behind."""
    strip = stage.sequence("png")
    take_time(stage, steps=400)
    stage.select(strip)
    row, = stage.stylise(wait=False)
    stage.until(lambda: row.state == "running")
    stage.queue.delete(row)
    assert stage.result(row) is None and row.state == "deleting" and Path(row.folder).exists()
    path = str(stage.work / "cut.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.open_mainfile(filepath=path)
    again, = stage.queue.rows
    assert again.state == "deleting"
    stage.until(lambda: not stage.queue.rows)
    assert again.job.state.value == "cancelled" and not Path(row.shot_folder).exists()
    time.sleep(1)
    assert not Path(row.shot_folder).exists()
    assert [path.name for path in Path(row.shot_folder).parent.iterdir()] == []


def an_unreadable_row(stage: Stage) -> None:
    """It costs no other row, and the .blend keeps it as it is."""
    first, second = stage.sequence("png", trim=(0, 20)), stage.sequence("exr", at=50, trim=(0, 20))
    stage.select(first, second)
    rows = stage.stylise()
    path = str(stage.work / "cut.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    document = json.loads(stage.scene["fresco_queue"])
    document["rows"][0]["clip"] = "of another version"
    document["rows"].append(7)
    for handlers in (bpy.app.handlers.save_pre,):
        handlers.remove(stage.module("ticker").write_rows)
    stage.scene["fresco_queue"] = json.dumps(document)
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.app.handlers.save_pre.append(stage.module("ticker").write_rows)
    bpy.ops.wm.open_mainfile(filepath=path)
    again, = stage.queue.rows
    assert again.key == rows[1].key and again.state == "delivered"
    assert "2 jobs of this .blend cannot be read" in stage.queue.news[-1].text
    bpy.ops.wm.save_as_mainfile(filepath=path)
    kept = json.loads(stage.scene["fresco_queue"])["rows"]
    assert [document["rows"][0], 7] == kept[1:] and kept[0]["key"] == again.key
    stage.scene["fresco_queue"] = "{"
    stage.queue.load()
    assert not stage.queue.rows and stage.queue.news[-1].is_bad


def saved_and_reopened(stage: Stage) -> None:
    """The .blend keeps the queue: opened again it follows the job that went on, and fills the strip."""
    strip = stage.sequence("png", trim=(0, 16))
    take_time(stage, steps=12)
    stage.select(strip)
    row, = stage.stylise(wait=False)
    stage.until(lambda: row.state == "running")
    stage.scene.name = "Renamed"
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


def cut_in_pieces(stage: Stage) -> None:
    """A result that an artist cut is one result still: all its pieces are hidden, replaced and deleted."""
    strip = stage.sequence("png", at=1, trim=(0, 16))
    stage.select(strip)
    row, = stage.stylise()
    stage.result(row).split(frame=5, split_method="SOFT")
    pieces = [found for _, found in stage.module("results").strips_of_job(row.key)]
    assert sorted(stage.span(piece) for piece in pieces) == [(1, 5), (5, 9)]
    bpy.ops.fresco.redo(key=row.key)
    assert all(piece.mute for _, piece in stage.module("results").strips_of_job(row.key))
    second = stage.queue.rows[-1]
    assert stage.span(stage.result(second)) == (1, 9)
    bpy.ops.fresco.delete_version(key=second.key)
    assert not any(piece.mute for _, piece in stage.module("results").strips_of_job(row.key))
    bpy.ops.fresco.delete_version(key=row.key)
    assert [found.name for found in stage.strips] == ["png"]


def versions_in_two_scenes(stage: Stage) -> None:
    """Results of two scenes may have one name: a new version lies in the scene of the old one."""
    strip = stage.sequence("png", at=1, trim=(0, 22))
    stage.select(strip)
    first, = stage.stylise()
    here, other = stage.scene, bpy.data.scenes.new("A scene that comes first")
    bpy.context.window.scene = other
    stage.begin()
    stage.select(stage.sequence("exr", at=40, trim=(0, 22)))
    second, = stage.stylise()
    assert stage.result(first).name == stage.result(second).name
    bpy.ops.fresco.redo(key=first.key)
    found, strip = stage.module("results").strip_of_job(stage.queue.rows[-1].key)
    assert found == here and stage.span(strip) == (1, 3) and len(stage.strips) == 2, found
    assert stage.result(first).mute and not stage.result(second).mute


def versions_in_a_copied_scene(stage: Stage) -> None:
    """In a copy of the edit a new version lies beside the copy's result; the other edit stays as it is."""
    strip = stage.sequence("png", at=1, trim=(0, 22))
    stage.select(strip)
    first, = stage.stylise()
    one, other = stage.scene, stage.scene.copy()
    other.name = "Z, the copy"
    bpy.context.window.scene = other
    stage.module("compat").show_in_sequencer(bpy.context, other)
    bpy.ops.fresco.redo(key=first.key)
    second = stage.queue.rows[-1]
    assert stage.module("results").strip_of_job(second.key)[0] == other and len(stage.strips) == 3
    bpy.ops.fresco.show_version(key=second.key)
    muted = {scene: [found.mute for found in stage.module("compat").strips_of(scene.sequence_editor)]
             for scene in (one, other)}
    assert muted == {one: [False, False], other: [False, True, False]}, muted


def versions_of_a_moved_result(stage: Stage) -> None:
    """A new version looks for its markers where the strip lies now, and comes there when the old result is gone."""
    strip = stage.sequence("png", at=1)
    markers = [stage.scene.timeline_markers.new("fresco", frame=frame) for frame in (1, 10, 20)]
    stage.settings.keyframes = "MARKERS"
    stage.select(strip)
    first, = stage.stylise()
    stage.module("compat").place(strip, 101, 101, 125)
    for marker in markers:
        marker.frame += 100
    bpy.ops.fresco.snap_to_source(key=first.key)
    bpy.ops.fresco.redo(key=first.key)
    second = stage.queue.rows[-1]
    assert [str(frames) for frames in second.shot.keyframing.frames] == ["1001", "1010", "1020"]
    stage.module("compat").place(strip, 201, 201, 225)
    stage.settings.keyframes = "AUTO"
    stage.module("results").remove(second.key)
    bpy.ops.fresco.redo(key=second.key)
    assert stage.span(stage.result(stage.queue.rows[-1])) == (201, 225)


def a_plate_that_was_not_exported(stage: Stage) -> None:
    """A stopped export has no second version, and goes on where it stopped, in the .blend that is opened again too."""
    timeline, panel = stage.module("timeline"), stage.module("properties")
    strip = stage.sequence("png", at=1, trim=(0, 20))
    strip.use_flip_x = True
    stage.select(strip)
    clip, = timeline.collect(bpy.context, timeline.Extent.STRIP, handles=0, matte=None)
    row = stage.queue.add(clip, panel.choices_of(stage.settings), str(stage.work / "shots"))
    stage.queue.cancel(row)
    refused(lambda: bpy.ops.fresco.redo(key=row.key), "the plate of this job was not exported")
    path = str(stage.work / "cut.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.open_mainfile(filepath=path)
    again, = stage.queue.rows
    stage.queue.retry(again)
    assert again.state == "exporting"
    stage.queue.export_now(again)
    stage.until(lambda: again.is_ended)
    stage.check_result(again, stage.strips["png"])


def a_number_is_not_used_again(stage: Stage) -> None:
    """A version that was cleared from the list keeps its files; the next one does not write over them."""
    strip = stage.sequence("png", trim=(0, 20))
    stage.select(strip)
    first, = stage.stylise()
    bpy.ops.fresco.redo(key=first.key)
    second = stage.queue.rows[-1]
    stage.queue.rows.remove(second)  # as Clear Ended does while the first one still runs
    bpy.ops.fresco.redo(key=first.key)
    third = stage.queue.rows[-1]
    assert (third.version, third.state) == (3, "delivered"), third.version
    assert files_below(second.folder) >= 4 and third.folder != second.folder


def cleared_versions_keep_their_files(stage: Stage) -> None:
    """Clear Ended takes versions off the list only: deleting the last one that is listed leaves their files."""
    strip = stage.sequence("png", trim=(0, 20))
    stage.select(strip)
    first, = stage.stylise()
    bpy.ops.fresco.clear_ended()
    stage.queue.rows.append(first)  # back, as one that runs would have stayed
    bpy.ops.fresco.redo(key=first.key)
    second = stage.queue.rows[-1]
    stage.queue.rows.remove(first)
    bpy.ops.fresco.delete_version(key=second.key)
    assert not stage.queue.rows and not Path(second.folder).exists()
    assert files_below(first.folder) >= 4, "its strip is still on the timeline"


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


def undo_shows_no_empty_strip(stage: Stage) -> None:
    """A job ends between two steps of undo: going back does not bring an empty strip before its plate."""
    strip = stage.sequence("png", trim=(0, 20))
    take_time(stage, steps=400)
    stage.select(strip)
    row, = stage.stylise(wait=False)
    stage.until(lambda: row.state == "running")
    bpy.ops.fresco.cancel(key=row.key)
    stage.until(lambda: row.is_ended)
    stage.scene.frame_current = 7
    bpy.ops.ed.undo_push(message="something else")
    bpy.ops.ed.undo()
    assert stage.result(row).mute and json.loads(stage.result(row)["fresco"])["state"] == "cancelled"


def undo_of_a_deletion(stage: Stage) -> None:
    """Undo brings the strip of a deleted version back, not its files: it is muted, which is told, and another shows."""
    strip = stage.sequence("png", trim=(0, 20))
    stage.select(strip)
    first, = stage.stylise()
    bpy.ops.fresco.redo(key=first.key)
    second = stage.queue.rows[-1]
    bpy.ops.fresco.delete_version(key=second.key)
    for _ in range(2):
        bpy.ops.ed.undo()
        assert [(found.name[-4:], found.mute) for found in stage.strips] == [
            ("png", False), ("v001", False), ("v002", True)]
        assert "its files were deleted" in stage.queue.news[-1].text
        bpy.ops.ed.redo()
        assert stage.result(second) is None and not stage.result(first).mute
    bpy.ops.fresco.delete_version(key=first.key)
    bpy.ops.ed.undo()
    assert [found.mute for found in stage.strips] == [False, True]


def undo_after_going_on(stage: Stage) -> None:
    """A result that was hidden while it was empty does not come back hidden; one that an artist muted does."""
    timeline, panel = stage.module("timeline"), stage.module("properties")
    stage.select(stage.sequence("png", trim=(0, 20)))
    clip, = timeline.collect(bpy.context, timeline.Extent.STRIP, handles=0, matte=None)
    row = stage.queue.add(clip, panel.choices_of(stage.settings), str(stage.work / "shots"))
    bpy.ops.fresco.cancel(key=row.key)
    assert row.state == "stopped" and stage.result(row).mute
    bpy.ops.ed.undo_push(message="while it is hidden")
    bpy.ops.fresco.retry(key=row.key)
    stage.until(lambda: row.is_ended)
    assert row.state == "delivered" and not stage.result(row).mute
    bpy.ops.ed.undo_push(message="another")
    bpy.ops.ed.undo()
    assert not stage.result(row).mute
    stage.result(row).mute = True
    bpy.ops.ed.undo_push(message="muted by hand")
    bpy.ops.ed.undo_push(message="another")
    bpy.ops.ed.undo()
    assert stage.result(row).mute


def project_copied(stage: Stage) -> None:
    """In a .blend that was copied with its folder, versions are made and deleted there, and not at the old place."""
    here, there = stage.work / "show", stage.work / "archive"
    here.mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(here / "edit.blend"))
    stage.settings.folder = "//fresco"
    strip = stage.sequence("png", at=1, trim=(0, 20))
    strip.use_flip_x = True
    stage.select(strip)
    row, = stage.stylise()
    bpy.ops.wm.save_mainfile()
    shutil.copytree(here, there)
    before = files_below(str(here))
    bpy.ops.wm.open_mainfile(filepath=str(there / "edit.blend"))
    again, = stage.queue.rows
    bpy.ops.fresco.redo(key=again.key)
    second = stage.queue.rows[-1]
    assert second.state == "delivered" and second.folder.startswith(str(there)), second.folder
    assert second.shot.plate.sequence.startswith(str(there)), second.shot.plate.sequence
    for version in (second, again):
        bpy.ops.fresco.delete_version(key=version.key)
    assert not Path(again.shot_folder).exists() and files_below(str(here)) == before
    bpy.ops.wm.open_mainfile(filepath=str(here / "edit.blend"))
    (there / "fresco").rmdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(there / "edit.blend"), copy=True)
    bpy.ops.wm.open_mainfile(filepath=str(there / "edit.blend"))
    assert stage.queue.rows[0].folder == row.folder, "without the folder the files are where they were"


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
    refused(lambda: bpy.ops.fresco.stylise(), 'no marker named "fresco" lies on the strip')
    marker, other = stage.scene.timeline_markers.new("fresco", frame=3), stage.sequence("exr", at=100, channel=3)
    stage.select(strip, other)
    refused(lambda: bpy.ops.fresco.stylise(), "lies on the strip (exr)")
    assert len(stage.strips) == 2 and not stage.queue.rows, "all or none"
    stage.strips.remove(other)
    stage.scene.timeline_markers.remove(marker)
    stage.select(strip)
    stage.settings.keyframes = "AUTO"
    frame = stage.footage / "png" / "f.1003.png"
    frame.rename(frame.with_name("gone"))
    refused(lambda: bpy.ops.fresco.stylise(), "1 frames are missing on the disk")
    frame.with_name("gone").rename(frame)
    assert len(stage.strips) == 1 and not stage.queue.rows


def edited_before_it_is_exported(stage: Stage) -> None:
    """An export waits for others, and the artist edits on: what it would show then is refused, not rendered."""
    compat, timeline, panel = stage.module("compat"), stage.module("timeline"), stage.module("properties")
    edits = {
        "moved or trimmed": (lambda strip: compat.place(strip, 30, 30, 54), lambda strip: compat.trim(strip, 2, 0)),
        "deleted or renamed": (stage.strips.remove, lambda strip: setattr(strip, "name", "other"))}
    for words, ways in edits.items():
        for way in ways:
            strip = stage.sequence("png", at=1, trim=(1, 1))
            strip.use_flip_x = True
            stage.select(strip)
            clip, = timeline.collect(bpy.context, timeline.Extent.STRIP, handles=1, matte=None)
            row = stage.queue.add(clip, panel.choices_of(stage.settings), str(stage.work / "shots"))
            way(strip)
            stage.queue.export_now(row)
            assert row.state == "failed" and words in row.problem.what, row.problem
            assert stage.result(row).mute
            for found in list(stage.strips):
                stage.strips.remove(found)
    stage.module("jobs").__dict__["export_here"] = lambda _: 1 / 0
    strip = stage.sequence("png", at=1)
    strip.use_flip_x = True
    stage.select(strip)
    refused(lambda: bpy.ops.fresco.stylise(), "Blender cannot export the clip: division by zero")


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
    stage.select(strip)
    bpy.ops.fresco.test_frame()
    assert stage.queue.rows[-1].shot.keyframing.frames is None, "a test frame needs no marker of its own"
    stage.settings.prompt = "a mosaic"
    bpy.ops.fresco.preset_save(preset="Mine")
    stage.settings.prompt, stage.settings.keyframes = "x", "AUTO"
    bpy.ops.fresco.preset_load(preset="Mine")
    assert (stage.settings.prompt, stage.settings.keyframes) == ("a mosaic", "MARKERS")
    bpy.ops.fresco.preset_load(preset="Ink")
    assert stage.settings.prompt == "an ink drawing"
