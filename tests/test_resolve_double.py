# SPDX-License-Identifier: Apache-2.0
"""The double of Resolve catches careless clients: each test does what a real Resolve punishes."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import burnt
import pytest
from davinci import Cut, edited
from resolve_bridge import API, NotModelled
from resolve_double import World
from resolve_timeline import timecode


def world_with_a_clip(folder: Path, release: tuple[int, ...] = (20, 2)) -> World:
    """A world with a clip of four frames on its only track."""
    world = World(release)
    edited(world, folder, Cut())
    return world


CARELESS: dict[str, Callable[[World], Any]] = {
    "Timeline.GetSelectedClips (needs 21.0.4)": lambda w: w.timeline.GetSelectedClips,
    "TimelineItem.SetSpeed (no such method)": lambda w: w.timeline.items()[0].SetSpeed,
    "Timeline.GetItemsInTrack (deprecated)": lambda w: w.timeline.GetItemsInTrack,
    "Timeline.GetTrackCount takes no keywords": lambda w: w.timeline.GetTrackCount(trackType="video"),
    "Timeline.GetTrackCount does not take ()": lambda w: w.timeline.GetTrackCount(),
    "SetRenderSettings does not take Width: 64": lambda w: w.project.SetRenderSettings({"Width": 64}),
    "SetRenderSettings does not take MarkIn: '1'": lambda w: w.project.SetRenderSettings({"MarkIn": "1"}),
    "SetRenderSettings does not take MarkIn: True": lambda w: w.project.SetRenderSettings({"MarkIn": True}),
    "MarkIn 0 lies before": lambda w: (
        w.project.SetRenderSettings({"SelectAllFrames": False, "MarkIn": 0, "MarkOut": 3, "TargetDir": "/tmp"}),
        w.project.AddRenderJob()),
    "StartRendering renders the user's own queue": lambda w: w.project.StartRendering(False),
    "StartRendering renders": lambda w: w.project.StartRendering([w.project.user_job()]),
    "DeleteAllRenderJobs wipes": lambda w: w.project.DeleteAllRenderJobs(),
    "DeleteRenderJob of the user's": lambda w: w.project.DeleteRenderJob(w.project.user_job()),
    "recordFrame 0 lies before": lambda w: append(w, recordFrame=0),
    "AppendToTimeline on track 5 of 1": lambda w: append(w, trackIndex=5),
    "AppendToTimeline of frames 0 to 4": lambda w: append(w, startFrame=0, endFrame=4),
    "AppendToTimeline of ['endFrame', 'inFrame'": lambda w: append(w, inFrame=3),
    "AppendToTimeline of ['endFrame', 'mediaPoolItem'": lambda w: append(w, mediaPoolItem="shot"),
    "MediaPool.AppendToTimeline does not take ()": lambda w: w.pool.AppendToTimeline(),
    "ImportMedia of '/a/b.exr'": lambda w: w.pool.ImportMedia(["/a/b.exr"]),
    "Timeline has no video track 0": lambda w: w.timeline.SetTrackEnable("video", 0, False),
    "DeleteTrack of video track 1 deletes 1 clips": lambda w: w.timeline.DeleteTrack("video", 1),
    "Timeline has no video track 3": lambda w: w.timeline.DeleteTrack("video", 3),
    "Export of EXPORT_EDL, EXPORT_NONE": lambda w: w.timeline.Export("/tmp/x", "EXPORT_EDL", "EXPORT_NONE"),
    "DeleteTimelines of the current timeline": lambda w: w.pool.DeleteTimelines([w.timeline]),
}


def append(world: World, **changes: Any) -> Any:
    """An append that is right but for the changes."""
    media = world.pool.root.clips[0]
    info = {"mediaPoolItem": media, "startFrame": 1003, "endFrame": 1006, "mediaType": 1, "trackIndex": 1,
            "recordFrame": 86500, **changes}
    return world.pool.AppendToTimeline([info])[0]


@pytest.mark.parametrize("words", CARELESS)
def test_a_careless_client_is_caught(words: str, tmp_path: Path) -> None:
    world = world_with_a_clip(tmp_path)
    CARELESS[words](world)
    assert [found for found in world.violations if words in found], world.violations


def test_a_careful_client_is_not(tmp_path: Path) -> None:
    world = world_with_a_clip(tmp_path)
    assert append(world).GetDuration() == 3
    assert world.violations == []


def test_hasattr_lies_and_dir_does_not(tmp_path: Path) -> None:
    timeline = world_with_a_clip(tmp_path).timeline
    assert hasattr(timeline, "NeverHeardOfIt")
    assert timeline.GetSelectedClips is None
    assert "GetSelectedClips" not in dir(timeline)
    assert "GetSelectedClips" in dir(World((21, 0, 4)).timeline)


def test_what_nobody_modelled_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(NotModelled):
        world_with_a_clip(tmp_path).timeline.GrabStill()


def test_an_overlap_comes_back_as_a_ghost_and_the_earlier_item_stays(tmp_path: Path) -> None:
    world = world_with_a_clip(tmp_path)
    ghost = append(world, recordFrame=86411)
    assert (ghost is None, ghost.GetStart(), len(world.timeline.items())) == (False, None, 1)


@pytest.mark.parametrize(("exclusive", "duration"), [(True, 3), (False, 4)])
def test_end_frames_count_as_the_release_has_it(tmp_path: Path, exclusive: bool, duration: int) -> None:
    world = world_with_a_clip(tmp_path)
    world.end_exclusive = exclusive
    assert append(world).GetDuration() == duration


def test_a_take_of_another_length_moves_the_clip(tmp_path: Path) -> None:
    item = world_with_a_clip(tmp_path).timeline.items()[0]
    item.AddTake(item.shown.media, 1005, 1008)
    item.SelectTakeByIndex(2)
    assert item.GetDuration() == 3


def test_a_dialog_swallows_every_call(tmp_path: Path) -> None:
    world = World(studio=False)
    edited(world, tmp_path)
    world.timeline.items()[0].CreateMagicMask("F")  # Studio only
    assert (world.resolve.GetProductName(), world.timeline.GetTrackCount("video")) == (False, False)


def test_a_render_takes_time_writes_resolves_names_and_tells_its_state_in_the_users_language(tmp_path: Path) -> None:
    world = World((20, 2), language="de")
    edited(world, tmp_path)
    (tmp_path / "out").mkdir()
    project = world.project
    project.SetCurrentRenderFormatAndCodec("exr", "RGBHalf")
    project.SetRenderSettings({"SelectAllFrames": False, "MarkIn": 86411, "MarkOut": 86412, "CustomName": "a",
                               "TargetDir": str(tmp_path / "out")})
    job = project.AddRenderJob()
    project.StartRendering([job])
    assert project.IsRenderingInProgress()
    assert project.GetRenderJobStatus(job) == {"JobStatus": "Wird gerendert", "CompletionPercentage": 50}
    assert not project.IsRenderingInProgress()
    assert project.GetRenderJobStatus(job)["JobStatus"] == "Abgeschlossen"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_00086411.exr", "a_00086412.exr"]
    assert burnt.number_in(burnt.read(str(tmp_path / "out" / "a_%08d.exr"), 86412)) == 1007


def test_labels_are_no_ids(tmp_path: Path) -> None:
    assert not World().project.SetCurrentRenderFormatAndCodec("EXR", "RGB half (ZIP)")


def test_an_input_colour_space_is_taken_under_colour_management_only(tmp_path: Path) -> None:
    world = world_with_a_clip(tmp_path)
    media = world.pool.root.clips[0]
    assert not media.SetClipProperty("Input Color Space", "sRGB")
    world.project.settings["colorScienceMode"] = "davinciYRGBColorManagedv2"
    assert media.SetClipProperty("Input Color Space", "sRGB")


def test_saving_a_project_without_a_name_is_caught() -> None:
    world = World()
    world.project.name = "Untitled Project"
    world.manager.SaveProject()
    assert "hangs for ever" in world.violations[0]


def test_drop_frame_timecodes_count_as_smpte_does() -> None:
    assert [timecode(frame, 30, drop=True) for frame in (1799, 1800, 17982, 107892)] == \
        ["00:00:59;29", "00:01:00;02", "00:10:00;00", "01:00:00;00"]
    assert timecode(86400, 24, drop=False) == "01:00:00:00"


def test_an_empty_track_is_none() -> None:
    assert World().timeline.GetItemListInTrack("video", 1) is None


def test_the_table_of_methods_is_whole() -> None:
    assert len(API["classes"]) == 13
    assert sum(map(len, API["classes"].values())) > 350


def test_pictures_show_their_numbers(tmp_path: Path) -> None:
    for number in (0, 1, 1005, 65535):
        assert burnt.number_in(burnt.picture(number) * 0.5) == number
    path = burnt.write_movie(tmp_path / "a.mov", [7, 1005, 40000])
    assert [burnt.number_in(burnt.read(path, frame)) for frame in (1, 2, 3)] == [7, 1005, 40000]


def test_getters_of_a_clip_that_runs_backwards_look_like_those_of_one_that_does_not(tmp_path: Path) -> None:
    """The numbers of a real one (AYON): of 100 frames from 1000 on, 20 to 60, with a left offset of 39."""
    world = World()
    media = world.imported("/a/output.%04d.tif", first=1000, count=100)
    item = world.timeline.put(media, 1060, 0, 41)
    item.speed = -100
    assert (item.GetLeftOffset(), item.GetRightOffset(), item.GetDuration()) == (39, 20, 41)
    assert (item.GetSourceStartFrame(), item.GetSourceEndFrame(), item.source(item.start + 40)) == (1020, 1061, 1020)
    assert world.timeline.Export(str(tmp_path / "a.otio"), "EXPORT_OTIO", "EXPORT_NONE")
    (clip,) = json.loads((tmp_path / "a.otio").read_text())["tracks"]["children"][0]["children"]
    assert [clip["source_range"][key]["value"] for key in ("start_time", "duration")] == [20, 41]
    assert clip["effects"][0]["time_scalar"] == -1
