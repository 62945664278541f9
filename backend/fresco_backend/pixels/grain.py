# SPDX-License-Identifier: Apache-2.0
"""The plate's grain: taken off before the model sees it, put back after, or made anew in its measured size and level.

Grain is worked on where it is about as strong in shadows as in lights: in stops of scene light, in the codes of a
picture or of a log curve.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from fresco_backend.files.frames import FloatArray, Frame, as_rgb, cleaned
from fresco_backend.pixels.color_config import ColorSpace, is_linear
from fresco_protocol.shot import Grain

FLOOR = 1 / 64  # scene light added before it is counted in stops, so that black has an end
REACH = 3.0  # times the measured level: a difference of more is an edge, not grain
RADIUS = 5  # pixels across the neighbourhood that grain is averaged over
BINS = 8  # of brightness, in which the level of grain is measured
SIZES = np.linspace(0.05, 2.0, 40)  # pixels, sigma of the blur that gives noise its size


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What grain is like. size: sigma in pixels of the blur that white noise has to go through. levels: standard
    deviation in each of `BINS` equal ranges of brightness. low, high: ends of that brightness.
    """

    size: float
    levels: tuple[float, ...]
    low: float
    high: float


def without_grain(frame: Frame, space: ColorSpace) -> Frame:
    """The frame with its grain averaged out, edges kept (a bilateral filter: Tomasi and Manduchi, ICCV 1998)."""
    signal = _signal(as_rgb(cleaned(frame.pixels).samples), space)
    level = noise_level(signal, _solid(frame))
    if level == 0:
        return frame
    smooth = np.asarray(cv2.bilateralFilter(signal, RADIUS, REACH * level * np.sqrt(3), RADIUS / 2), np.float32)
    names = frame.channels if len(frame.channels) == 3 else ("R", "G", "B")
    return replace(frame, pixels=_unsignalled(smooth, space), channels=names)


def put_back(stylised: Frame, plate: Frame, clean: Frame, space: ColorSpace, kind: Grain, number: int) -> Frame:
    """The stylised frame with grain; under no alpha, the plate's. plate, clean: the frame with its grain and without.

    number: seeds new grain.
    """
    if kind is Grain.NONE:
        return stylised
    before, after = (_signal(as_rgb(cleaned(frame.pixels).samples), space) for frame in (plate, clean))
    grain = before - after
    signal = _signal(stylised.pixels, space)
    if kind is Grain.MATCH:
        solid = _solid(plate)
        grain = np.where(solid[..., None], made(measured(grain, after, solid), signal, number), grain)
    return replace(stylised, pixels=_unsignalled(signal + grain, space))


def measured(grain: FloatArray, clean: FloatArray, solid: NDArray[np.bool_]) -> Measured:
    """Size and level of grain, (H, W, 3), over the picture that it lay on, where that is solid, (H, W)."""
    if not solid.any():
        return Measured(size=0.0, levels=(0.0,) * BINS, low=0.0, high=0.0)
    bright = clean.mean(axis=-1)
    low, high = float(bright[solid].min()), float(bright[solid].max())
    places = np.where(solid, _bins(bright, low, high), BINS)
    overall = float(grain[solid].std())
    levels = tuple(float(grain[places == place].std()) if np.count_nonzero(places == place) > 100 else overall
                   for place in range(BINS))
    return Measured(size=_size(grain), levels=levels, low=low, high=high)


def made(like: Measured, signal: FloatArray, number: int) -> FloatArray:
    """New grain for a picture (H, W, 3): each channel its own, of the measured size, as strong as there."""
    noise = np.random.default_rng(number % 2**64).standard_normal(signal.shape, np.float32)
    if like.size > SIZES[0]:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), like.size, borderType=cv2.BORDER_REFLECT), np.float32)
        noise /= noise.std()
    levels = np.array(like.levels, np.float32)
    return np.asarray(noise * levels[_bins(signal.mean(axis=-1), like.low, like.high)][..., None], np.float32)


def noise_level(signal: FloatArray, solid: NDArray[np.bool_]) -> float:
    """Standard deviation of the noise of a picture (H, W, 3): the median over it, which edges do not move.

    solid: (H, W), where the picture is: of an element most of the frame may be clear, and has no grain.

    Source: Immerkaer, "Fast noise variance estimation", CVIU 1996; with the median in place of the mean.
    """
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(cv2.filter2D(signal, -1, kernel))
    return float(np.median(response[solid])) / (0.6745 * 6) if solid.any() else 0.0


def _solid(frame: Frame) -> NDArray[np.bool_]:
    """(H, W): where a frame has alpha, or has none to say that it is clear."""
    return np.ones(frame.pixels.shape[:2], np.bool_) if frame.alpha is None else frame.alpha > 0


def _signal(colour: FloatArray, space: ColorSpace) -> FloatArray:
    """Stops over the floor of linear light; codes as they are. Below the floor a stop has no meaning: codes go on."""
    if not is_linear(space):
        return colour
    floor = np.float32(FLOOR)
    return np.asarray(np.log2(np.maximum(colour, 0) / floor + 1) + np.minimum(colour, 0) / floor, np.float32)


def _unsignalled(signal: FloatArray, space: ColorSpace) -> FloatArray:
    if not is_linear(space):
        return signal
    light = np.float32(FLOOR) * (np.exp2(np.maximum(signal, 0)) - 1)
    return np.asarray(light + np.float32(FLOOR) * np.minimum(signal, 0), np.float32)


def _bins(bright: FloatArray, low: float, high: float) -> NDArray[np.intp]:
    place = (bright - low) / max(high - low, 1e-6) * BINS
    return np.clip(place.astype(np.intp), 0, BINS - 1)


def _size(grain: FloatArray) -> float:
    """The sigma whose blurred noise is as like its neighbour as this grain is."""
    centred = grain - grain.mean(axis=(0, 1))
    power = float(np.square(centred).mean()) or 1.0
    across = float((centred[:, 1:] * centred[:, :-1]).mean()) / power
    down = float((centred[1:] * centred[:-1]).mean()) / power
    return float(np.interp((across + down) / 2, _likeness(), SIZES))


@lru_cache
def _likeness() -> NDArray[np.float64]:
    """Correlation of neighbours in white noise under each of the `SIZES`, as the blur's own kernel has it."""
    found = []
    for sigma in SIZES:
        kernel = cv2.getGaussianKernel(2 * int(4 * sigma + 0.5) + 1, sigma)[:, 0]
        found.append(float((kernel[1:] * kernel[:-1]).sum() / np.square(kernel).sum()))
    return np.array(found)
