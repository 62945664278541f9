# SPDX-License-Identifier: GPL-3.0-or-later
"""Small pictures of running jobs, as Blender's icons."""
from __future__ import annotations

import os
import tempfile
from typing import Any, Optional

import bpy.utils.previews

from .rows import Row

_icons: Optional[Any] = None
_seen: dict[str, tuple[int, int]] = {}  # row key -> hash of the picture, icon
_count = 0


def icon_of(row: Row) -> int:
    """The icon of a row's latest preview; 0 without one."""
    if row.preview is None or _icons is None:
        return 0
    mark, icon = _seen.get(row.key, (0, 0))
    if mark != hash(row.preview):
        icon = _load(row.preview)
        _seen[row.key] = hash(row.preview), icon
    return icon


def _load(jpeg: bytes) -> int:
    """Blender reads previews from files, and knows each by a name of its own."""
    global _count
    _count += 1
    path = os.path.join(tempfile.gettempdir(), f"fresco-preview-{os.getpid()}-{_count}.jpg")
    with open(path, "wb") as file:
        file.write(jpeg)
    preview = _icons.load(f"preview-{_count}", path, "IMAGE") if _icons is not None else None
    _ = preview.image_size[:] if preview is not None else None  # reads the file now
    os.unlink(path)
    return preview.icon_id if preview is not None else 0


def register() -> None:
    """Makes room for the icons."""
    global _icons
    _icons = bpy.utils.previews.new()


def unregister() -> None:
    """Frees them."""
    global _icons
    bpy.utils.previews.remove(_icons)
    _icons = None
    _seen.clear()
