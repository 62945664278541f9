# SPDX-License-Identifier: Apache-2.0
"""What the queue knows of a job: its state, the transitions between states, and the events that tell of changes.

                     ┌───────── resume ────────┐
                     v                         │
    SUBMITTED ──> QUEUED ──────> RUNNING ──> PAUSED
                    ^ ^             │
                    │ └─ interrupted┤
                    │               ├──> DELIVERED
                    ├─ retry ───────┼──> FAILED
                    └─ retry ───────┴──> CANCELLED     (every job that has not ended can be cancelled)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from fresco_backend.events import Event
from fresco_protocol.errors import FrescoError
from fresco_protocol.shot import Shot


class JobState(Enum):
    """Where a job stands."""

    SUBMITTED = "submitted"  # stored, and waits for its plate, which is still on the way
    QUEUED = "queued"  # waits for a worker
    RUNNING = "running"  # a worker has it
    PAUSED = "paused"  # waits for a person
    DELIVERED = "delivered"  # the end: all frames are there
    FAILED = "failed"  # the end, unless it is tried again
    CANCELLED = "cancelled"  # the end, unless it is tried again


_S = JobState
WAITING = frozenset({_S.SUBMITTED, _S.QUEUED, _S.PAUSED})
ENDED = frozenset({_S.DELIVERED, _S.FAILED, _S.CANCELLED})
ACTIVE = frozenset(_S) - ENDED

TRANSITIONS: Mapping[JobState, frozenset[JobState]] = MappingProxyType({
    _S.SUBMITTED: frozenset({_S.QUEUED, _S.CANCELLED}),
    _S.QUEUED: frozenset({_S.RUNNING, _S.PAUSED, _S.CANCELLED}),
    _S.RUNNING: frozenset({_S.QUEUED, _S.PAUSED, _S.DELIVERED, _S.FAILED, _S.CANCELLED}),
    _S.PAUSED: frozenset({_S.QUEUED, _S.CANCELLED}),
    _S.DELIVERED: frozenset(),
    _S.FAILED: frozenset({_S.QUEUED}),
    _S.CANCELLED: frozenset({_S.QUEUED}),
})


def check_transition(job: int, before: JobState, after: JobState) -> None:
    """Raises FrescoError, a bug, when no arrow leads from the one state to the other."""
    if after not in TRANSITIONS[before]:
        raise FrescoError(f"a {before.value} job does not become {after.value}", where=f"job {job}",
                          remedy="This is a bug of Fresco; the job was left as it was. Please report it.")


class Request(Enum):
    """What a person wants of a running job; its worker polls for it."""

    CANCEL = "cancel"
    PAUSE = "pause"


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """What the queue knows of a job, but for its shot.

    key: the client's, by which a submit that is sent again finds this job. priority, position: the higher priority goes
    first, then the lower position. request: what its worker is asked for. worker, device: who has it, or had it last.
    lease_ends: seconds of the monotonic clock. claims: how often workers had it. interruptions: how often one died
    of it since it was submitted or tried again. words: why it failed. *_at: seconds since 1970, UTC.
    """

    id: int
    key: str
    name: str | None
    state: JobState
    priority: int
    position: int
    request: Request | None
    worker: str | None
    device: str | None
    lease_ends: float | None
    claims: int
    interruptions: int
    words: str | None
    submitted_at: float
    claimed_at: float | None
    ended_at: float | None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A worker's right to a job. number: the job's claims up to this one, so that an earlier right is told from it."""

    job: int
    number: int
    worker: str
    shot: Shot


@dataclass(frozen=True, kw_only=True)
class Entered(Event):
    """A job is in another state. before: None when it is new. claim: how often workers had it. words: of a failure."""

    state: JobState
    before: JobState | None
    claim: int
    worker: str | None = None
    device: str | None = None
    words: str | None = None


@dataclass(frozen=True, kw_only=True)
class Requested(Event):
    """A person asked something of a running job. request: None takes it back."""

    request: Request | None


@dataclass(frozen=True, kw_only=True)
class Ranked(Event):
    """A job has another place in the order."""

    priority: int
    position: int
