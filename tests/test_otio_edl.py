# SPDX-License-Identifier: Apache-2.0
"""EDL as Avid, Premiere and Resolve write it: drop frame, speeds, names without paths, clips that are used twice."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from test_otio import arguments, done, span

from fresco_backend import cli
from fresco_protocol.errors import InputError, UsageError

otio = pytest.importorskip("opentimelineio")

from fresco_backend.otio import edl, formats  # noqa: E402
from fresco_backend.otio.clips import usages, wanted_clips  # noqa: E402
from fresco_backend.otio.results import Return  # noqa: E402

NTSC = Fraction(30000, 1001)
HOUR = 60 * 60 * 30
HEAD = "TITLE: cut\nFCM: {fcm}\n\n"
# Premiere's and Avid's punctuation: colons, whatever FCM says. Two uses of one clip; the second one runs over a minute
# in which two numbers drop out.
TWICE = """\
001  A001C003 V     C        01:00:59:20 01:01:00:10 01:00:00:00 01:00:00:{a}
* FROM CLIP NAME: A001C003.mov
* FROM CLIP: file:///media/a.mov
002  A001C003 V     C        01:00:58:00 01:00:59:00 01:00:01:00 01:00:02:00
* FROM CLIP NAME: A001C003.mov
* FROM CLIP: file:///media/a.mov
"""


def read(path: Path, text: str, rate: Fraction = NTSC) -> Any:
    path.write_text(text, encoding="utf-8")
    return formats.read_timeline(path, rate)


def placed(timeline: Any) -> list[tuple[int, int, int]]:
    """Place on the track, first frame of the source, frames: of each clip."""
    return [(round(clip.range_in_parent().start_time.value), round(clip.trimmed_range().start_time.value),
             round(clip.duration().value)) for clip in timeline.video_tracks()[0].find_clips()]


@pytest.mark.parametrize(("fcm", "punctuation", "start", "count"), [
    ("DROP FRAME", ":", HOUR - 108 + 59 * 30 + 20, 18), ("DROP FRAME", ";", HOUR - 108 + 59 * 30 + 20, 18),
    ("NON-DROP FRAME", ":", HOUR + 59 * 30 + 20, 20)])
def test_time_codes_drop_frames_as_the_list_says(fcm: str, punctuation: str, start: int, count: int,
                                                 tmp_path: Path) -> None:
    """01:00:59;29 is followed by 01:01:00;02."""
    text = HEAD.format(fcm=fcm) + TWICE.format(a=count)
    text = edl._TIMECODE.sub(rf"\1{punctuation}\2", text)
    found = read(tmp_path / "cut.edl", text)
    assert placed(found) == [(0, start, count), (30, start - 50, 30)]
    for clip in found.find_clips():
        clip.media_reference.available_range = span(HOUR - 108, 10_000, float(NTSC))
    formats.write_timeline(done(found, tmp_path, way=Return.REFERENCE), tmp_path / "out.edl")
    written = (tmp_path / "out.edl").read_text(encoding="utf-8")
    separator = ";" if fcm == "DROP FRAME" else ":"
    assert f"01:00:59{separator}20 01:01:00{separator}10 " in written
    assert (";" in written) is (fcm == "DROP FRAME")
    back = formats.read_timeline(tmp_path / "out.edl", NTSC)
    assert [(place, count) for place, _, count in placed(back)] == [(0, count), (30, 30)]
    names = [Path(clip.media_reference.target_url).name for clip in back.find_clips()]
    assert names == ["A001C003_fresco.mov", "A001C003_2_fresco.mov"]


RECORDED = """\
001  A001 A     C        00:00:00:05 00:00:00:15 01:00:00:05 01:00:00:15
002  A001 V     C        00:00:00:00 00:00:00:10 01:00:00:00 01:00:00:10
003  A001 V     C        00:00:00:12 00:00:00:20 01:00:00:14 01:00:00:22
"""


def test_the_record_begins_where_the_timeline_does(tmp_path: Path) -> None:
    """The adapter hides the start of a record in the ranges of tracks, where new tracks and other formats miss it."""
    found = read(tmp_path / "cut.edl", HEAD.format(fcm="NON-DROP FRAME") + RECORDED, Fraction(24))
    assert found.global_start_time == otio.opentime.RationalTime(86_400, 24)
    places = {track.kind: [round(clip.transformed_time_range(clip.trimmed_range(), found.tracks).start_time.value)
                           for clip in track.find_clips()] for track in found.tracks}
    assert places == {otio.schema.TrackKind.Audio: [5], otio.schema.TrackKind.Video: [0, 14]}
    for clip in found.find_clips():
        clip.media_reference = otio.schema.ExternalReference("file:///media/a.mov", span(0, 100, 24.0))
    came = done(found, tmp_path)
    made = came.video_tracks()
    assert [[clip.transformed_time_range(clip.trimmed_range(), came.tracks) for clip in track.find_clips()]
            for track in made] == [[span(0, 10, 24.0), span(14, 8, 24.0)]] * 2, "each result stands over its clip"


@pytest.mark.parametrize("suffix", [".otio", ".edl"])
def test_an_edl_of_a_timeline_records_at_its_time_codes(suffix: str, tmp_path: Path) -> None:
    if suffix == ".edl":
        source = read(tmp_path / "cut.edl", HEAD.format(fcm="NON-DROP FRAME") + RECORDED, Fraction(24))
    else:
        source = otio.schema.Timeline("cut", global_start_time=otio.opentime.RationalTime(86_400, 24))
        source.tracks.append(otio.schema.Track("V1", kind=otio.schema.TrackKind.Video))
        media = otio.schema.ExternalReference("file:///media/a.mov", span(0, 100, 24.0))
        source.tracks[0].extend([otio.schema.Clip("a", media, span(0, 10, 24.0)), otio.schema.Gap(
            source_range=span(0, 4, 24.0)), otio.schema.Clip("a", media.deepcopy(), span(12, 8, 24.0))])
    formats.write_timeline(source, tmp_path / "out.edl")
    written = (tmp_path / "out.edl").read_text(encoding="utf-8")
    assert "00:00:00:00 00:00:00:10 01:00:00:00 01:00:00:10" in written
    assert "00:00:00:12 00:00:00:20 01:00:00:14 01:00:00:22" in written


def m2(speed: str, record: str = "01:00:01:00", note: str = "") -> str:
    return (HEAD.format(fcm="NON-DROP FRAME") + "001  A001 V     C        00:00:10:00 00:00:11:00 01:00:00:00 "
            f"{record}\n"
            f"M2   A001             {speed}                00:00:10:00\n{note}* FROM CLIP NAME: b\n"
            "* FROM CLIP: file:///media/b.mov\n")


@pytest.mark.parametrize(("speed", "record", "words"), [
    ("-024.0", "01:00:01:00", "clip b changes its speed"),  # backwards: both durations are the same
    ("048.0", "01:00:00:12", "clip b changes its speed"), ("012.0", "01:00:02:00", "clip b changes its speed"),
    ("000.0", "01:00:02:00", "clip b changes its speed")])
def test_a_changed_speed_is_refused(speed: str, record: str, words: str, tmp_path: Path,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cut.edl").write_text(m2(speed, record), encoding="utf-8")
    assert cli.main(arguments(tmp_path / "cut.edl", tmp_path / "out.otio", "--rate=24")) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out.otio").exists()


def test_a_speed_that_is_the_lists_own_is_no_change(tmp_path: Path) -> None:
    found = read(tmp_path / "cut.edl", m2("024.0"), Fraction(24000, 1001))
    assert not any(formats.is_retimed(clip) for clip in found.find_clips())


def test_speeds_of_other_clips_are_kept_or_said(tmp_path: Path) -> None:
    """Drop frame's semicolon in M2 stops the adapter, and a length that changed would be written wrong."""
    text = m2("-030.0").replace("NON-DROP", "DROP").replace("00:00:10:00\n", "00:00:10;00\n")
    found = read(tmp_path / "cut.edl", text)
    formats.write_timeline(found, tmp_path / "out.edl")
    written = (tmp_path / "out.edl").read_text(encoding="utf-8").splitlines()
    assert [line.split()[:3] for line in written if "M2" in line] == [["M2", "A001", "-030.0"]]
    assert formats.is_retimed(next(iter(formats.read_timeline(tmp_path / "out.edl", NTSC).find_clips())))
    (clip,) = found.find_clips()
    assert [round(effect.time_scalar, 3) for effect in clip.effects] == [-1.001], "other formats are told too"
    faster = read(tmp_path / "cut.edl", m2("048.0", "01:00:00:12"), Fraction(24))
    with pytest.raises(UsageError, match="changes its speed, and an EDL"):
        formats.write_timeline(faster, tmp_path / "faster.edl")


