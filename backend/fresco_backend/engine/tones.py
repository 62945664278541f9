# SPDX-License-Identifier: Apache-2.0
"""Drift of a long clip: what a look makes of the plate's colours, how that changes, and the grade that takes it back.

Result and plate are compared colour by colour: the mean that pixels of one colour of the plate have in the result. A
plate that gets darker, or shows more of something red, is thus no drift; a look that answers the same colour otherwise
is. The grade is one colour matrix and one offset of a whole picture, so it changes no shape and no motion.
Images are float32 (N, 3, H, W) or (3, H, W) in [-1, 1], display-referred sRGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # Rec. 601, of display-referred RGB
LEVELS, HUES = 32, 16
"""Cells of luma, and of each colour difference within half of its range: few surfaces of a picture lie beyond."""

LARGEST_GAIN = 1.25
LARGEST_MIXTURE = 0.35
LARGEST_OFFSET = 0.2
"""Beyond these limits of a channel's contrast, of the matrix, and of a channel's mean in units of [-1, 1], a change is
the picture's own and is left."""

BROAD = 8
"""Cells of luma and of each difference by which a scene is known again: as wide as the light of a scene may change."""

STRANGE, KNOWN = 0.4, 0.7
"""Parts of the plate that were known before: with less there is nothing to compare, and from the second on it is
graded."""

_CALM = 4e-4  # variance, in units of [-1, 1] squared, below which a result has too little contrast to compare
_RIDGE = 1e-2  # variance, in the same units, that speaks for channels which do not mix


@dataclass(frozen=True, kw_only=True)
class Grade:
    """A change of colour: matrix @ colour + offset, (3, 3) and (3,)."""

    matrix: Tensor
    offset: Tensor

    @classmethod
    def neutral(cls) -> Self:
        """Give the grade that changes nothing."""
        return cls(matrix=torch.eye(3), offset=torch.zeros(3))

    def apply(self, image: Tensor) -> Tensor:
        """Give the graded image, clipped to [-1, 1]."""
        mixed = torch.einsum("ij,...jhw->...ihw", self.matrix.to(image), image)
        return (mixed + self.offset.to(image)[:, None, None]).clamp(-1, 1)

    def towards(self, other: Grade, part: float) -> Grade:
        """Give the grade that lies at `part` of the way to another one: 0 here, 1 there, and beyond it above."""
        return Grade(matrix=self.matrix.lerp(other.matrix, part), offset=self.offset.lerp(other.offset, part))


@dataclass(frozen=True, kw_only=True)
class Drift:
    """colour: largest change of a channel's mean, as part of its range. contrast: largest change, relative.

    covered: the part of the plate's colours, in [0, 1], that both have and that the rest is told of.
    """

    colour: float
    contrast: float
    covered: float


@dataclass(frozen=True, kw_only=True)
class Tones:
    """What results show at the plate's colours. table: (cells, 4) float64: pixels, then the sum of each channel."""

    table: Tensor

    @classmethod
    def of(cls, plate: Tensor, result: Tensor) -> Self:
        """Give the tones of images of any number and equal size."""
        rows = result.double().movedim(-3, -1).reshape(-1, 3)
        table = torch.zeros(LEVELS * HUES**2, 4, dtype=torch.float64, device=result.device)
        table.index_add_(0, _cells(plate).flatten(), torch.cat([torch.ones_like(rows[:, :1]), rows], dim=1))
        return cls(table=table.cpu())

    def drift(self, reference: Tones) -> Drift:
        """How the result's answer to the plate differs from the reference's, over the colours that both have."""
        weight, covered = self._shared(reference)
        (mean, deviation), (wanted, expected) = (_moments(tones._colours, weight) for tones in (self, reference))
        return Drift(
            colour=float((mean - wanted).abs().max() / 2),
            contrast=float((deviation / expected - 1).abs().max()),
            covered=covered,
        )

    def grade(self, reference: Tones) -> Grade:
        """Give the grade that brings the result's answer to the plate to the reference's, within limits.

        Least squares over the colours that both have, so that a hue that fades is mended without tinting greys; then
        each channel gets the reference's mean and contrast, of which such a fit keeps too little.
        """
        weight, _ = self._shared(reference)
        here, there = self._colours, reference._colours
        (mean, _), (wanted, expected) = _moments(here, weight), _moments(there, weight)
        spread, ridge = _products(here - mean, here - mean, weight), _RIDGE * torch.eye(3).double()
        matrix = (_products(there - wanted, here - mean, weight) + ridge) @ torch.linalg.inv(spread + ridge)
        kept = (matrix @ spread @ matrix.T).diagonal().clamp(min=_CALM).sqrt()
        matrix = matrix * (expected / kept).clamp(1 / LARGEST_GAIN, LARGEST_GAIN)[:, None]
        change = matrix - torch.eye(3).double()
        matrix = matrix - change * (1 - LARGEST_MIXTURE / change.abs().max().clamp(min=LARGEST_MIXTURE))
        # The means shall meet; the matrix turns about them.
        offset = (wanted - mean).clamp(-LARGEST_OFFSET, LARGEST_OFFSET) + mean - matrix @ mean
        trust = min(max((self._known(reference) - STRANGE) / (KNOWN - STRANGE), 0.0), 1.0)
        return Grade.neutral().towards(Grade(matrix=matrix.float(), offset=offset.float()), trust)

    def _shared(self, reference: Tones) -> tuple[Tensor, float]:
        """Weights of the cells, (cells,), their sum 1, and the part of the plate that both have."""
        weight = torch.minimum(self._share, reference._share)
        covered = float(weight.sum())
        return (weight / covered if covered > 0 else self._share), covered

    def _known(self, reference: Tones) -> float:
        """Part of the plate, in [0, 1], whose colours the reference had too, told broadly."""
        return float(torch.minimum(self._broad_share, reference._broad_share).sum())

    @property
    def _broad_share(self) -> Tensor:
        """Part of the pixels that each broad cell has, whatever their shape."""
        hues = min(HUES, BROAD)
        return self._share.view(BROAD, LEVELS // BROAD, hues, HUES // hues, hues, HUES // hues).sum((1, 3, 5))

    @property
    def _share(self) -> Tensor:
        """Part of the pixels that each cell has, (cells,)."""
        return self.table[:, 0] / self.table[:, 0].sum()

    @property
    def _colours(self) -> Tensor:
        """Mean colour of each cell, (cells, 3)."""
        return self.table[:, 1:] / self.table[:, :1].clamp(min=1)


def _cells(plate: Tensor) -> Tensor:
    """The cell of each pixel's colour, (N, H, W): luma, then the colour differences of Rec. 601."""
    red, _, blue = colours = plate.double().unbind(-3)
    luma = torch.stack([weight * channel for weight, channel in zip(LUMA, colours, strict=True)]).sum(0)
    place = ((luma / 2 + 0.5) * LEVELS).long().clamp(0, LEVELS - 1)
    for difference in ((blue - luma) / 1.772, (red - luma) / 1.402):
        place = place * HUES + ((difference + 0.5) * HUES).long().clamp(0, HUES - 1)
    return place


def _moments(colours: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and deviation of colours, each (3,)."""
    mean = (colours * weight[:, None]).sum(0)
    variance = ((colours - mean).square() * weight[:, None]).sum(0)
    return mean, variance.clamp(min=_CALM).sqrt()


def _products(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of the products of all channels, (3, 3)."""
    return (first * weight[:, None]).T @ second
