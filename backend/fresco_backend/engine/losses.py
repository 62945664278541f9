# SPDX-License-Identifier: Apache-2.0
"""FRESCO's two consistency losses on features, with their gradients in closed form (FRESCO, section 4.3).

Automatic differentiation would keep several self-similarity matrices of (h * w)^2 entries a frame, and compute anew in
each iteration what is constant in a window. Features are rows here: (B, L, C), B = branches * N with the branches
outermost, L = h * w. Both losses are L1: their gradients are made of signs, and sign(0) = 0 moves nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco_backend.engine.flow import Flow
from fresco_backend.engine.similarity import comparison

TILE = 256
"""Rows of self-similarity that are looked at together on a CPU: few enough for the cache, enough for full speed."""

DEVICE_TILE = 1024
"""The same on other devices, where a launch costs more than memory: a step took 376 ms for 565 on an H200."""

KEPT_PER_POSITION = (96 * 96 + TILE) // 2
"""Entries of the target's self-similarity that are kept for each position of a frame while one layer is optimised; a
quarter of the products is saved. All up to 96 x 96 positions, those of 768x768 pixels, where a U-Net takes more memory
elsewhere. Larger pictures have the rest computed anew, so that memory grows with their pixels.
"""

KEPT_BYTES = 2**28
"""What they may take at most, however many frames there are."""


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

    Masked differences are a sparse matrix, five entries a row (a pixel and four bilinear taps), applied with its
    transpose as weighted sums of rows: pair by pair where the cache counts, at once where launches do.
    """

    def __init__(self, flow: Flow, weight: float) -> None:
        self._weight = weight
        self._frames = flow.frames
        pairs = list(range(flow.frames))
        together = [[pair] for pair in pairs] if flow.forward.device.type == "cpu" else [pairs]
        parts = [_Differences.of(flow, pairs) for pairs in together]
        self._parts = [part for part in parts if len(part.taps)]

    def add_gradient(self, rows: Tensor, gradient: Tensor, *, measured: bool = True) -> Tensor:
        """See `Loss.add_gradient`."""
        scale = self._weight / rows.numel()
        total = rows.new_zeros(())
        for window, slope in zip(rows.split(self._frames), gradient.split(self._frames), strict=True):
            for part in self._parts:
                difference = part.of_rows(window)
                if measured:
                    total += _magnitude(difference)
                part.add_transposed(difference.sign_(), slope, scale)
        return total * scale


@dataclass(frozen=True, kw_only=True)
class _Differences:
    """V valid differences within some frames of a window: rows of a sparse matrix, and its transpose.

    frames: which ones. taps, weights: (V, 5), row numbers in the window, frame after frame. columns, starts, shares:
    the transpose, of each row of these frames the differences that it is in.
    """

    frames: list[int]
    taps: Tensor
    weights: Tensor
    columns: Tensor
    starts: Tensor
    shares: Tensor

    @classmethod
    def of(cls, flow: Flow, pairs: list[int]) -> _Differences:
        """Give the differences of some pairs, there and back."""
        ends = [(pair + 1) % flow.frames for pair in pairs]
        frames = sorted({*pairs, *ends})
        length = flow.size[0] * flow.size[1]
        cells = torch.arange(flow.frames * length, device=flow.forward.device).view(flow.frames, length)
        here, following = cells[pairs], cells[ends]
        forward = _valid_taps(here, following, flow.forward[pairs], flow.forward_occlusion[pairs])
        backward = _valid_taps(following, here, flow.backward[pairs], flow.backward_occlusion[pairs])
        taps, weights = (torch.cat(parts) for parts in zip(forward, backward, strict=True))
        order = taps.flatten().argsort(stable=True)
        counts = taps.flatten().bincount(minlength=cells.numel())
        starts = (counts.cumsum(0) - counts).view_as(cells)[frames].flatten()  # rows of other frames are in none
        return cls(
            frames=frames, taps=taps, weights=weights,
            columns=order // taps.shape[1], starts=starts, shares=weights.flatten()[order],
        )  # fmt: skip

    def of_rows(self, window: Tensor) -> Tensor:
        """Give the differences (V, C) of rows (N, L, C)."""
        return F.embedding_bag(self.taps, window.flatten(0, 1), mode="sum", per_sample_weights=self.weights)

    def add_transposed(self, signs: Tensor, slope: Tensor, scale: float) -> None:
        """Add the transposed matrix times signs (V, C) times scale to `slope` (N, L, C)."""
        shares = self.shares * scale
        sums = F.embedding_bag(self.columns, signs, self.starts, mode="sum", per_sample_weights=shares)
        for frame, added in zip(self.frames, sums.view(-1, *slope.shape[1:]), strict=True):
            slope[frame] += added


