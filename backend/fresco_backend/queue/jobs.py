# SPDX-License-Identifier: Apache-2.0
"""The durable queue of the server: jobs, the order in which workers get them, and what becomes of them.

A job is here a shot that somebody submitted, as the queue remembers it (`JobStatus`; clients see its `record`, the
protocol's `Job`). `job.py` has the other end of the word: that shot made ready to be rendered. Every change of a state
is one transaction with the event that tells of it: after a crash at any moment both are there, or neither is.

A JobQueue belongs to the thread that made it, as its JobDatabase does. The server needs one only; other threads and
processes may open their own on the same file.

A worker has a job by its `Claim` for as long as it reports within `lease` seconds. Once the job was taken from it, all
that it says with that claim raises Interrupted and changes nothing. `recover` takes jobs from workers that are gone:
such a job is queued again RESUMPTIONS times at most, and then fails with the end of its log as its last words. Leases
are measured by the monotonic clock, which no change of the time of day moves; after a restart of the machine their ends
mean nothing, and the server recovers with no worker alive.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from types import TracebackType
from typing import NamedTuple, Self

from fresco_backend.queue.job_database import JobDatabase
from fresco_backend.queue.job_rows import (
    IN_ORDER,
    LIVE_STATES,
    columns_of,
    count,
    keyed,
    next_queued,
    running,
    select,
    shot_of,
    status_of,
    submitted,
)
from fresco_backend.queue.job_state import ENDED, LIVE, WAITING, Claim, JobStatus, Progress, Wish, check_transition
from fresco_backend.queue.journal import Journal, Retention
from fresco_protocol.errors import Busy, FrescoError, Interrupted, JobRefused, ShotError, UsageError, WorkerDied
from fresco_protocol.events import JobChanged, JobEvent
from fresco_protocol.job import HIGHEST_PRIORITY, JobState, Problem
from fresco_protocol.shot import Shot

RESUMPTIONS = 2  # after as many deaths of workers a job may still be queued again
KEY_LENGTH = 128  # characters of a client key
TEXT_LENGTH = 12_000  # characters of a problem


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much the queue takes. live: jobs that have not ended. shot_bytes: of a shot's document. history: ended jobs
    that are remembered; the one that ended first is forgotten first. lease: seconds between a worker's reports."""

    live: int = 2_000
    shot_bytes: int = 1 << 18
    history: int = 10_000
    lease: float = 60.0

    def __post_init__(self) -> None:
        if min(self.live, self.shot_bytes, self.history, self.lease) <= 0:
            raise FrescoError(f"a queue cannot work within {self}")


class Submission(NamedTuple):
    """What became of a submit. created: False when the client key had a job already, which is this one."""

    status: JobStatus
    created: bool


class JobPage(NamedTuple):
    """Some of the jobs that were asked for. total: how many there are without skip and limit."""

    jobs: tuple[JobStatus, ...]
    total: int


