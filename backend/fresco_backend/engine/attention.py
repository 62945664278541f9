# SPDX-License-Identifier: Apache-2.0
"""FRESCO-guided attention: the decoder's self-attention looks across the frames of a window and along their motion."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fresco_backend.engine.correspondence import Correspondence, Paths

GUIDED_BLOCKS = 2
"""Up-blocks with attention that are guided, counted from the finest: where the reference found it to help."""

TEMPERATURE = 5.0
"""The paper's lambda of spatial and of temporal guidance: the larger, the flatter the mixture."""


@dataclass(frozen=True, kw_only=True)
class AttentionGuides:
    """Which guides act (FRESCO, section 4.2), alone or together; all off is the model's own attention.

    cross_frame: keys and values are the first frame's and of each later one what is new in it, the same for all frames.
    spatial: temperature with which queries are mixed by the plate's self-similarity; None is off, `TEMPERATURE` is
    the paper's. temporal: temperature with which results are mixed along pixel paths; None is off, likewise.
    injected: queries and keys of all branches are the plate's: those of the first one, or of the tokens that are given
    (Tumanyan et al., "Plug-and-Play", CVPR 2023, section 4).
    Raises ValueError for temperatures that are not above 0.
    """

    cross_frame: bool = True
    spatial: float | None = None
    temporal: float | None = None
    injected: bool = False

    def __post_init__(self) -> None:
        for name in ("spatial", "temporal"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a temperature above 0 or None, found {value}")

    @property
    def active(self) -> bool:
        """Whether any guide acts."""
        return self.cross_frame or self.spatial is not None or self.temporal is not None or self.injected


class GuidedAttention:
    """The handle that `guided_attention` gives: records the reference, and holds the guides.

    guides: what acts in the U-Net calls that follow; may change between calls. tokens: where queries and keys are
    injected, what they are made of, by the layers in order of execution; None takes the first branch's.
    """

    def __init__(self, correspondence: Correspondence, guides: AttentionGuides) -> None:
        self.guides = guides
        self.tokens: tuple[Tensor, ...] | None = None
        self.correspondence = correspondence
        self._references: dict[int, _Kept] = {}
        self._recording = False

    @property
    def is_recording(self) -> bool:
        """Whether U-Net calls store what they see."""
        return self._recording

    @contextmanager
    def recording(self) -> Iterator[None]:
        """U-Net calls within store each layer's hidden states as reference for spatial guidance, and run unchanged."""
        self._recording = True
        try:
            yield
        finally:
            self._recording = False

    def record(self, place: int, hidden_states: Tensor) -> None:
        """Store what a layer sees."""
        self._references[place] = _Kept.of(hidden_states)

    def reference(self, place: int) -> _Kept:
        """What a layer saw. Raises RuntimeError when nothing was recorded."""
        if place not in self._references:
            raise RuntimeError(
                "spatial guidance needs reference hidden states: call the U-Net once within `attention.recording()`"
            )
        return self._references[place]

    def forget(self) -> None:
        """Let go of what was recorded: no later step compares with it."""
        self._references.clear()


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """Hidden states (B, L, C) as they are in float32, else in eight bits, each token in steps of its own.

    They only tell which positions are alike, and a softmax that `TEMPERATURE` flattens does not see the rounding.
    """

    values: Tensor
    steps: Tensor | None

    @classmethod
    def of(cls, hidden_states: Tensor) -> _Kept:
        if hidden_states.dtype is torch.float32:
            return cls(values=hidden_states.detach(), steps=None)
        steps = hidden_states.abs().amax(dim=2, keepdim=True).clamp_min(1e-5) / 127
        return cls(values=(hidden_states / steps).round_().clamp_(-127, 127).to(torch.int8), steps=steps)

    def restored(self, rows: slice) -> Tensor:
        return self.values[rows] if self.steps is None else self.values[rows] * self.steps[rows]


@contextmanager
def guided_attention(
    unet: nn.Module, correspondence: Correspondence, guides: AttentionGuides
) -> Iterator[GuidedAttention]:
    """Guide the self-attentions of a `UNet2DConditionModel`'s finest decoder blocks while open; leaves no trace.

    Batches are branches * N, the branches (of guidance) outermost. U-Net calls raise ValueError for a batch or a size
    that does not fit the window, and RuntimeError for spatial guidance without recorded hidden states.
    Raises ValueError for a U-Net without such layers. Source: FRESCO, section 4.2.
    """
    attention = GuidedAttention(correspondence, guides)
    with ExitStack() as stack:
        for place, layer in enumerate(guided_layers(unet)):
            stack.callback(layer.set_processor, layer.processor)
            layer.set_processor(_GuidedProcessor(attention, layer.processor, place))
        yield attention


def guided_layers(unet: nn.Module) -> list[Any]:
    """The self-attentions (diffusers' `Attention`) of the last two up-blocks that have any, in order of execution."""
    blocks = [found for block in _children(unet, "up_blocks") if (found := _self_attentions(block))]
    layers = [layer for found in blocks[-GUIDED_BLOCKS:] for layer in found]
    if not layers:
        raise ValueError(f"{type(unet).__name__} has no self-attention in its up-blocks: it cannot be guided")
    return layers


def _self_attentions(block: nn.Module) -> list[Any]:
    parts = [part for found in _children(block, "attentions") for part in _children(found, "transformer_blocks")]
    return [part.attn1 for part in parts if not part.attn1.is_cross_attention]


def _children(module: nn.Module, name: str) -> list[Any]:
    return list(getattr(module, name, []))


class _GuidedProcessor:
    """Attention processor of one layer; (B, L, C) to (B, L, C), B = branches * N. place: of the layer among all."""

    def __init__(self, attention: GuidedAttention, plain: Any, place: int) -> None:
        self._attention = attention
        self._plain, self._place = plain, place

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        if self._attention.is_recording:
            self._attention.record(self._place, hidden_states)
        if self._attention.is_recording or not self._attention.guides.active:
            plain: Tensor = self._plain(attn, hidden_states, encoder_hidden_states, attention_mask, temb, **kwargs)
            return plain
        if attention_mask is not None:
            raise ValueError("guided self-attention takes no attention mask: call the U-Net without one")
        mixed = self._mixed(attn, hidden_states, self._attention.guides, self._attention.correspondence)
        output: Tensor = attn.to_out[1](attn.to_out[0](mixed))
        return output

    def _mixed(
        self, attn: Any, hidden_states: Tensor, guides: AttentionGuides, correspondence: Correspondence
    ) -> Tensor:
        size = correspondence.feature_size(hidden_states.shape[1])
        _by_window(hidden_states, correspondence.frames)
        source = self._source(hidden_states, correspondence.frames) if guides.injected else hidden_states
        branches = len(hidden_states) // len(source)
        query, key = (_repeated(project(source), branches) for project in (attn.to_q, attn.to_k))
        mixed = self._attended(attn, hidden_states, query, key)
        if guides.temporal is not None:
            mixed = _along_paths(query, key, mixed, correspondence.paths(*size), attn.heads, guides.temporal)
        return mixed

    def _attended(self, attn: Any, hidden_states: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Values mixed within the frames or across them; what that takes is free again afterwards."""
        guides, correspondence = self._attention.guides, self._attention.correspondence
        asked = query if guides.spatial is None else self._by_similarity(attn, query, guides.spatial)
        if not guides.cross_frame:
            return _attend(asked, key, attn.to_v(hidden_states), attn.heads)
        window = _by_window(hidden_states, correspondence.frames)
        chosen = correspondence.keys(*correspondence.feature_size(hidden_states.shape[1]))
        value = attn.to_v(window.index_select(1, chosen))
        shared = key.view(*window.shape[:2], -1).index_select(1, chosen)
        return _attend(asked.view(*window.shape[:2], -1), shared, value, attn.heads).view_as(query)

    def _source(self, hidden_states: Tensor, frames: int) -> Tensor:
        """Give the plate's tokens (N, L, C), of which queries and keys are made."""
        tokens = self._attention.tokens
        return hidden_states[:frames] if tokens is None else tokens[self._place].to(hidden_states)

    def _by_similarity(self, attn: Any, query: Tensor, temperature: float) -> Tensor:
        """Queries mixed within each frame by the self-similarity of the reference (FRESCO, equation 7)."""
        reference = self._attention.reference(self._place)
        shape, expected = tuple(reference.values.shape[:2]), tuple(query.shape[:2])
        if shape != expected:
            raise ValueError(
                f"reference hidden states are {shape} but {expected} (rows, tokens) are denoised: record them with the "
                "same window, guidance and size"
            )
        mixed = torch.empty_like(query)
        for branch in _branches(query, self._attention.correspondence.frames):
            tokens = reference.restored(branch)
            mixed[branch] = _attend(attn.to_q(tokens), attn.to_k(tokens), query[branch], attn.heads, temperature)
        return mixed


def _by_window(rows: Tensor, frames: int) -> Tensor:
    """(branches * N, L, C) to (branches, N * L, C)."""
    if rows.shape[0] % frames:
        raise ValueError(f"the U-Net's batch must be a multiple of the window's {frames} frames, found {rows.shape[0]}")
    return rows.reshape(-1, frames * rows.shape[1], rows.shape[2])


def _along_paths(query: Tensor, key: Tensor, value: Tensor, paths: Paths, heads: int, temperature: float) -> Tensor:
    """Values mixed along each pixel path over the frames that it links (FRESCO, equation 9).

    query, key, value: (branches * N, L, C); gives the values' shape. Memory is linear in L.
    """
    frames = len(paths.index)
    frame = torch.arange(frames, device=paths.index.device)
    mixed = torch.empty_like(value)
    for branch in _branches(value, frames):
        asked, keys, values = (rows[branch][frame, paths.index.T] for rows in (query, key, value))  # L, N, C
        along = _attend(asked, keys, values, heads, temperature, mask=paths.linked[:, None])
        mixed[branch] = along[paths.inverse, frame[:, None]]
    return mixed


def _repeated(rows: Tensor, times: int) -> Tensor:
    return rows if times == 1 else rows.repeat(times, 1, 1)


def _branches(rows: Tensor, frames: int) -> list[slice]:
    """Each branch of (branches * N, L, C) by itself: what is made of all at once takes as many times the memory."""
    return [slice(start, start + frames) for start in range(0, len(rows), frames)]


def _attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, temperature: float = 1.0, *, mask: Tensor | None = None
) -> Tensor:
    """softmax(Q K^T / (temperature * sqrt(d))) V for each head; (B, T, C), (B, S, C), (B, S, C) to (B, T, C)."""
    query, key, value = (rows.view(*rows.shape[:2], heads, -1).transpose(1, 2) for rows in (query, key, value))
    scale = 1 / (temperature * math.sqrt(query.shape[-1]))
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    return mixed.transpose(1, 2).flatten(2)
