# SPDX-License-Identifier: Apache-2.0
"""From the model's resolution to the plate's: bicubic, with the fine detail that the plate lends."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco_backend.files.frames import Size
from fresco_backend.pixels.resolution import resized

RADIUS = 2  # pixels of the small picture; a wider fit blurs what the style has changed
REGULAR = 0.004  # of the range [-1, 1] squared: contrast below its root is taken for noise, not for detail


@torch.no_grad()
def with_plate_detail(small: Tensor, plate: Tensor) -> Tensor:
    """The stylised picture at the plate's size: its bicubic enlargement, and the high frequencies of a guided one.

    small: (N, 3, h, w), plate: (N, 3, H, W), both in [-1, 1] and of the same view. Returns (N, 3, H, W) in [-1, 1]. A
    local linear fit of the stylised picture to the plate is made at the small size and applied to the large plate; what
    that adds above the small picture's resolution is kept, the rest is the style's own, brush strokes included. The
    same picture, bit for bit, when it is not enlarged.

    Source: He, Sun, "Fast guided filter", arXiv 1505.00996, for the fit.
    """
    size = Size(plate.shape[-1], plate.shape[-2])
    large = resized(small, size)
    if plate.shape[-2] <= small.shape[-2] or plate.shape[-1] <= small.shape[-1]:
        return large
    slope, offset = _fit(resized(plate, Size(small.shape[-1], small.shape[-2])), small)
    guided = _enlarged(slope, size) * plate + _enlarged(offset, size)
    coarse = resized(resized(guided, Size(small.shape[-1], small.shape[-2])), size)
    return (large + (guided - coarse)).clamp(-1, 1)


def _fit(guide: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and offset, (N, 3, h, w), of picture = slope * guide + offset around each pixel, channel by channel."""
    mean_guide, mean_picture = _mean(guide), _mean(picture)
    variance = _mean(guide * guide) - mean_guide**2
    covariance = _mean(guide * picture) - mean_guide * mean_picture
    slope = covariance / (variance.clamp(min=0) + REGULAR)
    return _mean(slope), _mean(mean_picture - slope * mean_guide)


def _mean(images: Tensor) -> Tensor:
    side = 2 * RADIUS + 1
    return F.avg_pool2d(F.pad(images, (RADIUS,) * 4, mode="replicate"), side, stride=1)


def _enlarged(images: Tensor, size: Size) -> Tensor:
    return F.interpolate(images, (size.height, size.width), mode="bilinear", align_corners=False)
