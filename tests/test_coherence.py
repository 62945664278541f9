# SPDX-License-Identifier: Apache-2.0
"""When each constraint acts: the reference's table for 20 steps, and the same stretch of noise for any other number."""

from dataclasses import replace
from math import ceil

import pytest

import tiny
from fresco_backend.engine.coherence import Coherence, FeatureGuidance, PixelSmoothing, TemporalGuidance
from fresco_backend.engine.features import FeatureOptimisation
from fresco_backend.engine.sampler import Sampler, run_steps
from fresco_backend.engine.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.of(tiny.tiny_scheduler())
COHERENCE = Coherence()


def test_constraints_of_20_steps_act_where_the_reference_has_them() -> None:
    steps = run_steps(SCHEDULE, 20, 0.75)
    absolute = {step: step.index + 5 for step in steps}
    guides = {absolute[step]: COHERENCE.attention(step) for step in steps}
    assert [k for k, guide in guides.items() if guide.cross_frame] == list(range(5, 20))
    assert [k for k, guide in guides.items() if guide.spatial == 5.0] == [5]
    assert [k for k, guide in guides.items() if guide.temporal == 5.0] == list(range(5, 13))
    assert [absolute[step] for step in steps if COHERENCE.optimises(step)] == list(range(5, 15))
    assert [absolute[step] for step in steps if COHERENCE.smooths_pixels(step)] == [16, 17]


@pytest.mark.parametrize("count", [10, 20, 50, 100])
def test_constraints_act_at_the_same_noise_whatever_the_number_of_steps(count: int) -> None:
    steps = run_steps(SCHEDULE, count, 1.0)
    assert {step.timestep >= 251 for step in steps if COHERENCE.optimises(step)} == {True}
    assert {step.timestep >= 251 for step in steps if not COHERENCE.optimises(step)} == {False}
    smoothed = [step.timestep for step in steps if COHERENCE.smooths_pixels(step)]
    assert len(smoothed) == pytest.approx(count / 10, abs=1)
    assert all(75 <= timestep <= 175 for timestep in smoothed)
    assert sum(COHERENCE.attention(step).spatial is not None for step in steps) == ceil(count / 20)


@pytest.mark.parametrize("sampler", list(Sampler))
def test_constraints_act_in_runs_of_few_steps(sampler: Sampler) -> None:
    steps = run_steps(SCHEDULE, 4, 1.0, sampler)
    assert [COHERENCE.attention(step).spatial is not None for step in steps] == [True, False, False, False]
    assert [COHERENCE.optimises(step) for step in steps][:3] == [True, True, True]
    assert [COHERENCE.attention(step).temporal is not None for step in steps] == [t.timestep >= 350 for t in steps]


def test_constraints_that_are_off_do_not_act() -> None:
    off = Coherence(cross_frame=False, spatial=None, temporal=None, features=None, pixels=None)
    for step in run_steps(SCHEDULE, 20, 1.0):
        assert not off.attention(step).active
        assert not off.optimises(step)
        assert not off.smooths_pixels(step)


def test_limits_and_temperatures_are_the_settings() -> None:
    custom = Coherence(
        temporal=TemporalGuidance(temperature=2.0, until_timestep=800),
        features=FeatureGuidance(until_timestep=900),
        pixels=PixelSmoothing(from_timestep=999, until_timestep=950),
    )
    steps = {step.timestep: step for step in run_steps(SCHEDULE, 20, 1.0)}
    assert [t for t, step in steps.items() if custom.attention(step).temporal == 2.0] == [951, 901, 851, 801]
    assert [t for t, step in steps.items() if custom.optimises(step)] == [951, 901]
    assert [t for t, step in steps.items() if custom.smooths_pixels(step)] == [951]


def test_the_plate_is_recorded_only_for_what_compares_with_it() -> None:
    temporal_only = FeatureGuidance(optimisation=FeatureOptimisation(spatial_weight=None))
    steps = run_steps(SCHEDULE, 20, 1.0)
    comparing = {name: sum(map(coherence.compares, steps)) for name, coherence in {
        "all": COHERENCE, "features": replace(COHERENCE, spatial=None), "attention": replace(COHERENCE, features=None),
        "flow": replace(COHERENCE, spatial=None, features=temporal_only),
        "neither": replace(COHERENCE, spatial=None, features=None)}.items()}  # fmt: skip
    assert comparing == {"all": 15, "features": 15, "attention": 1, "flow": 0, "neither": 0}
