# SPDX-License-Identifier: Apache-2.0
"""Keyframes, windows and groups: the reference's numbers where it gives some, and every size where it crashes."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fresco_backend.engine.keyframes import (
    Window,
    adaptive_keys,
    cuts,
    halved,
    regular_keys,
    rotating_groups,
    split_windows,
)

GOLDEN = Path(__file__).parent / "golden"
WINDOWS = json.loads((GOLDEN / "windows.json").read_text())
GROUPS = json.loads((GOLDEN / "rotating_groups.json").read_text())
CURVE = np.load(GOLDEN / "keyframes.npz")


@pytest.mark.parametrize(("smallest", "largest"), [(5, 20), (10, 30), (2, 8), (1, 4), (10, 12)])
def test_adaptive_keys_are_those_of_the_reference(smallest: int, largest: int) -> None:
    expected = CURVE[f"A_keys_{smallest}_{largest}"].tolist()
    assert list(adaptive_keys(CURVE["A_err"].tolist(), smallest, largest)) == expected


def test_a_cut_stands_out_and_a_flash_or_a_pan_does_not() -> None:
    still, pan = [0.002] * 5, [0.09, 0.1, 0.11, 0.1]
    assert cuts([0.0, *still, 0.3, *still, 0.3]) == (6, 12)
    assert cuts([0.0, 0.3]) == (1,)
    assert cuts([0.0, *still, 0.3, 0.3, *still, *pan, *still]) == ()
    assert cuts([0.0, *still, 0.03, *still]) == ()
    assert cuts([0.0]) == ()


def test_adaptive_keys_of_the_first_60_frames_are_those_of_the_reference() -> None:
    assert list(adaptive_keys(CURVE["A_err"][:60].tolist(), 5, 20)) == CURVE["A_keys_last60_5_20"].tolist()


def test_regular_keys_are_those_of_the_reference_and_cover_its_dropped_tail() -> None:
    expected = CURVE["A_keys_5_5"].tolist()
    assert list(regular_keys(90, 5, cover_last=False)) == expected
    assert list(regular_keys(90, 5)) == [*expected, 89]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9])
def test_first_and_last_frame_are_keys_of_any_clip(count: int) -> None:
    for keys in (regular_keys(count, 4), adaptive_keys([0.1] * count, 2, 3)):
        assert (keys[0], keys[-1]) == (0, count - 1)
        assert list(keys) == sorted(set(keys))


def test_keys_sit_where_the_picture_changes() -> None:
    errors = [0.0] * 40
    errors[13], errors[27] = 1.0, 0.5
    assert adaptive_keys(errors, 4, 15) == (0, 13, 27, 39)


@pytest.mark.parametrize("case", WINDOWS, ids=lambda case: f"{len(case['keys'])}in{case['batch_size']}")
def test_windows_are_those_of_the_reference_and_one_window_where_it_crashes(case: Any) -> None:
    size, keys, expected = case["batch_size"], case["keys"], case["sublists"]
    if not keys:
        with pytest.raises(ValueError, match="no keyframes"):
            split_windows(keys, size)
    elif isinstance(expected, str):
        assert [window.frames for window in split_windows(keys, size)] == [tuple(keys)]
    else:
        assert [list(window.keys) for window in split_windows(keys, size, fewest=3)] == expected


@pytest.mark.parametrize("size", range(3, 11))
def test_windows_render_every_key_once_and_hold_at_most_their_size(size: int) -> None:
    for count in range(1, 40):
        keys = list(range(0, 5 * count, 5))
        windows = split_windows(keys, size)
        assert [key for window in windows for key in window.keys] == keys
        assert all(len(window.frames) <= size for window in windows)
        assert windows[0].anchors == ()
        for before, window in pairwise(windows):
            assert window.anchors == (0, before.keys[-1])


def test_default_balance_is_the_references_where_that_keeps_the_size() -> None:
    for size in range(5, 11):
        for count in range(1, 40):
            assert split_windows(range(count), size) == split_windows(range(count), size, fewest=3)


def test_a_window_without_room_for_a_key_is_refused() -> None:
    assert split_windows([0, 7], 2) == (Window(anchors=(), keys=(0, 7)),)
    with pytest.raises(ValueError, match="3 or more"):
        split_windows([0, 7, 9], 2)


@pytest.mark.parametrize(("anchors", "keys"), [((), ()), ((0, 1, 2), (3,)), ((0, 5), (5,)), ((), (4, 2))])
def test_impossible_windows_are_refused(anchors: tuple[int, ...], keys: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="window"):
        Window(anchors=anchors, keys=keys)


ROTATING = [case for case in GROUPS if "radix" in case]


@pytest.mark.parametrize("case", ROTATING, ids=lambda case: f"{case['M']}by{case['radix']}")
def test_rotating_groups_are_those_of_the_reference(case: Any) -> None:
    groups = rotating_groups(case["M"], case["radix"])
    assert [list(group) for group in groups] == case["keys"]
    assert sorted({frame for group in groups for frame in group}) == list(range(case["M"]))


def test_fixed_groups_of_the_reference_are_regular_keys_without_the_tail() -> None:
    for case in GROUPS:
        if "fixed" in case:
            assert [list(regular_keys(case["M"], case["fixed"], cover_last=False))] == case["keys"]


def test_more_groups_than_frames_are_not_made() -> None:
    assert rotating_groups(1, 4) == ((0,),)
    assert rotating_groups(3, 9) == ((0, 1), (0, 2))


@pytest.mark.parametrize(("count", "interval"), [(0, 1), (3, 0)])
def test_impossible_intervals_are_refused(count: int, interval: int) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        regular_keys(count, interval)
    with pytest.raises(ValueError, match="must be 1 or more"):
        rotating_groups(count, interval)
    with pytest.raises(ValueError, match="must be 1 or more"):
        adaptive_keys([0.0] * count, interval, 9)


def test_smallest_interval_above_the_largest_is_refused() -> None:
    with pytest.raises(ValueError, match="exceeds the largest"):
        adaptive_keys([0.0, 0.0], 3, 2)


@pytest.mark.parametrize("anchors", [(), (0,), (0, 1)])
@pytest.mark.parametrize("count", range(1, 12))
def test_halves_of_a_window_hold_its_keys_in_fewer_frames(anchors: tuple[int, ...], count: int) -> None:
    window = Window(anchors=anchors, keys=tuple(range(2, 2 + count)))
    halves = halved(window)
    if halves is None:
        assert len(window.frames) <= 3
        return
    first, second = halves
    assert first.keys + second.keys == window.keys
    assert first.anchors == window.anchors
    assert second.anchors == tuple(dict.fromkeys((window.frames[0], first.keys[-1])))
    assert max(len(first.frames), len(second.frames)) < len(window.frames)
