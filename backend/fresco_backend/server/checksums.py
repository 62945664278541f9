# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of files, reckoned by a thread beside the server's loop; what it was of a file is remembered while the file
stays the same."""
from __future__ import annotations

import errno
import hashlib
import os
import queue
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

MOST_REMEMBERED = 100_000
_BLOCK = 2**20  # bytes


class _State(NamedTuple):
    """Which content a file has, as the system tells it."""

    size: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> _State:
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns)


class Checksums:
    """Checksums of files. Closed by `close`; what is not reckoned by then is not. say: writes a line into the log."""

    def __init__(self, say: Callable[[str], None] = lambda _line: None) -> None:
        self._say = say
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._known: dict[Path, tuple[_State, str]] = {}
        self._failed: dict[Path, OSError] = {}
        self._asked: set[Path] = set()
        self._done: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def ask(self, path: Path, *, sync: bool = False) -> None:
        """Have the checksum of a file reckoned. sync: see that all of it is on the disk by then."""
        if path not in self._asked:
            self._asked.add(path)
            self.work(lambda: self._reckon(path, sync=sync))

    def done(self) -> Iterator[Path]:
        """The files that were read, or could not be read, since the last call."""
        with suppress(queue.Empty):
            while True:
                yield self._done.get_nowait()

    def of(self, path: Path) -> str | None:
        """The checksum of a file in hexadecimal; None until it is reckoned. Raises OSError where the file is gone."""
        state, digest = self._known.get(path, (None, None))
        return digest if state == _State.of(path) else None

    def found(self, path: Path) -> str | None:
        """The checksum of a file that `done` gave; None if it has changed since. Raises OSError if it was not read."""
        if (error := self._failed.get(path)) is not None:
            raise error
        return self.of(path)

    def work(self, task: Callable[[], object]) -> None:
        """Have the thread do something, after all that was asked of it before. What it raises is said and lost."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="checksums", daemon=True)
            self._thread.start()
        self._work.put(task)

    def close(self, *, seconds: float = 5.0) -> None:
        """End the thread after what it is doing."""
        self._closed = True
        self._work.put(None)
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while (task := self._work.get()) is not None and not self._closed:
            try:
                task()
            except Exception as error:  # noqa: BLE001, uploads of everybody hang on this thread
                self._say(f"the thread of checksums: {error!r:.300}")

    def _reckon(self, path: Path, *, sync: bool) -> None:
        try:
            before = _State.of(path)
            with open_regular(path, "r+b" if sync else "rb") as file:
                if sync:
                    os.fsync(file.fileno())
                digest = hashlib.sha256()
                while data := file.read(_BLOCK):
                    digest.update(data)
            if _State.of(path) == before:
                _remember(self._known, path, (before, digest.hexdigest()))
            self._failed.pop(path, None)
        except Exception as error:  # noqa: BLE001, whatever it is, this file has no checksum
            if path not in self._failed:
                self._say(f"no checksum of {path}: {error!r:.300}")
            _remember(self._failed, path, error if isinstance(error, OSError) else OSError(repr(error)))
        finally:
            self._asked.discard(path)
            self._done.put(path)


def open_regular(path: Path, mode: str) -> IO[bytes]:
    """A file opened in a binary mode. Raises OSError, also for a pipe or a device, which would keep its reader waiting.
    """
    def opened(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    file: IO[bytes] = open(path, mode, opener=opened)  # noqa: SIM115, pathlib has no opener
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return file


def _remember(kept: dict[Path, Any], path: Path, value: object) -> None:
    while len(kept) >= MOST_REMEMBERED:
        del kept[next(iter(kept))]
    kept[path] = value
