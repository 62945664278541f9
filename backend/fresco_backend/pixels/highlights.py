# SPDX-License-Identifier: Apache-2.0
"""Scene light that is brighter than a display, through a model that sees [0, 1]: in by a rendering, out by its inverse.

Back comes the light of what was painted. Above a knee, where the inverse is steep or the display holds nothing more,
the plate's own light is carried around the model instead. Of ACES 2.0 the knee lies at 0.75: near white one 8-bit step
of its inverse is a stop. The sRGB curve is nowhere that steep, and holds nothing above white.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import OpenImageIO as oiio  # noqa: N813, the name in its own manual

from fresco_backend.files.frames import HALF_MAX, FloatArray
from fresco_backend.pixels.color_config import (
    HUB,
    RENDERING,
    ColorSpace,
    applied,
    buffer,
    color_space,
    from_aces,
    luminance_weights,
    to_aces,
)
from fresco_backend.pixels.transfer import srgb_decode, srgb_encode
from fresco_protocol.shot import Highlights, Rendering

KNEE = {Rendering.ACES: 0.75, Rendering.SRGB: 1.0}  # of the display
KNEE_LIGHT = {Rendering.ACES: 1.271, Rendering.SRGB: 1.0}  # scene light that is shown as the knee
SLOPE = 7.9  # stops of light over the whole range of the display: that of the inverse of ACES 2.0 just below the knee
BLEND = 4.0  # stops above the knee, over which the plate's own light takes over
FLOOR = 1 / 64  # scene light added to both sides of a ratio, so that black has none
HUE = 0.5  # stops by which a highlight's brightest channel may rise or fall for the sake of its luminance
NEAR = 0.2  # of the display: a pixel painted further from the plate keeps nothing that the display could not show
# Rec. ITU-R BT.709-6, item 3.2; of display codes, so a luma.
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
_NONE = np.float32(1e-4)  # of the display: black painted black is all of it
REC709 = "lin_rec709_scene"
_VIEW = ("sRGB", "ACES 2.0 SDR", HUB)


@dataclass(frozen=True, kw_only=True)
class Showing:
    """How scene light is shown to a model, and what becomes of what it cannot see."""

    method: Highlights
    rendering: Rendering


def shown(light: FloatArray, showing: Showing) -> FloatArray:
    """What a model sees of scene light: (H, W, 3) in [0, 1]. light: ACES2065-1, not multiplied by alpha, finite."""
    if showing.method is Highlights.MODEL:
        return np.clip(_log(light), 0, 1)
    if showing.rendering is Rendering.SRGB:
        return np.clip(srgb_encode(from_aces(light, color_space(REC709))), 0, 1)
    return np.clip(_view(light, inverse=False), 0, 1)


def restored(painted: FloatArray, display: FloatArray, plate: FloatArray, space: ColorSpace,
             showing: Showing) -> FloatArray:
    """The light of a painted picture, (H, W, 3) in the plate's linear space.

    painted, display: what the model made and what it saw, (H, W, 3) in [0, 1]. plate: the light itself, in `space`.
    PRESERVE: out = base * 2^(g w) + n (plate - held) with held = base0 * 2^g. base and base0 are the light of what was
    painted and shown. g are the stops by which the plate is brighter than base0, and, the further it is above the knee,
    those by which base0 is brighter than base, by luminance: high up only the hue is the style's. w says how little the
    style went dark, n how near painted and shown are. So painted as shown gives the plate, colours outside the
    display's gamut included. Light that half holds in the plate it holds in the result. MODEL: log out. DISPLAY: the
    exact inverse, nothing of the plate.
    """
    if showing.method is Highlights.DISPLAY:
        return _light(painted, space, showing.rendering)
    if showing.method is Highlights.MODEL:
        base, held = (from_aces(_unlog(picture), space) for picture in (painted, display))
        carried = base
    else:
        over = _stops_over(plate, KNEE_LIGHT[showing.rendering])
        free = 1 - _smoothstep(over / BLEND)
        base, shown_base = (_base(picture, free, space, showing.rendering) for picture in (painted, display))
        gain = np.minimum(_gain(plate, shown_base, space), over)
        lifted = gain + (1 - free) * _dimmed(base, shown_base, space)
        carried, held = base * np.exp2(lifted * kept_share(painted, display)), shown_base * np.exp2(gain)
    # Summed so that nothing is rounded where nothing was painted.
    return _within_half(plate + (carried - held) - (1 - nearness(painted, display)) * (plate - held), plate)


def _within_half(light: FloatArray, plate: FloatArray) -> FloatArray:
    """The light, dimmed with its hue where another hue took a channel beyond half, and the plate's were within."""
    peak = light.max(axis=-1, keepdims=True)
    beyond = (peak > HALF_MAX) & (plate.max(axis=-1, keepdims=True) <= HALF_MAX)
    dimmed = np.minimum(light * (HALF_MAX / np.maximum(peak, HALF_MAX)), HALF_MAX)
    return np.asarray(np.where(beyond, dimmed, light), np.float32)


