# SPDX-License-Identifier: Apache-2.0
"""The shape of a U-Net in a checkpoint of one file, read off its tensors: what diffusers' UNet2DConditionModel takes.

Of Stable Diffusion 1, 2 and XL, which differ in their levels, the depth of their transformers, their heads, and in what
they are told beside the text. Source: openaimodel.py of CompVis/stable-diffusion and Stability-AI/generative-models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

PREFIX = "model.diffusion_model."
_HEADS = 8  # of Stable Diffusion 1, at every resolution
_HEAD_CHANNELS = 64  # of its successors
_TIME_CHANNELS = 256  # of each number that Stable Diffusion XL is told


def unet_shape(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of UNet2DConditionModel for these tensors, in their original names. Raises LookupError."""
    names = {key.removeprefix(PREFIX): value for key, value in weights.items()}
    widths, layers = _levels(names)
    depths = [_depth(names, level, layers) for level in range(len(widths))]
    first = next(level for level, depth in enumerate(depths) if depth)
    entrance = f"input_blocks.{_place(first, layers)}.1."
    linear = names[f"{entrance}proj_in.weight"].dim() == 2
    return {
        "sample_size": 64,
        "in_channels": names["input_blocks.0.0.weight"].shape[1],
        "out_channels": names["out.2.weight"].shape[0],
        "block_out_channels": tuple(widths),
        "layers_per_block": layers,
        "down_block_types": tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths),
        "up_block_types": tuple("CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)),
        "transformer_layers_per_block": [depth or 1 for depth in depths],
        "cross_attention_dim": names[f"{entrance}transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "attention_head_dim": [width // _HEAD_CHANNELS for width in widths] if linear else _HEADS,
        "use_linear_projection": linear,
        **_added(names),
    }


def _levels(names: Mapping[str, Tensor]) -> tuple[list[int], int]:
    """Channels of each level, and blocks a level: block 0 is the entrance, and one in (blocks + 1) goes down."""
    pattern = re.compile(r"input_blocks\.(\d+)\.0\.(op|in_layers\.2)\.weight")
    blocks = {int(found[1]): found[2] for key in names if (found := pattern.fullmatch(key))}
    downs = sorted(index for index, part in blocks.items() if part == "op")
    last = [*(index - 1 for index in downs), max(blocks)]
    return [names[f"input_blocks.{index}.0.out_layers.3.weight"].shape[0] for index in last], downs[0] - 1


def _place(level: int, layers: int) -> int:
    return 1 + level * (layers + 1)


def _depth(names: Mapping[str, Tensor], level: int, layers: int) -> int:
    """Transformer blocks of each attention of a level; 0 where there is none."""
    block = re.compile(rf"input_blocks\.{_place(level, layers)}\.1\.transformer_blocks\.(\d+)\.norm1\.weight")
    return len([key for key in names if block.fullmatch(key)])


def _added(names: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the U-Net is told of the whole text and the picture's size."""
    if "label_emb.0.0.weight" not in names:
        return {}
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": _TIME_CHANNELS,
        "projection_class_embeddings_input_dim": names["label_emb.0.0.weight"].shape[1],
    }
