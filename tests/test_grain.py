# SPDX-License-Identifier: Apache-2.0
"""Grain: measured, taken off, put back as it was, and made anew in its size and level."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from plates import frame, with_pixels

from fresco_backend.files.frames import FloatArray, Frame
from fresco_backend.pixels.color_config import ColorSpace, color_space
from fresco_backend.pixels.grain import _size, made, measured, noise_level, put_back, without_grain
from fresco_protocol.shot import Grain

EVERYWHERE = np.ones((96, 128), np.bool_)
LINEAR, SRGB = color_space("lin_rec709_scene"), color_space("srgb_rec709_scene")


def grain(sigma: float, level: float = 0.03, seed: int = 0) -> FloatArray:
    noise = np.random.default_rng(seed).standard_normal((96, 128, 3)).astype(np.float32)
    if sigma:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), sigma), np.float32)
    return np.asarray(noise / noise.std() * np.float32(level), np.float32)


def scene() -> FloatArray:
    """Flat fields with hard edges, (H, W, 3) codes."""
    picture = np.full((96, 128, 3), 0.25, np.float32)
    picture[:, 64:] = 0.6
    picture[40:60, 20:100] = 0.8
    return picture


def noisy(sigma: float = 0.6) -> Frame:
    return with_pixels(frame(128, 96), scene() + grain(sigma))


def test_the_level_of_noise_is_measured_beside_edges() -> None:
    assert noise_level(scene(), EVERYWHERE) == 0
    assert noise_level(scene() + grain(0), EVERYWHERE) == pytest.approx(0.03, rel=0.1)


@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.2])
def test_the_size_of_grain_is_measured(sigma: float) -> None:
    assert _size(grain(sigma)) == pytest.approx(sigma, rel=0.1)


def test_grain_goes_and_edges_stay() -> None:
    clean = without_grain(noisy(), SRGB).pixels
    assert np.std(clean - scene()) < 0.7 * 0.03
    assert (clean[10, 66:] - 0.6).mean() == pytest.approx(0, abs=0.01)
    assert (clean[10, 64] - clean[10, 63]).mean() == pytest.approx(0.35, abs=0.07)


@pytest.mark.parametrize("space", [LINEAR, SRGB], ids=str)
def test_kept_grain_on_an_unchanged_picture_is_the_plate(space: object) -> None:
    assert space in (LINEAR, SRGB)
    chosen = LINEAR if space == LINEAR else SRGB
    clean = without_grain(noisy(), chosen)
    back = put_back(clean, noisy(), clean, chosen, Grain.KEEP, 1)
    assert back.pixels == pytest.approx(noisy().pixels, abs=1e-5)
    assert put_back(clean, noisy(), clean, chosen, Grain.NONE, 1) is clean


def test_made_grain_has_the_size_and_the_level_of_the_plates() -> None:
    found = measured(grain(0.8), scene(), EVERYWHERE)
    new = made(found, scene(), 1001)
    assert new.std() == pytest.approx(0.03, rel=0.1)
    assert _size(new) == pytest.approx(0.8, rel=0.15)
    assert abs(float(np.corrcoef(new.ravel(), grain(0.8).ravel())[0, 1])) < 0.05
    assert np.array_equal(new, made(found, scene(), 1001))
    assert not np.array_equal(new, made(found, scene(), 1002))
    assert not np.array_equal(made(found, scene(), 5), made(found, scene(), -5)), "before zero as after it"


def test_grain_is_as_strong_in_shadows_and_lights_as_it_was() -> None:
    uneven = grain(0.6)
    uneven[scene() > 0.5] *= 3
    new = made(measured(uneven, scene(), EVERYWHERE), scene(), 7)
    dark, light = scene() < 0.3, scene() > 0.5
    assert new[light].std() / new[dark].std() == pytest.approx(3, rel=0.15)


def test_a_plate_without_grain_is_itself() -> None:
    still = replace(noisy(), pixels=scene())
    assert without_grain(still, SRGB) is still


@pytest.mark.parametrize("space", [LINEAR, SRGB], ids=["linear", "srgb"])
def test_the_grain_of_an_element_is_its_own_and_stays_under_its_alpha(space: ColorSpace) -> None:
    """Three quarters of the frame are clear: they say nothing of the grain, and get none."""
    alpha = np.zeros((96, 128), np.float32)
    alpha[24:72, 32:96] = 1
    source = replace(noisy(), pixels=noisy().pixels * alpha[..., None], alpha=alpha)
    clean = without_grain(source, space)
    inside = alpha == 1
    assert np.std((clean.pixels - scene())[inside]) < 0.7 * 0.03
    for kind in (Grain.KEEP, Grain.MATCH):
        back = put_back(clean, source, clean, space, kind, 1).pixels
        assert np.std((back - scene())[inside]) == pytest.approx(0.03, rel=0.3)
        assert np.all(back[~inside] == 0)


def test_a_clear_frame_has_no_grain() -> None:
    clear = replace(noisy(), alpha=np.zeros((96, 128), np.float32))
    clean = without_grain(clear, SRGB)
    assert clean is clear
    assert put_back(clean, clear, clean, SRGB, Grain.MATCH, 1).pixels == pytest.approx(clear.pixels, abs=1e-6)
