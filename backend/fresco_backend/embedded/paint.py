# SPDX-License-Identifier: Apache-2.0
"""Media that keep the picture's colours: watercolour, oil, impressionist dabs, mosaic, stained glass.

Each function takes a picture (H, W, 3), an amount near 1 and a generator, and gives a picture of the same shape.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fresco_backend.embedded.lattice import Picture, Plane, blur, cells, grain, means, smoothstep
from fresco_backend.embedded.strokes import bristles, luma, shifted, smeared, tangents


def clipped(picture: Picture) -> Picture:
    """`picture` limited to [0, 1]."""
    return np.clip(picture, 0, 1).astype(np.float32)


def saturated(picture: Picture, gain: float) -> Picture:
    """`picture` with its distance from grey multiplied by `gain`."""
    grey = luma(picture)[..., None]
    return clipped(grey + (picture - grey) * gain)


def flattened(picture: Picture, contrast: float, rounds: int) -> Picture:
    """`picture` without details fainter than `contrast`, edges kept (bilateral filter, `rounds` times)."""
    for _ in range(rounds):
        picture = np.asarray(cv2.bilateralFilter(picture, 7, contrast, 3.0), np.float32)
    return picture


def stepped(plane: Plane, levels: float, hardness: float) -> Plane:
    """`plane` drawn towards `levels` steps between 0 and 1; a greater `hardness` makes the steps harder."""
    scaled = plane * levels
    step = np.floor(scaled)
    ramp = 0.5 + 0.5 * np.tanh(hardness * (scaled - step - 0.5)) / np.tanh(hardness / 2)
    return np.asarray((step + ramp) / levels, np.float32)


def relit(picture: Picture, target: Plane) -> Picture:
    """`picture` with its luma moved to `target` (H, W), hue kept."""
    return clipped(picture * ((target + 0.02) / (luma(picture) + 0.02))[..., None])


def watercolour(picture: Picture, amount: float, _rng: np.random.Generator) -> Picture:
    """Luminous washes that pool into dark rims, with white gaps between them, on cold-pressed paper."""
    waver = np.dstack([grain(picture.shape, 3.0), grain(picture.shape, 3.5)])
    wash = flattened(shifted(picture, 0.9 * amount * waver), 0.18, 3)
    tone = stepped(luma(wash) ** np.float32(0.8), 5, 5.0)
    rims = blur(tone, 0.8) - blur(tone, 3.0)
    pale = saturated(1 - 0.80 * (1 - relit(wash, tone)), 1.8)
    tooth = grain(picture.shape, 0.9)[..., None]
    pigment = (1 - pale) * (1 + 0.06 * amount * tooth) * (1 - np.clip(4 * amount * rims, 0, 0.7))[..., None]
    paper = np.array([1.0, 0.985, 0.95], np.float32) * (1 - 0.015 * amount * np.abs(tooth))
    return clipped(paper * (1 - pigment) * (1 - np.clip(-4 * amount * rims, 0, 0.45))[..., None])


def oil(picture: Picture, amount: float, _rng: np.random.Generator) -> Picture:
    """Thick brush strokes along the structures, lit from the upper left, calmer where there is detail."""
    grey = luma(picture)
    along = tangents(grey, 4.0)
    across = np.dstack([-along[..., 1], along[..., 0]])
    marks = np.tanh(1.3 * bristles(along, 1.2, (1, 2, 4, 3), grain(grey.shape, 0.0)))
    detail = smoothstep(0.02, 0.10, blur(np.abs(grey - blur(grey, 2.0)), 3.0))
    marks *= amount * (1 - 0.6 * detail)
    paint = shifted(smeared(picture, along, (1, 2, 3)), across * (2.0 * marks)[..., None])
    relief = cv2.Sobel(marks, cv2.CV_32F, 1, 0) + cv2.Sobel(marks, cv2.CV_32F, 0, 1)
    light = 1 + 0.14 * marks + 0.05 * np.asarray(relief, np.float32)
    return clipped((saturated(paint, 1.4) * 0.94 + 0.04) * light[..., None])


def impressionist(picture: Picture, amount: float, rng: np.random.Generator) -> Picture:
    """Short dabs of pure, broken colour: coarse dabs everywhere, fine dabs on detail."""
    grey = luma(picture)
    along = tangents(grey, 5.0)
    shadow = (1 - smoothstep(0.0, 0.5, grey))[..., None] * np.array([0.07, 0.04, 0.20], np.float32)
    pure = clipped(saturated(flattened(picture, 0.1, 1) ** np.float32(0.85), 1.9) + shadow)
    canvas = np.asarray(np.round(255 * blur(pure, 3.0)), np.uint8)
    detail = np.abs(grey - blur(grey, 4.0))
    _dab(canvas, pure, along, _Dabs(pitch=8, half=6.0 * amount, thickness=4), np.ones_like(grey, bool), rng)
    _dab(canvas, pure, along, _Dabs(pitch=4, half=3.5 * amount, thickness=2), detail > 0.05, rng)
    return np.asarray(canvas / 255, np.float32)


@dataclass(frozen=True, kw_only=True)
class _Dabs:
    """Size of dabs: `pitch` of their lattice, `half` their length, `thickness`; pixels."""

    pitch: int
    half: float
    thickness: int


def _dab(
    canvas: npt.NDArray[np.uint8],
    colours: Picture,
    along: Picture,
    dabs: _Dabs,
    where: npt.NDArray[np.bool_],
    rng: np.random.Generator,
) -> None:
    height, width = where.shape
    y, x = (a.ravel() for a in np.mgrid[dabs.pitch // 2 : height : dabs.pitch, dabs.pitch // 2 : width : dabs.pitch])
    chosen = where[y, x]
    y, x = y[chosen], x[chosen]
    # Neighbouring dabs lean to warm and to cool in turn, as pure colours that mix in the eye.
    lean = np.where((x // dabs.pitch + y // dabs.pitch) % 2, 1.0, -1.0)[:, None] * np.array([0.07, 0.01, -0.08])
    value = (0.06 * (((x // dabs.pitch) % 3) - 1))[:, None]
    inks = np.clip(255 * (colours[y, x] + lean + value), 0, 255).astype(int)
    middle = np.stack([x, y], -1) + rng.uniform(-1, 1, (len(x), 2))
    reach = along[y, x] * dabs.half
    starts, ends = (np.round(8 * (middle + sign * reach)).astype(int) for sign in (-1, 1))
    for start, end, ink in zip(starts.tolist(), ends.tolist(), inks.tolist(), strict=True):
        cv2.line(canvas, start, end, ink, dabs.thickness, cv2.LINE_AA, 3)


def mosaic(picture: Picture, amount: float, _rng: np.random.Generator) -> Picture:
    """Small stone tiles of one colour each, bevelled, no two quite alike, set in dark grout."""
    tiles = cells(picture, 8, compactness=14.0, staggered=False)
    samples = np.dstack([picture, grain(picture.shape, 3.0)]).reshape(-1, 4)
    stones = means(samples, tiles.labels.ravel(), tiles.count)
    colour = clipped(stones[:, :3] * (1 + 0.09 * amount * stones[:, 3:]))[tiles.labels]
    bevel = smoothstep(0.5, 4.0, tiles.depth)[..., None]
    grout = 0.8 * (1 - smoothstep(0.0, 0.7 + 0.4 * amount, tiles.depth))[..., None]
    lit = saturated(colour, 1.6) * (0.98 + 0.16 * bevel)
    return clipped((1 - grout) * lit + grout * np.array([0.33, 0.30, 0.27], np.float32))


def stained_glass(picture: Picture, amount: float, _rng: np.random.Generator) -> Picture:
    """Cells of glowing glass between dark lead lines."""
    panes = cells(picture, 16, compactness=11.0, staggered=True)
    colour = means(picture.reshape(-1, 3), panes.labels.ravel(), panes.count)[panes.labels]
    lead = 1 - smoothstep(0.6 * amount, 1.2 + 0.8 * amount, panes.depth)
    glow = 0.82 + 0.4 * smoothstep(0.0, 6.0, panes.depth)
    glass = saturated(clipped(colour ** np.float32(0.9)), 2.3) * glow[..., None]
    return clipped(glass * (1 - lead)[..., None] + 0.05 * lead[..., None])
