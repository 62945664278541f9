# SPDX-License-Identifier: Apache-2.0
"""Text-guided editing: the plate's own way to noise, and how its features hold those of the edit.

Sources: DDIM inversion, Song et al., ICLR 2021, and Mokady et al., arXiv 2211.09794; injection of queries, keys and
convolution features, Tumanyan et al., "Plug-and-Play Diffusion Features", CVPR 2023; both together with FRESCO, arXiv
2512.03905.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, Protocol

import torch
from torch import Tensor

from fresco_backend.engine.attention import guided_layers
from fresco_backend.engine.schedule import NoiseSchedule, Prediction, Step, steps_of


@dataclass(frozen=True, kw_only=True)
class Injection:
    """How long the plate's features take the place of the edit's, as parts of all executed steps, in [0, 1].

    attention: queries and keys of the guided self-attentions. convolution: the residual features of `injected_layer`.
    """

    attention: float = 0.5
    convolution: float = 0.8

    def __post_init__(self) -> None:
        if not (0 <= self.attention <= 1 and 0 <= self.convolution <= 1):
            raise ValueError(f"an injection lasts for a part of the steps in [0, 1], not {self}")

    def holds_attention(self, step: Step) -> bool:
        """Whether queries and keys are the plate's at a step."""
        return step.index < int(self.attention * step.count)

    def holds_convolution(self, step: Step) -> bool:
        """Whether residual features are the plate's at a step."""
        return step.index < int(self.convolution * step.count)

    def acts(self, step: Step) -> bool:
        """Whether anything is the plate's at a step."""
        return self.holds_attention(step) or self.holds_convolution(step)


@dataclass(frozen=True, kw_only=True)
class PlateFeatures:
    """What an edit takes of its plate at one step: of N frames, float16, the same for every prompt.

    tokens: what each guided self-attention sees, in order of execution, (N, L, C): queries and keys are made of it;
    None where they are the edit's own. convolution: what `injected_layer` gives, (N, C, h, w); None likewise.
    """

    tokens: tuple[Tensor, ...] | None = None
    convolution: Tensor | None = None


class FeatureStore(Protocol):
    """Keeps the plate's features of one window from one edit to the next, as far as there is room."""

    def load(self, timestep: int, device: torch.device) -> PlateFeatures | None:
        """Give what was kept at a time step; None where nothing was."""

    def save(self, timestep: int, features: PlateFeatures) -> None:
        """Keep the features of a time step, or not."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The plate of a window as the model sees it on its own way to noise.

    latents: gives the inverted latents (N, C, h, w), float32, of a time step that the run samples. caption: (N, T, C),
    states of the text that the plate was inverted with. injection: of an edit, which then starts from these latents;
    None for a translation, whose tokens only find each other by them. noise_at: a time step that tells the noise which
    an edit puts on the plate, and starts from, as the authors' program does; None takes the latents of the first step.
    kept: what an edit takes of the plate, from earlier edits of it; None computes it.
    """

    latents: Callable[[int], Tensor]
    caption: Tensor
    injection: Injection | None = None
    noise_at: int | None = None
    kept: FeatureStore | None = None


def inversion_timesteps(
    schedule: NoiseSchedule, steps: int, sampled: Sequence[int], until: int | None = None
) -> tuple[int, ...]:
    """Give the time steps of an inversion, ascending: those of a run of `steps`, and those that will be sampled.

    It goes no further than the first one that is sampled, or than `until`, where that is later.
    """
    last = max([*sampled, until or 0])
    return tuple(sorted(step for step in {*schedule.timesteps(steps), *sampled} if step <= last))


def inversion_steps(
    schedule: NoiseSchedule, steps: int, sampled: Sequence[int], until: int | None = None
) -> tuple[Step, ...]:
    """Give those time steps as parts of the run that samples: each has the place of the step that passes over it.

    So a control acts on the way to noise where it acts on the way back; before the first step as in it.
    """
    run = steps_of(sorted(sampled, reverse=True))
    return tuple(
        replace(next((step for step in reversed(run) if step.timestep >= timestep), run[0]), timestep=timestep)
        for timestep in inversion_timesteps(schedule, steps, sampled, until)
    )


