# SPDX-License-Identifier: Apache-2.0
"""Seams between the parts of a mixture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fresco_backend.engine import seams


def mixture(parts: Tensor, shares: Tensor) -> Tensor:
    return (parts * shares).sum(0)


def shares_of(first: Tensor) -> Tensor:
    return torch.stack([first, 1 - first])[:, None]


def test_constant_shares_have_no_seam() -> None:
    parts = torch.randn(2, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    assert seams.closed(parts, shares_of(torch.full((12, 16), 0.3))).abs().max() < 1e-6


def test_equal_parts_have_no_gradient_to_lose() -> None:
    part = torch.full((1, 3, 12, 16), 0.5).expand(2, -1, -1, -1)
    assert seams.closed(part, shares_of(torch.rand(12, 16))).abs().max() < 1e-5


def test_a_step_from_one_colour_to_another_is_spread_and_its_mean_stays() -> None:
    parts = torch.tensor([-0.4, 0.4]).view(2, 1, 1, 1).expand(2, 3, 64, 96)
    shares = shares_of((torch.arange(96) < 48).float().expand(64, 96))
    closed = mixture(parts, shares) + seams.closed(parts, shares)
    assert closed.diff(dim=2).abs().max() < 0.15 * 0.8
    assert closed.mean().abs() < 1e-4
    assert (closed[:, :, 0] + 0.4).abs().max() < 0.02


def test_texture_of_the_parts_is_kept_across_a_seam() -> None:
    texture = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 0.1
    parts = torch.cat([texture - 0.3, texture + 0.3])
    shares = shares_of((torch.arange(48) < 24).float().expand(32, 48))
    closed = mixture(parts, shares) + seams.closed(parts, shares)
    assert (closed - texture[0]).diff(dim=2).abs().max() < 0.15 * 0.6


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (20, 24)])
def test_the_solution_is_the_least_of_its_energy(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(2)
    parts = torch.randn(2, 3, *size, generator=generator)
    shares = shares_of(torch.rand(*size, generator=generator))
    found = seams.closed(parts, shares).double().requires_grad_()
    energy = found.square().sum()
    for dim in (2, 3):
        step = (mixture(parts, shares) + found).diff(dim=dim - 1) - mixture_of_gradients(parts, shares, dim)
        energy = energy + seams.SPREAD**2 * step.square().sum()
    (slope,) = torch.autograd.grad(energy, found)
    assert slope.abs().max() < 1e-3


def mixture_of_gradients(parts: Tensor, shares: Tensor, dim: int) -> Tensor:
    """The parts' own gradients in the shares of both neighbours."""
    length = parts.shape[dim] - 1
    share = (shares.narrow(dim, 0, length) + shares.narrow(dim, 1, length)) / 2
    return (parts.diff(dim=dim) * share).sum(0)
