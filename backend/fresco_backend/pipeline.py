# SPDX-License-Identifier: Apache-2.0
"""From a shot to its delivery: `render` runs the stages in order and tells what happens; `plan` tells what would.

analyse -> for each window: denoise its keyframes, then deliver the frames up to its last one -> movie -> record.
What is finished stays finished: keyframes and anchors in the scratch folder, frames in the delivery.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

from diffusers import DDPMScheduler
from torch import Tensor

from fresco_backend import estimate, in_betweens, movie, record, windows
from fresco_backend.color import composite, for_file, from_engine
from fresco_backend.deliveries import DeliveryWriter
from fresco_backend.engine import denoise
from fresco_backend.engine.keyframes import Window
from fresco_backend.engine.latents import decode
from fresco_backend.engine.schedule import NoiseSchedule, run_steps
from fresco_backend.events import Advanced, Delivered, Event, Finished, Planned, Stage, Warned
from fresco_backend.job import Job, open_job
from fresco_backend.metrics import WarpError
from fresco_backend.weights import Models, choose_device, choose_dtype, load
from fresco_protocol.shot import Shot


def plan(shot: Shot, *, selection: Sequence[int] | None = None, allow_download: bool = False) -> Planned:
    """What `render` would do. Reads the frames when the choice of keyframes depends on them; renders and writes nothing.

    Raises what stands in the way, as `render` does.
    """
    job = open_job(shot, selection=selection, allow_download=allow_download)
    try:
        return _planned(job, windows.choose_keyframes(job, _errors(job)), delivered=())
    finally:
        job.close()


def render(
    shot: Shot, *, selection: Sequence[int] | None = None, allow_download: bool = False, keep_scratch: bool = False
) -> Generator[Event, None, None]:
    """Render a shot. selection: frame numbers wanted now; None is all. Yields events; `close()` cancels.

    Cancelled or failed, it leaves whole frames only, and the same shot goes on from there. Raises FrescoError.
    """
    job = open_job(shot, selection=selection, allow_download=allow_download)
    try:
        run = _Run(job=job, writer=job.writer())
        yield from run.events()
        if not keep_scratch and selection is None:
            job.scratch.remove()
    finally:
        job.close()


def _errors(job: Job) -> list[float] | None:
    return list(windows.error_curve(job)) if windows.needs_analysis(job) else None


def _planned(job: Job, keyframes: tuple[int, ...], delivered: tuple[int, ...]) -> Planned:
    device = choose_device()
    dtype = choose_dtype(device)
    split = windows.split(job, keyframes)
    size = job.working.padded
    cost = estimate.cost(job, split, device, dtype)
    return Planned(
        frames=job.selected, delivered=delivered, keyframes=keyframes, windows=tuple(each.frames for each in split),
        plate_size=tuple(job.plate.size), working_size=tuple(size), rate=None if job.rate is None else str(job.rate),
        model=job.shot.look.model, device=str(device), precision=str(dtype).removeprefix("torch."),
        seed=job.shot.look.seed, job_hash=job.identity, scratch=str(job.scratch.folder),
        memory_bytes=cost.memory, seconds=cost.seconds,
    )  # fmt: skip


@dataclass(kw_only=True)
class _Run:
    """One render as it goes on: what is delivered, and what was measured."""

    job: Job
    writer: DeliveryWriter
    began: float = field(default_factory=time.monotonic)
    done: set[int] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)
    warp_error: WarpError = field(default_factory=WarpError)
    models: Models | None = None

    def events(self) -> Iterator[Event]:
        """The stages, in order."""
        job = self.job
        if not job.shot.delivery.overwrite:
            self.done = {frame for frame in job.selected if self.writer.is_delivered(frame, job.identity)}
        reused = len(self.done)
        keyframes = windows.choose_keyframes(job, (yield from self._analysis()))
        yield _planned(job, keyframes, tuple(sorted(self.done)))
        split = windows.split(job, keyframes)
        yield from self._render_windows(split, keyframes)
        outputs = [str(self.writer.path(frame)) for frame in job.selected]
        if job.is_movie:
            outputs = [job.shot.delivery.sequence]
            yield from self._timed(Stage.MOVIE, movie.assemble(job, self.writer))
        sidecar = record.write(job, record.Measures(
            keyframes=keyframes, windows=tuple(each.frames for each in split), seconds=self.seconds,
            warp_error=self.warp_error.mean, rendered=len(self.done) - reused, reused=reused,
            device=str(self.models.device) if self.models else None,
            precision=str(self.models.dtype).removeprefix("torch.") if self.models else None,
        ))  # fmt: skip
        yield Finished(
            rendered=len(self.done) - reused, reused=reused, seconds=time.monotonic() - self.began,
            sidecar=str(sidecar), outputs=tuple(outputs),
        )  # fmt: skip

    def _analysis(self) -> Generator[Event, None, list[float] | None]:
        if not windows.needs_analysis(self.job) or len(self.done) == len(self.job.selected):
            return _errors(self.job)
        errors: list[float] = []
        began = time.monotonic()
        for error in windows.error_curve(self.job):
            errors.append(error)
            frame = self.job.frames[len(errors) - 1]
            yield Advanced(stage=Stage.ANALYSE, done=len(errors), total=len(self.job.frames), frame=frame)
        self.seconds[Stage.ANALYSE.value] = time.monotonic() - began
        return errors

    def _render_windows(self, split: Sequence[Window], keyframes: tuple[int, ...]) -> Iterator[Event]:
        """Denoise window after window, and deliver what each one completes."""
        for place, window in enumerate(split):
            if not self._missing_after(window, keyframes):
                continue
            yield from self._timed(Stage.KEYFRAMES, self._keyframes_up_to(place, split))
            yield from self._timed(Stage.DELIVER, self._deliver(window, keyframes))

    def _missing_after(self, window: Window, keyframes: tuple[int, ...]) -> bool:
        """Whether frames are wanted that this window completes."""
        return any(frame not in self.done for frame in self._completed_by(window, keyframes))

    def _completed_by(self, window: Window, keyframes: tuple[int, ...]) -> list[int]:
        """The selected frames from the window's reach: after the last keyframe before it, up to its own last one.

        The first window also has the frames before the first keyframe, the last one those after the last.
        """
        first, last = window.keys[0], window.keys[-1]
        before = max((key for key in keyframes if key < first), default=None)
        until = None if last == keyframes[-1] else last
        return [
            frame for frame in self.job.selected
            if (before is None or frame > before) and (until is None or frame <= until)
        ]  # fmt: skip

    def _keyframes_up_to(self, place: int, split: Sequence[Window]) -> Iterator[Event]:
        """Denoise what window `place` needs and the scratch folder lacks: itself, and before it what its anchors need."""
        scratch = self.job.scratch
        if self.job.shot.look.strength == 0:
            return
        missing = [
            index for index in range(place + 1)
            if not all(map(scratch.has_key, split[index].keys)) or not scratch.has_anchors(index)
        ]  # fmt: skip
        for index in missing[-1:] if missing and missing[0] == place else missing:
            yield from self._denoise(index, split)

    def _denoise(self, place: int, split: Sequence[Window]) -> Iterator[Event]:
        if self.models is None:
            yield from self._load()
        models, job, window = self.models, self.job, split[place]
        assert models is not None
        schedule = NoiseSchedule.of(DDPMScheduler.from_config(dict(models.scheduler_config)))
        parts = denoise.DiffusionModels(unet=models.unet, vae=models.vae, schedule=schedule)
        anchors = job.scratch.load_anchors(place - 1) if window.anchors else None
        sampling = windows.sampling(job.shot.look)
        steps = len(run_steps(schedule, sampling.steps, sampling.strength))
        loop = denoise.denoise_window(parts, windows.window_input(job, models, window), sampling, anchors)
        try:
            result = yield from self._steps(loop, steps, place, len(split))
        finally:
            loop.close()
        keys = decode(models.vae, result.latents[len(window.anchors):])
        for frame, image in zip(window.keys, keys, strict=True):
            job.scratch.save_key(frame, image)
        job.scratch.save_anchors(place, result.anchors)

    def _steps(
        self, loop: Generator[denoise.StepResult, None, denoise.WindowResult], steps: int, place: int, count: int
    ) -> Generator[Event, None, denoise.WindowResult]:
        began = time.monotonic()
        while True:
            try:
                step = next(loop).step
            except StopIteration as finished:
                result: denoise.WindowResult = finished.value
                return result
            done, total = place * steps + step.index + 1, count * steps
            each = (time.monotonic() - began) / (step.index + 1)
            yield Advanced(stage=Stage.KEYFRAMES, done=done, total=total, window=place + 1, windows=count,
                           seconds_left=(total - done) * each)

    def _load(self) -> Iterator[Event]:
        look = self.job.shot.look
        self.models = load(look.model, controls=look.controls or ())
        texts = [look.prompt, look.negative_prompt, *(cue.prompt for cue in look.cues)]
        unknown = [word for text in texts for word in self.models.unknown_words(text)]
        if unknown:
            yield Warned(code="unknown-words", text=f"the model does not know: {', '.join(dict.fromkeys(unknown))}. "
                         f"It knows: {', '.join(self.models.vocabulary)}")
        unseen = next((rest for text in texts if (rest := self.models.unseen_text(text))), None)
        if unseen:
            yield Warned(code="prompt-too-long", text=f'the model does not see the end of the prompt: "{unseen}"')

    def _deliver(self, window: Window, keyframes: tuple[int, ...]) -> Iterator[Event]:
        """Write the frames that the window completes, keyframes and in-betweens, in order."""
        wanted = self._completed_by(window, keyframes)
        began = time.monotonic()
        for count, (frame, image) in enumerate(self._stylised(wanted, keyframes), 1):
            if frame not in self.done:
                yield from self._write(frame, image, keyframe=frame in keyframes)
            left = len(self.job.selected) - len(self.done)
            yield Advanced(stage=Stage.DELIVER, done=len(self.done), total=len(self.job.selected), frame=frame,
                           seconds_left=left * (time.monotonic() - began) / count)

    def _stylised(self, wanted: Sequence[int], keyframes: tuple[int, ...]) -> Iterator[tuple[int, Tensor | None]]:
        """The stylised frames at working size; None stands for the plate itself (strength 0)."""
        if self.job.shot.look.strength == 0:
            yield from ((frame, None) for frame in wanted)
        else:
            yield from in_betweens.stylised(self.job, wanted, keyframes)

    def _write(self, number: int, image: Tensor | None, *, keyframe: bool) -> Iterator[Event]:
        job = self.job
        plate = job.plate.read(number)
        delivered = plate
        if image is not None:
            self.warp_error.add(windows.working_image(job, number), image)
            stylised = from_engine(job.working.to_plate(image[None])[0], plate, job.space)
            delivered = composite(stylised, plate, job.matte_at(number)) if job.matte else stylised
        ready = for_file(delivered, job.space, job.delivered_space, self.writer.file_type)
        written = self.writer.write(number, ready, job.identity)
        self.done.add(number)
        if written.replaced:
            yield Warned(code="non-finite", frame=number, text=f"{written.replaced} NaN or infinite samples replaced")
        if written.clamped:
            yield Warned(code="clamped", frame=number, text=f"{written.clamped} samples beyond the range of half clamped")
        yield Delivered(frame=number, path=str(written.path), keyframe=keyframe)

    def _timed(self, stage: Stage, events: Iterator[Event]) -> Iterator[Event]:
        began = time.monotonic()
        yield from events
        self.seconds[stage.value] = self.seconds.get(stage.value, 0.0) + time.monotonic() - began
