# SPDX-License-Identifier: Apache-2.0
"""A worker of the server: a child process that owns one device, and renders the jobs that it is given.

torch is imported here and not in the server. Orders come through stdin, words go out through what was stdout; whatever
libraries print goes to stderr, which is the job's log. A closed stdin means that the server is gone: the worker ends at
once, in the middle of whatever it does, because frames are atomic and the next server starts its own.
"""
from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from fresco_backend.roots import Roots
from fresco_backend.worker.worker_words import Beat, GoOn, Halt, Line, Ready, Render, Told, line_of

BEAT = 2.0  # seconds between two signs of life
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl


class Orders:
    """What the server wants, read by a thread. `halted` tells whether the running job shall stop."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self._renders: queue.SimpleQueue[Render] = queue.SimpleQueue()
        self._halt = threading.Event()
        threading.Thread(target=self._read, name="orders", daemon=True).start()

    def next(self, *, seconds: float) -> Render | None:
        """The next job, None when there is none in this time. A Halt from before it does not count for it."""
        with contextlib.suppress(queue.Empty):
            return self._renders.get(timeout=seconds)
        return None

    @property
    def halted(self) -> bool:
        """Whether the running job shall stop."""
        return self._halt.is_set()

    def _read(self) -> None:
        for line in self._pipe:
            order = line_of(line)
            if isinstance(order, Render):
                self._halt.clear()
                self._renders.put(order)
            elif isinstance(order, Halt):
                self._halt.set()
            elif isinstance(order, GoOn):
                self._halt.clear()
        os._exit(0)  # not sys.exit: the main thread may be in native code for minutes


class Words:
    """Says lines to the server; for several threads."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe, self._lock = pipe, threading.Lock()

    def say(self, line: Line) -> None:
        """Says a line, whole."""
        with self._lock:
            self._pipe.write(line.to_bytes())
            self._pipe.flush()


def main(words: Sequence[str] | None = None) -> None:
    """Works until the server closes the pipe."""
    arguments = _arguments(words)
    faulthandler.enable()  # a crash of native code leaves its stack in the log
    _die_with_parent()
    with contextlib.suppress(ValueError):  # not in the main thread, under test
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if arguments.device != "auto":
        os.environ["FRESCO_DEVICE"] = arguments.device
    said = Words(_take_stdout())
    orders = Orders(sys.stdin.buffer)
    roots = Roots(folders=tuple(arguments.root), models=tuple(arguments.models))
    _work(orders, said, roots)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fresco worker", description="Started by the server, not by people.")
    parser.add_argument("--device", required=True)
    parser.add_argument("--root", type=Path, action="append", default=[])
    parser.add_argument("--models", type=Path, action="append", default=[])
    return parser.parse_args(words)


def _take_stdout() -> BinaryIO:
    """The pipe to the server; from now on whatever is printed goes to the log."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return pipe


def _die_with_parent() -> None:
    """On Linux the system itself ends the worker with the server, even when it is stopped."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)


def _work(orders: Orders, said: Words, roots: Roots) -> None:
    from fresco_backend.models.device import devices
    from fresco_backend.worker.worker_render import Renderer

    renderer = Renderer(roots)
    said.say(Ready(device=str(renderer.device), devices=tuple(devices())))
    threading.Thread(target=_beat, args=(said, renderer.beat), name="heartbeat", daemon=True).start()
    while True:
        order = orders.next(seconds=BEAT)
        if order is None:
            renderer.relax()
        else:
            said.say(renderer.ended(order, lambda event: said.say(Told.of(event)), lambda: orders.halted))


def _beat(said: Words, beat: Callable[[], Beat]) -> None:
    pause = threading.Event()
    while not pause.wait(BEAT):
        said.say(beat())


if __name__ == "__main__":
    main()
