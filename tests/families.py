# SPDX-License-Identifier: Apache-2.0
"""Small random models of the structure of Stable Diffusion 2 and XL, in diffusers' layout and in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import tiny

POOLED = 32
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}

# The U-Nets as they were released, but for what is diffusers' default. Source: unet/config.json of each release.
_FOUR_LEVELS = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
}
SD1 = {**_FOUR_LEVELS, "cross_attention_dim": 768, "attention_head_dim": 8}
SD2 = {
    **_FOUR_LEVELS, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True
}  # fmt: skip
SDXL = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 10],
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def sd2_unet(seed: int = 0) -> UNet2DConditionModel:
    """Stable Diffusion 2's: linear projections, heads of 64 channels, as many as a level has room for."""
    with seeded(seed):
        return UNet2DConditionModel(
            sample_size=8,
            down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
            up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
            block_out_channels=(64, 64, 128, 128),
            layers_per_block=2,
            cross_attention_dim=64,
            attention_head_dim=[1, 1, 2, 2],
            use_linear_projection=True,
        ).eval()


def sdxl_unet(seed: int = 0, text_width: int = 128) -> UNet2DConditionModel:
    """Stable Diffusion XL's: three levels, none, one and two transformer blocks an attention, told text and size."""
    with seeded(seed):
        return UNet2DConditionModel(
            sample_size=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(64, 64, 128),
            transformer_layers_per_block=[1, 1, 2],
            layers_per_block=2,
            cross_attention_dim=text_width,
            attention_head_dim=[1, 1, 2],
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=text_width // 2 + 6 * 256,
        ).eval()


def distilled_unet(seed: int = 0) -> UNet2DConditionModel:
    """That of a small Stable Diffusion which was distilled from the first (BK-SDM-Tiny): three levels, no middle."""
    with seeded(seed):
        return UNet2DConditionModel(
            sample_size=8,
            down_block_types=("CrossAttnDownBlock2D",) * 3,
            mid_block_type=None,
            up_block_types=("CrossAttnUpBlock2D",) * 3,
            block_out_channels=(32, 32, 64),
            layers_per_block=1,
            cross_attention_dim=tiny.TEXT_WIDTH,
            attention_head_dim=4,
            norm_num_groups=8,
        ).eval()


def text_encoder(kind: Any, tokenizer: Any, seed: int, *, width: int = 64, act: str = "gelu") -> Any:
    """A CLIPTextModel or CLIPTextModelWithProjection of two layers."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=64, projection_dim=width, num_hidden_layers=2,
        num_attention_heads=1, max_position_embeddings=tiny.TEXT_LENGTH, hidden_act=act,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with seeded(seed):
        return kind(config).eval()


def xl_vae(seed: int = 2, *, groups: int = 4, channels: tuple[int, ...] = (8, 8, 16, 16)) -> AutoencoderKL:
    """Stable Diffusion XL's autoencoder: another scale, and a note that half precision is too little."""
    vae = tiny.tiny_vae(seed, groups=groups, channels=channels)
    vae.register_to_config(scaling_factor=0.13025, force_upcast=True)
    return vae


def save_sd2(folder: Path, *, prediction: str = "v_prediction") -> Path:
    """A tiny Stable Diffusion 2 in diffusers' layout; gives `folder`."""
    tokenizer = tiny.tiny_tokenizer()
    pipeline = StableDiffusionPipeline(
        vae=tiny.tiny_vae(), text_encoder=text_encoder(CLIPTextModel, tokenizer, 3), tokenizer=tokenizer,
        unet=sd2_unet(), scheduler=DDIMScheduler(**NOISE, prediction_type=prediction, clip_sample=False),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def xl_pipeline(**options: Any) -> StableDiffusionXLPipeline:
    """A tiny Stable Diffusion XL."""
    tokenizer = tiny.tiny_tokenizer()
    return StableDiffusionXLPipeline(
        vae=xl_vae(), text_encoder=text_encoder(CLIPTextModel, tokenizer, 3, act="quick_gelu"), tokenizer=tokenizer,
        text_encoder_2=text_encoder(CLIPTextModelWithProjection, tokenizer, 4), tokenizer_2=tokenizer,
        unet=sdxl_unet(), scheduler=EulerDiscreteScheduler(**NOISE, timestep_spacing="leading"),
        add_watermarker=False, **options,
    )  # fmt: skip


def save_sdxl(folder: Path, *, control: bool = False) -> Path:
    """A tiny Stable Diffusion XL in diffusers' layout, with a ControlNet in `controlnet/` if asked; gives `folder`."""
    pipeline = xl_pipeline()
    pipeline.save_pretrained(folder, safe_serialization=True)
    if control:
        tiny.tiny_controlnet(pipeline.unet).save_pretrained(folder / "controlnet", safe_serialization=True)
    return folder


def seeded(seed: int) -> Any:
    """Seeds torch's global generator, and leaves it untouched for the caller."""
    return tiny._seeded(seed)


def states_of(prompts: Any) -> torch.Tensor:
    """The tensor of what diffusers' XL pipeline reads: token states, and a row with the pooled state."""
    embeds, pooled = prompts
    row = torch.nn.functional.pad(pooled, (0, embeds.shape[-1] - pooled.shape[-1]))
    return torch.cat([embeds, row[:, None]], dim=1)
