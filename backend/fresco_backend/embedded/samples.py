# SPDX-License-Identifier: Apache-2.0
"""Training samples drawn from the shards of `photos`: latents of target and plate, edges and tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import architecture, captions, photos
from .dct import lowest_frequencies
from .looks import LookName

NULL_CAPTION_SHARE = 0.1
NO_CONTROL_SHARE = 0.1
"""Of samples: without caption, and with empty edges."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples for one step: target and plate latents (N, C, h, w), edges (N, 3, 8h, 8w) in [0, 1], tokens (N, T)."""

    target: Tensor
    plate: Tensor
    edges: Tensor
    tokens: Tensor


class Pairs:
    """Random samples from all shards: a look, a crop on the block grid, perhaps mirrored, and its caption.

    All shards are held on the device, so that a fast one does not wait for samples. shards: how many there were.
    Raises ValueError where there are none, or some have other numbers of looks.
    """

    def __init__(
        self,
        work: Path,
        tokenizer: Callable[..., dict[str, Tensor]],
        emphasis: Mapping[LookName, float] | None = None,
        device: torch.device | None = None,
    ) -> None:
        shards = photos.load_shards(work)
        if len(looks := {shard.targets.shape[1] for shard in shards}) != 1:
            found = "no shard" if not looks else f"shards of {' and '.join(map(str, sorted(looks)))} looks a crop"
            raise ValueError(f"{work} holds {found}: make all of them by the data stage, with one --looks-per-crop")
        self.shards, self.tokenizer, self.device = len(shards), tokenizer, device or torch.device("cpu")
        self.names = [names for shard in shards for names in shard.names]
        self.nouns = [noun for shard in shards for noun in shard.nouns]
        self.edges = self._held([shard.edges for shard in shards])
        self.plates = self._held([shard.plate_latents for shard in shards])
        self.targets = self._held([shard.targets for shard in shards]).flatten(0, 1)
        emphasis = emphasis or {}
        weights = [[max(emphasis.get(name, 1.0) for name in names) for names in looks] for looks in self.names]
        self.shares = np.cumsum(weights, axis=1) / np.sum(weights, axis=1, keepdims=True)
        orders = [column for count in (26, 3, 3) for _, column in lowest_frequencies(count)]
        signs = [-1.0 if column % 2 else 1.0 for column in orders]
        self.mirror = torch.tensor(signs, device=self.device)[:, None, None]

    def _held(self, arrays: Sequence[NDArray[np.generic]]) -> Tensor:
        return torch.from_numpy(np.concatenate(arrays)).to(self.device)

    def draw(self, rng: np.random.Generator, pixels: int, count: int) -> Batch:
        """`count` samples of pixels x pixels."""
        crops, side = rng.integers(len(self.nouns), size=count), pixels // 8
        looks = (self.shares[crops] < rng.random((count, 1))).sum(axis=1)
        corners = rng.integers(photos.SIDE // 8 - side + 1, size=(2, count))
        mirrored = rng.random(count) < 0.5

        def cut(pictures: Tensor, index: NDArray[np.int64], cell: int) -> Tensor:
            """Windows (N, C, h, w) of pictures of `cell` x `cell` numbers for each latent one."""
            rows, columns = (cell * corner[:, None] + np.arange(cell * side) for corner in corners)
            columns = np.where(mirrored[:, None], columns[:, ::-1], columns)
            at = [torch.from_numpy(each).to(self.device) for each in (index, rows, columns)]
            channels = torch.arange(pictures.shape[1], device=self.device)[:, None, None]
            return pictures[at[0][:, None, None, None], channels, at[1][:, None, :, None], at[2][:, None, None]].float()

        sign = torch.where(torch.from_numpy(mirrored).to(self.device)[:, None, None, None], self.mirror, 1.0)
        edges = cut(self.edges, crops, 8) / 255
        edges[torch.from_numpy(rng.random(count) < NO_CONTROL_SHARE).to(self.device)] = 0
        return Batch(
            target=cut(self.targets, crops * self.shares.shape[1] + looks, 1) * sign,
            plate=cut(self.plates, crops, 1) * sign,
            edges=edges,
            tokens=self._tokens(crops, looks, rng).to(self.device),
        )

    def _tokens(self, crops: NDArray[np.int64], looks: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """Captions (N, T) of samples, some of them empty."""
        known = rng.random(len(crops)) >= NULL_CAPTION_SHARE
        texts = [
            captions.caption(self.names[crop][look], self.nouns[crop], rng) if told else ""
            for crop, look, told in zip(crops, looks, known, strict=True)
        ]
        length = architecture.TEXT_LENGTH
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return tokens["input_ids"]
