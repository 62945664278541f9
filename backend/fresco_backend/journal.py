# SPDX-License-Identifier: Apache-2.0
"""What happened to the jobs of the queue, for who was away: numbered events, and a log for each job.

Events of all jobs have one sequence of numbers, 1, 2, 3, … without gaps. A watcher keeps the number of the last event
that it has seen and asks for those after it. What is kept:

    lasting events   a job's changes of state: as long as the queue remembers the job
    passing events   all others: the last `passing_events` of each job
    log              the last `log_bytes` of each job; offsets count from its beginning for ever
    ended jobs       passing events and logs go with all but the `detailed` jobs that ended last

So the file is bounded: (jobs that have not ended + `detailed`) x the bounds of one job, and the shot and a few hundred
bytes for each job that the queue remembers. A number that a replay lacks was that of a passing event, or of a job that
the queue has forgotten.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fresco_backend.events import Event
from fresco_backend.job_database import JobDatabase
from fresco_protocol.errors import FrescoError, UsageError

EVENT_BYTES = 1 << 20  # of one event's JSON
PIECE = 1 << 14  # bytes of log in one row; what is dropped at its beginning, at a time


@dataclass(frozen=True, kw_only=True)
class Retention:
    """What the journal keeps; see the top of the file. log_bytes: at least PIECE."""

    passing_events: int = 2_000
    log_bytes: int = 1 << 20
    detailed: int = 200

    def __post_init__(self) -> None:
        if self.passing_events < 1 or self.log_bytes < PIECE or self.detailed < 0:
            raise FrescoError(f"the journal cannot keep as little as {self}")


@dataclass(frozen=True, kw_only=True)
class JournalEntry:
    """An event of a job with its number. at: seconds since 1970, UTC. event: as `Event.to_json` gave it."""

    number: int
    job: int
    at: float
    event: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class LogPage:
    """Bytes of a log from offset `start` on (UTF-8, which a page may cut anywhere).

    start: above the offset that was asked for where the log has lost its beginning.
    """

    start: int
    data: bytes

    @property
    def end(self) -> int:
        """The offset to go on from."""
        return self.start + len(self.data)


class Journal:
    """The events and logs in a queue's file. Methods that take a connection are part of a change in progress."""

    def __init__(self, database: JobDatabase, retention: Retention | None = None) -> None:
        self._database = database
        self._retention = retention or Retention()

    def events(self, since: int = 0, *, job: int | None = None, limit: int = 1_000) -> tuple[JournalEntry, ...]:
        """The events after number `since`, of one job or of all, in order; at most `limit`. None left: nothing new."""
        chosen, values = ("", [since, limit]) if job is None else ("AND job = ?", [since, job, limit])
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT number, job, at, body FROM event WHERE number > ? {chosen} ORDER BY number LIMIT ?", values)
            return tuple(JournalEntry(number=row["number"], job=row["job"], at=row["at"], event=json.loads(row["body"]))
                         for row in rows)

    def last_number(self) -> int:
        """The number of the newest event; 0 before the first. Ask for it before a list of jobs, to watch from there."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
            return int(row["seq"]) if row else 0

    def append_log(self, job: int, text: str) -> int:
        """Append to a job's log and give the offset of its end. One write to the disk each: pass many lines at once.

        Raises UsageError when there is no such job, and what JobDatabase raises.
        """
        data = text.encode(errors="backslashreplace")
        with self._database.changing() as connection:
            end = self._log_end(connection, job)
            kept = range(max(0, len(data) - self._retention.log_bytes), len(data), PIECE)
            connection.executemany("INSERT INTO log VALUES (?, ?, ?)",
                                   ((job, end + first, data[first:first + PIECE]) for first in kept))
            end += len(data)
            connection.execute("UPDATE job SET log_end = ? WHERE id = ?", (end, job))
            connection.execute("DELETE FROM log WHERE job = ? AND start < ?", (job, end - self._retention.log_bytes))
            return end

    def read_log(self, job: int, offset: int = 0, *, limit: int = 1 << 16) -> LogPage:
        """Up to `limit` bytes of a job's log from `offset` on. Raises UsageError when there is no such job."""
        with self._database.reading() as connection:
            end = self._log_end(connection, job)
            first = connection.execute("SELECT min(start) FROM log WHERE job = ?", (job,)).fetchone()[0]
            start = max(offset, end if first is None else first)
            rows = connection.execute(
                "SELECT start, data FROM log WHERE job = ? AND start > ? AND start < ? ORDER BY start",
                (job, start - PIECE, start + limit)).fetchall()
        before = start - rows[0]["start"] if rows else 0
        return LogPage(start=start, data=b"".join(row["data"] for row in rows)[before:before + limit])

    def last_words(self, job: int, *, limit: int = 2_000) -> str:
        """The end of a job's log, at most `limit` bytes; empty when it has none."""
        with self._database.reading() as connection:
            end = self._log_end(connection, job)
        return self.read_log(job, max(0, end - limit), limit=limit).data.decode(errors="replace").strip()

    def write(self, connection: sqlite3.Connection, job: int, events: Iterable[Event], *, lasting: bool) -> None:
        """Number events of a job and keep them. Raises FrescoError when one is longer than EVENT_BYTES."""
        bodies = [json.dumps(event.to_json(), separators=(",", ":")) for event in events]
        if (longest := max(map(len, bodies), default=0)) > EVENT_BYTES:
            raise FrescoError(f"an event of {longest} bytes; the journal keeps {EVENT_BYTES}", where=f"job {job}")
        now = time.time()
        connection.executemany("INSERT INTO event (job, at, lasting, body) VALUES (?, ?, ?, ?)",
                               ((job, now, int(lasting), body) for body in bodies))
        if not lasting:
            connection.execute(
                """DELETE FROM event WHERE job = ?1 AND lasting = 0 AND number <= (SELECT number FROM event
                   WHERE job = ?1 AND lasting = 0 ORDER BY number DESC LIMIT 1 OFFSET ?2)""",
                (job, self._retention.passing_events))

    def thin(self, connection: sqlite3.Connection, *, at_most: int) -> None:
        """Drop passing events and logs of jobs that ended before the last `detailed`; of `at_most` jobs, -1: all."""
        jobs = connection.execute(
            "SELECT id FROM job WHERE ended_at IS NOT NULL ORDER BY ended_at DESC, id DESC LIMIT ? OFFSET ?",
            (at_most, self._retention.detailed)).fetchall()
        for (job,) in jobs:
            connection.execute("DELETE FROM event WHERE job = ? AND lasting = 0", (job,))
            connection.execute("DELETE FROM log WHERE job = ?", (job,))

    def _log_end(self, connection: sqlite3.Connection, job: int) -> int:
        row = connection.execute("SELECT log_end FROM job WHERE id = ?", (job,)).fetchone()
        if row is None:
            raise unknown(job)
        return int(row["log_end"])


def unknown(job: int) -> UsageError:
    """What is said of a job that the queue does not have."""
    return UsageError(f"there is no job {job}", remedy="`fresco jobs` lists those that there are.")
