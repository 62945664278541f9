# SPDX-License-Identifier: Apache-2.0
"""Whole round trips: the strict double of Resolve in front, a real `fresco serve` behind, at strength 0.

Every picture shows its own number, so that what lies on the timeline is read frame by frame.
"""
from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import burnt
import pytest
from davinci import KEEPS, Cut, driven, edited, item_of, numbers, served, state, stylised, wish
from resolve_double import World
from resolve_timeline import MediaPoolItem
from router import Router

from fresco_davinci.clip import Destination, Input, MatteChoice, MatteSource, Phase, Record
from fresco_davinci.stylisation import Line, again, read_record, stylise
from fresco_davinci.timeline import Host, collect, records
from fresco_protocol.client import Client
from fresco_protocol.errors import DiskFull, FrescoError, HostRefused, InputError, Interrupted, PathRefused
from fresco_protocol.events import JobChanged
from fresco_protocol.job import JobState
from fresco_protocol.messages import Cancel, ListJobs, Watch
from fresco_protocol.shot import FrameRange

RELEASES = [(18, 6), (19, 1), (20, 2), (21, 0, 4)]
HALF = burnt.BLOCK * burnt.ACROSS // 2


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    with served(tmp_path_factory.mktemp("server")) as line:
        yield line


@pytest.fixture(params=[(release, studio) for release in RELEASES for studio in (True, False)],
                ids=lambda found: f"{'.'.join(map(str, found[0]))}-{'studio' if found[1] else 'free'}")
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Each release and edition; what a careful client would not have done fails the test."""
    release, studio = request.param
    world = World(release, studio=studio)
    yield world
    assert world.violations == []


def test_the_graded_clip_under_the_playhead_lands_on_a_track_of_its_own(
        world: World, line: Line, tmp_path: Path) -> None:
    clip = edited(world, tmp_path)
    clip.gain = 0.5
    before = state(world)
    host, _, record = stylised(world, line, wish(tmp_path))
    item = item_of(world, record)
    assert (item.start, item.duration, numbers(item)) == (clip.start, clip.duration, [1005, 1006, 1007, 1008])
    assert (item.gain, float(item.picture(item.start).max())) == (1.0, 0.5)  # graded once
    track = world.timeline.tracks["video"][item.track - 1]
    assert (track.name, item.track, item.color) == ("FRESCO", 2, "Orange")
    assert state(world) == before
    assert "v001" in item.do_GetMarkers()[0.0]["name"]
    assert read_record(record.folder + "/fresco.json") == record
    assert ("Before Fresco" in world.project.presets) is (world.ledger.version < (19, 1))
    media = item.shown.media
    assert media is not None
    assert (media in world.pool.root.folders[0].clips, media.properties["FPS"]) == (True, "24")
    assert bool(media.metadata) is (world.ledger.version >= (19,))
    assert not any("did not put back" in notice for notice in host.notices)


def test_a_sequence_from_1001_on_is_read_itself_and_keeps_its_grade(world: World, line: Line, tmp_path: Path) -> None:
    clip = edited(world, tmp_path)
    clip.gain, clip.properties["ZoomX"] = 0.5, 1.25
    _, _, record = stylised(world, line, wish(tmp_path, input=Input.SOURCE))
    item = item_of(world, record)
    assert (item.start, numbers(item)) == (clip.start, [1005, 1006, 1007, 1008])
    assert (item.gain, item.properties["ZoomX"]) == (0.5, 1.25)
    assert not [call for call in world.ledger.calls if call[1] == "AddRenderJob"]
    assert sorted(path.name for path in Path(record.folder).glob("look.*.exr"))[0] == "look.00001005.exr"


@pytest.mark.parametrize("input", list(Input))
def test_a_drop_frame_timeline_that_starts_at_an_hour(world: World, line: Line, tmp_path: Path, input: Input) -> None:
    world = World(world.ledger.version, studio=world.studio, rate="29.97 DF")
    clip = edited(world, tmp_path, Cut(start=1795, count=10, frames=20))  # over the minute where two numbers drop out
    assert world.timeline.start == 107892
    _, collected, record = stylised(world, line, wish(tmp_path, input=input))
    item = item_of(world, record)
    assert (item.start, numbers(item)) == (clip.start, list(range(1005, 1015)))
    assert (str(collected.rate), collected.drop_frame, collected.playhead) == ("30000/1001", True, 3)
    assert item.shown.media is not None
    assert item.shown.media.properties["FPS"] == "29.97"
    assert world.violations == []


def test_handles_are_rendered_and_trimmed(world: World, line: Line, tmp_path: Path) -> None:
    clip = edited(world, tmp_path, Cut(skipped=2))
    _, _, record = stylised(world, line, wish(tmp_path, input=Input.SOURCE, handles=3))
    item = item_of(world, record)
    assert (item.start, numbers(item)) == (clip.start, [1003, 1004, 1005, 1006])
    assert (item.do_GetLeftOffset(), item.do_GetRightOffset()) == (2, 3)  # the media begins two frames before the clip


def test_what_lies_above_is_not_touched(world: World, line: Line, tmp_path: Path) -> None:
    clip = edited(world, tmp_path)
    above = edited(world, tmp_path / "above", Cut(track=2, first=2001, start=10))
    above.enabled = False
    before = state(world)
    _, _, record = stylised(world, line, wish(tmp_path))
    item = item_of(world, record)
    assert (item.track, item.start, numbers(item)) == (3, clip.start, [1005, 1006, 1007, 1008])
    assert state(world) == before


def test_a_take_of_the_clip_itself(world: World, line: Line, tmp_path: Path) -> None:
    clip = edited(world, tmp_path)
    clip.gain = 0.5
    host, _, record = stylised(world, line, wish(tmp_path, input=Input.SOURCE, destination=Destination.TAKE, handles=2))
    assert record.placed == clip.id
    assert (clip.start, clip.duration, numbers(clip)) == (world.timeline.start + 10, 4, [1005, 1006, 1007, 1008])
    assert (clip.do_GetTakesCount(), clip.do_GetSelectedTakeIndex(), clip.gain) == (2, 2, 0.5)
    assert len(world.timeline.tracks["video"]) == 1
    newer = driven(again(host, records(host)[0], KEEPS, line))
    assert (newer.version, clip.do_GetTakesCount(), numbers(clip)) == (2, 3, [1005, 1006, 1007, 1008])


def test_the_media_pool_only(world: World, line: Line, tmp_path: Path) -> None:
    edited(world, tmp_path)
    before = state(world)
    _, _, record = stylised(world, line, wish(tmp_path, destination=Destination.POOL))
    media = world.pool.root.folders[0].clips[0]
    assert (record.placed, media.count, state(world)) == (None, 4, before)
    assert [burnt.number_in(media.picture(media.first + n)) for n in range(4)] == [1005, 1006, 1007, 1008]


@pytest.mark.parametrize("input", list(Input))
def test_redo_is_a_version_of_the_same_result(world: World, line: Line, tmp_path: Path, input: Input) -> None:
    edited(world, tmp_path)
    host, clip, first = stylised(world, line, wish(tmp_path, input=input))
    item = item_of(world, first)
    assert collect(host)[0].item == clip.item  # the result on top is looked through
    second = driven(again(host, records(host)[0], replace(KEEPS, prompt="an ink drawing"), line))
    assert (second.version, second.placed, second.wish.look.prompt) == (2, item.id, "an ink drawing")
    assert (item.do_GetTakesCount(), item.do_GetSelectedTakeIndex(), item.start) == (2, 2, clip.first)
    assert numbers(item) == [1005, 1006, 1007, 1008]
    assert len(world.timeline.tracks["video"]) == 2
    assert item.do_SelectTakeByIndex(1)
    assert item.shown.media is not None
    assert "v001" in item.shown.media.path
    assert [mark["name"] for mark in item.do_GetMarkers().values()] == ["Fresco v002"]


@pytest.mark.parametrize("input", list(Input))
def test_redo_of_a_result_that_was_trimmed_shows_the_same_frames(line: Line, tmp_path: Path, input: Input) -> None:
    """An editor takes one frame off its head and one off its tail: the next version must not begin a frame early."""
    world = World()
    edited(world, tmp_path, Cut(count=6))
    handles = 2 if input is Input.SOURCE else 0
    host, clip, first = stylised(world, line, wish(tmp_path, input=input, handles=handles))
    item = item_of(world, first)
    item.start, item.duration, item.shown.first, item.spans = item.start + 1, 4, item.shown.first + 1, [4]
    second = driven(again(host, records(host)[0], KEEPS, line))
    assert (second.placed, item.start, item.duration) == (item.id, clip.first + 1, 4)
    assert (item.do_GetSelectedTakeIndex(), numbers(item)) == (2, [1006, 1007, 1008, 1009])


def test_redo_of_a_result_that_was_moved_off_its_clip_places_it_anew(line: Line, tmp_path: Path) -> None:
    world = World()
    edited(world, tmp_path)
    host, clip, first = stylised(world, line, wish(tmp_path))
    moved, path = item_of(world, first), records(host)[0]
    moved.start += 100
    second = driven(again(host, path, KEEPS, line))
    assert (item_of(world, second).start, numbers(item_of(world, second))) == (clip.first, [1005, 1006, 1007, 1008])
    assert (second.placed != moved.id, moved.do_GetTakesCount(), moved.start) == (True, 0, clip.first + 100)


def test_redo_of_a_result_that_was_deleted_places_it_anew(line: Line, tmp_path: Path) -> None:
    world = World()
    edited(world, tmp_path)
    host, clip, first = stylised(world, line, wish(tmp_path))
    path = records(host)[0]
    world.timeline.tracks["video"][1].items.clear()
    second = driven(again(host, path, KEEPS, line))
    assert second.placed not in (None, first.placed)
    assert (item_of(world, second).start, numbers(item_of(world, second))) == (clip.first, [1005, 1006, 1007, 1008])


@pytest.mark.parametrize("destination", [Destination.TRACK, Destination.TAKE])
def test_redo_on_a_duplicate_of_the_timeline_stays_on_it(line: Line, tmp_path: Path, destination: Destination) -> None:
    """The markers of a duplicate name the records of the first timeline, which stays as it is."""
    world = World()
    edited(world, tmp_path)
    input = Input.GRADED if destination is Destination.TRACK else Input.SOURCE
    host, clip, _ = stylised(world, line, wish(tmp_path, destination=destination, input=input))
    one, before = world.timeline, [(item.id, len(item.takes)) for item in world.timeline.items()]
    twin = one.do_DuplicateTimeline("the second cut")
    second = driven(again(host, records(host)[0], KEEPS, line))
    assert (second.version, second.clip.timeline, second.clip.first) == (2, twin.id, clip.first)
    placed = next(item for item in twin.items() if item.id == second.placed)
    takes = placed.do_GetTakesCount()
    assert (takes, numbers(placed)) == (2 if destination is Destination.TRACK else 3, [1005, 1006, 1007, 1008])
    assert (world.project.current, [(item.id, len(item.takes)) for item in one.items()]) == (twin, before)
    third = driven(again(host, records(host)[0], KEEPS, line))
    assert (third.placed, placed.do_GetTakesCount()) == (placed.id, takes + 1)


def test_redo_on_a_duplicate_whose_clip_was_moved_is_refused(line: Line, tmp_path: Path) -> None:
    world = World()
    edited(world, tmp_path)
    host, _, _ = stylised(world, line, wish(tmp_path))
    twin = world.timeline.do_DuplicateTimeline("the second cut")
    twin.tracks["video"][0].items[0].duration -= 1
    with pytest.raises(InputError, match="does not lie here as it did on the timeline"):
        driven(again(host, records(host)[0], KEEPS, line))


def jobs(line: Line) -> list[JobState]:
    """The states of all jobs, the newest last."""
    with Client(line.connection, software="tests") as client:
        return [job.state for job in sorted(client.request(ListJobs()).records, key=lambda job: job.submitted)]


def test_cancel_while_resolve_renders(world: World, line: Line, tmp_path: Path) -> None:
    edited(world, tmp_path)
    user = world.project.user_job()
    before, known = state(world), len(jobs(line))
    host = Host(world.resolve)
    steps = stylise(host, collect(host)[0], wish(tmp_path), line)
    while next(steps).phase is not Phase.EXTRACTING:
        pass
    next(steps)
    steps.close()
    assert (state(world), host.busy, len(jobs(line))) == (before, False, known)
    assert world.project.jobs[user].state == "Ready"


def test_cancel_while_the_server_has_the_job(world: World, tmp_path: Path) -> None:
    clip = edited(world, tmp_path)
    before = state(world)
    with Router() as router:
        steps = stylise(Host(world.resolve), collect(Host(world.resolve))[0], wish(tmp_path),
                        Line(connection=router.write_connection(tmp_path)))
        while next(steps).phase is not Phase.QUEUED:
            pass
        next(steps)
        steps.close()
        assert [type(message) for message in router.received][-1] is Cancel
    assert (state(world), len(world.timeline.tracks["video"]), clip.enabled) == (before, 1, True)


@pytest.mark.parametrize("gone", ["job", "server"])
def test_cancel_of_what_has_ended_meanwhile(tmp_path: Path, gone: str) -> None:
    world = World()
    edited(world, tmp_path)
    host = Host(world.resolve)
    with Router() as router:
        steps = stylise(host, collect(host)[0], wish(tmp_path), Line(connection=router.write_connection(tmp_path)))
        while not router.memory.jobs:
            next(steps)
        next(steps)
        router.memory.jobs.clear()
        if gone == "job":
            steps.close()
    steps.close()
    assert (world.violations, host.busy) == ([], False)


def test_a_server_that_dies_and_comes_back(tmp_path: Path) -> None:
    world = World()
    item = edited(world, tmp_path)
    host = Host(world.resolve)
    with Router() as router:
        steps = stylise(host, collect(host)[0], wish(tmp_path), Line(connection=router.write_connection(tmp_path)))
        while not router.memory.jobs:
            next(steps)
        next(steps)
        job = next(iter(router.memory.jobs.values()))
    deadline = time.monotonic() + 60
    while "fresco serve" not in next(steps).text:  # what to do next
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with Router(router.memory) as router:
        router.write_connection(tmp_path)
        ended = replace(job, state=JobState.DELIVERED)
        burnt.write_sequence(Path(job.output).parent, range(1, 5), "look.%08d.exr")
        while not [message for message in router.received if isinstance(message, Watch)]:
            next(steps)
            assert time.monotonic() < deadline
            time.sleep(0.01)
        router.emit(lambda number: JobChanged(number=number, time=time.time(), job=job.id, record=ended))
        record = driven(steps, seconds=60)
    assert (item_of(world, record).start, numbers(item_of(world, record))) == (item.start, [1, 2, 3, 4])


def test_cancel_while_the_server_renders(line: Line, tmp_path: Path, tiny_model: Path) -> None:
    world = World((21, 0, 4))
    edited(world, tmp_path)
    before = state(world)
    look = replace(KEEPS, model=str(tiny_model), strength=1.0, steps=1000)
    host = Host(world.resolve)
    steps = stylise(host, collect(host)[0], wish(tmp_path, look=look), line)
    while next(steps).phase is not Phase.RENDERING:
        time.sleep(0.02)
    steps.close()
    deadline = time.monotonic() + 120
    while jobs(line)[-1] is not JobState.CANCELLED:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (state(world), world.violations) == (before, [])


def test_somebody_else_cancels_the_job(tmp_path: Path) -> None:
    world = World()
    edited(world, tmp_path)
    host = Host(world.resolve)
    with Router() as router:
        steps = stylise(host, collect(host)[0], wish(tmp_path), Line(connection=router.write_connection(tmp_path)))
        while not router.memory.jobs:
            next(steps)
        job = replace(next(iter(router.memory.jobs.values())), state=JobState.CANCELLED)
        router.emit(lambda number: JobChanged(number=number, time=time.time(), job=job.id, record=job))
        with pytest.raises(Interrupted):
            driven(steps)
    assert world.violations == []


@pytest.mark.parametrize("when", ["extracting", "rendering"])
def test_resolve_quits_meanwhile(tmp_path: Path, when: str) -> None:
    world = World()
    edited(world, tmp_path)
    host = Host(world.resolve)
    with Router() as router:
        steps = stylise(host, collect(host)[0], wish(tmp_path), Line(connection=router.write_connection(tmp_path)))
        while next(steps).phase is not Phase.EXTRACTING:
            pass
        while when == "rendering" and not router.memory.jobs:
            next(steps)
        world.ledger.gone = True
        if when == "rendering":
            ended = replace(next(iter(router.memory.jobs.values())), state=JobState.DELIVERED)
            router.emit(lambda number: JobChanged(number=number, time=time.time(), job=ended.id, record=ended))
        with pytest.raises(HostRefused, match="Resolve has quit") as failed:
            driven(steps)
    assert "Start Resolve" in str(failed.value.remedy)
    assert host.busy is False
    assert any("fresco resolve place" in notice for notice in host.notices) is (when == "rendering")


@pytest.mark.parametrize("busy", ["dialog", "render"])
def test_a_result_waits_until_resolve_is_free(world: World, line: Line, tmp_path: Path, busy: str) -> None:
    edited(world, tmp_path)
    host = Host(world.resolve)
    steps = stylise(host, collect(host)[0], wish(tmp_path, input=Input.SOURCE), line)
    while next(steps).phase is not Phase.QUEUED:
        pass
    world.ledger.modal = busy == "dialog"
    if busy == "render":
        job = world.project.jobs[world.project.user_job()]
        job.state, job.last = "Rendering", 10**9
    while next(steps).phase is not Phase.PLACING:
        time.sleep(0.01)
    assert len(world.timeline.tracks["video"]) == 1
    world.ledger.modal, host.busy = False, True
    world.project.jobs.clear()
    assert {next(steps).phase for _ in range(3)} == {Phase.WAITING}  # another clip has begun its extraction
    host.busy = False
    record = driven(steps)
    assert numbers(item_of(world, record)) == [1005, 1006, 1007, 1008]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of 64 KiB."""
    folder = tmp_path / "results"
    folder.mkdir()
    if sys.platform != "linux" or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)],
                                                 capture_output=True, check=False).returncode:
        pytest.skip("only root mounts a disk of its own")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_runs_full_while_the_server_delivers(world: World, line: Line, tmp_path: Path,
                                                         small_disk: Path) -> None:
    """A real server, and a real disk: the job fails with a sentence, the timeline is untouched, and room mends it."""
    edited(world, tmp_path)
    (small_disk / "somebody.else").write_bytes(bytes(40 * 1024))
    before = state(world)
    with pytest.raises(DiskFull, match="disk is full") as failed:
        stylised(world, line, wish(tmp_path, input=Input.SOURCE))
    assert (failed.value.exit_code, str(small_disk) in str(failed.value.where)) == (4, True)
    assert failed.value.remedy
    assert (state(world), len(world.timeline.tracks["video"]), world.pool.root.folders) == (before, 1, [])
    (small_disk / "somebody.else").unlink()
    _, _, record = stylised(world, line, wish(tmp_path, input=Input.SOURCE))
    assert (record.version, numbers(item_of(world, record))) == (2, [1005, 1006, 1007, 1008])