class SpatialLoss:
    """Difference of self-similarity: FRESCO's spatial consistency loss, as L1 like the reference.

    weight * mean |X X^T - T T^T| over the (L, L) products of rows of unit length, for each of B frames.
    target: (B, L, C), rows of unit length (`unit_rows`); its dtype is the one in which products may be taken, always
    summed in 32 bits. weight: 100 in the reference.

    The matrices are symmetric, and the upper half is looked at by bands of `TILE` or `DEVICE_TILE` rows. The target's
    are kept between calls as far as `KEPT_PER_POSITION` and `KEPT_BYTES` go, and computed anew beyond: memory is
    O(B * L * (TILE + C)).
    """

    def __init__(self, target: Tensor, weight: float) -> None:
        self._weight = weight
        self._target = target
        self._tile = TILE if target.device.type == "cpu" else DEVICE_TILE
        self._bands = [slice(start, start + self._tile) for start in range(0, target.shape[1], self._tile)]
        self._kept = self._keep()

    def add_gradient(self, rows: Tensor, gradient: Tensor, *, measured: bool = True) -> Tensor:
        """See `Loss.add_gradient`."""
        scale = self._weight / (rows.shape[0] * rows.shape[1] ** 2)
        total = rows.new_zeros(())
        for frames in self._together(rows):
            ours, slope = rows[frames], gradient[frames]
            length = _lengths(ours)
            compared = comparison(ours, length, self._target.dtype, self._bands)
            for band in self._bands:
                total += compared.compare(self._wanted(frames, band), band, measured=measured)
            for band in self._bands:
                unit = ours[:, band] / length[:, band]
                _add_slope(slope[:, band], unit, length[:, band], compared.sums(band), 2 * scale)
        return total * scale

    def _together(self, rows: Tensor) -> list[slice]:
        """Frames that share one product: all where launches cost more than memory, else what fits the cache."""
        tile = min(self._tile, rows.shape[1])
        count = max(1, self._tile**2 // tile**2) if rows.device.type == "cpu" else rows.shape[0]
        return [slice(start, start + count) for start in range(0, rows.shape[0], count)]

    def _wanted(self, frames: slice, band: slice) -> Tensor:
        """The target's self-similarity between a band of its rows and all from there on."""
        kept = self._kept.get(band.start)
        return self._product(frames, band) if kept is None else kept[frames]

    def _product(self, frames: slice, band: slice) -> Tensor:
        target = self._target[frames]
        return torch.bmm(target[:, band], target[:, band.start :].mT)

    def _keep(self) -> dict[int, Tensor]:
        """What may be kept of the target's bands, by their first rows: one piece of memory, which goes back whole."""
        frames, length, _ = self._target.shape
        room = min(KEPT_BYTES // (frames * self._target.itemsize), length * KEPT_PER_POSITION)
        chosen: list[slice] = []
        shapes: list[tuple[int, int]] = []
        for band in self._bands:
            shape = (min(self._tile, length - band.start), length - band.start)
            if math.prod(shape) <= room:
                room -= math.prod(shape)
                chosen.append(band)
                shapes.append(shape)
        entries = [math.prod(shape) for shape in shapes]
        pieces = self._target.new_empty(frames, sum(entries)).split(entries, dim=1)
        return {
            band.start: piece.unflatten(1, shape).copy_(self._product(slice(None), band))
            for band, shape, piece in zip(chosen, shapes, pieces, strict=True)
        }


class SquaredSpatialLoss:
    """The same as a squared difference, the form of the paper's equation 5: weight * mean (X X^T - T T^T)^2.

    target: as of `SpatialLoss`. By products of channels, (X X^T - T T^T) X = X (X^T X) - T (T^T X), in float32, since
    both sides are nearly alike: time is O(B * L * C^2) and memory beside one frame O(C^2).
    """

    def __init__(self, target: Tensor, weight: float) -> None:
        self._weight = weight
        self._target = target

    def add_gradient(self, rows: Tensor, gradient: Tensor, *, measured: bool = True) -> Tensor:
        """See `Loss.add_gradient`."""
        scale = self._weight / (rows.shape[0] * rows.shape[1] ** 2)
        total = rows.new_zeros(())
        for ours, kept, slope in zip(rows, self._target, gradient, strict=True):
            length, target = _lengths(ours[None])[0], kept.float()
            unit = ours / length
            own, shared = unit.mT @ unit, target.mT @ unit
            if measured:
                total += own.square().sum() - 2 * shared.square().sum() + (target.mT @ target).square().sum()
            _add_slope(slope, unit, length, unit @ own - target @ shared, 4 * scale)
        return total * scale


def unit_rows(features: Tensor) -> Tensor:
    """Features as rows of unit length, the target of `SpatialLoss`.

    features: (B, C, h, w). Gives (B, h * w, C) in their dtype; a row of zeros stays so.
    """
    rows = features.flatten(2).mT.float()
    return rows.div(_lengths(rows)).to(features.dtype).contiguous()


def _add_slope(slope: Tensor, unit: Tensor, length: Tensor, sums: Tensor, value: float) -> None:
    """Add value * what a gradient by unit rows, `sums`, is by the rows themselves; their length does not matter."""
    sums -= unit * (unit * sums).sum(dim=-1, keepdim=True)
    slope.addcdiv_(sums, length, value=value)


def _lengths(rows: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(rows, dim=2, keepdim=True)
    return length.clamp_min(1e-12)


def _magnitude(difference: Tensor) -> Tensor:
    """Sum of absolute values, by rows first: one float32 sum over millions of entries loses the third digit."""
    return difference.abs().sum(dim=-1, dtype=torch.float32).sum()


def _valid_taps(here: Tensor, there: Tensor, flow: Tensor, occlusion: Tensor) -> tuple[Tensor, Tensor]:
    """Row numbers and weights, two (V, 5), of the V valid differences between a pixel and its warped match.

    here, there: (N, L), row numbers of the pixels of the frames that the flow lives on and points into.
    """
    taps, weights = bilinear_taps(flow)
    taps = there.gather(1, taps.flatten(1)).view_as(taps)
    taps = torch.cat((here[:, :, None], taps), dim=2)
    weights = torch.cat((torch.ones_like(weights[:, :, :1]), -weights), dim=2)
    valid = occlusion.flatten(1) == 0
    return taps[valid], weights[valid]


def bilinear_taps(flow: Tensor) -> tuple[Tensor, Tensor]:
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
