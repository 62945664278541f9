# SPDX-License-Identifier: Apache-2.0
"""A picture larger than the model likes: as a whole and in overlapping tiles, by memory, time, and what shows of seams.

    .venv/bin/python benchmarks/tiles.py PLATE --working-size 576 [--frames 1001-1002] [--pictures DIR]

Each way is rendered by a process of its own, whose peak memory its record tells; the delivery has the working size's
detail. Seams: where a tile begins or ends, the step from each row or column to the next, against the steps of all
others; the same lines are measured in the picture that was made as a whole, which has no tiles, so that what the
picture itself has there is seen. 1.00 is no seam.

    .venv/bin/python benchmarks/tiles.py --step 768 [--tiles 512]

One step of two frames by a random U-Net of Stable Diffusion's structure at half its width: memory and time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.configuration_utils import FrozenDict

from fresco_backend.commands.bench import moving_plate
from fresco_backend.engine.coherence import Coherence, FeatureGuidance, WindowGuidance
from fresco_backend.engine.correspondence import Correspondence
from fresco_backend.engine.denoise import DiffusionModels, Sampling, WindowInput, denoise_window, result_of
from fresco_backend.engine.features import FeatureOptimisation
from fresco_backend.engine.flow import Flow
from fresco_backend.engine.schedule import NoiseSchedule
from fresco_backend.engine.tiles import Tiling
from fresco_backend.files.frames import FloatArray, read_frame
from fresco_backend.pixels.resolution import PIXELS_PER_LATENT, SHARED
from fresco_backend.pixels.transfer import srgb_encode
from fresco_backend.render.record import peak_memory

WHOLE = 8192
WIDTHS = (160, 320, 640, 640)  # of Stable Diffusion 1.5: twice as many


def edges(length: int, side: int) -> list[int]:
    """Rows or columns of a padded picture at which tiles begin or end inside of it."""
    latents = side // PIXELS_PER_LATENT
    tiling = Tiling(side=latents, overlap=latents // SHARED)
    tiles = tiling.tiles((min(latents, length), length // PIXELS_PER_LATENT))
    ends = {tile.left for tile in tiles} | {tile.left + tile.width for tile in tiles}
    return sorted(end * PIXELS_PER_LATENT for end in ends if 0 < end * PIXELS_PER_LATENT < length)


def seams(picture: FloatArray, axis: int, places: list[int]) -> float:
    """Mean step over the lines at these places against the mean over all others. picture: (H, W, 3), display codes."""
    steps = np.abs(np.diff(picture, axis=axis)).mean(axis=(1 - axis, 2))
    chosen = np.isin(np.arange(len(steps)), [place - 1 for place in places])
    return float(steps[chosen].mean() / steps[~chosen].mean()) if chosen.any() else float("nan")


def rendered(options: argparse.Namespace, tile: int, folder: Path) -> tuple[dict[str, Any], list[FloatArray]]:
    """The record and the frames of a render in a process of its own."""
    command = [sys.executable, "-c", "import sys; from fresco_backend.cli import main; sys.exit(main())", "render",
               options.plate, "--frames", options.frames, "--keyframes", "every:1", "--prompt", options.prompt,
               "--working-size", str(options.working_size), "--tile-size", str(tile), "--quality", options.quality,
               "--steps", str(options.steps), "--upsampling", "bicubic",
               "-o", str(folder / "out.####.exr")]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    record = json.loads((folder / "out.exr.fresco.json").read_text(encoding="utf-8"))
    frames = [read_frame(path) for path in sorted(folder.glob("out.*.exr"))]
    return record, [np.clip(srgb_encode(frame.pixels), 0, 1) for frame in frames]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "plate", nargs="?", help="a sequence whose size is about the working size: nothing is enlarged then"
    )
    parser.add_argument("--frames", default="1001-1002", help="(default: %(default)s)")
    parser.add_argument("--working-size", type=int, default=576, help="(default: %(default)s)")
    parser.add_argument("--tile-size", type=int, default=384, help="(default: %(default)s)")
    parser.add_argument("--prompt", default="an oil painting of a boat", help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--quality", default="draft", help="(default: %(default)s)")
    parser.add_argument("--pictures", type=Path, help="a folder in which the frames are left")
    parser.add_argument("--step", type=int, metavar="SIDE", help="one step of a square picture, in place of a plate")
    parser.add_argument("--tiles", type=int, metavar="SIDE", help="of that step")
    options = parser.parse_args()
    if options.step:
        measure_step(options.step, 2, options.tiles)
        return
    if not options.plate:
        parser.error("name a plate, or --step")
    with tempfile.TemporaryDirectory() as temporary:
        found = {}
        for name, tile in (("whole", WHOLE), ("tiles", options.tile_size)):
            folder = (options.pictures or Path(temporary)) / name
            folder.mkdir(parents=True, exist_ok=True)
            found[name] = rendered(options, tile, folder)
    for name, (record, pictures) in found.items():
        width, height = record["plate"]["working_size"]
        across, down = (edges(length, options.tile_size) for length in (width, height))
        figures = [(seams(picture, 1, _seen(across, width, picture.shape[1])),
                    seams(picture, 0, _seen(down, height, picture.shape[0]))) for picture in pictures]  # fmt: skip
        columns, rows = np.mean(figures, axis=0)
        measures = record["measures"]
        memory, seconds = measures["peak_memory_bytes"] / 2**20, measures["seconds"]["keyframes"]
        print(f"{name}: {record['plate']['tiles']} of {width}x{height}, {memory:.0f} MiB at the peak, {seconds:.0f} s, "
              f"steps at the tiles' edges {columns:.2f} across and {rows:.2f} down of those elsewhere")  # fmt: skip


def _seen(places: list[int], padded: int, delivered: int) -> list[int]:
    """The places without the even padding, as far as they are in the delivery."""
    margin = (padded - delivered) // 2
    return [place - margin for place in places if 0 < place - margin < delivered]


class _FreeAutoencoder:
    """Latents that cost nothing to make: what is measured is the U-Net."""

    config = FrozenDict(latent_magnitude=1, scaling_factor=1.0)
    dtype = torch.float32

    def encode(self, images: torch.Tensor) -> Any:
        small = torch.nn.functional.avg_pool2d(images, PIXELS_PER_LATENT)
        return SimpleNamespace(latents=torch.cat([small, small.mean(1, keepdim=True)], dim=1))


def measure_step(side: int, frames: int, tiles: int | None) -> None:
    """One step of a window with all constraints by a random U-Net of Stable Diffusion's structure at half its width."""
    with torch.device("meta"):
        made = UNet2DConditionModel(block_out_channels=WIDTHS, cross_attention_dim=768, attention_head_dim=8)
    unet = made.to_empty(device="cpu").eval().requires_grad_(False)
    for weights in unet.parameters():
        weights.normal_(std=0.02)
    images = moving_plate(frames, side, side)
    still = torch.zeros(frames, 2, side, side)
    guidance = WindowGuidance(
        coherence=Coherence(features=FeatureGuidance(optimisation=FeatureOptimisation(iterations=1)), pixels=None),
        correspondence=Correspondence(frames=images, flow=Flow.between(images, still, still)),
    )
    text = torch.randn(frames, 77, 768)
    window = WindowInput(frames=tuple(range(frames)), images=images, prompt=text, negative=text, guidance=guidance)
    schedule = NoiseSchedule.of(DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"))
    models = DiffusionModels(unet=unet, vae=_FreeAutoencoder(), schedule=schedule)
    latents = (tiles or WHOLE) // PIXELS_PER_LATENT
    tiling = Tiling(side=latents, overlap=latents // SHARED)
    before, began = peak_memory() or 0, time.process_time()
    result_of(denoise_window(models, window, Sampling(steps=1, strength=1.0, guidance=1, tiling=tiling)))
    name = f"tiles of {tiles}" if tiles else "whole"
    print(f"{side}x{side}, {frames} frames, {name}: {((peak_memory() or 0) - before) / 2**20:.0f} MiB above the "
          f"networks, {time.process_time() - began:.0f} CPU-s a step")  # fmt: skip


if __name__ == "__main__":
    main()
