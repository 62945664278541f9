# SPDX-License-Identifier: Apache-2.0
"""Sums of rows by signs, against the whole product."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fresco_backend.engine import signed_sums as module
from fresco_backend.engine.losses import TILE, unit_rows
from fresco_backend.engine.signed_sums import signed_sums

LENGTH = TILE + 88  # one whole band and a part of one


def symmetric_signs(batch: int) -> Tensor:
    signs = torch.randn(batch, LENGTH, LENGTH, generator=torch.Generator().manual_seed(1)).sign()
    signs[:, 3, 7] = 0
    return signs.triu() + signs.triu(1).mT


def rows_of_unit_length(dtype: torch.dtype, batch: int = 2) -> Tensor:
    features = torch.randn(batch, 40, LENGTH, 1, generator=torch.Generator().manual_seed(2))
    features[:, 5] *= 30  # as the networks have them: one channel that is far larger than the others
    return unit_rows(features.to(dtype))


def summed(unit: Tensor, signs: Tensor) -> Tensor:
    bands = [slice(0, TILE), slice(TILE, LENGTH)]
    sums = signed_sums(unit, bands)
    for band in bands:
        sums.add(signs[:, band, band.start :].to(unit.dtype), band)
    return torch.cat([sums.sums(band) for band in bands], dim=1)


@pytest.mark.parametrize("bytes_first", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_half_that_is_given_stands_for_the_whole(
    dtype: torch.dtype, bytes_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_multiplies_bytes", lambda: bytes_first)
    signs, unit = symmetric_signs(2), rows_of_unit_length(dtype)
    expected, found = signs @ unit.float(), summed(unit, signs)
    assert found.dtype == torch.float32
    off = (found - expected).norm(dim=1) / expected.norm(dim=1)  # of each channel by itself, the large one too
    assert off.max() < (1e-5 if dtype is torch.float32 else 0.02)


def test_few_rows_are_not_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_multiplies_bytes", lambda: True)
    unit = unit_rows(torch.randn(1, 8, 4, 4).bfloat16())
    signs = torch.ones(1, 16, 16)
    sums = signed_sums(unit, [slice(0, TILE)])
    sums.add(signs.bfloat16(), slice(0, TILE))
    torch.testing.assert_close(sums.sums(slice(0, TILE)), signs @ unit.float(), rtol=0.01, atol=0.01)


def test_a_channel_of_zeros_stays_zero() -> None:
    unit = rows_of_unit_length(torch.bfloat16)
    unit[:, :, 0] = 0
    found = summed(unit, symmetric_signs(2))
    assert found.isfinite().all()
    assert not found[:, :, 0].any()