def kept_share(painted: FloatArray, display: FloatArray) -> FloatArray:
    """How much of the plate's excess a painted pixel takes, (H, W, 1) in [0, 1]: all unless the style went dark.

    Smoothstep of (Y' - 0.2 Y) / (0.3 Y), with the luma of what was painted and shown: all from half of it on. A strong
    style seldom paints a small light as bright as it is.
    """
    before, after = (np.maximum(picture @ _LUMA, 0)[..., None] for picture in (display, painted))
    return _smoothstep((after - 0.2 * before + _NONE) / (0.3 * before + _NONE))


def nearness(painted: FloatArray, display: FloatArray) -> FloatArray:
    """How near a painted pixel is to what was shown, (H, W, 1): 1 where equal, 0 from `NEAR` on."""
    return 1 - _smoothstep(np.abs(painted - display).max(axis=-1, keepdims=True) / NEAR)


def _dimmed(painted: FloatArray, held: FloatArray, space: ColorSpace) -> FloatArray:
    """Stops by which what was painted is less bright than what was shown, (H, W, 1): by luminance, so that another hue
    is as bright; but no further than `HUE` from what the brightest channels say, or a lamp painted blue would glare.
    """
    weights = np.array(luminance_weights(space), np.float32)
    luminance, peak = (measure(held) - measure(painted) for measure in (
        lambda light: _stops((light @ weights)[..., None]), _peak_stops))
    return np.asarray(np.clip(luminance, peak - HUE, peak + HUE), np.float32)


def _stops(light: FloatArray) -> FloatArray:
    return np.asarray(np.log2(np.maximum(light, np.float32(FLOOR))), np.float32)


def _peak_stops(light: FloatArray) -> FloatArray:
    return _stops(light.max(axis=-1, keepdims=True))


def _stops_over(plate: FloatArray, knee: float) -> FloatArray:
    """Stops by which the plate's brightest channel is above the knee, (H, W, 1), never below 0."""
    peak = plate.max(axis=-1, keepdims=True)
    return np.asarray(np.log2(np.maximum(peak, knee) / np.float32(knee)), np.float32)


def _base(display: FloatArray, free: FloatArray, space: ColorSpace, rendering: Rendering) -> FloatArray:
    """The light of a display's picture: the exact inverse up to the knee, above it its tangent in stops, hue kept.

    free: (H, W, 1), how much of those stops counts; none where the plate itself is a highlight.
    """
    knee, peak = KNEE[rendering], display.max(axis=-1, keepdims=True)
    inside = display * np.minimum(1, knee / np.maximum(peak, 1e-6))
    stops = np.float32(SLOPE) * free * np.maximum(peak - knee, 0)
    return np.asarray(_light(inside, space, rendering) * np.exp2(stops), np.float32)


def _gain(plate: FloatArray, base: FloatArray, space: ColorSpace) -> FloatArray:
    """Stops by which the plate is brighter than what the display holds of it, (H, W, 1), never below 0."""
    weights = np.array(luminance_weights(space), np.float32)
    bright, held = (np.maximum(light @ weights, 0)[..., None] + np.float32(FLOOR) for light in (plate, base))
    return np.asarray(np.maximum(np.log2(bright / held), 0), np.float32)


def _smoothstep(ramp: FloatArray) -> FloatArray:
    inside = np.clip(ramp, 0, 1)
    return np.asarray(inside * inside * (3 - 2 * inside), np.float32)


def _light(picture: FloatArray, space: ColorSpace, rendering: Rendering) -> FloatArray:
    """The inverse of a rendering: the light that is shown as this picture."""
    if rendering is Rendering.ACES:
        return from_aces(_view(picture, inverse=True), space)
    light, linear = srgb_decode(picture), color_space(REC709)
    return light if space == linear else from_aces(to_aces(light, linear), space)


def _view(picture: FloatArray, *, inverse: bool) -> FloatArray:
    render: Callable[..., oiio.ImageBuf] = oiio.ImageBufAlgo.ociodisplay
    return applied(render(buffer(picture), *_VIEW, inverse=inverse, colorconfig=RENDERING))


def _log(light: FloatArray) -> FloatArray:
    return from_aces(light, ColorSpace(RENDERING, "ACEScct"))


def _unlog(codes: FloatArray) -> FloatArray:
    return to_aces(codes, ColorSpace(RENDERING, "ACEScct"))
