# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM: the first lets the program tidy up, the second ends it at once."""
from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE = 8.0  # seconds after SIGTERM; render farms kill after ten
_TWICE = 0.5  # seconds; a launcher that passes Ctrl-C on makes two signals of one key
_SHOW_CURSOR = "\x1b[?25h"


class Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception that unwinds like Ctrl-C."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Raises KeyboardInterrupt at the first SIGINT and Terminated at the first SIGTERM; only in the main thread.

    A second signal, or GRACE seconds after SIGTERM, end the process with 130 or 143, however busy it is: a thread
    waits for the signals, because Python's own handlers wait until a call into native code has returned.
    Signals that the parent process ignores stay ignored (a job in the background of a shell).
    """
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    handler = _raise_once()
    before = {number: signal.signal(number, handler) for number in numbers}
    descriptor = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), name="interruption", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, earlier in before.items():
            signal.signal(number, earlier)
        writing.close()  # ends the thread


def _raise_once() -> Callable[[int, FrameType | None], None]:
    """A handler that raises at the first signal and leaves the others to the thread."""
    raised = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal raised
        if not raised:
            raised = True
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    return handle


def _watch(reading: socket.socket) -> None:
    with reading:
        first = _next_signal(reading)
        if first is None:
            return
        began = time.monotonic()
        reading.settimeout(GRACE if first == signal.SIGTERM else None)
        try:
            while (number := _next_signal(reading)) is not None:
                if time.monotonic() - began > _TWICE:
                    _end(number)
        except TimeoutError:
            _end(signal.SIGTERM)


def _next_signal(reading: socket.socket) -> int | None:
    """The number of the next SIGINT or SIGTERM; None when nobody will send one any more."""
    while received := reading.recv(1):
        if received[0] in (signal.SIGINT, signal.SIGTERM):
            return received[0]
    return None


def _end(number: int) -> None:
    if sys.stderr.isatty():
        os.write(2, f"{_SHOW_CURSOR}\n".encode())
    os.write(2, b"fresco: ended at once; only whole frames are there, the same command goes on\n")
    os._exit(128 + number)
