# SPDX-License-Identifier: Apache-2.0
"""Servers whose workers are programs of a few lines: they say what a test wants, and start at once."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers import PACKAGES, Running, serving

from fresco_backend.server import worker_pool
from fresco_backend.server.worker_pool import Patience, WorkerPool

PATIENCE = Patience(respawn=0.05, longest_respawn=0.05)

# What stands for a worker: at an order it does or says something, and then says that the job is done.
WORKER = """
import json, os, subprocess, sys, time
sys.path[:0] = {packages!r}
from fresco_backend.worker.worker_words import Broken, Done, Ready, Told, line_of
from fresco_protocol.events import Finished, Warned
from fresco_protocol.job import Problem
def say(line):
    sys.stdout.buffer.write(line if isinstance(line, bytes) else line.to_bytes())
    sys.stdout.buffer.flush()
def warned(job, text):
    return Told.of(Warned(number=0, time=0, job=job, code="test", text=text))
say(Ready(device="cpu", devices=("cpu",)))
while order := sys.stdin.buffer.readline():
    order = line_of(order)
    job, shot = order.job, order.shot
    {speech}
    say(Done())
"""


@contextmanager
def with_worker(folder: Path, monkeypatch: pytest.MonkeyPatch, speech: str, **options: Any) -> Iterator[Running]:
    """A server whose workers do this at an order: one line of Python, which knows `job`, `shot` and `say`."""
    program = WORKER.format(packages=PACKAGES, speech=speech)

    def spawned(_pool: WorkerPool, _device: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)

    monkeypatch.setattr(WorkerPool, "_spawned", spawned)
    monkeypatch.setattr(worker_pool, "ORPHANED", 0.2)
    with serving(folder, devices=("cpu",), **{"patience": PATIENCE, **options}) as running:
        yield running
