# SPDX-License-Identifier: Apache-2.0
"""What a model recommends where a shot leaves the choice open: its control, guidance and working size."""

from __future__ import annotations

from dataclasses import dataclass

from fresco_backend.model_store import Inventory, read_index, read_json
from fresco_protocol.shot import ControlKind

# Stable Diffusion 1.x, for which the method's own numbers were chosen.
GUIDANCE = 7.5
SHORT_SIDE = 512
PIXELS_PER_LATENT = 8


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """control: kind of control image; None when the model has no ControlNet. working_size: short side in pixels."""

    control: ControlKind | None
    guidance: float
    working_size: int


def recommendation(inventory: Inventory) -> Recommendation:
    """The keys `_fresco_...` of the model's index, else what suits Stable Diffusion."""
    place = inventory.place
    if place.is_file():
        return Recommendation(control=ControlKind.CANNY, guidance=GUIDANCE, working_size=SHORT_SIDE)
    index = read_index(place)
    kinds = index.get("_fresco_controls", [ControlKind.CANNY.value])
    unet = place / "unet" / "config.json"
    side = read_json(unet).get("sample_size", 0) * PIXELS_PER_LATENT if unet.is_file() else 0
    return Recommendation(
        control=ControlKind(kinds[0]) if kinds else None,
        guidance=index.get("_fresco_guidance", GUIDANCE),
        working_size=index.get("_fresco_working_size", side or SHORT_SIDE),
    )
