# SPDX-License-Identifier: Apache-2.0
"""Previews: by a map that the window itself tells, or by a tiny autoencoder where one is here."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

import tiny
from fresco_backend import weights
from fresco_backend.engine.denoise import StepResult, WindowInput
from fresco_backend.engine.latents import decode, encode
from fresco_backend.engine.schedule import Step
from fresco_backend.model_family import Family
from fresco_backend.previews import LONGEST_SIDE, Previews

STEP = Step(index=2, count=4, timestep=251, following=1, beginning=751)


@pytest.fixture(scope="module")
def tiny_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae") / "taesd"
    with tiny._seeded(1):
        AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
            num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1),
        ).save_pretrained(folder)  # fmt: skip
    return folder


def clock() -> Any:
    seconds: Iterator[int] = count(0, 2)
    return lambda: float(next(seconds))


def window() -> WindowInput:
    images, text = tiny.moving_plate(3, 64).images(), torch.zeros(3, 5, tiny.TEXT_WIDTH)
    return WindowInput(frames=(1001, 1005, 1009), images=images, prompt=text, negative=text, anchored=1)


def picture(jpeg: bytes) -> np.ndarray:
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded[..., ::-1]


def preview(vae: Any) -> tuple[Any, torch.Tensor]:
    """The preview of the plate's own latents, and these."""
    latents = encode(vae, window().images)
    found = Previews(clock=clock()).of(vae, window(), StepResult(step=STEP, clean=latents), steps=4)
    assert found is not None
    assert (found.frame, found.step, found.steps, max(found.width, found.height)) == (1005, 3, 4, LONGEST_SIDE)
    return picture(found.jpeg), latents


def test_a_map_fitted_to_the_window_gives_its_colours() -> None:
    found, _ = preview(tiny.tiny_vae())
    truth = (window().images[1].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(found.mean((0, 1)) - truth.mean((0, 1))).max() < 25


def test_a_tiny_autoencoder_decodes(tiny_vae: Path) -> None:
    vae = AutoencoderTiny.from_pretrained(str(tiny_vae)).eval()
    found, latents = preview(vae)
    truth = (decode(vae, latents[1:2])[0].permute(1, 2, 0).numpy() + 1) * 127.5
    small = cv2.resize(found, truth.shape[1::-1], interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(small - truth).mean() < 4


def test_a_model_has_one_only_where_it_lies_on_this_machine(
    tiny_vae: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(name: Path) -> weights.Models:
        monkeypatch.setattr(weights, "TINY_AUTOENCODERS", {Family.OTHER: str(name)})
        return weights.load(str(tiny_model), device=torch.device("cpu"), dtype=torch.bfloat16)

    assert isinstance(loaded(tiny_vae).preview_vae, AutoencoderTiny)
    assert loaded(tmp_path / "nothing").preview_vae is None
    assert not [name for name in loaded(tiny_vae).hashes if "taesd" in name]  # pixels do not depend on it


def test_previews_come_no_more_often_than_people_look() -> None:
    now = [0.0]
    previews, vae, given = Previews(interval=1.0, clock=lambda: now[0]), tiny.tiny_vae(), window()
    result = StepResult(step=STEP, clean=encode(vae, given.images))
    seen = []
    for now[0] in (0.0, 0.5, 1.0, 1.5, 2.5):
        seen.append(previews.of(vae, given, result, steps=4) is not None)
    assert seen == [True, False, True, False, True]
