# SPDX-License-Identifier: Apache-2.0
"""Writes models of diffusers' structure as Stable Diffusion 1.x was released: one file, with its original names.

Source of the names: CompVis/stable-diffusion, ldm/modules/diffusionmodules/{openaimodel,model}.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel

Rules = Iterable[tuple[str, str]]

_RESIDUAL = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)
_AUTOENCODER: Rules = (
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
    (r"mid_block\.attentions\.0\.to_([qkv])", r"mid.attn_1.\1"),
    (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
)


def save_single_file(path: Path, unet: UNet2DConditionModel, vae: AutoencoderKL, text_encoder: CLIPTextModel) -> Path:
    """Writes the three models with a U-Net of four levels to the `.safetensors` file `path`, and gives `path`."""
    save_file({**_unet(unet), **_autoencoder(vae), **_text_encoder(text_encoder)}, path)
    return path


def _unet(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    rules = [*_unet_rules(unet.config["layers_per_block"])]
    return {"model.diffusion_model." + _rename(key, rules): value for key, value in unet.state_dict().items()}


def _unet_rules(layers: int) -> Rules:
    yield from ((rf"(resnets\.\d)\.{ours}\.", rf"\1.{theirs}.") for ours, theirs in _RESIDUAL)
    yield from ((r"^time_embedding\.linear_1", "time_embed.0"), (r"^time_embedding\.linear_2", "time_embed.2"))
    yield from ((r"^conv_in", "input_blocks.0.0"), (r"^conv_norm_out", "out.0"), (r"^conv_out", "out.2"))
    yield from ((r"^mid_block\.resnets\.0", "middle_block.0"), (r"^mid_block\.resnets\.1", "middle_block.2"))
    yield (r"^mid_block\.attentions\.0", "middle_block.1")
    for level in range(4):
        first = (layers + 1) * level
        for block in range(layers + 1):
            yield (rf"^down_blocks\.{level}\.resnets\.{block}\.", f"input_blocks.{first + block + 1}.0.")
            yield (rf"^down_blocks\.{level}\.attentions\.{block}\.", f"input_blocks.{first + block + 1}.1.")
            yield (rf"^up_blocks\.{level}\.resnets\.{block}\.", f"output_blocks.{first + block}.0.")
            yield (rf"^up_blocks\.{level}\.attentions\.{block}\.", f"output_blocks.{first + block}.1.")
        yield (rf"^down_blocks\.{level}\.downsamplers\.0\.conv", f"input_blocks.{first + layers + 1}.0.op")
        # The coarsest level has no attention, so its upsampler is the second module of its block.
        yield (rf"^up_blocks\.{level}\.upsamplers\.0", f"output_blocks.{first + layers}.{2 if level else 1}")


def _autoencoder(vae: AutoencoderKL) -> dict[str, Tensor]:
    rules = [
        *_AUTOENCODER,
        *((rf"up_blocks\.{i}\.resnets", f"up.{3 - i}.block") for i in range(4)),
        *((rf"up_blocks\.{i}\.upsamplers\.0", f"up.{3 - i}.upsample") for i in range(4)),
    ]
    named = {"first_stage_model." + _rename(key, rules): value for key, value in vae.state_dict().items()}
    # The original autoencoder's attention is made of 1 x 1 convolutions.
    convolution = re.compile(r".*attn_1\.(q|k|v|proj_out)\.weight")
    return {key: value[..., None, None] if convolution.match(key) else value for key, value in named.items()}


def _text_encoder(text_encoder: CLIPTextModel) -> dict[str, Tensor]:
    names = ((key.removeprefix("text_model."), value) for key, value in text_encoder.state_dict().items())
    return {f"cond_stage_model.transformer.text_model.{key}": value for key, value in names}


def _rename(key: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key
