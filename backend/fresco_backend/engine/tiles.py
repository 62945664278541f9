# SPDX-License-Identifier: Apache-2.0
"""Pictures that are larger than a model likes: predicted tile by tile, the tiles blended into one at every step.

All tiles are cut from one picture of latents with one noise, and what the model says of them is mixed where they
overlap, before the step is taken. So neighbours agree from the first step on, and memory is that of one tile. Within a
tile the constraints of the window act as they do on a whole picture: motion that leaves the tile counts as occluded.
Source: Bar-Tal et al., "MultiDiffusion", ICML 2023, equation 5; its weights fall off towards the inner edges here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from fresco_backend.engine.branches import Branches
from fresco_backend.engine.coherence import WindowGuidance
from fresco_backend.engine.invert import Source
from fresco_backend.engine.predictors import Reference, predictor
from fresco_backend.engine.schedule import Step
from fresco_backend.engine.tokenflow import Propagation

if TYPE_CHECKING:
    from fresco_backend.engine.denoise import WindowInput

Size = tuple[int, int]


class Tile(NamedTuple):
    """A part of a picture, in positions of its latents."""

    top: int
    left: int
    height: int
    width: int

    def of(self, images: Tensor, whole: Size) -> Tensor:
        """The tile of images (..., H, W), which may be finer than the latents: whole is their height and width."""
        box = self.scaled(images.shape[-2] // whole[0], images.shape[-1] // whole[1])
        return images[..., box.top : box.top + box.height, box.left : box.left + box.width]

    def scaled(self, down: int, across: int) -> Tile:
        """The tile in finer positions."""
        return Tile(self.top * down, self.left * across, self.height * down, self.width * across)


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How a picture is divided. side: latent positions of a tile at most. overlap: the least that neighbours share.

    Raises ValueError where tiles would not get on.
    """

    side: int = 64
    overlap: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.overlap < self.side:
            raise ValueError(f"tiles of {self.side} positions cannot share {self.overlap}")

    def tiles(self, whole: Size) -> tuple[Tile, ...]:
        """The tiles of a picture, row by row, all of one size, evenly spread from edge to edge."""
        rows, columns = (self._starts(length) for length in whole)
        height, width = (min(self.side, length) for length in whole)
        return tuple(Tile(top, left, height, width) for top in rows for left in columns)

    def weights(self, whole: Size) -> tuple[Tensor, ...]:
        """What part each tile has in its positions, (height, width) each: they fall off over the overlaps; sum 1."""
        tiles = self.tiles(whole)
        rows, columns = (self._profiles(length) for length in whole)
        raw = [down[:, None] * across for down in rows for across in columns]
        total = torch.zeros(whole)
        for tile, weight in zip(tiles, raw, strict=True):
            tile.of(total, whole).add_(weight)
        return tuple(weight / tile.of(total, whole) for tile, weight in zip(tiles, raw, strict=True))

    def _starts(self, length: int) -> list[int]:
        if length <= self.side:
            return [0]
        count = -(-(length - self.overlap) // (self.side - self.overlap))
        return [place * (length - self.side) // (count - 1) for place in range(count)]

    def _profiles(self, length: int) -> list[Tensor]:
        """The rise and fall of each tile along one side; none at the picture's own edges."""
        starts, side = self._starts(length), min(self.side, length)
        shared = [0, *(before + side - after for before, after in pairwise(starts)), 0]
        return [_rise(side, head) * _rise(side, tail).flip(0) for head, tail in pairwise(shared)]


def _rise(length: int, over: int) -> Tensor:
    """From nearly 0 to 1 over so many positions, then 1."""
    return ((torch.arange(length) + 0.5) / over).clamp(max=1) if over else torch.ones(length)


class TiledPredictor:
    """What the model says of all frames of a window at one step, tile by tile; see `predictors.Predict`."""

    def __init__(
        self,
        branches: Callable[[WindowInput], Branches],
        window: WindowInput,
        reference: Callable[[], Reference],
        tiling: Tiling,
        whole: Size,
    ) -> None:
        """branches: gives the U-Net's calls on a window. whole: height and width of the window's latents."""
        self._reference, self._whole = reference, whole
        self._weights = tiling.weights(whole)
        cut = [(tile, _tile_of_window(window, tile, whole)) for tile in tiling.tiles(whole)]
        self._parts = [(tile, branches(part), part) for tile, part in cut]

    def __call__(self, latents: Tensor, step: Step) -> Tensor:
        blended = torch.zeros_like(latents)
        for (tile, branches, part), weight in zip(self._parts, self._weights, strict=True):
            # Opened anew, so that what is recorded of the plate takes the memory of one tile.
            with predictor(branches, part, partial(self._reference_of, tile)) as predict:
                said = predict(tile.of(latents, self._whole), step)
            tile.of(blended, self._whole).add_(said * weight.to(said))
        return blended

    def _reference_of(self, tile: Tile) -> Reference:
        reference = self._reference()
        return replace(reference, latents=tile.of(reference.latents, self._whole))


def _tile_of_window(window: WindowInput, tile: Tile, whole: Size) -> WindowInput:
    source, propagation = window.source, window.propagation
    return replace(
        window,
        images=tile.of(window.images, whole),
        controls=tuple(replace(each, images=tile.of(each.images, whole)) for each in window.controls),
        guidance=_tile_of_guidance(window.guidance, tile, whole),
        source=None if source is None else _tile_of_source(source, tile, whole),
        propagation=None if propagation is None else _tile_of_propagation(propagation, tile, whole),
    )


def _tile_of_guidance(guidance: WindowGuidance | None, tile: Tile, whole: Size) -> WindowGuidance | None:
    if guidance is None:
        return None
    height, width = guidance.correspondence.size
    return replace(
        guidance,
        correspondence=guidance.correspondence.cropped(*tile.scaled(height // whole[0], width // whole[1])),
        background=None if guidance.background is None else tile.of(guidance.background, whole),
    )


def _tile_of_source(source: Source, tile: Tile, whole: Size) -> Source:
    return replace(source, latents=lambda timestep: tile.of(source.latents(timestep), whole), kept=None)


def _tile_of_propagation(propagation: Propagation, tile: Tile, whole: Size) -> Propagation:
    return replace(propagation, guidance=lambda places: _tile_of_guidance(propagation.guidance(places), tile, whole))


@contextmanager
def autoencoder_in_tiles(vae: Any, side: int) -> Iterator[None]:
    """Let an autoencoder of diffusers work tile by tile while open, as it can by itself; others work as they do.

    side: of a tile, in pixels. Its own choice is 32 where its files do not say, as a checkpoint of one file never does:
    pictures made of so small tiles fall apart.
    """
    if not works_in_tiles(vae) or vae.use_tiling:
        yield
        return
    pixels, latents = own = vae.tile_sample_min_size, vae.tile_latent_min_size
    vae.enable_tiling()
    vae.tile_sample_min_size, vae.tile_latent_min_size = side, side * latents // pixels
    try:
        yield
    finally:
        vae.tile_sample_min_size, vae.tile_latent_min_size = own
        vae.disable_tiling()


def works_in_tiles(vae: Any) -> bool:
    """Whether an autoencoder can work tile by tile by itself."""
    return hasattr(vae, "enable_tiling")
