# SPDX-License-Identifier: Apache-2.0
"""What the queue knows of a job: how its state may change, who has it, how far it is.

                     ┌───────── resume ────────┐
                     v                         │
    SUBMITTED ──> QUEUED ──────> RUNNING ──> PAUSED
                    ^ ^             │
                    │ └─ interrupted┤
                    │               ├──> DELIVERED
                    ├─ retry ───────┼──> FAILED
                    └─ retry ───────┴──> CANCELLED     (every job that has not ended can be cancelled)

SUBMITTED jobs are stored and wait for their plate, which is still on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from types import MappingProxyType

from fresco_protocol.errors import FrescoError
from fresco_protocol.events import Advanced, Delivered, Finished, JobEvent, Planned
from fresco_protocol.job import Job, JobState, Problem, Stage
from fresco_protocol.shot import Shot, frame_numbers

_S = JobState
WAITING = frozenset({_S.SUBMITTED, _S.QUEUED, _S.PAUSED})
ENDED = frozenset({_S.DELIVERED, _S.FAILED, _S.CANCELLED})
LIVE = frozenset(_S) - ENDED

TRANSITIONS: Mapping[JobState, frozenset[JobState]] = MappingProxyType({
    _S.SUBMITTED: frozenset({_S.QUEUED, _S.CANCELLED}),
    _S.QUEUED: frozenset({_S.RUNNING, _S.PAUSED, _S.CANCELLED}),
    _S.RUNNING: frozenset({_S.QUEUED, _S.PAUSED, _S.DELIVERED, _S.FAILED, _S.CANCELLED}),
    _S.PAUSED: frozenset({_S.QUEUED, _S.CANCELLED}),
    _S.DELIVERED: frozenset(),
    _S.FAILED: frozenset({_S.QUEUED}),
    _S.CANCELLED: frozenset({_S.QUEUED}),
})


def check_transition(job: str, before: JobState, after: JobState) -> None:
    """Raises FrescoError, a bug, when no arrow leads from the one state to the other."""
    if after not in TRANSITIONS[before]:
        raise FrescoError(f"a {before.value} job does not become {after.value}", where=f"job {job}",
                          remedy="This is a bug of Fresco; the job was left as it was. Please report it.")


class Wish(Enum):
    """What a person wants of a running job; its worker polls for it."""

    CANCEL = "cancel"
    PAUSE = "pause"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a job is. done, total: frames; total is None until the render is planned."""

    done: int = 0
    total: int | None = None
    stage: Stage | None = None
    seconds_left: float | None = None

    def after(self, event: JobEvent) -> Progress:
        """The progress when an event of the render has happened."""
        match event:
            case Planned():
                delivered = frame_numbers(event.delivered) if event.delivered else ()
                return replace(self, done=len(delivered), total=len(frame_numbers(event.frames)))
            case Advanced():
                return replace(self, stage=event.stage, seconds_left=event.seconds_left)
            case Delivered():
                return replace(self, done=self.done + 1)
            case Finished():
                return replace(self, done=event.rendered + event.reused)
        return self


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """All that the queue knows of a job, but for its shot; `record` is what of it goes to clients.

    key: the client's, by which a submit that is sent again finds this job. output: path pattern of the delivery.
    priority, position: the higher priority goes first, then the lower position. wish: what its worker shall do. worker,
    device: who has it, or had it last. lease_ends: seconds of the monotonic clock. claims: how often workers had it.
    interruptions: how often its worker died since it was submitted or tried again. *_at: seconds since 1970, UTC.
    """

    id: str
    key: str
    name: str
    output: str
    state: JobState
    priority: int
    position: int
    wish: Wish | None
    worker: str | None
    device: str | None
    lease_ends: float | None
    claims: int
    interruptions: int
    progress: Progress
    problem: Problem | None
    submitted_at: float
    claimed_at: float | None
    ended_at: float | None

    @cached_property
    def record(self) -> Job:
        """The job as the protocol tells it."""
        return Job(
            id=self.id, name=self.name, state=self.state, priority=self.priority, client_key=self.key,
            output=self.output, submitted=self.submitted_at, started=self.claimed_at, ended=self.ended_at,
            attempt=self.claims, done=self.progress.done, total=self.progress.total, stage=self.progress.stage,
            seconds_left=self.progress.seconds_left, problem=self.problem,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A worker's right to a job. number: the job's claims up to this one, so that an earlier right is told from it."""

    job: str
    number: int
    worker: str
    shot: Shot
