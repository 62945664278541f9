# SPDX-License-Identifier: Apache-2.0
"""Reads a Stable Diffusion 1.x checkpoint of one `.safetensors` file, in its original names, without any network.

Such a file holds weights alone. What else a model needs is known of Stable Diffusion 1.x and stands here: the sizes are
read off the tensors, the noise schedule is the one of its training, and the tokenizer's merges lie in `sd1/`.
Source: CompVis/stable-diffusion, configs/stable-diffusion/v1-inference.yaml (structure, names and schedule); OpenAI
CLIP (text encoder and byte pairs).
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from fresco_backend.model_store import SINGLE_FILE_PREFIXES
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
_BLOCKS = "model.diffusion_model.input_blocks."
_HEADS = 8  # of the U-Net, at every resolution
_TEXT_HEAD = 64  # channels of one head of CLIP's text encoder


def read_single_file(path: Path) -> tuple[UNet2DConditionModel, AutoencoderKL, CLIPTextModel]:
    """The U-Net, the autoencoder and the text encoder of a Stable Diffusion 1.x checkpoint, in float32 on the CPU.

    Raises WeightsUnsupported for another structure and WeightsRefused when tensors are missing or of wrong shapes.
    """
    checkpoint = load_file(path)
    try:
        config = original_config(checkpoint)
        unet = _converted(UNet2DConditionModel, _part(checkpoint, "unet"), config)
        vae = _converted(AutoencoderKL, _part(checkpoint, "vae"), config)
        text_encoder = _text_encoder(checkpoint)
    except (LookupError, RuntimeError, ValueError) as error:
        raise WeightsRefused(
            f"not a whole Stable Diffusion 1.x: {error}", where=path, remedy="Give the model as a diffusers folder."
        ) from error
    return unet, vae, text_encoder


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with its 49,408 tokens, at most 77 a prompt."""
    merges = gzip.decompress(CLIP_MERGES.read_bytes()).decode("utf-8").splitlines()
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    vocabulary = {token: index for index, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=77)


def original_config(checkpoint: Mapping[str, Tensor]) -> dict[str, Any]:
    """The configuration of a checkpoint as v1-inference.yaml would state it, with its sizes read off the tensors.

    Raises WeightsUnsupported when the U-Net does not take four latent channels (inpainting, depth, upscaling).
    """
    entrance = checkpoint["model.diffusion_model.input_blocks.0.0.weight"]
    if entrance.shape[1] != 4:
        raise WeightsUnsupported(
            f"its U-Net takes {entrance.shape[1]} channels", remedy="Use a text-to-image model, not an inpainting one."
        )
    cross = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    unet = {
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": entrance.shape[0],
        "attention_resolutions": [4, 2, 1],
        "num_heads": _HEADS,
        "transformer_depth": 1,
        "context_dim": checkpoint[cross].shape[1],
        **_unet_levels(checkpoint, entrance.shape[0]),
    }
    parameters = {
        "unet_config": {"params": unet},
        "first_stage_config": {"params": {"ddconfig": _autoencoder(checkpoint)}},
        "scale_factor": 0.18215,
    }
    return {"model": {"params": parameters}}


def _unet_levels(checkpoint: Mapping[str, Tensor], channels: int) -> dict[str, Any]:
    """Channels of each level and blocks a level: input block 0 is the entrance, and one in (blocks + 1) goes down."""
    name = re.compile(re.escape(_BLOCKS) + r"(\d+)\.0\.(op|in_layers\.2)\.weight")
    blocks = {int(found[1]): found for key in checkpoint if (found := name.fullmatch(key))}
    downs = sorted(index for index, found in blocks.items() if found[2] == "op")
    last = [*(index - 1 for index in downs), max(blocks)]
    widths = [checkpoint[f"{_BLOCKS}{index}.0.out_layers.3.weight"].shape[0] for index in last]
    return {"channel_mult": [width // channels for width in widths], "num_res_blocks": downs[0] - 1}


def _autoencoder(checkpoint: Mapping[str, Tensor]) -> dict[str, Any]:
    channels = checkpoint["first_stage_model.encoder.conv_in.weight"].shape[0]
    name = re.compile(r"first_stage_model\.encoder\.down\.(\d+)\.block\.(\d+)\.conv2\.weight")
    blocks = {(int(found[1]), int(found[2])): key for key in checkpoint if (found := name.fullmatch(key))}
    levels = sorted({level for level, _ in blocks})
    return {
        "z_channels": checkpoint["first_stage_model.post_quant_conv.weight"].shape[0],
        "resolution": 512,
        "in_channels": 3,
        "out_ch": 3,
        "ch": channels,
        "ch_mult": [checkpoint[blocks[level, 0]].shape[0] // channels for level in levels],
        "num_res_blocks": 1 + max(block for _, block in blocks),
    }


def _converted(kind: Any, weights: dict[str, Tensor], config: dict[str, Any]) -> Any:
    """The component, converted by diffusers; its reader leaves random what it does not find, so tensors are counted."""
    model = kind.from_single_file(weights, original_config=config)
    wanted = len(model.state_dict())
    if len(weights) < wanted:
        raise ValueError(f"{kind.__name__} has {wanted} tensors, the file {len(weights)}")
    return model


def _part(checkpoint: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors of one component, with their names as they are: diffusers' converters look for the prefix."""
    prefix, training = SINGLE_FILE_PREFIXES[part], "first_stage_model.loss."
    names = (key for key in checkpoint if key.startswith(prefix) and not key.startswith(training))
    return {key: checkpoint[key].float() for key in names}


def _text_encoder(checkpoint: Mapping[str, Tensor]) -> CLIPTextModel:
    """CLIP's text encoder; every tensor must fit (diffusers' own reader leaves a missing one random)."""
    prefix = SINGLE_FILE_PREFIXES["text_encoder"]
    weights = {key.removeprefix(prefix): value for key, value in _part(checkpoint, "text_encoder").items()}
    weights.pop("embeddings.position_ids", None)  # a buffer of old files, 0 to 76
    tokens, width = weights["embeddings.token_embedding.weight"].shape
    config = CLIPTextConfig(
        vocab_size=tokens,
        hidden_size=width,
        intermediate_size=weights["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=sum(key.endswith("mlp.fc1.weight") for key in weights),
        num_attention_heads=max(1, width // _TEXT_HEAD),
        max_position_embeddings=weights["embeddings.position_embedding.weight"].shape[0],
        projection_dim=width,
        bos_token_id=tokens - 2,
        eos_token_id=tokens - 1,
        pad_token_id=tokens - 1,
    )
    model = CLIPTextModel(config)
    model.load_state_dict(weights, strict=True)
    return model.eval()
