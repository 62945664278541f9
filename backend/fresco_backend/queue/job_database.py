# SPDX-License-Identifier: Apache-2.0
"""The file of the job queue: an SQLite database, checked when it is opened, and changed whole or not at all.

A JobDatabase belongs to the thread that opened it (sqlite3 raises ProgrammingError in any other). Several may be open
on one file at a time, in threads or in processes: a change holds SQLite's write lock from its first statement to its
last, and a reader sees the file as it was between two changes. Nothing is kept in memory, so a process that is killed
loses nothing that it was told is done: the write-ahead log is on the disk before a change returns (synchronous FULL).

Source: SQLite's documentation, "Write-Ahead Logging", "Result and Error Codes" and "PRAGMA synchronous".
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fresco_protocol.errors import Busy, DiskFull, FrescoError, InputError, OutputDenied, OutputError, UsageError

PATIENCE = 5.0  # seconds to wait for the write lock; changes take milliseconds
MARK = 0x46524A51  # "FRJQ", the database's application_id: no other program's file is taken for a queue

# One entry for each version of the schema, as statements that lead there from the version before. A published entry is
# never edited: a change of the schema is a new entry.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE job (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            key TEXT NOT NULL UNIQUE,
            name TEXT NOT NULL,
            output TEXT NOT NULL,
            shot TEXT NOT NULL,
            state TEXT NOT NULL,
            priority INTEGER NOT NULL,
            position INTEGER NOT NULL,
            wish TEXT,
            worker TEXT,
            device TEXT,
            lease_ends REAL,
            claims INTEGER NOT NULL DEFAULT 0,
            interruptions INTEGER NOT NULL DEFAULT 0,
            done INTEGER NOT NULL DEFAULT 0,
            total INTEGER,
            stage TEXT,
            seconds_left REAL,
            problem TEXT,
            log_lines INTEGER NOT NULL DEFAULT 0,
            submitted_at REAL NOT NULL,
            claimed_at REAL,
            ended_at REAL
        ) STRICT""",
        "CREATE INDEX job_in_order ON job(state, priority DESC, position)",
        "CREATE INDEX job_by_end ON job(ended_at, number) WHERE ended_at IS NOT NULL",
        """CREATE TABLE event (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            job TEXT NOT NULL REFERENCES job(id) ON DELETE CASCADE,
            time REAL NOT NULL,
            lasting INTEGER NOT NULL,
            type TEXT NOT NULL,
            body TEXT NOT NULL
        ) STRICT""",
        "CREATE INDEX event_of_job ON event(job)",
        "CREATE INDEX passing_event_of_job ON event(job) WHERE lasting = 0",
        """CREATE TABLE log (
            job TEXT NOT NULL REFERENCES job(id) ON DELETE CASCADE,
            number INTEGER NOT NULL,
            line TEXT NOT NULL,
            PRIMARY KEY (job, number)
        ) STRICT, WITHOUT ROWID""",
        "CREATE TABLE journal (name TEXT NOT NULL) STRICT",
        "INSERT INTO journal VALUES (lower(hex(randomblob(8))))",
    ),
)


class JobDatabase:
    """An open queue file; made when it is not there, readable by its owner only.

    Raises OutputDenied when it cannot be written, DiskFull, InputError when it is damaged, UsageError when a newer
    Fresco or another program wrote it, Busy when another process holds it for longer than `patience` seconds. A file
    that is refused is left as it is.
    """

    def __init__(self, path: Path, *, patience: float = PATIENCE) -> None:
        self.path = path
        _make_private(path)
        with _in_words(path):
            self._connection = sqlite3.connect(path, timeout=patience, isolation_level=None)
        try:
            with _in_words(path):
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._connection.close()

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """The connection, for one change: all of it is on the disk afterwards, or after an error nothing of it."""
        with _in_words(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite itself has rolled back after some failures
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, to ask."""
        with _in_words(self.path):
            yield self._connection

    def _prepare(self) -> None:
        self._connection.row_factory = sqlite3.Row
        self._refuse_foreign()  # before anything is written
        if self._ask("PRAGMA journal_mode = WAL") != "wal":
            raise OutputError("this file system cannot keep a write-ahead log", where=self.path,
                              remedy="Put the queue on a disk of this machine, not on a network share.")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA fullfsync = ON")  # macOS: fsync leaves data in the cache of the drive
        self._connection.execute("PRAGMA foreign_keys = ON")
        if (damage := self._ask("PRAGMA quick_check(1)")) != "ok":
            raise _damaged(self.path, str(damage))
        self._migrate()

    def _refuse_foreign(self) -> None:
        mark, version = self._ask("PRAGMA application_id"), self._version
        if mark != MARK and (mark or version or self._ask("SELECT count(*) FROM sqlite_master")):
            raise UsageError("this file is the database of another program", where=self.path,
                             remedy="Name another file for the queue.")
        if version > len(MIGRATIONS):
            raise UsageError(f"the queue has schema {version}, written by a newer Fresco; this one reads schema "
                             f"{len(MIGRATIONS)}", where=self.path, remedy="Upgrade Fresco, or name another file.")

    @property
    def _version(self) -> int:
        return int(str(self._ask("PRAGMA user_version")))

    def _migrate(self) -> None:
        """Bring the schema up to date; the lock that it takes also proves that the file can be written."""
        with self.changing() as connection:
            for statements in MIGRATIONS[self._version:]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {MARK}")
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _ask(self, question: str) -> object:
        answer: object = self._connection.execute(question).fetchone()[0]
        return answer


def _make_private(path: Path) -> None:
    """Make the file, for its owner only: shots tell prompts and paths."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise _denied(path, error.strerror or str(error)) from error


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Turn what the disk does to SQLite into errors of the house; a mistake in a statement stays what it is."""
    try:
        yield
    except sqlite3.Error as error:
        known = _translated(path, error)
        if known is None:
            raise
        raise known from error


def _translated(path: Path, error: sqlite3.Error) -> FrescoError | None:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the primary code of an extended one
    if code == sqlite3.SQLITE_FULL:
        return DiskFull("the disk of the queue is full", where=path,
                        remedy="Make room and do the same again; nothing that was queued is lost.")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return _denied(path, str(error))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Busy("another process holds the queue", where=path, remedy="Try again; see that one server runs only.")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(path, str(error))
    if code == sqlite3.SQLITE_IOERR:
        return OutputError(f"the disk of the queue failed ({error.sqlite_errorname})", where=path,
                           remedy="Look for a quota, a limit of the file size or a failing disk, and do the same "
                                  "again; nothing that was queued is lost.")
    return None


def _denied(path: Path, reason: str) -> OutputDenied:
    return OutputDenied(f"the queue cannot be written: {reason}", where=path,
                        remedy="Give its owner the right to write the file and its folder, or name another file.")


def _damaged(path: Path, reason: str) -> InputError:
    aside = f"{path.name}, {path.name}-wal and {path.name}-shm"
    return InputError(f"the queue is damaged: {reason}", where=path,
                      remedy=f"Nothing was changed. Move {aside} away together and start again with an empty queue; "
                             f"what they still hold comes out with: sqlite3 {path.name} .recover")
