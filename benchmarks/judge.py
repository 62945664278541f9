# SPDX-License-Identifier: Apache-2.0
"""Whether results show the look that the prompt names, told by a classifier that never saw a diffusion model's picture.

It is the embedded model's classifier, trained here on what the looks' programs make of the plates that are measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from fresco_backend.embedded.looks import LOOKS, LookName
from fresco_backend.embedded.looks_classifier import BATCH, NAMES, LooksClassifier, train_classifier
from fresco_backend.engine.latents import encode

AMOUNTS = (0.8, 1.0, 1.2)  # of a look, as training varies it
STEPS = 400  # of training, however few pictures there are
PLATES = 24  # that it learns from, of all clips together: painting takes longer than learning


def look_of(prompt: str) -> LookName | None:
    """The look whose words a prompt has; None for a prompt that names none of the embedded model's looks."""
    named = [(len(phrase), name) for name, style in LOOKS.items() for phrase in style.phrases if phrase in prompt]
    return max(named, key=lambda found: found[0])[1] if named else None


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A classifier, the autoencoder through which it sees, and the look that is asked for."""

    classifier: LooksClassifier
    vae: Any
    look: LookName

    @classmethod
    def trained(cls, plates: Sequence[Tensor], vae: Any, look: LookName) -> Self:
        """Train on the looks of plates, each (3, H, W) in [-1, 1] and of one size or another."""
        side = min(min(plate.shape[1:]) for plate in plates)
        pictures, names = [], []
        for number, (plate, amount) in enumerate((plate, amount) for plate in plates for amount in AMOUNTS):
            square = plate[:, :side, :side].flip(-1) if number % 2 else plate[:, -side:, -side:]
            for name in NAMES:
                pictures.append(_painted(square, name, amount, number))
                names.append(name)
        epochs = -(-STEPS * BATCH // len(pictures))
        return cls(classifier=train_classifier(encode(vae, torch.stack(pictures)), names, epochs), vae=vae, look=look)

    @torch.no_grad()
    def confidence(self, images: Tensor) -> float:
        """How sure it is of the look, in percent: the mean over images (N, 3, H, W) in [-1, 1]."""
        height, width = (side // 8 * 8 for side in images.shape[2:])
        shares = self.classifier(encode(self.vae, images[..., :height, :width])).softmax(dim=1)
        return 100 * float(shares[:, NAMES.index(self.look)].mean())


def _painted(plate: Tensor, name: LookName, amount: float, seed: int) -> Tensor:
    picture = (plate / 2 + 0.5).permute(1, 2, 0).contiguous().numpy()
    painted = LOOKS[name].render(picture, amount, np.random.default_rng(seed))
    return torch.from_numpy(np.ascontiguousarray(painted)).permute(2, 0, 1) * 2 - 1
