# SPDX-License-Identifier: Apache-2.0
"""Which look a clip takes: that of a file of looks, else of the clip's own metadata or marker, else of the command."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fresco_backend.otio.clips import MARK, Clip
from fresco_protocol.document import read
from fresco_protocol.errors import InputError, ShotError, UsageError
from fresco_protocol.shot import Look

Looks = Mapping[str, Mapping[str, Any]]  # by pattern of clip names: the "look" of a shot document


def read_looks(path: Path) -> Looks:
    """The looks of a file, {"sh010*": {"prompt": "an ink drawing"}}; the first pattern that fits counts."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"the looks cannot be read: {error}", where=path, remedy="Check path and JSON.") from error
    if not isinstance(found, dict) or not all(isinstance(look, dict) for look in found.values()):
        raise InputError("these are no looks", where=path, remedy='Write {"sh010*": {"prompt": "an ink drawing"}}')
    return found


def look_of(clip: Clip, looks: Looks, prompt: str | None) -> Look:
    """The look of a clip. Raises UsageError when nothing gives it a prompt, ShotError for what is no look."""
    chosen = next((look for pattern, look in looks.items() if fnmatch.fnmatchcase(clip.name, pattern)), None)
    document = {**({"prompt": prompt} if prompt else {}), **_own(clip), **(chosen or {})}
    if "prompt" not in document:
        raise UsageError(f"clip {clip.name} has no prompt",
                         remedy='Give --prompt or --looks, or metadata {"fresco": {"prompt": "..."}} on the clip.')
    try:
        look: Look = read(document, Look)
    except ShotError as error:
        raise error.inside(f"look of clip {clip.name}") from None
    return look


def _own(clip: Clip) -> dict[str, Any]:
    """What the metadata of a clip, or its marker's metadata or comment, say."""
    for metadata in (clip.metadata, *(marker.metadata for marker in clip.markers)):
        for key, value in metadata.items():
            if key.lower() == MARK and hasattr(value, "items"):
                return dict(value)
    comments = [marker.comment for marker in clip.markers if marker.name.strip().lower() == MARK and marker.comment]
    return {"prompt": comments[0]} if comments else {}
