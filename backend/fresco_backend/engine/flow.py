# SPDX-License-Identifier: Apache-2.0
"""Optical flow between the neighbouring frames of a window: warp, resampling, occlusion.

Pairs are cyclic: pair k is frame k and frame k + 1 mod N. A window of one frame has the one pair (0, 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

PHOTOMETRIC_LIMIT = 0.5
"""Mean colour difference above which a match is not believed; a quarter of the range [-1, 1]."""

ADVICE = "choose a working size that all reductions of the model divide (a multiple of 64 for Stable Diffusion)"


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Motion of N cyclic pairs and where it is not valid.

    forward: (N, 2, H, W), pixels, x then y; `forward[k]` lives on frame k and points into frame k + 1 mod N.
    backward: (N, 2, H, W), pixels; `backward[k]` lives on frame k + 1 mod N and points into frame k.
    forward_occlusion, backward_occlusion: (N, H, W), 1 = not valid, 0 = valid; same indexing as the flows.
    Raises ValueError for shapes that do not fit together.
    """

    forward: Tensor
    backward: Tensor
    forward_occlusion: Tensor
    backward_occlusion: Tensor

    def __post_init__(self) -> None:
        if self.forward.ndim != 4 or self.forward.shape[1] != 2 or self.backward.shape != self.forward.shape:
            found = f"forward {tuple(self.forward.shape)}, backward {tuple(self.backward.shape)}"
            raise ValueError(f"flows must be two tensors (N, 2, H, W) of one shape, found {found}")
        expected = (self.forward.shape[0], *self.forward.shape[2:])
        for name in ("forward_occlusion", "backward_occlusion"):
            if getattr(self, name).shape != expected:
                raise ValueError(f"{name} must be {expected}, found {tuple(getattr(self, name).shape)}")

    @classmethod
    def between(cls, frames: Tensor, forward: Tensor, backward: Tensor) -> Flow:
        """Flow of a window of N frames and its N cyclic pairs; see `of_pairs`."""
        return cls.of_pairs(frames, frames.roll(-1, dims=0), forward, backward)

    @classmethod
    def of_pairs(cls, frames: Tensor, following: Tensor, forward: Tensor, backward: Tensor) -> Flow:
        """Flow with its occlusion: inconsistent or photometrically wrong matches (method of FRESCO, 4.3).

        frames, following: (N, 3, H, W), [-1, 1], display-referred sRGB. forward, backward: (N, 2, H, W), pixels.
        """
        forward_occlusion, backward_occlusion = inconsistent(forward, backward)
        return cls(
            forward=forward,
            backward=backward,
            forward_occlusion=torch.maximum(forward_occlusion, _differs(frames, following, forward)),
            backward_occlusion=torch.maximum(backward_occlusion, _differs(following, frames, backward)),
        )

    @classmethod
    def closed(cls, frame: Tensor) -> Flow:
        """Flow of one pair that is valid nowhere: in place of the pair of last and first frame, it compares nothing.

        frame: (1, 3, H, W), for its size.
        """
        still, hidden = torch.zeros_like(frame[:, :2]), torch.ones_like(frame[:, 0])
        return cls(forward=still, backward=still, forward_occlusion=hidden, backward_occlusion=hidden)

    @classmethod
    def joined(cls, parts: Sequence[Flow]) -> Flow:
        """Flow of the pairs of all parts, in order."""
        return cls(**{entry.name: torch.cat([getattr(part, entry.name) for part in parts]) for entry in fields(cls)})

    @property
    def frames(self) -> int:
        """Number of frames N, which is also the number of cyclic pairs."""
        return self.forward.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.forward.shape[2], self.forward.shape[3]

    def to(self, device: torch.device | str) -> Flow:
        """The same flow on another device."""
        return Flow(
            forward=self.forward.to(device),
            backward=self.backward.to(device),
            forward_occlusion=self.forward_occlusion.to(device),
            backward_occlusion=self.backward_occlusion.to(device),
        )

    def cropped(self, top: int, left: int, height: int, width: int) -> Flow:
        """Flow within a part of the frames, in pixels; where it points out of the part it is not valid."""
        rows, columns = slice(top, top + height), slice(left, left + width)
        forward, backward = (flow[..., rows, columns] for flow in (self.forward, self.backward))
        return Flow(
            forward=forward,
            backward=backward,
            forward_occlusion=torch.maximum(self.forward_occlusion[..., rows, columns], _leaves(forward)),
            backward_occlusion=torch.maximum(self.backward_occlusion[..., rows, columns], _leaves(backward)),
        )

    def resized(self, height: int, width: int) -> Flow:
        """Flow for features of height x width: a feature is occluded when any of its pixels is (max-pooling).

        Raises ValueError when the features are not a whole fraction of the flow's size.
        """
        factor = reduction(self.size, height, width)
        return Flow(
            forward=resize_flow(self.forward, height, width),
            backward=resize_flow(self.backward, height, width),
            forward_occlusion=F.max_pool2d(self.forward_occlusion, factor),
            backward_occlusion=F.max_pool2d(self.backward_occlusion, factor),
        )


