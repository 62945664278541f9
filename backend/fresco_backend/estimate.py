# SPDX-License-Identifier: Apache-2.0
"""How long a shot will take on this device, and how much memory: rough, from arithmetic and one short measurement."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch

from fresco_backend.engine.keyframes import Window
from fresco_backend.job import Job

# Measured on U-Nets of Stable Diffusion's shape (860 M weights, 0.8 TFLOP for 64 x 64 latents) and the embedded one.
FLOP_PER_WEIGHT_AND_LATENT = 0.23
CONTROL_SHARE = 0.4  # a ControlNet's cost against its U-Net's
COHERENCE_FACTOR = 2.0  # all constraints against a plain step
ATTAINED = 0.35  # of the speed of large matrix products
BYTES_PER_WEIGHT = 2  # as most checkpoints store them
ACTIVATION_BYTES = 24_000  # per latent position and row, at Stable Diffusion's width
SD_WEIGHTS = 860e6
LIBRARIES = 900 * 2**20  # resident before any weight is loaded
IN_BETWEEN_SECONDS = 1.2e-6  # per pixel of the working size, flow included, on one CPU core
DELIVERY_SECONDS = 2.5e-7  # per pixel of the plate: read, convert, write, verify


class Cost(NamedTuple):
    """memory: bytes at the peak. seconds: of wall time for what is not delivered yet."""

    memory: int
    seconds: float


def cost(job: Job, windows: Sequence[Window], frames: int, device: torch.device, dtype: torch.dtype) -> Cost:
    """The cost of what is left of a job, within a factor of about two.

    windows: those to denoise. frames: how many are to be delivered. device, dtype: where and how it is computed.
    """
    width, height = job.working.padded
    pixels = job.plate.size.width * job.plate.size.height
    delivering = frames * (IN_BETWEEN_SECONDS * width * height + DELIVERY_SECONDS * pixels)
    if not windows:
        return Cost(int(LIBRARIES), delivering)
    latents = width * height / 64
    weights = sum(part.size for part in job.inventory.all_components) / BYTES_PER_WEIGHT
    unet = job.inventory.component("unet").size / BYTES_PER_WEIGHT
    look = job.shot.look
    branches = 1 if look.guidance == 1 else 2
    denoised = sum(len(window.frames) for window in windows)
    steps = round(look.steps * job.strength)
    factor = (1 + CONTROL_SHARE * len(look.controls or ())) * (COHERENCE_FACTOR if job.shot.coherence else 1.0)
    flop = FLOP_PER_WEIGHT_AND_LATENT * unet * latents * branches * denoised * steps * factor
    denoising = flop / (ATTAINED * _matmul_speed(device, dtype)) if flop else 0.0
    rows = branches * max(len(window.frames) for window in windows)
    activations = ACTIVATION_BYTES * rows * latents * (unet / SD_WEIGHTS) ** 0.5
    return Cost(int(LIBRARIES + weights * dtype.itemsize + activations), denoising + delivering)


def _matmul_speed(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP per second of a product of two 1024 x 1024 matrices, best of three."""
    matrix = torch.ones(1024, 1024, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        (matrix @ matrix)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * 1024**3 / best
