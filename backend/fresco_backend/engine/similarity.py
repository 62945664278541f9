# SPDX-License-Identifier: Apache-2.0
"""Two self-similarities compared, and rows summed by the signs of their difference: the work of the spatial loss.

Both matrices are symmetric, and only the upper half is looked at, band by band. What is summed are signs, which are
exact in eight bits; rows of unit length are nearly so, and a similarity is a sum of hundreds of their products. A CPU
with VNNI multiplies eight bits twice as fast as bfloat16 and four times as fast as float32, and sums them exactly, in
any order: a float32 in three digits of eight bits is summed faster than by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

FEWEST = 512
"""Rows from which eight bits are worth their rounding."""

BLOCK = 1024
"""Rows of signs that are multiplied at once; bands have a height that divides it."""

_LARGEST = 127
_BASE = 2 * _LARGEST  # half a unit of a digit is the most of the next one


class Comparison(Protocol):
    """X X^T of unit rows X (B, L, C) against another such matrix, and S X for S, the signs of the difference."""

    def compare(self, wanted: Tensor, across: slice, *, measured: bool) -> Tensor:
        """Take in the rows `across` of the other matrix from its diagonal on, (B, R, L - start).

        Before the diagonal they are mirrored. Gives the sum of the absolute differences of these rows and of what they
        mirror, float32 without dimensions; 0 where it is not to be measured.
        """

    def sums(self, band: slice) -> Tensor:
        """Give the rows of a band of S X, float32 (B, R, C), once every band is compared; they may be changed."""


def comparison(rows: Tensor, length: Tensor, dtype: torch.dtype, bands: Sequence[slice]) -> Comparison:
    """Compare rows (B, L, C) float32, divided by their length (B, L, 1), by the fastest way of their device.

    dtype: the one in which products may be taken. Eight bits stand in for bfloat16, and for the sums of float32.
    """
    quick = rows.device.type == "cpu" and rows.shape[1] >= FEWEST and _multiplies_bytes()
    if quick and dtype is torch.bfloat16:
        return _Bytes(rows, length, bands)
    if quick and dtype is torch.float32:
        return _FloatsThenBytes(rows, length, bands)
    return _Floats(rows, length, dtype, bands)


class _Floats:
    """By products in a dtype of floats."""

    def __init__(self, rows: Tensor, length: Tensor, dtype: torch.dtype, bands: Sequence[slice]) -> None:
        self._unit = torch.empty_like(rows, dtype=dtype)
        for band in bands:
            torch.div(rows[:, band], length[:, band], out=self._unit[:, band])
        self._sums = torch.zeros_like(rows)

    def compare(self, wanted: Tensor, across: slice, *, measured: bool) -> Tensor:
        """See `Comparison.compare`. The difference is taken within the product: half precision keeps its sign."""
        onward = self._unit[:, across.start :]
        difference = torch.baddbmm(wanted, self._unit[:, across], onward.mT, beta=-1)
        total = _magnitude(difference) if measured else difference.new_zeros((), dtype=torch.float32)
        signs = difference.sign_()
        self._sums[:, across] += torch.bmm(signs, onward)
        beyond = signs[:, :, signs.shape[1] :]
        self._sums[:, across.start + signs.shape[1] :] += torch.bmm(beyond.mT, self._unit[:, across])
        return total

    def sums(self, band: slice) -> Tensor:
        """See `Comparison.sums`."""
        return self._sums[:, band]


class _Bytes:
    """By products of eight bits: of rows in units of each row for the similarity, where a row's largest entries matter
    most, and in units of each channel for the sums, so that none is lost beside a large one.
    """

    def __init__(self, rows: Tensor, length: Tensor, bands: Sequence[slice]) -> None:
        largest = torch.cat([rows[:, band].abs().amax(dim=2, keepdim=True) for band in bands], dim=1).clamp_min(1e-12)
        self._alike = torch.empty_like(rows, dtype=torch.int8)
        self._step = largest / length / _LARGEST
        for band in bands:
            self._alike[:, band] = (rows[:, band] * (_LARGEST / largest[:, band])).round_()
        self._sums = _ExactSums(lambda band: rows[:, band] / length[:, band], bands, digits=1)

    def compare(self, wanted: Tensor, across: slice, *, measured: bool) -> Tensor:
        """See `Comparison.compare`."""
        total = torch.zeros(())
        for frame, (alike, step) in enumerate(zip(self._alike, self._step, strict=True)):
            product = torch._int_mm(alike[across], alike[across.start :].T)
            difference = product * step[across.start :].T
            difference.addcmul_(wanted[frame], step[across].reciprocal(), value=-1)  # in units of this row
            if measured:
                total += _magnitude(difference * step[across])
            self._sums.add(frame, difference.sign_(), across.start)
        return total

    def sums(self, band: slice) -> Tensor:
        """See `Comparison.sums`."""
        return self._sums.of(band)


class _FloatsThenBytes:
    """By products of float32 for the similarity, and for the sums by three of eight bits, no less exact."""

    def __init__(self, rows: Tensor, length: Tensor, bands: Sequence[slice]) -> None:
        self._unit = rows / length
        self._sums = _ExactSums(lambda band: self._unit[:, band], bands, digits=3)

    def compare(self, wanted: Tensor, across: slice, *, measured: bool) -> Tensor:
        """See `Comparison.compare`."""
        total = torch.zeros(())
        for frame, unit in enumerate(self._unit):
            difference = _times(unit[across], unit[across.start :]).sub_(wanted[frame])
            if measured:
                total += _magnitude(difference)
            self._sums.add(frame, difference.sign_(), across.start)
        return total

    def sums(self, band: slice) -> Tensor:
        """See `Comparison.sums`."""
        return self._sums.of(band)


class _ExactSums:
    """Sums by signs of rows in whole numbers.

    An entry has so many digits, each of eight bits and worth `_BASE` times the next one, in units of its channel. Only
    the rounding to them is not exact: three are the 24 bits of a float32.
    """

    def __init__(self, unit: Callable[[slice], Tensor], bands: Sequence[slice], *, digits: int) -> None:
        """unit: gives the rows of a band, (B, R, C)."""
        self._count = digits
        largest = torch.stack([unit(band).abs().amax(dim=1) for band in bands]).amax(dim=0)
        self._channel = largest.clamp_min(1e-12)[:, None] / _LARGEST
        self._digits = torch.cat([self._of_band(unit(band)) for band in bands], dim=1)
        self._sums = torch.empty_like(self._digits, dtype=torch.int32)
        self._open: dict[int, _Block] = {}

    def _of_band(self, unit: Tensor) -> Tensor:
        rest, digits = unit / self._channel, []
        for _ in range(self._count):
            whole = rest.round()
            digits.append(whole.to(torch.int8))
            rest.sub_(whole).mul_(_BASE)
        return torch.cat(digits, dim=2)

    def add(self, frame: int, signs: Tensor, start: int) -> None:
        """Add what signs (R, L - start) of one frame say, a band from the diagonal on, and what they mirror."""
        digits, sums = self._digits[frame], self._sums[frame]
        block = self._open.pop(frame, None) or _Block(start, len(digits))
        if not block.take(signs, start):
            self._open[frame] = block
            return
        _sum_into(sums[block.rows], block.signs, digits[block.rows.start :], first=block.rows.start == 0)
        if len(block.beyond):
            _sum_into(sums[block.rows.stop :], block.beyond, digits[block.rows], first=block.rows.start == 0)

    def of(self, band: slice) -> Tensor:
        """Give a band of the sums, float32 (B, R, C)."""
        *more, last = self._sums[:, band].chunk(self._count, dim=2)
        total = last.float()
        for digit in reversed(more):
            total = total.div_(_BASE).add_(digit)
        return total.mul_(self._channel)


def _sum_into(sums: Tensor, signs: Tensor, digits: Tensor, *, first: bool) -> None:
    """Add to what is there; the first block of signs reaches every row, and there is nothing before it."""
    if first:
        torch._int_mm(signs, digits, out=sums)
    else:
        sums += torch._int_mm(signs, digits)


class _Block:
    """Signs of bands that follow each other, from the diagonal on: products of so many rows run at full speed.

    rows: which ones. signs: (R, L - start), eight bits.
    """

    def __init__(self, start: int, length: int) -> None:
        self.rows = slice(start, min(start + BLOCK, length))
        self.signs = torch.empty(self.rows.stop - start, length - start, dtype=torch.int8)

    @property
    def beyond(self) -> Tensor:
        """What the signs mirror below their rows, (L - stop, R)."""
        return self.signs[:, len(self.signs) :].T

    def take(self, signs: Tensor, start: int) -> bool:
        """Take in a band, (R, L - start), and say whether it was the last one."""
        first = start - self.rows.start
        end = first + len(signs)
        self.signs[first:end, first:] = signs
        self.signs[end:, first:end] = self.signs[first:end, end : len(self.signs)].T
        return end == len(self.signs)


def _magnitude(difference: Tensor) -> Tensor:
    """Sum of absolute values of a band and of what it mirrors, by rows first: one float32 sum over millions of entries
    loses the third digit.
    """
    rows = difference.abs()
    upper = rows.sum(dim=-1, dtype=torch.float32).sum()
    return 2 * upper - rows[..., : rows.shape[-2]].sum(dim=-1, dtype=torch.float32).sum()


def _times(left: Tensor, right: Tensor) -> Tensor:
    """Rows by rows, left right^T. On a CPU that is not Intel's oneDNN is a quarter faster at it than MKL."""
    own = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
    product: Tensor = left @ right.T if own is None else own(left, right, None, "none", [], "")
    return product


def _multiplies_bytes() -> bool:
    """Whether this CPU has instructions for it; without them torch falls back to a loop."""
    known = getattr(torch.cpu, "_is_vnni_supported", None)
    return known is not None and bool(known()) and hasattr(torch, "_int_mm")
