# SPDX-License-Identifier: Apache-2.0
"""Reads a Stable Diffusion checkpoint of one `.safetensors` file, in its original names, without any network.

Such a file holds weights alone. What else a model needs is known of its family and stands here: the sizes are read off
the tensors, the noise schedule is the one of its training, and the tokenizer's merges lie in `sd1/`. diffusers converts
the names. Source: CompVis/stable-diffusion, Stability-AI/stablediffusion and generative-models, their configurations
of inference (structure, names, schedules); OpenAI CLIP and OpenCLIP (text encoders and byte pairs).
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors.torch import load_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from fresco_backend.models.model_family import SINGLE_FILE_PREFIXES, VELOCITY_MARK, WHOLE_NOISE_MARK, Family
from fresco_backend.models.unet_shape import unet_shape
from fresco_protocol.errors import WeightsRefused, WeightsUnsupported

CLIP_MERGES = Path(__file__).parent / "sd1" / "clip_merges.txt.gz"
SCHEDULE: Mapping[str, Any] = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
_SCALE = 0.18215  # of Stable Diffusion 1's latents, and of all others'
_SCALES = {Family.SDXL: 0.13025}
_TEXT_HEAD = 64  # channels of one head of a text encoder
_VAE = "first_stage_model."

Weights = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The networks of a checkpoint on the CPU, in the precision of its file, which is mapped and not read.

    vae: None where it was not asked for.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL | None
    text_encoder: CLIPTextModel
    text_encoder_2: CLIPTextModelWithProjection | None
    schedule: Mapping[str, Any]


def read_single_file(path: Path, family: Family, *, own_vae: bool = True) -> Checkpoint:
    """The networks of a checkpoint of a family; without its autoencoder unless `own_vae`.

    Raises WeightsUnsupported for another structure and WeightsRefused when tensors are missing or of wrong shapes.
    """
    weights = load_file(path)
    try:
        return Checkpoint(
            unet=_unet(weights, path),
            vae=_autoencoder(_part(weights, _VAE), _SCALES.get(family, _SCALE)) if own_vae else None,
            text_encoder=_text_encoder(weights, family),
            text_encoder_2=_second_encoder(weights) if family is Family.SDXL else None,
            schedule=_schedule(weights),
        )
    except (LookupError, RuntimeError, ValueError, AttributeError) as error:
        raise WeightsRefused(
            f"not a whole {family.value}: {error}", where=path, remedy="Give the model as a diffusers folder."
        ) from error


def read_autoencoder(path: Path, family: Family) -> AutoencoderKL:
    """The autoencoder of a file that holds one alone, or of a whole checkpoint. Raises WeightsRefused.

    family: of the model that it serves, which decides the scale of the latents; no file states it.
    """
    weights = load_file(path)
    part = _part(weights, _VAE) or {f"{_VAE}{key}": _exact(value) for key, value in weights.items()}
    try:
        return _autoencoder(part, _SCALES.get(family, _SCALE))
    except (LookupError, RuntimeError, ValueError) as error:
        raise WeightsRefused(
            f"not a whole autoencoder: {error}", where=path, remedy="Give it as a diffusers folder."
        ) from error


def clip_tokenizer(padding: str | None = None) -> CLIPTokenizer:
    """CLIP's tokenizer with its 49,408 tokens, at most 77 a prompt. padding: None is the token of the end."""
    merges = gzip.decompress(CLIP_MERGES.read_bytes()).decode("utf-8").splitlines()
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    vocabulary = {token: index for index, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    chosen = {"pad_token": padding} if padding else {}
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=77, **chosen)


def _schedule(weights: Mapping[str, Tensor]) -> Mapping[str, Any]:
    """The noise of the training, and what two marks of community checkpoints say of it."""
    found = dict(SCHEDULE)
    if VELOCITY_MARK in weights:
        found["prediction_type"] = "v_prediction"
    if WHOLE_NOISE_MARK in weights:
        found |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return found


def _unet(weights: Mapping[str, Tensor], path: Path) -> UNet2DConditionModel:
    part = _part(weights, SINGLE_FILE_PREFIXES[Family.SD1]["unet"])
    shape = unet_shape(part)
    if shape["in_channels"] != shape["out_channels"]:
        raise WeightsUnsupported(
            f"its U-Net takes {shape['in_channels']} channels", where=path,
            remedy="Use a text-to-image model, not an inpainting one.",
        )  # fmt: skip
    unet = _structure(UNet2DConditionModel, **shape)
    return _filled(unet, convert_ldm_unet_checkpoint(part, unet.config))


