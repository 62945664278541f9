# SPDX-License-Identifier: GPL-3.0-or-later
"""The colour spaces of plates and results, by the names that colour configurations have for them.

Blender's own configuration changed names from version to version; a studio's (the variable OCIO) has its own.
"""
from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from fresco_protocol.errors import InputError

LINEAR = ("Linear Rec.709", "Linear Rec.709 (sRGB)", "Linear", "Utility - Linear - sRGB", "lin_rec709_scene",
          "lin_rec709", "lin_srgb")
SRGB = ("sRGB", "sRGB Encoded Rec.709 (sRGB)", "sRGB - Texture", "Utility - sRGB - Texture", "srgb_rec709_scene",
        "srgb_texture", "srgb_tx")
DISPLAYS = ("sRGB", "sRGB - Display", "ACES")
VIEWS = ("Standard", "Un-tone-mapped", "Raw")  # values as they stand; another would bend them

KNOWN = {**dict.fromkeys(LINEAR, "linear-rec709"), **dict.fromkeys(SRGB, "srgb")}  # Blender's name -> Fresco's


def choose(settings: Any, attribute: str, names: Sequence[str]) -> None:
    """Sets the first of these names that the colour configuration has. Raises InputError when it has none."""
    for name in names:
        try:
            setattr(settings, attribute, name)
        except TypeError:  # how Blender says that it knows no such name
            continue
        return
    raise InputError(f"the colour configuration has none of: {', '.join(names)}",
                     where=os.environ.get("OCIO", "Blender's own"),
                     remedy="Give the space one of these names as an alias, or start Blender without OCIO.")
