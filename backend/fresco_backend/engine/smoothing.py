# SPDX-License-Identifier: Apache-2.0
"""Background smoothing: carry the background from frame to frame along the flow, so that it does not flicker."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco_backend.engine.correspondence import Correspondence
from fresco_backend.engine.flow import Flow, warp
from fresco_backend.engine.long_flow import clamped

OCCLUSION_MARGIN = 13
"""Side in pixels of the box by which occlusion grows where images are smoothed; features are coarse enough already."""

_LEAST_SHARE = 1e-3


def dilate(mask: Tensor, size: int) -> Tensor:
    """Soft dilation: the sum over a box of odd side `size`, at most 1, the border repeated.

    mask: (N, 1, H, W), [0, 1]. Gives the same shape and range.
    """
    padded = F.pad(mask, (size // 2,) * 4, mode="replicate")
    return (F.avg_pool2d(padded, size, stride=1) * size**2).clamp(0, 1)


@torch.no_grad()
def smooth_background(features: Tensor, correspondence: Correspondence, background: Tensor) -> Tensor:
    """Features in whose background each frame continues the frame before, and the last one leads back to the first.

    features: (branches * N, C, h, w), images or features of any size that divides the window's frames.
    background: (N, 1, H', W'), [0, 1], 1 = background, of any size. Gives a new tensor like the features.
    Raises ValueError for a background of another number of frames. Source: FRESCO's released method.
    """
    frames = correspondence.frames
    if background.shape[:2] != (frames, 1):
        raise ValueError(f"background must be ({frames}, 1, H, W), found {tuple(background.shape)}")
    height, width = features.shape[2:]
    flow = correspondence.flow(height, width)
    background = F.interpolate(background.float(), size=(height, width), mode="bilinear", align_corners=False)
    smoothed = features.float().clone().view(-1, frames, *features.shape[1:])
    weights = _weights(flow, background, grown=(height, width) == correspondence.size)
    _carry(smoothed, flow, *weights)
    return smoothed.flatten(0, 1).to(features.dtype)


@torch.no_grad()
def carry_background(images: Tensor, correspondence: Correspondence, background: Tensor) -> Tensor:
    """As `smooth_background`, for pictures: every pixel is looked up once, in the frame in which it was first seen.

    A lookup between pixels blurs a little, and a chain of them blurs more with each frame. Here the motion is composed
    instead, and the pictures are looked up bicubically at its end. images: (N, C, H, W) of the frames' size, any unit.
    """
    height, width = images.shape[2:]
    flow = correspondence.flow(height, width)
    background = F.interpolate(background.float(), size=(height, width), mode="bilinear", align_corners=False)
    before, first = _weights(flow, background, grown=True)
    carried, given = images.float().clone(), images.float()
    shares, places = torch.ones_like(background[:1]), torch.zeros_like(flow.backward[:1])
    for k in range(len(images) - 1):
        motion = clamped(flow.backward[k]).expand(k + 1, -1, -1, -1)
        shares = torch.cat([before[k] * warp(shares, motion), 1 - before[k : k + 1]])
        places = torch.cat([flow.backward[k] + warp(places, motion), torch.zeros_like(places[:1])])
        carried[k + 1] = (shares * warp(given[: k + 2], places, sharp=True)).sum(0)
    if len(images) > 1:
        carried[-1:] = carried[-1:].lerp(warp(carried[:1], flow.forward[-1:], sharp=True), first)
    return carried.to(images.dtype)


@torch.no_grad()
def carries(correspondence: Correspondence, background: Tensor) -> bool:
    """Whether pictures of the frames' size would change at all: a lone frame does not, nor does a mere foreground."""
    flow = correspondence.flow(*correspondence.size)
    background = F.interpolate(background.float(), size=flow.size, mode="bilinear", align_corners=False)
    return flow.frames > 1 and any(bool((part > _LEAST_SHARE).any()) for part in _weights(flow, background, grown=True))


def _weights(flow: Flow, background: Tensor, *, grown: bool) -> tuple[Tensor, Tensor]:
    """How much each frame takes from the one before (N - 1, ...), and the last one from the first (1, ...)."""
    hidden = torch.stack((flow.backward_occlusion, flow.forward_occlusion))[:, :, None]
    if grown:
        hidden = dilate(hidden.flatten(0, 1), OCCLUSION_MARGIN).view_as(hidden)
    before = (1 - hidden[0, :-1]) * background[1:] * warp(background[:-1], flow.backward[:-1])
    first = (1 - hidden[1, -1:]) * background[-1:] * warp(background[:1], flow.forward[-1:])
    return before, first


def _carry(smoothed: Tensor, flow: Flow, before: Tensor, first: Tensor) -> None:
    """Mix (branches, N, C, h, w) in place, each frame from the one before as it was already mixed."""
    branches, frames = smoothed.shape[:2]
    for k in range(frames - 1):
        motion = flow.backward[k].expand(branches, -1, -1, -1)
        smoothed[:, k + 1] = smoothed[:, k + 1].lerp(warp(smoothed[:, k], motion), before[k])
    if frames > 1:
        motion = flow.forward[-1].expand(branches, -1, -1, -1)
        smoothed[:, -1] = smoothed[:, -1].lerp(warp(smoothed[:, 0], motion), first[0])
