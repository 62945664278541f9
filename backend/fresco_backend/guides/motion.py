# SPDX-License-Identifier: Apache-2.0
"""Motion of the plate: optical flow estimators behind one function, and how much each frame differs from the last.

Images are float32 (N, 3, H, W) in [-1, 1], display-referred sRGB. Flow is in pixels, channel 0 = x, 1 = y.
"""

import importlib
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fresco_backend.engine.flow import Flow
from fresco_protocol.errors import WeightsMissing

# What the reference resizes to before it compares frames: short side, and a multiple for both sides.
CURVE_SIDE = 512
CURVE_MULTIPLE = 64
CURVE_BLUR = (9, 9)
# DIS builds its pyramid from 8 x 8 patches: below this side it has no level to start from.
DIS_SIDE = 32
# Pixels between its patches at the finest level: as near to the truth as the three of its preset, in 3/4 of the time.
FINE_STRIDE = 4
RAFT_MULTIPLE = 8
RAFT_SIDE = 128

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Field = np.ndarray[Any, np.dtype[np.float32]]


class Estimator(StrEnum):
    """Names of the flow estimators."""

    DIS = "dis"
    RAFT = "raft"


class EstimatesFlow(Protocol):
    """What every estimator is."""

    def __call__(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Give the flow from first to second and from second to first, each (N, 2, H, W), pixels.

        first, second: (N, 3, H, W) in [-1, 1].
        """


def load_estimator(kind: Estimator, device: torch.device | None = None) -> EstimatesFlow:
    """Give an estimator that is ready to run; DIS runs on the CPU whatever the device.

    Raises WeightsMissing when RAFT is asked for without torchvision or without its weights.
    """
    return estimate if kind is Estimator.DIS else Raft(_torchvision_raft().to(device or torch.device("cpu")))


def estimate(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Give the flow of each pair in both directions by dense inverse search on 8-bit luma, preset medium.

    first, second: (N, 3, H, W) in [-1, 1]. Returns forward, which lives on first and points into second, and backward,
    the other way round; each (N, 2, H, W), pixels. Source: Kroeger et al., ECCV 2016, as OpenCV does it.
    """
    return _estimated(cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM), first, second)


