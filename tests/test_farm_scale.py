# SPDX-License-Identifier: Apache-2.0
"""The simulated farm: work is never lost or made faster than it can be."""

from __future__ import annotations

import farm_scale
import pytest
from farm_scale import Costs, Shape, simulate, steps
from hypothesis import given
from hypothesis import strategies as some

SHOT = [[10.0], [4.0] * 5, [2.0]]
SECONDS = some.lists(some.lists(some.floats(0.1, 50), min_size=1, max_size=6), min_size=1, max_size=3)


@pytest.mark.parametrize(("nodes", "makespan"), [(1, 32), (2, 24), (5, 16), (64, 16)])
def test_a_step_waits_for_the_one_before_it(nodes: int, makespan: float) -> None:
    found = simulate([SHOT], nodes)
    assert (found.makespan, found.busy) == (makespan, 32)


def test_another_shot_fills_the_nodes_that_wait() -> None:
    assert simulate([SHOT, SHOT], 2).makespan < 2 * simulate([SHOT], 2).makespan


@given(some.lists(SECONDS, min_size=1, max_size=4), some.integers(1, 8))
def test_no_farm_is_faster_than_its_nodes_or_than_the_longest_chain(shots: list[list[list[float]]], nodes: int) -> None:
    found = simulate(shots, nodes)
    chain = max(sum(max(step) for step in shot) for shot in shots)
    assert found.busy == pytest.approx(sum(sum(map(sum, shot)) for shot in shots))
    assert max(chain, found.busy / nodes) - 1e-6 <= found.makespan <= found.busy + 1e-6


def test_a_shot_has_its_frames_in_chunks() -> None:
    keyframes, chunks, verify = steps(Costs(start=1, keyframe=2, frame=0.5), Shape(frames=20, gap=6, chunk=8))
    assert keyframes == [1 + 2 * 4]
    assert chunks == [5, 5, 3]
    assert len(verify) == 1


def test_the_table_says_where_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    farm_scale.main(["--measured", "1", "2", "0.5", "--frames=100"])
    printed = capsys.readouterr().out
    assert printed.count("\n| ") == 8
    assert "no number of nodes makes one shot more than" in printed
