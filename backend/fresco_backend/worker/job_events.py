# SPDX-License-Identifier: Apache-2.0
"""What a render tells (`events.py`) as the events of a job that the protocol knows."""
from __future__ import annotations

from collections.abc import Callable, Sequence

from fresco_backend import events as render
from fresco_protocol import events as wire
from fresco_protocol.events import JobEvent, Window
from fresco_protocol.frame_range import as_ranges
from fresco_protocol.job import Stage
from fresco_protocol.shot import FrameRange


def job_event(event: render.Event, job: str) -> JobEvent:
    """The event of this job; its number and time are the journal's to give, and are 0."""
    return _TURNS[type(event)](event, job)


def _planned(event: render.Planned, job: str) -> JobEvent:
    windows = None if not event.windows else tuple(Window(keyframes=as_ranges(sorted(window)))
                                                   for window in event.windows)
    return wire.Planned(
        number=0, time=0, job=job, frames=as_ranges(event.frames), delivered=_ranges(event.delivered),
        keyframes=_ranges(event.keyframes), windows=windows, plate_size=tuple(event.plate_size),
        working_size=tuple(event.working_size), rate=event.rate, model=event.model, device=event.device,
        precision=event.precision, seed=event.seed, job_hash=event.job_hash, scratch=event.scratch,
        memory_bytes=event.memory_bytes, seconds=event.seconds, tiles=event.tiles)


def _ranges(numbers: Sequence[int] | None) -> tuple[FrameRange, ...] | None:
    return as_ranges(numbers) if numbers else None


def _advanced(event: render.Advanced, job: str) -> JobEvent:
    return wire.Advanced(number=0, time=0, job=job, stage=Stage(event.stage.value), done=event.done, total=event.total,
                         frame=event.frame, window=event.window, windows=event.windows,
                         seconds_left=event.seconds_left)


def _previewed(event: render.Previewed, job: str) -> JobEvent:
    return wire.Previewed(number=0, time=0, job=job, frame=event.frame, step=event.step, steps=event.steps,
                          width=event.width, height=event.height, jpeg=event.jpeg)


def _waited(event: render.Waited, job: str) -> JobEvent:
    return wire.Waited(number=0, time=0, job=job, product=event.product, owner=event.owner)


def _delivered(event: render.Delivered, job: str) -> JobEvent:
    return wire.Delivered(number=0, time=0, job=job, frame=event.frame, path=event.path, keyframe=event.keyframe)


def _warned(event: render.Warned, job: str) -> JobEvent:
    return wire.Warned(number=0, time=0, job=job, code=event.code, text=event.text, frame=event.frame)


def _finished(event: render.Finished, job: str) -> JobEvent:
    return wire.Finished(number=0, time=0, job=job, rendered=event.rendered, reused=event.reused,
                         seconds=event.seconds, sidecar=event.sidecar, outputs=tuple(event.outputs))


_TURNS: dict[type[render.Event], Callable[..., JobEvent]] = {
    render.Planned: _planned, render.Advanced: _advanced, render.Previewed: _previewed, render.Delivered: _delivered,
    render.Warned: _warned, render.Waited: _waited, render.Finished: _finished}