def _autoencoder(part: Weights, scale: float) -> AutoencoderKL:
    channels = part[f"{_VAE}encoder.conv_in.weight"].shape[0]
    name = re.compile(re.escape(_VAE) + r"encoder\.down\.(\d+)\.block\.(\d+)\.conv2\.weight")
    blocks = {(int(found[1]), int(found[2])): key for key in part if (found := name.fullmatch(key))}
    levels = sorted({level for level, _ in blocks})
    vae = _structure(
        AutoencoderKL,
        down_block_types=("DownEncoderBlock2D",) * len(levels),
        up_block_types=("UpDecoderBlock2D",) * len(levels),
        block_out_channels=tuple(part[blocks[level, 0]].shape[0] for level in levels),
        layers_per_block=1 + max(block for _, block in blocks),
        latent_channels=part[f"{_VAE}post_quant_conv.weight"].shape[0],
        norm_num_groups=min(32, channels),
        scaling_factor=scale,
        force_upcast=scale != _SCALE,  # Stable Diffusion XL's overflows in half precision
    )
    return _filled(vae, convert_ldm_vae_checkpoint(part, vae.config))


def _text_encoder(weights: Mapping[str, Tensor], family: Family) -> CLIPTextModel:
    prefix = SINGLE_FILE_PREFIXES[family]["text_encoder"]
    part = _part(weights, prefix)
    if family is Family.SD2:
        return _filled_text(CLIPTextModel, part, prefix, drop_last=True)
    plain = {key.removeprefix(prefix): value for key, value in part.items()}
    plain.pop("embeddings.position_ids", None)  # a buffer of old files, 0 to 76
    tokens, width = plain["embeddings.token_embedding.weight"].shape
    config = _text_config(
        tokens, width,
        inner=plain["encoder.layers.0.mlp.fc1.weight"].shape[0],
        layers=sum(key.endswith("mlp.fc1.weight") for key in plain),
        length=plain["embeddings.position_embedding.weight"].shape[0],
    )  # fmt: skip
    return _filled(_structure(CLIPTextModel, config), plain)


def _second_encoder(weights: Mapping[str, Tensor]) -> CLIPTextModelWithProjection:
    prefix = SINGLE_FILE_PREFIXES[Family.SDXL]["text_encoder_2"]
    part = _part(weights, prefix)
    part.pop(f"{prefix}logit_scale", None)
    return _filled_text(CLIPTextModelWithProjection, part, prefix, drop_last=False)


def _filled_text(kind: Any, part: Weights, prefix: str, *, drop_last: bool) -> Any:
    """An encoder in OpenCLIP's names. drop_last: without its last layer, as Stable Diffusion 2 is trained."""
    part = {key: value for key, value in part.items() if not key.endswith((".attn_mask", ".logit_scale"))}
    tokens, width = part[f"{prefix}token_embedding.weight"].shape
    layers = 1 + max(int(found[1]) for key in part if (found := re.search(r"resblocks\.(\d+)\.", key)))
    if drop_last:
        layers -= 1
        part = {key: value for key, value in part.items() if f"resblocks.{layers}." not in key}
    config = _text_config(
        tokens, width, layers=layers,
        inner=part[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        length=part[f"{prefix}positional_embedding"].shape[0],
    )  # fmt: skip
    config.hidden_act = "gelu"
    model = _structure(kind, config)
    return _filled(model, convert_open_clip_checkpoint(model, part, prefix=prefix))


def _text_config(tokens: int, width: int, *, inner: int, layers: int, length: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=tokens,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // _TEXT_HEAD),
        max_position_embeddings=length,
        projection_dim=width,
        bos_token_id=tokens - 2,
        eos_token_id=tokens - 1,
        pad_token_id=tokens - 1,
    )


def _structure(kind: Any, *arguments: Any, **named: Any) -> Any:
    """A network without values: no memory, and no time for random numbers that are replaced."""
    with torch.device("meta"):
        model = kind(*arguments, **named)
    for module in model.modules():
        if "position_ids" in module._buffers:  # of text encoders; no file holds them
            count = module._buffers["position_ids"].shape[-1]
            module.register_buffer("position_ids", torch.arange(count)[None], persistent=False)
    return model


def _filled(model: Any, weights: Weights) -> Any:
    """The network with these weights: not a tensor less, and of the text encoders not a name of another release."""
    wanted = model.state_dict().keys()
    named = {key if key in wanted else key.removeprefix("text_model."): value for key, value in weights.items()}
    if isinstance(model, CLIPTextModel):
        named.pop("text_projection.weight", None)
    named = {key if key in wanted else f"text_model.{key}": value for key, value in named.items()}
    lacking = sorted(wanted - named.keys())
    if lacking:
        raise ValueError(f"{type(model).__name__} lacks {len(lacking)} tensors, {lacking[0]} first")
    model.load_state_dict({key: named[key] for key in wanted}, strict=True, assign=True)
    if hollow := [name for name, value in (*model.named_parameters(), *model.named_buffers()) if value.is_meta]:
        raise ValueError(f"{type(model).__name__} got no value for {hollow[0]}")
    return nn.Module.eval(model)


def _part(weights: Mapping[str, Tensor], prefix: str) -> Weights:
    """The tensors of one component, with their names as they are: diffusers' converters look for the prefix."""
    names = (key for key in weights if key.startswith(prefix) and not key.startswith(f"{_VAE}loss."))
    return {key: _exact(weights[key]) for key in names}


def _exact(value: Tensor) -> Tensor:
    """A tensor as it is, where networks run in its type; else, such as one of eight bits or of 64, in float32."""
    return value if value.dtype in (torch.float16, torch.bfloat16) else value.float()
