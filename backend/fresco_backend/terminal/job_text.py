# SPDX-License-Identifier: Apache-2.0
"""Jobs, events and the state of the server, in lines for people and in JSON for machines."""
from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Sequence
from typing import Any

from fresco_backend.terminal.plan_text import (
    bytes_text,
    counted,
    duration_text,
    path_text,
    product_text,
    safe_text,
    work_text,
)
from fresco_protocol import events as e
from fresco_protocol import messages as m
from fresco_protocol.document import write
from fresco_protocol.errors import JobUnknown, ShotError
from fresco_protocol.job import Job, JobState, Stage, Worker
from fresco_protocol.wire import NAMES

NAME_WIDTH = 32  # columns


def job_id(text: str) -> str:
    """An id as jobs have them. Raises JobUnknown, which says more than what an id is made of."""
    try:
        m.ShowJob(job=text)
    except ShotError:
        raise JobUnknown(f'there is no job "{text}"', remedy="See their ids: fresco jobs") from None
    return text


def event_json(event: e.Event) -> dict[str, Any]:
    """An event as a JSON object; "event" is its type on the wire, pictures are in base64."""
    fields = {name: base64.b64encode(value).decode() if name in event.blobs else write(value)
              for name, value in vars(event).items()}
    return {"event": NAMES[type(event)].partition(".")[2], **fields}


class Pace:
    """Which events people are told: of a stage its begin and its end, between them one in SECONDS of the server's."""

    SECONDS = 5.0

    def __init__(self) -> None:
        self._told: dict[str, tuple[Stage, float]] = {}

    def tells(self, event: e.Event) -> bool:
        """Whether this one is told."""
        if isinstance(event, e.Advanced):
            stage, then = self._told.get(event.job, (None, 0.0))
            if stage is event.stage and event.done < event.total and abs(event.time - then) < self.SECONDS:
                return False
            self._told[event.job] = event.stage, event.time
        return True


def event_line(event: e.Event) -> str | None:
    """An event in one line; None for one that tells people nothing."""
    line = _LINES.get(type(event), lambda _event: None)(event)
    job = f"{event.job}  " if isinstance(event, e.JobEvent) else ""
    return None if line is None else safe_text(f"{_clock(event.time)}  {job}{line}")


def job_lines(records: Sequence[Job], total: int) -> Iterator[str]:
    """A table of jobs."""
    if not records:
        yield "no jobs" if not total else f"{counted(total, 'job')}"
        return
    yield f"{'job':<12}  {'state':<9}  {'prio':>4}  {'frames':>11}  {'left':>8}  {'name':<{NAME_WIDTH}}  output"
    for record in records:
        name, output = (safe_text(" ".join(text.splitlines())) for text in (record.name, path_text(record.output)))
        yield (f"{record.id:<12}  {record.state.value:<9}  {record.priority:>4}  {_frames(record):>11}  "
               f"{_left(record):>8}  {name[:NAME_WIDTH]:<{NAME_WIDTH}}  {output}")
        if record.problem is not None and record.state is JobState.FAILED:
            yield safe_text(f"{'':<14}{record.problem.what.splitlines()[0]} [{record.problem.code}]")
    if total > len(records):
        yield f"and {total - len(records)} more"


def status_lines(status: m.ServerStatus) -> Iterator[str]:
    """How the server is."""
    yield f"{status.software}, process {status.pid}, running for {duration_text(time.time() - status.started)}"
    yield f"jobs: {status.queued} queued, {status.running} running, {status.paused} paused"
    yield from map(_worker, status.workers)
    if not status.workers:
        yield "no workers"
    yield f"roots: {', '.join(status.roots)}"


def _worker(worker: Worker) -> str:
    does = f"job {worker.job}" if worker.job else "idle"
    model = f", model {worker.model}" if worker.model else ""
    memory = ""
    if worker.memory_bytes is not None:
        of = f" of {bytes_text(worker.memory_total)}" if worker.memory_total else ""
        memory = f", {bytes_text(worker.memory_bytes)}{of}"
    return f"{worker.device}: {does}{model}{memory}"


def _frames(record: Job) -> str:
    return "" if record.total is None else f"{record.done}/{record.total}"


def _left(record: Job) -> str:
    return "" if record.seconds_left is None else duration_text(record.seconds_left)


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _changed(event: e.JobChanged) -> str:
    record = event.record
    problem = f": {record.problem.error()}" if record.problem and record.state is JobState.FAILED else ""
    again = f", attempt {record.attempt}" if record.state is JobState.RUNNING and record.attempt > 1 else ""
    return f"{record.state.value}{again}{problem}"


def _planned(event: e.Planned) -> str:
    about = "" if event.seconds is None else f", about {duration_text(event.seconds)}"
    return f"{', '.join(map(str, event.frames))} with {path_text(event.model)} on {event.device}{about}"


def _advanced(event: e.Advanced) -> str:
    window = "" if event.window is None else f", window {event.window}/{event.windows}"
    known = event.seconds_left is not None and event.done < event.total
    left = f", {duration_text(event.seconds_left or 0)} left" if known else ""
    return work_text(event.stage.value, event.done, event.total) + window + left


def _finished(event: e.Finished) -> str:
    kept = f", {event.reused} kept from before" if event.reused else ""
    where = " … ".join(map(path_text, dict.fromkeys([*event.outputs[:1], *event.outputs[-1:]])))
    return f"done in {duration_text(event.seconds)}: {counted(event.rendered, 'frame')} rendered{kept}" + (
        f"; {where}" if where else "")


_LINES: dict[type[e.Event], Any] = {
    e.JobChanged: _changed, e.Planned: _planned, e.Advanced: _advanced,
    e.Warned: lambda event: f"warning: {event.text} [{event.code}]",
    e.Finished: _finished,
    e.Waited: lambda event: f"waits for {product_text(event.product)}, which {event.owner} makes",
    e.ServerStopping: lambda _event: "the server stops"}
