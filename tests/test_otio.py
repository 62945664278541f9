# SPDX-License-Identifier: Apache-2.0
"""Timelines there and back: which frames a clip takes, and that each frame of a result stands over its plate's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from plates import write_sequence

from fresco_backend import cli
from fresco_backend.commands import otio_command
from fresco_protocol.errors import FrescoError, InputError, RangeOutside, UsageError
from fresco_protocol.shot import Shot

otio = pytest.importorskip("opentimelineio")

from fresco_backend.otio import formats  # noqa: E402
from fresco_backend.otio.clips import Usage, exact, path_in, usages, wanted_clips  # noqa: E402
from fresco_backend.otio.looks import look_of  # noqa: E402
from fresco_backend.otio.results import Return, result, returned  # noqa: E402

RATES = (24.0, 24000 / 1001, 25.0, 30000 / 1001, 30.0, 60000 / 1001)
HOUR = 86_400
Frame = tuple[str, int]  # of which media, which frame of it


def time(value: float, rate: float) -> Any:
    return otio.opentime.RationalTime(value, rate)


def span(start: float, count: float, rate: float) -> Any:
    return otio.opentime.TimeRange(time(start, rate), time(count, rate))


def movie(name: str, rate: float, start: int = HOUR, length: int = 100) -> Any:
    return otio.schema.ExternalReference(f"file:///media/{name}.mov", span(start, length, rate))


def sequence(name: str, rate: float, start: int = HOUR, first: int = 1001, length: int = 100) -> Any:
    return otio.schema.ImageSequenceReference(
        target_url_base="file:///media/", name_prefix=f"{name}.", name_suffix=".exr", start_frame=first, rate=rate,
        frame_zero_padding=4, available_range=span(start, length, rate))


def timeline(rate: float, reference: Callable[..., Any] = movie, *, transition: bool = False) -> Any:
    """a (24 frames from 10), a gap of 12, b (20 from 5), a again (8 from 40); a dissolve before the last one."""
    made = otio.schema.Timeline("cut", global_start_time=time(HOUR, rate))
    track = otio.schema.Track("V1", kind=otio.schema.TrackKind.Video)
    made.tracks.append(track)
    for name, start, count in (("a", HOUR + 10, 24), ("", 0, 12), ("b", 5, 20), ("a", HOUR + 40, 8)):
        if not name:
            track.append(otio.schema.Gap(source_range=span(0, count, rate)))
        else:
            media = reference(name, rate, start=HOUR if name == "a" else 0)
            track.append(otio.schema.Clip(name, media, span(start, count, rate)))
    if transition:
        track.insert(3, otio.schema.Transition("dissolve", otio.schema.TransitionTypes.SMPTE_Dissolve,
                                               in_offset=time(3, rate), out_offset=time(2, rate)))
    return made


def shown(track: Any) -> dict[int, Frame]:
    """Which frame of which media a track shows at each of its own frames; gaps are left out."""
    found = {}
    for clip in track.find_clips():
        reference, place = clip.media_reference, clip.range_in_parent()
        first = round(clip.trimmed_range().start_time.value - reference.available_range.start_time.value)
        name = getattr(reference, "target_url", None) or f"{reference.target_url_base}{reference.name_prefix}"
        number = reference.start_frame if isinstance(reference, otio.schema.ImageSequenceReference) else 1
        for step in range(round(place.duration.value)):
            found[round(place.start_time.value) + step] = (Path(str(name)).name, number + first + step)
    return found


def used(made: Any, pattern: str, handles: int) -> list[Usage]:
    """What clips of this name take of their plates."""
    return usages(wanted_clips(made, [pattern]), Path("/cut"), handles)


def done(made: Any, tmp_path: Path, *, way: Return = Return.TRACK, as_movie: bool = True, handles: int = 4) -> Any:
    """The timeline with results for all of its clips."""
    found = usages(wanted_clips(made, ["*"]), Path("/cut"), handles)
    return returned(made, [result(usage, tmp_path / "fresco", as_movie=as_movie) for usage in found], way)


def there_and_back(made: Any, path: Path) -> Any:
    formats.write_timeline(made, path)
    return formats.read_timeline(path, exact(formats.rate_of(made)))


# What the result must show: the plate's own frames, less the first one that was rendered.
EXPECTED_A = {place: ("a_fresco.mov", 1 + 4 + place) for place in range(24)}
EXPECTED_B = {36 + step: ("b_fresco.mov", 1 + 4 + step) for step in range(20)}
EXPECTED_A_AGAIN = {56 + step: ("a_2_fresco.mov", 1 + 4 + step) for step in range(8)}
EXPECTED = {**EXPECTED_A, **EXPECTED_B, **EXPECTED_A_AGAIN}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("suffix", [".otio", ".xml", ".fcpxml", ".aaf"])
def test_every_frame_of_the_result_stands_over_its_plate(suffix: str, rate: float, tmp_path: Path) -> None:
    before = timeline(rate)
    plates = shown(before.tracks[0])
    path = tmp_path / f"cut{suffix}"
    came = there_and_back(done(there_and_back(before, path), tmp_path), path)
    plate_track, result_track = came.video_tracks()
    assert shown(plate_track) == plates
    assert shown(result_track) == EXPECTED


@pytest.mark.parametrize("rate", RATES)
def test_an_edl_shows_the_result_in_place_of_the_plate(rate: float, tmp_path: Path) -> None:
    came = there_and_back(done(timeline(rate), tmp_path, way=Return.REFERENCE), tmp_path / "cut.edl")
    clips = list(came.find_clips())
    names = [Path(clip.media_reference.target_url).name for clip in clips]
    assert names == ["a_fresco.mov", "b_fresco.mov", "a_2_fresco.mov"]
    places = [(round(clip.range_in_parent().start_time.value), round(clip.duration().value)) for clip in clips]
    assert places == [(0, 24), (36, 20), (56, 8)]
    starts = [round(clip.trimmed_range().start_time.value) for clip in clips]
    assert starts == [HOUR + 10, 5, HOUR + 40]


@pytest.mark.parametrize("way", Return)
def test_sequences_keep_the_plates_numbers(way: Return, tmp_path: Path) -> None:
    came = there_and_back(done(timeline(24.0, sequence), tmp_path, way=way, as_movie=False), tmp_path / "cut.otio")
    track = came.video_tracks()[-1]
    numbers = {place: number for place, (_, number) in shown(track).items()}
    assert numbers == {**{place: 1011 + place for place in range(24)}, **{36 + step: 1006 + step for step in range(20)},
                       **{56 + step: 1041 + step for step in range(8)}}
    reference = next(iter(track.find_clips())).media_reference
    assert (reference.name_prefix, reference.start_frame, reference.name_suffix) == ("a_fresco.", 1007, ".exr")


def test_a_reference_keeps_the_first_media_beside_it(tmp_path: Path) -> None:
    came = there_and_back(done(timeline(24.0), tmp_path, way=Return.REFERENCE), tmp_path / "cut.otio")
    clip = next(iter(came.find_clips()))
    assert clip.active_media_reference_key == "FRESCO"
    urls = {key: reference.target_url for key, reference in clip.media_references().items()}
    assert urls["DEFAULT_MEDIA"] == "file:///media/a.mov"


def test_a_transition_takes_frames_beyond_the_cut_and_is_kept(tmp_path: Path) -> None:
    made = timeline(24.0, transition=True)
    found = used(made, "*", 0)
    assert [usage.numbers for usage in found] == [(11, 34), (6, 27), (38, 48)]
    for suffix in (".otio", ".xml"):
        came = there_and_back(done(made.deepcopy(), tmp_path), tmp_path / f"cut{suffix}")
        kinds = [type(item).__name__ for item in came.video_tracks()[-1]]
        assert kinds == ["Clip", "Gap", "Clip", "Transition", "Clip"]


def test_a_transition_counts_in_frames_of_the_media() -> None:
    """Media of 48 frames a second on a timeline of 24: its 3 frames are 6 of them."""
    made = timeline(24.0, transition=True)
    for clip in made.find_clips():
        clip.media_reference, clip.source_range = movie("c", 48.0, start=0), span(20, 40, 48.0)
    assert [usage.numbers for usage in used(made, "*", 0)] == [(21, 60), (21, 64), (15, 60)]


def test_a_clip_of_a_nested_timeline_is_not_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, inner = otio.schema.Timeline("cut"), timeline(24.0)
    outer = otio.schema.Track("V1", kind=otio.schema.TrackKind.Video)
    outer.append(inner.tracks.deepcopy())
    made.tracks.append(outer)
    formats.write_timeline(made, tmp_path / "cut.otio")
    assert cli.main(arguments(tmp_path / "cut.otio", tmp_path / "out.otio")) == 2
    assert "clip b lies inside a nested timeline" in capsys.readouterr().err
    assert cli.main(arguments(tmp_path / "cut.otio", tmp_path / "out.otio", "--return=reference")) == 0


def test_handles_take_no_frames_away() -> None:
    with pytest.raises(UsageError, match="handles of -3 frames"):
        used(timeline(24.0), "a", -3)


def test_handles_end_where_the_media_ends() -> None:
    found = used(timeline(24.0), "*", 1000)
    assert [usage.numbers for usage in found] == [(1, 100)] * 3


def test_clips_that_are_not_done_are_gaps_on_the_new_track(tmp_path: Path) -> None:
    made = timeline(24.0)
    found = used(made, "b", 4)
    came = there_and_back(returned(made, [result(usage, tmp_path, as_movie=True) for usage in found], Return.TRACK),
                          tmp_path / "cut.xml")
    assert shown(came.video_tracks()[-1]) == EXPECTED_B
    assert len(came.video_tracks()) == 2


def test_sound_stays_below_and_pictures_go_on_top(tmp_path: Path) -> None:
    made = timeline(24.0)
    made.tracks.append(otio.schema.Track("A1", kind=otio.schema.TrackKind.Audio))
    assert [track.name for track in done(made, tmp_path).tracks] == ["V1", "FRESCO", "A1"]


def retimed(rate: float, factor: float) -> Any:
    made = timeline(rate)
    made.tracks[0][2].effects.append(otio.schema.LinearTimeWarp("speed", time_scalar=factor))
    return made


def test_a_changed_speed_takes_more_frames_and_is_kept_where_it_can(tmp_path: Path) -> None:
    made = retimed(24.0, 2.0)
    assert used(made, "b", 0)[0].numbers == (6, 45)
    came = there_and_back(done(retimed(24.0, 2.0), tmp_path), tmp_path / "cut.otio")
    assert [effect.time_scalar for effect in came.video_tracks()[-1][2].effects] == [2.0]


def arguments(source: Path, target: Path, *more: str) -> list[str]:
    shots = ["--shots", str(source.parent)]
    return ["otio", str(source), "-o", str(target), "--clips", "b", "--prompt", "ink", *shots, *more]


@pytest.mark.parametrize("suffix", [".xml", ".aaf", ".fcpxml", ".edl"])
def test_a_changed_speed_is_refused_where_it_is_lost(suffix: str, tmp_path: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    formats.write_timeline(retimed(24.0, 2.0), tmp_path / "cut.otio")
    assert cli.main(arguments(tmp_path / "cut.otio", tmp_path / f"out{suffix}")) == 2
    assert "clip b changes its speed, and" in capsys.readouterr().err
    assert not (tmp_path / f"out{suffix}").exists()


def test_a_speed_that_the_adapter_does_not_tell_of_is_found_in_the_file(tmp_path: Path,
                                                                        capsys: pytest.CaptureFixture[str]) -> None:
    formats.write_timeline(timeline(24.0), tmp_path / "cut.xml")
    text = (tmp_path / "cut.xml").read_text(encoding="utf-8")
    before, name, after = text.partition("<name>b</name>")
    effect = "<filter><effect><effectid>timeremap</effectid></effect></filter>"
    (tmp_path / "cut.xml").write_text(before + name + effect + after, encoding="utf-8")
    assert cli.main(arguments(tmp_path / "cut.xml", tmp_path / "out.otio")) == 2
    assert "clip b changes its speed, and Final Cut Pro 7 XML loses that" in capsys.readouterr().err


@pytest.mark.parametrize("factor", [-1.0])
def test_a_clip_that_runs_backwards_is_refused(factor: float) -> None:
    with pytest.raises(UsageError, match="runs backwards"):
        used(retimed(24.0, factor), "b", 0)


def test_marks_choose_clips_and_say_looks() -> None:
    made = timeline(24.0)
    first, _, second, third = made.tracks[0]
    with pytest.raises(UsageError, match="no clip is named or marked"):
        wanted_clips(made, [])
    with pytest.raises(UsageError, match=r"no clip is called sh9\* or x. .* a, "):
        wanted_clips(made, ["sh9*", "x"])
    first.markers.append(otio.schema.Marker("Fresco", comment="an ink drawing"))
    second.metadata["fresco"] = {"prompt": "a mosaic", "seed": 7}
    assert [clip.name for clip in wanted_clips(made, [])] == ["a", "b"]
    assert look_of(first, {}, "a comic").prompt == "an ink drawing"
    assert (look_of(second, {}, None).prompt, look_of(second, {}, None).seed) == ("a mosaic", 7)
    assert look_of(second, {"b*": {"prompt": "snow"}}, None).prompt == "snow"
    assert look_of(third, {}, "a comic").prompt == "a comic"
    with pytest.raises(UsageError, match="clip a has no prompt"):
        look_of(third, {}, None)
    with pytest.raises(UsageError, match="look of clip b"):
        look_of(second, {"b": {"seed": -1}}, None)


def other_media(reference: Any) -> Any:
    made = timeline(24.0)
    made.tracks[0][2].media_reference = reference
    return made


@pytest.mark.parametrize(("reference", "error", "sentence"), [
    (otio.schema.MissingReference(), InputError, "no media"),
    (otio.schema.ExternalReference("file:///media/still.png"), InputError, "neither a movie nor a sequence"),
    (movie("b", 24.0, start=0, length=20), RangeOutside, "frames that its media does not have"),
    (movie("b", 25.0, start=0), InputError, "between two frames"),
])
def test_media_that_cannot_be_used_is_said_with_the_clip(reference: Any, error: type[FrescoError],
                                                         sentence: str) -> None:
    with pytest.raises(error, match=sentence) as raised:
        used(other_media(reference), "b", 0)
    assert str(raised.value.where).startswith("b")


@pytest.mark.parametrize(("url", "expected"), [
    ("file:///media/my%20show/b.mov", "/media/my show/b.mov"), ("file:///media/100%2525.mov", "/media/100%25.mov"),
    ("/media/b.mov", "/media/b.mov"),
    ("b.mov", "/cut/b.mov")])
def test_media_is_found_by_url_by_path_and_beside_the_timeline(url: str, expected: str) -> None:
    made = other_media(otio.schema.ExternalReference(url, span(0, 100, 24.0)))
    assert used(made, "b", 0)[0].media.sequence == expected


@pytest.mark.parametrize(("url", "expected"), [
    ("file:///D:/media/my%20show/b.mov", "D:/media/my show/b.mov"),
    ("file://localhost/D%3a/media/b.mov", "D:/media/b.mov"),  # Premiere
    ("file://server/share/b.mov", "//server/share/b.mov"),
    ("file://localhost//server/share/b.mov", "//server/share/b.mov")])
def test_urls_of_windows_lead_to_drives_and_shares(url: str, expected: str) -> None:
    assert path_in(url, windows=True) == expected


def test_names_that_differ_by_case_have_folders_of_their_own() -> None:
    made = timeline(24.0)
    for clip, name in zip(made.find_clips(), ("SH010", "sh010", "Sh010_2"), strict=True):
        clip.name = name
    assert [usage.name for usage in used(made, "*", 0)] == ["SH010", "sh010_2", "Sh010_2_2"]


def test_resolves_shape_comes_in_and_goes_back(tmp_path: Path) -> None:
    reference = otio.schema.ExternalReference("/media/b.[1001-1100].exr", span(HOUR, 100, 24.0))
    made = other_media(reference)
    made.tracks[0][2].source_range = span(HOUR + 5, 20, 24.0)
    (usage,) = used(made, "b", 4)
    assert (usage.media.sequence, usage.numbers) == ("/media/b.####.exr", (1002, 1029))
    came = returned(made, [result(usage, tmp_path, as_movie=False)], Return.TRACK)
    back = next(iter(came.video_tracks()[-1].find_clips()))
    assert back.media_reference.target_url_base == f"{tmp_path / 'b_fresco'}/"
    assert back.source_range == span(HOUR + 5, 20, 24.0)
    assert back.media_reference.available_range == span(HOUR + 1, 28, 24.0)
    assert came.global_start_time == time(HOUR, 24.0)


@pytest.mark.parametrize(("rate", "expected"), [
    (24.0, Fraction(24)), (23.976, Fraction(24000, 1001)), (24000 / 1001, Fraction(24000, 1001)),
    (29.97, Fraction(30000, 1001)), (59.94, Fraction(60000, 1001)), (12.5, Fraction(25, 2)),
    (26777 / 1000, Fraction(26777, 1000)), (1000000 / 66667, Fraction(1000000, 66667))])
def test_rates_are_exact(rate: float, expected: Fraction) -> None:
    assert exact(rate) == expected


def test_a_shot_is_rendered_and_stands_in_the_timeline(
        tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    plate = write_sequence(tmp_path / "plate", range(1001, 1013), width=64, height=64)
    reference = otio.schema.ImageSequenceReference(
        target_url_base=f"{plate.parent.as_uri()}/", name_prefix="plate.", name_suffix=".exr", start_frame=1001,
        rate=24, frame_zero_padding=4, available_range=span(0, 12, 24.0))
    made = otio.schema.Timeline("cut")
    made.tracks.append(otio.schema.Track("V1", kind=otio.schema.TrackKind.Video))
    made.tracks[0].append(otio.schema.Clip("sh010", reference, span(3, 4, 24.0)))
    formats.write_timeline(made, tmp_path / "cut.otio")
    looks = {"sh*": {"prompt": "a photo", "model": str(tiny_model), "steps": 4, "strength": 0.5}}
    (tmp_path / "looks.json").write_text(json.dumps(looks), encoding="utf-8")
    words = ["otio", str(tmp_path / "cut.otio"), "-o", str(tmp_path / "out.otio"), "--clips", "sh*", "--handles=1",
             "--looks", str(tmp_path / "looks.json")]
    assert cli.main([*words, "--shots", str(tmp_path / "shots")]) == 0
    assert Shot.from_json((tmp_path / "shots" / "sh010.json").read_text(encoding="utf-8")).look.steps == 4
    (tmp_path / "out.otio").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(otio_command, "_render", stopped)
        assert cli.main(words) == 130
        assert "0 of 1 clips are finished" in (said := capsys.readouterr().err) and "The same command goes on" in said
    assert not (tmp_path / "out.otio").exists()
    assert cli.main([*words, "--json"]) == 0
    told, results = json.loads(capsys.readouterr().out.splitlines()[-1]), tmp_path / "fresco" / "out-otio"
    assert told["clips"] == [{"clip": "sh010", "frames": [1003, 1008],
                              "output": str(results / "sh010_fresco" / "sh010_fresco.####.exr")}]
    track = formats.read_timeline(tmp_path / "out.otio").video_tracks()[-1]
    (back,) = track.find_clips()
    for place, (_, number) in shown(track).items():
        assert number == 1004 + place
        moment = time(3 + place, 24.0)
        assert back.media_reference.frame_for_time(moment) == number
        assert (results / "sh010_fresco" / f"sh010_fresco.{number}.exr").is_file()
    assert cli.main([*words[:3], str(tmp_path / "other.otio"), *words[4:], "--shots", str(tmp_path / "others")]) == 0
    other = Shot.from_json((tmp_path / "others" / "sh010.json").read_text(encoding="utf-8"))
    assert Path(other.delivery.sequence).parents[1] == results.with_name("other-otio")


def test_an_edl_needs_a_rate_and_a_track_of_its_own_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    formats.write_timeline(timeline(24.0), tmp_path / "cut.edl")
    assert cli.main(arguments(tmp_path / "cut.edl", tmp_path / "out.edl")) == 2
    assert "an EDL does not say its frame rate" in capsys.readouterr().err
    assert cli.main(arguments(tmp_path / "cut.edl", tmp_path / "out.edl", "--rate=fast")) == 2
    assert '--rate is "fast"' in capsys.readouterr().err
    formats.write_timeline(timeline(24.0), tmp_path / "cut.otio")
    assert cli.main(arguments(tmp_path / "cut.otio", tmp_path / "out.edl", "--return=track")) == 2
    assert "holds one track" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "content", "code"), [
    ("cut.mkv", "", 2), ("cut.otio", "{", 3), ("cut.otio", None, 3), ("cut.xml", "<a>", 3)])
def test_what_is_no_timeline_is_refused(name: str, content: str | None, code: int, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert cli.main(arguments(tmp_path / name, tmp_path / "out.otio")) == code


@pytest.mark.parametrize("suffix", [".otiod", ".otioz"])
def test_an_archive_carries_its_plates_and_its_results(suffix: str, tmp_path: Path) -> None:
    plate = tmp_path / "b.mov"
    plate.write_bytes(b"pictures")
    made = otio.schema.Timeline("cut")
    made.tracks.append(otio.schema.Track("V1", kind=otio.schema.TrackKind.Video))
    reference = otio.schema.ExternalReference(plate.as_uri(), span(0, 100, 24.0))
    made.tracks[0].append(otio.schema.Clip("b", reference, span(5, 20, 24.0)))
    path = tmp_path / f"cut{suffix}"
    came = there_and_back(made, path)
    (usage,) = used(came, "b", 0)
    assert Path(usage.media.sequence).read_bytes() == b"pictures"
    assert Path(usage.media.sequence) != plate
    output = result(usage, tmp_path / "fresco", as_movie=True)
    output.path.parent.mkdir()
    output.path.write_bytes(b"watercolour")
    back = there_and_back(returned(came, [output], Return.TRACK), tmp_path / f"out{suffix}")
    (first, again) = used(back, "b", 0)
    assert Path(first.media.sequence).read_bytes() == b"pictures"
    assert Path(again.media.sequence).read_bytes() == b"watercolour"


def archive(tmp_path: Path, content: bytes) -> Any:
    """A timeline of one movie, in an archive."""
    plate = tmp_path / "b.mov"
    plate.write_bytes(content)
    made = otio.schema.Timeline("cut")
    made.tracks.append(otio.schema.Track("V1", kind=otio.schema.TrackKind.Video))
    made.tracks[0].append(otio.schema.Clip("b", otio.schema.ExternalReference(plate.as_uri(), span(0, 100, 24.0)),
                                           span(5, 20, 24.0)))
    formats.write_timeline(made, tmp_path / "cut.otioz")
    return tmp_path / "cut.otioz"


def test_an_archive_is_read_again_and_its_plates_stay_the_same_files(tmp_path: Path) -> None:
    """A shot that was interrupted goes on only when the times of its plate are the same."""
    path = archive(tmp_path, b"pictures")
    places = [Path(used(formats.read_timeline(path), "b", 0)[0].media.sequence) for _ in range(2)]
    before = places[0].stat().st_mtime_ns
    assert (places[0], before) == (places[1], places[1].stat().st_mtime_ns)
    os.utime(places[0], ns=(before - 10**10, before - 10**10))
    formats.read_timeline(archive(tmp_path, b"Pictures"))
    assert places[0].read_bytes() == b"Pictures", "a later archive has the name"
    places[0].write_bytes(b"Pic")
    formats.read_timeline(path)
    assert places[0].read_bytes() == b"Pictures", "it was unpacked in part"
    path.write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be read"):
        formats.read_timeline(path)


@pytest.mark.parametrize("suffix", [".otio", ".otiod", ".otioz", ".edl"])
def test_a_timeline_is_written_again_over_the_one_of_an_earlier_run(suffix: str, tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("first", "second"):
        made = timeline(24.0)
        made.tracks[0][0].name = name
        formats.write_timeline(made, Path(f"out{suffix}"))
        found = formats.read_timeline(Path(f"out{suffix}"), Fraction(24))
        assert name in [clip.name for clip in found.find_clips()]
    assert {path.name for path in tmp_path.iterdir()} <= {f"out{suffix}", "out.media"}


def test_a_timeline_that_cannot_be_written_is_refused_before_anything_is_rendered(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(otio_command, "_render", lambda *_, **__: pytest.fail("it renders"))
    formats.write_timeline(timeline(24.0, transition=True), tmp_path / "cut.otio")
    (tmp_path / "file").write_bytes(b"")
    for output, word in ((tmp_path / "file" / "out.otio", "file is no folder"), (tmp_path / "out.aaf", "AAF"),
                         (tmp_path / "." / "cut.otio", "over itself")):
        words = ["otio", str(tmp_path / "cut.otio"), "-o", str(output), "--clips", "b", "--prompt", "ink"]
        assert cli.main(words) == 4
        assert word in capsys.readouterr().err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.otio", "file"]
