# SPDX-License-Identifier: Apache-2.0
"""FreeU: the paper's arithmetic, where it acts, and no trace."""

from __future__ import annotations

import families
import pytest
import torch
from torch import Tensor

import tiny
from fresco_backend.engine.free_u import FreeU, free_u, lowest_scaled, strengthened


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_half_of_the_channels_grow_where_their_mean_is_high() -> None:
    features = torch.zeros(1, 4, 1, 3)
    features[0, :, 0] = torch.tensor([0.0, 1.0, 2.0])
    found = strengthened(features, 1.5)
    assert torch.allclose(found[0, 0, 0], torch.tensor([0.0, 1.25, 3.0]))
    assert torch.equal(found[:, 2:], features[:, 2:])


def test_a_sample_does_not_depend_on_the_others() -> None:
    features = noise(3, 8, 4, 4)
    assert torch.allclose(strengthened(features, 1.4)[1:2], strengthened(features[1:2], 1.4))


@pytest.mark.parametrize("size", [(8, 8), (6, 10)])
def test_only_the_lowest_frequencies_of_a_skip_are_scaled(size: tuple[int, int]) -> None:
    height, width = size
    flat = torch.full((1, 2, height, width), 3.0)
    fine = torch.cos(torch.pi * torch.arange(width)).expand(1, 2, height, width)
    found = lowest_scaled(flat + fine, 0.5)
    assert torch.allclose(found, flat * 0.5 + fine, atol=1e-5)
    assert lowest_scaled(flat, 1) is flat


@torch.no_grad()
@pytest.mark.parametrize("place", [0, 1])
def test_both_widths_of_the_decoder_are_reached_and_nothing_is_left(place: int) -> None:
    unet, latents, text = tiny.tiny_unet(), noise(1, 4, 8, 8), noise(1, 5, tiny.TEXT_WIDTH)
    before = unet(latents, 500, text).sample
    scales = (1.4, 1.0) if place == 0 else (1.0, 1.4)
    for settings in (FreeU(backbone=scales), FreeU(backbone=(1, 1), skip=scales)):
        with free_u(unet, settings):
            assert not torch.allclose(unet(latents, 500, text).sample, before, atol=1e-4)
    with free_u(unet, FreeU(backbone=(1, 1))):
        assert torch.allclose(unet(latents, 500, text).sample, before, atol=1e-5)
    assert torch.equal(unet(latents, 500, text).sample, before)
    assert not any(module._forward_pre_hooks for module in unet.modules())


@torch.no_grad()
def test_it_acts_on_xl_too() -> None:
    unet, latents, text = families.sdxl_unet(), noise(1, 4, 8, 8), noise(1, 5, 128)
    added = {"text_embeds": noise(1, 64), "time_ids": torch.zeros(1, 6)}
    before = unet(latents, 500, text, added_cond_kwargs=added).sample
    with free_u(unet, FreeU()):
        assert not torch.allclose(unet(latents, 500, text, added_cond_kwargs=added).sample, before, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("place", [0, 1])
def test_it_acts_where_there_is_no_middle(place: int) -> None:
    unet, latents, text = families.distilled_unet(), noise(1, 4, 8, 8), noise(1, 5, tiny.TEXT_WIDTH)
    before = unet(latents, 500, text).sample
    with free_u(unet, FreeU(backbone=(1.4, 1.0) if place == 0 else (1.0, 1.4))):
        assert not torch.allclose(unet(latents, 500, text).sample, before, atol=1e-4)
