# SPDX-License-Identifier: Apache-2.0
"""Media that draw: ink and wash, pencil, charcoal, comic, cel shading.

Each function takes a picture (H, W, 3), an amount near 1 and a generator, and gives a picture of the same shape.
"""

import numpy as np

from fresco_backend.embedded.lattice import Picture, Plane, blur, dots, grain, hatching, smoothstep
from fresco_backend.embedded.paint import clipped, flattened, relit, saturated, stepped
from fresco_backend.embedded.strokes import bristles, lines, luma, smeared, tangents


def levelled(plane: Plane) -> Plane:
    """`plane` stretched so that its 2nd and 98th percentiles come near 0 and 1; at most doubled in contrast."""
    low, high = np.percentile(plane, (2, 98))
    middle, span = (low + high) / 2, max(float(high - low), 0.5)
    return np.asarray(np.clip((plane - middle) / span + 0.5, 0, 1), np.float32)


def on_paper(ink: Plane, paper: tuple[float, float, float], colour: tuple[float, float, float]) -> Picture:
    """`ink` (H, W), coverage in [0, 1], of one `colour` on a `paper`."""
    cover = np.clip(ink, 0, 1)[..., None]
    return clipped((1 - cover) * np.array(paper, np.float32) + cover * np.array(colour, np.float32))


def ink(picture: Picture, amount: float, _rng: np.random.Generator) -> Picture:
    """Black brush lines over three grey washes that pool at their rims."""
    grey = levelled(luma(flattened(picture, 0.15, 2)))
    tone = stepped(blur(grey, 1.2) ** np.float32(0.65), 3, 4.0)
    rims = np.abs(blur(tone, 0.8) - blur(tone, 3.0))
    wash = 0.85 * (1 - tone) * (1 + 0.04 * grain(picture.shape, 2.0)) + 0.8 * rims
    stroke = lines(grey, width=1.3 * amount, threshold=0.02)
    return on_paper(np.maximum(wash, stroke), (0.97, 0.95, 0.90), (0.04, 0.04, 0.06))


def pencil(picture: Picture, amount: float, _rng: np.random.Generator) -> Picture:
    """Thin graphite contours and diagonal hatching on white paper."""
    grey = levelled(luma(picture))
    shade = blur(1 - grey, 1.2)
    wobble = 0.5 * grain(picture.shape, 3.0)
    first = hatching(0.75 * smoothstep(0.25, 1.0, shade), rising=True, wobble=wobble)
    second = hatching(0.7 * smoothstep(0.6, 1.1, shade), rising=False, wobble=wobble)
    contour = lines(grey, width=0.8, threshold=0.018)
    graphite = amount * (0.42 * first + 0.33 * second + 0.12 * shade) + 0.6 * contour
    tooth = 1 + 0.18 * grain(picture.shape, 0.6)
    return on_paper(graphite * tooth, (0.98, 0.98, 0.97), (0.20, 0.20, 0.22))


def charcoal(picture: Picture, amount: float, _rng: np.random.Generator) -> Picture:
    """Broad, smudged black strokes on rough buff paper."""
    grey = levelled(luma(picture))
    along = tangents(grey, 5.0)
    smudge = smeared(blur(1 - grey, 1.2), along, (2, 4))
    strokes = bristles(along, 0.9, (1, 2, 4), grain(picture.shape, 0.0))
    tooth = grain(picture.shape, 0.8)
    soft = 0.55 * smoothstep(0.15, 1.1, smudge)
    drawn = 0.75 * smoothstep(0.40, 1.0, smudge + 0.11 * amount * strokes + 0.06 * tooth)
    mass = (1 - (1 - soft) * (1 - drawn)) * (1 + 0.08 * tooth)
    contour = lines(blur(grey, 0.7), width=1.8, threshold=0.03) * (0.80 + 0.15 * tooth)
    return on_paper(np.maximum(mass, contour), (0.86, 0.78, 0.66), (0.06, 0.05, 0.05))


def comic(picture: Picture, amount: float, _rng: np.random.Generator) -> Picture:
    """Bright flat colours, halftone dots in the shadows, bold black lines."""
    flat = flattened(picture, 0.16, 3)
    grey = levelled(luma(flat))
    colour = saturated(relit(flat, 0.30 + 0.70 * stepped(grey, 3, 8.0)), 2.0)
    shade = dots(0.75 * amount * smoothstep(0.15, 1.0, 1 - grey))
    screened = colour * (1 - shade[..., None] * np.array([0.50, 0.62, 0.45], np.float32))
    black = np.maximum(lines(grey, width=1.4 * amount, threshold=0.035), smoothstep(0.86, 0.93, 1 - grey))
    return clipped(screened * (1 - black)[..., None] + 0.03 * black[..., None])


def cel(picture: Picture, amount: float, _rng: np.random.Generator) -> Picture:
    """Flat areas of colour in few tones, outlined thinly, without any texture."""
    flat = flattened(picture, 0.2, 4)
    grey = levelled(luma(flat))
    colour = saturated(relit(flat, 0.12 + 0.86 * stepped(grey, 4, 14.0)), 1.45)
    outline = lines(grey, width=1.0 * amount, threshold=0.02)[..., None]
    return clipped(colour * (1 - outline) + np.array([0.10, 0.06, 0.10], np.float32) * outline)
