# SPDX-License-Identifier: Apache-2.0
"""Denoising of one window of keyframes, step by step, with the anchors that tie it to the windows before it.

Source: Yang et al., "FRESCO: Spatial-Temporal Correspondence for Zero-Shot Video Translation", CVPR 2024.
"""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from fresco_backend.engine.branches import Branches
from fresco_backend.engine.coherence import WindowGuidance
from fresco_backend.engine.invert import Source, invert
from fresco_backend.engine.latents import Encoding, NoiseSharing, Purpose, Seeds, decode, draw, encode
from fresco_backend.engine.predictors import Predict, Reference, predictor
from fresco_backend.engine.sampler import Sampler, Stepper, run_steps
from fresco_backend.engine.schedule import NoiseSchedule, Step
from fresco_backend.engine.smoothing import carries, carry_background, smooth_background
from fresco_backend.engine.tiles import TiledPredictor, Tiling
from fresco_backend.engine.tokenflow import Propagation

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class DiffusionModels:
    """A latent diffusion model, by diffusers' classes: unet a UNet2DConditionModel, vae an AutoencoderKL or alike."""

    unet: Any
    vae: Any
    schedule: NoiseSchedule


@dataclass(frozen=True, kw_only=True)
class Control:
    """A ControlNet at work on one window.

    network: a ControlNetModel of diffusers. images: (N, 3, H, W) in [0, 1]. strength: scale of its residuals.
    start, end: parts of the executed steps between which it acts, 0 <= start < end <= 1.
    """

    network: Any
    images: Tensor
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(f"a control acts from start to end within [0, 1], not from {self.start} to {self.end}")

    def acts(self, step: Step) -> bool:
        """Whether the control acts at this step."""
        return self.start <= step.progress < self.end


