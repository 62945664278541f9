# SPDX-License-Identifier: Apache-2.0
"""The place where clients find the server: its connection file, and the locks that keep a second server away.

A lock is held by an open file, which the workers inherit: it is free when the server AND its workers are gone. So the
server that follows one that was killed never renders beside workers of the first.
"""
from __future__ import annotations

import os
import secrets
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from fresco_protocol.connection import Connection, read_connection
from fresco_protocol.errors import Busy, OutputDenied, ServerError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

PATIENCE = 5.0  # seconds that workers of a killed server may take to notice
TOKEN_BYTES = 32


COPIED = "Its connection file is a copy from another machine: open the tunnel to it again, or copy the file again " \
         "where that server was started anew."


def fresh_token() -> str:
    """A token that no earlier start had."""
    return secrets.token_hex(TOKEN_BYTES)


def is_copied(connection: Path) -> bool:
    """Whether a connection file came from another machine: no server ever had the right to it here."""
    return connection.exists() and not _lock_of(connection).exists()


def _lock_of(guarded: Path) -> Path:
    return guarded.with_name(f"{guarded.name}.lock")


class ExclusiveLock:
    """The right to be the only server of the file `guarded`; a context manager. The lock lies beside it.

    Raises Busy when another process has the right for longer than PATIENCE seconds, OutputDenied when the folder
    cannot be written. `descriptor` is what children inherit.
    """

    def __init__(self, guarded: Path) -> None:
        self.path = _lock_of(guarded)
        try:
            guarded.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise OutputDenied(f"the server cannot lock it: {error.strerror}", where=self.path,
                               remedy="Give its owner the right to write this folder, or name another file.") from error
        deadline = time.monotonic() + PATIENCE
        while not self._taken():
            if time.monotonic() > deadline:
                self.close()
                raise Busy("a server, or a worker of one, is at work here already", where=guarded,
                           remedy='"fresco status" tells of it, "fresco stop" ends it.')
            time.sleep(0.1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the right back. The file stays: to delete it would let two servers hold two files of one name."""
        os.close(self.descriptor)

    def _taken(self) -> bool:
        with suppress(OSError):  # that is how the system says that somebody has it
            if sys.platform == "win32":
                msvcrt.locking(self.descriptor, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False


def publish(connection: Connection, path: Path) -> None:
    """Write the connection file, whole and for its owner only. Raises OutputDenied."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(connection.to_json() + "\n")
            file.flush()
            os.fsync(file.fileno())
        _lock_of(path).touch(mode=0o600)  # by which it is known as this machine's, where the folder was made anew
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputDenied(f"the connection file cannot be written: {error.strerror}", where=path,
                           remedy="Set FRESCO_CONNECTION to a file in a folder of your own.") from error


def withdraw(connection: Connection, path: Path) -> None:
    """Delete the connection file if it is still this server's."""
    with suppress(ServerError, OSError):  # it is gone, or another's, or nothing can be done about it at the end
        if read_connection(str(path)) == connection:
            path.unlink()
