# SPDX-License-Identifier: Apache-2.0
"""LoRA files: low-rank changes of a model's weights, added to them and taken away again without a trace.

Read are the names of diffusers, PEFT and kohya's scripts, for Stable Diffusion 1, 2 and XL. Source: Hu et al., "LoRA",
arXiv 2106.09685, section 4.1: W + scale * up @ down, with scale = weight * alpha / rank; over the root of the rank
where a file says so (Kalajdzievski, "rsLoRA", arXiv 2312.03732).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from fresco_backend.models.lora_names import original_names
from fresco_protocol.errors import WeightsUnsupported

Targets = Mapping[str, nn.Module]

_ROLES = {"lora_down": "down", "lora_A": "down", "down": "down", "lora_up": "up", "lora_B": "up", "up": "up"}
_TENSOR = re.compile(
    r"(?P<module>.+?)(?:\.lora|\.lora_linear_layer|_lora)?\.(?:"
    r"(?P<role>lora_down|lora_up|lora_A|lora_B|down|up)(?:\.default)?\.weight|(?P<alpha>alpha))"
)
_PREFIXES = (
    ("base_model.model.", ""), ("lora_unet_", "unet."), ("lora_te1_", "text_encoder."),
    ("lora_te2_", "text_encoder_2."), ("lora_te_", "text_encoder."),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a LoRA changes in one module.

    down: (rank, in, ...). up: (out, rank, ...), with as many axes as the weight has. alpha: None is the rank.
    """

    down: Tensor
    up: Tensor
    alpha: float | None

    def delta(self, weight: float, like: Tensor) -> Tensor:
        """What is added to a weight of the shape of `like`, float32. Raises RuntimeError for another shape."""
        rank = self.down.shape[0]
        scale = weight * (rank if self.alpha is None else self.alpha) / rank
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return scale * product.to(like.device).reshape(like.shape)


def targets(unet: nn.Module, text_encoder: nn.Module, second: nn.Module | None = None) -> Targets:
    """The layers of a model that a LoRA may change, by each name that a file may use, with "_" for its dots."""
    found = _layers(unet, "unet") | _layers(text_encoder, "text_encoder")
    if second is not None:
        found |= _layers(second, "text_encoder_2")
    return found | {f"unet_{_flat(name)}": layer for name, layer in original_names(unet).items()}


@torch.no_grad()
def fuse(layers: Targets, path: Path, weight: float) -> None:
    """Add a LoRA to the weights of a model; for good. Weights that it changes are in float32 then, so that nothing is
    rounded between one LoRA and the next.

    Raises WeightsUnsupported for another kind of file, or one that was made for another model.
    """
    for layer, change in _changes(layers, path):
        layer.weight.data = _sum(layer, change, weight, path)


@contextmanager
def fused(layers: Targets, path: Path, weight: float) -> Iterator[None]:
    """A model with a LoRA while the context is open; afterwards every bit is as before. Raises as `fuse`."""
    found = _changes(layers, path)
    before = [(layer.weight, layer.weight.detach().clone()) for layer, _ in found]
    try:
        with torch.no_grad():
            for layer, change in found:
                layer.weight.copy_(_sum(layer, change, weight, path))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in before:
                parameter.copy_(value)


def read_changes(path: Path) -> dict[str, Change]:
    """The changes in a file, by the name of the module with "_" for its dots. Raises WeightsUnsupported."""
    parts: dict[str, dict[str, Any]] = {}
    with safe_open(path, framework="pt") as file:
        stated = _Stated.of(file.metadata() or {}, path)
        for name in file.keys():  # noqa: SIM118, this is no dictionary
            match = _TENSOR.fullmatch(name)
            if match is None:
                raise _foreign(f'"{name}" is no part of a LoRA', path)
            role = "alpha" if match["alpha"] else _ROLES[match["role"]]
            parts.setdefault(_module(match["module"]), {})[role] = file.get_tensor(name)
    return {module: _change(module, found, stated, path) for module, found in parts.items()}


