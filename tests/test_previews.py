# SPDX-License-Identifier: Apache-2.0
"""Previews: the colours that the latents stand for, small, and not too often."""
from __future__ import annotations

from pathlib import Path
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
from fresco_backend.models import weights
from fresco_backend.models.model_store import EMBEDDED
from fresco_backend.render.previews import LONGEST_SIDE, Previews


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


@pytest.fixture(scope="module")
def embedded() -> weights.Models:
    return weights.load(EMBEDDED)


@pytest.fixture
def plates() -> torch.Tensor:
    """A red and a blue half, and the same with the halves changed."""
    image = torch.full((3, 64, 128), -1.0)
    image[0, :, :64] = image[2, :, 64:] = 0.8
    return torch.stack([image, image.flip(-1)])


def halves(vae: object, plates: torch.Tensor) -> tuple[Any, Any]:
    """Mean colours of the left and the right half of the preview of a plate's own latents, in codes."""
    preview = Previews(clock=Clock()).of(vae, window(plates), step(encode(vae, plates)), steps=20)
    assert preview is not None
    assert (preview.width, preview.height, preview.frame) == (LONGEST_SIDE, LONGEST_SIDE // 2, 1001)
    assert (preview.step, preview.steps) == (1, 20)
    seen = picture(preview)
    return seen[32:96, 16:112].mean((0, 1)), seen[32:96, 144:240].mean((0, 1))


def test_latents_of_the_plate_have_the_colours_of_the_plate(embedded: weights.Models, plates: torch.Tensor) -> None:
    left, right = halves(embedded.vae, plates)
    assert left == pytest.approx((229, 0, 0), abs=40) and right == pytest.approx((0, 0, 229), abs=40)


@pytest.mark.parametrize("seed", range(1, 5))
def test_a_preview_is_as_true_as_latents_allow(plates: torch.Tensor, seed: int) -> None:
    """Four channels of a random autoencoder see edges more than hue: of seed 2 they explain 8 % of the plate. A mixture
    of them by least squares shows the halves as far apart as that, and that is the best a linear map can do."""
    vae = tiny.tiny_vae(seed)
    latents = encode(vae, plates[:1]).double()[0].flatten(1).numpy()
    ones = np.vstack([latents, np.ones_like(latents[:1])])
    colors = torch.nn.functional.avg_pool2d(plates[:1], 8)[0].flatten(1).numpy()
    fitted = (colors @ np.linalg.pinv(ones) @ ones).reshape(3, 8, 16)[:, 2:6].clip(-1, 1)
    wanted = [(half.mean((1, 2)) + 1) * 127.5 for half in (fitted[..., 1:7], fitted[..., 9:15])]
    assert np.abs(np.subtract(halves(vae, plates), wanted)).max() < 8, "enlarged, as JPEG, it is that very fit"


def test_latents_that_overflowed_stop_no_render(plates: torch.Tensor) -> None:
    vae = tiny.tiny_vae()
    torch.nn.init.constant_(vae.encoder.conv_out.bias, float("nan"))
    assert Previews(clock=Clock()).of(vae, window(plates), step(torch.full((2, 4, 8, 16), torch.nan)), steps=20)


def test_a_tiny_autoencoder_is_read_when_a_preview_is_wanted(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(weights, "_preview_autoencoder", lambda *given: asked.append(given))
    models = weights.load(str(tiny_model), controls=())
    assert not asked
    assert models.preview_vae is None and models.preview_vae is None
    assert len(asked) == 1


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
