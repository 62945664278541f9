# SPDX-License-Identifier: Apache-2.0
"""Measures of a result against its plate: how steady it is in time, and how much of the plate's structure it keeps."""

from __future__ import annotations

import torch
from torch import Tensor

from fresco_backend.engine.flow import Flow, warp
from fresco_backend.guides import motion
from fresco_backend.guides.controls import soft_edges

EDGE_TOLERANCE = 2  # pixels by which an edge may be off and still count


@torch.no_grad()
def warp_error(flow: Flow, first: Tensor, second: Tensor) -> float:
    """Mean squared difference of two neighbouring result frames aligned by the plate's flow, where that is valid.

    flow: of the two plate frames, a window of two. first, second: (3, H, W) in [-1, 1]. Gives units of [0, 1] squared:
    FRESCO's Pixel-MSE, but on the plate's own flow and occlusion.
    """
    aligned = warp(first[None], flow.backward[:1])
    valid = 1 - flow.backward_occlusion[:1, None]
    inside = warp(torch.ones_like(first[None, :1]), flow.backward[:1]) > 0.99
    weight = (valid * inside).expand_as(aligned)
    difference = (aligned - second[None]) / 2
    return float((difference.square() * weight).sum() / weight.sum().clamp(min=1))


class WarpError:
    """The warp error of a clip, frame by frame as it comes; two frames are held."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self._before: tuple[int, Tensor, Tensor] | None = None

    def add(self, place: int, plate: Tensor, result: Tensor) -> None:
        """A frame; it is compared when the one added before is its neighbour in the clip.

        place: in the clip, from 0. plate, result: (3, H, W) in [-1, 1].
        """
        if self._before is not None and self._before[0] == place - 1:
            _, earlier_plate, earlier_result = self._before
            flow = motion.window_flow(torch.stack([earlier_plate, plate]))
            self.values.append(warp_error(flow, earlier_result, result))
        self._before = place, plate, result

    @property
    def mean(self) -> float | None:
        """Over all pairs; None before there is one."""
        return sum(self.values) / len(self.values) if self.values else None


@torch.no_grad()
def edge_agreement(result: Tensor, plate: Tensor, threshold: float = 0.5) -> float:
    """F-score of the edges of `result` against those of `plate`, both (N, 3, H, W) in [-1, 1]; in [0, 1].

    Edges are contours of the soft-edge detector above a threshold; one within EDGE_TOLERANCE pixels counts as found.
    Source: Martin, Fowlkes, Malik, PAMI 2004, with a fixed threshold and tolerance.
    """
    found, wanted = (soft_edges(images)[:, 1:2] > threshold for images in (result, plate))
    precision = _share_near(found, wanted)
    recall = _share_near(wanted, found)
    return 2 * precision * recall / max(precision + recall, 1e-9)


def _share_near(edges: Tensor, others: Tensor) -> float:
    size = 2 * EDGE_TOLERANCE + 1
    near = torch.nn.functional.max_pool2d(others.float(), size, stride=1, padding=EDGE_TOLERANCE) > 0
    return float((edges & near).sum() / edges.sum().clamp(min=1))
