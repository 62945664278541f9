# SPDX-License-Identifier: Apache-2.0
"""Which frames are left, and which windows have to be denoised for them."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from fresco_backend.engine.keyframes import Window, split_windows
from fresco_backend.render.remaining import Batch, batches, neighbours

WINDOWS = split_windows((2, 4, 6, 8, 10), 3)  # keys 2 4 6 | 8 | 10


def left(
    frames: Collection[int], keys: Collection[int] = (), anchors: Collection[int] = ()
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The batches when these keyframes and anchors are kept."""
    found = batches(sorted(frames), WINDOWS, has_key=keys.__contains__, has_anchors=anchors.__contains__)
    return [(batch.windows, batch.frames) for batch in found]


def test_each_window_delivers_up_to_its_last_keyframe() -> None:
    assert left(range(1, 12)) == [((0,), (1, 2, 3, 4, 5, 6)), ((1,), (7, 8)), ((2,), (9, 10, 11))]


@pytest.mark.parametrize(("frame", "keys", "anchors", "windows"), [
    (10, (), (), (0, 1, 2)),  # its anchors need the windows before
    (10, (), (1,), (2,)),  # they are kept
    (10, (), (0,), (1, 2)),
    (10, (10,), (), ()),  # so is the keyframe itself
    (7, (6,), (0,), (1,)),  # an in-between of two windows
    (7, (8,), (0,), (0,)),  # whose earlier keyframe is lost, though the anchors are there
    (11, (10,), (), ()),
    (1, (), (), (0,)),
])  # fmt: skip
def test_only_what_a_frame_needs_is_denoised(
    frame: int, keys: tuple[int, ...], anchors: tuple[int, ...], windows: tuple[int, ...]
) -> None:
    assert left([frame], keys, anchors) == [(windows, (frame,))]


def test_no_window_is_denoised_twice() -> None:
    assert left([5, 10]) == [((0,), (5,)), ((1, 2), (10,))]


def test_windows_without_anchors_need_no_other() -> None:
    windows = (Window(anchors=(), keys=(1, 2)), Window(anchors=(), keys=(3, 4)))
    found = batches([4], windows, has_key=lambda _: False, has_anchors=lambda _: False)
    assert found == (Batch(windows=(1,), frames=(4,)),)


def test_nothing_left_is_nothing_to_do() -> None:
    assert left([]) == []
    nothing = batches([], (), has_key=lambda _: False, has_anchors=lambda _: False)
    assert nothing == ()
    plain = batches([1, 2], (), has_key=lambda _: False, has_anchors=lambda _: False)
    assert plain == (Batch(windows=(), frames=(1, 2)),)


@pytest.mark.parametrize(("frame", "beside"), [(1, (3,)), (3, (3,)), (5, (3, 7)), (7, (7,)), (9, (7,))])
def test_a_frame_is_made_from_the_keyframes_beside_it(frame: int, beside: tuple[int, ...]) -> None:
    assert neighbours(frame, (3, 7)) == beside
