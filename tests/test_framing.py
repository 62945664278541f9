# SPDX-License-Identifier: Apache-2.0
"""Which part of a plate is rendered: letterboxes, and the neighbourhood of a small matte."""

from __future__ import annotations

import numpy as np
from plates import noise

from fresco_backend.files.frames import FloatArray, Window
from fresco_backend.pixels.framing import inside_letterbox, neighbourhood


def picture(seed: int, above: int = 0, below: int = 0, left: int = 0, right: int = 0) -> FloatArray:
    """A bright picture with bars."""
    found = noise(120, 160, 3, seed=seed) * 0.5 + 0.25
    found[:above] = found[120 - below :] = 0.001
    found[:, :left] = found[:, 160 - right :] = 0.001
    return found


def test_bars_are_left_out() -> None:
    assert inside_letterbox([picture(1, 14, 14), picture(2, 14, 15)]) == Window(0, 14, 160, 92)
    assert inside_letterbox([picture(1, left=20, right=20)]) == Window(20, 0, 120, 120)
    assert inside_letterbox([picture(1, 14, 14, 20, 20)]) == Window(20, 14, 120, 92)


def test_dark_edges_that_are_no_pair_of_bars_stay() -> None:
    whole = Window(0, 0, 160, 120)
    assert inside_letterbox([picture(1, 40)]) == whole  # a night sky
    assert inside_letterbox([picture(1, 14, 40)]) == whole
    assert inside_letterbox([picture(1, 14, 14), picture(2)]) == whole  # a fade from black
    assert inside_letterbox([picture(1, 1, 1)]) == whole
    assert inside_letterbox([np.zeros((120, 160, 3), np.float32)]) == whole
    grainy = picture(1, 14, 14)
    grainy[:14] += noise(14, 160, 3) * 0.01
    assert inside_letterbox([grainy]) == whole


def spot(x: int, y: int, width: int, height: int) -> FloatArray:
    matte = np.zeros((600, 800), np.float32)
    matte[y : y + height, x : x + width] = 0.5
    return matte


def test_a_small_matte_is_worked_on_with_a_margin_over_all_its_frames() -> None:
    inside = Window(0, 50, 800, 500)
    assert neighbourhood([spot(300, 200, 80, 100), spot(340, 200, 80, 100)], inside) == Window(270, 175, 180, 150)
    assert neighbourhood([spot(0, 0, 80, 100)], inside) == Window(0, 50, 100, 75)
    assert neighbourhood([spot(100, 60, 600, 480)], inside) == inside
    assert neighbourhood([np.zeros((600, 800), np.float32)], inside) == inside
    tiny = neighbourhood([spot(798, 548, 2, 2)], inside)
    assert tiny == Window(736, 486, 64, 64)
