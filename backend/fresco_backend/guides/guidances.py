# SPDX-License-Identifier: Apache-2.0
"""What holds frames of one window together, for any of its frames: motion is estimated once for each pair of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from fresco_backend.engine.coherence import Coherence, WindowGuidance
from fresco_backend.engine.correspondence import Correspondence
from fresco_backend.engine.flow import Flow
from fresco_backend.guides import motion

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Guidances:
    """The guidance of frames of a window.

    images: all its frames, (N, 3, H, W) in [-1, 1], on the CPU. coherence: the constraints. background: (N, 1, H, W) in
    [0, 1], 1 = background; None smooths nothing. cyclic: the last frame is compared with the first one too, as the
    authors' program does. device: where the guidance is used.
    """

    images: Tensor
    coherence: Coherence
    background: Tensor | None
    cyclic: bool
    device: torch.device
    _pairs: dict[Pair, Flow] = field(default_factory=dict)

    def of(self, places: Sequence[int]) -> WindowGuidance:
        """What holds the frames at these places together, in their order."""
        chosen = list(places)
        flow = self._flow(chosen).to(self.device)
        return WindowGuidance(
            coherence=self.coherence,
            correspondence=Correspondence(frames=self.images[chosen].to(self.device), flow=flow),
            background=None if self.background is None else self.background[chosen].to(self.device),
        )

    def estimate(self, places: Sequence[int]) -> None:
        """Estimate the motion between the frames at these places, where it is not known yet."""
        self._flow(list(places))

    @property
    def motion(self) -> Flow:
        """The flow of all frames of the window, in their order."""
        return self._flow(list(range(len(self.images))))

    def _flow(self, places: list[int]) -> Flow:
        pairs = list(pairwise(places))
        if self.cyclic:
            pairs.append((places[-1], places[0]))
        self._estimate_pairs([pair for pair in pairs if pair not in self._pairs])
        known = [self._pairs[pair] for pair in pairs]
        return Flow.joined(known if self.cyclic else [*known, Flow.closed(self.images[:1])])

    def _estimate_pairs(self, pairs: list[Pair]) -> None:
        for before, after in dict.fromkeys(pairs):
            first, second = self.images[before : before + 1], self.images[after : after + 1]
            self._pairs[before, after] = Flow.of_pairs(first, second, *motion.estimate(first, second))
