# SPDX-License-Identifier: Apache-2.0
"""A model that does not fit on its GPU is refused before it is loaded; windows are as large as there is room for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from shots import small_shot, with_delivery, write_plate

from fresco_backend.engine.keyframes import Window
from fresco_backend.models.weights import load
from fresco_backend.render import device_room, estimate
from fresco_backend.render.denoising import Denoising
from fresco_backend.render.device_room import SPARED, MemoryPlan, require_room
from fresco_backend.render.job import Job, open_job
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


@dataclass(kw_only=True)
class Autoencoder:
    """One that knows no tiles."""

    dtype: torch.dtype


class AutoencoderInTiles(Autoencoder):
    def enable_tiling(self) -> None:
        """As those of diffusers do."""


def test_the_autoencoder_takes_as_many_pictures_as_fit(job: Job) -> None:
    half, full = Autoencoder(dtype=torch.float16), Autoencoder(dtype=torch.float32)
    one = estimate.picture_memory(job, half)
    for free, count in ((None, 4), (100 * one, 4), (3.5 * one, 3), (2.1 * one, 1), (0, 1)):
        held = MemoryPlan(job=job, dtype=torch.float16, free=None if free is None else int(free))
        assert held.pictures(half, 4) == count
    assert MemoryPlan(job=job, dtype=torch.float16, free=round(4.5 * one)).pictures(full, 4) == 2


def test_an_autoencoder_takes_a_tile_where_it_works_in_tiles_and_else_the_whole_picture(job: Job) -> None:
    with closing(open_job(with_delivery(job.shot, working_size=128, tile_size=64))) as tiled:
        whole, tile = (estimate.picture_memory(tiled, kind(dtype=torch.float32))
                       for kind in (Autoencoder, AutoencoderInTiles))  # fmt: skip
    assert whole == pytest.approx(4 * tile, abs=4)


def test_a_render_asks_in_the_precision_of_the_autoencoder(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is float32 where the rest is bfloat16."""
    models = replace(load(job.shot.look.model, device=torch.device("cpu")), dtype=torch.bfloat16)
    one = estimate.picture_memory(job, models.vae)
    monkeypatch.setattr(device_room, "free_memory", lambda _: round(3.5 * one))
    assert Denoising(job=job, models=models, windows=(WINDOW,), places=(0,))._sampling.chunk == 3
