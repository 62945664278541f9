# SPDX-License-Identifier: Apache-2.0
"""What is measured along the frames of a delivery, against the motion and the light of its plate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fresco_backend.engine.flow import Flow, warp
from fresco_backend.files.frames import Size
from fresco_backend.guides import motion
from fresco_backend.render.metrics import warp_error
from fresco_backend.report.delivered import DeliveredShot

SIDE = 256  # short side in pixels at which frames are measured
CODES = 255  # light is told in 8-bit code values of display-referred sRGB
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of one frame. Those about the step from the delivered frame before are None at the first one and after a gap.

    warp_error: FRESCO's Pixel-MSE x 1000 from the frame before, along the plate's flow where that is valid.
    flicker: how much the mean luma jumps from the frame before, along the flow, beyond the plate's own jump; codes.
    occlusion: share of pixels that the frame before does not show, in [0, 1].
    colour: mean red, green and blue of the result less those of the plate; codes. contrast: deviation of luma of the
    result over that of the plate.
    """

    frame: int
    keyframe: bool
    warp_error: float | None
    flicker: float | None
    occlusion: float | None
    colour: tuple[float, float, float]
    contrast: float


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One frame as it is measured. plate, result: (3, H, W) in [-1, 1]. flow: of the pair with the frame before."""

    figures: Figures
    plate: Tensor
    result: Tensor
    flow: Flow | None


def measured(delivered: DeliveredShot) -> Iterator[Moment]:
    """Measure the frames one by one; two are held."""
    size = measuring_size(delivered.shape)
    step = min((after - before for before, after in pairwise(delivered.numbers)), default=1)  # more of it is a gap
    before: Moment | None = None
    for number in delivered.numbers:
        plate, result = delivered.plate_image(number, size), delivered.result_image(number, size)
        neighbour = before if before is not None and before.figures.frame == number - step else None
        flow = motion.window_flow(torch.stack([neighbour.plate, plate])) if neighbour else None
        figures = Figures(
            frame=number, keyframe=number in delivered.keyframes, colour=_colour(plate, result),
            contrast=float(_luma(result).std() / _luma(plate).std().clamp(min=1e-6)),
            warp_error=1000 * warp_error(flow, neighbour.result, result) if flow and neighbour else None,
            flicker=_flicker(flow, neighbour, plate, result) if flow and neighbour else None,
            occlusion=float(flow.backward_occlusion[0].mean()) if flow else None,
        )  # fmt: skip
        before = Moment(figures=figures, plate=plate, result=result, flow=flow)
        yield before


def measuring_size(plate: Size) -> Size:
    """The plate's size brought down to SIDE pixels; never enlarged."""
    scale = min(1.0, SIDE / min(plate))
    return Size(max(32, round(plate.width * scale)), max(32, round(plate.height * scale)))


def _flicker(flow: Flow, before: Moment, plate: Tensor, result: Tensor) -> float:
    valid = 1 - flow.backward_occlusion[0]

    def jump(earlier: Tensor, later: Tensor) -> float:
        aligned = warp(_luma(earlier)[None, None], flow.backward[:1])[0, 0]
        return float(((_luma(later) - aligned) * valid).sum() / valid.sum().clamp(min=1))

    return jump(before.result, result) - jump(before.plate, plate)


def _luma(image: Tensor) -> Tensor:
    """(3, H, W) in [-1, 1] -> (H, W) in code values."""
    return (image * image.new_tensor(LUMA)[:, None, None]).sum(0).add(1) / 2 * CODES


def _colour(plate: Tensor, result: Tensor) -> tuple[float, float, float]:
    red, green, blue = ((result - plate).mean(dim=(1, 2)) / 2 * CODES).tolist()
    return red, green, blue
