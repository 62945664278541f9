# SPDX-License-Identifier: Apache-2.0
"""FRESCO's two consistency losses on features, with their gradients in closed form (FRESCO, section 4.3).

Automatic differentiation would keep several self-similarity matrices of (h * w)^2 entries a frame, and compute anew in
each iteration what is constant in a window. Features are rows here: (B, L, C), B = branches * N with the branches
outermost, L = h * w. Both losses are L1: their gradients are made of signs, and sign(0) = 0 moves nothing.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco_backend.engine.flow import Flow

TILE = 512
"""Side of the tiles in which self-similarity is looked at: small enough for the cache, large enough for full speed."""

KEPT_BYTES = 2**28
"""What the target's self-similarity may take while one layer is optimised; a quarter of the products is saved."""


class Loss(Protocol):
    """A loss on features as rows."""

    def add_gradient(self, rows: Tensor, gradient: Tensor, *, measured: bool = True) -> Tensor:
        """The loss of rows (B, L, C) float32, as a tensor without dimensions; adds its gradient to `gradient`.

        measured: False gives 0 in place of the loss, which is the dearer half where there are few channels.
        """


class TemporalLoss:
    """Difference along the flow, where it is valid: FRESCO's temporal consistency loss.

    weight * mean(|X_k+1 - warp(X_k, backward)| + |X_k - warp(X_k+1, forward)|) over N cyclic pairs, 0 where not
    valid. flow: at the features' size. weight: 2 in the reference.

    Masked differences are one sparse matrix, five entries a row (a pixel and four bilinear taps), applied with its
    transpose as weighted sums of rows.
    """

    def __init__(self, flow: Flow, weight: float) -> None:
        self._weight = weight
        self._frames = flow.frames
        here = torch.arange(flow.frames * flow.size[0] * flow.size[1], device=flow.forward.device)
        here = here.view(flow.frames, -1)
        following = here.roll(-1, dims=0)
        forward = _differences(here, following, flow.forward, flow.forward_occlusion)
        backward = _differences(following, here, flow.backward, flow.backward_occlusion)
        self._taps, self._weights = (torch.cat(parts) for parts in zip(forward, backward, strict=True))
        order = self._taps.flatten().argsort(stable=True)
        counts = self._taps.flatten().bincount(minlength=here.numel())
        self._adjoint_taps = order // self._taps.shape[1]
        self._adjoint_weights = self._weights.flatten()[order]
        self._adjoint_starts = counts.cumsum(0) - counts

    def add_gradient(self, rows: Tensor, gradient: Tensor, *, measured: bool = True) -> Tensor:
        """See `Loss.add_gradient`."""
        scale = self._weight / rows.numel()
        total = rows.new_zeros(())
        branches = zip(rows.view(-1, *self._window(rows)), gradient.view(-1, *self._window(rows)), strict=True)
        for window, slope in branches:
            difference = F.embedding_bag(self._taps, window, mode="sum", per_sample_weights=self._weights)
            if measured:
                total += _magnitude(difference)
            slope.add_(self._adjoint(difference.sign_()), alpha=scale)
        return total * scale

    def _window(self, rows: Tensor) -> tuple[int, int]:
        return self._frames * rows.shape[1], rows.shape[2]

    def _adjoint(self, signs: Tensor) -> Tensor:
        starts, weights = self._adjoint_starts, self._adjoint_weights
        return F.embedding_bag(self._adjoint_taps, signs, starts, mode="sum", per_sample_weights=weights)


