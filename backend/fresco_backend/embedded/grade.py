# SPDX-License-Identifier: Apache-2.0
"""Grades: colour, light and season. A medium may be laid over any of them.

Each function takes a picture (H, W, 3), an amount near 1 and a generator, and gives a picture of the same shape.
"""

import cv2
import numpy as np

from fresco_backend.embedded.draw import levelled
from fresco_backend.embedded.lattice import Picture, Plane, blur, grain, leaf_fall, smoothstep, snowfall
from fresco_backend.embedded.paint import clipped, saturated
from fresco_backend.embedded.strokes import luma


def toned(plane: Plane, stops: list[tuple[float, float, float]]) -> Picture:
    """`plane` (H, W) in [0, 1] mapped to colours, evenly spaced `stops` from dark to light."""
    at = np.linspace(0, 1, len(stops))
    return np.dstack([np.interp(plane, at, [stop[c] for stop in stops]) for c in range(3)]).astype(np.float32)


def mixed(under: Picture, over: Picture, cover: Plane) -> Picture:
    """`over` laid on `under` where `cover` (H, W) is 1."""
    return clipped(under + (over - under) * cover[..., None])


def foliage(picture: Picture) -> Plane:
    """How much each pixel looks like leaves or grass, in [0, 1]: green or yellow, or lively but not blue."""
    red, green, blue = cv2.split(blur(picture, 2.0))  # compressed chroma comes in blocks
    greenness = smoothstep(0.005, 0.07, np.asarray(np.minimum(green - blue, 1.12 * green - red), np.float32))
    grey = luma(picture)
    lively = smoothstep(0.03, 0.09, blur(np.abs(grey - blur(grey, 2.0)), 4.0))
    neutral = 1 - smoothstep(0.0, 0.06, np.asarray(blue - red, np.float32))
    return np.asarray(np.clip(np.maximum(greenness, 0.5 * lively * neutral), 0, 1), np.float32)


def cyanotype(picture: Picture, amount: float, _rng: np.random.Generator) -> Picture:
    """Prussian blue on white cotton paper."""
    tone = levelled(luma(picture)) + 0.025 * amount * grain(picture.shape, 1.0)
    return toned(np.clip(tone, 0, 1), [(0.02, 0.09, 0.25), (0.05, 0.24, 0.48), (0.35, 0.58, 0.76), (0.93, 0.96, 0.96)])


def sepia(picture: Picture, amount: float, rng: np.random.Generator) -> Picture:
    """An old brown print: soft contrast, fine film grain, darker corners."""
    height, width = picture.shape[:2]
    noise = blur(rng.standard_normal((height, width), np.float32), 0.7)
    tone = 0.08 + 0.86 * levelled(luma(blur(picture, 0.6))) + 0.07 * amount * noise
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    corners = 1 - 0.22 * amount * (x * x + y * y) ** 1.5 / 2
    brown = toned(np.clip(tone, 0, 1), [(0.13, 0.07, 0.03), (0.50, 0.33, 0.18), (0.84, 0.70, 0.48), (0.98, 0.91, 0.75)])
    return clipped(brown * corners[..., None].astype(np.float32))


def night(picture: Picture, amount: float, _rng: np.random.Generator) -> Picture:
    """Deep blue darkness in which edges glow like neon tubes, cyan to magenta by their direction."""
    soft = blur(picture, 1.3)
    grey = luma(soft)
    dx, dy = (np.asarray(cv2.Sobel(grey, cv2.CV_32F, *order), np.float32) for order in ((1, 0), (0, 1)))
    strength = smoothstep(0.10, 0.6, np.hypot(dx, dy))
    side = (0.5 + 0.5 * (dx * dx - dy * dy) / (dx * dx + dy * dy + 1e-4))[..., None]
    colour = side * np.array([1.0, 0.10, 0.75], np.float32) + (1 - side) * np.array([0.05, 0.85, 1.0], np.float32)
    tubes = np.asarray(colour * strength[..., None], np.float32)
    dark = toned(grey, [(0.01, 0.01, 0.05), (0.06, 0.05, 0.20), (0.16, 0.13, 0.36)])
    dark += 0.10 * (picture - grey[..., None])
    glow = 0.9 * tubes + 0.6 * blur(tubes, 2.0) + 0.7 * blur(tubes, 7.0) + 0.35 * strength[..., None] ** 3
    return clipped(dark + amount * glow)


