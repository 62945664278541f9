# SPDX-License-Identifier: GPL-3.0-or-later
"""Presets as files that artists keep and give to one another: looks, and models with their numbers.

A look is one JSON document of `Choices`; a model preset has only the keys of `MODEL_KEYS`, and leaves the rest alone.
"""
from __future__ import annotations

import json
import os
import re
from enum import Enum
from typing import Any

from fresco_protocol.document import parse_json, read, write
from fresco_protocol.errors import InputError, OutputDenied, UsageError

from .choices import Choices

MODEL_KEYS = ("model", "strength", "guidance", "steps", "window", "working_size", "controls", "control_strength")


class Kind(Enum):
    """What a preset keeps; its value ends the name of the file."""

    LOOK = ".fresco-look.json"
    MODEL = ".fresco-model.json"


# The model that comes with Fresco knows these words; such a look sets words only, the rest is the model's.
LOOKS = {
    "Watercolour": "a watercolour painting",
    "Oil": "an oil painting",
    "Ink": "an ink drawing",
    "Pencil": "a pencil drawing",
    "Charcoal": "a charcoal drawing",
    "Comic": "a comic book panel",
    "Neon night": "a neon night",
    "Winter": "a photo in winter",
}


BUILT_IN: dict[Kind, dict[str, dict[str, Any]]] = {
    Kind.LOOK: {name: {"prompt": prompt} for name, prompt in LOOKS.items()},
    Kind.MODEL: {"Comes with Fresco": {key: value for key, value in write(Choices()).items() if key in MODEL_KEYS}},
}


def names(folder: str, kind: Kind) -> list[str]:
    """The presets that come with the add-on, then those of a folder."""
    own = sorted(name[:-len(kind.value)] for name in os.listdir(folder) if name.endswith(kind.value)) \
        if os.path.isdir(folder) else []
    return [*BUILT_IN[kind], *(name for name in own if name not in BUILT_IN[kind])]


def load(folder: str, kind: Kind, name: str, now: Choices) -> Choices:
    """The choices of a preset; what it does not keep is that of `now`. Raises as `load_file` does."""
    if name in BUILT_IN[kind]:
        return read_choices({**write(now), **BUILT_IN[kind][name]})
    return load_file(_path(folder, kind, name), now)


def load_file(path: str, now: Choices) -> Choices:
    """The choices of a file. Raises InputError, or ShotError that names the place of a mistake."""
    try:
        with open(path, encoding="utf-8") as file:
            found = parse_json(file.read())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the preset cannot be read: {error}", where=path, remedy="Choose another file.") from None
    if not path.endswith(Kind.MODEL.value):
        return read_choices(found)
    strange = sorted(found.keys() - set(MODEL_KEYS))
    if strange:
        raise InputError(f"a preset of a model does not keep {', '.join(strange)}", where=path,
                         remedy=f"Rename it to end with {Kind.LOOK.value}, or take them out.")
    return read_choices({**write(now), **found})


def read_choices(document: dict[str, Any]) -> Choices:
    """The choices of a document; a key that it leaves out has its default."""
    found: Choices = read(document, Choices)
    return found


def save(folder: str, kind: Kind, name: str, choices: Choices) -> str:
    """Writes a preset and gives its path. Raises UsageError, OutputDenied."""
    if name in BUILT_IN[kind]:
        raise UsageError("a preset of this name comes with Fresco", where=name, remedy="Choose another name.")
    path = _path(folder, kind, name)
    kept = {key: value for key, value in write(choices).items() if kind is Kind.LOOK or key in MODEL_KEYS}
    try:
        os.makedirs(folder, exist_ok=True)
        with open(path + ".part", "w", encoding="utf-8") as file:
            json.dump(kept, file, indent=2, ensure_ascii=False)
        os.replace(path + ".part", path)
    except OSError as error:
        raise OutputDenied(f"the preset cannot be written: {error.strerror}", where=path,
                           remedy="Choose a folder that you may write to.") from None
    return path


def delete(folder: str, kind: Kind, name: str) -> None:
    """Removes a preset of one's own. Raises UsageError."""
    if name in BUILT_IN[kind]:
        raise UsageError("this preset comes with Fresco and stays", where=name)
    try:
        os.unlink(_path(folder, kind, name))
    except OSError as error:
        raise OutputDenied(f"the preset cannot be deleted: {error.strerror}", where=name,
                           remedy="Look whether it is there, and whether you may write to its folder.") from None


def _path(folder: str, kind: Kind, name: str) -> str:
    if re.fullmatch(r"[\w .,+-]{1,80}", name) is None or name.startswith("."):
        raise UsageError("a preset cannot have this name", where=name, remedy="Take letters, digits and spaces.")
    return os.path.join(folder, name + kind.value)