class SpatialLoss:
    """Difference of self-similarity: FRESCO's spatial consistency loss, as L1 like the reference.

    weight * mean |X X^T - T T^T| over the (L, L) products of rows of unit length, for each of B frames.
    target: (B, L, C), rows of unit length (`unit_rows`); its dtype is the one in which products are taken, always
    summed in float32. weight: 100 in the reference.

    The matrices are symmetric and looked at by tiles of their upper half. Ours are taken from the target's within one
    product, so that a half-precision result still has the right sign. The target's tiles are kept between calls where
    they fit into `KEPT_BYTES`, and computed anew where not: memory is O(B * L * C) beyond that.
    """

    def __init__(self, target: Tensor, weight: float) -> None:
        self._weight = weight
        self._target = target
        self._bands = [slice(start, start + TILE) for start in range(0, target.shape[1], TILE)]
        self._keeps = target.numel() // target.shape[2] * target.shape[1] // 2 * target.itemsize <= KEPT_BYTES
        self._kept: dict[tuple[int, int, int], Tensor] = {}

    def add_gradient(self, rows: Tensor, gradient: Tensor, *, measured: bool = True) -> Tensor:
        """See `Loss.add_gradient`."""
        scale = self._weight / (rows.shape[0] * rows.shape[1] ** 2)
        total = rows.new_zeros(())
        for frames in self._together(rows):
            length = _lengths(rows[frames])
            unit = rows[frames] / length
            slope = torch.zeros_like(unit)
            total += self._similarity(frames, unit.to(self._target.dtype), slope, measured=measured)
            slope -= unit * (unit * slope).sum(dim=2, keepdim=True)  # the length of a row does not matter
            gradient[frames].addcdiv_(slope, length, value=2 * scale)
        return total * scale

    def _together(self, rows: Tensor) -> list[slice]:
        """Frames that share one product: all where launches cost more than memory, else what fits the cache."""
        tile = min(TILE, rows.shape[1])
        count = max(1, TILE**2 // tile**2) if rows.device.type == "cpu" else rows.shape[0]
        return [slice(start, start + count) for start in range(0, rows.shape[0], count)]

    def _similarity(self, frames: slice, unit: Tensor, slope: Tensor, *, measured: bool) -> Tensor:
        """Sum of absolute differences; adds half its gradient by the unit rows to `slope`."""
        total = slope.new_zeros(())
        for number, across in enumerate(self._bands):
            for place, down in enumerate(self._bands[number:], number):
                wanted = self._wanted(frames, number, place)
                difference = torch.baddbmm(wanted, unit[:, across], unit[:, down].mT, beta=-1)
                if measured:
                    total += _magnitude(difference) * (1 if down == across else 2)
                signs = difference.sign_()
                slope[:, across] += torch.bmm(signs, unit[:, down])
                if down != across:
                    slope[:, down] += torch.bmm(signs.mT, unit[:, across])
        return total

    def _wanted(self, frames: slice, number: int, place: int) -> Tensor:
        """The target's self-similarity between two bands of its rows."""
        key = frames.start, number, place
        if key in self._kept:
            return self._kept[key]
        target = self._target[frames]
        tile = torch.bmm(target[:, self._bands[number]], target[:, self._bands[place]].mT)
        if self._keeps:
            self._kept[key] = tile
        return tile


def unit_rows(features: Tensor) -> Tensor:
    """Features as rows of unit length, the target of `SpatialLoss`.

    features: (B, C, h, w). Gives (B, h * w, C) in their dtype; a row of zeros stays so.
    """
    rows = features.flatten(2).mT.float()
    return rows.div(_lengths(rows)).to(features.dtype).contiguous()


def _lengths(rows: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(rows, dim=2, keepdim=True)
    return length.clamp_min(1e-12)


def _magnitude(difference: Tensor) -> Tensor:
    """Sum of absolute values, by rows first: one float32 sum over millions of entries loses the third digit."""
    return difference.abs().sum(dim=-1, dtype=torch.float32).sum()


def _differences(here: Tensor, there: Tensor, flow: Tensor, occlusion: Tensor) -> tuple[Tensor, Tensor]:
    """Row numbers and weights, two (V, 5), of the V valid differences between a pixel and its warped match.

    here, there: (N, L), row numbers of the pixels of the frames that the flow lives on and points into.
    """
    taps, weights = _bilinear_taps(flow)
    taps = there.gather(1, taps.flatten(1)).view_as(taps)
    taps = torch.cat((here[:, :, None], taps), dim=2)
    weights = torch.cat((torch.ones_like(weights[:, :, :1]), -weights), dim=2)
    valid = occlusion.flatten(1) == 0
    return taps[valid], weights[valid]


def _bilinear_taps(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels in raster order and weights, two (N, L, 4), with which `warp` reads; weight 0 outside the frame."""
    height, width = flow.shape[2:]
    x = torch.arange(width, device=flow.device) + flow[:, 0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    left, top = x.floor(), y.floor()
    taps, weights = [], []
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        weights.append((1 - (x - column).abs()) * (1 - (y - row).abs()) * inside)
        taps.append(row.clamp(0, height - 1) * width + column.clamp(0, width - 1))
    return torch.stack(taps, dim=3).long().flatten(1, 2), torch.stack(weights, dim=3).flatten(1, 2)
