# SPDX-License-Identifier: Apache-2.0
"""Sums of rows by the signs of a symmetric matrix, whose upper half comes band by band: two thirds of the optimisation.

Signs are exact in eight bits, and rows of unit length nearly so. A CPU with VNNI multiplies eight bits twice as fast as
bfloat16, and sums them exactly, in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

FEWEST = 512
"""Rows from which eight bits are worth their rounding."""

_LARGEST = 127


class SignedSums(Protocol):
    """S X of unit rows X, (B, L, C), and a symmetric matrix S of signs, (B, L, L)."""

    def add(self, signs: Tensor, across: slice) -> None:
        """Take in the rows `across` of S from its diagonal on, (B, R, L - start); before it they are mirrored."""

    def sums(self, band: slice) -> Tensor:
        """Give the rows of a band of what was summed, float32 (B, R, C); they may be changed."""


def signed_sums(unit: Tensor, bands: Sequence[slice]) -> SignedSums:
    """Give the sums for unit rows, by the fastest way of their device and dtype: float32 is summed as it is."""
    quick = unit.dtype is not torch.float32 and unit.device.type == "cpu" and unit.shape[1] >= FEWEST
    return _Bytes(unit, bands) if quick and _multiplies_bytes() else _Floats(unit)


class _Floats:
    """By products in the rows' own dtype."""

    def __init__(self, unit: Tensor) -> None:
        self._unit = unit
        self._sums = torch.zeros(unit.shape, device=unit.device)

    def add(self, signs: Tensor, across: slice) -> None:
        self._sums[:, across] += torch.bmm(signs, self._unit[:, across.start :])
        beyond = signs[:, :, signs.shape[1] :]
        self._sums[:, across.start + signs.shape[1] :] += torch.bmm(beyond.mT, self._unit[:, across])

    def sums(self, band: slice) -> Tensor:
        return self._sums[:, band]


class _Bytes:
    """By products of eight bits; each channel has its own unit, so that none is lost beside a large one."""

    def __init__(self, unit: Tensor, bands: Sequence[slice]) -> None:
        largest = torch.stack([unit[:, band].abs().amax(dim=1, keepdim=True) for band in bands]).amax(0)
        self._unit = largest.float().clamp_min(1e-12) / _LARGEST
        self._rows = torch.empty(unit.shape, dtype=torch.int8)
        for band in bands:
            self._rows[:, band] = (unit[:, band] / self._unit).round_()
        self._sums = torch.zeros(unit.shape, dtype=torch.int32)

    def add(self, signs: Tensor, across: slice) -> None:
        for sums, rows, sign in zip(self._sums, self._rows, signs.to(torch.int8), strict=True):
            sums[across] += torch._int_mm(sign, rows[across.start :])
            beyond = sign[:, len(sign) :]
            if beyond.shape[1]:
                sums[across.start + len(sign) :] += torch._int_mm(beyond.T, rows[across])

    def sums(self, band: slice) -> Tensor:
        return self._sums[:, band] * self._unit


def _multiplies_bytes() -> bool:
    """Whether this CPU has instructions for it; without them torch falls back to a loop."""
    known = getattr(torch.cpu, "_is_vnni_supported", None)
    return known is not None and bool(known()) and hasattr(torch, "_int_mm")
