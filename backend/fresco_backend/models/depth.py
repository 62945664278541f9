# SPDX-License-Identifier: Apache-2.0
"""Depth as a control image: near is white, far is black, on one scale for the whole shot.

A network of transformers' classes (Depth Anything, DPT) gives depth up to a scale and a shift. To stretch each frame to
its own extremes makes the control flicker as things enter and leave; so the scale comes from frames spread over the
whole shot, and is the same for all of them, whatever window or farm chunk they are rendered in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DepthAnythingForDepthEstimation, DPTForDepthEstimation

from fresco_backend.models.model_files import Component, read_json
from fresco_protocol.errors import WeightsRefused, WeightsUnsupported

SAMPLES = 16  # frames of a shot that decide its scale
SHORT_SIDE = 392  # pixels at which depth is estimated: 28 patches of 14
CHUNK = 4  # images at once
EXTREMES = (0.005, 0.995)  # quantiles that become black and white: one bright speck is no scale
_KINDS = {"depth_anything": DepthAnythingForDepthEstimation, "dpt": DPTForDepthEstimation}
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, on which both were trained


class DepthDetector:
    """A depth network, and the scale of the shot that it works for."""

    def __init__(self, network: Any, stride: int) -> None:
        self._network, self._stride = network, stride
        self._ranges: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def draw(self, images: Tensor, shot: str, sample: Callable[[], Tensor]) -> Tensor:
        """Control images (N, 3, H, W) in [0, 1], of images (N, 3, H, W) in [-1, 1].

        shot: names what `sample` is taken from, so that its scale is measured once. sample: gives the images that
        decide the scale, frames spread over the whole shot.
        """
        with self._lock:
            if shot not in self._ranges:
                self._ranges = {shot: _range(self.depth(sample()))}
        far, near = self._ranges[shot]
        depth = self.depth(images)
        return ((depth - far) / max(near - far, 1e-6)).clamp(0, 1).repeat(1, 3, 1, 1)

    @torch.no_grad()
    def depth(self, images: Tensor) -> Tensor:
        """Nearness (N, 1, H, W), in the network's own unit, float32 on the images' device."""
        return torch.cat([self._nearness(part) for part in images.split(CHUNK)])

    def _nearness(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        factor = SHORT_SIDE / min(height, width)
        size = [max(1, round(side * factor / self._stride)) * self._stride for side in (height, width)]
        small = functional.interpolate(images.float() / 2 + 0.5, size=size, mode="bicubic", antialias=True)
        mean, deviation = (small.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _DEVIATION))
        parameter = next(self._network.parameters())
        found = self._network(((small - mean) / deviation).to(parameter)).predicted_depth
        nearness = functional.interpolate(found[:, None].float(), size=(height, width), mode="bicubic")
        return nearness.to(images.device)


def sampled_frames(frames: tuple[int, ...]) -> tuple[int, ...]:
    """The frames of a shot, evenly spread, that decide its scale."""
    count = min(SAMPLES, len(frames))
    return tuple(frames[round(index * (len(frames) - 1) / max(count - 1, 1))] for index in range(count))


def read_detector(component: Component, device: torch.device) -> DepthDetector:
    """The depth network of a component that was checked. Raises WeightsUnsupported and WeightsRefused."""
    config = read_json(component.place / "config.json")
    kind = _KINDS.get(str(config.get("model_type")))
    if kind is None:
        raise WeightsUnsupported(
            f'"{config.get("model_type")}" estimates no depth for Fresco', where=component.place,
            remedy=f"It drives {' and '.join(_KINDS)} of transformers.",
        )  # fmt: skip
    network = _read(kind, component.place, component.variant).requires_grad_(False).eval().to(device)
    stride = int(config.get("patch_size") or (config.get("backbone_config") or {}).get("patch_size") or 14)
    return DepthDetector(network, stride)


def _read(kind: Any, place: Path, variant: str | None) -> Any:
    try:
        network, info = kind.from_pretrained(
            str(place), torch_dtype=torch.float32, use_safetensors=True, local_files_only=True, variant=variant,
            output_loading_info=True,
        )  # fmt: skip
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise WeightsRefused(
            f"the depth network cannot be read: {error}", where=place, remedy="Fetch it again."
        ) from error
    if info["missing_keys"]:
        raise WeightsRefused(
            f"the depth network lacks {len(info['missing_keys'])} tensors", where=place, remedy="Fetch it again."
        )
    return cast(Any, network)


def _range(depth: Tensor) -> tuple[float, float]:
    values = depth.flatten()
    values = values[:: max(1, len(values) // 1_000_000)]  # torch's quantile takes no more than 16 million
    far, near = torch.quantile(values.cpu(), torch.tensor(EXTREMES)).tolist()
    return far, near
