# SPDX-License-Identifier: Apache-2.0
"""Seams of a mixture closed in the gradient domain: where the shares of its parts change, their edges do not show.

A mixture with shares that vary has the gradients of its parts and, on top, steps from one part's colour to the other's.
The screened Poisson equation takes these steps out and stays near the mixture's colours. Source: Bhat et al., "Fourier
Analysis of the 2D Screened Poisson Equation for Gradient Domain Problems", ECCV 2008.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SPREAD = 8.0
"""Pixels over which the step at a seam is spread."""


@torch.no_grad()
def closed(parts: Tensor, shares: Tensor) -> Tensor:
    """What to add to the mixture of parts to close its seams, (3, H, W).

    parts: (K, 3, H, W). shares: (K, 1, H, W), their sum is 1 everywhere. Of constant shares it is 0.
    """
    across = _steps(parts, shares, dim=3)
    down = _steps(parts, shares, dim=2)
    divergence = across.new_zeros(parts.shape[1:])
    divergence[:, :, :-1] += across
    divergence[:, :, 1:] -= across
    divergence[:, :-1] += down
    divergence[:, 1:] -= down
    return _screened(divergence)


def _steps(parts: Tensor, shares: Tensor, dim: int) -> Tensor:
    """What the mixture steps by between neighbours because of shares that change."""
    length = parts.shape[dim] - 1
    middle = (parts.narrow(dim, 0, length) + parts.narrow(dim, 1, length)) / 2
    return (middle * shares.diff(dim=dim)).sum(0)


def _screened(divergence: Tensor) -> Tensor:
    """The u of least |u|^2 + SPREAD^2 |grad u + steps|^2, by the cosine transform: an FFT of the mirror image."""
    height, width = divergence.shape[1:]
    mirrored = torch.cat([divergence, divergence.flip(2)], dim=2)
    mirrored = torch.cat([mirrored, mirrored.flip(1)], dim=1)
    spectrum = torch.fft.rfft2(mirrored)
    spectrum *= SPREAD**2 / (1 + SPREAD**2 * _laplacian(height, width, divergence))
    solved: Tensor = torch.fft.irfft2(spectrum, s=mirrored.shape[1:])
    return solved[:, :height, :width]


def _laplacian(height: int, width: int, like: Tensor) -> Tensor:
    """Eigenvalues of the negative Laplacian on the mirror image, (2 height, width + 1)."""
    across, down = (
        4 * (torch.arange(2 * side).to(like) * (math.pi / (2 * side))).sin().square() for side in (width, height)
    )
    return down[:, None] + across[: width + 1]
