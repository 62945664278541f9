# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from reference import golden, golden_flow
from torch import Tensor

from fresco_backend.engine.correspondence import Correspondence
from fresco_backend.engine.flow import Flow
from fresco_backend.engine.smoothing import carry_background, dilate, smooth_background


@pytest.fixture(scope="module")
def numbers() -> dict[str, Tensor]:
    return golden("background_smoothing")


@pytest.fixture(scope="module")
def window(numbers: dict[str, Tensor]) -> Correspondence:
    return Correspondence(frames=numbers["img"], flow=golden_flow(numbers))


def still_window(frames: int) -> Correspondence:
    image, still = torch.zeros(frames, 3, 16, 16), torch.zeros(frames, 2, 16, 16)
    return Correspondence(frames=image, flow=Flow.between(image, still, still))


@pytest.mark.parametrize("name", ["img", "feat8"])
def test_smoothing_agrees_with_the_reference(name: str, numbers: dict[str, Tensor], window: Correspondence) -> None:
    given = numbers[name].clone()
    smoothed = smooth_background(given, window, numbers["saliency"])
    torch.testing.assert_close(smoothed, numbers[f"{name}_out"], rtol=0, atol=2e-5)
    assert torch.equal(given, numbers[name])


@pytest.mark.parametrize(("size", "name"), [(7, "dilate7"), (13, "dilate13")])
def test_dilation_agrees_with_the_reference(size: int, name: str) -> None:
    numbers = golden("geometry")
    torch.testing.assert_close(dilate(numbers["dilate_in"], size), numbers[name], rtol=0, atol=2e-5)


def test_dilation_grows_a_point_to_a_box_and_repeats_the_border() -> None:
    mask = torch.zeros(1, 1, 9, 9)
    mask[0, 0, 4, 4], mask[0, 0, 0, 8] = 0.5, 0.1
    grown = dilate(mask, 3)[0, 0]
    expected = torch.zeros(9, 9)
    expected[3:6, 3:6] = 0.5
    expected[0, 8], expected[0, 7], expected[1, 8], expected[1, 7] = 0.4, 0.2, 0.2, 0.1
    torch.testing.assert_close(grown, expected, rtol=0, atol=1e-6)


def test_a_still_background_becomes_the_first_frames_and_the_foreground_stays() -> None:
    images = torch.randn(3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    background = torch.zeros(3, 1, 16, 16)
    background[:, :, :, 8:] = 1
    smoothed = smooth_background(images, still_window(3), background)
    torch.testing.assert_close(smoothed[..., 8:], images[:1, ..., 8:].expand(3, -1, -1, -1), rtol=0, atol=1e-5)
    torch.testing.assert_close(smoothed[..., :8], images[..., :8], rtol=0, atol=1e-5)


def drifting(frames: int, step: float) -> tuple[Tensor, Correspondence]:
    """Waves of four to nine pixels that drift to the right, as a picture can hold them, and their motion."""
    x = torch.arange(64.0)[None, :] - step * torch.arange(frames)[:, None]
    waves = sum(torch.sin(2 * torch.pi * x / length) for length in (4.3, 5.9, 8.7))
    images = torch.as_tensor(waves)[:, None, None, :].expand(-1, 3, 64, -1) / 3
    motion = torch.zeros(frames, 2, 64, 64)
    motion[:, 0] = step
    pairs = Flow.between(images, motion, -motion)
    hidden = torch.zeros_like(pairs.forward_occlusion)
    hidden[-1] = 1  # the camera does not come back
    flow = Flow(forward=motion, backward=-motion, forward_occlusion=hidden, backward_occlusion=hidden)
    return images, Correspondence(frames=images, flow=flow)


def test_a_carried_background_stays_sharp_where_the_references_grows_soft() -> None:
    images, window = drifting(8, 0.5)
    seen = images.clone()
    seen[1:] = 0  # whatever the later frames show comes from the first
    background = torch.ones(8, 1, 64, 64)
    inner = slice(16, 56)
    errors = [
        (method(seen, window, background)[-1] - images[-1])[..., inner].square().mean().sqrt()
        / images[-1][..., inner].square().mean().sqrt()
        for method in (carry_background, smooth_background)
    ]
    assert errors[0] < 0.15
    assert errors[1] > 0.5


@pytest.mark.parametrize("step", [0.0, 1.0, 2.0])
def test_carried_by_whole_pixels_both_ways_are_one(step: float) -> None:
    _, window = drifting(4, step)
    mixed = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    background = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    carried, chained = (method(mixed, window, background) for method in (carry_background, smooth_background))
    torch.testing.assert_close(carried[..., 12:-12], chained[..., 12:-12], rtol=0, atol=1e-4)


def test_one_frame_is_only_copied() -> None:
    features = torch.randn(2, 3, 8, 8).bfloat16()
    smoothed = smooth_background(features, still_window(1), torch.ones(1, 1, 4, 4))
    assert torch.equal(smoothed, features) and smoothed.data_ptr() != features.data_ptr()


def test_background_must_have_the_windows_frames() -> None:
    with pytest.raises(ValueError, match=r"background must be \(3, 1, H, W\), found \(2, 1, 4, 4\)"):
        smooth_background(torch.zeros(3, 1, 8, 8), still_window(3), torch.zeros(2, 1, 4, 4))
