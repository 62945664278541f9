# SPDX-License-Identifier: Apache-2.0
"""The durable queue of the server: jobs, the order in which workers get them, and what becomes of them.

A job is here a shot that somebody submitted, as the queue remembers it (`JobStatus`); `job.py` has the other end of the
word, that shot made ready to be rendered. Every change is one transaction that also writes the event which tells of it:
after a crash at any moment the change and its event are both there, or neither is.

A JobQueue belongs to the thread that made it, as its JobDatabase does. The server needs one only; other threads and
processes may open their own on the same file.

A worker has a job by its `Claim` for as long as it reports within `lease` seconds. Once the job was taken from it, all
that it says with that claim raises Interrupted and changes nothing. `recover` takes jobs from workers that are gone:
such a job is queued again RESUMPTIONS times at most, and then fails with the end of its log as its last words. Leases
are measured by the monotonic clock, which no change of the time of day moves; after a restart of the machine their ends
mean nothing, and the server recovers with no worker alive.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Self

from fresco_backend.events import Event
from fresco_backend.job_database import JobDatabase
from fresco_backend.job_state import (
    ACTIVE,
    ENDED,
    WAITING,
    Claim,
    Entered,
    JobState,
    JobStatus,
    Ranked,
    Request,
    Requested,
    check_transition,
)
from fresco_backend.journal import Journal, Retention, unknown
from fresco_protocol.errors import Busy, FrescoError, Interrupted, ShotError, UsageError
from fresco_protocol.shot import Shot

RESUMPTIONS = 2  # after as many deaths of workers a job may still be queued again
PRIORITIES = range(-100, 101)  # the higher goes first
KEY_LENGTH = 200  # characters of a client key
TEXT_LENGTH = 8_000  # characters of a name or of last words
_COLUMNS = tuple(field.name for field in fields(JobStatus))
_STATES = {state.value: state for state in JobState}
_REQUESTS: dict[str | None, Request | None] = {None: None, **{request.value: request for request in Request}}
_ORDER = "ORDER BY priority DESC, position"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much the queue takes. active: jobs that have not ended. shot_bytes: of a shot's document. history: ended jobs
    that are remembered; the one that ended first is forgotten first. lease: seconds between a worker's reports."""

    active: int = 2_000
    shot_bytes: int = 1 << 18
    history: int = 10_000
    lease: float = 60.0

    def __post_init__(self) -> None:
        if min(self.active, self.shot_bytes, self.history, self.lease) <= 0:
            raise FrescoError(f"a queue cannot work within {self}")