@dataclass(frozen=True, kw_only=True)
class WindowInput:
    """The N frames of one window.

    frames: their numbers in the plate, N of them: with the seed they decide the noise. images: (N, 3, H, W) in [-1, 1].
    prompt, negative: (N, T, C), states of the text encoder. anchored: how many frames at the head are anchors, 0 to 2.
    guidance: None denoises each frame by itself. source: the plate on its way to noise, for an edit and for
    propagation. propagation: None denoises all frames in one call; else `guidance` only smooths the background.
    """

    frames: tuple[int, ...]
    images: Tensor
    prompt: Tensor
    negative: Tensor
    controls: tuple[Control, ...] = ()
    anchored: int = 0
    guidance: WindowGuidance | None = None
    source: Source | None = None
    propagation: Propagation | None = None

    def __post_init__(self) -> None:
        batches = [self.images, self.prompt, self.negative, *(control.images for control in self.controls)]
        if self.source is not None:
            batches.append(self.source.caption)
        elif self.propagation is not None:
            raise ValueError("features are propagated by those of the plate: give its source")
        sizes = {len(self.frames), *(batch.shape[0] for batch in batches)}
        if len(sizes) > 1:
            raise ValueError(f"a window's frames, images, texts and controls must be as many, not {sorted(sizes)}")
        if not 0 <= self.anchored <= 2:
            raise ValueError(f"a window has 0 to 2 anchored frames, not {self.anchored}")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a run samples.

    steps: of the whole schedule; strength: the part of them that is executed, in [0, 1]. guidance: scale of
    classifier-free guidance; 1 leaves the negative prompt out and takes half the time. chunk: how many frames the
    autoencoder takes at once. tiling: of pictures that are larger than the model likes; None takes any as a whole.
    """

    steps: int = 20
    strength: float = 0.75
    guidance: float = 7.5
    sampler: Sampler = Sampler.DDPM
    seed: int = 0
    sharing: NoiseSharing = NoiseSharing.INITIAL
    encoding: Encoding = Encoding.MODE
    chunk: int = 4
    tiling: Tiling | None = None


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """Latents of a window's first and last frame before each executed step, float32 (steps, 2, C, h, w).

    The first one is the clip's first keyframe in every window, since it is carried on itself.
    """

    latents: Tensor


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """A step that was executed. clean: latents (N, C, h, w) as the model believes them to be without noise."""

    step: Step
    clean: Tensor


@dataclass(frozen=True, kw_only=True)
class WindowResult:
    """A window that was denoised. latents: float32 (N, C, h, w), anchors included. anchors: for the next window."""

    latents: Tensor
    anchors: Anchors


def result_of(loop: Generator[object, None, R]) -> R:
    """What a loop returns at its end, for a caller who does not look at its steps."""
    while True:
        try:
            next(loop)
        except StopIteration as end:
            result: R = end.value
            return result


@torch.no_grad()
def denoise_window(
    models: DiffusionModels, window: WindowInput, settings: Sampling, anchors: Anchors | None = None
) -> Generator[StepResult, None, WindowResult]:
    """Denoise a window: yields after each step, returns the latents and the anchors of the next window.

    The U-Net is changed while the generator lives; close() cancels and restores it. Same input, same device: same bits.
    Raises ValueError for anchors that are missing or of another run, and what the models raise.
    """
    run = _Run(models, window, settings)
    latents = run.start()
    record = latents.new_empty(len(run.steps), 2, *latents.shape[1:])
    _check_anchors(window, anchors, record)
    with run.predictor() as predict:
        for step in run.steps:
            if anchors is not None:
                latents[: window.anchored] = anchors.latents[step.index, : window.anchored]
            record[step.index] = latents[[0, -1]]
            clean = models.schedule.clean(latents, predict(latents, step), step.timestep)
            latents, clean = run.smoothed(latents, clean, step)
            latents = run.advance(latents, clean, step)
            yield StepResult(step=step, clean=clean)
    return WindowResult(latents=latents, anchors=Anchors(latents=record))


@torch.no_grad()
def invert_window(
    models: DiffusionModels, window: WindowInput, settings: Sampling, steps: Sequence[Step]
) -> Generator[tuple[int, Tensor], None, None]:
    """Invert the frames of a window, with its prompt, its controls and no guidance: yields what `invert.invert` does.

    The networks are those of the way back, so that an edit which asks for what is there meets the plate again.
    """
    run = _Run(models, window, replace(settings, guidance=1))
    with run.predictor() as predict:
        yield from invert(predict, models.schedule, run.plate, steps)


class _Run:
    """What stays the same through the steps of one window."""

    def __init__(self, models: DiffusionModels, window: WindowInput, settings: Sampling) -> None:
        self._models, self._window, self._settings = models, window, settings
        self._schedule = models.schedule
        self.steps = run_steps(models.schedule, settings.steps, settings.strength, settings.sampler)
        self._seeds = Seeds(seed=settings.seed, frames=window.frames, sharing=settings.sharing)
        noise = self._seeds.generators(Purpose.STEP)
        self._stepper = Stepper(models.schedule, settings.sampler, lambda latents: draw(noise, latents))

    def start(self) -> Tensor:
        """Give the latents of the first executed step: the plate's with noise, those of its inversion for an edit.

        When no step is executed they are the plate itself.
        """
        source = self._window.source
        if not self.steps:
            return self.plate
        if source is not None and source.injection is not None:
            return self._inverted(source, self.steps[0].timestep)
        noise = draw(self._seeds.generators(Purpose.INITIAL), self.plate)
        return self._schedule.add_noise(self.plate, noise, self.steps[0].timestep)

    def _inverted(self, source: Source, timestep: int) -> Tensor:
        if source.noise_at is None:
            return source.latents(timestep)
        noise = self._schedule.noise(source.latents(source.noise_at), self.plate, source.noise_at)
        return self._schedule.add_noise(self.plate, noise, timestep)

    def predictor(self) -> AbstractContextManager[Predict]:
        """Give what predicts the steps; see `predictors.predictor`."""
        tiling, (height, width) = self._settings.tiling, self.plate.shape[-2:]
        if tiling is None or len(tiling.tiles((height, width))) == 1:
            return predictor(self._branches(self._window), self._window, lambda: self._reference)
        tiled = TiledPredictor(self._branches, self._window, lambda: self._reference, tiling, (height, width))
        return nullcontext(tiled)

    def _branches(self, window: WindowInput) -> Branches:
        return Branches(self._models, window, self._settings.guidance)

    def smoothed(self, latents: Tensor, clean: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Give the latents and what they are without noise, their background smoothed where that is due.

        The next step mixes both. If only the clean ones were smoothed, it would bring half of the old picture back: a
        double exposure, and one that looks soft.
        """
        guidance = self._window.guidance
        if guidance is None or guidance.background is None:
            return latents, clean
        pixels = guidance.coherence.pixels
        if pixels is None or not guidance.coherence.smooths_pixels(step) or not self._carries:
            return latents, clean  # the way through the autoencoder costs fine detail, and would be for nothing
        images = decode(self._models.vae, clean, chunk=self._settings.chunk)
        if not pixels.sharp:
            return latents, self._encode(smooth_background(images, guidance.correspondence, guidance.background))
        carried = self._encode(carry_background(images, guidance.correspondence, guidance.background))
        return self._schedule.replaced(latents, clean, carried, step.timestep), carried

    def advance(self, latents: Tensor, clean: Tensor, step: Step) -> Tensor:
        """Give the latents of the following time step."""
        return self._stepper.advance(latents, clean, step)

    @cached_property
    def plate(self) -> Tensor:
        """Latents of the window's frames, (N, C, h, w)."""
        return self._encode(self._window.images)

    @cached_property
    def _carries(self) -> bool:
        guidance = self._window.guidance
        assert guidance is not None and guidance.background is not None
        return carries(guidance.correspondence, guidance.background)

    @cached_property
    def _reference(self) -> Reference:
        timestep = self._schedule.clearest
        noise = draw(self._seeds.generators(Purpose.REFERENCE), self.plate)
        return Reference(latents=self._schedule.add_noise(self.plate, noise, timestep), timestep=timestep)

    def _encode(self, images: Tensor) -> Tensor:
        seeds = self._seeds if self._settings.encoding is Encoding.SAMPLE else None
        return encode(self._models.vae, images, seeds, chunk=self._settings.chunk)


def _check_anchors(window: WindowInput, anchors: Anchors | None, record: Tensor) -> None:
    if anchors is None:
        if window.anchored:
            raise ValueError(f"the window has {window.anchored} anchored frames but no anchors were given")
    elif anchors.latents.shape != record.shape:
        found, needed = tuple(anchors.latents.shape), tuple(record.shape)
        raise ValueError(f"anchors of another run: their latents are {found}, this run needs {needed}")
