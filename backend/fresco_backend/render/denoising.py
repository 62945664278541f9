# SPDX-License-Identifier: Apache-2.0
"""The windows of a job, one after another: the plate inverted where that is needed, denoised, graded, and kept."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from fresco_backend import kept_memory
from fresco_backend.engine import denoise
from fresco_backend.engine.keyframes import Window
from fresco_backend.engine.latents import decode
from fresco_backend.engine.sampler import run_steps
from fresco_backend.engine.schedule import NoiseSchedule
from fresco_backend.engine.tiles import autoencoder_in_tiles
from fresco_backend.events import Advanced, Event, Stage, Warned
from fresco_backend.files.movies import MovieReader
from fresco_backend.models.weights import Models
from fresco_backend.render import drift, record, windows
from fresco_backend.render.ahead import Expected
from fresco_backend.render.device_room import MemoryPlan, fewer_for_memory, halves_for_memory
from fresco_backend.render.inversions import Inversions, needs_inversion
from fresco_backend.render.job import Job
from fresco_backend.render.plate_features import KeptFeatures
from fresco_backend.render.previews import Previews
from fresco_backend.render.windows import Watched


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

    def close(self) -> None:
        """End the thread that looks ahead, if there is one."""
        self._watched.close()

    def invert(self, place: int) -> Iterator[Event]:
        """Invert the frames of a window that are not inverted yet, as many at once as are denoised together.

        Where memory runs out, half of them.
        """
        inversions = self._inversions
        if inversions is None:
            return
        frames, done = self.windows[place].frames, self._to_invert - self._not_inverted()
        size = max(len(part.frames) for part in self._memory.parts(self.windows[place]))
        waiting = [group[start : start + size] for group in inversions.waiting(frames)
                   for start in range(0, len(group), size)]
        while waiting:
            part = waiting.pop(0)
            try:
                for count in inversions.make(self.models, part):
                    yield Advanced(stage=Stage.INVERT, done=done * inversions.steps + count * len(part),
                                   total=self._to_invert * inversions.steps)
                done += len(part)
            except (RuntimeError, MemoryError) as error:
                waiting[:0] = fewer_for_memory(part, error)

    def window(self, place: int, denoised: int) -> Iterator[Event]:
        """Denoise the window at a place, and keep its keyframes, tones and anchors. denoised: windows done before.

        Where memory is too small or runs out, the window is halved, and each half is denoised as a window of its own.
        """
        job = self.job
        with autoencoder_in_tiles(self.models.vae, max(job.tiles[0])) if job.tiling else nullcontext():
            yield from self._window(place, denoised)
        kept_memory.give_back()

    def _window(self, place: int, denoised: int) -> Iterator[Event]:
        job, window = self.job, self.windows[place]
        anchors = job.scratch.load_anchors(place - 1) if window.anchors else None
        plates, images, made = [], [], []
        waiting = list(parts := self._memory.parts(window))
        if len(parts) > 1:
            yield Warned(code="window-halved", text=self._memory.told(window, parts))
        while waiting:
            part = waiting.pop(0)
            try:
                given, result = yield from self._denoised(place, part, denoised, anchors)
            except (RuntimeError, MemoryError) as error:
                waiting[:0] = halves_for_memory(job, part, error)
                yield Warned(code="window-halved", text=f"memory ran out with {len(part.frames)} frames in a window; "
                             f"it goes on with {len(waiting[0].frames)}, which is a little less steady")
                continue
            own = slice(len(part.anchors), None)
            plates.append(given.images[own].cpu())
            images.append(decode(self.models.vae, result.latents[own], chunk=self._sampling.chunk).cpu())
            self._require_pictures(images[-1])
            anchors = result.anchors
            made.append(part.frames)
        keys = drift.graded(job, place, torch.cat(plates), torch.cat(images))
        job.scratch.save_parts(place, made)
        job.scratch.save_precision(place, record.precision_text(self.models.device, self.models.dtype))
        for frame, image in zip(window.keys, keys, strict=True):
            job.scratch.save_key(frame, image)
        if anchors is not None:
            job.scratch.save_anchors(place, anchors)

    def _require_pictures(self, images: Tensor) -> None:
        """Raise WeightsUnsupported for what a network gives that overflows: it would be delivered as black frames."""
        if not images.isfinite().all():
            raise windows.overflow(self.job, self.models)

    def _denoised(
        self, place: int, part: Window, denoised: int, anchors: denoise.Anchors | None
    ) -> Generator[Event, None, tuple[denoise.WindowInput, denoise.WindowResult]]:
        """What one window was made from, and what became of it."""
        inversions, device = self._inversions, self.models.device
        inverted = None if inversions is None else inversions.latents(part.frames, device)
        seen = self._watched.take(part.frames)
        if self._ahead and (following := self._after(place, part)) is not None:
            self._watched.expect(following.frames)
        given = windows.window_input(self.job, self.models, part, inverted, seen=seen)
        if inversions is not None and given.source is not None:
            kept = KeptFeatures.of(self.job, inversions, part.frames, self.models.dtype)
            given = replace(given, source=replace(given.source, kept=kept, noise_at=inversions.noise_at))
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
        sampling = windows.sampling(self.job.shot.look, self.job.shot.coherence, self.job.tiling)
        return replace(sampling, chunk=self._memory.pictures(self.models.vae, sampling.chunk))

    def _after(self, place: int, part: Window) -> Window | None:
        """The window that follows, unless halves of this one come before it."""
        later = [following for following in self.places if following > place]
        return self.windows[later[0]] if later and part is self.windows[place] else None

    @cached_property
    def _ahead(self) -> bool:
        """Whether the next window's frames are read, and their motion estimated, while the device is at work.

        Not on a CPU, which is at work itself, nor for movies, which one thread alone may read.
        """
        movie = any(isinstance(reader, MovieReader) for reader in self.job.readers)
        return self.models.device.type != "cpu" and not movie

    @cached_property
    def _watched(self) -> Expected[tuple[int, ...], Watched]:
        """Frames of windows as they are seen, those of the next one made ahead."""
        return Expected(lambda frames: windows.watched(self.job, frames, self.models.device))

    @cached_property
    def _memory(self) -> MemoryPlan:
        """What fits beside the networks, asked once, before the first window."""
        return MemoryPlan.of(self.job, self.models.device, self.models.dtype)

    @cached_property
    def _schedule(self) -> NoiseSchedule:
        return NoiseSchedule.of(DDPMScheduler.from_config(dict(self.models.scheduler_config)))

    @cached_property
    def _timesteps(self) -> tuple[int, ...]:
        steps = run_steps(self._schedule, self._sampling.steps, self._sampling.strength, self._sampling.sampler)
        return tuple(step.timestep for step in steps)

    @cached_property
    def _inversions(self) -> Inversions | None:
        if not needs_inversion(self.job.shot):
            return None
        precision = record.precision_text(self.models.device, self.models.dtype)
        return Inversions(self.job, self._schedule, self._timesteps, self.windows, precision)

    @cached_property
    def _to_invert(self) -> int:
        """How many frames this run has to invert, when it begins."""
        return self._not_inverted()

    def _not_inverted(self) -> int:
        frames = {frame for place in self.places for frame in self.windows[place].frames}
        return 0 if self._inversions is None else sum(map(len, self._inversions.waiting(sorted(frames))))
