# SPDX-License-Identifier: Apache-2.0
"""An autoencoder that needs almost no training: a block cosine transform behind the interface of diffusers.

Encoding is a fixed orthonormal 8x8 DCT-II of Y, Cb and Cr of which the lowest frequencies are kept as latent channels
(a latent at 1/8 of the picture, like Stable Diffusion's). Decoding is the inverse transform followed by a small
residual network at half resolution that removes block edges and restores high frequencies.
Source: N. Ahmed, T. Natarajan, K. R. Rao, Discrete Cosine Transform, 1974; YCbCr of ITU-R BT.601.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

BLOCK = 8
YCBCR_FROM_RGB = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def lowest_frequencies(count: int) -> list[tuple[int, int]]:
    """The `count` lowest (row, column) frequencies of a block, in order of squared radius, then row."""
    pairs = [(row, column) for row in range(BLOCK) for column in range(BLOCK)]
    return sorted(pairs, key=lambda pair: (pair[0] ** 2 + pair[1] ** 2, pair[0]))[:count]


def cosine_basis() -> Tensor:
    """The orthonormal DCT-II matrix (frequency, position), 8x8, float64."""
    position = torch.arange(BLOCK, dtype=torch.float64)
    basis = torch.cos(math.pi / BLOCK * (position[None] + 0.5) * position[:, None]) * math.sqrt(2 / BLOCK)
    basis[0] /= math.sqrt(2)
    return basis


def transform_kernel(luma: int, chroma: int) -> Tensor:
    """Kernel (luma + 2 chroma, 3, 8, 8) that takes an RGB block to its kept YCbCr frequencies; float32."""
    basis, matrix = cosine_basis(), torch.tensor(YCBCR_FROM_RGB, dtype=torch.float64)
    rows = [
        matrix[plane][:, None, None] * basis[i][:, None] * basis[j][None]
        for plane, count in enumerate((luma, chroma, chroma))
        for i, j in lowest_frequencies(count)
    ]
    return torch.stack(rows).float()


def inverse_kernel(luma: int, chroma: int) -> Tensor:
    """Kernel (luma + 2 chroma, 3, 8, 8) of the transposed convolution that takes frequencies back to RGB; float32."""
    basis = cosine_basis()
    matrix = torch.linalg.inv(torch.tensor(YCBCR_FROM_RGB, dtype=torch.float64))
    rows = [
        matrix[:, plane][:, None, None] * basis[i][:, None] * basis[j][None]
        for plane, count in enumerate((luma, chroma, chroma))
        for i, j in lowest_frequencies(count)
    ]
    return torch.stack(rows).float()


class Restoration(nn.Module):
    """Residual network at half resolution: picture (N, 3, H, W) -> correction (N, 3, H, W), zero before training."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(12, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(depth)
        )
        self.leave = nn.Conv2d(width, 12, 3, padding=1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, picture: Tensor) -> Tensor:
        hidden: Tensor = self.enter(F.pixel_unshuffle(picture, 2))
        for block in self.blocks:
            hidden = hidden + block(F.silu(hidden))
        return F.pixel_shuffle(self.leave(F.silu(hidden)), 2)


class DctAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Block-DCT autoencoder with factor 8: encode (N, 3, H, W) in [-1, 1] -> (N, luma + 2 chroma, H/8, W/8), and back.

    `gains`: one factor per latent channel, so that the channels of natural pictures have comparable deviations.
    The latent is deterministic: `latent_dist.mode()` and `.sample()` are equal.
    """

    config_name = "config.json"

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        luma: int = 26,
        chroma: int = 3,
        gains: tuple[float, ...] | None = None,
        latent_channels: int = 32,
        width: int = 32,
        depth: int = 3,
        scaling_factor: float = 1.0,
        force_upcast: bool = True,
    ) -> None:
        super().__init__()
        if latent_channels != luma + 2 * chroma:
            raise ValueError(f"latent_channels is {latent_channels}, but luma + 2 chroma is {luma + 2 * chroma}")
        known = (1.0,) * latent_channels if gains is None else gains
        gain = torch.tensor(known, dtype=torch.float32)  # said, since diffusers builds networks of half precision in it
        if gain.shape != (latent_channels,):
            raise ValueError(f"gains has {gain.numel()} values for {latent_channels} latent channels")
        gain = gain[:, None, None, None]
        self.register_buffer("forward_kernel", transform_kernel(luma, chroma) * gain, persistent=False)
        self.register_buffer("inverse_kernel", inverse_kernel(luma, chroma) / gain, persistent=False)
        self.restoration = Restoration(width, depth)

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        mean = F.conv2d(x, self.forward_kernel.to(x), stride=BLOCK)
        posterior = DiagonalGaussianDistribution(torch.cat([mean, torch.zeros_like(mean)], dim=1), deterministic=True)
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def inverse_transform(self, z: Tensor) -> Tensor:
        """The picture of a latent before restoration: (N, C, h, w) -> (N, 3, 8h, 8w)."""
        return F.conv_transpose2d(z, self.inverse_kernel.to(z), stride=BLOCK)

    def decode(self, z: Tensor, return_dict: bool = True, generator: object = None) -> DecoderOutput | tuple[Tensor]:
        picture = self.inverse_transform(z)
        sample = picture + self.restoration(picture)
        return DecoderOutput(sample=sample) if return_dict else (sample,)
