# SPDX-License-Identifier: Apache-2.0
"""The numbers of FRESCO's reference implementation (golden/README.md), and what several tests build from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from fresco_backend.engine.correspondence import Correspondence, Paths
from fresco_backend.engine.flow import Flow

GOLDEN = Path(__file__).parent / "golden"
HEIGHT, WIDTH = 64, 96  # pixels of the pictures behind the numbers


def golden(name: str) -> dict[str, Tensor]:
    """The arrays of "name.npz", by their names."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def golden_flow(numbers: Mapping[str, Tensor]) -> Flow:
    """The flow of a file that states it both ways, with its occlusion."""
    return Flow(
        forward=numbers["fwd_flows"],
        backward=numbers["bwd_flows"],
        forward_occlusion=numbers["fwd_occ"],
        backward_occlusion=numbers["bwd_occ"],
    )


def flow_window(numbers: Mapping[str, Tensor]) -> Correspondence:
    """A window of three grey pictures, along the flow of a file."""
    return Correspondence(frames=torch.zeros(3, 3, HEIGHT, WIDTH), flow=golden_flow(numbers))


class Recorded(Correspondence):
    """A window of four frames whose keys and paths are given, at an eighth of the size, instead of found."""

    def __init__(self, keys: Tensor, paths: Paths) -> None:
        frames, still = torch.zeros(4, 3, HEIGHT, WIDTH), torch.zeros(4, 2, HEIGHT, WIDTH)
        super().__init__(frames=frames, flow=Flow.between(frames, still, still))
        place = HEIGHT // 8, WIDTH // 8
        self._constants = {("keys", *place): keys, ("paths", *place): paths}


def golden_window(numbers: Mapping[str, Tensor]) -> Recorded:
    """The keys and paths of a file."""
    paths = Paths(
        index=numbers["fwd_mapping"][:, 0],
        inverse=numbers["bwd_mapping"][:, 0],
        linked=numbers["interattn_mask"][:, 0],
    )
    return Recorded(numbers["attn_mask_s8"].flatten().nonzero().squeeze(1), paths)


class OneLayer(nn.Module):
    """The smallest thing that has the structure of a decoder with one self-attention."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        transformer_block = nn.Module()
        transformer_block.attn1 = attention
        transformer, block = nn.Module(), nn.Module()
        transformer.transformer_blocks = nn.ModuleList([transformer_block])
        block.attentions = nn.ModuleList([transformer])
        self.up_blocks = nn.ModuleList([block])
        self.attention = attention

    def forward(self, hidden_states: Tensor) -> Tensor:
        output: Tensor = self.attention(hidden_states)
        return output


def golden_layer(numbers: Mapping[str, Tensor]) -> OneLayer:
    """The attention whose weights a file states."""
    heads = int(numbers["heads"])
    attention = Attention(query_dim=48, heads=heads, dim_head=48 // heads)
    projections = (attention.to_q, attention.to_k, attention.to_v, attention.to_out[0])
    for linear, name in zip(projections, ("Wq", "Wk", "Wv", "Wo"), strict=True):
        linear.weight.data = numbers[name]
    attention.to_out[0].bias.data = numbers["bo"]
    return OneLayer(attention).requires_grad_(False)


def assert_close_but_for_few(found: Tensor, expected: Tensor, mean: float, nearly_all: float) -> None:
    """mean: the mean difference lies below it. nearly_all: the difference of all values but one in a thousand."""
    difference = (found - expected).abs().flatten()
    assert difference.mean() < mean
    assert difference.quantile(0.999) < nearly_all
