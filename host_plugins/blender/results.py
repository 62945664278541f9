# SPDX-License-Identifier: GPL-3.0-or-later
"""Result strips, found again by the records that they carry: shown, hidden, removed."""
from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import bpy

from . import compat
from .animation import drop_drivers

RECORD = "fresco"  # custom property of a result strip


def every() -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """Every result strip with its scene and its record; those of the scene that the sequencer shows come first."""
    shown = compat.sequencer_scene(bpy.context)
    for scene in sorted(bpy.data.scenes, key=lambda scene: bool(scene != shown)):
        if scene.sequence_editor is not None:
            for strip in compat.all_strips_of(scene.sequence_editor):
                if isinstance(strip.get(RECORD), str):
                    yield scene, strip, json.loads(strip[RECORD])


def strips_of_job(key: str) -> list[tuple[Any, Any]]:
    """The scenes and the result strips of a job, whatever they are called now: an artist may have cut it in pieces."""
    return [(scene, strip) for scene, strip, record in every() if record.get("key") == key]


def strip_of_job(key: str) -> tuple[Any, Any]:
    """The first of them; (None, None) if it is gone."""
    return next(iter(strips_of_job(key)), (None, None))


def note(key: str, **facts: Any) -> None:
    """Adds to what the result strip of a job carries, if it is still there."""
    _, strip = strip_of_job(key)
    if strip is not None:
        _add(strip, facts)


def _add(strip: Any, facts: dict[str, Any]) -> None:
    strip[RECORD] = json.dumps({**json.loads(strip[RECORD]), **facts})


def switch(group: str, key: str) -> None:
    """Shows one version of a result and mutes the others; a copy of the scene that lacks it stays as it is."""
    homes = [scene for scene, _ in strips_of_job(key)]
    for scene, strip, record in every():
        if record.get("group") == group and scene in homes:
            strip.mute = record.get("key") != key


def hide(key: str, hidden: bool) -> None:
    """Hides the result strips of a job that has no frames, or shows them again; they carry that it was not the artist.
    """
    for _, strip in strips_of_job(key):
        strip.mute = hidden
        _add(strip, {"hidden": hidden})


def show_hidden(key: str) -> None:
    """Shows the result strips of a job that `hide` hid; what an artist muted stays so."""
    for _, strip in strips_of_job(key):
        if json.loads(strip[RECORD]).get("hidden"):
            strip.mute = False
            _add(strip, {"hidden": False})


def remove(key: str) -> None:
    """Takes the result strips of a job off the timeline."""
    while (found := strip_of_job(key)) != (None, None):  # asked anew: removing one moves the others in memory
        scene, strip = found
        drop_drivers(scene, strip)
        compat.strips_of(strip.parent_meta() or scene.sequence_editor).remove(strip)
