# SPDX-License-Identifier: Apache-2.0
"""Families of Stable Diffusion: how to tell them apart, and what is known of each beside its weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from pathlib import Path

from fresco_backend.models.model_files import has_part, read_index, read_json
from fresco_protocol.errors import WeightsUnsupported
from fresco_protocol.shot import ControlKind


class Family(Enum):
    """What a model descends from; its value is the name that people use."""

    SD1 = "Stable Diffusion 1"
    SD2 = "Stable Diffusion 2"
    SDXL = "Stable Diffusion XL"
    OTHER = "own architecture"


# What the tensors of each component are called in a checkpoint of one file, as it was released.
SINGLE_FILE_PREFIXES: Mapping[Family, Mapping[str, str]] = {
    Family.SD1: {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "cond_stage_model.transformer.text_model.",
    },
    Family.SD2: {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "cond_stage_model.model.",
    },
    Family.SDXL: {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "conditioner.embedders.0.transformer.text_model.",
        "text_encoder_2": "conditioner.embedders.1.model.",
    },
}

# A tensor that community checkpoints carry to say that they predict the velocity, and one that their noise is whole.
VELOCITY_MARK, WHOLE_NOISE_MARK = "v_pred", "ztsnr"

# ControlNets that serve a control whose shot names no model.
DEFAULT_CONTROLNETS: Mapping[Family, Mapping[ControlKind, str]] = {
    Family.SD1: {
        ControlKind.CANNY: "lllyasviel/sd-controlnet-canny",
        ControlKind.SOFT_EDGE: "lllyasviel/sd-controlnet-hed",
        ControlKind.DEPTH: "lllyasviel/sd-controlnet-depth",
    },
    Family.SDXL: {
        ControlKind.CANNY: "diffusers/controlnet-canny-sdxl-1.0",
        ControlKind.DEPTH: "diffusers/controlnet-depth-sdxl-1.0",
    },
}

# Tiny autoencoders of each family, for previews: used where they lie on this machine.
TINY_AUTOENCODERS: Mapping[Family, str] = {
    Family.SD1: "madebyollin/taesd",
    Family.SD2: "madebyollin/taesd",
    Family.SDXL: "madebyollin/taesdxl",
}

# Short side in pixels of the pictures that a family was trained on, where the model's files do not say.
SHORT_SIDES: Mapping[Family, int] = {Family.SD1: 512, Family.SD2: 768, Family.SDXL: 1024, Family.OTHER: 512}

_TEXT_WIDTHS = {768: Family.SD1, 1024: Family.SD2, 2048: Family.SDXL}


def family_of_file(path: Path, names: Collection[str]) -> Family:
    """The family of a checkpoint of one file, by the names of its tensors. Raises WeightsUnsupported for a refiner."""
    parts = {name.split("model.transformer.")[0] for name in names if "embedders." in name}
    if any(part.startswith("conditioner.embedders.1.") for part in parts):
        return Family.SDXL
    if parts:
        raise WeightsUnsupported(
            "a checkpoint of Stable Diffusion XL's refiner, or of another structure", where=path,
            remedy="Give the base model, which has two text encoders.",
        )  # fmt: skip
    if any(name.startswith(SINGLE_FILE_PREFIXES[Family.SD2]["text_encoder"]) for name in names):
        return Family.SD2
    return Family.SD1


def family_of_folder(folder: Path) -> Family:
    """The family of a model in diffusers' layout, by the width of its text states."""
    config = folder / "unet" / "config.json"
    if not config.is_file():
        return Family.OTHER
    width = read_json(config).get("cross_attention_dim")
    return _TEXT_WIDTHS.get(width, Family.OTHER) if isinstance(width, int) else Family.OTHER


def has_two_text_encoders(folder: Path) -> bool:
    """Whether a model in diffusers' layout has Stable Diffusion XL's second text encoder."""
    return has_part(read_index(folder), "text_encoder_2")
