# SPDX-License-Identifier: Apache-2.0
"""Two self-similarities compared band by band, against the whole matrices in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fresco_backend.engine import similarity as module
from fresco_backend.engine.losses import TILE, unit_rows
from fresco_backend.engine.similarity import comparison

LENGTH = 2 * TILE + 88  # two whole bands and a part of one
BANDS = [slice(0, TILE), slice(TILE, 2 * TILE), slice(2 * TILE, LENGTH)]


def features(seed: int, length: int = LENGTH) -> Tensor:
    """With one channel that is far larger than the others, as the networks have them."""
    rows = torch.randn(2, length, 40, generator=torch.Generator().manual_seed(seed))
    rows[:, :, 5] *= 8
    return rows


def unit(rows: Tensor, dtype: torch.dtype) -> Tensor:
    return unit_rows(rows.mT[..., None].to(dtype))


def across(sums: Tensor, rows: Tensor) -> Tensor:
    """Without what lies along each row: there the sign of nothing, on the diagonal, is chance."""
    along = torch.nn.functional.normalize(rows, dim=2).to(sums.dtype)
    return sums - along * (along * sums).sum(dim=2, keepdim=True)


def compared(rows: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of absolute differences, and the sums of rows by their signs."""
    length = rows.norm(dim=2, keepdim=True).clamp_min(1e-12)
    bands = [band for band in BANDS if band.start < rows.shape[1]]
    found = comparison(rows, length, target.dtype, bands)
    wanted = target @ target.mT
    parts = [found.compare(wanted[:, band, band.start :], band, measured=True) for band in bands]
    return torch.stack(parts).sum(), across(torch.cat([found.sums(band) for band in bands], dim=1), rows)


def exact(rows: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    rows, target = torch.nn.functional.normalize(rows.double(), dim=2), target.double()
    difference = rows @ rows.mT - target @ target.mT
    return difference.abs().sum(), across(difference.sign() @ rows, rows)


@pytest.mark.parametrize("in_bytes", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bands_of_one_half_stand_for_the_whole(
    dtype: torch.dtype, in_bytes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_multiplies_bytes", lambda: in_bytes)
    rows, target = features(1), unit(features(2), dtype)
    (total, sums), (expected_total, expected) = compared(rows, target), exact(rows, target)
    assert (total.dtype, sums.dtype) == (torch.float32, torch.float32)
    assert total.item() == pytest.approx(expected_total.item(), rel=1e-5 if dtype is torch.float32 else 3e-3)
    off = (sums - expected).norm(dim=1) / expected.norm(dim=1)  # of each channel by itself, the large one too
    assert off.max() < (2e-3 if dtype is torch.float32 else 0.06)


def test_eight_bits_see_a_difference_of_a_hundredth(monkeypatch: pytest.MonkeyPatch) -> None:
    """What eight bits get wrong are differences near nothing."""
    rows, target = features(1), unit(features(2), torch.bfloat16)
    rows = torch.lerp(target.float(), torch.nn.functional.normalize(rows, dim=2), 0.02)
    _, expected = exact(rows, target)
    agreement = {}
    for in_bytes in (True, False):
        monkeypatch.setattr(module, "_multiplies_bytes", lambda chosen=in_bytes: chosen)
        _, sums = compared(rows, target)
        agreement[in_bytes] = torch.nn.functional.cosine_similarity(sums.flatten(), expected.flatten(), dim=0)
    assert agreement[True] > 0.98 and agreement[True] > agreement[False] - 0.01


def test_few_rows_are_not_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_multiplies_bytes", lambda: True)
    rows = features(1, length=module.FEWEST // 8)
    rows[:, :, 0] *= 1e-4  # lost in eight bits of a row
    target = unit(features(2, length=module.FEWEST // 8), torch.bfloat16)
    (_, sums), (_, expected) = compared(rows, target), exact(rows, target)
    assert (sums - expected)[:, :, 0].norm() < 0.02 * expected[:, :, 0].norm()


@pytest.mark.parametrize("height", [TILE, module.BLOCK])
def test_three_digits_sum_as_exactly_as_float32(height: int) -> None:
    rows = features(1, length=module.BLOCK + LENGTH)
    rows[0, 7] *= 1e3  # a row by itself is of unit length, whatever the others are
    signs = torch.randint(-1, 2, (2, rows.shape[1], rows.shape[1]), generator=torch.Generator().manual_seed(3)).triu()
    unit, bands = unit_rows(rows.mT[..., None]), [slice(at, at + height) for at in range(0, rows.shape[1], height)]
    found = module._ExactSums(lambda band: unit[:, band], bands, digits=3)
    upper = (signs + signs.triu(1).mT).float()
    for band in bands:
        for frame, matrix in enumerate(upper):
            found.add(frame, matrix[band, band.start :], band.start)
    sums = torch.cat([found.of(band) for band in bands], dim=1)
    expected = upper.double() @ torch.nn.functional.normalize(rows.double(), dim=2)
    assert ((sums - expected).norm(dim=1) / expected.norm(dim=1)).max() < 1e-6


def test_a_row_and_a_channel_of_zeros_stay_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_multiplies_bytes", lambda: True)
    rows = features(1)
    rows[:, :, 0], rows[:, 3] = 0, 0
    total, sums = compared(rows, unit(features(2), torch.bfloat16))
    assert total.isfinite() and sums.isfinite().all()
    assert not sums[:, :, 0].any()


def test_what_is_equal_moves_nothing() -> None:
    rows = torch.zeros(1, LENGTH, 8)
    _, sums = compared(rows, torch.zeros(1, LENGTH, 8).bfloat16())
    assert not sums.any()
