# SPDX-License-Identifier: Apache-2.0
"""Resolve's names of colour spaces -> Fresco's."""
from __future__ import annotations

from typing import Optional

from fresco_protocol.errors import ColorError

# Display-referred Rec. 709 pictures differ from sRGB in their tone curve alone. What Fresco reads as sRGB it gives back
# in the same curve: the model sees mid-tones a little lighter, and the delivery fits the plate.
DISPLAY = frozenset({"rec.709 gamma 2.4", "rec.709 gamma 2.2", "rec.709 (scene)", "rec.709-a", "rec.709", "srgb",
                     "srgb gamma 2.2", "rec.709 gamma 2.4 (scene)"})
LINEAR = frozenset({"linear", "rec.709 linear", "linear rec.709", "rec.709 (linear)", "srgb linear"})


def space_of(name: Optional[str], stated: Optional[str]) -> str:
    """The space of a picture that Resolve renders in `name`; `stated` by the user comes first. Raises ColorError."""
    if stated is not None:
        return stated
    known = (name or "").strip().lower()
    if known in DISPLAY:
        return "srgb"
    if known in LINEAR:
        return "linear-rec709"
    raise ColorError(f"Resolve renders in '{name}', which Fresco cannot read by that name",
                     remedy="Set the timeline's output colour space to Rec.709 Gamma 2.4 or Linear, or state a space "
                            "of Fresco's own (--color-space).")