class JobQueue:
    """The queue in the file `path`, with the `journal` of its events and logs. Raises what JobDatabase raises.

    Methods that name a job raise JobUnknown, and JobRefused where its state does not allow what is asked.
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

    # What people want. Each of these may come twice; the second one changes nothing.

    def submit(self, shot: Shot, *, key: str, priority: int = 0, plate_pending: bool = False) -> Submission:
        """A new job, or the one that this client key has already, whatever became of it.

        plate_pending: it waits for `release`. Raises UsageError when the key belongs to another shot, ShotError when
        the document is too long, Busy when the queue is full.
        """
        document = shot.to_json()
        _check_submit(document, key, priority, self._limits.shot_bytes)
        with self._database.changing() as connection:
            if (known := submitted(connection, key, document)) is not None:
                return Submission(known, created=False)
            state = JobState.SUBMITTED if plate_pending else JobState.QUEUED
            job, output = secrets.token_hex(6), _storable(shot.delivery.sequence)
            connection.execute(
                "INSERT INTO job (id, key, name, output, shot, state, priority, position, submitted_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (job, key, _storable(shot.name or PurePath(output).name), output, document, state.value, priority,
                 self._last_place(connection), time.time()))
            return Submission(self._told(connection, job, lasting=True), created=True)

    def release(self, job: str) -> JobStatus:
        """Queue a submitted job: its plate is there."""
        with self._database.changing() as connection:
            status = _allowed(connection, job, {JobState.SUBMITTED, JobState.QUEUED}, "released")
            return status if status.state is JobState.QUEUED else self._enter(connection, status, JobState.QUEUED)

    def cancel(self, job: str) -> JobStatus:
        """Cancel a waiting job at once, and ask the worker of a running one."""
        with self._database.changing() as connection:
            status = _allowed(connection, job, LIVE | {JobState.CANCELLED}, "cancelled")
            if status.state is JobState.RUNNING:
                return self._wish(connection, status, Wish.CANCEL)
            return status if status.state in ENDED else self._enter(connection, status, JobState.CANCELLED)

    def pause(self, job: str) -> JobStatus:
        """Pause a queued job at once, and ask the worker of a running one, unless it is asked to cancel it."""
        with self._database.changing() as connection:
            status = _allowed(connection, job, {JobState.QUEUED, JobState.RUNNING, JobState.PAUSED}, "paused")
            if status.state is JobState.RUNNING:
                return status if status.wish else self._wish(connection, status, Wish.PAUSE)
            return status if status.state is JobState.PAUSED else self._enter(connection, status, JobState.PAUSED)

    def resume(self, job: str) -> JobStatus:
        """Queue a paused job at its old place, or take the wish to pause it back."""
        with self._database.changing() as connection:
            status = _allowed(connection, job, {JobState.QUEUED, JobState.RUNNING, JobState.PAUSED}, "resumed")
            if status.wish is Wish.CANCEL:
                raise _about_to_be_cancelled(job)
            if status.state is JobState.RUNNING:
                return self._wish(connection, status, None)
            return status if status.state is JobState.QUEUED else self._enter(connection, status, JobState.QUEUED)

    def retry(self, job: str) -> JobStatus:
        """Queue a failed or cancelled job again, last of its priority; what it has finished is not rendered again."""
        again = {JobState.FAILED, JobState.CANCELLED}
        with self._database.changing() as connection:
            status = _allowed(connection, job, again | {JobState.QUEUED, JobState.RUNNING}, "tried again")
            if status.wish is Wish.CANCEL:
                raise _about_to_be_cancelled(job)
            if status.state not in again:
                return status
            return self._enter(connection, status, JobState.QUEUED, interruptions=0, problem=None, ended_at=None,
                               position=self._last_place(connection))

    def prioritise(self, job: str, priority: int) -> JobStatus:
        """Give a job that has not ended another priority; jobs of one priority keep the order of their positions."""
        _check_priority(priority)
        with self._database.changing() as connection:
            status = _allowed(connection, job, LIVE, "given a priority")
            return self._rank(connection, status, priority, status.position)

    def move(self, job: str, *, before: str) -> JobStatus:
        """Put a waiting job directly before another one, whose priority it takes."""
        with self._database.changing() as connection:
            status = _allowed(connection, job, WAITING, "moved")
            other = _allowed(connection, before, WAITING, "overtaken")
            if job == before:
                return status
            connection.execute(f"UPDATE job SET position = position + 1 WHERE state IN ({LIVE_STATES}) "
                               "AND position >= ?", (other.position,))
            return self._rank(connection, status, other.priority, other.position)

    # What workers say.

    def claim(self, worker: str, device: str) -> Claim | None:
        """The next queued job, now the worker's own; None when nothing is queued.

        worker: a name that no other process ever used. A job that this version of Fresco cannot read fails, and the
        next one is taken. Raises FrescoError, a bug, when the worker has a job already.
        """
        with self._database.changing() as connection:
            if any(status.worker == worker for status in running(connection)):
                raise FrescoError(f"worker {worker} has a job already, and claims another")
            while (queued := next_queued(connection)) is not None:
                status = self._enter(connection, queued, JobState.RUNNING, worker=worker, device=device,
                                     claims=queued.claims + 1, claimed_at=time.time(), lease_ends=self._lease())
                try:
                    shot = shot_of(connection, status.id)
                except ShotError as error:
                    self._enter(connection, status, JobState.FAILED, problem=Problem.of(error))
                else:
                    return Claim(job=status.id, number=status.claims, worker=worker, shot=shot)
            return None

    def report(self, claim: Claim, events: Iterable[JobEvent] = ()) -> Wish | None:
        """Keep events of a running job and renew its lease; gives what a person wants of it.

        Without events it is a heartbeat. Numbers and times of the events are given by the journal. Raises Interrupted
        when the job was taken from the worker, and FrescoError, a bug, for an event of another job.
        """
        events = tuple(events)
        with self._database.changing() as connection:
            status = _held(connection, claim)
            progress = status.progress
            for event in events:
                if event.job != claim.job or not event.durable:
                    raise FrescoError("an event that the journal does not keep for this job", where=f"job {claim.job}")
                progress = progress.after(event)
            self._write(connection, claim.job, lease_ends=self._lease(), progress=progress)
            self.journal.write(connection, events, lasting=False)
            return status.wish

    def deliver(self, claim: Claim) -> JobStatus:
        """All frames are delivered, even if a person wants to stop it now. Raises Interrupted as `report` does."""
        with self._database.changing() as connection:
            return self._enter(connection, _held(connection, claim), JobState.DELIVERED)

    def fail(self, claim: Claim, problem: Problem) -> JobStatus:
        """The render ended with an error. Raises Interrupted as `report` does."""
        problem = replace(problem, what=problem.what[:TEXT_LENGTH], where=_cut(problem.where),
                          remedy=_cut(problem.remedy))
        with self._database.changing() as connection:
            return self._enter(connection, _held(connection, claim), JobState.FAILED, problem=problem)

    def give_back(self, claim: Claim) -> JobStatus:
        """The worker stopped in good order before the end: the job is cancelled or paused if that was wished, and
        queued at its old place if not. Raises Interrupted as `report` does."""
        with self._database.changing() as connection:
            status = _held(connection, claim)
            return self._enter(connection, status, _after_stop(status.wish))

    def recover(self, alive: Collection[str] = (), *, blamed: bool = True) -> tuple[JobStatus, ...]:
        """Take their jobs from workers that are not alive or let their lease end; gives those jobs as they then are.

        alive: the workers that run. At the start of the server none does. blamed: the death counts against the job;
        not where the server itself was ended, and its workers with it.
        """
        with self._database.changing() as connection:
            now = self._clock()
            lost = [status for status in running(connection)
                    if status.worker not in alive or status.lease_ends is None or status.lease_ends < now]
            return tuple(self._interrupted(connection, status, int(blamed)) for status in lost)

    # What everybody may know.

    def status(self, job: str) -> JobStatus:
        """What is known of a job."""
        with self._database.reading() as connection:
            return status_of(connection, job)

    def having_key(self, key: str) -> JobStatus | None:
        """The job of a client key; None when there is none."""
        with self._database.reading() as connection:
            return keyed(connection, key)

    def shot(self, job: str) -> Shot:
        """A job's shot, to look at or to submit again under a new key."""
        with self._database.reading() as connection:
            return shot_of(connection, job)

    def jobs(self, states: Collection[JobState] | None = None, *, skip: int = 0, limit: int = 1_000) -> JobPage:
        """Jobs in these states, None is all: live ones in the order in which they run, then ended ones, last first.

        limit: so many at most, -1 is all.
        """
        wanted = frozenset(JobState) if states is None else frozenset(states)
        with self._database.reading() as connection:
            live = count(connection, wanted & LIVE)
            found = select(connection, wanted & LIVE, IN_ORDER, limit, skip)
            found += select(connection, wanted & ENDED, "ORDER BY ended_at DESC, number DESC", limit - len(found),
                            max(0, skip - live))
            return JobPage(found, live + count(connection, wanted & ENDED))

    def outputs(self) -> tuple[str, ...]:
        """The patterns of what live jobs are to deliver."""
        with self._database.reading() as connection:
            return tuple(row["output"] for row in connection.execute(
                f"SELECT output FROM job WHERE state IN ({LIVE_STATES})"))

    # Steps of a change.

    def _enter(
        self, connection: sqlite3.Connection, status: JobStatus, state: JobState, **fields: object
    ) -> JobStatus:
        """Bring a job into another state, with its event; `fields` of its JobStatus change with it."""
        check_transition(status.id, status.state, state)
        still = Progress(done=status.progress.done, total=status.progress.total)
        ended = {"ended_at": time.time()} if state in ENDED else {}
        self._write(connection, status.id,
                    **{"wish": None, "lease_ends": None, "progress": still, **ended, **fields, "state": state})
        after = self._told(connection, status.id, lasting=True)
        if state in ENDED:
            self._forget(connection, at_most=2)
        return after

    def _write(self, connection: sqlite3.Connection, job: str, **fields: object) -> None:
        columns = columns_of(fields)
        assignments = ", ".join(f"{column} = ?" for column in columns)
        connection.execute(f"UPDATE job SET {assignments} WHERE id = ?", (*columns.values(), job))

    def _told(self, connection: sqlite3.Connection, job: str, *, lasting: bool) -> JobStatus:
        """The job as it stands now, with the event that tells of it."""
        status = status_of(connection, job)
        event = JobChanged(number=0, time=0, job=job, record=status.record)
        self.journal.write(connection, [event], lasting=lasting)
        return status

    def _wish(self, connection: sqlite3.Connection, status: JobStatus, wish: Wish | None) -> JobStatus:
        self._write(connection, status.id, wish=wish)
        return replace(status, wish=wish)

    def _rank(self, connection: sqlite3.Connection, status: JobStatus, priority: int, position: int) -> JobStatus:
        if (priority, position) == (status.priority, status.position):
            return status
        self._write(connection, status.id, priority=priority, position=position)
        return self._told(connection, status.id, lasting=False)

    def _interrupted(self, connection: sqlite3.Connection, status: JobStatus, deaths: int) -> JobStatus:
        times, state = status.interruptions + deaths, _after_stop(status.wish)
        if state is not JobState.QUEUED or times <= RESUMPTIONS:
            return self._enter(connection, status, state, interruptions=times)
        log = self.journal.last_words(status.id) or "(nothing)"
        words = f"its worker died or fell silent {times} times; the end of its log:\n{log}"
        died = WorkerDied(words[:TEXT_LENGTH], where=f"job {status.id}",
                          remedy="Retry it when the cause is gone; what it has finished is kept.")
        return self._enter(connection, status, JobState.FAILED, interruptions=times, problem=Problem.of(died))

    def _forget(self, connection: sqlite3.Connection, *, at_most: int) -> None:
        """Bring what is remembered of ended jobs back to its bounds; of `at_most` jobs that cross them, -1: all."""
        connection.execute("""DELETE FROM job WHERE number IN (SELECT number FROM job WHERE ended_at IS NOT NULL
                              ORDER BY ended_at DESC, number DESC LIMIT ? OFFSET ?)""", (at_most, self._limits.history))
        self.journal.thin(connection, at_most=at_most)

    def _last_place(self, connection: sqlite3.Connection) -> int:
        """A position behind all jobs that have not ended. Raises Busy when there are too many of them."""
        live, last = connection.execute(
            f"SELECT count(*), coalesce(max(position), 0) FROM job WHERE state IN ({LIVE_STATES})").fetchone()
        if live >= self._limits.live:
            raise Busy(f"the queue is full: {live} jobs have not ended", where=self._database.path,
                       remedy="Submit it again when one has ended, or cancel one.")
        return int(last) + 1

    def _lease(self) -> float:
        return self._clock() + self._limits.lease


