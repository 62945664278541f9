# SPDX-License-Identifier: Apache-2.0
"""A plain small classifier that names the look of a picture, so that a machine can say whether a translation succeeded.

It learns from the stylisers' own pictures, never from the diffusion model's, and sees what the autoencoder keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fresco_backend.embedded import photos
from fresco_backend.embedded.looks import LookName

NAMES = tuple(LookName)
WIDTHS = (64, 96, 128)
BATCH = 32
RATE = 2e-3


class LooksClassifier(nn.Module):
    """Three convolutions and the mean over the picture: latents (N, C, h, w) -> logits (N, looks)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        stages = zip((channels, *WIDTHS), WIDTHS, strict=False)
        self.stages = nn.Sequential(*(layer for pair in stages for layer in _stage(*pair)))
        self.leave = nn.Linear(WIDTHS[-1], len(NAMES))

    def forward(self, latents: Tensor) -> Tensor:
        logits: Tensor = self.leave(self.stages(latents).mean(dim=(2, 3)))
        return logits

    @torch.no_grad()
    def name(self, latents: Tensor) -> list[LookName]:
        """The look of each picture, from latents (N, C, h, w) of the size that it was trained with."""
        self.eval()
        return [NAMES[index] for index in self(latents.float()).argmax(dim=1).tolist()]


def _stage(entering: int, leaving: int) -> Iterator[nn.Module]:
    yield from (nn.Conv2d(entering, leaving, 3, padding=1), nn.BatchNorm2d(leaving), nn.ReLU(), nn.MaxPool2d(2))


def single_looks(work: Path, count: int) -> tuple[Tensor, list[LookName]]:
    """Up to `count` targets in one look each, in order: latents (M, C, 32, 32) float16, and their looks.

    Raises ValueError when `work` holds no shard.
    """
    latents: list[Tensor] = []
    looks: list[LookName] = []
    for target, look in _targets(photos.load_shards(work)):
        if len(looks) == count:
            break
        latents.append(torch.from_numpy(np.array(target)))
        looks.append(look)
    if not looks:
        raise ValueError(f"{work} holds no training pairs: run the stage `data` first")
    return torch.stack(latents), looks


def _targets(shards: Sequence[photos.Pairs]) -> Iterator[tuple[np.ndarray, LookName]]:
    for shard in shards:
        for targets, names in zip(shard.targets, shard.names, strict=True):
            yield from ((target, of[0]) for target, of in zip(targets, names, strict=True) if len(of) == 1)


def train_classifier(latents: Tensor, looks: Sequence[LookName], epochs: int = 8, seed: int = 0) -> LooksClassifier:
    """A classifier trained on latents (M, C, h, w) and their looks; same bits for the same seed and machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = LooksClassifier(latents.shape[1])
    labels = torch.tensor([NAMES.index(look) for look in looks])
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=RATE, weight_decay=0.01)
    batches = epochs * -(-len(latents) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=batches)
    for chosen in _batches(len(latents), epochs, seed):
        loss = F.cross_entropy(classifier(latents[chosen].float()), labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return classifier.eval()


def _batches(count: int, epochs: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        yield from torch.randperm(count, generator=generator).split(BATCH)
