# SPDX-License-Identifier: Apache-2.0
"""A model that does not fit on its GPU is refused before it is loaded; windows are as large as there is room for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
from shots import small_shot, write_plate

from fresco_backend import device_room, estimate
from fresco_backend.device_room import SPARED, MemoryPlan, require_room
from fresco_backend.engine.keyframes import Window
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


WINDOW = Window(anchors=(1,), keys=tuple(range(2, 9)))


def plan(job: Job, frames: float | None, dtype: torch.dtype = torch.float16) -> MemoryPlan:
    """A plan with room for a step of so many frames and no more."""
    free = None if frames is None else round(frames * estimate.window_memory(job, 1, torch.float16) / (1 - SPARED))
    return MemoryPlan(job=job, dtype=dtype, free=free)


@pytest.mark.parametrize("frames", [None, 8.1, 100])
def test_a_window_that_fits_stays_as_the_shot_has_it(job: Job, frames: float | None) -> None:
    assert plan(job, frames).parts(WINDOW) == (WINDOW,)


@pytest.mark.parametrize(("frames", "largest"), [(7.5, 5), (5.1, 5), (4.5, 4), (3.5, 3), (0.1, 3)])
def test_a_window_that_does_not_fit_is_halved_until_it_does(job: Job, frames: float, largest: int) -> None:
    parts = plan(job, frames).parts(WINDOW)
    assert max(len(part.frames) for part in parts) == largest
    assert tuple(key for part in parts for key in part.keys) == WINDOW.keys
    assert all(part.anchors[0] == 1 for part in parts)


def test_twice_the_precision_takes_twice_the_memory(job: Job) -> None:
    assert len(plan(job, 8.1, torch.float32).parts(WINDOW)) > 1
    assert plan(job, 16.1, torch.float32).parts(WINDOW) == (WINDOW,)


def test_the_autoencoder_takes_as_many_pictures_as_fit(job: Job) -> None:
    one = estimate.picture_memory(job, torch.float16)
    for free, count in ((None, 4), (100 * one, 4), (3.5 * one, 3), (2.1 * one, 1), (0, 1)):
        held = MemoryPlan(job=job, dtype=torch.float16, free=None if free is None else int(free))
        assert held.pictures(4) == count
