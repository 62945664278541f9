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

CHUNK = 128
"""Channels of a row that a warp updates at once: four a thread, which reads all types in one piece."""

NEIGHBOURS = 4
"""Rows that one program compares along the flow, one after the other: they read the same ones, while these are near."""

ENTRIES = 8
"""Of a row's differences, how many are fetched at once: as many as there are where two frames' flows are smooth."""


def tiles_of(length: int) -> int:
    """How many tiles lie side by side in a self-similarity of `length` rows."""
    return int(triton.cdiv(length, BLOCK))


def warp_signs(rows: Tensor, taps: Tensor, weights: Tensor, valid: Tensor, signs: Tensor) -> None:
    """Write the signs of the differences along the flow, 0 where not valid.

    rows: (R, C). taps, weights: (2, R, 4), the pixels with which each one is compared in the frame after and before.
    valid: (2, R) uint8. signs: (2, R, C) int8.
    """
    count, channels = rows.shape
    _warp_signs[(triton.cdiv(count, NEIGHBOURS),)](
        rows, taps, weights, valid, signs, count, channels,
        NEIGHBOURS=NEIGHBOURS, BLOCK_C=_power(channels), num_warps=_warps(channels),
    )  # fmt: skip


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
    `similarity` kept of the other (F, T, BLOCK, BLOCK), or with kept False its own rows (F, L, C). signs: (F, R, S) in
    halves, whole tiles from row and column `origin` on, of which those beyond the last row mean nothing. Tiles are on
    the diagonal or right of it; what lies left of it in these rows is their mirror.
    """
    frames, length, channels = unit.shape
    height, width = signs.shape[1:]
    _similarity_signs[(len(tiles), frames)](
        unit, other, tiles, signs, len(tiles), length, channels, origin, height, width,
        KEPT=kept, BLOCK=BLOCK, DEPTH=DEPTH, EVEN=channels % DEPTH == 0, num_warps=8, num_stages=3,
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
        SPATIAL=sums is not None, TEMPORAL=temporal is not None, CHUNKS=triton.cdiv(channels, CHUNK), CHUNK=CHUNK,
        ENTRIES=ENTRIES, num_warps=1,
    )  # fmt: skip


def _power(channels: int) -> int:
    return int(triton.next_power_of_2(channels))


def _warps(channels: int) -> int:
    """So many that each of their threads has four channels, from 128 to 2048 of them, and reads these in one piece."""
    return min(16, max(1, _power(channels) // 128))


@triton.jit
def _warp_signs(rows, taps, weights, valid, signs, count, channels, NEIGHBOURS: tl.constexpr,
                BLOCK_C: tl.constexpr):  # fmt: skip
    channel = tl.arange(0, BLOCK_C)
    inside = channel < channels
    first = tl.program_id(0).to(tl.int64) * NEIGHBOURS
    for row in range(first, tl.minimum(first + NEIGHBOURS, count)):
        own = tl.load(rows + row * channels + channel, mask=inside, other=0.0)
        for kind in tl.static_range(2):
            entry = kind * count.to(tl.int64) + row
            compared = tl.load(valid + entry).to(tl.int32) * channels  # how many of its channels: all, or none
            difference = own
            for corner in tl.static_range(4):
                tap = tl.load(taps + entry * 4 + corner).to(tl.int64)
                there = tl.load(rows + tap * channels + channel, mask=channel < compared, other=0.0)
                difference -= tl.load(weights + entry * 4 + corner) * there
            sign = (difference > 0).to(tl.int8) - (difference < 0).to(tl.int8)
            tl.store(signs + entry * channels + channel, tl.where(channel < compared, sign, 0), mask=inside)


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
                      KEPT: tl.constexpr, BLOCK: tl.constexpr, DEPTH: tl.constexpr, EVEN: tl.constexpr):  # fmt: skip
    tile, frame = tl.program_id(0), tl.program_id(1)
    i, j = tl.load(tiles + 2 * tile).to(tl.int64), tl.load(tiles + 2 * tile + 1).to(tl.int64)
    within = tl.arange(0, BLOCK)
    if KEPT:
        place = other + (frame.to(tl.int64) * count + tile) * BLOCK * BLOCK
        difference = -tl.load(place + within[:, None] * BLOCK + within[None, :]).to(tl.float32)
    else:
        zeros = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
        difference = -_product(other, frame, i, j, zeros, length, channels, BLOCK, DEPTH, EVEN)
    difference = _product(unit, frame, i, j, difference, length, channels, BLOCK, DEPTH, EVEN)
    sign = (difference > 0).to(signs.dtype.element_ty) - (difference < 0).to(signs.dtype.element_ty)
    row, column = i * BLOCK - origin, j * BLOCK - origin
    whole = signs + frame.to(tl.int64) * height * width
    at = within[:, None] * width + within[None, :]
    tl.store(whole + row * width + column + at, sign)
    if (i != j) & (column < height):
        tl.store(whole + column * width + row + at, tl.trans(sign))


@triton.jit
def _update(rows, first_moment, second_moment, unit, sums, signs, starts, entries, shares, count, channels, first,
            spatial, temporal, step_size, correction,
            SPATIAL: tl.constexpr, TEMPORAL: tl.constexpr, CHUNKS: tl.constexpr, CHUNK: tl.constexpr,
            ENTRIES: tl.constexpr):  # fmt: skip
    """A warp does a row, some channels at a time: no threads wait for each other, and many rows are on their way."""
    index = tl.program_id(0).to(tl.int64)
    row, within = first + index, tl.arange(0, CHUNK)
    along, across = 0.0, 0.0  # the spatial gradient: how much of the sum, and how much of the row
    if SPATIAL:
        square, product = tl.zeros((CHUNK,), tl.float32), tl.zeros((CHUNK,), tl.float32)
        for chunk in tl.static_range(CHUNKS):
            channel = chunk * CHUNK + within
            inside = channel < channels
            value = tl.load(rows + row * channels + channel, mask=inside, other=0.0)
            square += value * value
            product += value * tl.load(sums + index * channels + channel, mask=inside, other=0.0).to(tl.float32)
        length = tl.maximum(tl.sqrt(tl.sum(square)), 1e-12)
        along = spatial / length
        across = along * (tl.sum(product) / length / length)
    begin, end = 0, 0
    if TEMPORAL:
        begin, end = tl.load(starts + row), tl.load(starts + row + 1)
    changed = tl.zeros((CHUNK,), tl.float32)
    for chunk in range(CHUNKS):
        channel = chunk * CHUNK + within
        inside = channel < channels
        at = row * channels + channel
        value = tl.load(rows + at, mask=inside, other=0.0)
        mean = tl.load(first_moment + at, mask=inside, other=0.0)
        variance = tl.load(second_moment + at, mask=inside, other=0.0)
        gradient = tl.zeros_like(value)
        if SPATIAL:
            sum_ = tl.load(sums + index * channels + channel, mask=inside, other=0.0).to(tl.float32)
            gradient += along * sum_ - across * value
        if TEMPORAL:
            total = tl.load(signs + at, mask=inside, other=0).to(tl.float32)
            total += tl.load(signs + count.to(tl.int64) * channels + at, mask=inside, other=0).to(tl.float32)
            for some in range(begin, end, ENTRIES):
                for number in tl.static_range(ENTRIES):
                    there = some + number < end
                    entry = tl.load(entries + some + number, mask=there, other=0).to(tl.int64)
                    share = tl.load(shares + some + number, mask=there, other=0.0)
                    used = channel < tl.where(there, channels, 0)
                    sign = tl.load(signs + entry * channels + channel, mask=used, other=0)
                    total -= share * sign.to(tl.float32)
            gradient += temporal * total
        mean += (gradient - mean) * 0.1
        variance = variance * 0.999 + gradient * gradient * 0.001
        value -= step_size * mean / (tl.sqrt(variance) / correction + 1e-8)
        tl.store(rows + at, value, mask=inside)
        tl.store(first_moment + at, mean, mask=inside)
        tl.store(second_moment + at, variance, mask=inside)
        changed += value * value
    if SPATIAL:
        length = tl.maximum(tl.sqrt(tl.sum(changed)), 1e-12)
        for chunk in tl.static_range(CHUNKS):
            channel = chunk * CHUNK + within
            inside = channel < channels
            at = row * channels + channel
            value = tl.load(rows + at, mask=inside, other=0.0)
            tl.store(unit + at, (value / length).to(unit.dtype.element_ty), mask=inside)
