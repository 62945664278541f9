# SPDX-License-Identifier: Apache-2.0
"""What a model reads of a prompt: one tensor, whatever the number of its text encoders.

Stable Diffusion XL's U-Net and ControlNets want more than the states of the tokens: a pooled state of the whole text
and the size of the picture. The pooled state travels as one more row of the tensor, padded with zeros, and is taken off
again where it enters a network; so everything in between sees prompts of any family alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from fresco_backend.models.prompt_weights import WeighedText, weighed

PIXELS_PER_LATENT = 8


@dataclass(frozen=True, kw_only=True)
class TextReader:
    """A tokenizer and its text encoder, a CLIPTextModel or a CLIPTextModelWithProjection."""

    tokenizer: PreTrainedTokenizerFast
    encoder: CLIPTextModel | CLIPTextModelWithProjection

    @property
    def length(self) -> int:
        """Tokens of a prompt, start and end included; what goes beyond is not seen by the model."""
        return min(int(self.tokenizer.model_max_length), int(self.encoder.config.max_position_embeddings))

    def states(self, texts: Sequence[WeighedText]) -> Tensor:
        """The last states (N, T, C) of the tokens of N texts, with the weights of their words."""
        return self._weighted(texts, lambda output: output[0])

    def inner_states(self, texts: Sequence[WeighedText]) -> Tensor:
        """The states (N, T, C) before the last layer, as Stable Diffusion XL takes them, with weights."""
        return self._weighted(texts, lambda output: output.hidden_states[-2])

    def pooled(self, texts: Sequence[WeighedText]) -> Tensor:
        """The projected states (N, P) of whole texts; weights do not count here."""
        return cast(Tensor, self._read([text.plain for text in texts]).text_embeds)

    def _weighted(self, texts: Sequence[WeighedText], chosen: Any) -> Tensor:
        """States moved away from those of no words, or towards them, by each token's weight."""
        states: Tensor = chosen(self._read([text.plain for text in texts]))
        if not any(text.spans for text in texts):
            return states
        empty: Tensor = chosen(self._read([""]))
        weights = torch.tensor([self._weights(text) for text in texts]).to(states)[..., None]
        return torch.where(weights == 1, states, empty + weights * (states - empty))

    def _weights(self, text: WeighedText) -> list[float]:
        tokens = self._tokens([text.plain], return_offsets_mapping=True)
        return [text.weight_at(int(first), int(last)) for first, last in tokens["offset_mapping"][0]]

    def _read(self, prompts: Sequence[str]) -> Any:
        # No attention mask: Stable Diffusion is trained to see the padding too.
        ids = self._tokens(prompts).input_ids
        return self.encoder(ids.to(self.encoder.device), output_hidden_states=True)

    def _tokens(self, prompts: Sequence[str], **options: Any) -> Any:
        return self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=self.length, return_tensors="pt", **options
        )


def text_states(first: TextReader, second: TextReader | None, prompts: Sequence[str]) -> Tensor:
    """What a model reads of N prompts: (N, T, C), with a second reader (N, T + 1, C).

    Source: Podell et al., "SDXL", arXiv 2307.01952, section 2.1. Raises UsageError for weights that are no numbers.
    """
    texts = [weighed(prompt) for prompt in prompts]
    if second is None:
        return first.states(texts)
    states = torch.cat([first.inner_states(texts), second.inner_states(texts)], dim=-1)
    pooled = second.pooled(texts)
    return torch.cat([states, functional.pad(pooled, (0, states.shape[-1] - pooled.shape[-1]))[:, None]], dim=1)


def take_packed_text(network: nn.Module, pooled: int) -> None:
    """From here on a U-Net or ControlNet of Stable Diffusion XL takes `text_states` as its `encoder_hidden_states`.

    pooled: width P of the pooled state. The picture's size is that of the latents. Source: SDXL, section 2.2.
    """

    def unpack(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        packed: Tensor = kwargs["encoder_hidden_states"]
        height, width = (PIXELS_PER_LATENT * side for side in args[0].shape[-2:])
        sizes = packed.new_tensor([[height, width, 0, 0, height, width]]).repeat(len(packed), 1)
        added = {"text_embeds": packed[:, -1, :pooled], "time_ids": sizes}
        return args, kwargs | {"encoder_hidden_states": packed[:, :-1], "added_cond_kwargs": added}

    network.register_forward_pre_hook(unpack, with_kwargs=True)
