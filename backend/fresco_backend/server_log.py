# SPDX-License-Identifier: Apache-2.0
"""The log of the server itself: lines on a stream, and the last of them for clients that ask."""
from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from typing import TextIO

MOST_LINES = 5_000
LONGEST_LINE = 1_000  # characters


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