def test_a_job_that_fails_says_what_the_server_says(world: World, line: Line, tmp_path: Path) -> None:
    edited(world, tmp_path)
    before = state(world)
    bad = wish(tmp_path, look=replace(KEEPS, model=str(tmp_path / "no-model")))
    with pytest.raises(FrescoError) as failed:
        stylised(world, line, bad)
    assert failed.value.exit_code == 7
    assert state(world) == before


def test_a_folder_outside_of_the_servers_roots_is_named(line: Line, tmp_path: Path) -> None:
    world = World()
    edited(world, tmp_path)
    with tempfile.TemporaryDirectory() as elsewhere, pytest.raises(PathRefused) as failed:
        stylised(world, line, replace(wish(tmp_path), folder=str(elsewhere)))
    assert "fresco stop" in str(failed.value.remedy)
    assert "--root" in str(failed.value.remedy)


def test_a_german_resolve(line: Line, tmp_path: Path) -> None:
    world = World((21, 0, 4), language="de")
    edited(world, tmp_path)
    _, _, record = stylised(world, line, wish(tmp_path))
    assert numbers(item_of(world, record)) == [1005, 1006, 1007, 1008]
    assert world.violations == []


@pytest.mark.parametrize("name", ["", "Untitled Project"])
def test_a_project_without_a_name(world: World, line: Line, tmp_path: Path, name: str) -> None:
    world.project.name = name
    edited(world, tmp_path)
    _, _, record = stylised(world, line, wish(tmp_path))
    assert numbers(item_of(world, record)) == [1005, 1006, 1007, 1008]


