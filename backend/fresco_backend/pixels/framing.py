# SPDX-License-Identifier: Apache-2.0
"""Which part of a plate is rendered: inside its letterbox, and where a small matte is, its neighbourhood alone."""
from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from fresco_backend.files.canvas import union
from fresco_backend.files.frames import FloatArray, Window, as_rgb

DARK = 0.02  # a bar's samples lie below it, in light or in codes
FLAT = 1 / 255  # and differ by less than this
THIN = 0.02  # of the side; a thinner pair of dark edges is no letterbox
UNEVEN = 2  # pixels by which the two bars of a pair may differ
MARGIN = 0.25  # of the matte's extent, left around it for the model to see what it stands in
LEAST = 64  # pixels of a side of what is rendered
WORTH = 0.7  # of the picture: a neighbourhood that is larger is not cut out


def inside_letterbox(pictures: Sequence[FloatArray]) -> Window:
    """The part of a plate between its bars. pictures: (H, W, C) of a few of its frames, as their files hold them.

    A bar is dark and flat in all of them, and has a twin at the other side: a night sky has none. Without bars, and
    where all is dark, it is the whole picture.
    """
    height, width = pictures[0].shape[:2]
    whole = Window(0, 0, width, height)
    bars = [np.logical_and.reduce([_dark(as_rgb(picture), axis) for picture in pictures]) for axis in (1, 0)]
    if any(bar.all() for bar in bars):
        return whole
    above, below = _pair(bars[0])
    left, right = _pair(bars[1])
    return Window(left, above, width - left - right, height - above - below)


def neighbourhood(mattes: Iterable[FloatArray], inside: Window) -> Window:
    """The part of `inside` that holds every matte (H, W) with a margin; all of it when that is most of it, or empty."""
    boxes = [box for matte in mattes if (box := _box(matte)) is not None]
    if not boxes:
        return inside
    found = union(boxes)
    across, down = round(found.width * MARGIN), round(found.height * MARGIN)
    left, right = _span(found.x - across, found.x + found.width + across, inside.x, inside.x + inside.width)
    top, bottom = _span(found.y - down, found.y + found.height + down, inside.y, inside.y + inside.height)
    part = Window(left, top, right - left, bottom - top)
    small = part.width * part.height <= WORTH * inside.width * inside.height
    return part if small else inside


def sampled(numbers: Sequence[int]) -> list[int]:
    """A few frames that tell of a whole shot: the first, the middle one, the last."""
    return sorted({numbers[0], numbers[len(numbers) // 2], numbers[-1]})


def _dark(picture: FloatArray, axis: int) -> NDArray[np.bool_]:
    """Which rows (axis 1) or columns (axis 0) are dark and flat."""
    return np.asarray((np.abs(picture) < DARK).all(axis=(axis, 2)) & (np.ptp(picture, axis=(axis, 2)) < FLAT))


def _pair(dark: NDArray[np.bool_]) -> tuple[int, int]:
    """The widths of the bars at both ends; none when they are no pair."""
    lit = np.flatnonzero(~dark)
    first, last = int(lit[0]), len(dark) - 1 - int(lit[-1])
    thin = min(first, last) < max(1, THIN * len(dark))
    return (0, 0) if thin or abs(first - last) > UNEVEN else (first, last)


def _box(matte: FloatArray) -> Window | None:
    rows, columns = (np.flatnonzero(matte.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    x, y = int(columns[0]), int(rows[0])
    return Window(x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1)


def _span(first: int, last: int, lowest: int, highest: int) -> tuple[int, int]:
    """The span within its limits, widened to `LEAST` where there is room."""
    missing = max(LEAST - (last - first), 0)
    first = max(min(first - missing // 2, highest - LEAST), lowest)
    return first, min(max(last, first + LEAST), highest)