class JobQueue:
    """The queue in the file `path`, with the `journal` of its events and logs. Raises what JobDatabase raises.

    clock: seconds that only grow, for leases.
    """

    def __init__(self, path: Path, *, limits: Limits | None = None, retention: Retention | None = None,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._database = JobDatabase(path)
        self._limits = limits or Limits()
        self._clock = clock
        self.journal = Journal(self._database, retention)
        with self._database.changing() as connection:  # the bounds may be lower than before
            self._forget(connection, at_most=-1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None,
                 _trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._database.close()

    # What clients want.

    def submit(self, shot: Shot, *, key: str, priority: int = 0, plate_pending: bool = False) -> JobStatus:
        """A new job, or the one that this client key has already, whatever became of it.

        plate_pending: it waits for `release`. Raises UsageError when the key belongs to another shot, ShotError when
        the document is too long, Busy when the queue is full.
        """
        document = shot.to_json()
        _check_submit(document, key, priority, self._limits.shot_bytes)
        with self._database.changing() as connection:
            if (known := _submitted(connection, key, document)) is not None:
                return known
            state = JobState.SUBMITTED if plate_pending else JobState.QUEUED
            (job,) = connection.execute(
                "INSERT INTO job (key, name, shot, state, priority, position, submitted_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
                (key, shot.name and _storable(shot.name), document, state.value, priority,
                 self._last_place(connection), time.time())).fetchone()
            self.journal.write(connection, job, [Entered(state=state, before=None, claim=0)], lasting=True)
            return _status(connection, job)

    def release(self, job: int) -> JobStatus:
        """Queue a submitted job: its plate is there."""
        with self._database.changing() as connection:
            status = _allowed(connection, job, {JobState.SUBMITTED}, "released")
            return self._enter(connection, status, JobState.QUEUED)

    def cancel(self, job: int) -> JobStatus:
        """Cancel a waiting job at once, and ask the worker of a running one. Raises UsageError when it has ended."""
        with self._database.changing() as connection:
            status = _allowed(connection, job, ACTIVE | {JobState.CANCELLED}, "cancelled")
            if status.state is JobState.RUNNING:
                return self._request(connection, status, Request.CANCEL)
            return status if status.state in ENDED else self._enter(connection, status, JobState.CANCELLED)

    def pause(self, job: int) -> JobStatus:
        """Pause a queued job at once, and ask the worker of a running one, unless it is asked to cancel it."""
        with self._database.changing() as connection:
            status = _allowed(connection, job, {JobState.QUEUED, JobState.RUNNING, JobState.PAUSED}, "paused")
            if status.state is JobState.RUNNING:
                return status if status.request else self._request(connection, status, Request.PAUSE)
            return status if status.state is JobState.PAUSED else self._enter(connection, status, JobState.PAUSED)

    def resume(self, job: int) -> JobStatus:
        """Queue a paused job at its old place, or take the request to pause it back."""
        with self._database.changing() as connection:
            status = _allowed(connection, job, {JobState.QUEUED, JobState.RUNNING, JobState.PAUSED}, "resumed")
            if status.request is Request.CANCEL:
                raise UsageError("the job is about to be cancelled", where=f"job {job}",
                                 remedy="Try it again when it is.")
            if status.state is JobState.RUNNING:
                return self._request(connection, status, None) if status.request else status
            return status if status.state is JobState.QUEUED else self._enter(connection, status, JobState.QUEUED)

    def retry(self, job: int) -> JobStatus:
        """Queue a failed or cancelled job again, last of its priority; what it has finished is not rendered again."""
        with self._database.changing() as connection:
            status = _allowed(connection, job, {JobState.FAILED, JobState.CANCELLED}, "tried again")
            return self._enter(connection, status, JobState.QUEUED, interruptions=0, words=None, ended_at=None,
                               position=self._last_place(connection))

    def prioritise(self, job: int, priority: int) -> JobStatus:
        """Give a job that has not ended another priority; jobs of one priority keep the order of their positions."""
        _check_priority(priority)
        with self._database.changing() as connection:
            status = _allowed(connection, job, ACTIVE, "given a priority")
            return self._rank(connection, status, priority, status.position)

    def move(self, job: int, *, before: int) -> JobStatus:
        """Put a waiting job directly before another one, whose priority it takes."""
        with self._database.changing() as connection:
            status = _allowed(connection, job, WAITING, "moved")
            other = _allowed(connection, before, WAITING, "overtaken")
            if job == before:
                return status
            connection.execute(f"UPDATE job SET position = position + 1 WHERE state IN ({_listed(ACTIVE)}) "
                               "AND position >= ?", (other.position,))
            return self._rank(connection, status, other.priority, other.position)

    # What workers say.

    def claim(self, worker: str, device: str) -> Claim | None:
        """The next queued job, now the worker's own; None when nothing is queued.

        worker: a name that no other process ever used. A job that this version of Fresco cannot read fails, and the
        next one is taken. Raises FrescoError, a bug, when the worker has a job already.
        """
        with self._database.changing() as connection:
            if any(status.worker == worker for status in _running(connection)):
                raise FrescoError(f"worker {worker} has a job already, and claims another")
            while queued := _selected(connection, f"WHERE state = 'queued' {_ORDER} LIMIT 1"):
                status = self._enter(connection, queued[0], JobState.RUNNING, worker=worker, device=device,
                                     claims=queued[0].claims + 1, claimed_at=time.time(),
                                     lease_ends=self._clock() + self._limits.lease)
                try:
                    shot = _shot(connection, status.id)
                except ShotError as error:
                    self._enter(connection, status, JobState.FAILED, words=_storable(str(error)))
                else:
                    return Claim(job=status.id, number=status.claims, worker=worker, shot=shot)
            return None

    def report(self, claim: Claim, events: Iterable[Event] = ()) -> Request | None:
        """Keep events of a running job and renew its lease; gives what a person wants of it.

        Without events it is a heartbeat. Raises Interrupted when the job was taken from the worker.
        """
        with self._database.changing() as connection:
            status = _held(connection, claim)
            lease = self._clock() + self._limits.lease
            connection.execute("UPDATE job SET lease_ends = ? WHERE id = ?", (lease, claim.job))
            self.journal.write(connection, claim.job, events, lasting=False)
            return status.request

    def deliver(self, claim: Claim) -> JobStatus:
        """All frames are delivered, even if a person wants to stop it now. Raises Interrupted as `report` does."""
        with self._database.changing() as connection:
            return self._enter(connection, _held(connection, claim), JobState.DELIVERED)

    def fail(self, claim: Claim, words: str) -> JobStatus:
        """The render ended with an error; words: what, where, what to do next. Raises Interrupted as `report` does."""
        with self._database.changing() as connection:
            return self._enter(connection, _held(connection, claim), JobState.FAILED, words=_storable(words))

    def give_back(self, claim: Claim) -> JobStatus:
        """The worker stopped in good order before the end: the job is cancelled or paused if that was asked for, and
        queued at its old place if not. Raises Interrupted as `report` does."""
        with self._database.changing() as connection:
            status = _held(connection, claim)
            return self._enter(connection, status, _after_stop(status.request))

    def recover(self, alive: Collection[str] = ()) -> tuple[JobStatus, ...]:
        """Take their jobs from workers that are not alive or let their lease end; gives those jobs as they then are.

        alive: the workers that run. At the start of the server none does.
        """
        with self._database.changing() as connection:
            now = self._clock()
            lost = [status for status in _running(connection)
                    if status.worker not in alive or status.lease_ends is None or status.lease_ends < now]
            return tuple(self._interrupted(connection, status) for status in lost)

    # What everybody may know.

    def status(self, job: int) -> JobStatus:
        """What is known of a job. Raises UsageError when there is none of this number."""
        with self._database.reading() as connection:
            return _status(connection, job)

    def shot(self, job: int) -> Shot:
        """A job's shot, to look at or to submit again under a new key. Raises UsageError when there is no such job."""
        with self._database.reading() as connection:
            return _shot(connection, job)

    def active(self) -> tuple[JobStatus, ...]:
        """All jobs that have not ended, in the order of priority and position."""
        with self._database.reading() as connection:
            return _selected(connection, f"WHERE state IN ({_listed(ACTIVE)}) {_ORDER}")

    def history(self, *, limit: int = 100, skip: int = 0) -> tuple[JobStatus, ...]:
        """Jobs that have ended, the last one first."""
        with self._database.reading() as connection:
            return _selected(connection, "WHERE ended_at IS NOT NULL ORDER BY ended_at DESC, id DESC LIMIT ? OFFSET ?",
                             limit, skip)

    # Steps of a change.

    def _enter(
        self, connection: sqlite3.Connection, status: JobStatus, state: JobState, **columns: object
    ) -> JobStatus:
        """Bring a job into another state, with its event; `columns` change with it."""
        check_transition(status.id, status.state, state)
        ended = {"ended_at": time.time()} if state in ENDED else {}
        changed = {"request": None, "lease_ends": None, **ended, **columns, "state": state.value}
        assignments = ", ".join(f"{column} = ?" for column in changed)
        connection.execute(f"UPDATE job SET {assignments} WHERE id = ?", (*changed.values(), status.id))
        after = _status(connection, status.id)
        event = Entered(state=state, before=status.state, claim=after.claims, worker=after.worker, device=after.device,
                        words=after.words)
        self.journal.write(connection, status.id, [event], lasting=True)
        if state in ENDED:
            self._forget(connection, at_most=2)
        return after

    def _forget(self, connection: sqlite3.Connection, *, at_most: int) -> None:
        """Bring what is remembered of ended jobs back to its bounds; of `at_most` jobs that cross them, -1: all."""
        connection.execute("""DELETE FROM job WHERE id IN (SELECT id FROM job WHERE ended_at IS NOT NULL
                              ORDER BY ended_at DESC, id DESC LIMIT ? OFFSET ?)""", (at_most, self._limits.history))
        self.journal.thin(connection, at_most=at_most)

    def _request(self, connection: sqlite3.Connection, status: JobStatus, request: Request | None) -> JobStatus:
        value = request.value if request else None
        connection.execute("UPDATE job SET request = ? WHERE id = ?", (value, status.id))
        self.journal.write(connection, status.id, [Requested(request=request)], lasting=False)
        return _status(connection, status.id)

    def _rank(self, connection: sqlite3.Connection, status: JobStatus, priority: int, position: int) -> JobStatus:
        connection.execute("UPDATE job SET priority = ?, position = ? WHERE id = ?", (priority, position, status.id))
        self.journal.write(connection, status.id, [Ranked(priority=priority, position=position)], lasting=False)
        return _status(connection, status.id)

    def _interrupted(self, connection: sqlite3.Connection, status: JobStatus) -> JobStatus:
        count = status.interruptions + 1
        state = _after_stop(status.request)
        if state is not JobState.QUEUED or count <= RESUMPTIONS:
            return self._enter(connection, status, state, interruptions=count)
        log = self.journal.last_words(status.id) or "(nothing)"
        words = f"its worker died or fell silent {count} times. The end of its log:\n{log}"
        return self._enter(connection, status, JobState.FAILED, interruptions=count, words=_storable(words))

    def _last_place(self, connection: sqlite3.Connection) -> int:
        """A position behind all jobs that have not ended. Raises Busy when there are too many of them."""
        count, last = connection.execute(
            f"SELECT count(*), coalesce(max(position), 0) FROM job WHERE state IN ({_listed(ACTIVE)})").fetchone()
        if count >= self._limits.active:
            raise Busy(f"the queue is full: {count} jobs have not ended", where=self._database.path,
                       remedy="Submit it again when one has ended, or cancel one.")
        return int(last) + 1


def _check_submit(document: str, key: str, priority: int, shot_bytes: int) -> None:
    _check_priority(priority)
    if not (0 < len(key) <= KEY_LENGTH and key.isprintable()):
        raise UsageError(f"the client key {key[:KEY_LENGTH]!a} cannot be used",
                         remedy=f"Take 1 to {KEY_LENGTH} printable characters.")
    size = len(document.encode())
    if size > shot_bytes:
        raise ShotError("", f"{size} bytes", f"at most {shot_bytes} bytes; write long lists of frames as ranges")


def _storable(text: str) -> str:
    """A text that a database holds: names of files may have surrogates, and errors may be long."""
    return text[:TEXT_LENGTH].encode(errors="backslashreplace").decode()


def _check_priority(priority: int) -> None:
    if priority not in PRIORITIES:
        raise UsageError(f"there is no priority {priority}", remedy=f"Take {PRIORITIES[0]} to {PRIORITIES[-1]}.")


def _after_stop(request: Request | None) -> JobState:
    """The state of a job whose worker stopped before the end."""
    return {Request.CANCEL: JobState.CANCELLED, Request.PAUSE: JobState.PAUSED, None: JobState.QUEUED}[request]


def _status(connection: sqlite3.Connection, job: int) -> JobStatus:
    found = _selected(connection, "WHERE id = ?", job)
    if not found:
        raise unknown(job)
    return found[0]


def _submitted(connection: sqlite3.Connection, key: str, document: str) -> JobStatus | None:
    """The job that a client key has already; UsageError if it is another shot's."""
    row = connection.execute("SELECT id, shot FROM job WHERE key = ?", (key,)).fetchone()
    if row is None:
        return None
    if row["shot"] != document:
        raise UsageError(f'the client key "{key}" belongs to another shot', where=f"job {row['id']}",
                         remedy="Take a fresh key for each new shot.")
    return _status(connection, row["id"])


def _shot(connection: sqlite3.Connection, job: int) -> Shot:
    row = connection.execute("SELECT shot FROM job WHERE id = ?", (job,)).fetchone()
    if row is None:
        raise unknown(job)
    return Shot.from_json(row["shot"])


def _running(connection: sqlite3.Connection) -> tuple[JobStatus, ...]:
    return _selected(connection, f"WHERE state = 'running' {_ORDER}")


def _selected(connection: sqlite3.Connection, which: str, *values: object) -> tuple[JobStatus, ...]:
    rows = connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM job {which}", values)
    return tuple(JobStatus(**{**dict(zip(_COLUMNS, row, strict=True)), "state": _STATES[row["state"]],
                              "request": _REQUESTS[row["request"]]}) for row in rows)


def _allowed(connection: sqlite3.Connection, job: int, states: Collection[JobState], verb: str) -> JobStatus:
    """The job, in one of the states in which a person may do this to it; else UsageError."""
    status = _status(connection, job)
    if status.state not in states:
        allowed = ", ".join(state.value for state in JobState if state in states)
        raise UsageError(f"a {status.state.value} job cannot be {verb}", where=f"job {job}",
                         remedy=f"That is for jobs that are: {allowed}.")
    return status


def _held(connection: sqlite3.Connection, claim: Claim) -> JobStatus:
    status = _status(connection, claim.job)
    if (status.state, status.worker, status.claims) != (JobState.RUNNING, claim.worker, claim.number):
        raise Interrupted(f"the job was taken from worker {claim.worker}, and is {status.state.value} now",
                          where=f"job {claim.job}", remedy="Leave it: what was finished is kept.")
    return status


def _listed(states: Iterable[JobState]) -> str:
    """The states as constants of SQL."""
    return ", ".join(f"'{state.value}'" for state in states)
