# SPDX-License-Identifier: Apache-2.0
"""The windows of a job, one after another: the plate inverted where that is needed, denoised, graded, and kept."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from diffusers import DDPMScheduler

from fresco_backend import drift, windows
from fresco_backend.device_room import halves_for_memory
from fresco_backend.engine import denoise
from fresco_backend.engine.keyframes import Window
from fresco_backend.engine.latents import decode
from fresco_backend.engine.sampler import run_steps
from fresco_backend.engine.schedule import NoiseSchedule
from fresco_backend.engine.tiles import autoencoder_in_tiles
from fresco_backend.events import Advanced, Event, Stage, Warned
from fresco_backend.inversions import Inversions, needs_inversion
from fresco_backend.job import Job
from fresco_backend.previews import Previews
from fresco_backend.weights import Models


@dataclass(frozen=True, kw_only=True)
class Denoising:
    """The denoising of a job. windows: of the whole shot. places: of those that are to be denoised.

    previews: makes pictures on the way; None makes none.
    """

    job: Job
    models: Models
    windows: tuple[Window, ...]
    places: tuple[int, ...]
    previews: Previews | None = None

    def invert(self, place: int) -> Iterator[Event]:
        """Invert the frames of a window that are not inverted yet, as many at once as a window may hold."""
        inversions = self._inversions
        if inversions is None:
            return
        waiting, size = inversions.missing(self.windows[place].frames), self.job.shot.keyframing.window
        total = len(self._waiting) * inversions.steps
        for start in range(0, len(waiting), size):
            part = waiting[start : start + size]
            before = (len(self._waiting) - len(inversions.missing(self._waiting))) * inversions.steps
            for count in inversions.make(self.models, part):
                yield Advanced(stage=Stage.INVERT, done=before + count * len(part), total=total)

    def window(self, place: int, denoised: int) -> Iterator[Event]:
        """Denoise the window at a place, and keep its keyframes, tones and anchors. denoised: windows done before.

        Where memory runs out, the window is halved, and each half is denoised as a window of its own.
        """
        with autoencoder_in_tiles(self.models.vae) if self.job.tiling else nullcontext():
            yield from self._window(place, denoised)

    def _window(self, place: int, denoised: int) -> Iterator[Event]:
        job, window = self.job, self.windows[place]
        anchors = job.scratch.load_anchors(place - 1) if window.anchors else None
        plates, images = [], []
        waiting = [window]
        while waiting:
            part = waiting.pop(0)
            try:
                given, result = yield from self._denoised(place, part, denoised, anchors)
            except (RuntimeError, MemoryError) as error:
                waiting[:0] = halves_for_memory(part, error)
                yield Warned(code="window-halved", text=f"memory ran out with {len(part.frames)} frames in a window; "
                             f"it goes on with {len(waiting[0].frames)}, which is a little less steady")
                continue
            own = slice(len(part.anchors), None)
            plates.append(given.images[own].cpu())
            images.append(decode(self.models.vae, result.latents[own]).cpu())
            anchors = result.anchors
        keys = drift.graded(job, place, torch.cat(plates), torch.cat(images))
        for frame, image in zip(window.keys, keys, strict=True):
            job.scratch.save_key(frame, image)
        if anchors is not None:
            job.scratch.save_anchors(place, anchors)

    def _denoised(
        self, place: int, part: Window, denoised: int, anchors: denoise.Anchors | None
    ) -> Generator[Event, None, tuple[denoise.WindowInput, denoise.WindowResult]]:
        """What one window was made from, and what became of it."""
        inversions, device = self._inversions, self.models.device
        inverted = None if inversions is None else inversions.latents(part.frames, device)
        given = windows.window_input(self.job, self.models, part, inverted)
        return given, (yield from self._steps(place, given, denoised, anchors if given.anchored else None))

    def _steps(
        self, place: int, given: denoise.WindowInput, denoised: int, anchors: denoise.Anchors | None
    ) -> Generator[Event, None, denoise.WindowResult]:
        job, steps = self.job, len(self._timesteps)
        parts = denoise.DiffusionModels(unet=self.models.unet, vae=self.models.vae, schedule=self._schedule)
        total, before, began = steps * len(self.places), steps * denoised, time.monotonic()
        strengthened = windows.strengthened(job.shot.look, self.models.unet)
        with strengthened, closing(denoise.denoise_window(parts, given, self._sampling, anchors)) as loop:
            while True:
                try:
                    passed = next(loop)
                except StopIteration as finished:
                    result: denoise.WindowResult = finished.value
                    return result
                done = before + passed.step.index + 1
                each = (time.monotonic() - began) / (passed.step.index + 1)
                yield Advanced(stage=Stage.KEYFRAMES, done=done, total=total, window=place + 1,
                               windows=len(self.windows), seconds_left=(total - done) * each)
                if self.previews is not None:
                    quick = self.models.preview_vae or self.models.vae
                    if seen := self.previews.of(quick, given, passed, steps=steps):
                        yield seen

    @cached_property
    def _sampling(self) -> denoise.Sampling:
        return windows.sampling(self.job.shot.look, self.job.shot.coherence, self.job.tiling)

    @cached_property
    def _schedule(self) -> NoiseSchedule:
        return NoiseSchedule.of(DDPMScheduler.from_config(dict(self.models.scheduler_config)))

    @cached_property
    def _timesteps(self) -> tuple[int, ...]:
        steps = run_steps(self._schedule, self._sampling.steps, self._sampling.strength, self._sampling.sampler)
        return tuple(step.timestep for step in steps)

    @cached_property
    def _inversions(self) -> Inversions | None:
        return Inversions(self.job, self._schedule, self._timesteps) if needs_inversion(self.job.shot) else None

    @cached_property
    def _waiting(self) -> tuple[int, ...]:
        """The frames that this run has to invert, when it begins."""
        frames = {frame for place in self.places for frame in self.windows[place].frames}
        return () if self._inversions is None else self._inversions.missing(sorted(frames))
