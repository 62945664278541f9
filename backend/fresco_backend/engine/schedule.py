# SPDX-License-Identifier: Apache-2.0
"""The noise schedule of a diffusion model: time steps, noising, and the rules of one step of DDPM and of DDIM.

Latents are tensors (N, C, h, w) of any float type; arithmetic is done in theirs, coefficients in double precision.
"Clean" is what the model believes the latents to be without noise (x0 of the papers).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt
from typing import Any, Self

from torch import Tensor


class Prediction(StrEnum):
    """What the U-Net was trained to predict."""

    EPSILON = "epsilon"
    VELOCITY = "v_prediction"


class Spacing(StrEnum):
    """Which training time steps a run of fewer steps visits. Source: Lin et al., arXiv 2305.08891, table 2."""

    LEADING = "leading"
    TRAILING = "trailing"
    LINSPACE = "linspace"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One executed step of a run: from a time step to the following one, None after the last.

    index: 0 for the first executed step; count: how many are executed; beginning: time step of the first one.
    """

    index: int
    count: int
    timestep: int
    following: int | None
    beginning: int

    @property
    def progress(self) -> float:
        """Part of the run that lies before this step, in [0, 1)."""
        return self.index / self.count


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """How much signal is left at each training time step, and how a model is to be asked.

    signal: (T,), cumulative products of 1 - beta (ᾱ), in [0, 1], falling. offset: added to LEADING time steps, as far
    as there is room.
    last_signal: ᾱ after the last step of DDIM; the ancestral step always ends at 1.
    """

    signal: tuple[float, ...]
    prediction: Prediction
    spacing: Spacing
    offset: int
    last_signal: float

    def __post_init__(self) -> None:
        if not self.signal or not all(0 <= value <= 1 for value in (*self.signal, self.last_signal)):
            raise ValueError("a noise schedule needs cumulative signal fractions in [0, 1]")

    @classmethod
    def of(cls, scheduler: Any) -> Self:
        """Give the schedule of any diffusers scheduler of the DDPM family. Raises ValueError for an unknown kind."""
        config = scheduler.config
        signal = tuple(scheduler.alphas_cumprod.double().tolist())
        return cls(
            signal=signal,
            prediction=Prediction(config.prediction_type),
            spacing=Spacing(config.get("timestep_spacing", Spacing.LEADING)),
            offset=config.get("steps_offset", 0),
            last_signal=1.0 if config.get("set_alpha_to_one", False) else signal[0],
        )

    def timesteps(self, count: int) -> tuple[int, ...]:
        """Give the time steps of a run of count steps, from noise to picture.

        Raises ValueError unless count is between 1 and the number of training steps.
        """
        total = len(self.signal)
        if not 1 <= count <= total:
            raise ValueError(f"a run has 1 to {total} steps, not {count}")
        if self.spacing is Spacing.LEADING:
            stride = total // count
            # A run of all steps has no room: its first one would come twice, with a step of no length between.
            offset = min(self.offset, total - 1 - (count - 1) * stride)
            return tuple(k * stride + offset for k in reversed(range(count)))
        if self.spacing is Spacing.TRAILING:
            return tuple(round(total - k * total / count) - 1 for k in range(count))
        return tuple(round((total - 1) * k / max(count - 1, 1)) for k in reversed(range(count)))

    @property
    def clearest(self) -> int:
        """The time step with the least noise that a run visits: its model sees the picture as it is."""
        return self.offset

    def add_noise(self, clean: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """Give the latents at a time step, sqrt(ᾱ) clean + sqrt(1 - ᾱ) noise. Source: Ho et al. 2020, equation 4."""
        signal = self.signal[timestep]
        return sqrt(signal) * clean + sqrt(1 - signal) * noise

    def noise(self, latents: Tensor, clean: Tensor, timestep: int) -> Tensor:
        """Give the noise that was added to clean latents to give those at a time step; see `add_noise`."""
        signal = self.signal[timestep]
        return (latents - sqrt(signal) * clean) / sqrt(1 - signal)

    def clean(self, latents: Tensor, output: Tensor, timestep: int) -> Tensor:
        """Give the clean latents that the model's output at a time step stands for.

        Source: Ho et al. 2020, equation 15; velocity: Salimans and Ho, arXiv 2202.00512, appendix D.
        """
        signal = self.signal[timestep]
        if self.prediction is Prediction.VELOCITY:
            return sqrt(signal) * latents - sqrt(1 - signal) * output
        return (latents - sqrt(1 - signal) * output) / sqrt(signal)

    def replaced(self, latents: Tensor, clean: Tensor, replacement: Tensor, timestep: int) -> Tensor:
        """Give the latents at a time step with another clean part and the same noise."""
        return latents + sqrt(self.signal[timestep]) * (replacement - clean)

    def ddpm_step(self, latents: Tensor, clean: Tensor, step: Step, noise: Tensor) -> Tensor:
        """Give the latents at the next time step by the ancestral rule, with fresh noise of unit variance.

        Source: Ho et al. 2020, equations 6 and 7, with their smaller variance.
        """
        here = self.signal[step.timestep]
        after = 1.0 if step.following is None else self.signal[step.following]
        ratio = here / after
        mean = (sqrt(after) * (1 - ratio) * clean + sqrt(ratio) * (1 - after) * latents) / (1 - here)
        variance = (1 - after) / (1 - here) * (1 - ratio)
        return mean + sqrt(variance) * noise

    def ddim_step(self, latents: Tensor, clean: Tensor, step: Step) -> Tensor:
        """Give the latents at the next time step by the deterministic rule. Source: Song et al. 2021, equation 12."""
        after = self.last_signal if step.following is None else self.signal[step.following]
        return sqrt(after) * clean + sqrt(1 - after) * self.noise(latents, clean, step.timestep)


def steps_of(timesteps: Sequence[int]) -> tuple[Step, ...]:
    """Give the steps of a run that executes these time steps, in order."""
    following = [*timesteps[1:], None][: len(timesteps)]
    return tuple(
        Step(index=index, count=len(timesteps), timestep=here, following=after, beginning=timesteps[0])
        for index, (here, after) in enumerate(zip(timesteps, following, strict=True))
    )
