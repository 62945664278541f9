# SPDX-License-Identifier: Apache-2.0
"""The feature optimisation's inner loops as Triton kernels, for where a launch costs more than its arithmetic.

Rows are features (N * L, C), float32, frame after frame; S is a matrix of signs. Imported by `engine.fused` alone,
where Triton is installed, as PyTorch's builds for CUDA on Linux bring it.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 128
"""Side of a tile of self-similarity."""

DEPTH = 64
"""Channels that a product takes at once."""


def tiles_of(length: int) -> int:
    """How many tiles lie side by side in a self-similarity of `length` rows."""
    return int(triton.cdiv(length, BLOCK))


def warp_signs(rows: Tensor, taps: Tensor, weights: Tensor, valid: Tensor, signs: Tensor) -> None:
    """Write the signs of the differences along the flow, 0 where not valid.

    rows: (R, C). taps, weights: (2, R, 4), the pixels with which each one is compared in the frame after and before.
    valid: (2, R) uint8. signs: (2, R, C) int8.
    """
    count, channels = rows.shape
    _warp_signs[(count,)](
        rows, taps, weights, valid, signs, count, channels, BLOCK_C=_power(channels), num_warps=_warps(channels)
    )


def similarity(rows: Tensor, tiles: Tensor, kept: Tensor) -> None:
    """Write tiles of the self-similarity of rows (F, L, C) of halves.

    tiles: (T, 2) int32, rows and columns in units of BLOCK. kept: (F, T, BLOCK, BLOCK).
    """
    frames, length, channels = rows.shape
    _similarity[(len(tiles), frames)](
        rows, tiles, kept, len(tiles), length, channels, BLOCK=BLOCK, DEPTH=DEPTH, EVEN=channels % DEPTH == 0,
        num_warps=8, num_stages=3,
    )  # fmt: skip


def similarity_signs(unit: Tensor, other: Tensor, tiles: Tensor, signs: Tensor, origin: int, *, kept: bool) -> None:
    """Write signs of the difference of two self-similarities.

    unit: (F, L, C), rows of unit length in halves. tiles: (T, 2) int32, rows and columns in units of BLOCK. other: what
    `similarity` kept of the other (F, T, BLOCK, BLOCK), or with kept False its own rows (F, L, C). signs: (F, R, L - O)
    in halves, of which the first row and column is `origin`; R = L with origin 0 is mirrored below its diagonal.
    """
    frames, length, channels = unit.shape
    height, width = signs.shape[1:]
    _similarity_signs[(len(tiles), frames)](
        unit, other, tiles, signs, len(tiles), length, channels, origin, height, width,
        KEPT=kept, MIRRORED=height == length, BLOCK=BLOCK, DEPTH=DEPTH, EVEN=channels % DEPTH == 0,
        num_warps=8, num_stages=3,
    )  # fmt: skip


def update(
    rows: Tensor, moments: tuple[Tensor, Tensor], unit: Tensor | None, sums: Tensor | None, temporal: Any, first: int,
    count: int, *, weights: tuple[float, float], step_size: float, correction: float,
) -> None:  # fmt: skip
    """One step of Adam (0.9, 0.999, 1e-8) of rows first .. first + count, and their unit rows anew.

    rows, moments: (R, C). unit: (R, C) in halves. sums: (count, C), S times unit rows; None without the spatial loss.
    temporal: (signs, starts, entries, shares) of `warp_signs` and its transpose; None without that loss. weights: of
    the gradients by sums and by signs. step_size: learning rate over the first bias. correction: root of the second.
    """
    channels = rows.shape[1]
    signs, starts, entries, shares = temporal if temporal is not None else (rows,) * 4
    _update[(count,)](
        rows, *moments, unit if unit is not None else rows, sums if sums is not None else rows, signs, starts, entries,
        shares, rows.shape[0], channels, first, *weights, step_size, correction,
        SPATIAL=sums is not None, TEMPORAL=temporal is not None, BLOCK_C=_power(channels), num_warps=_warps(channels),
    )  # fmt: skip


def _power(channels: int) -> int:
    return int(triton.next_power_of_2(channels))


def _warps(channels: int) -> int:
    return 4 if channels <= 1024 else 8


@triton.jit
def _warp_signs(rows, taps, weights, valid, signs, count, channels, BLOCK_C: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK_C)
    inside = channel < channels
    own = tl.load(rows + row * channels + channel, mask=inside, other=0.0)
    for kind in tl.static_range(2):
        entry = kind * count.to(tl.int64) + row
        difference = tl.zeros_like(own)
        if tl.load(valid + entry) != 0:
            difference += own
            for corner in tl.static_range(4):
                tap = tl.load(taps + entry * 4 + corner).to(tl.int64)
                there = tl.load(rows + tap * channels + channel, mask=inside, other=0.0)
                difference -= tl.load(weights + entry * 4 + corner) * there
        sign = (difference > 0).to(tl.int8) - (difference < 0).to(tl.int8)
        tl.store(signs + entry * channels + channel, sign, mask=inside)


@triton.jit
def _product(rows, frame, i, j, accumulator, length, channels, BLOCK: tl.constexpr, DEPTH: tl.constexpr,
             EVEN: tl.constexpr):  # fmt: skip
    """Add (rows of tile i) (rows of tile j)^T; rows beyond the last repeat it."""
    across = tl.minimum(i * BLOCK + tl.arange(0, BLOCK), length - 1)
    down = tl.minimum(j * BLOCK + tl.arange(0, BLOCK), length - 1)
    depth = tl.arange(0, DEPTH)
    base = rows + frame.to(tl.int64) * length * channels
    left = base + across[:, None] * channels + depth[None, :]
    right = base + down[None, :] * channels + depth[:, None]
    for start in range(0, channels, DEPTH):
        if EVEN:
            first, second = tl.load(left + start), tl.load(right + start)
        else:
            within = depth < channels - start
            first = tl.load(left + start, mask=within[None, :], other=0.0)
            second = tl.load(right + start, mask=within[:, None], other=0.0)
        accumulator = tl.dot(first, second, accumulator)
    return accumulator


@triton.jit
def _similarity(rows, tiles, kept, count, length, channels, BLOCK: tl.constexpr, DEPTH: tl.constexpr,
                EVEN: tl.constexpr):  # fmt: skip
    tile, frame = tl.program_id(0), tl.program_id(1)
    i, j = tl.load(tiles + 2 * tile), tl.load(tiles + 2 * tile + 1)
    zeros = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    product = _product(rows, frame, i, j, zeros, length, channels, BLOCK, DEPTH, EVEN)
    place = kept + (frame.to(tl.int64) * count + tile) * BLOCK * BLOCK
    within = tl.arange(0, BLOCK)
    tl.store(place + within[:, None] * BLOCK + within[None, :], product.to(kept.dtype.element_ty))


@triton.jit
def _similarity_signs(unit, other, tiles, signs, count, length, channels, origin, height, width,
                      KEPT: tl.constexpr, MIRRORED: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr,
                      EVEN: tl.constexpr):  # fmt: skip
    tile, frame = tl.program_id(0), tl.program_id(1)
    i, j = tl.load(tiles + 2 * tile), tl.load(tiles + 2 * tile + 1)
    within = tl.arange(0, BLOCK)
    difference = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    if not KEPT:
        difference = -_product(other, frame, i, j, difference, length, channels, BLOCK, DEPTH, EVEN)
    difference = _product(unit, frame, i, j, difference, length, channels, BLOCK, DEPTH, EVEN)
    if KEPT:
        place = other + (frame.to(tl.int64) * count + tile) * BLOCK * BLOCK
        difference -= tl.load(place + within[:, None] * BLOCK + within[None, :]).to(tl.float32)
    sign = (difference > 0).to(signs.dtype.element_ty) - (difference < 0).to(signs.dtype.element_ty)
    across, down = i * BLOCK + within - origin, j * BLOCK + within - origin
    whole = signs + frame.to(tl.int64) * height * width
    allowed = (across[:, None] < height) & (down[None, :] < width)
    tl.store(whole + across[:, None] * width + down[None, :], sign, mask=allowed)
    if MIRRORED:  # noqa: SIM102, known when it is compiled, and the other is not
        if i != j:
            mirrored = whole + down[:, None] * width + across[None, :]
            tl.store(mirrored, tl.trans(sign), mask=(down[:, None] < height) & (across[None, :] < width))


@triton.jit
def _update(rows, first_moment, second_moment, unit, sums, signs, starts, entries, shares, count, channels, first,
            spatial, temporal, step_size, correction,
            SPATIAL: tl.constexpr, TEMPORAL: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    index = tl.program_id(0)
    row = (first + index).to(tl.int64)
    channel = tl.arange(0, BLOCK_C)
    inside = channel < channels
    at = row * channels + channel
    value = tl.load(rows + at, mask=inside, other=0.0)
    gradient = tl.zeros_like(value)
    if SPATIAL:
        length = tl.maximum(tl.sqrt(tl.sum(value * value)), 1e-12)
        direction = value / length
        sum_ = tl.load(sums + index.to(tl.int64) * channels + channel, mask=inside, other=0.0).to(tl.float32)
        gradient += (sum_ - direction * tl.sum(direction * sum_)) * (spatial / length)
    if TEMPORAL:
        other = (count.to(tl.int64) + row) * channels + channel
        total = tl.load(signs + at, mask=inside, other=0).to(tl.float32)
        total += tl.load(signs + other, mask=inside, other=0).to(tl.float32)
        for number in range(tl.load(starts + row), tl.load(starts + row + 1)):
            entry = tl.load(entries + number).to(tl.int64)
            sign = tl.load(signs + entry * channels + channel, mask=inside, other=0).to(tl.float32)
            total -= tl.load(shares + number) * sign
        gradient += temporal * total
    mean = tl.load(first_moment + at, mask=inside, other=0.0)
    square = tl.load(second_moment + at, mask=inside, other=0.0)
    mean += (gradient - mean) * 0.1
    square = square * 0.999 + gradient * gradient * 0.001
    value -= step_size * mean / (tl.sqrt(square) / correction + 1e-8)
    tl.store(rows + at, value, mask=inside)
    tl.store(first_moment + at, mean, mask=inside)
    tl.store(second_moment + at, square, mask=inside)
    if SPATIAL:
        length = tl.maximum(tl.sqrt(tl.sum(value * value)), 1e-12)
        tl.store(unit + at, (value / length).to(unit.dtype.element_ty), mask=inside)
