# SPDX-License-Identifier: Apache-2.0
"""The size at which the engine works: multiples of what a U-Net divides by, reached by padding, never by squeezing."""
from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from fresco_backend.engine.tiles import Tiling
from fresco_backend.files.frames import Size, Window

MULTIPLE = 64  # three halvings in a U-Net after eight pixels per latent
PIXELS_PER_LATENT = 8
TILED_FROM = 1.5  # times a model's own short side, above which it repeats what the prompt names
SHARED = 4  # a tile shares this part of its side with each neighbour, at least


@dataclass(frozen=True, kw_only=True)
class WorkingSize:
    """How a part of the plate lies in the engine's picture: scaled, its aspect kept, then padded evenly by its edges.

    plate: pixels of the plate. region: the part that is worked on, counted from the plate's corner. scaled: of the
    region in the engine, where pixels are square. padded: of the engine's picture.
    """

    plate: Size
    region: Window
    scaled: Size
    padded: Size

    def part(self, images: Tensor) -> Tensor:
        """The region of images (N, C, H, W) of the whole plate, which may be of another size than it (controls)."""
        height, width = images.shape[-2:]
        if (width, height) == self.region.size == self.plate:
            return images
        across, down = width / self.plate.width, height / self.plate.height
        left, top = round(self.region.x * across), round(self.region.y * down)
        right = max(round((self.region.x + self.region.width) * across), left + 1)
        bottom = max(round((self.region.y + self.region.height) * down), top + 1)
        return images[..., top:bottom, left:right]

    def to_working(self, images: Tensor) -> Tensor:
        """(N, C, H, W) of the whole plate -> the region at the padded size."""
        return self.of_part(self.part(images))

    def of_part(self, images: Tensor) -> Tensor:
        """(N, C, H, W) of the region -> at the padded size."""
        left, top = self._margin()
        right = self.padded.width - self.scaled.width - left
        bottom = self.padded.height - self.scaled.height - top
        return F.pad(resized(images, self.scaled), (left, right, top, bottom), mode="replicate")

    def to_region(self, images: Tensor) -> Tensor:
        """(N, C, H, W) at the padded size -> at the region's size, without the padding."""
        return resized(self.without_padding(images), self.region.size)

    def without_padding(self, images: Tensor) -> Tensor:
        """(N, C, H, W) at the padded size -> at the scaled size."""
        left, top = self._margin()
        return images[..., top:top + self.scaled.height, left:left + self.scaled.width]

    def _margin(self) -> tuple[int, int]:
        return (self.padded.width - self.scaled.width) // 2, (self.padded.height - self.scaled.height) // 2


def fit(plate: Size, short_side: int, *, region: Window | None = None, pixel_aspect: float = 1.0) -> WorkingSize:
    """The working size of a plate whose short side shall have `short_side` pixels, at least.

    region: the part of the plate that is worked on; None is all of it. pixel_aspect: width of a pixel over its height.
    """
    region = region or Window(0, 0, *plate)
    width = region.width * pixel_aspect
    factor = short_side / min(width, region.height)
    scaled = Size(max(1, round(width * factor)), max(1, round(region.height * factor)))
    padded = Size(*(-(-side // MULTIPLE) * MULTIPLE for side in scaled))
    return WorkingSize(plate=plate, region=region, scaled=scaled, padded=padded)


def tile_side(working: WorkingSize, own: int) -> int:
    """Side in pixels of the tiles in which a model works whose own short side is `own`: all of a picture it likes."""
    return own if min(working.padded) >= TILED_FROM * own else max(working.padded)


def tiling(working: WorkingSize, side: int) -> Tiling | None:
    """How the engine's picture is divided into tiles of at most `side` pixels; None where it is one tile."""
    latents = max(side // MULTIPLE, 1) * MULTIPLE // PIXELS_PER_LATENT
    return None if latents >= max(working.padded) // PIXELS_PER_LATENT else Tiling(side=latents,
                                                                                   overlap=latents // SHARED)


def resized(images: Tensor, size: Size) -> Tensor:
    """(N, C, H, W) in another size: bicubic upwards, its overshoot clipped to the range of each image; downwards an
    average over the footprint of the new pixel (linear weights), so that nothing aliases and flickers. Each side for
    itself: an anamorphic plate is widened by the one while it is lowered by the other.
    """
    for side, wanted in ((-2, size.height), (-1, size.width)):
        images = _resized_side(images, side, wanted)
    return images


def _resized_side(images: Tensor, side: int, wanted: int) -> Tensor:
    if images.shape[side] == wanted:
        return images
    target = (wanted, images.shape[-1]) if side == -2 else (images.shape[-2], wanted)
    smaller = wanted < images.shape[side]
    sampled = F.interpolate(images, target, mode="bilinear" if smaller else "bicubic", antialias=smaller)
    return sampled.clamp(images.amin(dim=(-3, -2, -1), keepdim=True), images.amax(dim=(-3, -2, -1), keepdim=True))
