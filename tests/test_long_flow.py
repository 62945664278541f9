# SPDX-License-Identifier: Apache-2.0
"""Flow over many frames against a clip of known motion."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from fresco_backend.engine import long_flow
from fresco_backend.engine.long_flow import REACH, FlowPair, LongFlow, better, compose

SIZE = (40, 60)
VELOCITY = (1.5, -0.5)


def true_flow(first: int, second: int) -> FlowPair:
    there = torch.tensor(VELOCITY).view(2, 1, 1).expand(2, *SIZE) * (second - first)
    return there, -there


def plate(frame: int) -> Tensor:
    """A texture that moves by VELOCITY."""
    x = torch.arange(SIZE[1]) - VELOCITY[0] * frame
    y = torch.arange(SIZE[0])[:, None] - VELOCITY[1] * frame
    return torch.stack([(x / 3).sin() * (y / 4).cos(), ((x + y) / 5).sin(), ((x - 2 * y) / 7).cos()])


def middle(flow: Tensor) -> Tensor:
    return flow[:, 12:-12, 24:-24]


def test_steps_that_are_composed_add_up() -> None:
    first, second = true_flow(0, 2)[0], true_flow(2, 5)[0]
    torch.testing.assert_close(compose(first, second), true_flow(0, 5)[0])


def test_a_composition_reads_the_second_flow_where_the_first_one_leads() -> None:
    first = torch.zeros(2, *SIZE)
    first[0] = 4
    second = torch.arange(SIZE[1]).float().expand(2, *SIZE)
    torch.testing.assert_close(compose(first, second)[1, 0, :-4], second[0, 0, 4:])
    border = torch.full((SIZE[0], 4), SIZE[1] - 1.0)  # past it the last value goes on
    torch.testing.assert_close(compose(first, second)[1, :, -4:], border)


def test_at_each_pixel_the_flow_is_taken_under_which_the_plate_looks_alike() -> None:
    right, wrong = true_flow(0, 4)[0], true_flow(0, 4)[0] + 2.5
    half = torch.arange(SIZE[1]) < SIZE[1] // 2
    first, second = torch.where(half, right, wrong), torch.where(half, wrong, right)
    chosen = better(plate(0), plate(4), first, second)
    edge = SIZE[1] // 2
    assert torch.equal(middle(chosen)[:, :, : edge - 24 - 4], middle(right)[:, :, : edge - 24 - 4])
    assert (middle(chosen) == middle(right)).float().mean() > 0.8


def test_pointing_out_of_the_frame_is_no_excuse() -> None:
    flat = torch.zeros(3, *SIZE)
    inside, outside = torch.zeros(2, *SIZE), torch.full((2, *SIZE), 1000.0)
    assert torch.equal(better(flat, flat, outside, inside), inside)


def test_steps_repair_an_estimate_that_fails_over_many_frames() -> None:
    def estimate(first: int, second: int) -> FlowPair:
        there, back = true_flow(first, second)
        return (there, back) if abs(first - second) == 1 else (there * 0, back * 0)

    flow = LongFlow(range(9), plate, estimate)
    for frame, key in ((5, 0), (3, 8)):
        there, back = flow(frame, key)
        expected, returning = true_flow(frame, key)
        assert (middle(there) - middle(expected)).abs().mean() < 0.1
        assert (middle(back) - middle(returning)).abs().mean() < 0.1


def test_the_flow_of_a_frame_does_not_depend_on_what_was_asked_before() -> None:
    def estimate(first: int, second: int) -> FlowPair:
        noise = torch.randn(2, 2, *SIZE, generator=torch.Generator().manual_seed(100 * first + second))
        there, back = true_flow(first, second)
        return there + noise[0], back + noise[1]

    through = LongFlow(range(7), plate, estimate)
    asked = {(frame, key): through(frame, key) for frame in range(1, 6) for key in (0, 6)}
    for (frame, key), expected in asked.items():
        alone = LongFlow(range(7), plate, estimate)(frame, key)
        assert all(torch.equal(one, other) for one, other in zip(alone, expected, strict=True))


def test_nothing_is_estimated_twice_and_little_is_kept() -> None:
    asked: Counter[tuple[int, int]] = Counter()

    def estimate(first: int, second: int) -> FlowPair:
        asked[first, second] += 1
        return true_flow(first, second)

    last = 3 * REACH
    flow = LongFlow(range(last + 1), plate, estimate)
    for frame in range(1, last):
        for key in (0, last):
            flow(frame, key)
        assert len(flow._chains) + len(flow._steps) <= 2 * REACH + 4
    assert max(asked.values()) == 1


def test_far_from_the_keyframe_the_estimate_stands_alone() -> None:
    there, back = LongFlow(range(50), plate, true_flow)(REACH + 5, 0)
    expected, returning = true_flow(REACH + 5, 0)
    assert torch.equal(there, expected)
    assert torch.equal(back, returning)
    assert long_flow.REACH < 17
