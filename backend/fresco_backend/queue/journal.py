# SPDX-License-Identifier: Apache-2.0
"""What happened to the jobs of the queue, for who was away: numbered events, and a log for each job.

Events of all jobs have one sequence of numbers, 1, 2, 3, … without gaps. A watcher keeps the number of the last event
that it has seen and asks for those after it. What is kept:

    changes of a job's state   as long as the queue remembers the job
    all other events           the last `passing_events` of each job
    log                        the last `log_lines` of each job; lines keep their numbers for ever, the first is 0
    ended jobs                 other events and logs go with all but the `detailed` jobs that ended last

So the file is bounded: (jobs that have not ended + `detailed`) x the bounds of one job, and the shot and a few
kilobytes for each job that the queue remembers. A number that a replay lacks was that of an event that went so.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from fresco_backend.queue.job_database import JobDatabase
from fresco_protocol.document import read, write
from fresco_protocol.errors import FrescoError, JobUnknown, ShotError
from fresco_protocol.events import JobEvent
from fresco_protocol.wire import NAMES, TYPES

EVENT_BYTES = 1 << 20  # of one event's JSON
LINE_LENGTH = 1_000  # characters; a longer line is kept as several
_OWN = ("number", "time", "job")  # fields of an event that the journal gives it


@dataclass(frozen=True, kw_only=True)
class Retention:
    """What the journal keeps; see the top of the file."""

    passing_events: int = 2_000
    log_lines: int = 5_000
    detailed: int = 200

    def __post_init__(self) -> None:
        if min(self.passing_events, self.log_lines) < 1 or self.detailed < 0:
            raise FrescoError(f"the journal cannot keep as little as {self}")


@dataclass(frozen=True, kw_only=True)
class LogPage:
    """Lines of a log. next: the number from which to go on; more than `lines` ahead where older lines have gone."""

    lines: tuple[str, ...]
    next: int


class Journal:
    """The events and logs in a queue's file. Methods that take a connection are part of a change in progress."""

    def __init__(self, database: JobDatabase, retention: Retention | None = None) -> None:
        self._database = database
        self._retention = retention or Retention()

    def name(self) -> str:
        """The name of this numbering: another queue file has another one."""
        with self._database.reading() as connection:
            return str(connection.execute("SELECT name FROM journal").fetchone()["name"])

    def events(self, since: int = 0, *, job: str | None = None, limit: int = 1_000) -> tuple[JobEvent, ...]:
        """The events after number `since`, of one job or of all, in order; at most `limit`. None left: nothing new.

        An event that this version of Fresco cannot read is left out.
        """
        values: tuple[object, ...]
        chosen, values = ("", (since, limit)) if job is None else ("AND job = ?", (since, job, limit))
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(f"SELECT number, time, job, type, body FROM event WHERE number > ? {chosen} "
                                          "ORDER BY number LIMIT ?", values).fetchall()
            found = tuple(event for row in rows if (event := _event(row)) is not None)
            if found or not rows:
                return found
            values = (rows[-1]["number"], *values[1:])

    def last_number(self) -> int:
        """The number of the newest event; 0 before the first. Ask for it before a list of jobs, to watch from there."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
            return int(row["seq"]) if row else 0

    def append_log(self, job: str, text: str) -> None:
        """Append lines to a job's log. One write to the disk each time: pass many lines at once. Raises JobUnknown."""
        lines = _pieces(text.encode(errors="backslashreplace").decode())
        with self._database.changing() as connection:
            begin = _log_lines(connection, job)
            end = begin + len(lines)
            connection.executemany("INSERT INTO log VALUES (?, ?, ?)",
                                   ((job, number, line) for number, line in enumerate(lines, begin)))
            connection.execute("UPDATE job SET log_lines = ? WHERE id = ?", (end, job))
            connection.execute("DELETE FROM log WHERE job = ? AND number < ?", (job, end - self._retention.log_lines))

    def read_log(self, job: str, since: int = 0, *, limit: int = 1_000) -> LogPage:
        """Up to `limit` lines of a job's log, from number `since` on or the oldest that is kept. Raises JobUnknown."""
        with self._database.reading() as connection:
            end = _log_lines(connection, job)
            rows = connection.execute(
                "SELECT number, line FROM log WHERE job = ? AND number >= ? ORDER BY number LIMIT ?",
                (job, since, limit)).fetchall()
        following = rows[-1]["number"] + 1 if rows else max(since, end)
        return LogPage(lines=tuple(row["line"] for row in rows), next=following)

    def last_words(self, job: str, *, lines: int = 10) -> str:
        """The end of a job's log; empty when it has none. Raises JobUnknown."""
        with self._database.reading() as connection:
            end = _log_lines(connection, job)
        return "\n".join(self.read_log(job, max(0, end - lines)).lines).strip()

    def write(self, connection: sqlite3.Connection, events: Iterable[JobEvent], *, lasting: bool) -> None:
        """Keep events of one job under fresh numbers; their own number and time are not looked at.

        Raises FrescoError when one is longer than EVENT_BYTES.
        """
        rows = [(event.job, time.time(), int(lasting), NAMES[type(event)], _body(event)) for event in events]
        connection.executemany("INSERT INTO event (job, time, lasting, type, body) VALUES (?, ?, ?, ?, ?)", rows)
        if rows and not lasting:
            connection.execute(
                """DELETE FROM event WHERE job = ?1 AND lasting = 0 AND number <= (SELECT number FROM event
                   WHERE job = ?1 AND lasting = 0 ORDER BY number DESC LIMIT 1 OFFSET ?2)""",
                (rows[0][0], self._retention.passing_events))

    def thin(self, connection: sqlite3.Connection, *, at_most: int) -> None:
        """Drop what goes with jobs that ended before the `detailed` last ones; of `at_most` such jobs, -1 is all."""
        jobs = connection.execute(
            "SELECT id FROM job WHERE ended_at IS NOT NULL ORDER BY ended_at DESC, number DESC LIMIT ? OFFSET ?",
            (at_most, self._retention.detailed)).fetchall()
        for (job,) in jobs:
            connection.execute("DELETE FROM event WHERE job = ? AND lasting = 0", (job,))
            connection.execute("DELETE FROM log WHERE job = ?", (job,))


