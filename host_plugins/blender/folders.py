# SPDX-License-Identifier: GPL-3.0-or-later
"""The folders of jobs: their names, the document beside the frames, and how they go."""
from __future__ import annotations

import os
import re
import shutil
import threading
from typing import Any

import bpy

from fresco_protocol.errors import OutputDenied
from fresco_protocol.messages import fresh_key
from fresco_protocol.shot import Shot

SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
LEAVING = ".deleted-"  # before the name of a folder whose files are being deleted


def safe(name: str) -> str:
    """A name as a part of paths."""
    return "".join(sign if sign in SAFE else "_" for sign in name)[:40].strip(".") or "strip"


def portable(folder: str) -> str:
    """A folder as the .blend names it: relative where it lies below the .blend's own, so that both move together."""
    home = os.path.join(os.path.dirname(bpy.data.filepath), "")
    is_below = bpy.data.filepath and os.path.normcase(folder).startswith(os.path.normcase(home))
    return os.path.join(bpy.path.relpath(folder) if is_below else folder, "")


def carried(values: Any, home: str, now: str) -> Any:
    """JSON values, of whose texts those that are paths below folder `home` are so below folder `now`."""
    if isinstance(values, dict):
        return {name: carried(value, home, now) for name, value in values.items()}
    if isinstance(values, list):
        return [carried(value, home, now) for value in values]
    if not isinstance(values, str) or not os.path.normcase(values).startswith(os.path.normcase(home + os.sep)):
        return values
    return now + values[len(home):]


def write_shot(shot: Shot, folder: str) -> None:
    """The document beside the frames: `fresco render shot.json` makes them again. Raises OutputDenied."""
    try:
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "shot.json"), "w", encoding="utf-8") as file:
            file.write(shot.to_json() + "\n")
    except OSError as error:
        raise OutputDenied(f"the folder cannot be written: {error.strerror}", where=folder,
                           remedy="Choose another folder under Output.") from None


def versions_in(shot_folder: str) -> list[int]:
    """The versions that have a folder, those that were cleared from the list too; 0 stands for none."""
    names = os.listdir(shot_folder) if os.path.isdir(shot_folder) else []
    return [0, *(int(name[1:]) for name in names if re.fullmatch(r"v\d{3,9}", name))]


def erase(folder: str) -> None:
    """Takes a folder away. Its name is free at once; in a window its files go beside the interface."""
    if not os.path.isdir(folder):
        return
    away = os.path.join(os.path.dirname(folder), LEAVING + fresh_key()[:8])
    try:
        os.rename(folder, away)
    except OSError:  # Windows, while a file of it is open: what can be deleted is
        away = folder
    if bpy.app.background:
        shutil.rmtree(away, ignore_errors=True)
    else:
        threading.Thread(target=shutil.rmtree, args=(away,), kwargs={"ignore_errors": True}).start()
