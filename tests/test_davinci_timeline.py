# SPDX-License-Identifier: Apache-2.0
"""The four verbs on the double, without a server: what is refused and why, and what a failure leaves behind."""
from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import burnt
import pytest
from davinci import Cut, edited, state, wish
from resolve_double import World
from resolve_otio import written
from resolve_timeline import Ghost, MediaPoolItem, Timeline, TimelineItem, Track

from fresco_davinci import clip as nouns
from fresco_davinci.clip import (
    Clip,
    Destination,
    Extraction,
    Input,
    MatteChoice,
    MatteSource,
    Progress,
    Result,
    Wish,
)
from fresco_davinci.rendered import numbered
from fresco_davinci.timeline import Host, collect, extract, integrate, records, validate
from fresco_davinci.timeline.speed import speed_of
from fresco_protocol.document import read, write
from fresco_protocol.errors import (
    Busy,
    ColorError,
    DiskFull,
    FrescoError,
    HostRefused,
    InputError,
    MatteError,
    OutputError,
    ShotError,
    UsageError,
)
from fresco_protocol.shot import FrameRange, Rate

RELEASES = [(18, 6), (19, 1), (20, 2), (21, 0, 4)]


@pytest.fixture(params=[(release, studio) for release in RELEASES for studio in (True, False)],
                ids=lambda found: f"{'.'.join(map(str, found[0]))}-{'studio' if found[1] else 'free'}")
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Each release and edition; what a careful client would not have done fails the test."""
    release, studio = request.param
    world = World(release, studio=studio)
    yield world
    assert world.violations == []


def extracted(host: Host, clip: Clip, wanted: Wish, folder: Path) -> Extraction:
    """An extraction driven to its end."""
    steps = extract(host, clip, wanted, folder)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Extraction = end.value
            return found


def test_a_clip_is_known_by_numbers_that_outlive_resolve(world: World, tmp_path: Path) -> None:
    item = edited(world, tmp_path)
    clip = collect(Host(world.resolve))[0]
    assert (clip.first, clip.count, clip.head, clip.tail, clip.playhead) == (86410, 4, 4, 8, 3)
    assert (clip.item, clip.track, clip.steady) == (item.id, 1, True)
    assert clip.media is not None
    assert (clip.media.first, clip.media.last, clip.media.frame(clip.head)) == (1001, 1016, 1005)
    assert read(write(clip), Clip) == clip


@pytest.mark.parametrize("short", [0, 1, 2])
def test_the_source_range_may_read_up_to_two_frames_off(world: World, tmp_path: Path, short: int) -> None:
    edited(world, tmp_path)
    world.source_end_short = short
    assert collect(Host(world.resolve))[0].steady


def test_selected_clips_come_before_the_playhead_where_a_release_tells_them(world: World, tmp_path: Path) -> None:
    first = edited(world, tmp_path)
    second = edited(world, tmp_path / "second", Cut(start=30))
    world.timeline.playhead = 12
    first.selected = second.selected = True
    found = [clip.item for clip in collect(Host(world.resolve))]
    assert found == ([first.id, second.id] if world.ledger.version >= (21, 0, 4) else [first.id])


def test_a_gap_has_no_clip(world: World, tmp_path: Path) -> None:
    edited(world, tmp_path)
    world.timeline.playhead = 500
    with pytest.raises(InputError, match="no video clip lies under the playhead"):
        collect(Host(world.resolve))
    with pytest.raises(InputError, match="no result of Fresco"):
        world.timeline.playhead = 12
        records(Host(world.resolve))


@pytest.mark.parametrize("page", ["media", "fusion"])
def test_a_page_without_a_playhead(world: World, tmp_path: Path, page: str) -> None:
    """The clip that is selected or shown is known all the same; what lies beneath a result is not."""
    item = edited(world, tmp_path)
    item.selected, world.page = True, page
    host = Host(world.resolve)
    clip = collect(host)[0]
    assert (clip.item, clip.playhead) == (item.id, None)
    before = state(world)
    extracted(host, clip, wish(tmp_path), tmp_path / "v001")
    assert (state(world), [notice for notice in host.notices if "playhead" in notice]) == (before, [])
    world.timeline.tracks["video"][0].name = "FRESCO"
    with pytest.raises(InputError, match="does not tell where the playhead is") as refused:
        collect(host)
    assert "Color page" in str(refused.value.remedy)


def test_an_empty_track_below_and_a_disabled_one_above_are_no_obstacle(world: World, tmp_path: Path) -> None:
    item = edited(world, tmp_path, Cut(track=2))
    edited(world, tmp_path / "above", Cut(track=3))
    world.timeline.tracks["video"][2].enabled = False
    assert collect(Host(world.resolve))[0].item == item.id


class Refused(NamedTuple):
    """What is wanted, what the editor did before, and the words of the refusal."""

    wanted: dict[str, Any]
    kind: type[FrescoError]
    words: str
    edit: str = ""


TRACK_2 = MatteChoice(source=MatteSource.TRACK, track=2)
REFUSED = [
    Refused({"handles": 2}, UsageError, "has no handles"),
    Refused({"part": FrameRange(first=3, last=9)}, UsageError, "which has 4"),
    Refused({"part": FrameRange(first=1, last=4, step=2)}, UsageError, "no run of frames"),
    Refused({"destination": Destination.TAKE}, UsageError, "graded twice"),
    Refused({"destination": Destination.TAKE, "input": Input.SOURCE, "part": FrameRange(first=1, last=2)}, UsageError,
            "covers its whole clip"),
    Refused({"destination": Destination.TAKE, "input": Input.SOURCE}, InputError, "track 1 is locked", "lock"),
    Refused({"input": Input.SOURCE}, InputError, "its speed is changed", "double speed"),
    Refused({"input": Input.SOURCE}, InputError, "its speed is changed", "reverse"),
    Refused({"input": Input.SOURCE}, InputError, "runs at 25 fps and the timeline at 24", "25 fps"),
    Refused({"input": Input.SOURCE}, InputError, "no source media", "compound"),
    Refused({"input": Input.SOURCE}, InputError, "counts its frames from 1001", "subclip"),
    Refused({"matte": MatteChoice(source=MatteSource.CLIP), "input": Input.SOURCE}, MatteError, "no matte is attached"),
    Refused({"matte": MatteChoice(source=MatteSource.CLIP)}, MatteError, "no matte is attached"),
    Refused({"matte": TRACK_2}, MatteError, "track 2 cannot be the matte"),
    Refused({"matte": MatteChoice(source=MatteSource.TRACK, track=1)}, MatteError, "track 1 cannot be the matte"),
    Refused({"matte": TRACK_2, "input": Input.SOURCE}, UsageError, "fits the graded picture only"),
    Refused({}, ColorError, "Canon Cinema Gamut", "wide gamut"),
    Refused({}, Busy, "Resolve is rendering", "rendering"),
    Refused({}, InputError, "is switched off", "switch off"),
    Refused({}, InputError, "was moved, trimmed or deleted", "move"),
    Refused({}, InputError, "was moved, trimmed or deleted", "delete"),
    Refused({}, InputError, "no longer the current one", "other timeline"),
]


def edit(world: World, what: str) -> None:
    """What an editor did to the clip meanwhile."""
    item = world.timeline.items()[0]
    media = item.shown.media
    assert media is not None
    if what in ("double speed", "reverse"):
        item.speed = 200 if what == "double speed" else -100
        item.properties["Speed"] = float(item.speed)
    actions = {"lock": lambda: setattr(world.timeline.tracks["video"][0], "locked", True),
               "25 fps": lambda: media.properties.update(FPS="25"),
               "compound": lambda: setattr(media, "path", ""),
               "subclip": lambda: media.properties.update({"File Path": "/rushes/A001.mov"}),
               "wide gamut": lambda: world.project.settings.update(colorSpaceTimeline="Canon Cinema Gamut"),
               "rendering": lambda: setattr(world.project.jobs[world.project.user_job()], "state", "Rendering"),
               "switch off": lambda: setattr(item, "enabled", False),
               "move": lambda: setattr(item, "start", item.start + 1),
               "delete": world.timeline.tracks["video"][0].items.clear,
               "other timeline": lambda: world.pool.do_CreateEmptyTimeline("Another")}
    if what in actions:
        actions[what]()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case.words}-{case.edit}")
def test_what_cannot_be_done_is_said_before_anything_is_touched(tmp_path: Path, case: Refused) -> None:
    world = World()
    edited(world, tmp_path)
    early = ("double speed", "reverse", "25 fps", "compound", "subclip", "wide gamut")
    if case.edit in early:
        edit(world, case.edit)
    clip = collect(Host(world.resolve))[0]
    if case.edit not in early:
        edit(world, case.edit)
    before = state(world)
    with pytest.raises(case.kind, match=case.words) as refused:
        validate(Host(world.resolve), clip, wish(tmp_path, **case.wanted))
    assert (state(world), world.violations) == (before, [])
    assert refused.value.remedy


@pytest.mark.parametrize(("name", "rate", "words"), [
    ("clip.mov", 24, None), ("clip.mov", 25, "frames of the media do not come evenly"),
    ("clip.mkv", 24, "does not say whether its frames come evenly"), ("gone.mov", None, None)])
def test_a_movie_is_read_itself_only_if_its_frames_come_as_resolve_counts_them(
        tmp_path: Path, name: str, rate: int | None, words: str | None) -> None:
    world, path = World(), str(tmp_path / name)
    if rate is not None:
        burnt.write_movie(tmp_path / name, range(16), Fraction(rate))
    world.timeline.put(world.imported(path, first=0, count=16, rate="24"), 3, 0, 5)
    host = Host(world.resolve)
    clip = collect(host)[0]
    validate(host, clip, wish(tmp_path))
    if words is None:
        validate(host, clip, wish(tmp_path, input=Input.SOURCE))
        return
    with pytest.raises(InputError, match=words) as refused:
        validate(host, clip, wish(tmp_path, input=Input.SOURCE))
    assert (refused.value.where, "graded" in str(refused.value.remedy)) == (path, True)


def test_a_changed_speed_is_seen_without_a_word_for_it(world: World, tmp_path: Path) -> None:
    edited(world, tmp_path, Cut(count=6)).speed = 200
    assert not collect(Host(world.resolve))[0].steady


@pytest.mark.parametrize("middle", [True, False])
def test_a_clip_that_runs_backwards_is_refused_though_its_getters_do_not_tell(world: World, tmp_path: Path,
                                                                              middle: bool) -> None:
    item = edited(world, tmp_path, Cut(frames=16, skipped=9 if middle else 12, count=4))  # from the middle, or not
    item.speed = -100
    edited(world, tmp_path / "above", Cut(track=2, start=100))
    world.timeline.playhead = 12
    host = Host(world.resolve)
    clip = collect(host)[0]
    assert clip.item == item.id
    assert clip.steady, "nothing but the export tells it"
    before = state(world)
    with pytest.raises(InputError, match="the clip runs backwards") as refused:
        validate(host, clip, wish(tmp_path, input=Input.SOURCE))
    assert "--input graded" in str(refused.value.remedy)
    assert state(world) == before
    found = extracted(host, clip, wish(tmp_path), tmp_path / "v001")
    shown = [burnt.number_in(burnt.read(found.plate.sequence, n)) for n in range(1, 5)]
    assert shown == ([1010, 1009, 1008, 1007] if middle else [1013, 1012, 1011, 1010])


@pytest.mark.parametrize("answer", [None, "", "{", "{}", '{"tracks": {"children": []}}'])
def test_a_direction_that_is_not_told_is_not_taken_for_forwards(world: World, tmp_path: Path, answer: str | None,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    item = edited(world, tmp_path)

    def exports(_timeline: Any, path: str, _kind: str, _more: str) -> bool:
        if answer is not None:
            Path(path).write_text(answer)
        return answer is not None

    monkeypatch.setattr(type(world.timeline), "do_Export", exports)
    host = Host(world.resolve)
    clip = collect(host)[0]
    assert clip.item == item.id
    with pytest.raises(InputError, match="does not tell whether the clip runs forwards"):
        validate(host, clip, wish(tmp_path, input=Input.SOURCE))
    validate(host, clip, wish(tmp_path))


@pytest.mark.parametrize(("edit", "speed"), [
    ("as it is", 1), ("its track alone", 1), ("dissolve", 1), ("ramp", 0), ("freeze", 0), ("other rate before", 1),
    ("compound clip", None), ("longer", None)])
def test_a_clip_is_found_in_an_export_by_its_place(tmp_path: Path, edit: str, speed: int | None,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(rate="23.976")
    edited(world, tmp_path / "before", Cut(start=0)).speed = -100
    edited(world, tmp_path, Cut(start=40_000))
    edited(world, tmp_path / "above", Cut(start=40_000, track=2)).enabled = False
    world.timeline.items()[-1].speed = -100
    world.timeline.tracks["video"][1].enabled = False
    document = written(world.timeline)
    tracks = document["tracks"]["children"]
    first, gap, clip = tracks[0]["children"]
    if edit == "its track alone":
        del tracks[1]
    elif edit == "dissolve":
        tracks[0]["children"].insert(1, {"OTIO_SCHEMA": "Transition.1"})
    elif edit in ("ramp", "freeze"):
        kind = {"ramp": {"OTIO_SCHEMA": "TimeEffect.1"}, "freeze": {"OTIO_SCHEMA": "FreezeFrame.1", "time_scalar": 0}}
        clip["effects"].append(kind[edit])
    elif edit == "other rate before":
        gap["source_range"]["duration"] = {"value": (40_000 - 4) * 2, "rate": 2 * 24000 / 1001}
    elif edit == "compound clip":
        clip["OTIO_SCHEMA"] = "Stack.1"
    elif edit == "longer":
        clip["source_range"]["duration"]["value"] += 1
    assert first["effects"][0]["time_scalar"] == -1
    monkeypatch.setattr(type(world.timeline), "do_Export",
                        lambda _, path, *kinds: bool(Path(path).write_text(json.dumps(document))))
    host = Host(world.resolve)
    assert speed_of(host, collect(host)[0]) == speed


@pytest.mark.parametrize("properties", [{"Start": ""}, {"FPS": ""}, {"File Path": ""}, {"End": "n/a"}])
def test_media_whose_frames_resolve_does_not_count_is_rendered(tmp_path: Path, properties: dict[str, str]) -> None:
    world = World()
    media = edited(world, tmp_path).shown.media
    assert media is not None
    media.properties.update(properties)
    assert collect(Host(world.resolve))[0].media is None


def test_a_resolve_without_a_window_has_no_page_to_come_back_to(tmp_path: Path) -> None:
    world = World()
    edited(world, tmp_path)
    world.page = ""
    host = Host(world.resolve)
    extracted(host, collect(host)[0], wish(tmp_path), tmp_path / "v001")
    assert (host.notices, world.page, world.violations) == ([], "", [])


@pytest.mark.parametrize("start", ["00:00:00:00", "10:00:00:00", "23:59:59:20"])
@pytest.mark.parametrize("rate", ["24", "23.976", "29.97 DF", "59.94", "59.94 DF"])
def test_a_timeline_may_begin_at_any_time_code(tmp_path: Path, start: str, rate: str) -> None:
    """The last one passes midnight before the clip, and the time code begins at 0 again."""
    world = World(rate=rate, start=start)
    item = edited(world, tmp_path, Cut(start=60))
    before, host = state(world), Host(world.resolve)
    clip = collect(host)[0]
    assert (clip.item, clip.first - world.timeline.start, clip.playhead) == (item.id, 60, 3)
    validate(host, clip, wish(tmp_path, input=Input.SOURCE))
    found = extracted(host, clip, wish(tmp_path), tmp_path / "v001")
    assert [burnt.number_in(burnt.read(found.plate.sequence, n)) for n in range(1, 5)] == [1005, 1006, 1007, 1008]
    integrate(host, clip, wish(tmp_path), result(tmp_path / "look", 1, 4))
    assert [(one.start, one.duration) for one in world.timeline.tracks["video"][1].items] == [(item.start, 4)]
    assert (state(world), world.violations) == (before, [])


@pytest.mark.parametrize("settings", [
    {}, {"timelineDropFrameTimecode": ""}, {"timelineFrameRate": 29.97002997002997}, {"timelineFrameRate": 29},
    {"timelineFrameRate": "29,97"}, {"timelineFrameRate": "29.97 DF", "timelineDropFrameTimecode": ""}])
def test_drop_frame_and_the_rate_are_told_in_several_ways(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Twenty minutes in, drop frame is 36 frames away from what the digits say."""
    world = World(rate="29.97 DF", start="01:00:00;00" if settings else "01:00:00:00")
    world.timeline.settings.update(settings)
    item = edited(world, tmp_path, Cut(start=36_000))
    clip = collect(Host(world.resolve))[0]
    assert (clip.item, clip.playhead, str(clip.rate), clip.drop_frame) == (item.id, 3, "30000/1001", True)


