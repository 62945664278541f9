# SPDX-License-Identifier: Apache-2.0
"""Noise schedules and steps: the reference's numbers, and diffusers' for what the reference does not have."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from reference import golden

import tiny
from fresco_backend.engine.sampler import run_steps
from fresco_backend.engine.schedule import NoiseSchedule, Prediction, Spacing, Step

DDPM, DDIM = golden("ddpm_step"), golden("ddim")
SCHEDULE = NoiseSchedule.of(tiny.tiny_scheduler())


def step_at(timestep: int, steps: int = 20) -> Step:
    return next(step for step in run_steps(SCHEDULE, steps, 1.0) if step.timestep == timestep)


def test_signal_and_time_steps_are_the_references() -> None:
    assert (torch.tensor(SCHEDULE.signal) - DDPM["alphas_cumprod"]).abs().max() < 1e-6
    assert list(SCHEDULE.timesteps(20)) == DDPM["timesteps"].tolist() == DDIM["timesteps_20"].tolist()
    assert list(SCHEDULE.timesteps(50)) == DDIM["timesteps_50"].tolist()


@pytest.mark.parametrize("timestep", [951, 151])
@pytest.mark.parametrize("shared", [0, 1])
def test_ancestral_step_is_the_references(timestep: int, shared: int) -> None:
    sample, noise = DDPM["sample"], DDPM["noise"]
    noise = noise[:1].expand_as(noise) if shared else noise
    clean = SCHEDULE.clean(sample, DDPM["model_output"], timestep)
    after = SCHEDULE.ddpm_step(sample, clean, step_at(timestep), noise)
    assert (clean - DDPM[f"t{timestep}_bg0_rep{shared}_x0"]).abs().max() < 2e-5
    assert (after - DDPM[f"t{timestep}_bg0_rep{shared}_prev"]).abs().max() < 2e-5


@pytest.mark.parametrize("timestep", [951, 451, 1])
def test_deterministic_step_is_the_references(timestep: int) -> None:
    sample = DDIM["sample"]
    clean = SCHEDULE.clean(sample, DDIM["model_output"], timestep)
    after = SCHEDULE.ddim_step(sample, clean, step_at(timestep))
    assert (clean - DDIM[f"ddim_n20_t{timestep}_x0"]).abs().max() < 2e-5
    assert (after - DDIM[f"ddim_n20_t{timestep}_prev"]).abs().max() < 2e-5


@pytest.mark.parametrize("spacing", list(Spacing))
@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50, 333])
def test_time_steps_of_every_spacing_are_those_of_diffusers(spacing: Spacing, steps: int) -> None:
    scheduler = DDPMScheduler(timestep_spacing=spacing.value, steps_offset=1)
    scheduler.set_timesteps(steps)
    assert list(NoiseSchedule.of(scheduler).timesteps(steps)) == scheduler.timesteps.tolist()


@pytest.mark.parametrize("prediction", list(Prediction))
@pytest.mark.parametrize("to_one", [True, False])
def test_deterministic_run_is_that_of_diffusers_for_every_prediction(prediction: Prediction, to_one: bool) -> None:
    scheduler = DDIMScheduler(
        prediction_type=prediction.value, steps_offset=1, set_alpha_to_one=to_one, clip_sample=False
    )
    scheduler.set_timesteps(10)
    schedule = NoiseSchedule.of(scheduler)
    ours = theirs = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    for step in run_steps(schedule, 10, 1.0):
        output = torch.tanh(ours.flip(1))
        ours = schedule.ddim_step(ours, schedule.clean(ours, output, step.timestep), step)
        theirs = scheduler.step(torch.tanh(theirs.flip(1)), step.timestep, theirs).prev_sample
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_velocity_finds_the_clean_latents_even_without_any_signal() -> None:
    scheduler = DDPMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", beta_schedule="linear"
    )
    schedule = NoiseSchedule.of(scheduler)
    clean, noise = torch.randn(2, 1, 4, 6, 6, generator=torch.Generator().manual_seed(2))
    for timestep in (999, 500, 1):
        velocity = schedule.signal[timestep] ** 0.5 * noise - (1 - schedule.signal[timestep]) ** 0.5 * clean
        latents = schedule.add_noise(clean, noise, timestep)
        assert (schedule.clean(latents, velocity, timestep) - clean).abs().max() < 1e-4
    assert schedule.ddim_step(noise, clean, run_steps(schedule, 4, 1.0)[0]).isfinite().all()


def test_last_ancestral_step_adds_no_noise() -> None:
    latents, clean = torch.ones(1, 4, 2, 2), torch.full((1, 4, 2, 2), 0.5)
    assert torch.allclose(SCHEDULE.ddpm_step(latents, clean, step_at(1), torch.ones(1, 4, 2, 2)), clean)


@pytest.mark.parametrize(("strength", "executed"), [(0.0, 0), (0.02, 0), (0.6, 12), (0.75, 15), (0.85, 17), (1.0, 20)])
def test_strength_is_the_part_of_the_steps_that_is_executed(strength: float, executed: int) -> None:
    steps = run_steps(SCHEDULE, 20, strength)
    assert [step.timestep for step in steps] == list(SCHEDULE.timesteps(20))[20 - executed :]
    assert [(step.index, step.count) for step in steps] == [(index, executed) for index in range(executed)]
    assert [step.following for step in steps] == ([*(step.timestep for step in steps[1:]), None] if steps else [])


def test_strength_that_is_exact_only_on_paper_is_not_cut_down() -> None:
    assert len(run_steps(SCHEDULE, 100, 0.29)) == 29


@pytest.mark.parametrize("strength", [-0.1, 1.1])
def test_strength_outside_its_range_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="strength"):
        run_steps(SCHEDULE, 20, strength)


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_numbers_of_steps_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="1 to 1000 steps"):
        SCHEDULE.timesteps(steps)


def test_unknown_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="sample"):
        NoiseSchedule.of(DDPMScheduler(prediction_type="sample"))
