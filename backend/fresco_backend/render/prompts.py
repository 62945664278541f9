# SPDX-License-Identifier: Apache-2.0
"""What each frame is told: the look's prompt with its cues, and what the model reads of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

import torch
from torch import Tensor

from fresco_backend.models.weights import Models
from fresco_protocol.shot import Compat, Cue, Look, Shot, Task


def prompts_at(look: Look, frame: int) -> dict[str, float]:
    """The prompts of one frame with their shares, which sum to 1: more than one where words are becoming others."""
    cues = [_words(cue, frame) for cue in look.cues if any(frame in part.numbers() for part in cue.frames)]
    shares: dict[str, float] = {}
    for choice in product(*cues):
        share = 1.0
        for _, part in choice:
            share *= part
        prompt = ", ".join([look.prompt, *(words for words, _ in choice)])
        shares[prompt] = shares.get(prompt, 0.0) + share
    return {prompt: share for prompt, share in shares.items() if share > 0}


def encoded(models: Models, look: Look, frames: Sequence[int]) -> Tensor:
    """What the model reads of the prompts of these frames, (N, T, C); each prompt is read once.

    Where words become others, the readings of both are mixed by their shares.
    """
    shares = [prompts_at(look, frame) for frame in frames]
    texts = list(dict.fromkeys(prompt for each in shares for prompt in each))
    states = dict(zip(texts, models.encode_prompts(texts), strict=True))
    return torch.stack([_mixed(states, each) for each in shares])


def negative(shot: Shot) -> str:
    """What guidance leads away from: the negative prompt; of an edit that names none, what its plate shows.

    So guidance strengthens what the prompt changes, and one that changes nothing gives the plate back at any guidance.
    Source: Miyake et al., "Negative-prompt Inversion", arXiv 2305.16807. The authors' program has no words there.
    """
    as_reference = shot.coherence is not None and shot.coherence.compat is Compat.REFERENCE
    edits = shot.task is Task.EDIT and not as_reference
    return shot.look.negative_prompt or (shot.editing.caption if edits else "")


def texts_of(look: Look, frames: Iterable[int]) -> set[str]:
    """Every text that the model reads for these frames, the negative prompt included."""
    return {look.negative_prompt, *(prompt for frame in frames for prompt in prompts_at(look, frame))}


def _words(cue: Cue, frame: int) -> list[tuple[str, float]]:
    if cue.to is None:
        return [(cue.prompt, 1.0)]
    first, last = min(part.first for part in cue.frames), max(part.numbers()[-1] for part in cue.frames)
    later = (frame - first) / (last - first) if last > first else 1.0
    return [(cue.prompt, 1 - later), (cue.to, later)]


def _mixed(states: dict[str, Tensor], shares: dict[str, float]) -> Tensor:
    if len(shares) == 1:
        return states[next(iter(shares))]
    parts = [share * states[prompt].float() for prompt, share in shares.items()]
    return torch.stack(parts).sum(0).to(next(iter(states.values())).dtype)
