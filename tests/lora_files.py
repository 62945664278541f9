# SPDX-License-Identifier: Apache-2.0
"""Small random LoRA files in the names of diffusers, PEFT, and kohya's scripts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

RANK = 2


def layers_of(network: nn.Module, ends: tuple[str, ...] = ("to_q", "to_out.0", "q_proj", "conv1")) -> dict[str, Any]:
    """Some linear and convolution layers of a network by name."""
    found = {name: layer for name, layer in network.named_modules() if name.endswith(ends)}
    return {name: layer for name, layer in found.items() if isinstance(layer, (nn.Linear, nn.Conv2d))}


def matrices(layer: Any, seed: int) -> tuple[Tensor, Tensor]:
    """Down and up of a layer."""
    random = torch.Generator().manual_seed(seed)
    out, *inner = layer.weight.shape
    down = torch.randn(RANK, *inner, generator=random)
    return down, torch.randn(out, RANK, *([1] * (len(inner) - 1)), generator=random)


def save(path: Path, parts: Iterable[tuple[str, nn.Module]], *, style: str = "diffusers", alpha: float | None = None,
         metadata: dict[str, str] | None = None) -> Path:
    """Writes a LoRA for networks, each with its part's name ("unet", "text_encoder"), and gives `path`."""
    tensors: dict[str, Tensor] = {}
    for part, network in parts:
        for seed, (name, layer) in enumerate(layers_of(network).items()):
            down, up = matrices(layer, seed)
            module, (first, second) = _names(part, name, style)
            tensors |= {f"{module}.{first}.weight": down, f"{module}.{second}.weight": up}
            if alpha is not None:
                tensors[f"{module}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path, metadata=metadata)
    return path


def _names(part: str, name: str, style: str) -> tuple[str, tuple[str, str]]:
    if part.startswith("text_encoder") and not name.startswith("text_model."):
        name = f"text_model.{name}"
    if style == "kohya":
        prefix = {"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}[part]
        return f"{prefix}_{name.replace('.', '_')}", ("lora_down", "lora_up")
    if style == "peft":
        return f"base_model.model.{part}.{name}", ("lora_A", "lora_B")
    return f"{part}.{name}", ("lora.down", "lora.up")
