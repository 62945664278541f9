# SPDX-License-Identifier: Apache-2.0
"""From a shot to its delivery: `render` runs the stages in order and tells what happens; `plan` tells what would.

analyse -> for each window: invert the plate where that is needed, denoise its keyframes, then deliver the frames up to
its last one -> movie -> record.
What is finished stays finished: keyframes and anchors in the scratch folder, frames in the delivery. Several processes
may render one shot: each claims a window or a frame before it makes it, and waits for what another one makes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from uuid import uuid4

from torch import Tensor

from fresco_backend.engine.keyframes import Window
from fresco_backend.events import Advanced, Delivered, Event, Finished, Planned, Stage, Warned
from fresco_backend.files.deliveries import DeliveryWriter, folders_as_before
from fresco_backend.files.frames import Frame, cleaned
from fresco_backend.files.movies import MovieReader
from fresco_backend.models.device import choose_device, choose_dtype
from fresco_backend.models.model_store import Changes
from fresco_backend.models.weights import Models, load
from fresco_backend.pixels.color import for_file
from fresco_backend.render import estimate, in_betweens, movie, record, windows
from fresco_backend.render.ahead import ahead
from fresco_backend.render.claims import POLL, Claims
from fresco_backend.render.denoising import Denoising
from fresco_backend.render.device_room import require_room
from fresco_backend.render.farm_stage import FarmStage, require_frames, require_keyframes
from fresco_backend.render.finish import finished
from fresco_backend.render.ingest import ingested
from fresco_backend.render.inversions import needs_inversion
from fresco_backend.render.job import Job, opaque, open_job
from fresco_backend.render.metrics import WarpError
from fresco_backend.render.pins import Pins
from fresco_backend.render.previews import Previews
from fresco_backend.render.remaining import Batch, batches
from fresco_backend.render.remarks import remark_on_length, remark_on_precision, remarks, remarks_on_device, texts
from fresco_protocol.shot import Shot


@dataclass(frozen=True, kw_only=True)
class Attendance:
    """What a worker of the server adds to a render.

    admit: judges the job before anything is written, and raises what stands against it. load: as `weights.load`, out of
    models that are kept. previews: makes pictures of keyframes as they are denoised.
    """

    admit: Callable[[Job], None]
    load: Callable[..., Models]
    previews: Previews


def plan(shot: Shot, *, selection: Sequence[int] | None = None, allow_download: bool = False) -> Planned:
    """What `render` would do. Reads the frames when the choice of keyframes depends on them; renders nothing.

    It proves that the delivery can be written, by a small picture, which it removes with the folders made for it.
    Raises what stands in the way.
    """
    with (folders_as_before(shot.delivery.sequence),
          closing(open_job(shot, selection=selection, allow_download=allow_download)) as job):
        events = _Run(job=job, writer=job.writer(), claims=_claims(job)).events()
        with closing(events):
            planned = next(event for event in events if isinstance(event, Planned))
        job.scratch.remove_empty()
        if len(planned.delivered) == len(planned.frames):
            return planned
        keyframes = planned.keyframes or ()
        return replace(planned, warnings=tuple(remarks(job, keyframes, denoises=bool(keyframes))))


def render(
    shot: Shot, *, selection: Sequence[int] | None = None, stage: FarmStage | None = None, pins: Pins | None = None,
    allow_download: bool = False, keep_scratch: bool = False, attendance: Attendance | None = None,
) -> Generator[Event, None, None]:
    """Render a shot. selection: frame numbers wanted now; None is all. stage: the only one to run; None is all of them.

    pins: what the job was planned with; this machine must not differ. Yields events; `close()` cancels.

    Cancelled or failed, it leaves whole frames only, and the same shot goes on from there. The scratch folder goes at
    the end of a whole shot; a selection leaves it to the other parts of the shot. Raises FrescoError.
    """
    if pins is not None:
        pins.require_node()
    without_model = pins if stage in (FarmStage.IN_BETWEENS, FarmStage.VERIFY) else None
    opened = open_job(shot, selection=selection, allow_download=allow_download, pins=without_model)
    with closing(opened) as job:
        if pins is not None:
            pins.require_job(job)
        if attendance is not None:
            attendance.admit(job)
        whole = job.selected == job.frames
        with _claims(job) as claims:
            anew = shot.delivery.overwrite and whole and stage in (None, FarmStage.KEYFRAMES)
            if anew and not (yield from claims.settled()):
                job.scratch.remove()
            run = _Run(job=job, writer=job.writer(), claims=claims, stage=stage, attendance=attendance)
            if shot.delivery.overwrite:
                claims.take(f"{_OVERWRITING}{uuid4().hex}")
            yield from run.events()
        if not keep_scratch and whole and stage in (None, FarmStage.VERIFY) and not claims.others(_OVERWRITING):
            job.scratch.remove()


_OVERWRITING = "overwriting."  # claimed by a run that needs scratch although to others all frames are delivered


def _claims(job: Job) -> Claims:
    return Claims(job.scratch.folder / "claims")


_Images = Generator[tuple[int, Tensor | None], None, None]


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """What the run does. keyframes, windows: of the whole shot. batches: what is left of it."""

    keyframes: tuple[int, ...]
    windows: tuple[Window, ...]
    batches: tuple[Batch, ...]

    @property
    def frames(self) -> tuple[tuple[int, ...], ...]:
        """The keyframes of each window, anchors included."""
        return tuple(window.frames for window in self.windows)

    @property
    def to_denoise(self) -> tuple[int, ...]:
        """The places of the windows that will be denoised, ascending."""
        return tuple(place for batch in self.batches for place in batch.windows)


@dataclass(kw_only=True)
class _Run:
    """One render as it goes on.

    done: selected frames that are delivered. rendered: how many of them by this run. to_denoise, denoised: windows that
    were to be denoised when it began, and those finished since. told: other precisions that were warned of.
    """

    job: Job
    writer: DeliveryWriter
    claims: Claims
    stage: FarmStage | None = None
    attendance: Attendance | None = None
    began: float = field(default_factory=time.monotonic)
    done: set[int] = field(default_factory=set)
    rendered: int = 0
    to_denoise: int = 0
    denoised: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    warp_error: WarpError = field(default_factory=WarpError)
    models: Models | None = None
    denoising: Denoising | None = None
    told: set[str] = field(default_factory=set)

    def events(self) -> Generator[Event, None, None]:
        """The stages, in order; what they warn of is kept for the record, which a later run may write."""
        try:
            for event in self._stages():
                if isinstance(event, Warned):
                    text = event.text if event.frame is None else f"frame {event.frame}: {event.text}"
                    self.job.scratch.save_warning(text)
                yield event
        finally:
            if self.denoising is not None:
                self.denoising.close()

    def _stages(self) -> Iterator[Event]:
        self.done = self._delivered()
        if self._is_finished():
            yield self._planned(None)
        else:
            if self.stage is FarmStage.VERIFY:
                require_frames(self.job, self.done)
            elif self.stage is FarmStage.IN_BETWEENS:
                require_keyframes(self.job)
            choice = yield from self._choice()
            yield self._planned(choice)
            if self.stage not in (FarmStage.IN_BETWEENS, FarmStage.VERIFY):
                yield from remarks(self.job, choice.keyframes, denoises=bool(choice.to_denoise))
            yield from self._work(choice)
        yield Finished(
            rendered=self.rendered, reused=len(self.done) - self.rendered, seconds=time.monotonic() - self.began,
            sidecar=str(record.path_of(self.job.shot.delivery.sequence)) if self._concludes else "",
            outputs=() if self.stage is FarmStage.KEYFRAMES else self._outputs(),
        )  # fmt: skip

    @property
    def _concludes(self) -> bool:
        return self.stage in (None, FarmStage.VERIFY)

    def _work(self, choice: _Choice) -> Iterator[Event]:
        """What is left of the stages that this run does."""
        if self.stage is FarmStage.IN_BETWEENS:
            require_keyframes(self.job, [key for place in choice.to_denoise for key in choice.windows[place].keys])
        self.to_denoise = len(choice.to_denoise)
        self.job.scratch.save_keyframes(choice.keyframes)
        for batch in choice.batches:
            yield from self._denoise(batch, choice)
            if self.stage is not FarmStage.KEYFRAMES:
                yield from self._timed(Stage.DELIVER, self._deliver(batch.frames, choice.keyframes))
        if self.stage is not FarmStage.KEYFRAMES:
            yield from self._timed(Stage.DELIVER, self._await_frames(choice.keyframes))
        if self._concludes:
            yield from self._conclude(choice)

    def _conclude(self, choice: _Choice) -> Iterator[Event]:
        """The movie, when one is asked for, and the record."""
        if not self.job.is_movie:
            record.write(self.job, self._measures(choice))
        elif (yield from self.claims.turn("movie", self._has_movie)):
            yield from self._timed(Stage.MOVIE, self._movie())
            record.write(self.job, self._measures(choice))
            self.claims.release("movie")

    def _has_movie(self) -> bool:
        return not self.job.shot.delivery.overwrite and record.has_movie(self.job)

    def _delivered(self) -> set[int]:
        """The selected frames that lie there as this very job made them."""
        job = self.job
        if job.shot.delivery.overwrite and self.stage is not FarmStage.VERIFY:
            return set()
        if job.is_movie and record.has_movie(job):
            return set(job.selected)
        return {frame for frame in job.selected if self.writer.is_delivered(frame, job.identity)}

    def _is_finished(self) -> bool:
        """Whether nothing is left to do, the record included."""
        job = self.job
        recorded = record.has_movie(job) if job.is_movie else record.read(job) is not None
        return recorded and len(self.done) == len(job.selected)

    def _choice(self) -> Generator[Event, None, _Choice]:
        job = self.job
        keyframes = job.scratch.keyframes or windows.choose_keyframes(job, (yield from self._analysis()))
        split = windows.split(job, keyframes)
        left = [frame for frame in job.selected if frame not in self.done]
        parts = batches(left, split, has_key=job.scratch.has_key, has_anchors=job.scratch.has_anchors)
        return _Choice(keyframes=keyframes, windows=split, batches=parts)

    def _analysis(self) -> Generator[Event, None, list[float] | None]:
        """The error curve, where the choice of keyframes depends on it."""
        if not windows.needs_analysis(self.job):
            return None
        errors: list[float] = []
        began = time.monotonic()
        for frame, error in zip(self.job.frames, windows.error_curve(self.job), strict=True):
            errors.append(error)
            yield Advanced(stage=Stage.ANALYSE, done=len(errors), total=len(self.job.frames), frame=frame)
        self.seconds[Stage.ANALYSE.value] = time.monotonic() - began
        return errors

    def _planned(self, choice: _Choice | None) -> Planned:
        """The plan; of a shot that is finished, with the choice that its record tells."""
        job, device = self.job, choose_device()
        dtype = choose_dtype(device)
        to_denoise = [choice.windows[place] for place in choice.to_denoise] if choice else []
        cost = estimate.cost(job, to_denoise, len(job.selected) - len(self.done), device, dtype)
        keyframes, split = (choice.keyframes, choice.frames) if choice else record.chosen(job)
        return Planned(
            frames=job.selected, delivered=tuple(sorted(self.done)), keyframes=keyframes, windows=split,
            plate_size=job.plate.size, working_size=job.working.padded,
            rate=None if job.rate is None else str(job.rate), model=job.shot.look.model, device=str(device),
            precision=str(dtype).removeprefix("torch."), seed=job.shot.look.seed, job_hash=job.identity,
            scratch=str(job.scratch.folder), memory_bytes=cost.memory, seconds=cost.seconds, tiles=len(job.tiles),
        )  # fmt: skip

    def _denoise(self, batch: Batch, choice: _Choice) -> Iterator[Event]:
        """Denoise the windows of a batch, and keep their keyframes and anchors."""
        for place in batch.windows:
            product = f"window.{place}"
            is_settled = partial(self._needs_none, place, choice.windows[place])
            if (yield from self.claims.turn(product, is_settled)):
                yield from self._window(place, choice)
                self.claims.release(product)
            self.denoised += 1

    def _needs_none(self, place: int, window: Window) -> bool:
        """Whether a window need not be made: it is kept, or another process has delivered all and cleared scratch."""
        scratch = self.job.scratch
        if scratch.has_anchors(place) and all(map(scratch.has_key, window.keys)):
            return True
        return all(self._find(frame) for frame in self.job.selected if frame not in self.done)

    def _window(self, place: int, choice: _Choice) -> Iterator[Event]:
        models = self.models or (yield from self._load())
        if self.denoising is None:
            previews = self.attendance.previews if self.attendance else None
            self.denoising = Denoising(
                job=self.job, models=models, windows=choice.windows, places=choice.to_denoise, previews=previews)
        yield from self._other_precisions(models)
        if needs_inversion(self.job.shot):
            yield from self._timed(Stage.INVERT, self.denoising.invert(place))
        for event in self._timed(Stage.KEYFRAMES, self.denoising.window(place, self.denoised)):
            if isinstance(event, Advanced) and event.seconds_left is not None:
                event = replace(event, seconds_left=event.seconds_left + self._seconds_to_deliver())
            yield event

    def _other_precisions(self, models: Models) -> Iterator[Warned]:
        """What is said, once, of windows of this shot that another machine denoised in something else."""
        here = record.precision_text(models.device, models.dtype)
        again = self.job.shot.delivery.overwrite  # then none of an earlier run stays
        others = (self.job.scratch.precisions if again else record.precisions(self.job)) - {here} - self.told
        if others:
            self.told |= others
            yield remark_on_precision(here, others)

    def _load(self) -> Generator[Event, None, Models]:
        """Load the models, and say what they do not see of the texts, and what their device lacks."""
        look = self.job.shot.look
        if self.attendance is None:
            require_room(self.job)
        loading = load if self.attendance is None else self.attendance.load
        models = self.models = loading(look.model, controls=look.controls or (), changes=Changes.of(look))
        for unseen in sorted({rest for text in texts(self.job) if (rest := models.unseen_text(text))}):
            yield remark_on_length(unseen)
        yield from remarks_on_device(self.job, models.unet.device, models.dtype)
        return models

    def _deliver(self, frames: Sequence[int], keyframes: Sequence[int]) -> Iterator[Event]:
        """Write those of the frames that no other process makes, keyframes and in-betweens, in order."""
        began = time.monotonic()
        with closing(self._made(self._claimed(frames), keyframes)) as images:
            for count, (frame, image) in enumerate(images, 1):
                yield from self._write(frame, image, keyframe=frame in keyframes)
                self.claims.release(f"frame.{frame}")
                left = len(self.job.selected) - len(self.done)
                seconds = left * (time.monotonic() - began) / count + self._seconds_to_denoise()
                yield Advanced(stage=Stage.DELIVER, done=len(self.done), total=len(self.job.selected), frame=frame,
                               seconds_left=seconds)

    def _seconds_to_denoise(self) -> float:
        """What the windows that are left will take, as those before did; 0 where this run knows of none."""
        spent = self.seconds.get(Stage.KEYFRAMES.value, 0.0) + self.seconds.get(Stage.INVERT.value, 0.0)
        return spent * (self.to_denoise - self.denoised) / max(1, self.denoised)

    def _seconds_to_deliver(self) -> float:
        """What the frames that are left will take, as those before did; 0 where this run knows of none."""
        left = 0 if self.stage is FarmStage.KEYFRAMES else len(self.job.selected) - len(self.done)
        return self.seconds.get(Stage.DELIVER.value, 0.0) * left / max(1, self.rendered)

    def _claimed(self, frames: Iterable[int]) -> Iterator[int]:
        """The frames that are not delivered and that nobody else has claimed."""
        for frame in frames:
            if not self._find(frame) and self.claims.take(f"frame.{frame}"):
                if self._find(frame):  # delivered between the two looks
                    self.claims.release(f"frame.{frame}")
                else:
                    yield frame

    def _find(self, frame: int) -> bool:
        """Whether a frame is delivered by now, perhaps by another process; as a picture, or in the finished movie."""
        if not self.job.shot.delivery.overwrite and frame not in self.done:
            if self.job.is_movie and record.has_movie(self.job):
                self.done.update(self.job.selected)
            elif self.writer.is_delivered(frame, self.job.identity):
                self.done.add(frame)
        return frame in self.done

    def _await_frames(self, keyframes: Sequence[int]) -> Iterator[Event]:
        """Wait for the frames that other processes make, and make those that they give up."""
        while left := [frame for frame in self.job.selected if frame not in self.done]:
            yield from self._deliver(left, keyframes)
            if left[0] not in self.done:
                yield self.claims.waited(f"frame.{left[0]}")
                time.sleep(POLL)

    def _made(self, frames: Iterable[int], keyframes: Sequence[int]) -> _Images:
        """The stylised frames, each made while the one before is written; a movie is read by one thread only."""
        images = self._stylised(frames, keyframes)
        return images if any(isinstance(reader, MovieReader) for reader in self.job.readers) else ahead(images)

    def _stylised(self, frames: Iterable[int], keyframes: Sequence[int]) -> _Images:
        """The stylised frames at working size; None stands for the plate itself, when nothing is denoised."""
        if keyframes:
            workers = in_betweens.workers_for(self.job)
            yield from in_betweens.stylised(self.job, frames, keyframes, workers=workers)
        else:
            yield from ((frame, None) for frame in frames)

    def _write(self, number: int, image: Tensor | None, *, keyframe: bool) -> Iterator[Event]:
        job, plate = self.job, self.job.plate.read(number)
        delivered = plate if image is None else self._over_plate(number, image, plate)
        delivered = opaque(delivered) if job.is_movie else delivered
        ready = for_file(delivered, job.space, job.delivered_space, self.writer.file_type, job.showing)
        written = self.writer.write(number, ready, job.identity)
        self.done.add(number)
        self.rendered += 1
        broken = max(cleaned(plate.pixels).replaced, written.replaced)
        if broken:
            text = f"{broken} NaN or infinite samples of the plate replaced"
            yield Warned(code="non-finite", frame=number, text=text)
        doubtful = job.matte.doubtful(number) if job.matte and image is not None else None
        if doubtful is not None:
            yield Warned(code="matte-doubtful", frame=number, text=f"the propagated matte is doubtful: {doubtful:.2f}")
        if written.clamped:
            text = f"{written.clamped} samples beyond the range of half clamped"
            yield Warned(code="clamped", frame=number, text=text)
        yield Delivered(frame=number, path=str(written.path), keyframe=keyframe)

    def _over_plate(self, number: int, image: Tensor, plate: Frame) -> Frame:
        """The stylised frame in the plate's size and colour, over the plate where the matte keeps it."""
        job = self.job
        part = ingested(job, plate)
        self.warp_error.add(job.frames.index(number), windows.seen(job, part), image)
        return finished(job, number, image, plate, part)

    def _movie(self) -> Iterator[Event]:
        """Assemble the movie when all its pictures are there."""
        job = self.job
        others = (frame for frame in job.frames if frame not in self.done)
        missing = [frame for frame in others if not self.writer.is_delivered(frame, job.identity)]
        if missing:
            text = f"{len(missing)} frames of the movie are not rendered yet; it is written with the last of them"
            yield Warned(code="movie-incomplete", text=text)
        else:
            yield from movie.assemble(job, self.writer)

    def _outputs(self) -> tuple[str, ...]:
        """The files of the delivery: the movie, or the pictures of the selected frames."""
        if self.job.is_movie and record.has_movie(self.job):
            return (self.job.shot.delivery.sequence,)
        return tuple(str(self.writer.path(frame)) for frame in self.job.selected)

    def _measures(self, choice: _Choice) -> record.Measures:
        models = self.models
        return record.Measures(
            keyframes=choice.keyframes, windows=tuple(window.frames for window in choice.windows),
            seconds=self.seconds, warp_error=self.warp_error.mean, rendered=self.rendered,
            reused=len(self.done) - self.rendered,
            device=str(models.device) if models else None,
            precision=str(models.dtype).removeprefix("torch.") if models else None,
            peak_memory_bytes=record.peak_memory(), **record.kept(self.job, len(choice.windows)),
        )  # fmt: skip

    def _timed(self, stage: Stage, events: Iterator[Event]) -> Iterator[Event]:
        began = time.monotonic()
        yield from events
        self.seconds[stage.value] = self.seconds.get(stage.value, 0.0) + time.monotonic() - began
