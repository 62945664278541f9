# SPDX-License-Identifier: Apache-2.0
"""The stage `autoencoder`: its gains are measured, and its restoration network trained on pictures of many looks."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import photos, training_files
from .dct import DctAutoencoder
from .training_files import log, save_atomically

# A channel of deviation d becomes one of deviation d**0.3: low frequencies still outlive the noise longest.
WHITENING = 0.7
LEARNING_RATE = 1e-3  # of Adam, at most
SPOILT_SHARE = 0.6  # of the samples
LATENT_ERROR = 0.3  # at most, where a latent channel of natural pictures has a deviation of about 1


def measured_gains(images: Tensor) -> tuple[float, ...]:
    """Factors per latent channel that whiten natural pictures part of the way; mean variance 1."""
    plain = DctAutoencoder()
    deviations: Tensor = plain.encode(images).latent_dist.mode().std(dim=(0, 2, 3))
    gains = deviations ** -WHITENING
    gains /= ((gains * deviations) ** 2).mean().sqrt()
    return tuple(round(value, 5) for value in gains.tolist())


def picture_batches(folders: list[Path], side: int, batch: int, begun: int = 0) -> Iterator[Tensor]:
    """Endless batches (batch, 3, side, side) in [-1, 1]: random crops, kept for a few uses as decoding is slow.

    Half of them are stylised, for the decoder must restore ink lines and brush strokes as well as photographs.
    begun: the step that the training is at, so that one which goes on does not see the same pictures again.
    """
    crops = photos.training_crops(folders)
    rng = np.random.default_rng((1, begun))
    pool: list[Tensor] = []
    while True:
        for _ in range(batch // 4 or 1):
            image = photos.read_crop(crops[rng.integers(len(crops))])
            if rng.random() < 0.5:
                image = photos.stylise(photos.draw_looks(rng), image, rng)
            pool.append(torch.from_numpy(image).permute(2, 0, 1) * 2 - 1)
        pool = pool[-512:]
        batch_of = [pool[i] for i in rng.integers(len(pool), size=batch)]
        corners = rng.integers(0, (photos.SIDE - side) // 8 + 1, size=(batch, 2)) * 8
        yield torch.stack([x[:, y : y + side, z : z + side] for x, (y, z) in zip(batch_of, corners, strict=True)])


def spoilt(latents: Tensor, rng: np.random.Generator) -> Tensor:
    """Latents (N, C, h, w) of which most carry the errors that denoised ones have, each its own share of them.

    Neighbouring blocks of a diffusion do not fit each other as those of a photograph do: a decoder that saw only
    photographs leaves their edges as a grid.
    """
    share = torch.from_numpy(rng.uniform(0, LATENT_ERROR, len(latents)) * (rng.random(len(latents)) < SPOILT_SHARE))
    noise = torch.from_numpy(rng.standard_normal(latents.shape, dtype=np.float32))
    return latents + share.float()[:, None, None, None] * noise


def learning_rate(step: int, steps: int) -> float:
    """The rate at a step: it rises over the first hundred, and falls over the last half of them all."""
    return LEARNING_RATE * min(1, (step + 1) / 100, max(0.02, (steps - step) / (0.5 * steps)))


def _initial_state(path: Path, init: Path | None) -> dict[str, Any]:
    """What a training starts from: its checkpoint, else an exported model, else nothing but step 0."""
    if path.exists():
        state: dict[str, Any] = torch.load(path, weights_only=True)
        return state
    if init is not None:
        exported: DctAutoencoder = DctAutoencoder.from_pretrained(init / "vae")
        return {"step": 0, "gains": exported.config["gains"], "model": exported.restoration.float().state_dict()}
    return {"step": 0}


def train_autoencoder(options: argparse.Namespace) -> None:
    """Measure the gains, then train the restoration network on the transform's errors and on those of a diffusion."""
    path = options.work / "autoencoder.pt"
    torch.manual_seed(0)  # of the first weights
    state = _initial_state(path, options.init)
    batches = picture_batches(options.photos, side=96, batch=16, begun=state["step"])
    rng = np.random.default_rng((2, state["step"]))
    if "gains" not in state:
        state["gains"] = measured_gains(torch.cat([next(batches) for _ in range(12)]))
    autoencoder = DctAutoencoder(gains=state["gains"])
    optimiser = torch.optim.AdamW(autoencoder.restoration.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99))
    if "model" in state:
        autoencoder.restoration.load_state_dict(state["model"])
    if "optimiser" in state:
        optimiser.load_state_dict(state["optimiser"])
    saved = time.monotonic()
    for step in range(state["step"], options.steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, options.steps)
        images = next(batches)
        with torch.no_grad():
            degraded = autoencoder.inverse_transform(spoilt(autoencoder.encode(images).latent_dist.mode(), rng))
        with torch.autocast(images.device.type, torch.bfloat16):
            correction = autoencoder.restoration(degraded)
        error = degraded + correction.float() - images
        loss = error.square().mean() + 0.05 * error.abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 50 == 0 or time.monotonic() - saved > training_files.CHECKPOINT_SECONDS or step == options.steps:
            before = (degraded - images).square().mean()
            psnr = [10 * math.log10(4 / float(value)) for value in (before, error.detach().square().mean())]
            log(options.work, "autoencoder", step=step, psnr_before=psnr[0], psnr_after=psnr[1])
        if time.monotonic() - saved > training_files.CHECKPOINT_SECONDS or step in (0, options.steps):
            state = {"step": step, "gains": state["gains"], "model": autoencoder.restoration.state_dict()}
            save_atomically(state | {"optimiser": optimiser.state_dict()}, path)
            saved = time.monotonic()


def load_autoencoder(work: Path, init: Path | None = None) -> DctAutoencoder:
    """The autoencoder as trained so far; where no stage trained it, that of the exported model `init`.

    Raises ValueError where there is neither.
    """
    path = work / "autoencoder.pt"
    if init is not None and not path.exists():
        autoencoder: DctAutoencoder = DctAutoencoder.from_pretrained(init / "vae")
        autoencoder.float().eval()
        return autoencoder
    if not path.exists():
        raise ValueError(f"{work} holds no {path.name}: run the autoencoder stage, or give a model with --init")
    state = torch.load(path, weights_only=True)
    autoencoder = DctAutoencoder(gains=state["gains"])
    if "model" in state:
        autoencoder.restoration.load_state_dict(state["model"])
    autoencoder.eval()
    return autoencoder