def winter(picture: Picture, amount: float, _rng: np.random.Generator) -> Picture:
    """Cold grey light, snow on foliage and on every ledge, and flakes in the air."""
    grey = luma(picture)
    cold = saturated(picture, 0.3) * np.array([0.74, 0.84, 0.96], np.float32) + np.array([0.10, 0.13, 0.17], np.float32)
    soft = blur(grey, 1.5)
    ledges = blur(smoothstep(0.06, 0.18, np.abs(shifted_rows(soft, 2) - shifted_rows(soft, -2))), 1.5)
    leaves = 0.85 * foliage(picture) * smoothstep(0.08, 0.4, blur(grey, 1.0))
    snow = np.clip(amount * np.maximum(ledges, leaves), 0, 1)
    white = toned(np.clip(0.35 + 0.8 * grey, 0, 1), [(0.45, 0.56, 0.72), (0.76, 0.85, 0.94), (1.0, 1.0, 1.0)])
    flakes = 0.95 * snowfall(picture.shape)
    return mixed(mixed(clipped(cold), white, snow), np.ones_like(picture), flakes)


def shifted_rows(plane: Plane, rows: int) -> Plane:
    """`plane` moved down by `rows`, its border repeated."""
    at = np.clip(np.arange(plane.shape[0]) - rows, 0, plane.shape[0] - 1)
    return plane[at]


def autumn(picture: Picture, amount: float, _rng: np.random.Generator) -> Picture:
    """Foliage turned to orange and rust under a low golden sun."""
    leaves = np.clip(amount * foliage(picture), 0, 1)
    mottle = np.clip(levelled(luma(picture)) + 0.06 * grain(picture.shape, 2.0), 0, 1)
    rust = toned(mottle, [(0.20, 0.05, 0.03), (0.66, 0.20, 0.05), (0.94, 0.50, 0.08), (1.0, 0.84, 0.45)])
    gold = np.asarray(1.06 * np.array([1.0, 0.87, 0.66]) ** amount, np.float32)
    warm = clipped(saturated(picture, 0.8) * gold + np.array([0.05, 0.02, 0.0], np.float32))
    turned = mixed(warm, rust, leaves)
    leaf = leaf_fall(picture.shape)
    coloured = toned(leaf, [(0.85, 0.30, 0.04), (0.80, 0.12, 0.03), (0.95, 0.55, 0.08)])
    return mixed(turned, coloured, smoothstep(0.1, 0.3, leaf))


def infrared(picture: Picture, amount: float, _rng: np.random.Generator) -> Picture:
    """False colour film: foliage pink and white, sky nearly black, a soft glow."""
    red, green, blue = (picture[..., c] for c in range(3))
    leaves = foliage(picture)
    sky = smoothstep(0.03, 0.2, blur(np.asarray(blue - red, np.float32), 2.0))
    grey = luma(picture)
    waxy = toned(grey, [(0.02, 0.05, 0.08), (0.30, 0.36, 0.42), (0.84, 0.67, 0.74), (1.0, 0.95, 0.94)])
    swapped = 0.35 * np.dstack([0.5 * red + 0.5 * green, 0.75 * red, 0.9 * green]).astype(np.float32) + 0.65 * waxy
    bright = np.clip(0.03 + 1.1 * grey, 0, 1)
    pink = toned(bright, [(0.35, 0.02, 0.16), (0.92, 0.22, 0.46), (1.0, 0.66, 0.78), (1.0, 0.95, 0.97)])
    film = mixed(swapped, pink, np.clip(amount * leaves, 0, 1))
    film = mixed(film, film * np.array([0.12, 0.30, 0.38], np.float32), np.clip(amount * sky, 0, 1))
    return clipped(film + 0.3 * amount * blur(np.clip(film - 0.7, 0, 1), 4.0))
