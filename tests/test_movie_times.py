# SPDX-License-Identifier: Apache-2.0
"""Whether the frames of a movie come evenly, as its file says it."""
from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fresco_protocol.movie_times import comes_evenly, is_turned

FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}


def written(path: Path, *, gap: int = 0, options: dict[str, str] | None = None) -> str:
    """Twenty-four frames at 24 a second; a gap follows the twelfth."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("mpeg2video" if path.suffix == ".mxf" else "mpeg4", rate=Fraction(24))
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(24):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 8 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number + (gap if number >= 12 else 0), Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_table_tells_whether_frames_come_evenly(tmp_path: Path, suffix: str) -> None:
    even, gap = written(tmp_path / f"even{suffix}"), written(tmp_path / f"gap{suffix}", gap=1)
    assert comes_evenly(even, 24) is True
    assert comes_evenly(even, 25) is False, "at another rate the count runs away"
    assert comes_evenly(gap, 24) is False
    assert comes_evenly(even, 0) is None


def test_a_track_of_mxf_has_one_rate(tmp_path: Path) -> None:
    assert comes_evenly(written(tmp_path / "even.mxf"), 24) is True


@pytest.mark.parametrize("gap", [0, 3])
@pytest.mark.parametrize(("name", "options"), [("a.mkv", {}), ("a.avi", {}), ("a.ts", {}), ("a.mp4", FRAGMENTS)])
def test_nothing_is_promised_for_files_that_do_not_say(tmp_path: Path, name: str, options: dict[str, str],
                                                       gap: int) -> None:
    assert comes_evenly(written(tmp_path / name, gap=gap, options=options), 24) is None


def test_what_is_cut_off_or_gone_is_not_taken_for_even(tmp_path: Path) -> None:
    whole = Path(written(tmp_path / "whole.mp4")).read_bytes()
    table = whole.index(b"stts")
    for end in (0, 7, 40, table + 6, table + 14):
        (tmp_path / "part.mp4").write_bytes(whole[:end])
        assert comes_evenly(str(tmp_path / "part.mp4"), 24) is None, end
    with pytest.raises(OSError):
        comes_evenly(str(tmp_path / "gone.mp4"), 24)


@pytest.mark.parametrize(("matrix", "turned"), [
    ((1, 0, 0, 1), False), ((0, 1, -1, 0), True), ((0, -1, 1, 0), True), ((-1, 0, 0, -1), True), ((-1, 0, 0, 1), True)])
def test_a_movie_says_how_it_is_to_be_turned(tmp_path: Path, matrix: tuple[int, int, int, int], turned: bool) -> None:
    movie = bytearray(Path(written(tmp_path / "lying.mp4")).read_bytes())
    across, up, left, down = (one << 16 for one in matrix)
    place = movie.index(b"tkhd") + 44
    movie[place:place + 20] = struct.pack(">5i", across, up, 0, left, down)
    (tmp_path / "turned.mp4").write_bytes(movie)
    assert is_turned(str(tmp_path / "turned.mp4")) is turned
    with av.open(str(tmp_path / "turned.mp4")) as container:
        frame = next(container.decode(video=0))
        assert bool(frame.rotation) is turned, "a decoder sees the same"
