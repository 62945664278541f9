# SPDX-License-Identifier: Apache-2.0
"""FreeU: the decoder's own features strengthened against those of its skips, a context manager on a U-Net.

Source: Si et al., "FreeU: Free Lunch in Diffusion U-Net", CVPR 2024, equations 2 to 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class FreeU:
    """Scales; 1 changes nothing. backbone: of half of the features. skip: of the lowest frequencies of the skips.

    The first of each acts where the decoder is widest, the second where it is half as wide: at 1280 and at 640 channels
    of Stable Diffusion. The defaults are FRESCO's released program's.
    """

    backbone: tuple[float, float] = (1.2, 1.5)
    skip: tuple[float, float] = (1.0, 1.0)


@contextmanager
def free_u(unet: Any, settings: FreeU) -> Iterator[None]:
    """Apply FreeU to the decoder of a `UNet2DConditionModel` while the context is open; leaves no trace."""
    widest = max(unet.config["block_out_channels"])
    with ExitStack() as stack:
        for resnet, width in _backbones(unet):
            for place, channels in enumerate((widest, widest // 2)):
                if width == channels:
                    hook = _before(width, settings.backbone[place], settings.skip[place])
                    stack.callback(resnet.register_forward_pre_hook(hook).remove)
        yield


def strengthened(features: Tensor, scale: float) -> Tensor:
    """Features (B, C, h, w) with the first half of the channels scaled where their mean is high: by 1 to `scale`."""
    mean = features.mean(dim=1, keepdim=True)
    low, high = mean.amin(dim=(2, 3), keepdim=True), mean.amax(dim=(2, 3), keepdim=True)
    factor = (scale - 1) * (mean - low) / (high - low).clamp(min=1e-6) + 1
    half = features.shape[1] // 2
    return torch.cat([features[:, :half] * factor, features[:, half:]], dim=1)


def lowest_scaled(skip: Tensor, scale: float) -> Tensor:
    """Features (B, C, h, w) with their four lowest frequencies scaled; the same tensor for a scale of 1."""
    if scale == 1:
        return skip
    height, width = skip.shape[2:]
    # In float32: half precision has no transform of sizes that are no powers of two.
    spectrum = torch.fft.fftshift(torch.fft.fftn(skip.float(), dim=(-2, -1)), dim=(-2, -1))
    spectrum[..., height // 2 - 1 : height // 2 + 1, width // 2 - 1 : width // 2 + 1] *= scale
    filtered: Tensor = torch.fft.ifftn(torch.fft.ifftshift(spectrum, dim=(-2, -1)), dim=(-2, -1)).real
    return filtered.to(skip.dtype)


def _backbones(unet: Any) -> Iterator[tuple[nn.Module, int]]:
    """The decoder's residual blocks, and how many of the channels that enter them are the decoder's own."""
    before = unet.mid_block or unet.down_blocks[-1]  # some distilled models have no middle
    width = before.resnets[-1].out_channels
    for block in unet.up_blocks:
        for resnet in block.resnets:
            yield resnet, width
            width = resnet.out_channels


def _before(width: int, backbone: float, skip: float) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        own, skipped = args[0][:, :width], args[0][:, width:]
        return (torch.cat([strengthened(own, backbone), lowest_scaled(skipped, skip)], dim=1), *args[1:])

    return hook
