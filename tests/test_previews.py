# SPDX-License-Identifier: Apache-2.0
"""Previews: the colours that the latents stand for, small, and not too often."""
from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch

import tiny
from fresco_backend.engine.denoise import StepResult, WindowInput
from fresco_backend.engine.latents import encode
from fresco_backend.engine.schedule import Step
from fresco_backend.events import Previewed
from fresco_backend.previews import LONGEST_SIDE, Previews


class Clock:
    """Seconds that pass when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def window(images: torch.Tensor, *, anchored: int = 0) -> WindowInput:
    texts = torch.zeros(len(images), 4, 8)
    return WindowInput(frames=tuple(range(1001, 1001 + len(images))), images=images, prompt=texts, negative=texts,
                       anchored=anchored)


def step(clean: torch.Tensor, index: int = 0) -> StepResult:
    return StepResult(step=Step(index=index, count=20, timestep=500, following=400, beginning=900), clean=clean)


def picture(preview: Previewed) -> np.ndarray[Any, Any]:
    pixels = cv2.imdecode(np.frombuffer(preview.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels[..., ::-1]


@pytest.fixture
def plates() -> torch.Tensor:
    """A red and a blue half, and the same with the halves changed."""
    image = torch.full((3, 64, 128), -1.0)
    image[0, :, :64] = image[2, :, 64:] = 0.8
    return torch.stack([image, image.flip(-1)])


def test_latents_of_the_plate_have_the_colours_of_the_plate(plates: torch.Tensor) -> None:
    vae, given = tiny.tiny_vae(), window(plates)
    preview = Previews(clock=Clock()).of(vae, given, step(encode(vae, plates)), steps=20)
    assert preview is not None
    assert (preview.width, preview.height, preview.frame) == (LONGEST_SIDE, LONGEST_SIDE // 2, 1001)
    assert (preview.step, preview.steps) == (1, 20)
    left, right = picture(preview)[40:88, 20:100].mean((0, 1)), picture(preview)[40:88, 156:236].mean((0, 1))
    assert left[0] > left[2] + 10, "four channels of a random autoencoder tell little, and yet the hue"
    assert right[2] > right[0] + 10


def test_the_first_keyframe_that_is_no_anchor_is_shown(plates: torch.Tensor) -> None:
    vae, given = tiny.tiny_vae(), window(plates, anchored=1)
    preview = Previews(clock=Clock()).of(vae, given, step(encode(vae, plates)), steps=20)
    assert preview is not None
    assert preview.frame == 1002


def test_no_more_than_one_in_an_interval(plates: torch.Tensor) -> None:
    clock, vae, given = Clock(), tiny.tiny_vae(), window(plates)
    previews, clean = Previews(interval=1.0, clock=clock), encode(vae, plates)
    assert previews.of(vae, given, step(clean), steps=20)
    clock.now = 0.9
    assert previews.of(vae, given, step(clean, 1), steps=20) is None
    clock.now = 1.1
    assert previews.of(vae, given, step(clean, 2), steps=20)
