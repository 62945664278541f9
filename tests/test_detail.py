# SPDX-License-Identifier: Apache-2.0
"""The plate's detail on a stylised picture that comes from a smaller one."""

from __future__ import annotations

import torch
from torch import Tensor

from fresco_backend.files.frames import Size
from fresco_backend.pixels.detail import with_plate_detail
from fresco_backend.pixels.resolution import resized

PLATE, SMALL = Size(192, 144), Size(64, 48)


def plate() -> Tensor:
    """Blocks with hard edges, fine lines, and a soft ramp: (1, 3, H, W) in [-1, 1]."""
    y, x = torch.meshgrid(torch.arange(PLATE.height), torch.arange(PLATE.width), indexing="ij")
    blocks = ((x // 29 + y // 23) % 2).float() * 1.2 - 0.6
    lines = ((x + y) % 7 == 0).float() * 0.4
    return torch.stack([blocks, blocks * 0.5 + lines, x / PLATE.width - 0.5])[None].clamp(-1, 1)


def psnr(picture: Tensor, truth: Tensor) -> float:
    return float(10 * torch.log10(4 / (picture - truth).square().mean()))


def test_edges_of_the_plate_become_as_sharp_as_they_were() -> None:
    """A style that only changes colours: the truth at full size is known."""
    truth = 0.1 - 0.7 * plate()
    small = resized(truth, SMALL)
    gained = psnr(with_plate_detail(small, plate()), truth) - psnr(resized(small, PLATE), truth)
    assert gained > 3


def test_strokes_that_the_plate_lacks_stay() -> None:
    noise = torch.randn(1, 3, SMALL.height, SMALL.width, generator=torch.Generator().manual_seed(0)) * 0.2
    flat = torch.zeros(1, 3, PLATE.height, PLATE.width)
    assert torch.allclose(with_plate_detail(noise.clamp(-1, 1), flat), resized(noise.clamp(-1, 1), PLATE), atol=0.02)


def test_without_enlargement_nothing_changes() -> None:
    assert torch.equal(with_plate_detail(plate() * 0.5, plate()), plate() * 0.5)
    assert torch.equal(with_plate_detail(plate(), resized(plate(), SMALL)), resized(plate(), SMALL))
