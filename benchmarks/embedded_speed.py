# SPDX-License-Identifier: Apache-2.0
"""What a plain step of the embedded model costs: 8 frames of 512x512 with ControlNet and guidance, no coherence."""

from __future__ import annotations

import resource
import time

import torch
from diffusers import DDPMScheduler

from fresco_backend.engine import denoise
from fresco_backend.engine.schedule import NoiseSchedule
from fresco_backend.guides.controls import soft_edges
from fresco_backend.models.weights import load
from fresco_protocol.shot import Control, ControlKind

FRAMES, SIDE = 8, 512


def main() -> None:
    """Print seconds of wall time for a frame and a step, each step, and the memory of the process at its peak."""
    control = Control(kind=ControlKind.SOFT_EDGE)
    models = load("embedded", controls=(control,))
    images = torch.rand(FRAMES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    network = denoise.Control(network=models.controlnets[control], images=soft_edges(images))
    window = denoise.WindowInput(
        frames=tuple(range(FRAMES)), images=images, controls=(network,),
        prompt=models.encode_prompts(["an oil painting"] * FRAMES), negative=models.encode_prompts([""] * FRAMES),
    )  # fmt: skip
    schedule = NoiseSchedule.of(DDPMScheduler.from_config(dict(models.scheduler_config)))
    parts = denoise.DiffusionModels(unet=models.unet, vae=models.vae, schedule=schedule)
    began = time.perf_counter()
    for _ in denoise.denoise_window(parts, window, denoise.Sampling(steps=20, strength=0.2, guidance=3.0)):
        print(f"{(time.perf_counter() - began) / FRAMES:.2f} s a frame and step")
        began = time.perf_counter()
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at the peak")


if __name__ == "__main__":
    main()
