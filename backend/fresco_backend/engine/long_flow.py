# SPDX-License-Identifier: Apache-2.0
"""Flow between a keyframe and the frames around it, over many frames: estimated at once, and composed of short steps.

An estimate over many frames loses what moves far or turns; a composition of steps follows it, but drifts and breaks at
occlusions. At each pixel the one is taken under which the plate looks more alike. Compare Crivelli et al., "Robust
Optical Flow Integration", IEEE TIP 2015. Images are (3, H, W) in [-1, 1], display-referred sRGB; flow is in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco_backend.engine.flow import warp

Plate = Callable[[int], Tensor]
"""Gives the plate's frame of a number, (3, H, W)."""

FlowPair = tuple[Tensor, Tensor]
"""The flow from one frame into another, and back, each (2, H, W), pixels, on the frame it starts from."""

FlowBetween = Callable[[int, int], FlowPair]
"""Gives the flow from the first frame into the second and back."""

REACH = 12
"""Steps that are composed at most: a composition drifts, and the frames of a chain are kept until they are used."""

NEIGHBOURHOOD = 3
"""Half side in pixels of the square in which two flows are compared."""

_LIMIT = 0.5
"""Difference of the plate beyond which it is not worse, so that an occlusion does not outvote its surroundings."""

_OUTSIDE = 0.3
"""What it costs to point out of the frame, where the plate's border would always look alike."""


class LongFlow:
    """The flow between the keyframes of one interval and its frames, a `FlowBetween`; asked in order, it forgets.

    frames: all frames of the interval and its keyframes, ascending: the result does not depend on which are asked for.
    estimate: any flow between two frames, asked once for each pair when the frames are asked in ascending order.
    """

    def __init__(self, frames: Sequence[int], plate: Plate, estimate: FlowBetween) -> None:
        self._frames = sorted(frames)
        self._plate = plate
        self._estimate = estimate
        self._chains: dict[tuple[int, int], FlowPair] = {}  # by frame and keyframe
        self._steps: dict[tuple[int, int], FlowPair] = {}  # by neighbours, ascending

    def __call__(self, frame: int, key: int) -> FlowPair:
        """Flow from the frame into the keyframe and back, each (2, H, W), pixels."""
        path = self._path(key, frame)
        if len(path) > REACH + 1:
            return self._estimate(frame, key)
        known = max((number for number, place in enumerate(path) if (place, key) in self._chains), default=0)
        for nearer, place in pairwise(path[known:]):
            self._chains[place, key] = self._extended(place, nearer, key)
        found = self._chains[frame, key]
        self._forget(frame, key)
        return found

    def _forget(self, frame: int, key: int) -> None:
        """Drop what no frame after this one needs."""
        self._chains = {pair: flow for pair, flow in self._chains.items() if pair[1] != key or pair[0] >= frame}
        self._steps = {pair: flow for pair, flow in self._steps.items() if pair[1] >= frame}

    def _path(self, key: int, frame: int) -> list[int]:
        """The frames from the keyframe to the frame, both included."""
        first, last = sorted((self._frames.index(key), self._frames.index(frame)))
        between = self._frames[first : last + 1]
        return between if key < frame else between[::-1]

    def _extended(self, place: int, nearer: int, key: int) -> FlowPair:
        """The flow of one frame, when that of the frame one step nearer to the keyframe is known."""
        if nearer == key:
            return self._step(place, key)
        there, back = self._estimate(place, key)
        (step, step_back), (on, returning) = self._step(place, nearer), self._chains[nearer, key]
        here, far = self._plate(place), self._plate(key)
        return (better(here, far, there, compose(step, on)), better(far, here, back, compose(returning, step_back)))

    def _step(self, first: int, second: int) -> FlowPair:
        """The flow between two neighbours, which the chains from both keyframes need."""
        pair = min(first, second), max(first, second)
        if pair not in self._steps:
            self._steps[pair] = self._estimate(*pair)
        return self._steps[pair] if first < second else self._steps[pair][::-1]


def compose(first: Tensor, second: Tensor) -> Tensor:
    """The flow along `first` and then along `second`, which lives where `first` leads; each (2, H, W), pixels."""
    return first + warp(second[None], clamped(first)[None])[0]


@torch.no_grad()
def better(here: Tensor, there: Tensor, flow: Tensor, other: Tensor) -> Tensor:
    """At each pixel the flow, of two, under which `there` looks more like `here` around it; (2, H, W), pixels."""
    return torch.where(_unlikeness(here, there, flow) <= _unlikeness(here, there, other), flow, other)


def clamped(flow: Tensor) -> Tensor:
    """The flow (2, H, W) with targets moved to the nearest pixel of the frame, so that its border goes on outside."""
    height, width = flow.shape[1:]
    x = torch.arange(width).to(flow)
    y = torch.arange(height).to(flow)[:, None]
    return torch.stack([(x + flow[0]).clamp(0, width - 1) - x, (y + flow[1]).clamp(0, height - 1) - y])


def _unlikeness(here: Tensor, there: Tensor, flow: Tensor) -> Tensor:
    """Mean difference of colours and of their gradients around each pixel, (1, H, W)."""
    inside = clamped(flow)
    difference = here - warp(there[None], inside[None])[0]
    across = F.pad(difference.diff(dim=2), (0, 1)).abs().mean(0, keepdim=True).clamp(max=_LIMIT)
    down = F.pad(difference.diff(dim=1), (0, 0, 0, 1)).abs().mean(0, keepdim=True).clamp(max=_LIMIT)
    colour = difference.abs().mean(0, keepdim=True).clamp(max=_LIMIT)
    outside = (inside - flow).abs().amax(0, keepdim=True) > 0.5
    side = 2 * NEIGHBOURHOOD + 1
    return F.avg_pool2d(colour + across + down, side, 1, NEIGHBOURHOOD, count_include_pad=False) + _OUTSIDE * outside
