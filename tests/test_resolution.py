# SPDX-License-Identifier: Apache-2.0
"""The working size: multiples of 64, the aspect kept, nothing lost at the edges."""

from __future__ import annotations

import pytest
import torch

from fresco_backend.files.frames import Size, Window
from fresco_backend.pixels.resolution import MULTIPLE, fit, resized, tile_side, tiling


@pytest.mark.parametrize("plate", [Size(1920, 1080), Size(1998, 1080), Size(720, 1280), Size(333, 777), Size(64, 64)])
@pytest.mark.parametrize("short_side", [256, 512, 500])
def test_sizes_are_multiples_and_keep_the_aspect(plate: Size, short_side: int) -> None:
    size = fit(plate, short_side)
    assert min(size.scaled) == short_side
    assert all(side % MULTIPLE == 0 for side in size.padded)
    assert all(0 <= padded - scaled < MULTIPLE for padded, scaled in zip(size.padded, size.scaled, strict=True))
    squeeze = (size.scaled.width / plate.width) / (size.scaled.height / plate.height)
    assert squeeze == pytest.approx(1, abs=0.5 / short_side)


def smooth(size: Size) -> torch.Tensor:
    """Slow waves over the picture, (1, 3, H, W)."""
    y = torch.linspace(0, 5, size.height)[:, None]
    x = torch.linspace(0, 5, size.width)[None]
    return torch.stack([torch.sin(x + y), torch.cos(x * 1.5 - y), torch.sin(y) * torch.ones_like(x)])[None]


@pytest.mark.parametrize("plate", [Size(301, 203), Size(90, 160), Size(40, 30)])
def test_there_and_back_gives_the_picture_at_its_place(plate: Size) -> None:
    size = fit(plate, 128)
    picture = smooth(plate)
    working = size.to_working(picture)
    assert working.shape == (1, 3, size.padded.height, size.padded.width)
    back = size.to_region(working)
    assert back.shape == picture.shape
    assert (back - picture).abs().max() < 0.06
    assert (back - picture).abs().mean() < 0.005


def test_a_size_that_fits_already_changes_nothing() -> None:
    picture = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    size = fit(Size(128, 64), 64)
    assert torch.equal(size.to_working(picture), picture)
    assert torch.equal(size.to_region(picture), picture)


def test_downwards_fine_patterns_become_their_mean_and_upwards_the_range_is_kept() -> None:
    checker = (torch.arange(64)[:, None] + torch.arange(64)[None]) % 2
    small = resized(checker.float().expand(1, 3, 64, 64), Size(16, 16))
    assert (small - 0.5).abs().max() < 0.02
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1
    grown = resized(edge, Size(50, 50))
    assert (grown.min().item(), grown.max().item()) == (0, 1)


def test_a_region_is_worked_on_alone_and_at_the_resolution_of_its_own_short_side() -> None:
    plate, region = Size(1920, 1080), Window(600, 200, 400, 300)
    size = fit(plate, 256, region=region)
    assert size.scaled == (341, 256)
    picture = smooth(plate)
    assert torch.equal(size.part(picture), picture[..., 200:500, 600:1000])
    back = size.to_region(size.to_working(picture))
    assert (back - picture[..., 200:500, 600:1000]).abs().max() < 0.01
    half = resized(picture, Size(960, 540))  # a control image may be smaller than the plate
    assert size.part(half).shape[-2:] == (150, 200)


def test_pixels_that_are_not_square_are_in_the_engine_and_are_not_after() -> None:
    plate = Size(960, 800)
    size = fit(plate, 400, pixel_aspect=2.0)
    assert size.scaled == (960, 400)
    picture = smooth(plate)
    assert (size.to_region(size.to_working(picture)) - picture).abs().max() < 0.01


@pytest.mark.parametrize(("short_side", "tiles"), [(384, 1), (512, 1), (576, 4 * 2), (1080, 7 * 4)])
def test_a_picture_much_larger_than_the_model_likes_is_divided(short_side: int, tiles: int) -> None:
    working = fit(Size(1920, 1080), short_side)
    found = tiling(working, tile_side(working, 384))
    width, height = working.padded
    assert (1 if found is None else len(found.tiles((height // 8, width // 8)))) == tiles


def test_a_tile_of_any_size_is_one_that_the_model_divides() -> None:
    working = fit(Size(1920, 1080), 384)
    found = tiling(working, 300)
    assert found is not None and found.side * 8 == 256
    smallest = tiling(working, 64)
    assert smallest is not None and smallest.overlap == 2
    assert tiling(working, 8192) is None