def test_a_movie_counts_from_one_for_fresco_and_from_its_start_for_resolve(line: Line, tmp_path: Path) -> None:
    world = World((21, 0, 4))
    path = burnt.write_movie(tmp_path / "media" / "clip.mov", range(500, 516), Fraction(24))
    clip = world.timeline.put(world.imported(path, first=0, count=16), 3, 0, 5)
    _, _, record = stylised(world, line, wish(tmp_path, input=Input.SOURCE, handles=1))
    item = item_of(world, record)
    assert (item.start, item.duration, item.do_GetLeftOffset()) == (clip.start, 5, 1)
    assert numbers(item) == [503, 504, 505, 506, 507]
    assert world.violations == []


def test_what_the_server_warns_of_is_told(line: Line, tmp_path: Path) -> None:
    world = World()
    edited(world, tmp_path)
    host, _, record = stylised(world, line, wish(tmp_path, look=replace(KEEPS, strength=0.01)))
    assert [notice for notice in host.notices if " v001: " in notice and "half a step" in notice]
    assert numbers(item_of(world, record)) == [1005, 1006, 1007, 1008]


def test_a_part_of_the_clip_lands_where_it_was(line: Line, tmp_path: Path) -> None:
    world = World()
    clip = edited(world, tmp_path, Cut(count=8))
    part = FrameRange(first=3, last=5)
    for picture in Input:
        _, _, record = stylised(world, line, wish(tmp_path, part=part, input=picture))
        item = item_of(world, record)
        assert (item.start, numbers(item)) == (clip.start + 2, [1007, 1008, 1009])
    assert [track.name for track in world.timeline.tracks["video"]] == ["Video 1", "FRESCO", "FRESCO 2"]


