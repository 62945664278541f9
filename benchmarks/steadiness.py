# SPDX-License-Identifier: Apache-2.0
"""How steady a stylised stretch of frames is along the motion of its plate, and how much of the plate it keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fresco_backend.engine.flow import Flow, warp
from fresco_backend.guides import motion
from fresco_backend.render.metrics import edge_agreement, warp_error
from fresco_protocol.errors import UsageError

CODES = 255  # flicker is given in code values of 8 bit
WHOLE = 0.99  # of a bilinear lookup that meets valid pixels only


@dataclass(frozen=True, kw_only=True)
class Measures:
    """warp_error: 1000 times FRESCO's Pixel-MSE, in units of [0, 1] squared; see `metrics.warp_error`.

    flicker: root mean square of luma along paths in the upper half of temporal frequencies, in 8-bit code values.
    edges: F-score of the result's edges against the plate's, in [0, 1].
    """

    warp_error: float
    flicker: float
    edges: float


class Ruler:
    """The motion of a plate, computed once, and the measures of results against it."""

    def __init__(self, plate: Tensor) -> None:
        """plate: N consecutive frames (N, 3, H, W) in [-1, 1]. Raises UsageError for one frame or no common path."""
        if len(plate) < 2:
            raise UsageError("steadiness needs two frames or more")
        flow = motion.window_flow(plate)
        self._plate = plate
        self._pairs = [_pair(flow, k) for k in range(len(plate) - 1)]
        self._paths, self._followed = _paths(flow)
        if not self._followed.any():
            raise UsageError("no pixel can be followed through all frames", remedy="Take fewer, without a cut.")

    def measure(self, result: Tensor) -> Measures:
        """Measure a result (N, 3, H, W) in [-1, 1]."""
        errors = [warp_error(pair, *result[k : k + 2]) for k, pair in enumerate(self._pairs)]
        return Measures(
            warp_error=1000 * sum(errors) / len(errors),
            flicker=self._flicker(result),
            edges=edge_agreement(result, self._plate),
        )

    def differences(self, result: Tensor) -> Tensor:
        """Absolute differences of aligned neighbours, 0 where the flow is not valid: (N - 1, 3, H, W) in [0, 1]."""
        aligned = [warp(result[k : k + 1], pair.backward) for k, pair in enumerate(self._pairs)]
        valid = torch.cat([1 - pair.backward_occlusion[:, None] for pair in self._pairs])
        return (torch.cat(aligned) - result[1:]).abs() / 2 * valid

    def _flicker(self, result: Tensor) -> float:
        luma = (result * result.new_tensor((0.299, 0.587, 0.114))[:, None, None]).sum(1, keepdim=True) / 2 * CODES
        along = warp(luma, self._paths)[:, 0][:, self._followed]  # (N, P)
        fast = _fast_cosines(len(along)) @ along.double()
        return float((fast.square().sum(0) / len(along)).mean().sqrt())


def _pair(flow: Flow, k: int) -> Flow:
    """Give the motion between the frames k and k + 1 alone."""
    one = slice(k, k + 1)
    return Flow(
        forward=flow.forward[one], backward=flow.backward[one],
        forward_occlusion=flow.forward_occlusion[one], backward_occlusion=flow.backward_occlusion[one],
    )  # fmt: skip


def _paths(flow: Flow) -> tuple[Tensor, Tensor]:
    """Give where each pixel of the first frame is in every frame, and which stay visible.

    Displacements (N, 2, H, W) in pixels, and a mask (H, W).
    """
    places = [torch.zeros_like(flow.forward[:1])]
    followed = torch.ones_like(flow.forward_occlusion[0], dtype=torch.bool)
    for k in range(flow.frames - 1):
        visible = 1 - flow.forward_occlusion[k : k + 1, None]
        followed &= warp(visible, places[-1])[0, 0] > WHOLE
        places.append(places[-1] + warp(flow.forward[k : k + 1], places[-1]))
    inside = warp(torch.ones_like(flow.forward[:1, :1]), places[-1])[0, 0] > WHOLE
    return torch.cat(places), followed & inside


def _fast_cosines(count: int) -> Tensor:
    """Give the upper half of the orthonormal cosine basis (DCT-II), which a fade from first to last hardly meets."""
    frequency = torch.arange((count + 1) // 2, count, dtype=torch.float64)[:, None]
    place = torch.arange(count, dtype=torch.float64) + 0.5
    return torch.cos(math.pi / count * frequency * place) * math.sqrt(2 / count)
