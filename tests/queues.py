# SPDX-License-Identifier: Apache-2.0
"""Fixtures and jobs for the tests of the queue; a test module names the fixtures that it takes."""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fresco_backend.queue.job_state import ENDED, LIVE, Claim, JobStatus
from fresco_backend.queue.jobs import JobQueue, Limits
from fresco_protocol.events import Advanced
from fresco_protocol.job import Stage
from fresco_protocol.shot import Delivery, Look, Plate, Shot

PATHS = [path for path in sys.path if path]
MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # kill -9 spares what the system holds: no disk needed



PATHS = [path for path in sys.path if path]
MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # kill -9 spares what the system holds: no disk needed


def shot(name: str = "harbour", prompt: str = "ink") -> Shot:
    return Shot(plate=Plate(sequence="/plate/p.####.exr"), look=Look(prompt=prompt),
                delivery=Delivery(sequence=f"/out/{name}.####.exr"), name=name)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="fresco-test-") as name:
        yield Path(name)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(folder: Path, clock: Clock) -> Iterator[JobQueue]:
    with JobQueue(folder / "jobs.sqlite", clock=clock, limits=Limits(lease=60)) as queue:
        yield queue


def submit(queue: JobQueue, name: str, priority: int = 0) -> str:
    return queue.submit(shot(name), key=name, priority=priority).status.id


def claim(queue: JobQueue, worker: str = "w1") -> Claim:
    found = queue.claim(worker, "cpu")
    assert found is not None
    return found


def live(queue: JobQueue) -> list[JobStatus]:
    """Jobs that have not ended, in the order in which they run."""
    return list(queue.jobs(LIVE, limit=10**6).jobs)


def ended(queue: JobQueue) -> list[JobStatus]:
    """Jobs that have ended, the last one first."""
    return list(queue.jobs(ENDED, limit=10**6).jobs)


def drained(queue: JobQueue) -> list[str]:
    """The jobs in the order in which workers get them."""
    names = (f"drain-{number}" for number in itertools.count())
    return [found.job for found in iter(lambda: queue.claim(next(names), "cpu"), None)]


def step(job: str, done: int = 1) -> Advanced:
    return Advanced(number=0, time=0, job=job, stage=Stage.KEYFRAMES, done=done, total=20, seconds_left=9.5)
