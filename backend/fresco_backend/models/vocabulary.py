# SPDX-License-Identifier: Apache-2.0
"""The words that a model knows, and what is said of the others; for a tokenizer of whole words, as the embedded one."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerFast

from fresco_backend.models.prompt_weights import weighed

_NAMED, _NEAREST, _ALIKE = 6, 2, 0.8  # words that are named, near ones of each, and how alike those are at least


def vocabulary(tokenizer: PreTrainedTokenizerFast) -> tuple[str, ...]:
    """All the words of a tokenizer of whole words, sorted, without special tokens; empty for any other tokenizer."""
    if type(tokenizer.backend_tokenizer.model).__name__ != "WordLevel":
        return ()
    return tuple(sorted(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)))


def unknown_words(tokenizer: PreTrainedTokenizerFast, prompt: str) -> list[str]:
    """The words of a prompt that the model has never seen, in order, each once; empty if it takes any text."""
    if not vocabulary(tokenizer):
        return []
    backend, prompt = tokenizer.backend_tokenizer, weighed(prompt).plain
    text = backend.normalizer.normalize_str(prompt) if backend.normalizer else prompt
    words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    spoken = [word for word in words if any(map(str.isalnum, word))]  # a comma is no word
    return list(dict.fromkeys(word for word in spoken if backend.token_to_id(word) is None))


def unknown_text(tokenizer: PreTrainedTokenizerFast, prompts: Iterable[str], model: str) -> str | None:
    """What to say of the words of all prompts that the model does not know; None where it knows them all."""
    unknown = list(dict.fromkeys(word for prompt in sorted(prompts) for word in unknown_words(tokenizer, prompt)))
    if not unknown:
        return None
    known = vocabulary(tokenizer)
    named = [f'"{word}"{_nearest(word, known)}' for word in unknown[:_NAMED]]
    more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
    return (f"the model does not know {', '.join(named)}{more}, and goes on without; "
            f"its words: fresco models show {shlex.quote(model)}")


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=_NEAREST, cutoff=_ALIKE)
    return f" (nearest: {', '.join(near)})" if near else ""
