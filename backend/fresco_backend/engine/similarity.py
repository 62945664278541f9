# SPDX-License-Identifier: Apache-2.0
"""Two self-similarities compared, and rows summed by the signs of their difference: the work of the spatial loss.

Both matrices are symmetric, and only the upper half is looked at, band by band. What is summed are signs, which are
exact in eight bits; rows of unit length are nearly so, and a similarity is a sum of hundreds of their products. A CPU
with VNNI multiplies eight bits twice as fast as bfloat16, and sums them exactly, in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

FEWEST = 512
"""Rows from which eight bits are worth their rounding."""

_LARGEST = 127


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

    dtype: the one in which products may be taken; eight bits stand in for bfloat16 alone.
    """
    quick = dtype is torch.bfloat16 and rows.device.type == "cpu" and rows.shape[1] >= FEWEST
    return (_Bytes if quick and _multiplies_bytes() else _Floats)(rows, length, dtype, bands)


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

    def __init__(self, rows: Tensor, length: Tensor, dtype: torch.dtype, bands: Sequence[slice]) -> None:
        largest = torch.cat([rows[:, band].abs().amax(dim=2, keepdim=True) for band in bands], dim=1).clamp_min(1e-12)
        self._alike, self._summed = torch.empty_like(rows, dtype=torch.int8), torch.empty_like(rows, dtype=torch.int8)
        self._step = largest / length / _LARGEST
        self._channel = rows.new_full((len(rows), 1, rows.shape[2]), 1e-12)
        for band in bands:
            self._alike[:, band] = (rows[:, band] * (_LARGEST / largest[:, band])).round_()
            unit = rows[:, band] / length[:, band]
            torch.maximum(self._channel, unit.abs_().amax(dim=1, keepdim=True), out=self._channel)
        self._channel /= _LARGEST
        for band in bands:
            self._summed[:, band] = (rows[:, band] / length[:, band]).div_(self._channel).round_()
        self._sums = torch.zeros_like(rows, dtype=torch.int32)

    def compare(self, wanted: Tensor, across: slice, *, measured: bool) -> Tensor:
        """See `Comparison.compare`."""
        total = torch.zeros(())
        for frame, step in enumerate(self._step):
            alike, summed, sums = self._alike[frame], self._summed[frame], self._sums[frame]
            product = torch._int_mm(alike[across], alike[across.start :].T)
            difference = product * step[across.start :].T
            difference.addcmul_(wanted[frame], step[across].reciprocal(), value=-1)  # in units of this row
            if measured:
                total += _magnitude(difference * step[across])
            signs = difference.sign_().to(torch.int8)
            sums[across] += torch._int_mm(signs, summed[across.start :])
            beyond = signs[:, len(signs) :]
            if beyond.shape[1]:
                sums[across.start + len(signs) :] += torch._int_mm(beyond.T, summed[across])
        return total

    def sums(self, band: slice) -> Tensor:
        """See `Comparison.sums`."""
        return self._sums[:, band] * self._channel


def _magnitude(difference: Tensor) -> Tensor:
    """Sum of absolute values of a band and of what it mirrors, by rows first: one float32 sum over millions of entries
    loses the third digit.
    """
    rows = difference.abs()
    upper = rows.sum(dim=-1, dtype=torch.float32).sum()
    return 2 * upper - rows[..., : rows.shape[-2]].sum(dim=-1, dtype=torch.float32).sum()


def _multiplies_bytes() -> bool:
    """Whether this CPU has instructions for it; without them torch falls back to a loop."""
    known = getattr(torch.cpu, "_is_vnni_supported", None)
    return known is not None and bool(known()) and hasattr(torch, "_int_mm")