def estimate_finely(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """As `estimate`, down to the finest level: nearer to the truth by up to one decibel, and three times the time.

    For in-betweens, where flow moves pixels that are seen; the constraints of a window look at it eight times coarser.
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    search.setPatchStride(FINE_STRIDE)
    return _estimated(search, first, second)


def _estimated(search: cv2.DISOpticalFlow, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    pairs = list(zip(_luma(first), _luma(second), strict=True))
    forward = np.stack([_search(search, here, there) for here, there in pairs])
    backward = np.stack([_search(search, there, here) for here, there in pairs])
    return _field_tensor(forward, first), _field_tensor(backward, first)


def window_flow(frames: Tensor, estimator: EstimatesFlow = estimate) -> Flow:
    """Give the cyclic flow of a window with its occlusion, which also rejects wrong matches of the closing pair.

    frames: (N, 3, H, W) in [-1, 1]; N may be 1. Source: method of FRESCO, section 4.1 and 4.3.
    """
    forward, backward = estimator(frames, frames.roll(-1, dims=0))
    return Flow.between(frames, forward, backward)


def error_curve(frames: Iterable[Tensor]) -> Iterator[float]:
    """Give for each frame its mean squared difference to the frame before, the first 0: what keyframe choice reads.

    frames: images (3, H, W) in [-1, 1], read one at a time; two are held. Frames are compared as 8-bit pictures
    with a short side of 512 and both sides multiples of 64, under a 9 x 9 Gaussian, in units of [-1, 1].
    Source: algorithm 1 of FRESCO, as its reference computes it.
    """
    before: Field | None = None
    for frame in frames:
        after = _blurred(frame)
        yield 0.0 if before is None else float(np.mean((after - before) ** 2))
        before = after


class Raft:
    """RAFT as an estimator: pads to what the network takes, and keeps its last prediction.

    network: maps two images (N, 3, H, W) in [-1, 1] to a list of flows (N, 2, H, W), pixels, as torchvision's does.
    Source: Teed and Deng, ECCV 2020.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network.eval()

    @torch.no_grad()
    def __call__(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Give the flow from first to second and from second to first, each (N, 2, H, W), pixels."""
        return self._predict(first, second), self._predict(second, first)

    def _predict(self, first: Tensor, second: Tensor) -> Tensor:
        height, width = first.shape[2:]
        device = next(self._network.parameters()).device
        here, there = (_padded(image).to(device) for image in (first, second))
        flow: Tensor = self._network(here, there)[-1]
        return flow[..., :height, :width].to(first.device)


def _torchvision_raft() -> nn.Module:
    """Give torchvision's large RAFT with its own weights, never downloading them in the middle of a render."""
    try:
        models = importlib.import_module("torchvision.models.optical_flow")
    except ImportError as missing:
        raise WeightsMissing("the RAFT estimator needs torchvision, which is not installed",
                             remedy="Install torchvision, or take the estimator 'dis'.") from missing
    weights = models.Raft_Large_Weights.DEFAULT
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not path.exists():
        raise WeightsMissing("the weights of torchvision's RAFT were not found", where=path,
                             remedy=f"Copy {weights.url} there, or take the estimator 'dis'.")
    network: nn.Module = models.raft_large(weights=weights, progress=False)
    return network


def _padded(image: Tensor) -> Tensor:
    """Give the image with its right and bottom edges repeated up to a size that RAFT takes."""
    height, width = (max(-(-side // RAFT_MULTIPLE) * RAFT_MULTIPLE, RAFT_SIDE) for side in image.shape[2:])
    return functional.pad(image, (0, width - image.shape[3], 0, height - image.shape[2]), mode="replicate")


def _search(search: cv2.DISOpticalFlow, first: Pixels, second: Pixels) -> Field:
    """Give the flow of two luma planes, (H, W, 2); planes that are too small for DIS are padded."""
    height, width = first.shape
    below, right = max(DIS_SIDE - height, 0), max(DIS_SIDE - width, 0)
    planes = (cv2.copyMakeBorder(plane, 0, below, 0, right, cv2.BORDER_REPLICATE) for plane in (first, second))
    flow = search.calc(*planes, None)  # type: ignore[call-overload]
    return np.asarray(flow[:height, :width], dtype=np.float32)


def _luma(images: Tensor) -> list[Pixels]:
    return [cv2.cvtColor(codes, cv2.COLOR_RGB2GRAY).astype(np.uint8) for codes in _codes(images)]


def _codes(images: Tensor) -> Pixels:
    """Give 8-bit RGB pictures, (N, H, W, 3)."""
    codes = ((images.float() / 2 + 0.5).clamp(0, 1) * 255).round().byte()
    return np.ascontiguousarray(codes.permute(0, 2, 3, 1).cpu().numpy())


def _field_tensor(field: Field, like: Tensor) -> Tensor:
    return torch.from_numpy(field).permute(0, 3, 1, 2).contiguous().to(like.device)


def _blurred(frame: Tensor) -> Field:
    """Give the frame as the error curve compares it, (h, w, 3) in [-1, 1]."""
    codes = _codes(frame.unsqueeze(0))[0]
    scale = CURVE_SIDE / min(codes.shape[:2])
    height, width = (round(side * scale / CURVE_MULTIPLE) * CURVE_MULTIPLE for side in codes.shape[:2])
    resampling = cv2.INTER_LANCZOS4 if scale > 1 else cv2.INTER_AREA
    smooth = cv2.GaussianBlur(cv2.resize(codes, (width, height), interpolation=resampling), CURVE_BLUR, 0)
    return np.asarray(smooth, dtype=np.float32) / np.float32(127.5) - np.float32(1)
