# SPDX-License-Identifier: Apache-2.0
"""The networks that are benchmarked: the embedded model, or random weights in the shape of Stable Diffusion 1.5."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from fresco_backend.models.weights import load
from fresco_protocol.shot import Control, ControlKind

PROMPT = "an oil painting"
SD_TEXT = (1, 77, 768)
# What diffusers' configurations of Stable Diffusion 1.5 say and its classes do not have as defaults.
SD_NET: dict[str, Any] = {"cross_attention_dim": 768, "attention_head_dim": 8}
SD_AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip


class Shape(Enum):
    """Which networks: what a step costs depends on their shape, not on their weights."""

    EMBEDDED = "embedded"
    SD15 = "sd15"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Networks on their device. text: (1, T, C), states of one prompt."""

    unet: Any
    control: Any
    vae: Any
    text: Tensor

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.text.device

    @property
    def dtype(self) -> torch.dtype:
        """The U-Net's type."""
        return self.text.dtype


def subject(shape: Shape, device: torch.device, dtype: torch.dtype) -> Subject:
    """The networks of a shape. Raises WeightsError when the embedded model is not whole."""
    if shape is Shape.SD15:
        return Subject(
            unet=random_network(UNet2DConditionModel, SD_NET, device, dtype),
            control=random_network(ControlNetModel, SD_NET, device, dtype),
            vae=random_network(AutoencoderKL, SD_AUTOENCODER, device, dtype),
            text=torch.randn(SD_TEXT, generator=torch.Generator().manual_seed(0)).to(device, dtype),
        )
    control = Control(kind=ControlKind.SOFT_EDGE)
    models = load("embedded", controls=(control,))
    text = models.encode_prompts([PROMPT]).to(models.unet.device, models.unet.dtype)
    return Subject(unet=models.unet, control=models.controlnets[control], vae=models.vae, text=text)


def random_network(kind: Any, configuration: dict[str, Any], device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A network of random weights that keep the size of what passes through, made without a slow initialisation."""
    with torch.device("meta"):
        made = kind(**configuration)
    made = nn.Module.to(made, dtype)  # diffusers' own warns of layers to keep in float32, and names none
    network: nn.Module = made.to_empty(device=device).eval().requires_grad_(False)
    for name, weights in network.named_parameters():
        if weights.dim() > 1:
            weights.uniform_(-1, 1).mul_(math.sqrt(3 / weights[0].numel()))
        else:
            weights.fill_(float(name.endswith("weight")))
    return network
