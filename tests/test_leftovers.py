# SPDX-License-Identifier: Apache-2.0
"""What a killed worker leaves is swept, and nothing of others."""
from __future__ import annotations

from pathlib import Path

import pytest
from queues import clock, folder, queue  # noqa: F401, fixtures

from fresco_backend.files.deliveries import part_of
from fresco_backend.queue.jobs import JobQueue
from fresco_backend.server.leftovers import sweep, worker_name
from fresco_protocol.shot import Delivery, Look, Plate, Shot


def test_names_of_workers_differ_and_tell_the_process() -> None:
    assert worker_name(4711) != worker_name(4711)
    assert worker_name(4711).startswith("4711-")


def test_only_the_dead_workers_own_files_are_swept(
        queue: JobQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    shot = Shot(plate=Plate(sequence="/p.####.exr"), look=Look(prompt="ink"),
                delivery=Delivery(sequence=str(tmp_path / "look.####.png")))
    job = queue.submit(shot, key="k").status.id
    queue.claim(worker_name(4711), "cpu")
    monkeypatch.setattr("os.getpid", lambda: 4711)
    mine = part_of(tmp_path / "look.1001.png")
    monkeypatch.setattr("os.getpid", lambda: 47110)
    others = part_of(tmp_path / "look.1002.png")
    whole = tmp_path / "look.4711.png"
    for path in (mine, others, whole):
        path.touch()
    sweep(queue.status(job))
    assert sorted(tmp_path.iterdir()) == sorted([others, whole])