@torch.no_grad()
def invert(
    predict: Callable[[Tensor, Step], Tensor], schedule: NoiseSchedule, clean: Tensor, steps: Sequence[Step]
) -> Generator[tuple[int, Tensor], None, None]:
    """Yield each time step with the latents that DDIM would lead back to `clean`, float32 (N, C, h, w).

    predict: gives the model's output, without guidance, like the latents. clean: latents (N, C, h, w). steps: with
    ascending time steps.
    """
    latents, before = clean.float(), schedule.last_signal
    for step in steps:
        noise = predicted_noise(schedule, latents, predict(latents, step).float(), step.timestep)
        here = schedule.signal[step.timestep]
        latents = sqrt(here / before) * (latents - sqrt(1 - before) * noise) + sqrt(1 - here) * noise
        before = here
        yield step.timestep, latents


def predicted_noise(schedule: NoiseSchedule, latents: Tensor, output: Tensor, timestep: int) -> Tensor:
    """Give the noise that the model's output at a time step stands for, like the latents.

    Velocity: Salimans and Ho, arXiv 2202.00512, appendix D.
    """
    if schedule.prediction is Prediction.EPSILON:
        return output
    signal = schedule.signal[timestep]
    return sqrt(1 - signal) * latents + sqrt(signal) * output


def injected_layer(unet: Any) -> Any:
    """Give the convolution whose output is injected: the last one of the second residual block of the second up-block.

    What it gives is added to the block's shortcut directly. Raises ValueError for a U-Net without it.
    """
    try:
        return unet.up_blocks[1].resnets[1].conv2
    except (AttributeError, IndexError) as missing:
        raise ValueError(f"{type(unet).__name__} has no second residual block in its second up-block") from missing


@contextmanager
def injected_convolution(unet: Any, frames: int) -> Iterator[None]:
    """Give all branches the residual features of the first one while open; leaves no trace.

    Batches are branches * frames, the branches outermost and the plate's first.
    """

    with _convolution(unet, lambda output: output[:frames]):
        yield


@contextmanager
def replaced_convolution(unet: Any, plate: Tensor) -> Iterator[None]:
    """Give all branches the plate's residual features (N, C, h, w) while open; leaves no trace."""
    with _convolution(unet, lambda output: plate.to(output)):
        yield


@contextmanager
def _convolution(unet: Any, of_the_plate: Callable[[Tensor], Tensor]) -> Iterator[None]:
    def replaced(_layer: Any, _inputs: Any, output: Tensor) -> Tensor:
        plate = of_the_plate(output)
        return plate.repeat(output.shape[0] // plate.shape[0], 1, 1, 1)

    hook = injected_layer(unet).register_forward_hook(replaced)
    try:
        yield
    finally:
        hook.remove()


class SeenFeatures:
    """What a U-Net call on the plate alone shows of it."""

    def __init__(self) -> None:
        self._tokens: list[Tensor] = []
        self._convolution: Tensor | None = None

    @contextmanager
    def watching(self, unet: Any) -> Iterator[None]:
        """The one U-Net call within is looked at, and runs unchanged."""
        with ExitStack() as stack:
            for layer in guided_layers(unet):
                stack.callback(layer.register_forward_pre_hook(self._saw_tokens).remove)
            stack.callback(injected_layer(unet).register_forward_hook(self._saw_convolution).remove)
            yield

    def taken(self, injection: Injection, step: Step) -> PlateFeatures:
        """Give what an edit takes of it at a step."""
        return PlateFeatures(
            tokens=tuple(self._tokens) if injection.holds_attention(step) else None,
            convolution=self._convolution if injection.holds_convolution(step) else None,
        )

    def _saw_tokens(self, _layer: Any, inputs: tuple[Tensor, ...]) -> None:
        self._tokens.append(inputs[0].half())

    def _saw_convolution(self, _layer: Any, _inputs: Any, output: Tensor) -> None:
        self._convolution = output.half()
