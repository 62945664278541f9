# SPDX-License-Identifier: Apache-2.0
"""The log of the server itself: lines on a stream, and the last of them for clients that ask."""
from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from fresco_backend.failure import translated
from fresco_protocol.errors import FrescoError

MOST_LINES = 5_000
LONGEST_LINE = 1_000  # characters
SAID_AGAIN = 60.0  # seconds
MOST_KINDS = 200  # of lines that recur


class ServerLog:
    """Lines with their time. Lines keep their numbers; the first is 0."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: deque[str] = deque(maxlen=MOST_LINES)
        self._count = 0

    def say(self, text: str) -> None:
        """Adds a line for each line of a text."""
        for line in text.splitlines():
            stamped = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line[:LONGEST_LINE]}"
            self._lines.append(stamped)
            self._count += 1
            with suppress(OSError):  # a full disk must not end the server
                self._stream.write(stamped.encode(errors="backslashreplace").decode() + "\n")
                self._stream.flush()

    def page(self, since: int, limit: int) -> tuple[tuple[str, ...], int]:
        """Up to `limit` lines from number `since` on, or the oldest kept, and the number of the one after them."""
        first = max(since, self._count - len(self._lines))
        skipped = first - (self._count - len(self._lines))
        lines = tuple(self._lines)[skipped : skipped + limit]
        return lines, max(since, first + len(lines))


class Recurring:
    """Lines that may be due again and again, by their kind: said the first time, then once in a while with a count.

    say: writes a line. Whoever causes such a line cannot fill a disk or a memory with it.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._counts: dict[str, int] = {}
        self._due: dict[str, float] = {}

    def is_due(self, kind: str) -> bool:
        """Whether the next line of this kind is said."""
        return time.monotonic() >= self._due.get(self._known(kind), 0.0)

    def add(self, kind: str, text: str) -> None:
        """One more of this kind."""
        kind = self._known(kind)
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        if self.is_due(kind):
            self._due[kind] = time.monotonic() + SAID_AGAIN
            self._say(text + (f", {count} times so far" if count > 1 else ""))

    def _known(self, kind: str) -> str:
        return kind if kind in self._counts or len(self._counts) < MOST_KINDS else "others"


class Faults:
    """What went wrong inside the server and did not end it: each kind is said, with where its traceback is."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._recurring = Recurring(say)

    def add(self, place: str, error: Exception) -> None:
        """One more fault. place: which part of the server it was in."""
        kind = f"{place}: {type(error).__name__}"
        known = isinstance(error, FrescoError) or not self._recurring.is_due(kind)
        self._recurring.add(kind, f"{place}: {error if known else translated(error, ['serve', place])}")
