# SPDX-License-Identifier: Apache-2.0
"""Samplers: which time steps a run visits, and how it goes from one to the next.

The noise of a step comes from the caller, so that every sampler shares it between frames in the same way.
"""

from collections.abc import Callable
from enum import StrEnum
from math import exp, log, sqrt

from torch import Tensor

from fresco_backend.engine.schedule import NoiseSchedule, Spacing, Step, steps_of

LCM_GRID = 50
"""Time steps, evenly spaced, at which latent consistency models are distilled (Luo et al., arXiv 2310.04378)."""

_LCM_DATA_DEVIATION = 0.5
_LCM_TIME_SCALE = 10.0
_LEAST_SIGNAL = 2.0**-24  # in place of none at all, whose logarithm is infinite


class Sampler(StrEnum):
    """How a denoising step is taken."""

    DDPM = "ddpm"
    DDIM = "ddim"
    DPM = "dpm++"
    LCM = "lcm"


def run_steps(
    schedule: NoiseSchedule, steps: int, strength: float, sampler: Sampler = Sampler.DDPM
) -> tuple[Step, ...]:
    """Give the steps that a run of `steps` executes at a strength: the last ones, as many as `executed` says.

    Source: Meng et al., "SDEdit", ICLR 2022. Raises ValueError outside that range, and for more steps than the sampler
    has.
    """
    return steps_of(timesteps(schedule, steps, sampler)[steps - executed(steps, strength) :])


def executed(steps: int, strength: float) -> int:
    """Give how many of a run's steps a strength in [0, 1] executes. Raises ValueError outside that range."""
    if not 0 <= strength <= 1:
        raise ValueError(f"strength lies in [0, 1], not {strength}")
    return round(strength * steps)


def timesteps(schedule: NoiseSchedule, count: int, sampler: Sampler) -> tuple[int, ...]:
    """Give the time steps of a whole run, from noise to picture: those of diffusers' scheduler of that sampler.

    DPM-Solver++ leaves the last one, where the picture is as good as finished, to the others. Raises ValueError for a
    count that the sampler does not have.
    """
    if sampler is Sampler.LCM:
        return _lcm_timesteps(len(schedule.signal), count)
    if sampler is Sampler.DPM and schedule.spacing is not Spacing.TRAILING and count < len(schedule.signal):
        return schedule.timesteps(count + 1)[:-1]
    return schedule.timesteps(count)


class Stepper:
    """Takes the steps of one run, in order. noise: gives fresh noise of unit variance for latents of this shape."""

    def __init__(self, schedule: NoiseSchedule, sampler: Sampler, noise: Callable[[Tensor], Tensor]) -> None:
        self._schedule, self._sampler, self._noise = schedule, sampler, noise
        self._before: tuple[Step, Tensor] | None = None

    def advance(self, latents: Tensor, clean: Tensor, step: Step) -> Tensor:
        """Give the latents (N, C, h, w) at the following time step, from those here and what they are without noise."""
        if self._sampler is Sampler.DDPM:
            return self._schedule.ddpm_step(latents, clean, step, self._noise(latents))
        if self._sampler is Sampler.DDIM:
            return self._schedule.ddim_step(latents, clean, step)
        if self._sampler is Sampler.LCM:
            return self._consistent(latents, clean, step)
        before, self._before = self._before, (step, clean)
        return self._second_order(latents, clean, step, before)

    def _consistent(self, latents: Tensor, clean: Tensor, step: Step) -> Tensor:
        """Source: Luo et al., "Latent Consistency Models", arXiv 2310.04378, algorithm 3 and equation 9."""
        time = step.timestep * _LCM_TIME_SCALE
        radius = sqrt(time**2 + _LCM_DATA_DEVIATION**2)
        denoised = (_LCM_DATA_DEVIATION / radius) ** 2 * latents + time / radius * clean
        if step.following is None:
            return denoised
        return self._schedule.add_noise(denoised, self._noise(latents), step.following)

    def _second_order(self, latents: Tensor, clean: Tensor, step: Step, before: tuple[Step, Tensor] | None) -> Tensor:
        """Source: Lu et al., "DPM-Solver++", arXiv 2211.01095, algorithm 2 (2M); the first step by equation 4.1."""
        if step.following is None:
            return clean
        signal, after = (_signal(self._schedule, time) for time in (step.timestep, step.following))
        distance = _half_log_snr(after) - _half_log_snr(signal)
        direction = clean
        if before is not None:
            earlier = _half_log_snr(_signal(self._schedule, before[0].timestep))
            ratio = (_half_log_snr(signal) - earlier) / distance
            direction = clean + (clean - before[1]) / (2 * ratio)
        return sqrt((1 - after) / (1 - signal)) * latents + sqrt(after) * (1 - exp(-distance)) * direction


def _lcm_timesteps(total: int, count: int) -> tuple[int, ...]:
    grid = min(LCM_GRID, total)
    if not 1 <= count <= grid:
        raise ValueError(f"a run of the LCM sampler has 1 to {grid} steps, not {count}")
    return tuple((grid - index * grid // count) * (total // grid) - 1 for index in range(count))


def _signal(schedule: NoiseSchedule, timestep: int) -> float:
    return max(schedule.signal[timestep], _LEAST_SIGNAL)


def _half_log_snr(signal: float) -> float:
    return (log(signal) - log(1 - signal)) / 2
