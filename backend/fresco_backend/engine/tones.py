# SPDX-License-Identifier: Apache-2.0
"""Drift of a long clip: what a look makes of the plate's tones, how that changes, and the grade that takes it back.

Colours of result and plate are compared tone by tone: the mean colour that pixels of one level of the plate's luma have
in the result. A plate that gets darker is thus no drift, and a look that answers the same tone otherwise is. The grade
is one gain and one offset for each channel of a whole picture, so it changes no shape and no motion.
Images are float32 (N, 3, H, W) or (3, H, W) in [-1, 1], display-referred sRGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

LEVELS = 32
LUMA = (0.299, 0.587, 0.114)  # Rec. 601, of display-referred RGB

LARGEST_GAIN = 1.25
LARGEST_OFFSET = 0.2
"""Beyond these limits, in units of [-1, 1], a change is the picture's own and is left."""

_CALM = 4e-4  # variance, in units of [-1, 1] squared, below which a result has too little contrast to compare


@dataclass(frozen=True, kw_only=True)
class Grade:
    """A change of colour: image * gain + offset, both (3,)."""

    gain: Tensor
    offset: Tensor

    @classmethod
    def neutral(cls) -> Self:
        """Give the grade that changes nothing."""
        return cls(gain=torch.ones(3), offset=torch.zeros(3))

    def apply(self, image: Tensor) -> Tensor:
        """Give the graded image, clipped to [-1, 1]."""
        gain, offset = (part.to(image)[:, None, None] for part in (self.gain, self.offset))
        return (image * gain + offset).clamp(-1, 1)

    def towards(self, other: Grade, part: float) -> Grade:
        """Give the grade that lies at `part` of the way to another one, 0 here and 1 there."""
        return Grade(gain=self.gain.lerp(other.gain, part), offset=self.offset.lerp(other.offset, part))


@dataclass(frozen=True, kw_only=True)
class Drift:
    """colour: largest change of a channel's mean, as part of its range. contrast: largest change, relative."""

    colour: float
    contrast: float


@dataclass(frozen=True, kw_only=True)
class Tones:
    """What results show at the plate's tones. table: (LEVELS, 4) float64: pixels, then the sum of each channel."""

    table: Tensor

    @classmethod
    def of(cls, plate: Tensor, result: Tensor) -> Self:
        """Give the tones of images of any number and equal size."""
        luma = (plate.double() * plate.new_tensor(LUMA, dtype=torch.float64)[:, None, None]).sum(-3)
        level = ((luma / 2 + 0.5) * LEVELS).long().clamp(0, LEVELS - 1).flatten()
        rows = result.double().movedim(-3, -1).reshape(-1, 3)
        table = torch.zeros(LEVELS, 4, dtype=torch.float64, device=result.device)
        table.index_add_(0, level, torch.cat([torch.ones_like(rows[:, :1]), rows], dim=1))
        return cls(table=table.cpu())

    def drift(self, reference: Tones) -> Drift:
        """How the result's answer to the plate differs from the reference's, over the tones that both have."""
        (mean, deviation), (wanted, expected) = self._compared(reference)
        return Drift(
            colour=float((mean - wanted).abs().max() / 2), contrast=float((deviation / expected - 1).abs().max())
        )

    def grade(self, reference: Tones) -> Grade:
        """Give the grade that brings the result's answer to the plate to the reference's, within limits."""
        (mean, deviation), (wanted, expected) = self._compared(reference)
        gain = (expected / deviation).clamp(1 / LARGEST_GAIN, LARGEST_GAIN)
        # The means shall meet; the gain turns about them.
        offset = (wanted - mean).clamp(-LARGEST_OFFSET, LARGEST_OFFSET) + mean - gain * mean
        return Grade(gain=gain.float(), offset=offset.float())

    def _compared(self, reference: Tones) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Mean and deviation (3,) of this result's colours and of the reference's, with the same weights of tones."""
        weight = torch.minimum(self._share, reference._share)
        weight = weight / weight.sum() if weight.sum() > 0 else self._share
        return _moments(self._colours, weight), _moments(reference._colours, weight)

    @property
    def _share(self) -> Tensor:
        """Part of the pixels that each level has, (LEVELS,)."""
        return self.table[:, 0] / self.table[:, 0].sum()

    @property
    def _colours(self) -> Tensor:
        """Mean colour of each level, (LEVELS, 3)."""
        return self.table[:, 1:] / self.table[:, :1].clamp(min=1)


def _moments(colours: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    mean = (colours * weight[:, None]).sum(0)
    variance = ((colours - mean).square() * weight[:, None]).sum(0)
    return mean, variance.clamp(min=_CALM).sqrt()
