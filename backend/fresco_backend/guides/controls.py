# SPDX-License-Identifier: Apache-2.0
"""Control images: what a ControlNet sees of the plate, made from the frames themselves.

Every detector takes a batch of images and treats each image alone, with constants that never depend on the image: a
normalisation by the frame's own extremes would make the control flicker. Images in are float32 (N, 3, H, W) in
[-1, 1], display-referred sRGB; control images out are float32 (N, 3, H, W) in [0, 1], as diffusers' ControlNets take.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fresco_protocol.errors import UsageError
from fresco_protocol.shot import ControlKind

# Standard deviations in pixels at working sizes of 256 to 512: pencil line, contour, mass.
SCALES = (0.7, 1.6, 3.5)
# Step height, in [0, 1] of display-referred code values, that is half an edge. The fine scale also sees grain and
# texture, so a line there must be stronger; what is left at the coarse scale is form, so a soft change counts.
HALF_HEIGHTS = (0.15, 0.14, 0.14)
# Chroma gradients count more than their numbers say: equal-luma borders are rare, but artists draw them.
CHROMA_WEIGHT = 1.5

Detector = Callable[[Tensor], Tensor]


def detect(kind: ControlKind, images: Tensor) -> Tensor:
    """Give the control images of a kind that is made from the frames, with that detector's own settings.

    images: (N, 3, H, W) in [-1, 1]. Returns (N, 3, H, W) in [0, 1]. Raises UsageError for a kind that needs the
    artist's images (a sequence, depth).
    """
    if kind not in DETECTORS:
        known = ", ".join(f'"{name.value}"' for name in DETECTORS)
        raise UsageError(f'no detector makes control images of kind "{kind.value}"',
                         remedy=f'Give them as a "sequence", or take one of {known}')
    return DETECTORS[kind](images)


@torch.no_grad()
def soft_edges(images: Tensor) -> Tensor:
    """Give soft edges at three scales: channel 0 fine lines, channel 1 contours, channel 2 masses.

    Gradient magnitude of luma and chroma under Gaussians of 0.7, 1.6 and 3.5 pixels, normalised so that an ideal
    step answers with its height at every scale, then bent by e^2 / (e^2 + half^2): no threshold, so nothing pops.

    images: (N, 3, H, W) in [-1, 1]. Returns (N, 3, H, W) in [0, 1]. Source: scale-normalised derivatives,
    Lindeberg, "Edge detection and ridge detection with automatic scale selection", IJCV 1998.
    """
    planes = _luma_chroma(images)
    edges = [_bend(_edge_height(planes, sigma), half) for sigma, half in zip(SCALES, HALF_HEIGHTS, strict=True)]
    return torch.stack(edges, dim=1)


@torch.no_grad()
def pencil(images: Tensor) -> Tensor:
    """Give soft edges as one grey drawing, the same in all three channels, as ControlNets of other authors take them.

    What is an edge at the two coarser scales of `soft_edges`: contours without texture.
    images: (N, 3, H, W) in [-1, 1]. Returns (N, 3, H, W) in [0, 1].
    """
    contours, masses = soft_edges(images)[:, 1:].unbind(dim=1)
    return (contours * masses).sqrt().unsqueeze(1).repeat(1, 3, 1, 1)


@torch.no_grad()
def canny(images: Tensor, low: float = 50, high: float = 100) -> Tensor:
    """Give Canny edges, 0 or 1, the same in all three channels.

    low, high: hysteresis thresholds on 8-bit gradients. images: (N, 3, H, W) in [-1, 1]. Returns (N, 3, H, W).
    Source: Canny 1986, as OpenCV does it.
    """
    codes = ((images.float() / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    edges = np.stack([cv2.Canny(np.ascontiguousarray(code), low, high) for code in codes])
    return torch.from_numpy(edges).to(images.device).float().div(255).unsqueeze(1).repeat(1, 3, 1, 1)


def _luma_chroma(images: Tensor) -> Tensor:
    """Give Y', Cb, Cr of full range: (N, 3, H, W), Y' in [0, 1], chroma weighted. Source: ITU-R BT.601."""
    red, green, blue = (images.float() / 2 + 0.5).unbind(dim=1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma_blue, chroma_red = (blue - luma) / 1.772, (red - luma) / 1.402
    return torch.stack([luma, CHROMA_WEIGHT * chroma_blue, CHROMA_WEIGHT * chroma_red], dim=1)


def _edge_height(planes: Tensor, sigma: float) -> Tensor:
    """Give the height of the ideal step that has this gradient magnitude: (N, H, W)."""
    kernel = _gaussian(sigma, planes)
    smooth = _blur(planes, kernel)
    across = smooth[..., 1:-1, 2:] - smooth[..., 1:-1, :-2]
    down = smooth[..., 2:, 1:-1] - smooth[..., :-2, 1:-1]
    centre = len(kernel) // 2
    unit_step = kernel[centre] + kernel[centre + 1]
    return (across.square() + down.square()).sum(dim=1).sqrt() / unit_step


def _blur(planes: Tensor, kernel: Tensor) -> Tensor:
    """Give the blurred planes with one pixel more on each side, for the differences: (N, C, H + 2, W + 2)."""
    number, channels, height, width = planes.shape
    reach = len(kernel) // 2 + 1
    padded = functional.pad(planes, (reach, reach, reach, reach), mode="replicate")
    single = padded.reshape(number * channels, 1, height + 2 * reach, width + 2 * reach)
    rows = functional.conv2d(single, kernel.view(1, 1, 1, -1))
    smooth = functional.conv2d(rows, kernel.view(1, 1, -1, 1))
    return smooth.view(number, channels, height + 2, width + 2)


def _gaussian(sigma: float, like: Tensor) -> Tensor:
    """Give a Gaussian of unit sum that reaches three standard deviations: (2 R + 1,)."""
    reach = int(3 * sigma + 0.5)
    position = torch.arange(-reach, reach + 1, device=like.device, dtype=like.dtype)
    kernel = torch.exp(-position.square() / (2 * sigma**2))
    return kernel / kernel.sum()


def _bend(height: Tensor, half: float) -> Tensor:
    """Give a soft step from 0 to 1 that is 0.5 where the height is half."""
    square = height.square()
    return square / (square + half**2)


DETECTORS: dict[ControlKind, Detector] = {ControlKind.SOFT_EDGE: soft_edges, ControlKind.CANNY: canny}
