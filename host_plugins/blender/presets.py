# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks as files that artists keep and give to one another: one JSON document of `Choices` each."""
from __future__ import annotations

import json
import os
import re

from fresco_protocol.document import parse_json, read, write
from fresco_protocol.errors import InputError, OutputDenied, UsageError

from .choices import Choices

EXTENSION = ".fresco-look.json"

# The model that comes with Fresco knows these words; a preset sets words only, the rest is the model's.
BUILT_IN = {
    "Watercolour": "a watercolour painting",
    "Oil": "an oil painting",
    "Ink": "an ink drawing",
    "Pencil": "a pencil drawing",
    "Charcoal": "a charcoal drawing",
    "Comic": "a comic book panel",
    "Neon night": "a neon night",
    "Winter": "a photo in winter",
}


def names(folder: str) -> list[str]:
    """The presets that come with the add-on, then those of a folder."""
    own = sorted(name[:-len(EXTENSION)] for name in os.listdir(folder) if name.endswith(EXTENSION)) \
        if os.path.isdir(folder) else []
    return [*BUILT_IN, *(name for name in own if name not in BUILT_IN)]


def load(folder: str, name: str, now: Choices) -> Choices:
    """The choices of a preset; one that comes with the add-on changes the prompt of `now` only."""
    if name in BUILT_IN:
        return read_choices(json.dumps({**write(now), "prompt": BUILT_IN[name]}))
    return load_file(_path(folder, name))


def load_file(path: str) -> Choices:
    """The choices of a file. Raises InputError, or ShotError that names the place of a mistake."""
    try:
        with open(path, encoding="utf-8") as file:
            return read_choices(file.read())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the preset cannot be read: {error}", where=path, remedy="Choose another file.") from None


def read_choices(text: str) -> Choices:
    """The choices of a document; a key that it leaves out has its default."""
    found: Choices = read(parse_json(text), Choices)
    return found


def save(folder: str, name: str, choices: Choices) -> str:
    """Writes a preset and gives its path. Raises UsageError, OutputDenied."""
    if name in BUILT_IN:
        raise UsageError("a preset of this name comes with Fresco", where=name, remedy="Choose another name.")
    path = _path(folder, name)
    try:
        os.makedirs(folder, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(write(choices), file, indent=2, ensure_ascii=False)
    except OSError as error:
        raise OutputDenied(f"the preset cannot be written: {error.strerror}", where=path,
                           remedy="Choose a folder that you may write to.") from None
    return path


def delete(folder: str, name: str) -> None:
    """Removes a preset of one's own. Raises UsageError."""
    if name in BUILT_IN:
        raise UsageError("this preset comes with Fresco and stays", where=name)
    os.unlink(_path(folder, name))


def _path(folder: str, name: str) -> str:
    if re.fullmatch(r"[\w .,+-]{1,80}", name) is None or name.startswith("."):
        raise UsageError("a preset cannot have this name", where=name, remedy="Take letters, digits and spaces.")
    return os.path.join(folder, name + EXTENSION)
