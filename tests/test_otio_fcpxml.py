# SPDX-License-Identifier: Apache-2.0
"""FCPXML as Final Cut Pro and Resolve write it: rates, time codes, connected clips and storylines, frame by frame."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from test_otio import arguments, done, shown

from fresco_backend import cli
from fresco_protocol.errors import InputError, OutputDenied, UsageError
from fresco_protocol.shot import Shot, parse_frames

otio = pytest.importorskip("opentimelineio")

from fresco_backend.otio import formats  # noqa: E402

RATES = [Fraction(24000, 1001), Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(30), Fraction(50),
         Fraction(60000, 1001)]
Frame = tuple[str, int]


def cut(path: Path, rate: Fraction, *, hour: str = "3600/1s", edit: tuple[str, str] = ("", "")) -> Path:
    """A timeline as Resolve writes it: from 01:00:00:00, media by media-rep, a connected clip, a title, sound.

    V1: a (48 frames from 10), a title of 12, b (20 from 5). Above: c, 6 frames from 3, at frame 20; a storyline with d,
    4 frames from 0, at frame 30. hour: how the file writes the time code of the timeline and of a. edit: of its text.
    """
    def at(frames: int, base: str = "0s") -> str:
        return f"{Fraction(base.removesuffix('s')) + frames / rate}s"

    duration = f"{rate.denominator}/{rate.numerator}s"
    media = "".join(f'<asset id="{name}" name="{name}.mov" start="{start}" duration="{at(100)}" hasVideo="1" '
                    f'hasAudio="1" format="r0"><media-rep kind="original-media" src="file:///media/{name}.mov"/></asset>'
                    for name, start in (("a", hour), ("b", "0/1s"), ("c", "0/1s"), ("d", "0/1s")))
    text = f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE fcpxml>
<fcpxml version="1.10"><resources>
<format id="r0" name="FFVideoFormat1080p" frameDuration="{duration}" width="1920" height="1080"/>
<format id="r9" name="FFVideoFormatRateUndefined"/>
{media}<asset id="s" name="score.wav" start="0/1s" duration="180/1s" hasAudio="1"><media-rep src="file:///media/s.wav"/></asset>
<effect id="e" name="Basic Title" uid="x"/></resources>
<library><event name="Timeline 1"><project name="Timeline 1">
<sequence format="r0" tcStart="{hour}" tcFormat="NDF" duration="{at(80)}"><spine>
<asset-clip ref="a" name="a" offset="{hour}" start="{at(10, hour)}" duration="{at(48)}">
<asset-clip ref="s" lane="-1" name="score" offset="{at(10, hour)}" start="1/48000s" duration="1001/500s"/>
<asset-clip ref="c" lane="1" name="c" offset="{at(30, hour)}" start="{at(3)}" duration="{at(6)}"/>
<spine lane="2" offset="{at(40, hour)}"><asset-clip ref="d" name="d" offset="0s" start="0s" duration="{at(4)}"/></spine>
</asset-clip>
<title ref="e" name="Title" offset="{at(48, hour)}" start="{at(0, hour)}" duration="{at(12)}"><text>Hello</text></title>
<asset-clip ref="b" name="b" offset="{at(60, hour)}" start="{at(5)}" duration="{at(20)}"/>
</spine></sequence></project></event></library></fcpxml>
"""
    path.write_text(text.replace(*edit) if edit[0] else text, encoding="utf-8")
    return path


def on_tracks(timeline: Any) -> list[dict[int, Frame]]:
    return [shown(track) for track in timeline.video_tracks()]


A, B = {n: ("a.mov", 11 + n) for n in range(48)}, {60 + n: ("b.mov", 6 + n) for n in range(20)}
C, D = {20 + n: ("c.mov", 4 + n) for n in range(6)}, {30 + n: ("d.mov", 1 + n) for n in range(4)}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("exact", [True, False])
def test_a_file_of_resolve_is_read_frame_by_frame(rate: Fraction, exact: bool, tmp_path: Path) -> None:
    """At 23.976, an hour of time code is 3603.6 seconds, or is written as 3600."""
    hour = f"{86_400 / Fraction(24) * Fraction(round(rate)) / rate}s" if exact else "3600/1s"
    found = formats.read_timeline(cut(tmp_path / "cut.fcpxml", rate, hour=hour))
    assert on_tracks(found) == [{**A, **B}, C, D]
    assert formats.rate_of(found) == float(rate)
    assert [clip.name for track in found.audio_tracks() for clip in track.find_clips()] == ["score"]
    assert found.global_start_time.value == round(Fraction(hour.removesuffix("s")) * rate)


