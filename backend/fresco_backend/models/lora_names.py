# SPDX-License-Identifier: Apache-2.0
"""The layers of a U-Net by their names in Stable Diffusion's original code, which LoRAs of its XL use.

Source: openaimodel.py of CompVis/stable-diffusion: blocks are numbered through all levels, and what diffusers lists as
resnets, attentions and samplers are the parts 0, 1 and 2 of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

_RESIDUAL = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


_OUTSIDE = {
    "input_blocks.0.0": "conv_in",
    "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
}


def original_names(unet: Any) -> dict[str, nn.Module]:
    """The linear and convolution layers of a UNet2DConditionModel by their original names."""
    layers = dict(unet.named_modules())
    inside = {f"{place}.{name}": layer for place, block in _places(unet) for name, layer in _inside(block)}
    outside = {original: layers[name] for original, name in _OUTSIDE.items() if name in layers}
    found = {**inside, **outside}
    return {name: layer for name, layer in found.items() if isinstance(layer, (nn.Linear, nn.Conv2d))}


def _places(unet: Any) -> Iterator[tuple[str, Any]]:
    each = len(unet.down_blocks[0].resnets) + 1
    for level, block in enumerate(unet.down_blocks):
        yield from _parts("input_blocks", 1 + level * each, block)
        for sampler in block.downsamplers or ():
            yield f"input_blocks.{(level + 1) * each}.0", {"op": sampler.conv}
    for level, block in enumerate(unet.up_blocks):
        yield from _parts("output_blocks", level * each, block)
        for sampler in block.upsamplers or ():
            part = 2 if getattr(block, "attentions", None) else 1
            yield f"output_blocks.{(level + 1) * each - 1}.{part}", {"conv": sampler.conv}
    if unet.mid_block is None:  # of some distilled models
        return
    for number, resnet in enumerate(unet.mid_block.resnets):
        yield f"middle_block.{2 * number}", resnet
    for attention in unet.mid_block.attentions:
        yield "middle_block.1", attention


def _parts(side: str, first: int, block: Any) -> Iterator[tuple[str, Any]]:
    for number, resnet in enumerate(block.resnets):
        yield f"{side}.{first + number}.0", resnet
    for number, attention in enumerate(getattr(block, "attentions", ())):
        yield f"{side}.{first + number}.1", attention


def _inside(block: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(block, dict):
        yield from block.items()
        return
    for name, layer in block.named_modules():
        yield _RESIDUAL.get(name, name), layer