def reduction(size: tuple[int, int], height: int, width: int) -> int:
    """Whole factor by which an image of `size` (height, width; pixels) is reduced to features of height x width.

    Raises ValueError when there is no such factor, or another one for the height than for the width.
    """
    factor = size[0] // max(height, 1)
    if factor < 1 or (height * factor, width * factor) != tuple(size):
        raise ValueError(
            f"features of {width}x{height} are not a whole fraction of {size[1]}x{size[0]} pixels; {ADVICE}"
        )
    return factor


def warp(features: Tensor, flow: Tensor, *, sharp: bool = False) -> Tensor:
    """Features looked up bilinearly at p + flow(p), zero outside the frame; whole coordinates are pixel centres.

    features: (N, C, H, W), any unit. flow: (N, 2, H, W), pixels, x then y. sharp: bicubically, and the border goes on
    outside. Gives (N, C, H, W) in the features' dtype.
    """
    height, width = flow.shape[2:]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype) + flow[:, 0]
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None] + flow[:, 1]
    grid = torch.stack((2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), dim=-1)
    mode, padding = ("bicubic", "border") if sharp else ("bilinear", "zeros")
    sampled = F.grid_sample(features.to(flow.dtype), grid, mode=mode, padding_mode=padding, align_corners=True)
    return sampled.to(features.dtype)


def resize_flow(flow: Tensor, height: int, width: int) -> Tensor:
    """Flow resampled to height x width, its vectors in the new pixels (bilinear, not antialiased).

    flow: (N, 2, H, W), pixels. Gives (N, 2, height, width).
    """
    scale = flow.new_tensor((width / flow.shape[3], height / flow.shape[2]))[:, None, None]
    return F.interpolate(flow * scale, size=(height, width), mode="bilinear", align_corners=False)


def inconsistent(forward: Tensor, backward: Tensor) -> tuple[Tensor, Tensor]:
    """Where going there and back does not return: occlusion on the frame that each flow lives on, two (N, H, W).

    forward, backward: (N, 2, H, W), pixels. Gives 1 where |there + back| > 0.01 (|forward| + |backward|) + 0.5, else 0.
    Source: Sundaram, Brox, Keutzer, ECCV 2010, equation 5, with norms in place of their squares.
    """
    limit = 0.01 * (forward.norm(dim=1) + backward.norm(dim=1)) + 0.5
    forward_occlusion = (forward + warp(backward, forward)).norm(dim=1) > limit
    backward_occlusion = (backward + warp(forward, backward)).norm(dim=1) > limit
    return forward_occlusion.to(forward.dtype), backward_occlusion.to(forward.dtype)


def _leaves(flow: Tensor) -> Tensor:
    """Where flow (N, 2, H, W) points out of the picture, (N, H, W) of 0, 1."""
    height, width = flow.shape[2:]
    x = torch.arange(width, device=flow.device) + flow[:, 0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    return ((x < 0) | (x > width - 1) | (y < 0) | (y > height - 1)).to(flow.dtype)


def _differs(image: Tensor, other: Tensor, flow: Tensor) -> Tensor:
    """Where `image` and `other` warped to it show different colours, (N, H, W) of 0, 1."""
    return ((image - warp(other, flow)).abs().mean(dim=1) > PHOTOMETRIC_LIMIT).to(flow.dtype)
