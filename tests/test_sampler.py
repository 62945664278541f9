# SPDX-License-Identifier: Apache-2.0
"""Samplers: diffusers' time steps and numbers, whatever the model predicts and wherever the run begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, LCMScheduler
from torch import Tensor

import tiny
from fresco_backend.engine.latents import NoiseSharing, Purpose, Seeds, draw
from fresco_backend.engine.sampler import Sampler, Stepper, run_steps, timesteps
from fresco_backend.engine.schedule import NoiseSchedule, Prediction, Spacing

SCHEDULE = NoiseSchedule.of(tiny.tiny_scheduler())


def start() -> Tensor:
    return torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(1))


def no_noise(_: Tensor) -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")


def model(latents: Tensor) -> Tensor:
    return torch.tanh(latents.flip(1))


def run(schedule: NoiseSchedule, sampler: Sampler, steps: int, noise: Callable[[Tensor], Tensor]) -> Tensor:
    stepper, latents = Stepper(schedule, sampler, noise), start()
    for step in run_steps(schedule, steps, 1.0, sampler):
        latents = stepper.advance(latents, schedule.clean(latents, model(latents), step.timestep), step)
    return latents


def configured(kind: Any, **options: Any) -> Any:
    """A scheduler of diffusers with Stable Diffusion's noise."""
    stated = {name: value for name, value in tiny.tiny_scheduler().config.items() if name != "_use_default_values"}
    scheduler = kind.from_config({**stated, **options})  # which passes over what is said to have been a default
    assert {name: scheduler.config[name] for name in options} == options
    return scheduler


@pytest.mark.parametrize("spacing", list(Spacing))
@pytest.mark.parametrize("steps", [4, 10, 20, 50])
def test_time_steps_of_dpm_solver_are_those_of_diffusers(spacing: Spacing, steps: int) -> None:
    scheduler = configured(DPMSolverMultistepScheduler, timestep_spacing=spacing.value)
    scheduler.set_timesteps(steps)
    assert list(timesteps(NoiseSchedule.of(scheduler), steps, Sampler.DPM)) == scheduler.timesteps.tolist()


@pytest.mark.parametrize("spacing", list(Spacing))
@pytest.mark.parametrize("steps", [999, 1000])
def test_no_time_step_comes_twice_and_the_longest_runs_give_numbers(spacing: Spacing, steps: int) -> None:
    schedule = NoiseSchedule.of(configured(DDPMScheduler, timestep_spacing=spacing.value))
    for sampler in (Sampler.DDPM, Sampler.DPM):
        visited = timesteps(schedule, steps, sampler)
        assert len(set(visited)) == steps
        assert visited == tuple(sorted(visited, reverse=True))
    assert run(schedule, Sampler.DPM, steps, no_noise).isfinite().all()


@pytest.mark.parametrize("prediction", list(Prediction))
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_a_run_of_dpm_solver_is_that_of_diffusers(prediction: Prediction, steps: int) -> None:
    scheduler = configured(DPMSolverMultistepScheduler, prediction_type=prediction.value, final_sigmas_type="zero")
    scheduler.set_timesteps(steps)
    theirs = start()
    for timestep in scheduler.timesteps:
        theirs = scheduler.step(model(theirs), timestep, theirs).prev_sample
    ours = run(NoiseSchedule.of(scheduler), Sampler.DPM, steps, no_noise)
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 50])
def test_a_run_of_lcm_is_that_of_diffusers(steps: int) -> None:
    scheduler = configured(LCMScheduler)
    scheduler.set_timesteps(steps, original_inference_steps=50)
    assert list(timesteps(SCHEDULE, steps, Sampler.LCM)) == scheduler.timesteps.tolist()
    theirs, generator = start(), torch.Generator().manual_seed(7)
    for timestep in scheduler.timesteps:
        theirs = scheduler.step(model(theirs), timestep, theirs, generator=generator).prev_sample
    fresh = torch.Generator().manual_seed(7)
    ours = run(SCHEDULE, Sampler.LCM, steps, lambda latents: torch.randn(latents.shape, generator=fresh))
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("sampler", [Sampler.DDPM, Sampler.LCM])
def test_frames_share_the_noise_of_every_sampler(sampler: Sampler) -> None:
    seeds = Seeds(seed=1, frames=(1001, 1005), sharing=NoiseSharing.ALL)
    generators = seeds.generators(Purpose.STEP)
    stepper, latents = Stepper(SCHEDULE, sampler, lambda like: draw(generators, like)), start()[:1].repeat(2, 1, 1, 1)
    for step in run_steps(SCHEDULE, 4, 1.0, sampler):
        latents = stepper.advance(latents, model(latents), step)
    assert torch.equal(latents[0], latents[1])


@pytest.mark.parametrize("sampler", list(Sampler))
def test_a_run_ends_in_the_picture_from_any_beginning(sampler: Sampler) -> None:
    """With a model that knows the picture, every sampler arrives there."""
    picture = start()
    for strength in (0.25, 0.5, 1.0):
        steps = run_steps(SCHEDULE, 8, strength, sampler)
        assert len(steps) == round(8 * strength)
        latents = SCHEDULE.add_noise(picture, start().flip(0), steps[0].timestep)
        stepper = Stepper(SCHEDULE, sampler, torch.zeros_like)
        for step in steps:
            latents = stepper.advance(latents, picture, step)
        assert (latents - picture).abs().max() < 0.1


def test_no_signal_at_all_is_no_infinity() -> None:
    scheduler = DDPMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing")
    assert run(NoiseSchedule.of(scheduler), Sampler.DPM, 4, no_noise).isfinite().all()


def test_the_steps_that_a_sampler_has_are_named() -> None:
    with pytest.raises(ValueError, match="1 to 50 steps, not 51"):
        run_steps(SCHEDULE, 51, 1.0, Sampler.LCM)
    with pytest.raises(ValueError, match="1 to 1000 steps, not 1001"):
        run_steps(SCHEDULE, 1001, 1.0, Sampler.DPM)
