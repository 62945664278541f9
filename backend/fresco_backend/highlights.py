# SPDX-License-Identifier: Apache-2.0
"""Scene light that is brighter than a display, through a model that sees [0, 1]: in by a rendering, out by its inverse.

In goes the ACES 2.0 rendering for an sRGB display, whose inverse is exact, exposed so that middle grey has the code of
sRGB: models were trained on pictures whose greys lie there. Back comes the light of what was painted. Near white the
inverse turns one 8-bit step into a stop, so there the plate's own light is carried around the model instead.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import OpenImageIO as oiio  # noqa: N813, the name in its own manual

from fresco_backend.color_config import (
    HUB,
    RENDERING,
    ColorSpace,
    applied,
    buffer,
    from_aces,
    luminance_weights,
    to_aces,
)
from fresco_backend.frames import HALF_MAX, FloatArray
from fresco_protocol.shot import Highlights

EXPOSURE = 0.776  # stops; ACES 2.0 then gives 0.18 the code 0.4614, as IEC 61966-2-1 does
KNEE = 0.75  # of the display, above which the inverse is too steep for a model's noise
KNEE_LIGHT = 0.742  # scene light that is shown as the knee
SLOPE = 7.9  # stops of light over the whole range of the display: that of the inverse just below the knee
BLEND = 4.0  # stops above the knee, over which the plate's own light takes over
FLOOR = 1 / 64  # scene light added to both sides of a ratio, so that black has none
NEAR = 0.2  # of the display: a pixel painted further from the plate keeps nothing that the display could not show
# Rec. ITU-R BT.709-6, item 3.2; of display codes, so a luma.
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
_NONE = np.float32(1e-4)  # of the display: black painted black is all of it
_VIEW = ("sRGB", "ACES 2.0 SDR", HUB)


def shown(light: FloatArray, method: Highlights) -> FloatArray:
    """What a model sees of scene light: (H, W, 3) in [0, 1]. light: ACES2065-1, not multiplied by alpha, finite."""
    if method is Highlights.MODEL:
        return np.clip(_log(light), 0, 1)
    exposed = np.clip(light * np.float32(2**EXPOSURE), -HALF_MAX, HALF_MAX)
    return np.clip(_view(exposed, inverse=False), 0, 1)


def restored(painted: FloatArray, display: FloatArray, plate: FloatArray, space: ColorSpace,
             method: Highlights) -> FloatArray:
    """The light of a painted picture, (H, W, 3) in the plate's linear space.

    painted, display: what the model made and what it saw, (H, W, 3) in [0, 1]. plate: the light itself, in `space`.
    PRESERVE: out = base * 2^(g w) + n (plate - held) with held = base0 * 2^g. base and base0 are the light of what was
    painted and shown, g the stops by which the plate is brighter than base0, w how little the style went into the dark,
    n how near painted and shown are. So painted as shown gives the plate, colours outside the display's gamut included.
    MODEL: log out. DISPLAY: the exact inverse, nothing of the plate.
    """
    if method is Highlights.DISPLAY:
        return _unexposed(_view(painted, inverse=True), space)
    if method is Highlights.MODEL:
        base, held = (from_aces(_unlog(picture), space) for picture in (painted, display))
        carried = base
    else:
        over = _stops_over(plate)
        free = 1 - _smoothstep(over / BLEND)
        base, shown_base = (_base(picture, free, space) for picture in (painted, display))
        gain = np.minimum(_gain(plate, shown_base, space), over)
        carried, held = base * np.exp2(gain * kept_share(painted, display)), shown_base * np.exp2(gain)
    # Summed so that nothing is rounded where nothing was painted.
    return np.asarray(plate + (carried - held) - (1 - nearness(painted, display)) * (plate - held), np.float32)


def kept_share(painted: FloatArray, display: FloatArray) -> FloatArray:
    """How much of the plate's excess a painted pixel takes, (H, W, 1) in [0, 1]: all unless the style went dark.

    Smoothstep of (Y' - 0.35 Y) / (0.4 Y), with the luma of what was painted and shown.
    """
    before, after = (np.maximum(picture @ _LUMA, 0)[..., None] for picture in (display, painted))
    return _smoothstep((after - 0.35 * before + _NONE) / (0.4 * before + _NONE))


def nearness(painted: FloatArray, display: FloatArray) -> FloatArray:
    """How near a painted pixel is to what was shown, (H, W, 1): 1 where equal, 0 from `NEAR` on."""
    return 1 - _smoothstep(np.abs(painted - display).max(axis=-1, keepdims=True) / NEAR)


def _stops_over(plate: FloatArray) -> FloatArray:
    """Stops by which the plate's brightest channel is above the knee, (H, W, 1), never below 0."""
    peak = plate.max(axis=-1, keepdims=True)
    return np.asarray(np.maximum(np.log2(np.maximum(peak, KNEE_LIGHT) / np.float32(KNEE_LIGHT)), 0), np.float32)


def _base(display: FloatArray, free: FloatArray, space: ColorSpace) -> FloatArray:
    """The light of a display's picture: the exact inverse up to the knee, above it its tangent in stops, hue kept.

    free: (H, W, 1), how much of those stops counts; none where the plate itself is a highlight.
    """
    peak = display.max(axis=-1, keepdims=True)
    inside = display * np.minimum(1, KNEE / np.maximum(peak, 1e-6))
    stops = np.float32(SLOPE) * free * np.maximum(peak - KNEE, 0)
    return np.asarray(_unexposed(_view(inside, inverse=True), space) * np.exp2(stops), np.float32)


def _gain(plate: FloatArray, base: FloatArray, space: ColorSpace) -> FloatArray:
    """Stops by which the plate is brighter than what the display holds of it, (H, W, 1), never below 0."""
    weights = np.array(luminance_weights(space), np.float32)
    bright, held = (np.maximum(light @ weights, 0)[..., None] + np.float32(FLOOR) for light in (plate, base))
    return np.asarray(np.maximum(np.log2(bright / held), 0), np.float32)


def _smoothstep(ramp: FloatArray) -> FloatArray:
    inside = np.clip(ramp, 0, 1)
    return np.asarray(inside * inside * (3 - 2 * inside), np.float32)


def _unexposed(light: FloatArray, space: ColorSpace) -> FloatArray:
    return from_aces(light * np.float32(2**-EXPOSURE), space)


def _view(picture: FloatArray, *, inverse: bool) -> FloatArray:
    render: Callable[..., oiio.ImageBuf] = oiio.ImageBufAlgo.ociodisplay
    return applied(render(buffer(picture), *_VIEW, inverse=inverse, colorconfig=RENDERING))


def _log(light: FloatArray) -> FloatArray:
    return from_aces(light, ColorSpace(RENDERING, "ACEScct"))


def _unlog(codes: FloatArray) -> FloatArray:
    return to_aces(codes, ColorSpace(RENDERING, "ACEScct"))
