# SPDX-License-Identifier: Apache-2.0
"""What belongs together in the frames of one window: cross-frame keys and pixel paths along the flow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco_backend.engine.flow import ADVICE, Flow, reduction, resize_flow

Constant = TypeVar("Constant")


@dataclass(frozen=True, kw_only=True)
class Paths:
    """L paths through the N frames of a window: each path meets each frame in one cell, each cell lies on one path.

    index: (N, L) int64, the cell of path j in frame k, in raster order. inverse: (N, L) int64, the path of cell p in
    frame k. linked: (L, N, N) bool, whether motion joins two frames of path j without an occlusion between them.
    """

    index: Tensor
    inverse: Tensor
    linked: Tensor


def _once_per_size(
    method: Callable[[Correspondence, int, int], Constant],
) -> Callable[[Correspondence, int, int], Constant]:
    @wraps(method)
    def remembered(self: Correspondence, height: int, width: int) -> Constant:
        key = (method.__name__, height, width)
        if key not in self._constants:
            self._constants[key] = method(self, height, width)
        constant: Constant = self._constants[key]
        return constant

    return remembered


class Correspondence:
    """The constants of one window for features of any size, each computed once.

    frames: (N, 3, H, W), [-1, 1], display-referred sRGB, on the flow's device. flow: its N cyclic pairs.
    Every method that takes a size raises ValueError when it is not a whole fraction of H and W.
    """

    def __init__(self, *, frames: Tensor, flow: Flow) -> None:
        expected = (flow.frames, 3, *flow.size)
        if frames.shape != expected:
            raise ValueError(f"frames must be {expected} to fit their flow, found {tuple(frames.shape)}")
        self._frames = frames
        self._flow = flow
        self._constants: dict[tuple[str, int, int], Any] = {}

    @property
    def frames(self) -> int:
        """Number of frames N."""
        return self._flow.frames

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames in pixels."""
        return self._flow.size

    def cropped(self, top: int, left: int, height: int, width: int) -> Correspondence:
        """The correspondence within a part of the frames, in pixels; what leaves the part is occluded."""
        frames = self._frames[..., top : top + height, left : left + width]
        return Correspondence(frames=frames, flow=self._flow.cropped(top, left, height, width))

    def feature_size(self, tokens: int) -> tuple[int, int]:
        """Height and width of the features that an attention sees as so many tokens; ValueError if there are none."""
        height, width = self._flow.size
        factor = math.isqrt(height * width // max(tokens, 1))
        if factor < 1 or height % factor or width % factor or height * width != tokens * factor**2:
            raise ValueError(f"{tokens} tokens are not a whole reduction of {width}x{height} pixels; {ADVICE}")
        return height // factor, width // factor

    @_once_per_size
    def flow(self, height: int, width: int) -> Flow:
        """The window's flow and occlusion for features of height x width."""
        return self._flow.resized(height, width)

    @_once_per_size
    def key_mask(self, height: int, width: int) -> Tensor:
        """Tokens that give keys and values to all frames, (N, height * width) bool (FRESCO, section 4.2).

        All tokens of the first frame; of each later one those that the frame before it does not show.
        """
        hidden = self._hidden(height, width)
        return torch.cat((torch.ones_like(hidden[:1]), hidden[:-1])).flatten(1)

    @_once_per_size
    def keys(self, height: int, width: int) -> Tensor:
        """The true entries of `key_mask`, frame after frame: (K,) int64 in [0, N * height * width)."""
        return self.key_mask(height, width).flatten().nonzero().squeeze(1)

    @_once_per_size
    def paths(self, height: int, width: int) -> Paths:
        """Pixel paths for temporal-guided attention (FRESCO, section 4.2; after FLATTEN, arXiv 2310.05922)."""
        following, unlinked = self._links(height, width)
        index = [torch.arange(height * width, device=following.device)]
        for step in following:
            index.append(step[index[-1]])
        stacked = torch.stack(index)
        broken = torch.zeros_like(stacked, dtype=torch.bool)
        broken[1:] = unlinked.gather(1, stacked[:-1])
        stretch = broken.cumsum(0).T  # frames of one path in the same stretch are linked
        return Paths(index=stacked, inverse=stacked.argsort(1), linked=stretch[:, :, None] == stretch[:, None, :])

    def _hidden(self, height: int, width: int) -> Tensor:
        """Cells of frame k + 1 that frame k does not show: (N, height, width) bool."""
        reduction(self._flow.size, height, width)
        return _resize(self._flow.backward_occlusion[:, None], height, width)[:, 0] > 0.5

    def _links(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Partner in frame k + 1 of each cell of frame k, (N - 1, L) int64, and which have none, (N - 1, L) bool.

        Of all cells that point to one cell the most similar in colour wins, then the first. Cells without a partner
        share out the cells that are left, in order, so that each row is a permutation.
        """
        cells = height * width
        target = self._targets(height, width)
        colour = _resize(self._frames, height, width)
        before = colour[:-1].flatten(2).gather(2, target.clamp(max=cells - 1)[:, None].expand(-1, 3, -1))
        error = (colour[1:].flatten(2) - before).square().mean(1)
        order = error.argsort(dim=1, stable=True)
        order = order.gather(1, target.gather(1, order).argsort(dim=1, stable=True))  # by target, error, cell
        claimed = target.gather(1, order)
        wins = claimed < cells
        wins[:, 1:] &= claimed[:, 1:] != claimed[:, :-1]
        pair, rank = wins.nonzero(as_tuple=True)
        partner = torch.full_like(target, -1)
        partner[pair, claimed[pair, rank]] = order[pair, rank]
        free = torch.ones_like(wins)
        free[pair, order[pair, rank]] = False
        unlinked = partner < 0
        partner[unlinked] = free.nonzero()[:, 1]
        return partner, unlinked

    def _targets(self, height: int, width: int) -> Tensor:
        """Cell of frame k to which each cell of frame k + 1 points; height * width where there is none: (N - 1, L)."""
        flow = resize_flow(self._flow.backward[:-1], height, width)
        x = (torch.arange(width, device=flow.device) + flow[:, 0]).round().long()
        y = (torch.arange(height, device=flow.device)[:, None] + flow[:, 1]).round().long()
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & ~self._hidden(height, width)[:-1]
        return torch.where(inside, y * width + x, height * width).flatten(1)


def _resize(images: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
