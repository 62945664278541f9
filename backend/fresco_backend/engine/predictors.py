# SPDX-License-Identifier: Apache-2.0
"""What the model says of all frames of a window at one step: all of them together, or by way of rotating pivots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fresco_backend.engine.branches import Branches
from fresco_backend.engine.coherence import Guide, WindowGuidance, guided
from fresco_backend.engine.schedule import Step
from fresco_backend.engine.tokenflow import PivotFeatures, Propagation, Segment, pivots, segments

if TYPE_CHECKING:
    from fresco_backend.engine.denoise import WindowInput

Predict = Callable[[Tensor, Step], Tensor]
"""Gives the guided output of the U-Net, float32 (N, C, h, w), of a window's latents (N, C, h, w) at a step."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The plate with next to no noise (FRESCO, section 4.1): latents (N, C, h, w) at a time step."""

    latents: Tensor
    timestep: int


@contextmanager
def predictor(branches: Branches, window: WindowInput, reference: Callable[[], Reference]) -> Iterator[Predict]:
    """Give what predicts the steps of a window; the U-Net is changed while the context is open, and left as it was.

    reference: asked for when a constraint compares with the plate's own features.
    """
    if window.propagation is not None:
        yield _ByPivots(branches, window.propagation, window.anchored, reference)
        return
    with _held(branches.unet, window.guidance) as guide:
        yield _Together(branches, guide, reference)


class _Together:
    """All frames in one call."""

    def __init__(self, branches: Branches, guide: Guide | None, reference: Callable[[], Reference]) -> None:
        self._branches, self._guide, self._reference = branches, guide, reference
        self._began = False

    def __call__(self, latents: Tensor, step: Step) -> Tensor:
        if not self._began and self._guide is not None and self._guide.coherence.compares(step):
            _show(self._branches, self._guide, self._reference(), range(len(latents)), with_plate=False)
        self._began = True  # what compares at no first step compares at none
        plate = self._branches.plate_features(step, self._on_the_plate(step))
        if self._guide is not None:
            self._guide.at(step, tokens=None if plate is None else plate.tokens)
        return self._branches.predict(latents, step, range(len(latents)), with_plate=False, plate=plate)

    @contextmanager
    def _on_the_plate(self, step: Step) -> Iterator[None]:
        """The U-Net call within is on the plate's own branch: its attention is guided, its features are left alone."""
        if self._guide is not None:
            self._guide.at(step, optimised=False)
        yield


class _ByPivots:
    """The step's pivots in one call, then the frames between two pivots in a call each.

    The plate's branch is computed with the others: every layer of it is asked for its tokens at every step, and the
    pivots, by which it sees the other frames, are others at every step. To keep all that would take hundreds of times
    the plate's inversion.
    """

    def __init__(
        self, branches: Branches, propagation: Propagation, anchored: int, reference: Callable[[], Reference]
    ) -> None:
        self._branches, self._propagation, self._anchored = branches, propagation, anchored
        self._reference = reference

    def __call__(self, latents: Tensor, step: Step) -> Tensor:
        keys = pivots(len(latents), self._anchored, self._propagation.radix, step.index)
        features, output = PivotFeatures(), torch.empty_like(latents)
        output[list(keys)] = self._pivotal(latents, step, keys, features)
        for segment in segments(keys, len(latents), self._anchored, self._propagation.blend):
            output[list(segment.frames)] = self._between(latents, step, segment, features)
        return output

    def _pivotal(self, latents: Tensor, step: Step, keys: tuple[int, ...], features: PivotFeatures) -> Tensor:
        unet = self._branches.unet
        with _held(unet, self._propagation.guidance(keys)) as guide:
            if guide is not None:
                guide.at(step, injected=self._branches.injects_attention(step), untouched=len(keys))
                if guide.coherence.compares(step):
                    _show(self._branches, guide, self._reference(), keys, with_plate=True)
            with features.stored(unet, len(keys)):
                return self._branches.predict(latents, step, keys, with_plate=True)

    def _between(self, latents: Tensor, step: Step, segment: Segment, features: PivotFeatures) -> Tensor:
        unet, guidance = self._branches.unet, self._propagation.guidance(segment.frames)
        between = guidance.between_pivots() if guidance is not None and len(segment.frames) > 1 else None
        with _held(unet, between) as guide, features.propagated(unet, segment):
            if guide is not None:
                guide.at(step, untouched=len(segment.frames))
            return self._branches.predict(latents, step, segment.frames, with_plate=True)


@contextmanager
def _held(unet: Any, guidance: WindowGuidance | None) -> Iterator[Guide | None]:
    with ExitStack() as stack:
        yield None if guidance is None else stack.enter_context(guided(unet, guidance))


def _show(branches: Branches, guide: Guide, reference: Reference, places: Any, *, with_plate: bool) -> None:
    with guide.recording():
        branches.show(reference.latents, reference.timestep, places, with_plate=with_plate)
