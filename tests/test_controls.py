# SPDX-License-Identifier: Apache-2.0
"""Control images: edges where they are, of a strength that depends on nothing else in the frame."""

import pytest
import torch
from torch import Tensor

from fresco_backend.guides.controls import DETECTORS, HALF_HEIGHTS, canny, detect, pencil, soft_edges
from fresco_protocol.errors import UsageError
from fresco_protocol.shot import ControlKind


def step(height: float, size: int = 64) -> Tensor:
    """A vertical border of the given height in code values, in the middle."""
    image = torch.full((1, 3, size, size), -height)
    image[..., size // 2 :] = height
    return image


@pytest.mark.parametrize("kind", DETECTORS)
def test_control_images_have_the_batch_size_and_lie_in_zero_to_one(kind: ControlKind) -> None:
    noise = torch.rand(3, 3, 40, 56, generator=torch.Generator().manual_seed(1)) * 2 - 1
    control = detect(kind, noise)
    assert control.shape == noise.shape
    assert control.dtype == torch.float32
    assert control.min() >= 0
    assert 0.5 < control.max() <= 1


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_step_of_half_height_answers_one_half_at_every_scale(channel: int) -> None:
    control = soft_edges(step(HALF_HEIGHTS[channel]))[0, channel, 32]
    assert control[31:33].max().item() == pytest.approx(0.5, abs=0.02)
    assert control[:8].max() < 1e-4


def test_equal_luma_border_is_seen() -> None:
    image = torch.zeros(1, 3, 64, 64)
    image[:, 0, :, 32:] = 0.5
    image[:, 1, :, 32:] = -0.5 * 0.299 / 0.587
    assert soft_edges(image)[0, :, 32, 31].min() > 0.4


def test_coarse_scale_forgets_texture_that_the_fine_scale_sees() -> None:
    checker = ((torch.arange(64).view(-1, 1) // 2 + torch.arange(64) // 2) % 2).float().expand(1, 3, 64, 64) - 0.5
    fine, _, coarse = soft_edges(checker)[0, :, 16:48, 16:48]
    assert fine.mean() > 0.5
    assert coarse.mean() < 0.02


@pytest.mark.parametrize("kind", DETECTORS)
def test_an_edge_does_not_change_when_something_appears_elsewhere(kind: ControlKind) -> None:
    calm = step(0.2, size=96)
    busy = calm.clone()
    busy[..., 70:, 70:] = torch.rand(26, 26, generator=torch.Generator().manual_seed(2)) * 2 - 1
    assert torch.equal(detect(kind, calm)[..., :48, :], detect(kind, busy)[..., :48, :])


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_frame_does_not_depend_on_its_batch(kind: ControlKind) -> None:
    noise = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    assert torch.allclose(detect(kind, noise)[2:3], detect(kind, noise[2:3]), atol=1e-6)


def test_canny_draws_one_thin_line_along_a_step_and_nothing_on_a_flat_image() -> None:
    lines = canny(step(0.5))
    assert set(lines.flatten().tolist()) == {0.0, 1.0}
    assert lines[0, 0].sum(dim=1).tolist() == [1] * 64
    assert canny(torch.zeros(1, 3, 32, 32)).max() == 0


def test_pencil_is_one_grey_drawing_of_contours_without_texture() -> None:
    drawing = pencil(step(0.5))
    assert torch.equal(drawing[:, 0], drawing[:, 1])
    assert drawing[0, 0, 32, 31:33].max() > 0.8
    assert drawing[0, 0, 32, :8].max() < 1e-3
    checker = ((torch.arange(64).view(-1, 1) // 2 + torch.arange(64) // 2) % 2).float().expand(1, 3, 64, 64) - 0.5
    assert pencil(checker)[..., 16:48, 16:48].mean() < 0.2


def test_thresholds_of_canny_act() -> None:
    assert canny(step(0.1), low=50, high=100).max() == 0
    assert canny(step(0.1), low=20, high=40).max() == 1


@pytest.mark.parametrize("kind", [ControlKind.DEPTH, ControlKind.SEQUENCE])
def test_a_kind_that_no_detector_makes_is_refused_with_the_kinds_that_can_be_made(kind: ControlKind) -> None:
    with pytest.raises(UsageError, match=r'"soft-edge", "canny"'):
        detect(kind, torch.zeros(1, 3, 16, 16))
