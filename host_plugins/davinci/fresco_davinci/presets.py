# SPDX-License-Identifier: Apache-2.0
"""Look presets: those of the embedded model, and looks that people keep as files, one JSON document each."""
from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from fresco_davinci.clip import file_name
from fresco_protocol.document import parse_json, read, write
from fresco_protocol.errors import OutputDenied, ShotError
from fresco_protocol.shot import Look

# Prompts that the embedded model's card names.
EMBEDDED = {"Watercolour": "a watercolour painting", "Oil": "an oil painting", "Ink": "an ink drawing",
            "Pencil": "a pencil drawing", "Charcoal": "a charcoal drawing", "Comic": "a comic", "Cartoon": "a cartoon",
            "Mosaic": "a mosaic", "Stained glass": "a stained glass window",
            "Impressionist": "an impressionist painting", "Cyanotype": "a cyanotype", "Sepia": "a sepia photo",
            "Neon night": "a neon night scene", "Winter": "a winter scene", "Autumn": "an autumn scene",
            "Infrared": "an infrared photo"}


def folder() -> Path:
    """Where people's looks lie: FRESCO_LOOKS, else the user's data folder."""
    stated = os.environ.get("FRESCO_LOOKS", "").strip()
    if stated:
        return Path(stated).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "fresco/looks"
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/fresco/looks"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "fresco/looks"


def presets() -> dict[str, Look]:
    """Looks by name. A file that is no look is left out: it may belong to a later version."""
    found = {name: Look(prompt=prompt) for name, prompt in EMBEDDED.items()}
    for path in sorted(folder().glob("*.json")):
        try:
            look: Look = read(parse_json(path.read_text(encoding="utf-8")), Look)
        except (OSError, UnicodeDecodeError, ShotError):
            continue
        found[path.stem] = look
    return found


def keep(name: str, look: Look) -> Path:
    """Writes a look as a file of this name; gives its path. Raises OutputDenied."""
    path = folder() / f"{file_name(name)}.json"
    unfinished = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(write(look), indent=2), encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise OutputDenied(f"the look cannot be kept: {error.strerror}", where=path,
                           remedy="Set FRESCO_LOOKS to a folder that you may write to.") from error
    return path
