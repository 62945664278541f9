# SPDX-License-Identifier: Apache-2.0
"""Shots that are judged beside the server's loop: whoever looks into a folder of a share that is gone waits for it, and
nobody else shall."""
from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from fresco_backend.server.listener import Asked
from fresco_protocol.errors import Busy

PATIENCE = 20.0  # seconds; clients wait for longer (`client.JUDGED`)
MOST = 32  # judgements that have not ended, those included that nobody waits for any more

Judge = Callable[[], object]
"""Raises what stands against a shot. It runs in a thread of its own, and touches neither the queue nor the wire."""


@dataclass(eq=False, kw_only=True)
class _Judgement:
    """asked: who waits for it; the same request may have come again. ends: by the monotonic clock."""

    key: str
    ends: float
    asked: list[Asked] = field(default_factory=list)


class Reception:
    """The judgements under way. place: what a request is told of where it hangs. `socket`: readable when one ended."""

    def __init__(self, place: Callable[[Asked], str], *, patience: float = PATIENCE,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._place, self._patience, self._clock = place, patience, clock
        self.socket, self._bell = socket.socketpair()
        self.socket.setblocking(False)
        self._bell.setblocking(False)
        self._awaited: dict[str, _Judgement] = {}  # by client key
        self._ended: queue.SimpleQueue[tuple[_Judgement, Exception | None]] = queue.SimpleQueue()
        self._running = 0

    def take(self, asked: Asked, key: str, judge: Judge) -> None:
        """Have a request judged; `answered` gives it back. Raises Busy where too many judgements hang already."""
        if key not in self._awaited:
            if self._running >= MOST:
                raise Busy("too many shots wait for folders that do not answer", where=self._place(asked),
                           remedy="Look at the disks and shares of the server; then submit again.")
            judgement = self._awaited[key] = _Judgement(key=key, ends=self._clock() + self._patience)
            self._running += 1
            threading.Thread(target=self._run, args=(judgement, judge), name="reception", daemon=True).start()
        self._awaited[key].asked.append(asked)

    def answered(self) -> Iterator[tuple[Asked, Exception | None]]:
        """The requests that can be answered by now, with what stands against each; a judgement that takes too long
        stands against it too."""
        with suppress(BlockingIOError):
            self.socket.recv(4096)
        with suppress(queue.Empty):
            while True:
                judgement, error = self._ended.get_nowait()
                self._running -= 1
                if self._awaited.get(judgement.key) is judgement:
                    del self._awaited[judgement.key]
                    yield from ((asked, error) for asked in judgement.asked)
        for judgement in [one for one in self._awaited.values() if one.ends < self._clock()]:
            del self._awaited[judgement.key]
            yield from ((asked, self._late(asked)) for asked in judgement.asked)

    def close(self) -> None:
        """Threads that hang are left alone: nobody can end them."""
        self.socket.close()
        self._bell.close()

    def _run(self, judgement: _Judgement, judge: Judge) -> None:
        error: Exception | None = None
        try:
            judge()
        except Exception as raised:  # noqa: BLE001, whatever it is, it is this request's answer
            error = raised
        self._ended.put((judgement, error))
        with suppress(OSError):  # it rings already, or the server has ended
            self._bell.send(b"!")

    def _late(self, asked: Asked) -> Busy:
        return Busy(f"the folders of this shot do not answer within {self._patience:g} s", where=self._place(asked),
                    remedy="A disk or a share of the server hangs, or is very slow: list that folder there, and submit "
                           "again when it answers.")
