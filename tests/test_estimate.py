# SPDX-License-Identifier: Apache-2.0
"""The estimate grows with the work and asks nothing for what is not done."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from original_names import save_single_file
from safetensors.torch import load_file, save_file
from shots import small_shot, with_look, write_plate

import tiny
from fresco_backend.engine.keyframes import Window, split_windows
from fresco_backend.models import weights
from fresco_backend.render import estimate
from fresco_backend.render.job import Job, open_job
from fresco_protocol.shot import Editing, Shot, Synthesis, Task

WINDOWS = split_windows((1001, 1003, 1005, 1007, 1009), 3)


@pytest.fixture(autouse=True)
def _known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_matmul_speed", lambda *_: 1e9)
    monkeypatch.setattr(estimate, "_share", lambda: 1.0)


@pytest.fixture
def job(tiny_model: Path, tmp_path: Path) -> Iterator[Job]:
    shot = small_shot(write_plate(tmp_path / "plate"), tiny_model, tmp_path / "out" / "look.####.png")
    job = open_job(shot)
    yield job
    job.close()


def cost(job: Job, windows: tuple[Window, ...] = WINDOWS, frames: int = 9) -> estimate.Cost:
    return estimate.cost(job, windows, frames, torch.device("cpu"), torch.float32)


def changed(job: Job, shot: Shot) -> Job:
    return replace(job, shot=shot)


def test_nothing_to_do_takes_no_time_and_no_model(job: Job) -> None:
    assert cost(job, (), 0) == (estimate.LIBRARIES, 0.0)


def test_time_grows_with_windows_and_frames(job: Job) -> None:
    assert cost(job, WINDOWS[:1]).seconds < cost(job).seconds
    assert cost(job, frames=1).seconds < cost(job).seconds
    assert cost(job, WINDOWS[:2], 0).seconds == pytest.approx(2 * cost(job, WINDOWS[:1], 0).seconds)


def test_an_edit_costs_its_inversion_and_a_branch_more(job: Job) -> None:
    translated, edited = cost(job, frames=0).seconds, changed(job, replace(job.shot, task=Task.EDIT))
    assert cost(edited, frames=0).seconds > 1.5 * translated
    more = changed(job, replace(edited.shot, editing=Editing(inversion_steps=100)))
    assert cost(more, frames=0).seconds > cost(edited, frames=0).seconds


def test_propagation_takes_no_more_memory_than_its_pivots(job: Job) -> None:
    long = tuple(range(1001, 1010))
    propagated = changed(job, replace(job.shot, keyframing=replace(job.shot.keyframing, synthesis=Synthesis.FEATURES)))
    few, many = (cost(propagated, split_windows(long[:count], 99)).memory for count in (3, 9))
    assert few == many


def test_each_choice_that_saves_work_saves_time(job: Job) -> None:
    full = cost(job, frames=0).seconds
    assert cost(changed(job, with_look(job.shot, guidance=1.0)), frames=0).seconds == pytest.approx(full / 2)
    assert cost(changed(job, with_look(job.shot, strength=1.0)), frames=0).seconds == pytest.approx(full * 2)
    assert cost(changed(job, with_look(job.shot, controls=())), frames=0).seconds == pytest.approx(full / 1.4)
    assert cost(changed(job, replace(job.shot, coherence=None)), frames=0).seconds == pytest.approx(full / 2)


def test_larger_windows_take_more_memory(job: Job) -> None:
    (together,) = split_windows((1001, 1003, 1005, 1007, 1009), 5)
    assert cost(job, (together,)).memory > cost(job).memory > estimate.LIBRARIES


def test_on_a_busy_machine_everything_takes_longer(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = cost(job, (), 9).seconds
    monkeypatch.setattr(estimate, "_share", lambda: 0.25)
    assert cost(job, (), 9).seconds == pytest.approx(4 * quiet)


def test_a_thread_that_waits_for_others_has_a_smaller_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 0 < estimate._share() <= 1
    spent = itertools.count()
    monkeypatch.setattr(time, "thread_time", lambda: next(spent) * 0.05)
    assert estimate._share() < 0.4


def test_twice_the_precision_and_all_constraints_take_more_memory(job: Job) -> None:
    half, full = (estimate.window_memory(job, 8, dtype) for dtype in (torch.float16, torch.float32))
    assert full == pytest.approx(2 * half, abs=1)
    without = estimate.window_memory(changed(job, replace(job.shot, coherence=None)), 8, torch.float16)
    assert without < half


def test_the_speed_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert estimate._matmul_speed(torch.device("cpu"), torch.float32) > 1e8


@pytest.mark.parametrize("stored", ["single", "half", "full"])
def test_weights_are_counted_once_however_they_are_stored(stored: str, tmp_path: Path) -> None:
    """A file of all networks holds each of them once, and one in full precision no more than one in half."""
    model = tmp_path / "model.safetensors"
    if stored == "single":
        save_single_file(model, tiny.tiny_unet(layers=2), tiny.tiny_vae(), tiny.tiny_text_encoder())
    else:
        model = tiny.save_pipeline(tmp_path / "model", control=False)
    for path in model.glob("*/*.safetensors") if stored == "half" else ():
        save_file({name: value.half() for name, value in load_file(path).items()}, path, {"format": "pt"})
    shot = with_look(small_shot(write_plate(tmp_path / "plate", 1), model, tmp_path / "out" / "look.png"), controls=())
    with closing(open_job(shot)) as job:
        found = weights.load(str(model), device=torch.device("cpu"), dtype=torch.float16)
        networks = (found.unet, found.vae, found.text_encoder)
        numbers = sum(parameter.numel() for network in networks for parameter in network.parameters())
        assert estimate.loaded(job, torch.float16) == 2 * numbers
        assert estimate._unet(job) == sum(parameter.numel() for parameter in found.unet.parameters())
        assert job.inventory.size == sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
