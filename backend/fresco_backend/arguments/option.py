# SPDX-License-Identifier: Apache-2.0
"""One option of the command line for one field of a noun: its `dest` is the place of its value in a shot document."""
from __future__ import annotations

import argparse
import dataclasses
from enum import Enum
from typing import Any

from fresco_protocol.document import write
from fresco_protocol.shot import Coherence, Delivery, Editing, Keyframing, Look, Matte, Plate

_NOUNS = {"plate": Plate, "matte": Matte, "look": Look, "keyframing": Keyframing, "coherence": Coherence,
          "delivery": Delivery, "editing": Editing}


def add_option(group: Any, names: str, place: str, sentence: str, **rest: Any) -> None:
    """Adds an option for the field at `place`, such as "look.steps"; its help names the field's default."""
    shown = sentence if "(default: " in sentence or "action" in rest else sentence + _default(place)
    group.add_argument(*names.split(), dest=place, default=argparse.SUPPRESS, help=shown, **rest)


def _default(place: str) -> str:
    """The default of a noun's field as the end of a help text; nothing when there is none to name."""
    noun, name = place.split(".")
    default = next(field.default for field in dataclasses.fields(_NOUNS[noun]) if field.name == name)
    return "" if default in (dataclasses.MISSING, None, "") else f" (default: {write(default)})"


def values(kind: type[Enum]) -> list[str]:
    """The members of an enum as an option takes them."""
    return [member.value for member in kind]
