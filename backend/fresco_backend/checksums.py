# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of files, reckoned by a thread beside the server's loop; what it was of a file is remembered while the file
stays the same."""
from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

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
    """Checksums of files. Closed by `close`; what is not reckoned by then is not."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._known: dict[Path, tuple[_State, str]] = {}
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
        """The files that were looked at since the last time, whatever came of that."""
        with suppress(queue.Empty):
            while True:
                yield self._done.get_nowait()

    def of(self, path: Path) -> str | None:
        """The checksum of a file in hexadecimal; None until it is reckoned. Raises OSError."""
        state, digest = self._known.get(path, (None, None))
        return digest if state == _State.of(path) else None

    def work(self, task: Callable[[], object]) -> None:
        """Have the thread do something, after all that was asked of it before. What it raises of the disk is lost."""
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
            with suppress(OSError):
                task()

    def _reckon(self, path: Path, *, sync: bool) -> None:
        try:
            before = _State.of(path)
            with path.open("r+b" if sync else "rb") as file:
                if sync:
                    os.fsync(file.fileno())
                digest = hashlib.sha256()
                while data := file.read(_BLOCK):
                    digest.update(data)
            if _State.of(path) == before:
                while len(self._known) >= MOST_REMEMBERED:
                    del self._known[next(iter(self._known))]
                self._known[path] = (before, digest.hexdigest())
        finally:
            self._asked.discard(path)
            self._done.put(path)