def test_a_still_is_a_picture_that_is_placed_nowhere(line: Line, tmp_path: Path) -> None:
    world = World()
    edited(world, tmp_path)
    before = state(world)
    _, _, record = stylised(world, line, wish(tmp_path, destination=None, part=FrameRange(first=3, last=3)))
    pictures = list(Path(record.folder).glob("look.*.png"))
    assert [burnt.number_in(burnt.read(str(path.with_name("look.%08d.png")), 1)) for path in pictures] == [1007]
    assert (record.placed, state(world), world.pool.root.folders) == (None, before, [])


def test_retimed_clips_and_titles_come_as_resolve_shows_them(line: Line, tmp_path: Path) -> None:
    world = World((20, 2))
    clip = edited(world, tmp_path)
    clip.speed = 200
    _, _, record = stylised(world, line, wish(tmp_path))
    assert numbers(item_of(world, record)) == [1005, 1007, 1009, 1011]
    title = world.timeline.put(None, 0, 100, 3)
    world.timeline.playhead = 101
    _, _, record = stylised(world, line, wish(tmp_path))
    item = item_of(world, record)
    assert (item.start, item.duration) == (title.start, 3)
    assert 0.4 < float(item.picture(item.start).mean()) < 0.6


def kept_half(record: Record) -> tuple[bool, bool]:
    """Whether the left and the right half of the first frame are bit-equal to the plate."""
    assert record.shot is not None
    assert record.shot.plate.frames is not None
    number = record.shot.plate.frames[0].first
    before = burnt.read(pattern(record.shot.plate.sequence), number)
    after = burnt.read(pattern(record.shot.delivery.sequence), number)
    same = (before == after).all(axis=2)
    return bool(same[:, :HALF].all()), bool(same[:, HALF:].all())


