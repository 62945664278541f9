# SPDX-License-Identifier: Apache-2.0
"""Resolve's names of colour spaces -> Fresco's, which are those of OpenColorIO's built-in configurations."""
from __future__ import annotations

from typing import Optional

from fresco_protocol.errors import ColorError

SPACES = {
    "rec.709 gamma 2.4": "g24_rec709", "rec.709 gamma 2.2": "g22_rec709",
    "rec.709 (scene)": "camera_rec709",
    "rec.709-a": "camera_rec709",  # QuickTime reads both by the same curve
    "srgb": "srgb_rec709_scene", "srgb gamma 2.2": "srgb_rec709_scene",
    "linear": "lin_rec709_scene", "rec.709 linear": "lin_rec709_scene", "linear rec.709": "lin_rec709_scene",
    "davinci wg": "davinci_intermediate_widegamut", "davinci wg/intermediate": "davinci_intermediate_widegamut",
    # primaries and curve, where a project sets them apart
    "rec.709 rec.709 (scene)": "camera_rec709", "rec.709 srgb": "srgb_rec709_scene",
    "davinci wg davinci intermediate": "davinci_intermediate_widegamut",
    # output transforms of ACES; that of Rec.709 encodes by BT.1886
    "aces rec.709": "g24_rec709", "aces rec.709 bt.1886": "g24_rec709",
    "aces srgb": "srgb_rec709_scene", "aces srgb piecewise": "srgb_rec709_scene",
    "aces acescct - csc": "ACEScct", "aces acescg - csc": "ACEScg",
}


def space_of(name: Optional[str], stated: Optional[str]) -> str:
    """The space of a picture that Resolve renders in `name`; `stated` by the user comes first. Raises ColorError."""
    found = stated or SPACES.get((name or "").strip().lower())
    if found is None:
        raise ColorError(f"Resolve renders in '{name}', which Fresco does not know by that name",
                         remedy="Set the timeline's output to Rec.709 Gamma 2.4 (under ACES: Rec.709 BT.1886), or "
                                "state the space by its OpenColorIO name (--color-space, or Space in the window).")
    return found
