# SPDX-License-Identifier: Apache-2.0
"""One U-Net call for frames of a window: the branches of guidance, and the plate's own before them where it is needed.

Rows are branches * frames, the branches outermost: [plate | negative | prompt], the plate's and the negative one as far
as there are any.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fresco_backend.engine.invert import (
    Injection,
    PlateFeatures,
    SeenFeatures,
    injected_convolution,
    replaced_convolution,
)
from fresco_backend.engine.schedule import Step

if TYPE_CHECKING:
    from fresco_backend.engine.denoise import Control, DiffusionModels, WindowInput


class Branches:
    """The U-Net's calls on one window. guidance: scale of classifier-free guidance; 1 has no negative branch."""

    def __init__(self, models: DiffusionModels, window: WindowInput, guidance: float) -> None:
        self._models, self._window, self._guidance = models, window, guidance
        self._text = [window.prompt] if guidance == 1 else [window.negative, window.prompt]

    @property
    def unet(self) -> Any:
        """The U-Net."""
        return self._models.unet

    def injects_attention(self, step: Step) -> bool:
        """Whether queries and keys are the plate's at a step."""
        injection = self._injection
        return injection is not None and injection.holds_attention(step)

    def plate_features(self, step: Step, computing: AbstractContextManager[None]) -> PlateFeatures | None:
        """Give what an edit takes of its plate at a step, for all frames of the window; None where it takes nothing.

        It depends on the plate, its caption and the window, never on the prompt. computing: is open while it is
        computed, which is not done where an earlier edit kept it.
        """
        source, injection = self._window.source, self._injection
        if source is None or injection is None or not injection.acts(step):
            return None
        plate = source.latents(step.timestep)
        if source.kept is not None and (known := source.kept.load(step.timestep, plate.device)) is not None:
            return known
        seen = SeenFeatures()
        with computing, seen.watching(self.unet):
            self._controlled(plate, step, source.caption, list(range(len(plate))))
        features = seen.taken(injection, step)
        if source.kept is not None:
            source.kept.save(step.timestep, features)
        return features

    def predict(
        self,
        latents: Tensor,
        step: Step,
        places: Sequence[int],
        *,
        with_plate: bool,
        plate: PlateFeatures | None = None,
    ) -> Tensor:
        """Give the guided output of the U-Net, float32 (n, C, h, w), for n frames of the window.

        latents: (N, C, h, w) of all its frames. places: those of the n frames in it. with_plate: the plate's branch is
        computed with the others. plate: what was computed of it before, of the same n frames.
        """
        chosen, source = list(places), self._window.source
        rows = [latents[chosen]] * len(self._text)
        if with_plate and source is not None:
            rows = [source.latents(step.timestep)[chosen].to(latents), *rows]
        with self._injected(step, len(chosen), with_plate, plate):
            output = self._controlled(torch.cat(rows), step, self._states(chosen, with_plate), chosen)
        return self._guided(output[len(chosen) :] if with_plate else output)

    def show(self, plate: Tensor, timestep: int, places: Sequence[int], *, with_plate: bool) -> None:
        """Show the U-Net the plate's latents (N, C, h, w) of a time step in all branches, without controls."""
        chosen = list(places)
        states = self._states(chosen, with_plate)
        self._call(plate[chosen].repeat(len(states) // len(chosen), 1, 1, 1), timestep, states, {})

    @property
    def _injection(self) -> Injection | None:
        source = self._window.source
        return None if source is None else source.injection

    def _injected(
        self, step: Step, frames: int, with_plate: bool, plate: PlateFeatures | None
    ) -> AbstractContextManager[None]:
        if plate is not None and plate.convolution is not None:
            return replaced_convolution(self.unet, plate.convolution)
        injection = self._injection
        if with_plate and injection is not None and injection.holds_convolution(step):
            return injected_convolution(self.unet, frames)
        return nullcontext()

    def _controlled(self, rows: Tensor, step: Step, states: Tensor, places: list[int]) -> Tensor:
        """A call with the acting controls in all rows, the plate's as well: its inversion had them too."""
        return self._call(rows, step.timestep, states, self._residuals(rows, step, states, places))

    def _call(self, rows: Tensor, timestep: int, states: Tensor, residuals: dict[str, Any]) -> Tensor:
        rows, states = rows.to(self.unet.dtype), states.to(self.unet.dtype)
        output = self.unet(rows, timestep, encoder_hidden_states=states, return_dict=False, **residuals)
        prediction: Tensor = output[0].float()
        return prediction

    def _states(self, places: list[int], with_plate: bool) -> Tensor:
        """Give the states of the text encoder for all rows."""
        source = self._window.source
        captions = [source.caption] if with_plate and source is not None else []
        return torch.cat([states[places] for states in (*captions, *self._text)])

    def _residuals(self, rows: Tensor, step: Step, states: Tensor, places: list[int]) -> dict[str, Any]:
        """Give the sum of what the acting controls add to the U-Net, as its keyword arguments."""
        acting = [control for control in self._window.controls if control.acts(step)]
        added = [self._control(control, rows, step, states.to(self.unet.dtype), places) for control in acting]
        if not added:
            return {}
        layers = zip(*(down for down, _ in added), strict=True)
        return {
            "down_block_additional_residuals": [_sum(layer) for layer in layers],
            "mid_block_additional_residual": _sum([layer for _, layer in added]),
        }

    def _control(
        self, control: Control, rows: Tensor, step: Step, states: Tensor, places: list[int]
    ) -> tuple[list[Tensor], Tensor]:
        down, middle = control.network(
            rows.to(states),
            step.timestep,
            encoder_hidden_states=states,
            controlnet_cond=control.images[places].repeat(len(rows) // len(places), 1, 1, 1).to(states),
            conditioning_scale=control.strength,
            return_dict=False,
        )
        return down, middle

    def _guided(self, output: Tensor) -> Tensor:
        """Give the guided prediction (n, C, h, w). Source: Ho and Salimans, arXiv 2207.12598."""
        if self._guidance == 1:
            return output
        negative, prompt = output.chunk(2)
        return negative + self._guidance * (prompt - negative)


def _sum(residuals: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(residuals)).sum(0)