def test_durations_that_differ_without_a_word_are_said(tmp_path: Path) -> None:
    text = "\n".join(line for line in m2("048.0", "01:00:00:12").splitlines() if not line.startswith("M2"))
    with pytest.raises(InputError, match="duration"):
        read(tmp_path / "cut.edl", text, Fraction(24))


NAMED = """\
TITLE: cut
FCM: NON-DROP FRAME

001  A001C003 V     C        01:00:00:10 01:00:00:20 01:00:00:00 01:00:00:10
* FROM CLIP NAME: {name}
002  B002     V     C        00:00:00:05 00:00:00:09 01:00:00:10 01:00:00:14
"""


def movie(path: Path, timecode: str | None = None) -> None:
    """A movie of 24 frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        if timecode:
            container.metadata["timecode"] = timecode
        for _ in range(24):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("name", ["A001C003.mov", "A001C003", "a001c003.MOV", "Take 3"])
def test_movies_are_found_by_the_names_of_clips_and_reels(name: str, tmp_path: Path) -> None:
    """Resolve and Premiere write no paths: a clip's name, else its reel, leads to its movie."""
    movie(tmp_path / "A001C003.mov", "01:00:00:00")
    movie(tmp_path / "B002.mov")
    found = read(tmp_path / "cut.edl", NAMED.format(name=name), Fraction(24))
    assert [clip.name for clip in found.find_clips()] == [name, "B002"]
    edl.relink(found, tmp_path, below=False)
    first, second = usages(wanted_clips(found, ["*"]), tmp_path, 0)
    assert (Path(first.media.sequence).name, first.numbers) == ("A001C003.mov", (11, 20))
    assert (Path(second.media.sequence).name, second.numbers) == ("B002.mov", (6, 9))


def test_a_movie_that_is_not_there_or_there_twice_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cut.edl").write_text(NAMED.format(name="b"), encoding="utf-8")
    words = arguments(tmp_path / "cut.edl", tmp_path / "out.edl", "--rate=24")
    assert cli.main(words) == 3
    assert "the clip has no media" in capsys.readouterr().err
    for folder in ("one", "two"):
        (tmp_path / "plates" / folder).mkdir(parents=True)
        (tmp_path / "plates" / folder / "b.mov").write_bytes(b"pictures")
    assert cli.main([*words, "--plates", str(tmp_path / "plates")]) == 3
    assert "2 movies have the name of its clip" in capsys.readouterr().err
