# SPDX-License-Identifier: Apache-2.0
"""The size at which the engine works: multiples of what a U-Net divides by, reached by padding, never by squeezing."""
from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from fresco_backend.frames import Size

MULTIPLE = 64  # three halvings in a U-Net after eight pixels per latent


@dataclass(frozen=True, kw_only=True)
class WorkingSize:
    """How a plate lies in the engine's picture: scaled with its aspect kept, then padded evenly by its own edges.

    plate: pixels of the plate. scaled: of the plate in the engine. padded: of the engine's picture.
    """

    plate: Size
    scaled: Size
    padded: Size

    def to_working(self, images: Tensor) -> Tensor:
        """(N, C, H, W) at the plate's size -> at the padded size."""
        left, top = self._margin()
        right = self.padded.width - self.scaled.width - left
        bottom = self.padded.height - self.scaled.height - top
        return F.pad(resized(images, self.scaled), (left, right, top, bottom), mode="replicate")

    def to_plate(self, images: Tensor) -> Tensor:
        """(N, C, H, W) at the padded size -> at the plate's size, without the padding."""
        return resized(self.without_padding(images), self.plate)

    def without_padding(self, images: Tensor) -> Tensor:
        """(N, C, H, W) at the padded size -> at the scaled size."""
        left, top = self._margin()
        return images[..., top:top + self.scaled.height, left:left + self.scaled.width]

    def _margin(self) -> tuple[int, int]:
        return (self.padded.width - self.scaled.width) // 2, (self.padded.height - self.scaled.height) // 2


def fit(plate: Size, short_side: int) -> WorkingSize:
    """The working size of a plate whose short side shall have `short_side` pixels, at least."""
    factor = short_side / min(plate)
    scaled = Size(max(1, round(plate.width * factor)), max(1, round(plate.height * factor)))
    padded = Size(*(-(-side // MULTIPLE) * MULTIPLE for side in scaled))
    return WorkingSize(plate=plate, scaled=scaled, padded=padded)


def resized(images: Tensor, size: Size) -> Tensor:
    """(N, C, H, W) in another size: bicubic upwards, its overshoot clipped to the range of each image; downwards an
    average over the footprint of the new pixel (linear weights), so that nothing aliases and flickers.
    """
    height, width = images.shape[-2:]
    if (width, height) == size:
        return images
    smaller = size.height < height
    mode = "bilinear" if smaller else "bicubic"
    sampled = F.interpolate(images, (size.height, size.width), mode=mode, antialias=smaller)
    return sampled.clamp(images.amin(dim=(-3, -2, -1), keepdim=True), images.amax(dim=(-3, -2, -1), keepdim=True))