def _event(row: sqlite3.Row) -> JobEvent | None:
    """The event of a row; None for one of another version that means nothing here."""
    kind = TYPES.get(row["type"])
    if kind is None or not issubclass(kind, JobEvent):
        return None
    try:
        event: JobEvent = read({**json.loads(row["body"]), **{name: row[name] for name in _OWN}}, kind)
    except ShotError:
        return None
    return event


def _body(event: JobEvent) -> str:
    fields = cast("dict[str, object]", write(event))
    body = json.dumps({name: value for name, value in fields.items() if name not in _OWN}, separators=(",", ":"))
    if len(body) > EVENT_BYTES:
        raise FrescoError(f"an event of {len(body)} bytes; the journal keeps {EVENT_BYTES}", where=f"job {event.job}")
    return body


def _pieces(text: str) -> Sequence[str]:
    """The lines of a text, long ones cut; an empty line stays one."""
    return [line[first:first + LINE_LENGTH] for line in text.splitlines()
            for first in range(0, max(1, len(line)), LINE_LENGTH)]


def _log_lines(connection: sqlite3.Connection, job: str) -> int:
    row = connection.execute("SELECT log_lines FROM job WHERE id = ?", (job,)).fetchone()
    if row is None:
        raise unknown(job)
    return int(row["log_lines"])


def unknown(job: str) -> JobUnknown:
    """What is said of a job that the queue does not have."""
    return JobUnknown("the queue has no such job", where=f"job {job[:64]}",
                      remedy="`fresco jobs` lists those that there are.")