@pytest.mark.parametrize("rate", RATES)
def test_results_stand_over_their_plates_and_the_file_says_its_rate(rate: Fraction, tmp_path: Path) -> None:
    found = formats.read_timeline(cut(tmp_path / "cut.fcpxml", rate, edit=('tcFormat="NDF"', 'tcFormat="DF"')))
    formats.write_timeline(done(found, tmp_path), tmp_path / "out.fcpxml")
    came = formats.read_timeline(tmp_path / "out.fcpxml")
    tracks = on_tracks(came)
    assert tracks[:3] == [{**A, **B}, C, D]
    results = {place: number for track in tracks[3:] for place, (name, number) in track.items() if "a_fresco" in name}
    assert results == {n: 5 + n for n in range(48)}
    root = ElementTree.parse(tmp_path / "out.fcpxml").getroot()
    sequence = next(root.iter("sequence"))
    assert (sequence.get("tcStart"), sequence.get("tcFormat")) == (f"{round(3600 * rate) / rate}s", "DF")
    assert {form.get("frameDuration") for form in root.iter("format")} == {f"{rate.denominator}/{rate.numerator}s"}
    for element in root.iter():
        for name in ("offset", "start", "duration"):
            if name in element.attrib and element.tag != "audio" and "score" not in str(element.attrib):
                assert (Fraction(element.attrib[name].removesuffix("s")) * rate).denominator == 1, element.attrib
    videos = {video.get("ref"): video.get("offset") for video in root.iter("video")}
    assert all(asset.get("start") == videos[asset.get("id")] for asset in root.iter("asset")
               if asset.get("id") in videos), "the picture lies where the clip looks for it"


def test_the_command_makes_shots_of_the_files_own_rate(tmp_path: Path) -> None:
    cut(tmp_path / "cut.fcpxml", Fraction(30000, 1001))
    assert cli.main(arguments(tmp_path / "cut.fcpxml", tmp_path / "out.fcpxml")) == 0
    shot = Shot.from_json((tmp_path / "b.json").read_text(encoding="utf-8"))
    assert (str(shot.plate.rate), shot.plate.sequence) == ("30000/1001", "/media/b.mov")
    assert shot.plate.frames == parse_frames("1-33"), "20 from the sixth, with handles of eight where there is media"
    assert on_tracks(formats.read_timeline(tmp_path / "out.fcpxml"))[:3] == [{**A, **B}, C, D]


@pytest.mark.parametrize("form", ['frameDuration="100/2500s"', 'name="FFVideoFormat1080p25"'])
def test_media_of_another_rate_is_refused(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = f'<format id="r25" {form}/><asset id="b" name="b.mov" start="0/1s" duration="4s" ' \
            'hasVideo="1" format="r25"><media-rep src="file:///media/b.mov"/></asset><asset id="unused" '
    cut(tmp_path / "cut.fcpxml", Fraction(24), edit=('<asset id="b" ', other))
    assert cli.main(arguments(tmp_path / "cut.fcpxml", tmp_path / "out.fcpxml")) == 2
    assert "the media of clip b has another frame rate" in capsys.readouterr().err


@pytest.mark.parametrize(("edit", "words"), [
    (('offset="7205/2s"', 'offset="3662.51s"'), "lies between two frames"), (("</title>", ""), "cannot be read"),
    (('frameDuration="1/24s"', ""), "no frame rate"), (('offset="7205/2s"', 'offset="soon"'), "cannot be read")])
def test_what_is_no_sequence_of_frames_is_said(edit: tuple[str, str], words: str, tmp_path: Path) -> None:
    path = cut(tmp_path / "cut.fcpxml", Fraction(24), edit=edit)
    with pytest.raises(InputError, match=words) as refused:
        formats.read_timeline(path)
    assert refused.value.where == str(path)


COMPOUND = """\
<fcpxml version="1.10"><resources><format id="r0" frameDuration="1001/24000s"/>
<asset id="a" name="a" start="0s" duration="100100/24000s" hasVideo="1" format="r0"><media-rep src="file:///a.mov"/></asset>
<media id="m" name="comp"><sequence format="r0" tcStart="7200s"><spine>
<asset-clip ref="a" name="a" offset="7200s" start="10010/24000s" duration="50050/24000s"/></spine></sequence></media>
</resources><library><event name="e"><project name="p"><sequence format="r0" tcStart="3600s"><spine>
<ref-clip ref="m" name="comp" offset="3600s" start="172805005/24000s" duration="20020/24000s"/>
</spine></sequence></project></event></library></fcpxml>
"""


def test_a_compound_clip_has_a_time_code_of_its_own(tmp_path: Path) -> None:
    """It shows its sixth frame first, which is the sixteenth of its media."""
    (tmp_path / "cut.fcpxml").write_text(COMPOUND, encoding="utf-8")
    found = formats.read_timeline(tmp_path / "cut.fcpxml")
    (stack,) = found.video_tracks()[0]
    (clip,) = stack.find_clips()
    assert [round(time.value) for time in (stack.source_range.start_time, stack.duration())] == [5, 20]
    assert [round(time.value) for time in (clip.source_range.start_time, clip.range_in_parent().start_time)] == [10, 0]
    assert found.global_start_time.value == round(3600 * Fraction(24000, 1001))


def test_a_file_without_a_sequence_is_said(tmp_path: Path) -> None:
    (tmp_path / "cut.fcpxml").write_text("<fcpxml><resources/></fcpxml>", encoding="utf-8")
    with pytest.raises(InputError, match="no sequence"):
        formats.read_timeline(tmp_path / "cut.fcpxml")


def test_times_of_two_rates_cannot_be_written(tmp_path: Path) -> None:
    timeline = formats.read_timeline(cut(tmp_path / "cut.fcpxml", Fraction(24)))
    reference = next(iter(timeline.find_clips())).media_reference
    reference.available_range = otio.opentime.TimeRange(otio.opentime.RationalTime(1, 48.0),
                                                        reference.available_range.duration)
    with pytest.raises((UsageError, OutputDenied), match="between two frames"):
        formats.write_timeline(timeline, tmp_path / "out.fcpxml")
    assert not (tmp_path / "out.fcpxml").exists()
