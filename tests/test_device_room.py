# SPDX-License-Identifier: Apache-2.0
"""A model that does not fit on its GPU is refused before it is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
from shots import small_shot, write_plate

from fresco_backend import device_room, estimate
from fresco_backend.device_room import require_room
from fresco_backend.job import Job, open_job
from fresco_protocol.errors import DeviceMemory


@pytest.fixture
def job(tiny_model: Path, tmp_path: Path) -> Iterator[Job]:
    with closing(open_job(small_shot(write_plate(tmp_path, 3), tiny_model, tmp_path / "out" / "l.####.png"))) as opened:
        yield opened


def gpu(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(device_room, "choose_device", lambda: torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 2 * free))


def test_what_fits_is_loaded(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    require_room(job)
    gpu(monkeypatch, estimate.loaded(job, torch.float16))
    require_room(job)


def test_what_does_not_fit_is_refused_with_the_numbers(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, estimate.loaded(job, torch.float16) - 1)
    with pytest.raises(DeviceMemory, match=r"the model takes .* are free") as refused:
        require_room(job)
    assert refused.value.exit_code == 12
