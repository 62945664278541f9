# SPDX-License-Identifier: Apache-2.0
"""One way in for sequences, stills and movies."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from plates import write_sequence

from fresco_backend.files.movie_delivery import write_movie
from fresco_backend.files.plate import open_plate
from fresco_protocol.errors import FrameSize
from fresco_protocol.shot import Missing


def test_a_path_opens_what_it_names(tmp_path: Path) -> None:
    pattern = write_sequence(tmp_path, [1001, 1003])
    held = open_plate(pattern, missing=Missing.HOLD)
    assert (held.numbers, held.rate) == ((1001, 1002, 1003), None)
    still = open_plate(tmp_path / "plate.1001.exr")
    assert (still.numbers, still.files) == ((1001,), (tmp_path / "plate.1001.exr",))
    write_movie(tmp_path / "plate.mov", [np.zeros((48, 64, 3), np.uint8)] * 5, Fraction(25))
    movie = open_plate(tmp_path / "plate.mov", [2, 3])
    assert (movie.numbers, movie.rate, tuple(movie.size)) == ((2, 3), Fraction(25), (64, 48))
    for plate in (held, still, movie):
        assert list(plate.read_channels(plate.numbers[0]).by_name) == ["R", "G", "B"]
        assert plate.read(plate.numbers[0]).size == plate.size
        plate.close()


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    pattern = write_sequence(tmp_path, [1, 2])
    write_sequence(tmp_path, [2], width=32)
    with pytest.raises(FrameSize, match="32x16"):
        open_plate(pattern)
