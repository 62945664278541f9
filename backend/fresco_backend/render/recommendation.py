# SPDX-License-Identifier: Apache-2.0
"""What a model recommends where a shot leaves the choice open: its control, strength, guidance and working size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fresco_backend.models.model_family import DEFAULT_CONTROLNETS, SHORT_SIDES
from fresco_backend.models.model_files import read_index, read_json
from fresco_backend.models.model_store import Inventory
from fresco_protocol.errors import WeightsRefused
from fresco_protocol.shot import ControlKind, Sampler

# Stable Diffusion 1.x, for which the method's own numbers were chosen.
STRENGTH = 0.75
GUIDANCE = 7.5
EDIT_STRENGTH = 1.0  # the plate's own features hold the structure, so that an edit may begin at noise
PIXELS_PER_LATENT = 8
LCM_GUIDANCE = 1.0  # what distilled models have learnt with their steps; more is burnt in twice


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """What a model recommends for a translation and, in the fields that begin with "edit_", for an edit.

    control, edit_control: kind of control image; None is none. An edit holds its structure by injection, and has a
    control only where the model asks for it: one that was trained with its ControlNet is another model without.
    working_size: short side in pixels.
    """

    control: ControlKind | None
    strength: float
    guidance: float
    working_size: int
    edit_control: ControlKind | None = None
    edit_strength: float = EDIT_STRENGTH
    edit_guidance: float = GUIDANCE

    def guidance_of(self, sampler: Sampler) -> float:
        """What suits a translation with a sampler."""
        return LCM_GUIDANCE if sampler is Sampler.LCM else self.guidance


def recommendation(inventory: Inventory) -> Recommendation:
    """The keys `_fresco_...` of the model's index, else what suits Stable Diffusion."""
    place = inventory.place
    usual = SHORT_SIDES[inventory.family]
    if place.is_file():
        return Recommendation(control=_usual(inventory), strength=STRENGTH, guidance=GUIDANCE, working_size=usual)
    index = read_index(place)
    unet = place / "unet" / "config.json"
    side = read_json(unet).get("sample_size") if unet.is_file() else None
    own = side * PIXELS_PER_LATENT if isinstance(side, int) else usual
    try:
        return Recommendation(
            control=_control(index["_fresco_controls"]) if "_fresco_controls" in index else _usual(inventory),
            strength=float(index.get("_fresco_strength", STRENGTH)),
            guidance=float(index.get("_fresco_guidance", GUIDANCE)),
            working_size=int(index.get("_fresco_working_size", own)),
            edit_control=_control(index.get("_fresco_edit_controls", [])),
            edit_strength=float(index.get("_fresco_edit_strength", EDIT_STRENGTH)),
            edit_guidance=float(index.get("_fresco_edit_guidance", index.get("_fresco_guidance", GUIDANCE))),
        )
    except (TypeError, ValueError) as error:
        raise WeightsRefused(
            f"its index cannot be understood: {error}", where=place, remedy="Fetch the model again."
        ) from error


def _usual(inventory: Inventory) -> ControlKind | None:
    """Canny, where the model or its family has a ControlNet for it."""
    own = inventory.place.is_dir() and (inventory.place / "controlnet").is_dir()
    return ControlKind.CANNY if own or inventory.family in DEFAULT_CONTROLNETS else None


def _control(kinds: list[Any]) -> ControlKind | None:
    return ControlKind(kinds[0]) if kinds else None
