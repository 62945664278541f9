# SPDX-License-Identifier: Apache-2.0
"""Light over white: in by the rendering, out by its inverse, and the plate's own light carried around the model."""

from __future__ import annotations

import numpy as np
import pytest
from plates import noise

from fresco_backend.files.frames import HALF_MAX, FloatArray
from fresco_backend.pixels.color_config import color_space, to_aces
from fresco_backend.pixels.highlights import KNEE, Showing, restored, shown
from fresco_protocol.shot import Highlights, Rendering

ACESCG = color_space("ACEScg")
RAMP = np.geomspace(1 / 256, 64, 400, dtype=np.float32).reshape(1, -1, 1).repeat(3, axis=2)


ACES, SRGB, MODEL, DISPLAY = (
    Showing(method=method, rendering=rendering) for method, rendering in (
        (Highlights.PRESERVE, Rendering.ACES), (Highlights.PRESERVE, Rendering.SRGB),
        (Highlights.MODEL, Rendering.ACES), (Highlights.DISPLAY, Rendering.ACES)))  # fmt: skip


def seen(plate: FloatArray, showing: Showing = ACES) -> FloatArray:
    return shown(to_aces(plate, ACESCG), showing)


def back(painted: FloatArray, plate: FloatArray, showing: Showing = ACES) -> FloatArray:
    return restored(np.clip(painted, 0, 1).astype(np.float32), seen(plate, showing), plate, ACESCG, showing)


def log_energy(light: FloatArray) -> float:
    """Sum of squares of stops over middle grey where the light is over white."""
    stops = np.log2(np.maximum(light[0, :, 1], 1e-6) / 0.18)
    return float(np.square(stops[RAMP[0, :, 1] > 1]).sum())


def test_middle_grey_is_that_of_the_standards_and_64_is_still_below_white() -> None:
    """ACES 2.0 shows 0.18 at 10 nits of 100, which sRGB codes as 0.3492; IEC 61966-2-1 codes it as 0.4614."""
    assert seen(np.full((1, 1, 3), 0.18, np.float32)) == pytest.approx(0.3492, abs=1e-3)
    assert seen(np.full((1, 1, 3), 0.18, np.float32), SRGB) == pytest.approx(0.4614, abs=1e-3)
    codes = seen(RAMP)[0, :, 1]
    assert np.all(np.diff(codes) > 0)
    assert codes[-1] < 1


def test_below_the_knee_the_inverse_of_the_rendering_is_exact() -> None:
    plate = noise(8, 8, 3) * 0.3 + 0.05
    other = noise(8, 8, 3, seed=1) * 0.3 + 0.05
    assert seen(plate).max() < KNEE[Rendering.ACES]
    assert back(seen(other), plate, DISPLAY) == pytest.approx(other, rel=2e-3)


@pytest.mark.parametrize("showing", [ACES, SRGB], ids=["aces", "srgb"])
@pytest.mark.parametrize("style", [
    lambda codes: codes,
    lambda codes: 0.8 * codes + 0.1,
    lambda codes: codes**0.8,
    lambda codes: np.round(codes * 12) / 12 * 0.5 + codes * 0.5,
], ids=["untouched", "faded", "brighter", "posterised"])  # fmt: skip
def test_a_ramp_to_64_keeps_its_order_and_its_energy(style: object, showing: Showing) -> None:
    assert callable(style)
    light = back(style(seen(RAMP, showing)), RAMP, showing)
    over = RAMP[0, :, 1] > 1
    assert np.all(np.diff(light[0, over, 1]) > 0)
    assert log_energy(light) >= 0.95 * log_energy(RAMP)
    assert light.max() > 0.9 * 64


def test_a_clipped_picture_would_not_pass_that_test() -> None:
    assert log_energy(np.minimum(RAMP, 1)) < 0.5 * log_energy(RAMP)


@pytest.mark.parametrize("hue", [(1, 0.9, 0.6), (0.85, 0.95, 1)])
def test_a_style_of_another_hue_keeps_the_luminance_of_a_light(hue: tuple[float, ...]) -> None:
    weights = np.array([0.272229, 0.674082, 0.053689])  # of ACEScg, S-2014-004
    light = back(seen(RAMP) * np.array(hue, np.float32), RAMP)
    over = RAMP[0, :, 1] > 16
    error = np.log2((light @ weights) / (RAMP @ weights))[0, over]
    assert np.abs(error).max() < 0.05
    assert light[0, -1].argmax() == np.argmax(hue), "and has the hue of the style"


def test_a_lamp_that_was_painted_blue_does_not_glare() -> None:
    """Blue is a twentieth of luminance: as bright as white it would be twenty times as much."""
    lamp = np.full((1, 1, 3), 40, np.float32)
    light = back(np.array([[[0.4, 0.5, 1]]], np.float32), lamp)
    assert 40 < light.max() < 40 * 2**0.6


def test_a_light_that_half_just_holds_keeps_its_hue_within_half() -> None:
    """Cut channel by channel it would go white; what a float plate has beyond half is left as bright."""
    hue = np.array([1, 0.9, 0.6], np.float32)
    just, dimmer, beyond = (back(seen(lamp) * hue, lamp)[0, 0] for lamp in (
        np.full((1, 1, 3), light, np.float32) for light in (HALF_MAX, HALF_MAX / 4, HALF_MAX * 4)))
    assert just.max() == HALF_MAX and dimmer.max() > HALF_MAX / 4
    assert just / just.max() == pytest.approx(dimmer / dimmer.max(), rel=1e-3)
    assert beyond.max() > HALF_MAX * 4


def test_noise_of_the_model_does_not_shake_the_highlights() -> None:
    wobble = (noise(1, 400, 3) - 0.5) * np.float32(4 / 255)
    bright = RAMP[0, :, 1] > 4
    preserved, displayed = (
        np.abs(np.log2(np.maximum(back(seen(RAMP) + wobble, RAMP, showing), 1e-6) / RAMP))[0, bright].max()
        for showing in (ACES, DISPLAY))  # fmt: skip
    assert preserved < 0.15
    assert displayed > 1


def test_painted_white_where_the_plate_is_dark_is_bright_and_bounded() -> None:
    dark = np.full((1, 2, 3), 0.05, np.float32)
    painted = np.array([[[1, 1, 1], [0.9, 0.9, 0.9]]], np.float32)
    light = back(painted, dark)[0, :, 1]
    assert 2 < light[1] < light[0] < 8


def test_a_highlight_that_was_painted_dark_stays_dark() -> None:
    lamp = np.full((1, 1, 3), 40, np.float32)
    painted = np.full((1, 1, 3), 0.15, np.float32)
    assert back(painted, lamp).max() < 0.1


def test_colour_outside_the_displays_gamut_stays_where_the_style_leaves_it_alone() -> None:
    wide = np.array([[[0.9, -0.02, 0.01], [-0.1, 0.8, 0.02]]], np.float32)
    untouched = back(seen(wide), wide)
    assert untouched == pytest.approx(wide, abs=1e-5)
    near = back(seen(wide) + 0.02, wide)
    assert near.min() < -0.05
    grey = back(np.full((1, 2, 3), 0.5, np.float32), wide)
    assert np.ptp(grey[0, 0]) < 0.01


def test_on_the_log_curve_the_model_paints_the_highlights() -> None:
    light = back(seen(RAMP, MODEL) * 0.9, RAMP, MODEL)[0, :, 1]
    assert light[-1] == pytest.approx(64 * 2 ** (-0.1 * (np.log2(64) + 9.72)), rel=0.1)  # ACEScct: S-2016-001
    assert np.all(np.diff(light) > 0)
