# SPDX-License-Identifier: Apache-2.0
"""Writes models of diffusers' structure as Stable Diffusion was released: one file, with its original names.

Source of the names: CompVis/stable-diffusion, ldm/modules/diffusionmodules/{openaimodel,model}.py; mlfoundations
/open_clip, src/open_clip/transformer.py, for the text encoders of 2 and XL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

Rules = Iterable[tuple[str, str]]

_OPEN_CLIP: Rules = (
    (r"^embeddings\.token_embedding", "token_embedding"),
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"\.self_attn\.out_proj", ".attn.out_proj"),
    (r"\.layer_norm(\d)", r".ln_\1"),
    (r"\.mlp\.fc1", ".mlp.c_fc"),
    (r"\.mlp\.fc2", ".mlp.c_proj"),
    (r"^final_layer_norm", "ln_final"),
)

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


def save_sd2(path: Path, unet: UNet2DConditionModel, vae: AutoencoderKL, text_encoder: CLIPTextModel) -> Path:
    """The same of Stable Diffusion 2, whose file holds one layer of the text encoder more than the model uses."""
    encoder = _open_clip(text_encoder, "cond_stage_model.model.")
    last = text_encoder.config.num_hidden_layers
    spare = {key.replace("resblocks.0.", f"resblocks.{last}."): value for key, value in encoder.items()}
    encoder = {**encoder, **{key: torch.rand_like(value) for key, value in spare.items() if f".{last}." in key}}
    save_file({**_unet(unet), **_autoencoder(vae), **encoder}, path)
    return path


def save_sdxl(path: Path, unet: UNet2DConditionModel, vae: AutoencoderKL, first: CLIPTextModel,
              second: CLIPTextModelWithProjection) -> Path:
    """The same of Stable Diffusion XL."""
    old, new = "cond_stage_model.", "conditioner.embedders.0."
    encoders = {key.replace(old, new): value for key, value in _text_encoder(first).items()}
    encoders |= _open_clip(second, "conditioner.embedders.1.model.")
    save_file({**_unet(unet), **_autoencoder(vae), **encoders}, path)
    return path


def save_autoencoder(path: Path, vae: AutoencoderKL) -> Path:
    """An autoencoder alone, as fine-tuned ones are released."""
    save_file({key.removeprefix("first_stage_model."): value for key, value in _autoencoder(vae).items()}, path)
    return path


def _unet(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    rules = [*_unet_rules(unet.config["layers_per_block"], unet.config["up_block_types"])]
    return {"model.diffusion_model." + _rename(key, rules): value for key, value in unet.state_dict().items()}


def _unet_rules(layers: int, up_blocks: Sequence[str]) -> Rules:
    yield from ((rf"(resnets\.\d)\.{ours}\.", rf"\1.{theirs}.") for ours, theirs in _RESIDUAL)
    yield from ((r"^time_embedding\.linear_1", "time_embed.0"), (r"^time_embedding\.linear_2", "time_embed.2"))
    yield from ((r"^conv_in", "input_blocks.0.0"), (r"^conv_norm_out", "out.0"), (r"^conv_out", "out.2"))
    yield from ((r"^mid_block\.resnets\.0", "middle_block.0"), (r"^mid_block\.resnets\.1", "middle_block.2"))
    yield (r"^mid_block\.attentions\.0", "middle_block.1")
    yield from ((rf"^add_embedding\.linear_{number + 1}", f"label_emb.0.{2 * number}") for number in range(2))
    for level, kind in enumerate(up_blocks):
        first = (layers + 1) * level
        for block in range(layers + 1):
            yield (rf"^down_blocks\.{level}\.resnets\.{block}\.", f"input_blocks.{first + block + 1}.0.")
            yield (rf"^down_blocks\.{level}\.attentions\.{block}\.", f"input_blocks.{first + block + 1}.1.")
            yield (rf"^up_blocks\.{level}\.resnets\.{block}\.", f"output_blocks.{first + block}.0.")
            yield (rf"^up_blocks\.{level}\.attentions\.{block}\.", f"output_blocks.{first + block}.1.")
        yield (rf"^down_blocks\.{level}\.downsamplers\.0\.conv", f"input_blocks.{first + layers + 1}.0.op")
        # Without attention the upsampler is the second module of its block.
        part = 2 if "CrossAttn" in kind else 1
        yield (rf"^up_blocks\.{level}\.upsamplers\.0", f"output_blocks.{first + layers}.{part}")


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


def _open_clip(text_encoder: CLIPTextModel | CLIPTextModelWithProjection, prefix: str) -> dict[str, Tensor]:
    """A text encoder in OpenCLIP's names: queries, keys and values in one matrix, matrices without a name's end."""
    state = {key.removeprefix("text_model."): value for key, value in text_encoder.state_dict().items()}
    found = {"positional_embedding": state.pop("embeddings.position_embedding.weight")}
    if "text_projection.weight" in state:
        found["text_projection"] = state.pop("text_projection.weight").T.contiguous()
    for layer in range(text_encoder.config.num_hidden_layers):
        parts = [f"encoder.layers.{layer}.self_attn.{name}_proj" for name in "qkv"]
        for end in ("weight", "bias"):
            joined = torch.cat([state.pop(f"{part}.{end}") for part in parts])
            found[f"transformer.resblocks.{layer}.attn.in_proj_{end}"] = joined
    found |= {_rename(key, _OPEN_CLIP): value for key, value in state.items()}
    return {prefix + key: value for key, value in found.items()}


def _rename(key: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key