def test_a_dialog_while_the_state_is_read_does_not_become_the_state(tmp_path: Path) -> None:
    world = World()
    edited(world, tmp_path)
    before = state(world)
    host = Host(world.resolve)
    clip = collect(host)[0]

    def opens(name: str) -> None:
        world.ledger.modal = world.ledger.modal or name == "GetIsTrackEnabled"

    world.ledger.on_call = opens
    with pytest.raises(Busy):
        extracted(host, clip, wish(tmp_path), tmp_path / "v001")
    world.ledger.on_call, world.ledger.modal = None, False
    assert (state(world), host.busy) == (before, False)


def test_a_title_is_no_media_and_lands_graded_only(world: World) -> None:
    world.timeline.put(None, 0, 0, 24)
    clip = collect(Host(world.resolve))[0]
    assert (clip.media, clip.steady, clip.head) == (None, False, 0)
    validate(Host(world.resolve), clip, wish(Path("/tmp")))


@pytest.mark.parametrize(("edit", "told"), [
    ("nothing", False), ("title", True), ("small", True), ("faded", True), ("alone", False), ("below is off", False)])
def test_a_result_that_hides_the_tracks_below_is_told(world: World, tmp_path: Path, edit: str, told: bool) -> None:
    """A picture in the picture, or a title: its render is black around it."""
    below = edited(world, tmp_path / "below")
    item = edited(world, tmp_path, Cut(track=2)) if edit != "title" else world.timeline.put(None, 0, 11, 4, track=2)
    if edit in ("small", "alone", "below is off"):
        item.properties["ZoomX"] = 0.5
    item.properties["Opacity"] = 60.0 if edit == "faded" else 100.0
    below.start += 500 if edit == "alone" else 0
    world.timeline.tracks["video"][0].enabled = edit != "below is off"
    host = Host(world.resolve)
    clip = collect(host)[0]
    assert clip.item == item.id
    validate(host, clip, wish(tmp_path))
    assert any("hides the tracks below" in notice for notice in host.notices) is told


