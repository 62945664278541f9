# SPDX-License-Identifier: Apache-2.0
"""Weights in a prompt: "a castle, (fog:1.3), (people:0.5)" says how much words count; 1 is as ever."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fresco_protocol.errors import UsageError
from fresco_protocol.shot import Look

LARGEST = 4.0
_GROUP = re.compile(r"\(([^():]+):\s*([-+.\d][^():\s]*)\s*\)")
_NUMBER = re.compile(r"\d+(\.\d*)?|\.\d+")


@dataclass(frozen=True, kw_only=True)
class Span:
    """Characters first to last (not included) of a plain text, and how much they count."""

    first: int
    last: int
    weight: float


@dataclass(frozen=True, kw_only=True)
class WeighedText:
    """A prompt as the model reads it. spans: the parts that count other than 1."""

    plain: str
    spans: tuple[Span, ...]

    def weight_at(self, first: int, last: int) -> float:
        """The weight of the characters from first to last (not included); 1 for none, such as padding."""
        return next((span.weight for span in self.spans if span.first <= first < last <= span.last), 1.0)


def weighed(prompt: str) -> WeighedText:
    """The prompt without its weights, and these. Raises UsageError for a weight that is no number from 0 to 4."""
    plain, spans, end = "", [], 0
    for group in _GROUP.finditer(prompt):
        plain += prompt[end : group.start()]
        spans.append(Span(first=len(plain), last=len(plain) + len(group[1]), weight=_weight(group[2], group[0])))
        plain, end = plain + group[1], group.end()
    return WeighedText(plain=plain + prompt[end:], spans=tuple(span for span in spans if span.weight != 1))


def check_weights(look: Look) -> None:
    """Raises UsageError for weights of words that are no numbers, in the prompts and the cues."""
    for text in (look.prompt, look.negative_prompt, *(words for cue in look.cues for words in (cue.prompt, cue.to))):
        weighed(text or "")


def _weight(text: str, group: str) -> float:
    if _NUMBER.fullmatch(text) is None or float(text) > LARGEST:
        raise UsageError(f'"{text}" is no weight of words', where=f'"{group}" in the prompt',
                         remedy=f"Give a number from 0 to {LARGEST:g}, as in (fog:1.3).")
    return float(text)
