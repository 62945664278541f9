# SPDX-License-Identifier: Apache-2.0
"""Jobs of the queue as rows of its database: one place that knows which column holds what, and asks for jobs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from enum import Enum
from functools import lru_cache
from typing import Any

from fresco_backend.queue.job_state import LIVE, JobStatus, Progress, Wish
from fresco_backend.queue.journal import unknown
from fresco_protocol.document import read, write
from fresco_protocol.errors import UsageError
from fresco_protocol.job import JobState, Problem, Stage
from fresco_protocol.shot import Shot

IN_ORDER = "ORDER BY priority DESC, position"

_PROGRESS = tuple(field.name for field in fields(Progress))
_PLAIN = tuple(field.name for field in fields(JobStatus) if field.name != "progress")
_COLUMNS = ", ".join(_PLAIN + _PROGRESS)
_STATES = {state.value: state for state in JobState}
_WISHES: Mapping[str | None, Wish | None] = {None: None, **{wish.value: wish for wish in Wish}}
_STAGES: Mapping[str | None, Stage | None] = {None: None, **{stage.value: stage for stage in Stage}}


def _listed(states: Collection[JobState]) -> str:
    return ", ".join(f"'{state.value}'" for state in JobState if state in states)


LIVE_STATES = _listed(LIVE)  # as constants of SQL


def columns_of(changed: Mapping[str, object]) -> dict[str, object]:
    """Columns and values of fields of a JobStatus."""
    columns: dict[str, object] = {}
    for name, value in changed.items():
        if isinstance(value, Progress):
            columns |= columns_of(asdict(value))
        elif isinstance(value, Problem):
            columns[name] = json.dumps(write(value))
        else:
            columns[name] = value.value if isinstance(value, Enum) else value
    return columns


def select(
    connection: sqlite3.Connection, states: Collection[JobState], order: str, limit: int = -1, skip: int = 0
) -> tuple[JobStatus, ...]:
    """Jobs in some states, in an order; limit: -1 is all."""
    return _found(connection, f"WHERE state IN ({_listed(states)}) {order} LIMIT ? OFFSET ?", limit, skip)


def count(connection: sqlite3.Connection, states: Collection[JobState]) -> int:
    """How many jobs are in these states."""
    row = connection.execute(f"SELECT count(*) FROM job WHERE state IN ({_listed(states)})").fetchone()
    return int(row[0])


def running(connection: sqlite3.Connection) -> tuple[JobStatus, ...]:
    """The jobs that workers have."""
    return select(connection, {JobState.RUNNING}, IN_ORDER)


def next_queued(connection: sqlite3.Connection) -> JobStatus | None:
    """The job whose turn it is; None when nothing is queued."""
    return next(iter(select(connection, {JobState.QUEUED}, IN_ORDER, 1)), None)


def status_of(connection: sqlite3.Connection, job: str) -> JobStatus:
    """The job of this id. Raises JobUnknown."""
    found = _found(connection, "WHERE id = ?", job)
    if not found:
        raise unknown(job)
    return found[0]


def keyed(connection: sqlite3.Connection, key: str) -> JobStatus | None:
    """The job of a client key; None when there is none."""
    return next(iter(_found(connection, "WHERE key = ?", key)), None)


def shot_of(connection: sqlite3.Connection, job: str) -> Shot:
    """The shot of a job. Raises JobUnknown, and ShotError when this version cannot read it."""
    row = connection.execute("SELECT shot FROM job WHERE id = ?", (job,)).fetchone()
    if row is None:
        raise unknown(job)
    return Shot.from_json(row["shot"])


def submitted(connection: sqlite3.Connection, key: str, document: str) -> JobStatus | None:
    """The job that a client key has already; UsageError if it is another shot's."""
    row = connection.execute("SELECT id, shot FROM job WHERE key = ?", (key,)).fetchone()
    if row is None:
        return None
    if row["shot"] != document:
        raise UsageError(f'the client key "{key}" belongs to another shot', where=f"job {row['id']}",
                         remedy="Take a fresh key for each new shot.")
    return status_of(connection, row["id"])


def _found(connection: sqlite3.Connection, which: str, *values: object) -> tuple[JobStatus, ...]:
    rows = connection.execute(f"SELECT {_COLUMNS} FROM job {which}", values)
    return tuple(_job(tuple(row)) for row in rows)


@lru_cache(maxsize=4096)  # a list of jobs is asked for again and again, and few of them have changed
def _job(values: tuple[Any, ...]) -> JobStatus:
    row: dict[str, Any] = dict(zip(_PLAIN + _PROGRESS, values, strict=True))
    row |= {"state": _STATES[row["state"]], "wish": _WISHES[row["wish"]], "stage": _STAGES[row["stage"]]}
    if row["problem"] is not None:
        row["problem"] = read(json.loads(row["problem"]), Problem)
    progress = Progress(**{name: row.pop(name) for name in _PROGRESS})
    return JobStatus(progress=progress, **row)
