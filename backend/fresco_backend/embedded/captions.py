# SPDX-License-Identifier: Apache-2.0
"""Captions of looks, from templates with synonyms, and the vocabulary that the tokenizer is built from."""

import re
from collections.abc import Sequence

import numpy as np

from fresco_backend.embedded.looks import LOOKS, LookName, LookStyle, split_combination


def words(text: str) -> list[str]:
    """The lower-case words of `text`, without punctuation, in order."""
    return re.findall(r"[a-z0-9]+", text.lower())


_WITH_NOUN = (
    "{phrase} of {a} {noun}",
    "{phrase} of {a} {noun}",
    "{phrase} with {a} {noun}",
    "{phrase}, {noun}",
    "{a} {noun}, {manner}",
    "{a} {noun} {manner}",
    "{noun}, {manner}",
    "the {noun} {manner}",
)
_WITHOUT_NOUN = ("{phrase}", "{phrase}", "{phrase} of a scene", "a picture {manner}", "{manner}", "{look}")
_SEASON = ("{medium} {season}", "{medium}, {season}", "{medium}, {ground}", "{season}, {medium}")

_HELPERS = words(
    """
    a an the of with in on at and or by as from to over under into for this that it is are very more less no not
    bright dark light pale vivid soft strong warm cold muted deep clean rough fine bold thick thin detailed simple
    red orange yellow green blue purple violet pink brown black white grey gray gold silver cyan magenta teal
    person man woman face people animal dog cat bird fish insect horse flower tree plant leaf leaves grass forest
    sky cloud sun moon water sea river lake mountain hill road street car bike boat plane train house building city
    room table chair food fruit portrait landscape still life object thing background image picture scene view frame
    painting drawing sketch print photo photograph film style colour color colours colors texture strokes lines edges
    """
)


def caption(names: Sequence[LookName], noun: str | None, rng: np.random.Generator) -> str:
    """A lower-case caption for a picture of `noun` (None: unknown) rendered with `render_combination(names, ...)`.

    Raises ValueError if the looks do not combine.
    """
    style, grade = split_combination(names)
    text = _subject(style, noun, rng)
    if grade is None:
        return text
    season = _pick(_SEASON, rng)
    return season.format(medium=text, season=_pick(grade.manners, rng), ground=_pick(grade.phrases, rng))


def _subject(style: LookStyle, noun: str | None, rng: np.random.Generator) -> str:
    phrase, manner = _pick(style.phrases, rng), _pick(style.manners, rng)
    if noun is None:
        return _pick(_WITHOUT_NOUN, rng).format(phrase=phrase, manner=manner, look=style.name.value.replace("-", " "))
    thing = noun.lower().replace("_", " ")
    article = "an" if thing[0] in "aeiou" else "a"
    return _pick(_WITH_NOUN, rng).format(phrase=phrase, manner=manner, a=article, noun=thing)


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def vocabulary() -> list[str]:
    """All words of the templates, the looks and the helper words, sorted; nouns of a data set come on top."""
    known = set(_HELPERS)
    for template in (*_WITH_NOUN, *_WITHOUT_NOUN, *_SEASON):
        known.update(words(re.sub(r"\{.*?\}", " ", template)))
    for style in LOOKS.values():
        for text in (style.name.value, *style.phrases, *style.manners):
            known.update(words(text))
    return sorted(known)
