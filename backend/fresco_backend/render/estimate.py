# SPDX-License-Identifier: Apache-2.0
"""How long a shot will take on this device, and how much memory: rough, from arithmetic and one short measurement."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from fresco_backend.engine.keyframes import Window
from fresco_backend.engine.sampler import executed
from fresco_backend.engine.tiles import works_in_tiles
from fresco_backend.render.inversions import needs_inversion
from fresco_backend.render.job import Job
from fresco_protocol.shot import Rendering

# Measured on U-Nets of Stable Diffusion's shape (860 M weights, 0.8 TFLOP for 64 x 64 latents) and the embedded one.
FLOP_PER_WEIGHT_AND_LATENT = 0.23
CONTROL_SHARE = 0.4  # a ControlNet's cost against its U-Net's
COHERENCE_FACTOR = 2.0  # all constraints against a plain step
ATTAINED = 0.35  # of the speed of large matrix products
# In 16 bits, at Stable Diffusion's width; measured by `fresco bench --shape sd15`.
ACTIVATION_BYTES = 24_000  # of a step, per latent position and row
COHERENCE_BYTES = 9_000  # on top with all constraints
DECODED_BYTES = 1_800  # of the autoencoder, per pixel of a picture
SD_WEIGHTS = 860e6
SD_AUTOENCODER_WEIGHTS = 84e6
LIBRARIES = 900 * 2**20  # resident before any weight is loaded
IN_BETWEEN_SECONDS = 2.9e-6  # per pixel of the working size, flow included, on one CPU core
# Per pixel of the plate, on one CPU core: read twice, shown, brought back with its detail, written, verified.
DELIVERY_SECONDS = {Rendering.SRGB: 9e-7, Rendering.ACES: 2.5e-6}

# Long enough to be interrupted as often as a render will be: on a busy machine a short measurement is far too good.
_MEASURED = 0.15  # seconds
_FEWEST = 3  # products


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
    each = IN_BETWEEN_SECONDS * width * height + DELIVERY_SECONDS[job.showing.rendering] * pixels
    delivering = frames * each / _share() if frames else 0.0
    if not windows:
        return Cost(int(LIBRARIES), delivering)
    look, latents = job.shot.look, sum(tile.width * tile.height for tile in job.tiles) / 64
    denoised = sum(len(window.frames) for window in windows)
    steps = executed(look.steps, job.strength)
    networks = 1 + CONTROL_SHARE * len(look.controls or ())
    held = COHERENCE_FACTOR if job.shot.coherence else 1.0
    samples = networks * (_branches(job) * denoised * steps * held + _inverted(job, windows))
    flop = FLOP_PER_WEIGHT_AND_LATENT * _unet(job) * latents * samples
    denoising = flop / (ATTAINED * _matmul_speed(device, dtype)) if flop else 0.0
    return Cost(LIBRARIES + device_memory(job, windows, dtype), denoising + delivering)


def device_memory(job: Job, windows: Sequence[Window], dtype: torch.dtype) -> int:
    """Bytes that the networks and the largest window take on their device."""
    largest = max((len(window.frames) for window in windows), default=0)
    return loaded(job, dtype) + window_memory(job, largest, dtype)


def window_memory(job: Job, frames: int, dtype: torch.dtype) -> int:
    """Bytes that a step of a window of so many frames takes, the networks not counted."""
    (width, height), keyframing = job.tiles[0], job.shot.keyframing
    rows = _branches(job) * (min(frames, keyframing.window) if keyframing.synthesis.propagates else frames)
    each = (ACTIVATION_BYTES + (COHERENCE_BYTES if job.shot.coherence else 0)) * dtype.itemsize / 2
    return int(each * rows * (width * height / 64) * (_unet(job) / SD_WEIGHTS) ** 0.5)


def picture_memory(job: Job, vae: Any) -> int:
    """Bytes that the autoencoder takes for one picture at a time in its own precision; a tile where it knows tiles.

    vae: an autoencoder of diffusers, or one that shares its methods.
    """
    width, height = job.tiles[0] if works_in_tiles(vae) else job.working.padded
    share = (job.inventory.component("vae").numbers / SD_AUTOENCODER_WEIGHTS) ** 0.5
    return int(DECODED_BYTES * vae.dtype.itemsize / 2 * width * height * share)


def loaded(job: Job, dtype: torch.dtype) -> int:
    """Bytes of all networks of a job, as they lie in memory."""
    return sum(part.numbers for part in job.inventory.all_components) * dtype.itemsize


def _unet(job: Job) -> int:
    """Weights of the U-Net."""
    return job.inventory.component("unet").numbers


def _branches(job: Job) -> int:
    """Samples of a frame in one step: with and without the prompt, and the plate's own where it is looked at."""
    return (1 if job.shot.look.guidance == 1 else 2) + needs_inversion(job.shot)


def _inverted(job: Job, windows: Sequence[Window]) -> float:
    """Samples of the inversion of the windows' frames, as if none was kept from an earlier edit.

    It goes no further into the noise than the run that samples.
    """
    frames = {frame for window in windows for frame in window.frames}
    return len(frames) * job.shot.editing.inversion_steps * job.strength if needs_inversion(job.shot) else 0


def _matmul_speed(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP per second of products of 1024 x 1024 matrices, with what others leave of a busy machine."""
    matrix = torch.ones(1024, 1024, device=device, dtype=dtype)
    (matrix @ matrix)[0, 0].item()
    count, began = 0, time.perf_counter()
    while count < _FEWEST or time.perf_counter() - began < _MEASURED:
        (matrix @ matrix)[0, 0].item()
        count += 1
    return 2 * 1024**3 * count / (time.perf_counter() - began)


def _share() -> float:
    """How much of a core this thread gets beside all else that runs, above 0 and up to 1."""
    began, spent = time.perf_counter(), time.thread_time()
    while time.perf_counter() - began < _MEASURED:
        pass
    return max(0.01, min(1.0, (time.thread_time() - spent) / (time.perf_counter() - began)))
