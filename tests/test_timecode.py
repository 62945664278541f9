# SPDX-License-Identifier: Apache-2.0
"""Time codes of pictures that come from a movie, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from shots import rendered, small_shot, with_look, with_plate
from test_movie import timecoded

from fresco_backend.files.frames import read_header
from fresco_backend.files.movies import MovieReader
from fresco_backend.files.timecode import packed
from fresco_protocol.shot import parse_frames

NTSC = Fraction(30000, 1001)
DROPS = 0x40  # bit 6 of the first word


def text(words: tuple[int, int] | None) -> str | None:
    """The digits of the first word, two a place, and the flag that says that it drops frames."""
    if words is None:
        return None
    digits = f"{words[0] & ~DROPS:08x}"
    return ":".join(digits[place : place + 2] for place in range(0, 6, 2)) + ":;"[bool(words[0] & DROPS)] + digits[6:]


def a_day() -> Iterator[str]:
    """Every time code of a day that drops frames, counted out (SMPTE ST 12-1)."""
    for minute in range(24 * 60):
        for second in range(60):
            for frame in range(2 if minute % 10 and not second else 0, 30):
                yield f"{minute // 60:02}:{minute % 60:02}:{second:02};{frame:02}"


def test_frames_of_a_day_are_counted_as_they_are_dropped() -> None:
    """Every frame around the changes of the minute, some of the others, and the first of the next day."""
    day = list(a_day())
    assert len(day) == 2_589_408  # 24 hours of 29.97, to a tenth of a second
    for place, shown in enumerate(day):
        if place % 101 == 0 or ":00;0" in shown or ":59;2" in shown:
            assert text(packed(day[0], place, NTSC)) == text(packed(shown, 0, NTSC)) == shown
    assert text(packed(day[-1], 1, NTSC)) == day[0]


@pytest.mark.parametrize(("first", "passed", "rate", "expected"), [
    ("01:00:59:23", 1, Fraction(24000, 1001), "01:01:00:00"), ("23:59:59:24", 3, Fraction(25), "00:00:00:02"),
    ("01:00:59:29", 1, NTSC, "01:01:00:00"), ("01:00:59;29", 1, NTSC, "01:01:00;02"),
    ("01:09:59;29", 1, NTSC, "01:10:00;00"), ("10:00:00:00", 107_892, NTSC, "10:59:56:12")])
def test_a_time_code_counts_on(first: str, passed: int, rate: Fraction, expected: str) -> None:
    assert text(packed(first, passed, rate)) == expected


@pytest.mark.parametrize(("first", "rate"), [
    ("01:00:00:24", Fraction(24)), ("01:00:00;00", Fraction(25)), ("01:01:00;01", NTSC), ("24:00:00:00", Fraction(24)),
    ("01:60:00:00", Fraction(24)), ("noon", Fraction(24)), ("", Fraction(24)), ("01:00:00:00", Fraction(60)),
    ("01:00:00:00", Fraction(2997, 100))])
def test_no_time_code_is_made_up(first: str, rate: Fraction) -> None:
    assert packed(first, 0, rate) is None


@pytest.mark.parametrize("name", ["look.####.exr", "look.####.dpx"])
@pytest.mark.parametrize(("begins", "rate", "expected"), [
    ("01:00:59;28", NTSC, ["01:01:00;02", "01:01:00;04", "01:01:00;06"]),
    ("10:59:59:22", Fraction(24), ["11:00:00:00", "11:00:00:02", "11:00:00:04"]), ("", Fraction(24), [None] * 3)])
def test_pictures_of_a_movie_have_its_time_code_each(begins: str, rate: Fraction, expected: list[str | None],
                                                     name: str, tiny_model: Path, tmp_path: Path) -> None:
    """By it an editing program finds which frame of the camera's clip each one is."""
    movie = timecoded(tmp_path / "plate.mov", begins, rate)
    shot = with_look(small_shot(movie, tiny_model, tmp_path / "out" / name), strength=0.0)
    rendered(with_plate(shot, frames=parse_frames("3-7x2")))
    stated = [read_header(path).getattribute("smpte:TimeCode") for path in sorted((tmp_path / "out").glob("look.0*"))]
    assert [text(words) for words in stated] == expected


@pytest.mark.parametrize(("name", "codec"), [("a.mov", "libx264"), ("a.mkv", "libx264"), ("a.mxf", "mpeg2video")])
def test_the_time_code_of_a_movie_is_found_in_every_container(name: str, codec: str, tmp_path: Path) -> None:
    with av.open(str(tmp_path / name), "w") as movie:
        movie.metadata["timecode"] = "01:00:59;28"
        video = movie.add_stream(codec, rate=NTSC)
        assert isinstance(video, VideoStream)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        for _ in range(3):
            movie.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        movie.mux(video.encode(None))
    assert MovieReader(tmp_path / name).timecode == "01:00:59;28"
