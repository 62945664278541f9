# SPDX-License-Identifier: Apache-2.0
"""The stage `export`: the trained networks as a model folder, with what a shot is advised to take of it."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import torch

from .autoencoder_training import load_autoencoder
from .diffusion_training import Trainer

STRENGTH = 0.6
GUIDANCE = 3.0
EDIT_GUIDANCE = 2.5  # BENCHMARKS.md, "Editing": from 4 on colours burn out


def export(options: argparse.Namespace) -> None:
    """Write the model folder: the moving average in float16, configs, and the index that names the parts.

    Raises ValueError where one of them was not trained, before anything is written: the folder may hold a whole model.
    """
    folder: Path = options.output
    autoencoder = load_autoencoder(options.work, options.init)
    trainer = Trainer(options.work, torch.device("cpu"), options.rate)
    if not trainer.step:
        raise ValueError(f"{options.work} holds no {trainer.path.name}: run the diffusion stage first")
    trainer.averaged().save(folder)
    autoencoder.half().save_pretrained(folder / "vae", safe_serialization=True)
    index = {
        "_class_name": "StableDiffusionControlNetPipeline",
        "_fresco_controls": ["soft-edge"],
        "_fresco_strength": STRENGTH,
        "_fresco_guidance": GUIDANCE,
        "_fresco_edit_controls": ["soft-edge"],
        "_fresco_edit_strength": STRENGTH,
        "_fresco_edit_guidance": EDIT_GUIDANCE,
        "_fresco_working_size": 384,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "controlnet": ["diffusers", "ControlNetModel"],
        "vae": ["fresco_backend.embedded.dct", "DctAutoencoder"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    weights = sorted(folder.rglob("*.safetensors"))
    names = [path.relative_to(folder).as_posix() for path in weights]
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in weights]
    sums = [f"{digest}  {name}" for digest, name in zip(hashes, names, strict=True)]
    (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n")