def _check_submit(document: str, key: str, priority: int, shot_bytes: int) -> None:
    _check_priority(priority)
    if not (0 < len(key) <= KEY_LENGTH and key.isprintable()):
        raise UsageError(f"the client key {key[:KEY_LENGTH]!a} cannot be used",
                         remedy=f"Take 1 to {KEY_LENGTH} printable characters.")
    size = len(document.encode())
    if size > shot_bytes:
        raise ShotError("", f"{size} bytes", f"at most {shot_bytes} bytes; write long lists of frames as ranges")


def _check_priority(priority: int) -> None:
    if abs(priority) > HIGHEST_PRIORITY:
        raise UsageError(f"there is no priority {priority}",
                         remedy=f"Take {-HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}; the higher goes first.")


def _storable(text: str) -> str:
    """A text that a database holds: names of files may have surrogates."""
    return text.encode(errors="backslashreplace").decode()


def _cut(text: str | None) -> str | None:
    return text and text[:TEXT_LENGTH]


def _after_stop(wish: Wish | None) -> JobState:
    """The state of a job whose worker stopped before the end."""
    return {Wish.CANCEL: JobState.CANCELLED, Wish.PAUSE: JobState.PAUSED, None: JobState.QUEUED}[wish]


def _allowed(connection: sqlite3.Connection, job: str, states: Collection[JobState], verb: str) -> JobStatus:
    """The job, in one of the states in which a person may do this to it; else JobRefused."""
    status = status_of(connection, job)
    if status.state not in states:
        allowed = ", ".join(state.value for state in JobState if state in states)
        raise JobRefused(f"a {status.state.value} job cannot be {verb}", where=f"job {job}",
                         remedy=f"That is for jobs that are: {allowed}.")
    return status


def _about_to_be_cancelled(job: str) -> JobRefused:
    return JobRefused("the job is about to be cancelled", where=f"job {job}", remedy="Try it again when it is.")


def _held(connection: sqlite3.Connection, claim: Claim) -> JobStatus:
    status = status_of(connection, claim.job)
    if (status.state, status.worker, status.claims) != (JobState.RUNNING, claim.worker, claim.number):
        raise Interrupted(f"the job was taken from worker {claim.worker}, and is {status.state.value} now",
                          where=f"job {claim.job}", remedy="Leave it: what was finished is kept.")
    return status