def test_a_clip_that_is_switched_off_is_looked_through(world: World, tmp_path: Path) -> None:
    item = edited(world, tmp_path)
    edited(world, tmp_path / "above", Cut(track=2)).enabled = False
    edited(world, tmp_path / "look", Cut(track=3))
    world.timeline.tracks["video"][2].name = "FRESCO"
    assert collect(Host(world.resolve))[0].item == item.id


def test_a_fusion_composition_that_stays_behind_is_told(world: World, tmp_path: Path) -> None:
    edited(world, tmp_path).comps = 1
    host = Host(world.resolve)
    validate(host, collect(host)[0], wish(tmp_path, input=Input.SOURCE))
    assert "Fusion composition" in host.notices[0]


@pytest.mark.parametrize("language", ["en", "de"])
def test_a_render_is_judged_by_its_files_in_every_language(language: str, tmp_path: Path) -> None:
    world = World((21, 0, 4), language=language)
    edited(world, tmp_path)
    host = Host(world.resolve)
    found = extracted(host, collect(host)[0], wish(tmp_path), tmp_path / "v001")
    assert [burnt.number_in(burnt.read(found.plate.sequence, n)) for n in range(1, 5)] == [1005, 1006, 1007, 1008]
    assert world.violations == []


@pytest.mark.parametrize("error", ["", "Not enough disk space"])
def test_a_render_that_fails_half_way_leaves_resolve_as_it_was(world: World, tmp_path: Path, error: str) -> None:
    edited(world, tmp_path)
    world.fails_after, world.failure = 2, error
    user = world.project.user_job()
    before = state(world)
    host = Host(world.resolve)
    with pytest.raises(OutputError, match="ended at 50 % with 2 frames") as failed:
        extracted(host, collect(host)[0], wish(tmp_path), tmp_path / "v001")
    assert error in str(failed.value.remedy)
    assert (state(world), host.busy, list(world.project.jobs)) == (before, False, [user])


