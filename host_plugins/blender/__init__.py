# SPDX-License-Identifier: GPL-3.0-or-later
"""Fresco in Blender's video sequencer: a strip gets a new look, and the result comes back as a strip above it."""
from __future__ import annotations

import bpy

from . import (
    operators,
    panels,
    preferences,
    preset_operators,
    properties,
    queue_operators,
    server_operators,
    thumbnails,
    ticker,
    translations,
)

CLASSES = (*operators.CLASSES, *queue_operators.CLASSES, *server_operators.CLASSES, *preset_operators.CLASSES,
           *panels.CLASSES)
PARTS = (preferences, properties, thumbnails, translations)
SHORTCUTS = (("fresco.stylise", "F"), ("fresco.test_frame", "T"))  # with Shift and Alt

_keys: list[tuple[bpy.types.KeyMap, bpy.types.KeyMapItem]] = []


def register() -> None:
    """Called by Blender when the add-on is switched on."""
    for part in PARTS:
        part.register()
    for kind in CLASSES:
        bpy.utils.register_class(kind)
    bpy.types.SEQUENCER_MT_strip.append(panels.draw_strip_menu)
    _add_shortcuts()
    ticker.register()


def unregister() -> None:
    """Called by Blender when the add-on is switched off."""
    ticker.unregister()
    for keymap, item in _keys:
        keymap.keymap_items.remove(item)
    _keys.clear()
    bpy.types.SEQUENCER_MT_strip.remove(panels.draw_strip_menu)
    for kind in reversed(CLASSES):
        bpy.utils.unregister_class(kind)
    for part in reversed(PARTS):
        part.unregister()


def _add_shortcuts() -> None:
    """In the keymap preferences under Add-ons; the background has no keys."""
    configuration = bpy.context.window_manager.keyconfigs.addon
    if configuration is None:
        return
    keymap = configuration.keymaps.new(name="Sequencer", space_type="SEQUENCE_EDITOR")
    for name, key in SHORTCUTS:
        _keys.append((keymap, keymap.keymap_items.new(name, key, "PRESS", shift=True, alt=True)))
