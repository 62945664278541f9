# SPDX-License-Identifier: Apache-2.0
"""A learned upsampler in place of the bicubic one: a network of the user's own, from one .safetensors file.

spandrel tells by the tensors which architecture a file is (ESRGAN and its kin, SwinIR, DAT, HAT and others) and builds
it. Large pictures go through it tile by tile, the tiles blended, so that its memory is bounded.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fresco_backend.engine.tiles import Tiling
from fresco_backend.files.frames import Size
from fresco_backend.models.device import choose_device
from fresco_backend.pixels.resolution import resized
from fresco_protocol.errors import UsageError, WeightsMissing, WeightsRefused, WeightsUnsupported

TILING = Tiling(side=256, overlap=32)  # pixels of the small picture


def require(path: str) -> None:
    """Raise for a file that is missing, no .safetensors file, or no upsampler; UsageError where spandrel is missing."""
    file = Path(path)
    if file.suffix.lower() != ".safetensors":
        raise WeightsRefused("an upscaler is a .safetensors file; others can run code when they are read", where=file,
                             remedy="Take the file of that ending, or convert the weights with the safetensors "
                                    "package.")
    if not file.is_file():
        raise WeightsMissing("there is no such upscaler", where=file,
                             remedy="Fetch the .safetensors file of an upsampling network, such as 4x Real-ESRGAN, and "
                                    "name it, or leave --upscaler out")
    _network(path, file.stat().st_mtime_ns)


@torch.no_grad()
def enlarged(path: str, small: Tensor, size: Size) -> Tensor:
    """The picture at another size by the network, and by resampling for what it misses of it, or has too much.

    small: (N, 3, h, w) in [-1, 1]. Gives (N, 3, H, W) in [-1, 1]. Raises as `require`.
    """
    network = _network(path, Path(path).stat().st_mtime_ns)
    large = torch.cat([_by_tiles(network, (image[None] + 1) / 2) for image in small])
    return resized(large.clamp(0, 1) * 2 - 1, size)


def _by_tiles(network: Any, image: Tensor) -> Tensor:
    """(1, 3, h, w) in [0, 1] -> `scale` times as large, on the CPU."""
    scale, whole = network.scale, (image.shape[-2], image.shape[-1])
    large, total = torch.zeros(1, 3, whole[0] * scale, whole[1] * scale), torch.zeros(1, 1, *image.shape[-2:])
    total = F.interpolate(total, scale_factor=scale)
    for tile, weight in zip(TILING.tiles(whole), TILING.weights(whole), strict=True):
        part = network(tile.of(image, whole).to(network.device)).float().cpu()
        share = F.interpolate(weight[None, None], scale_factor=scale, mode="bilinear", align_corners=False)
        tile.of(large, whole).add_(part * share)
        tile.of(total, whole).add_(share)
    return large / total


@lru_cache(maxsize=1)
def _network(path: str, _changed: int) -> Any:
    """The network of a file, on its device. _changed: when the file was, so that another one is read."""
    try:
        from spandrel import ImageModelDescriptor, ModelLoader
    except (ImportError, RuntimeError) as error:  # the latter: a torchvision that was built for another torch
        raise UsageError(f"a learned upsampler needs the package spandrel: {error}", where="delivery.upscaler",
                         remedy='Install it: pip install "fresco-post[upscale]"') from error
    try:
        network = ModelLoader(choose_device()).load_from_state_dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise WeightsRefused(f"the upscaler cannot be read: {error}", where=path, remedy="Fetch it again.") from error
    except Exception as error:  # the classes differ from release to release, and all mean one thing
        raise WeightsUnsupported(f"no upsampler is known by these tensors: {type(error).__name__}", where=path,
                                 remedy="Take a network that spandrel reads; its documentation lists them.") from error
    if not isinstance(network, ImageModelDescriptor) or (network.input_channels, network.output_channels) != (3, 3):
        raise WeightsUnsupported("this network does not turn a picture into a larger one", where=path,
                                 remedy="Take an upsampling network of RGB pictures.")
    return network.eval()
