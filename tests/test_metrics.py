# SPDX-License-Identifier: Apache-2.0
"""Measures of steadiness and of structure, on clips whose truth is known."""

from __future__ import annotations

import pytest
import torch

import tiny
from fresco_backend.engine.flow import Flow
from fresco_backend.render.metrics import WarpError, edge_agreement, warp_error


def still() -> Flow:
    """The flow of two frames in which nothing moves."""
    zero, none = torch.zeros(2, 2, 8, 8), torch.zeros(2, 8, 8)
    return Flow(forward=zero, backward=zero, forward_occlusion=none, backward_occlusion=none)


def test_the_error_of_a_known_difference_is_known() -> None:
    first = torch.zeros(3, 8, 8)
    assert warp_error(still(), first, first) == 0
    assert warp_error(still(), first, first + 0.4) == pytest.approx(0.04)  # (0.4 / 2) squared


def test_what_is_occluded_does_not_count() -> None:
    flow, first = still(), torch.zeros(3, 8, 8)
    second = first.clone()
    second[:, :4] = 1
    assert warp_error(flow, first, second) == pytest.approx(0.125)
    flow.backward_occlusion[0, :4] = 1
    assert warp_error(flow, first, second) == 0
    flow.backward_occlusion[0] = 1
    assert warp_error(flow, first, second) == 0


def test_a_style_that_moves_with_the_plate_is_steadier_than_one_that_flickers() -> None:
    images = tiny.moving_plate(4, 96).images()
    steady, flickering = WarpError(), WarpError()
    for place, image in enumerate(images):
        steady.add(place, image, -image)
        flickering.add(place, image, -image + 0.3 * (-1) ** place)
    assert steady.mean is not None
    assert flickering.mean is not None
    assert len(steady.values) == 3
    assert steady.mean < 0.01
    assert flickering.mean > steady.mean + 0.05


def test_only_neighbours_are_compared() -> None:
    error, image = WarpError(), tiny.moving_plate(1, 64).images()[0]
    assert error.mean is None
    for place in (0, 4, 7):
        error.add(place, image, image)
    assert error.mean is None
    error.add(8, image, image)
    assert error.values == pytest.approx([0.0])


def test_edges_agree_with_themselves_and_not_with_none() -> None:
    images = torch.full((1, 3, 64, 64), -0.8)
    images[..., 16:48, 16:48] = 0.8
    assert edge_agreement(images, images) == pytest.approx(1)
    assert edge_agreement(-images, images) == pytest.approx(1)
    assert edge_agreement(torch.zeros_like(images), images) == 0