@pytest.mark.parametrize("marks", [
    {}, {"video": {"in": 2, "out": 90}, "audio": {"in": 2, "out": 90}}, {"video": {"in": 0, "out": 5}}])
def test_in_and_out_marks_come_back(marks: dict[str, dict[str, int]], tmp_path: Path) -> None:
    world = World()
    edited(world, tmp_path)
    world.timeline.marks = dict(marks)
    host = Host(world.resolve)
    extracted(host, collect(host)[0], wish(tmp_path), tmp_path / "out")
    assert (world.timeline.marks, host.notices, world.violations) == (marks, [], [])


def test_a_mark_alone_that_cannot_be_set_again_is_told(tmp_path: Path) -> None:
    world = World()
    edited(world, tmp_path)
    world.timeline.marks = {"video": {"in": 7}}
    host = Host(world.resolve)
    extracted(host, collect(host)[0], wish(tmp_path), tmp_path / "out")
    assert (world.timeline.marks, host.notices) == (
        {}, ["Resolve did not put back the In mark (video): set it at frame 7 of the timeline."])


@pytest.mark.parametrize("when", ["before ours begins", "after ours"])
def test_a_render_of_the_user_is_never_stopped(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    edited(world, tmp_path)
    users = world.project.jobs[world.project.user_job()]
    before, host = state(world), Host(world.resolve)

    def begins(call: str) -> None:
        if (call, when) == ("StartRendering", "before ours begins"):
            users.state = "Rendering"
            monkeypatch.setattr(type(world.project), "do_StartRendering", lambda project, *_: False)
        elif call == "IsRenderingInProgress" and any(job.own and job.done == job.count - 1
                                                     for job in world.project.jobs.values()):
            users.state = "Rendering"

    world.ledger.on_call = begins
    steps = extract(host, collect(host)[0], wish(tmp_path), tmp_path / "out")
    if when == "after ours":
        while next(steps).fraction < 1:
            pass
        steps.close()
    else:
        with pytest.raises(HostRefused, match="start the render"):
            next(steps)
    assert (users.state, state(world), world.violations) == ("Rendering", before, [])


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize("closed", [True, False])
def test_a_render_that_a_user_began_in_place_of_ours_is_never_stopped(closed: bool, language: str,
                                                                      tmp_path: Path) -> None:
    world = World(language=language)
    edited(world, tmp_path)
    users = world.project.jobs[world.project.user_job()]
    before, host = state(world), Host(world.resolve)
    steps = extract(host, collect(host)[0], wish(tmp_path), tmp_path / "out")
    assert 0 < next(steps).fraction < 1
    ours = next(job for job in world.project.jobs.values() if job.own)
    ours.state, users.state = "Cancelled", "Rendering"  # on the Deliver page, between two looks of ours
    if closed:
        steps.close()
        assert users.state == "Rendering"
    else:
        assert "another render" in next(steps).text
        with pytest.raises(OutputError, match="ended at 25 % with 1 frames"):
            driven_to_the_end(steps)
        assert users.state == "Complete"
    assert (state(world), world.violations) == (before, [])


def driven_to_the_end(steps: Generator[Progress, None, Extraction]) -> None:
    for _ in steps:
        pass


def test_another_timeline_that_is_opened_between_two_renders_is_left_alone(world: World, tmp_path: Path) -> None:
    edited(world, tmp_path)
    edited(world, tmp_path / "matte", Cut(track=2))
    world.timeline.tracks["video"][1].enabled = False
    before = state(world)
    host = Host(world.resolve)
    steps = extract(host, collect(host)[0], wish(tmp_path, matte=TRACK_2), tmp_path / "v001")
    next(steps)
    other = world.pool.do_CreateEmptyTimeline("Another")
    assert other is not None
    with pytest.raises(InputError, match="no longer the current one"):
        for _ in steps:
            pass
    world.project.current = world.timeline
    assert (state(world), [track.enabled for track in other.tracks["video"]]) == (before, [True])


def test_a_disk_that_is_full_is_seen_before_the_render(world: World, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    edited(world, tmp_path)
    before = state(world)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    host = Host(world.resolve)
    with pytest.raises(DiskFull):
        extracted(host, collect(host)[0], wish(tmp_path), tmp_path / "v001")
    assert state(world) == before


def test_audio_only_on_the_deliver_page_does_not_shine_through(world: World, tmp_path: Path) -> None:
    edited(world, tmp_path)
    assert world.project.do_LoadRenderPreset("Audio Only")
    before = state(world)
    host = Host(world.resolve)
    found = extracted(host, collect(host)[0], wish(tmp_path), tmp_path / "v001")
    assert [burnt.number_in(burnt.read(found.plate.sequence, n)) for n in range(1, 5)] == [1005, 1006, 1007, 1008]
    assert state(world) == before


def test_audio_only_without_a_preset_to_begin_from_is_told_by_the_files(world: World, tmp_path: Path) -> None:
    edited(world, tmp_path)
    assert world.project.do_LoadRenderPreset("Audio Only")
    del world.project.presets["H.264 Master"]
    before = state(world)
    host = Host(world.resolve)
    with pytest.raises(OutputError, match="rendered 0 of 4 frames") as failed:
        extracted(host, collect(host)[0], wish(tmp_path), tmp_path / "v001")
    assert "preset that exports video" in str(failed.value.remedy)
    assert state(world) == before


@pytest.mark.parametrize("begin", [0, 3, 86400])
def test_frames_that_get_new_numbers_do_not_overwrite_each_other(begin: int, tmp_path: Path) -> None:
    """A timeline may begin at 00:00:00:00, and Resolve's names may already be those that are wanted."""
    folder = tmp_path / "plate"
    folder.mkdir()
    for offset in range(4):
        (folder / f"plate.{begin + offset:08d}.exr").write_text(str(offset))
    pattern = numbered(folder, ".exr", count=4, first=1)
    assert [Path(pattern % number).read_text() for number in range(1, 5)] == ["0", "1", "2", "3"]
    assert len(list(folder.iterdir())) == 4


def test_a_dialog_that_is_open_is_told_at_once(world: World) -> None:
    world.ledger.modal = True
    with pytest.raises(Busy, match="does not answer") as refused:
        Host(world.resolve)
    assert "Close the dialog" in str(refused.value.remedy)


@pytest.mark.parametrize(("state_of", "error", "words"), [("modal", Busy, "not answer"), ("gone", HostRefused, "quit")])
def test_a_dialog_or_an_end_before_the_next_click_is_told(state_of: str, error: type[FrescoError], words: str) -> None:
    world = World()
    host = Host(world.resolve)
    setattr(world.ledger, state_of, True)
    with pytest.raises(error, match=words):
        collect(host)


@pytest.mark.parametrize("call", ["AddRenderJob", "GetRenderJobStatus", "SetTrackEnable"])
def test_a_dialog_that_opens_meanwhile_is_told_and_closed_dialogs_restore_all(world: World, tmp_path: Path,
                                                                              call: str) -> None:
    edited(world, tmp_path)
    before = state(world)
    host = Host(world.resolve)
    clip = collect(host)[0]

    def opens(name: str) -> None:
        world.ledger.modal = name == call or (world.ledger.modal and name == "GetProductName")

    world.ledger.on_call = opens
    with pytest.raises(Busy, match="does not answer"):
        extracted(host, clip, wish(tmp_path), tmp_path / "v001")
    world.ledger.on_call = None
    if call != "SetTrackEnable":
        assert state(world) == before
    assert host.busy is False


def test_a_dialog_that_stays_is_told_with_what_was_not_put_back(tmp_path: Path) -> None:
    world = World()
    edited(world, tmp_path)
    host = Host(world.resolve)
    clip = collect(host)[0]
    steps = extract(host, clip, wish(tmp_path), tmp_path / "v001")
    next(steps)
    world.ledger.modal = True
    with pytest.raises(Busy):
        next(steps)
    assert {"Resolve did not put back the render settings: look at it.",
            "Resolve did not put back video track 1: look at it."} <= set(host.notices)


def result(folder: Path, first: int, last: int, head: int = 0) -> Result:
    """A delivery whose pictures show their numbers."""
    burnt.write_sequence(folder, range(first, last + 1), "look.%08d.exr")
    return Result(sequence=str(folder / "look.%08d.exr"), first=first, last=last, head=head, version=1,
                  record=str(folder / "fresco.json"))


def placed(world: World, folder: Path, wanted: Wish, found: Result) -> Any:
    """The item that shows a result on the timeline."""
    host = Host(world.resolve)
    id = integrate(host, collect(host)[0], wanted, found)
    return next(item for item in world.timeline.items() if item.id == id)


@pytest.mark.parametrize("destination", [Destination.TRACK, Destination.TAKE])
def test_an_end_frame_that_counts_in_is_read_back_and_corrected(world: World, tmp_path: Path,
                                                                destination: Destination) -> None:
    edited(world, tmp_path)
    world.end_exclusive = False
    before = world.page = "color"
    wanted = wish(tmp_path, input=Input.SOURCE, destination=destination)
    item = placed(world, tmp_path, wanted, result(tmp_path / "look", 1003, 1010, head=2))
    assert (item.start, item.duration, item.source(item.start)) == (86410, 4, 1005)
    assert (world.page, item.do_GetTakesCount()) == (before, 2 if destination is Destination.TAKE else 0)


def test_markers_of_the_user_stay(world: World, tmp_path: Path) -> None:
    clip = edited(world, tmp_path)
    clip.do_AddMarker(2, "Red", "mine", "", 1)
    clip.name = "My clip"
    wanted = wish(tmp_path, input=Input.SOURCE, destination=Destination.TAKE)
    for _ in range(2):
        placed(world, tmp_path, wanted, result(tmp_path / "look", 1003, 1010, head=2))
    assert {frame: mark["name"] for frame, mark in clip.do_GetMarkers().items()} == {2: "mine", 3: "Fresco v001"}
    assert clip.name == "My clip"


def test_a_marker_that_resolve_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    item = edited(world, tmp_path)
    monkeypatch.setattr(type(item), "do_AddMarker", lambda *_: False)
    host = Host(world.resolve)
    assert integrate(host, collect(host)[0], wish(tmp_path), result(tmp_path / "look", 1, 4))
    assert "redo will not find it" in host.notices[0]


def test_a_track_count_that_is_stale_is_asked_again(world: World, tmp_path: Path) -> None:
    edited(world, tmp_path)
    world.stale_counts, world.page = True, "color"
    item = placed(world, tmp_path, wish(tmp_path), result(tmp_path / "look", 1, 4))
    assert (item.track, item.start, world.page) == (2, 86410, "color")


@pytest.mark.parametrize("obstacle", ["locked", "disabled", "taken", "below"])
def test_a_track_of_ours_that_cannot_take_it_is_left_alone(world: World, tmp_path: Path, obstacle: str) -> None:
    clip_track = 2 if obstacle == "below" else 1
    edited(world, tmp_path, Cut(track=clip_track))
    if obstacle != "below":
        edited(world, tmp_path / "other", Cut(track=2, start=12 if obstacle == "taken" else 100))
    ours = world.timeline.tracks["video"][0 if obstacle == "below" else 1]
    ours.name, ours.locked, ours.enabled = "FRESCO", obstacle == "locked", obstacle != "disabled"
    world.timeline.playhead = 11
    item = placed(world, tmp_path, wish(tmp_path), result(tmp_path / "look", 1, 4))
    assert (world.timeline.tracks["video"][item.track - 1].name, item.track) == ("FRESCO 2", 3)


def test_a_track_of_ours_that_is_free_is_used_again(world: World, tmp_path: Path) -> None:
    edited(world, tmp_path)
    edited(world, tmp_path / "other", Cut(track=2, start=100))
    world.timeline.tracks["video"][1].name = "FRESCO"
    world.timeline.playhead = 11
    assert placed(world, tmp_path, wish(tmp_path), result(tmp_path / "look", 1, 4)).track == 2


@pytest.mark.parametrize(("properties", "words"), [
    ({"Start": ""}, r"imported 4 frames from \? on"), ({"Frames": "3"}, "imported 3 frames from 1 on")])
def test_an_import_of_other_frames_is_taken_back(properties: dict[str, str], words: str, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    edited(world, tmp_path)
    real, before = World.imported, state(world)

    def imported(*values: Any, **named: Any) -> Any:
        media = real(*values, **named)
        media.properties.update(properties)
        return media

    monkeypatch.setattr(World, "imported", imported)
    with pytest.raises(HostRefused, match=words):
        placed(world, tmp_path, wish(tmp_path), result(tmp_path / "look", 1, 4))
    assert (state(world), world.pool.root.folders[0].clips, world.violations) == (before, [], [])


@pytest.mark.parametrize("how", ["refused", "ghost", "too short", "no name"])
def test_what_does_not_land_leaves_nothing_behind(world: World, tmp_path: Path, how: str,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    edited(world, tmp_path)
    pool = world.pool
    real = type(pool).do_AppendToTimeline
    ways: dict[str, Any] = {
        "refused": lambda *_: [None], "ghost": lambda *_: [Ghost(world.ledger)],
        "too short": lambda _, infos: real(pool, [{**info, "endFrame": info["startFrame"] + 2} for info in infos])}
    if how == "no name":
        monkeypatch.setattr(type(world.timeline), "do_SetTrackName", lambda *_: False)
    else:
        monkeypatch.setattr(type(pool), "do_AppendToTimeline", ways[how])
    before = state(world)
    words = "did not name the track" if how == "no name" else "did not land at frame 86410 with 4 frames"
    with pytest.raises(HostRefused, match=words) as refused:
        placed(world, tmp_path, wish(tmp_path), result(tmp_path / "look", 1, 4))
    assert how == "no name" or "by hand" in str(refused.value.remedy)
    assert world.pool.root.folders[0].clips == []
    assert (state(world), [track.name for track in world.timeline.tracks["video"]]) == (before, ["Video 1"])


REFUSALS = {"MediaPoolItem.SetClipProperty": "did not set 24 fps", "Timeline.AddTrack": "did not add a video track",
            "TimelineItem.AddTake": "did not add a take", "TimelineItem.SelectTakeByIndex": "did not select the take",
            "the clip was moved": "was moved, trimmed or deleted"}


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("refused", REFUSALS)
def test_what_is_refused_after_the_import_leaves_nothing_in_the_media_pool(tmp_path: Path, refused: str, stays: bool,
                                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    item = edited(world, tmp_path)
    host, found = Host(world.resolve), result(tmp_path / "look", 1, 4)
    clip, media = collect(host)[0], list(world.pool.root.clips)
    wanted = wish(tmp_path, input=Input.SOURCE, destination=Destination.TAKE) if "Take" in refused else wish(tmp_path)
    if "." in refused:
        kind = {"MediaPoolItem": MediaPoolItem, "Timeline": Timeline, "TimelineItem": TimelineItem}
        monkeypatch.setattr(kind[refused.split(".")[0]], f"do_{refused.split('.')[1]}", lambda *_: False)
    else:
        item.start += 1
    if stays:
        monkeypatch.setattr(type(world.pool), "do_DeleteClips", lambda *_: False)
    before = state(world)
    with pytest.raises(FrescoError, match=REFUSALS[refused]):
        integrate(host, clip, wanted, found)
    assert bool(world.pool.root.folders[0].clips) is stays
    assert any("is left in the bin" in notice for notice in host.notices) is stays
    assert (state(world), item.do_GetTakesCount() < 2, world.pool.root.clips, world.violations) == (
        before, True, media, [])


@pytest.mark.parametrize("ours", [True, False])
def test_only_a_track_that_we_made_and_that_is_empty_is_taken_away(tmp_path: Path, ours: bool,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    edited(world, tmp_path)
    timeline, pool = world.timeline, world.pool
    if ours:  # an empty track of an earlier result
        timeline.tracks["video"].append(Track("FRESCO"))

    def appends(_pool: Any, _infos: Any) -> list[None]:
        if not ours:  # an editor drops a clip onto the new track meanwhile
            edited(world, tmp_path / "dropped", Cut(track=2, start=200))
        return [None]

    monkeypatch.setattr(type(pool), "do_AppendToTimeline", appends)
    with pytest.raises(HostRefused):
        placed(world, tmp_path, wish(tmp_path), result(tmp_path / "look", 1, 4))
    assert ([track.name for track in timeline.tracks["video"]], world.violations) == (["Video 1", "FRESCO"], [])


def test_an_empty_track_that_stays_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    edited(world, tmp_path)
    monkeypatch.setattr(type(world.pool), "do_AppendToTimeline", lambda *_: [None])
    monkeypatch.setattr(type(world.timeline), "do_DeleteTrack", lambda *_: False)
    host = Host(world.resolve)
    with pytest.raises(HostRefused):
        integrate(host, collect(host)[0], wish(tmp_path), result(tmp_path / "look", 1, 4))
    assert host.notices == ["The empty video track 2 is left: delete it."]


def test_who_went_to_another_timeline_comes_back_to_it(world: World, tmp_path: Path) -> None:
    edited(world, tmp_path)
    host = Host(world.resolve)
    clip = collect(host)[0]
    other = world.pool.do_CreateEmptyTimeline("Another")
    id = integrate(host, clip, wish(tmp_path), result(tmp_path / "look", 1, 4))
    assert world.project.current is other
    assert [(item.id, item.start) for item in world.timeline.tracks["video"][1].items] == [(id, 86410)]
    world.project.timelines.remove(world.timeline)
    with pytest.raises(InputError, match="is gone"):
        integrate(host, clip, wish(tmp_path), result(tmp_path / "again", 1, 4))


def test_under_colour_management_the_result_has_the_plates_space(world: World, tmp_path: Path) -> None:
    edited(world, tmp_path)
    world.project.settings.update(colorScienceMode="davinciYRGBColorManagedv2", colorSpaceOutput="Rec.709 (Scene)")
    item = placed(world, tmp_path, wish(tmp_path), result(tmp_path / "look", 1, 4))
    assert item.shown.media.properties["Input Color Space"] == "Rec.709 (Scene)"


def test_under_the_first_colour_management_the_way_by_hand_is_told(tmp_path: Path) -> None:
    """It takes no input colour space from scripts, as the double has it."""
    world = World()
    edited(world, tmp_path)
    world.project.settings["colorScienceMode"] = "davinciYRGBColorManaged"
    host = Host(world.resolve)
    integrate(host, collect(host)[0], wish(tmp_path), result(tmp_path / "look", 1, 4))
    assert "Rec.709 Gamma 2.4 by hand" in host.notices[0]


@pytest.mark.parametrize(("settings", "space"), [
    ({"colorSpaceOutput": "P3-D65 Gamma 2.6"}, "g24_rec709"),
    ({"colorScienceMode": "davinciYRGBColorManagedv2", "colorSpaceOutput": "sRGB"}, "srgb_rec709_scene"),
    ({"colorScienceMode": "davinciYRGBColorManagedv2", "separateColorSpaceAndGamma": "1", "colorSpaceOutput": "Rec.709",
      "colorSpaceOutputGamma": "Gamma 2.2"}, "g22_rec709"),
    ({"separateColorSpaceAndGamma": "1", "colorSpaceTimelineGamma": "Gamma 2.4"}, "g24_rec709"),
    ({"colorScienceMode": "acescct", "colorAcesODT": "Rec.709 BT.1886"}, "g24_rec709"),
    ({"colorScienceMode": "acescct", "colorAcesODT": "sRGB Piecewise"}, "srgb_rec709_scene")])
def test_the_plate_has_the_space_that_resolve_renders_in(tmp_path: Path, settings: dict[str, str], space: str) -> None:
    world = World()
    edited(world, tmp_path)
    world.project.settings.update(settings)
    host = Host(world.resolve)
    found = extracted(host, collect(host)[0], wish(tmp_path), tmp_path / "v001")
    assert found.plate.color_space == space


@pytest.mark.parametrize("transform", ["P3-D65 ST2084 (1000 nit)", "No Output Transform", ""])
def test_an_output_transform_of_aces_is_not_taken_for_rec_709(tmp_path: Path, transform: str) -> None:
    world = World()
    edited(world, tmp_path)
    world.project.settings.update(colorScienceMode="acescct", colorAcesODT=transform)
    host = Host(world.resolve)
    with pytest.raises(ColorError, match=f"renders in 'ACES ?{transform[:6]}") as refused:
        validate(host, collect(host)[0], wish(tmp_path))
    assert "--color-space" in str(refused.value.remedy)


def test_under_aces_the_way_by_hand_is_told(tmp_path: Path) -> None:
    world = World()
    edited(world, tmp_path)
    world.project.settings["colorScienceMode"] = "acescct"
    host = Host(world.resolve)
    integrate(host, collect(host)[0], wish(tmp_path), result(tmp_path / "look", 1, 4))
    assert "ACES" in host.notices[0]


@pytest.mark.parametrize(("text", "rate", "drop"), [
    ("24", "24", False), ("24.0", "24", False), ("23.976", "24000/1001", False), ("29.97 DF", "30000/1001", True),
    ("59.94", "60000/1001", False), ("25.000", "25", False), ("23.976023976023978", "24000/1001", False),
    ("119,88", "120000/1001", False), ("100.0", "100", False), ("12.5", "25/2", False)])
def test_rates_as_resolve_writes_them(text: str, rate: str, drop: bool) -> None:
    assert nouns.rate_of(text) == (Rate.parse(rate), drop)
    assert nouns.rate_of(nouns.rate_text(Rate.parse(rate)))[0] == Rate.parse(rate)


@pytest.mark.parametrize(("timecode", "rate", "drop", "frames"), [
    ("01:00:00:00", "24", False, 86400), ("00:01:00;02", "30000/1001", True, 1800),
    ("00:00:59;29", "30000/1001", True, 1799), ("01:00:00;00", "30000/1001", True, 107892),
    ("00:10:00;00", "60000/1001", True, 35964), ("00:01:00,02", "30000/1001", True, 1800),
    ("01:00:00:00", "24000/1001", False, 86400)])
def test_timecodes_as_smpte_counts_them(timecode: str, rate: str, drop: bool, frames: int) -> None:
    assert nouns.frames_of(timecode, Rate.parse(rate), drop_frame=drop) == frames


def test_a_timecode_that_is_none_is_refused() -> None:
    with pytest.raises(ShotError):
        nouns.frames_of("soon", Rate.parse("24"), drop_frame=False)


@pytest.mark.parametrize(("written", "pattern"), [
    ("/a/shot.[1001-1048].exr", "/a/shot.%04d.exr"), ("C:\\a\\s_[00000001-00000009].dpx", "C:\\a\\s_%08d.dpx"),
    ("/a/clip.mov", None), ("/a [1-2]/clip.mov", None)])
def test_sequences_as_resolve_writes_them(written: str, pattern: str | None) -> None:
    assert nouns.sequence_pattern(written) == pattern
