# SPDX-License-Identifier: Apache-2.0
"""Feature propagation: frames between pivots take what self-attention gives from the pivots, token by token.

In every step some frames of the window are pivots and are denoised together. Each other frame looks up, in the plate's
own features, which token of the pivots beside it every token of it is, and takes the pivots' results from there. The
pivots rotate from step to step, so that every frame is one in turn.
Sources: Geyer et al., "TokenFlow", ICLR 2024; together with FRESCO: arXiv 2512.03905.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from math import exp
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fresco_backend.engine.coherence import WindowGuidance
from fresco_backend.engine.keyframes import rotating_groups

TILE = 1024
"""Tokens that are compared with all tokens of a pivot at once: bounds the memory of the search."""


class Blend(Enum):
    """How the results of two pivots are mixed.

    LINEAR weighs them by their distance in time, and keeps the pivots' own results. REFERENCE has the weights of the
    authors' program, which take the pivots for the middles of equal stretches, and makes the pivots again.
    """

    LINEAR = "linear"
    REFERENCE = "reference"


@dataclass(frozen=True, kw_only=True)
class Propagation:
    """How the frames of a window are made by way of pivots.

    radix: groups of pivots that take turns. guidance: gives what holds some frames of the window together, by their
    places in it; None leaves each to itself.
    """

    radix: int
    blend: Blend
    guidance: Callable[[tuple[int, ...]], WindowGuidance | None]


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Frames that are made from one or two pivots.

    frames: their places in the window. pivots: places among the pivots. weights: for each frame the part of the last
    of these pivots, in [0, 1]; the other one has the rest.
    """

    frames: tuple[int, ...]
    pivots: tuple[int, ...]
    weights: tuple[float, ...]


def pivots(count: int, anchored: int, radix: int, turn: int) -> tuple[int, ...]:
    """Give the places of a step's pivots in a window of `count` frames; group `turn` mod radix of the rotating groups.

    anchored: how many frames at the head are anchors, which are always pivots: the frames after them are next to them.
    """
    head = max(anchored - 1, 0)
    groups = rotating_groups(count - head, radix)
    return (*range(head), *(head + place for place in groups[turn % len(groups)]))


def segments(pivots: Sequence[int], count: int, anchored: int, blend: Blend) -> tuple[Segment, ...]:
    """Give the frames that are made from pivots, from one pivot to the next; anchors are not among them."""
    found = []
    for place, (start, stop) in enumerate(pairwise([*pivots, count])):
        members = range(max(start if blend is Blend.REFERENCE else start + 1, anchored), stop)
        if members:
            beside = _pivots_beside(place, len(pivots), blend)
            weights = (_weight(frame - start, stop - start, blend) if len(beside) > 1 else 1.0 for frame in members)
            found.append(Segment(frames=tuple(members), pivots=beside, weights=tuple(weights)))
    return tuple(found)


def largest_window(pivots: int, radix: int) -> int:
    """Give how many frames a window may have, anchors included, so that it never has more than so many pivots."""
    return (pivots - 2) * radix + 2


def _pivots_beside(place: int, count: int, blend: Blend) -> tuple[int, ...]:
    last = place == count - 1
    if blend is Blend.LINEAR:
        return (place,) if last else (place, place + 1)
    right = place + (place > 0) - (last and place > 0)
    return (right - 1, right) if right else (0,)


def _weight(offset: int, length: int, blend: Blend) -> float:
    """Give the part of the later pivot at `offset` frames after the start of a segment of `length` frames."""
    if blend is Blend.LINEAR:
        return offset / length
    own, other = abs(offset - length // 2), abs(offset - length // 2 + length)
    return 1 / (1 + exp(-other / (own + other)))


class PivotFeatures:
    """What the pivots of one step leave to the other frames: for each self-attention what it saw and what it gave.

    U-Net batches are branches * frames, the branches outermost and the plate's first.
    """

    def __init__(self) -> None:
        self._layers: dict[Any, _Pivots] = {}

    @contextmanager
    def stored(self, unet: nn.Module, frames: int) -> Iterator[None]:
        """U-Net calls within are those of `frames` pivots, and are remembered; they run unchanged."""
        with _processors(unet, lambda layer: _Storing(layer, frames, self._layers)):
            yield

    @contextmanager
    def propagated(self, unet: nn.Module, segment: Segment) -> Iterator[None]:
        """U-Net calls within are those of a segment: self-attention is not computed but taken from the pivots.

        They raise RuntimeError when no pivots are stored.
        """
        with _processors(unet, lambda layer: _Propagating(self._layers.get(layer), segment)):
            yield


@dataclass(frozen=True, kw_only=True)
class _Pivots:
    """One layer at P pivots. tokens: of the plate's branch, of unit length, (P, L, C). results: (branches, P, L, C)."""

    tokens: Tensor
    results: Tensor


@contextmanager
def _processors(unet: nn.Module, make: Any) -> Iterator[None]:
    """Give every self-attention of a transformer block another processor while open."""
    layers: list[Any] = [block.attn1 for block in unet.modules() if hasattr(block, "attn1") and hasattr(block, "attn2")]
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.set_processor, layer.processor)
            layer.set_processor(make(layer))
        yield


class _Storing:
    """Runs the processor that was there, and keeps what it saw and gave."""

    def __init__(self, layer: Any, frames: int, layers: dict[Any, _Pivots]) -> None:
        self._plain, self._layer, self._frames, self._layers = layer.processor, layer, frames, layers

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        results: Tensor = self._plain(attn, hidden_states, *args, **kwargs)
        tokens = unit(hidden_states[: self._frames])
        self._layers[self._layer] = _Pivots(tokens=tokens, results=results.unflatten(0, (-1, self._frames)))
        return results


class _Propagating:
    """Gives each token what its likenesses in the pivots got."""

    def __init__(self, known: _Pivots | None, segment: Segment) -> None:
        self._known, self._segment = known, segment

    def __call__(self, attn: Any, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        if self._known is None:
            raise RuntimeError("there are no pivots to take features from: call the U-Net once within `stored()`")
        frames = len(self._segment.frames)
        tokens = unit(hidden_states[:frames])
        found = [self._taken(tokens, place) for place in self._segment.pivots]
        weights = found[0].new_tensor(self._segment.weights)[:, None, None]
        mixed = found[0] if len(found) == 1 else found[0].lerp(found[1], weights)
        return mixed.flatten(0, 1)

    def _taken(self, tokens: Tensor, place: int) -> Tensor:
        """Give the results of one pivot at the tokens' nearest neighbours, (branches, F, L, C)."""
        assert self._known is not None
        index = nearest(tokens, self._known.tokens[place])
        return self._known.results[:, place][:, index]


def nearest(tokens: Tensor, others: Tensor) -> Tensor:
    """Give for each token (F, L, C) the place of the most similar of others (K, C), both of unit length: (F, L) int64.

    Similarity is the cosine. The first of equals is taken; memory is TILE * K.
    """
    rows = tokens.flatten(0, 1)
    found = [(tile @ others.T).argmax(dim=1) for tile in rows.split(TILE)]
    return torch.cat(found).view(tokens.shape[:2])


def unit(tokens: Tensor) -> Tensor:
    """Give tokens (..., C) with unit length, float32: half precision would make equals of likenesses near 1."""
    return F.normalize(tokens.float(), dim=-1)