def _changes(layers: Targets, path: Path) -> list[tuple[Any, Change]]:
    """The layers that a file changes, with their changes."""
    changes = read_changes(path)
    unknown = [module for module in changes if module not in layers]
    if unknown or not changes:
        what = f"it changes {unknown[0]}, which this model does not have" if unknown else "it changes nothing"
        raise _foreign(what, path)
    return [(layers[module], change) for module, change in changes.items()]


def _sum(layer: Any, change: Change, weight: float, path: Path) -> Tensor:
    try:
        total: Tensor = layer.weight.float() + change.delta(weight, layer.weight)
    except RuntimeError as error:
        raise _foreign(f"its matrices do not fit this model: {error}", path) from error
    return total


def _change(module: str, found: Mapping[str, Tensor], stated: _Stated, path: Path) -> Change:
    if not {"down", "up"} <= found.keys():
        raise _foreign(f"{module} lacks one of its two matrices", path)
    down, up = found["down"], found["up"]
    if min(down.dim(), up.dim()) < 2 or not down.shape[0] or ("alpha" in found and found["alpha"].numel() != 1):
        raise _foreign(f"{module}'s matrices are empty, or its strength is no number", path)
    own = float(found["alpha"]) if "alpha" in found else None
    return Change(down=down, up=up, alpha=stated.alpha(_part(module), own, down.shape[0]))


@dataclass(frozen=True, kw_only=True)
class _Stated:
    """What diffusers writes beside the tensors, by part of the model.

    rooted: the parts whose scale is alpha over the root of the rank, not over the rank.
    """

    alphas: Mapping[str, float]
    rooted: frozenset[str]

    @classmethod
    def of(cls, metadata: Mapping[str, str], path: Path) -> _Stated:
        try:
            stated = dict(json.loads(metadata.get("lora_adapter_metadata", "{}")))
            if any(value for _, value in _ending(stated, "alpha_pattern")):
                raise _foreign("its strength differs from layer to layer in a way that Fresco does not read", path)
            return cls(
                alphas={part: float(value) for part, value in _ending(stated, "lora_alpha")},
                rooted=frozenset(part for part, value in _ending(stated, "use_rslora") if value),
            )
        except (ValueError, TypeError) as error:
            raise _foreign(f"what it states of its strength is unreadable: {error}", path) from error

    def alpha(self, part: str, own: float | None, rank: int) -> float | None:
        """The alpha of a layer that, over the rank, gives its scale. own: stated by a tensor of its own."""
        alpha = self.alphas.get(part) if own is None else own
        return (rank if alpha is None else alpha) * math.sqrt(rank) if part in self.rooted else alpha


def _ending(stated: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    """Each entry whose key ends in `name`, as the part of the model before it and the value: ("unet", 4.0)."""
    found = ((key.rpartition("."), value) for key, value in stated.items())
    return ((part, value) for (part, _, last), value in found if last == name)


def _part(module: str) -> str:
    return next(part for part in ("unet", "text_encoder_2", "text_encoder", "") if module.startswith(part))


def _module(name: str) -> str:
    for prefix, replacement in _PREFIXES:
        if name.startswith(prefix):
            name = replacement + name.removeprefix(prefix)
    name = re.sub(r"\.processor\.to_out$", ".to_out.0", name).replace(".processor.", ".")
    return re.sub(r"^(text_encoder(?:_2)?)_text_model_", r"\1_", _flat(name))


def _layers(network: nn.Module, part: str) -> dict[str, nn.Module]:
    named = ((_module(f"{part}.{name}"), layer) for name, layer in network.named_modules())
    return {name: layer for name, layer in named if isinstance(layer, (nn.Linear, nn.Conv2d))}


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _foreign(what: str, path: Path) -> WeightsUnsupported:
    return WeightsUnsupported(
        f"this LoRA cannot be used: {what}", where=path,
        remedy="Use a plain LoRA (no LoHa, LoKr or DoRA) that was made for this model or its parent.",
    )  # fmt: skip