def pattern(sequence: str) -> str:
    """The sequence with its frame field as printf has it."""
    return sequence.replace("########", "%08d")


def test_a_track_is_the_matte(line: Line, tmp_path: Path, tiny_model: Path) -> None:
    world = World((19, 1))
    edited(world, tmp_path)
    world.timeline.put(half_white(world, tmp_path), 0, 0, 40, track=2).enabled = True
    world.timeline.tracks["video"][1].enabled = False
    before = state(world)
    look = replace(KEEPS, model=str(tiny_model), strength=0.5, steps=2)
    chosen = MatteChoice(source=MatteSource.TRACK, track=2)
    _, _, record = stylised(world, line, wish(tmp_path, look=look, matte=chosen))
    assert kept_half(record) == (False, True)
    assert (state(world), world.violations) == (before, [])


def half_white(world: World, folder: Path) -> MediaPoolItem:
    """Media whose left half is white and right half black."""
    pixels = burnt.picture(0)
    pixels[:, :HALF] = 1
    (folder / "matte").mkdir(exist_ok=True)
    for number in range(40):
        burnt.write(folder / "matte" / f"matte.{number:04d}.exr", pixels)
    return world.imported(str(folder / "matte" / "matte.%04d.exr"), first=0, count=40)


def test_the_clips_own_alpha_is_the_matte(line: Line, tmp_path: Path, tiny_model: Path) -> None:
    world = World((19, 1))
    edited(world, tmp_path)
    look = replace(KEEPS, model=str(tiny_model), strength=0.5, steps=2)
    _, _, record = stylised(world, line, wish(tmp_path, look=look, matte=MatteChoice(source=MatteSource.ALPHA)))
    assert kept_half(record) == (False, True)
    assert world.violations == []


def test_the_matte_that_is_attached_to_the_clip(line: Line, tmp_path: Path, tiny_model: Path) -> None:
    world = World((19, 1))
    clip = edited(world, tmp_path)
    pixels = burnt.picture(0)
    pixels[:, :HALF] = 1
    for number in range(1001, 1017):
        burnt.write(tmp_path / "media" / f"matte.{number}.exr", pixels)
    assert clip.shown.media is not None
    clip.shown.media.mattes = [str(tmp_path / "media" / "matte.[1001-1016].exr")]
    look = replace(KEEPS, model=str(tiny_model), strength=0.5, steps=2)
    chosen = MatteChoice(source=MatteSource.CLIP)
    _, _, record = stylised(world, line, wish(tmp_path, look=look, input=Input.SOURCE, matte=chosen))
    assert kept_half(record) == (False, True)
    assert world.violations == []
