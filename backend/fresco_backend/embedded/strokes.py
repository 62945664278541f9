# SPDX-License-Identifier: Apache-2.0
"""What a hand follows in a picture: the direction of its structures, and its lines."""

from collections.abc import Sequence

import cv2
import numpy as np

from fresco_backend.embedded.lattice import Picture, Plane, blur, smoothstep


def luma(picture: Picture) -> Plane:
    """Luma (H, W) in [0, 1] of a picture (Rec. 601 weights)."""
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.float32)


def tangents(plane: Plane, reach: float) -> Picture:
    """Unit vectors (H, W, 2), x then y, along the structures of `plane`, averaged over `reach` pixels.

    The minor eigenvector of the smoothed structure tensor (Bigun and Granlund, 1987); its sign means nothing.
    """
    soft = blur(plane, 1.0)
    dx = np.asarray(cv2.Sobel(soft, cv2.CV_32F, 1, 0), np.float32)
    dy = np.asarray(cv2.Sobel(soft, cv2.CV_32F, 0, 1), np.float32)
    xx, yy, xy = blur(dx * dx, reach), blur(dy * dy, reach), blur(dx * dy, reach)
    # A faint preference for one diagonal decides where the picture is flat, as a painter's wrist does.
    angle = 0.5 * np.arctan2(2 * xy + 1e-4, xx - yy) + np.pi / 2
    return np.dstack([np.cos(angle), np.sin(angle)]).astype(np.float32)


def shifted(array: Picture | Plane, offset: Picture) -> Picture:
    """`array` sampled at each pixel plus `offset` (H, W, 2), pixels, bilinear, mirrored at the border."""
    height, width = offset.shape[:2]
    x = np.arange(width, dtype=np.float32)[None, :] + offset[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + offset[..., 1]
    return np.asarray(cv2.remap(array, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101), np.float32)


def smeared(array: Picture | Plane, along: Picture, steps: Sequence[float]) -> Picture:
    """`array` averaged along the field `along` (H, W, 2) by one three-point mean for each of `steps`, pixels.

    Line integral convolution (Cabral and Leedom, 1993), as a symmetric product of short convolutions, for which the
    sign of the field does not matter.
    """
    for step in steps:
        ahead, behind = shifted(array, along * step), shifted(array, along * -step)
        array = np.asarray((ahead + array + behind) / 3, np.float32)
    return array


def bristles(along: Picture, softness: float, steps: Sequence[float], noise: Plane) -> Plane:
    """Height (H, W) of brush marks that follow `along`: `noise` smeared, mean 0 and deviation 1."""
    marks = smeared(blur(noise, softness), along, steps)
    return np.asarray((marks - marks.mean()) / (marks.std() + 1e-6), np.float32)


def lines(plane: Plane, *, width: float, threshold: float) -> Plane:
    """Coverage (H, W) in [0, 1] of ink lines on the dark side of edges, `width` pixels wide.

    Difference of Gaussians smeared along the structure (Kang et al., "Coherent Line Drawing", 2007);
    `threshold` is the contrast, in luma, at which a line begins.
    """
    difference = blur(plane, 1.6 * width) - blur(plane, width)
    coherent = smeared(difference, tangents(plane, 2.5), (1, 2))
    return smoothstep(threshold, 2.2 * threshold, coherent)
