# SPDX-License-Identifier: Apache-2.0
"""How many steps a sampler needs: how far a picture is from what it becomes in many steps, on the embedded model.

DDIM and DPM-Solver++ follow one path from noise to picture, the finer the more steps they take, so both are compared
with DPM-Solver++ of 100 steps. Frames of the demo's plate, each by itself, with the model's own control.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from fresco_backend.engine import denoise
from fresco_backend.engine.latents import decode
from fresco_backend.engine.sampler import Sampler
from fresco_backend.engine.schedule import NoiseSchedule, Spacing
from fresco_backend.models.weights import Models, load
from fresco_backend.render import windows
from fresco_backend.render.job import Job, open_job
from fresco_protocol.shot import Delivery, Look, Plate, Shot, parse_frames

PLATE = Path(__file__).parents[1] / "demo" / "plate" / "boat.####.exr"
PROMPTS = ("a watercolour painting of a boat", "an ink drawing of a boat", "an oil painting of a boat")
STEPS = (5, 10, 20)
LIMIT = 100


def main(words: Sequence[str] | None = None) -> None:
    """Print a table: PSNR in dB against the limit, and seconds a frame, by sampler and number of steps."""
    options = _parser().parse_args(words)
    models = load(options.model)
    runs = [_Run(models, options, prompt) for prompt in options.prompts]
    limits = [run.picture(Sampler.DPM, LIMIT) for run in runs]
    print("| sampler | steps | PSNR to the limit, dB | seconds a frame |")
    print("|---|---|---|---|")
    for sampler in (Sampler.DDIM, Sampler.DPM):
        for steps in options.steps:
            began = time.process_time()
            pictures = [run.picture(sampler, steps) for run in runs]
            seconds = (time.process_time() - began) / sum(len(found) for found in pictures)
            quality = sum(_psnr(*pair) for pair in zip(pictures, limits, strict=True)) / len(runs)
            print(f"| {sampler.value} | {steps} | {quality:.1f} | {seconds:.2f} |", flush=True)


class _Run:
    """One prompt on the plate's frames."""

    def __init__(self, models: Models, options: argparse.Namespace, prompt: str) -> None:
        shot = Shot(
            plate=Plate(sequence=str(options.plate), frames=parse_frames(options.frames)),
            look=Look(prompt=prompt, model=options.model, controls=()), coherence=None,
            delivery=Delivery(sequence="look.####.png", working_size=options.size),
        )  # fmt: skip
        self._models, self._job = models, open_job(shot)
        schedule = NoiseSchedule.of(DDPMScheduler.from_config(dict(models.scheduler_config)))
        schedule = replace(schedule, spacing=Spacing.TRAILING)  # every number of steps begins at the same noise
        self._parts = denoise.DiffusionModels(unet=models.unet, vae=models.vae, schedule=schedule)
        self._given = windows.window_input(self._job, models, windows.split(self._job, self._job.frames)[0])

    def picture(self, sampler: Sampler, steps: int) -> Tensor:
        """The frames (N, 3, H, W) in [-1, 1]."""
        settings = replace(windows.sampling(self._look), sampler=sampler, steps=steps)
        last = denoise.result_of(denoise.denoise_window(self._parts, self._given, settings))
        return decode(self._models.vae, last.latents)

    @property
    def _look(self) -> Look:
        job: Job = self._job
        return job.shot.look


def _psnr(found: Tensor, limit: Tensor) -> float:
    """In dB, of pictures in [-1, 1]."""
    error = (found - limit).square().mean() / 4
    return float(-10 * torch.log10(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plate", type=Path, default=PLATE)
    parser.add_argument("--frames", default="1001,1012", help="of the plate")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--size", type=int, default=192, help="short side in pixels")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--prompts", nargs="+", default=PROMPTS)
    return parser


if __name__ == "__main__":
    main()
