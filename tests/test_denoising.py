# SPDX-License-Identifier: Apache-2.0
"""Windows in which memory runs out."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shots import bits, delivered, rendered, small_shot, write_plate

from fresco_backend.engine import denoise
from fresco_backend.events import Advanced, Stage, Warned
from fresco_backend.files.frames import read_frame
from fresco_backend.render import denoising, device_room, estimate, windows
from fresco_backend.render.job import Job
from fresco_protocol.errors import WeightsUnsupported
from fresco_protocol.shot import Editing, Keyframing, Shot, Task

Failing = Callable[[int], list[int]]


@pytest.fixture
def shot(tiny_model: Path, tmp_path: Path) -> Shot:
    """A shot of one window of six keyframes."""
    shot = small_shot(write_plate(tmp_path / "plate", 6), tiny_model, tmp_path / "out" / "look.####.png")
    return replace(shot, keyframing=Keyframing(minimum_gap=1, maximum_gap=1, window=6))


@pytest.fixture
def memory_for(monkeypatch: pytest.MonkeyPatch) -> Failing:
    """Give memory for windows of so many frames; the sizes that are tried are noted."""
    whole = denoise.denoise_window

    def limited(frames: int) -> list[int]:
        tried: list[int] = []

        def denoise_window(
            models: Any, window: denoise.WindowInput, *rest: Any
        ) -> Generator[denoise.StepResult, None, denoise.WindowResult]:
            tried.append(len(window.frames))
            if len(window.frames) > frames:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return (yield from whole(models, window, *rest))

        monkeypatch.setattr(denoise, "denoise_window", denoise_window)
        return tried

    return limited


def test_a_window_is_halved_where_memory_runs_out_and_the_render_goes_on(
    shot: Shot, memory_for: Failing, tmp_path: Path
) -> None:
    tried = memory_for(4)
    events = rendered(shot)
    assert tried == [6, 4, 4]
    assert len(delivered(events)) == 6
    (warning,) = [event for event in events if isinstance(event, Warned)]
    assert warning.code == "window-halved"
    assert "6 frames" in warning.text
    measures = json.loads((tmp_path / "out" / "look.png.fresco.json").read_bytes())["measures"]
    assert measures["windows"] == [[1001, 1002, 1003, 1004, 1005, 1006]]
    assert measures["parts"] == [[1001, 1002, 1003, 1004], [1001, 1004, 1005, 1006]]


def test_halves_are_halved_again(shot: Shot, memory_for: Failing) -> None:
    tried = memory_for(3)
    assert len(delivered(rendered(shot))) == 6
    assert tried == [6, 4, 3, 3, 4, 3, 3]


def test_frame_by_frame_one_frame_is_the_smallest_window(
    shot: Shot, memory_for: Failing, tmp_path: Path
) -> None:
    alone = replace(shot, coherence=None)
    rendered(alone)
    whole = read_frame(tmp_path / "out" / "look.1006.png").pixels
    tried = memory_for(1)
    rendered(replace(alone, delivery=replace(alone.delivery, overwrite=True)))
    assert tried == [6, 3, 2, 1, 1, 1, 3, 2, 1, 1, 1]
    halved = read_frame(tmp_path / "out" / "look.1006.png").pixels
    assert np.abs(halved - whole).max() < 2 / 255, "the same but for rounding"


def test_when_no_smaller_window_is_left_the_error_is_told(shot: Shot, memory_for: Failing) -> None:
    memory_for(2)
    with pytest.raises(torch.OutOfMemoryError):
        rendered(shot)


def test_a_window_for_which_memory_is_too_small_is_not_even_tried(
    shot: Shot, memory_for: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_room, "free_memory", lambda device: 2**20)
    monkeypatch.setattr(estimate, "window_memory", lambda job, frames, dtype: frames * 2**18)
    tried = memory_for(6)
    events = rendered(shot)
    assert tried == [3, 3, 3, 3]
    assert len(delivered(events)) == 6
    (warning,) = [event for event in events if isinstance(event, Warned)]
    assert warning.code == "window-halved"
    assert warning.text.startswith("1 MiB of memory are free, and a window of 6 frames takes about 2 MiB")


def test_fewer_frames_are_inverted_together_where_memory_runs_out_or_is_too_small(
    shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, tried = denoise.invert_window, []

    def invert_window(models: Any, window: denoise.WindowInput, *rest: Any) -> Iterator[tuple[int, torch.Tensor]]:
        tried.append(len(window.frames))
        if len(window.frames) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        yield from whole(models, window, *rest)

    monkeypatch.setattr(denoise, "invert_window", invert_window)
    edit = replace(shot, task=Task.EDIT, editing=Editing(caption="a photo", inversion_steps=4))
    events = rendered(edit)
    assert tried == [6, 3, 2, 1, 3, 2, 1]
    done = [event.done for event in events if isinstance(event, Advanced) and event.stage is Stage.INVERT]
    assert done == sorted(done) and len(delivered(events)) == 6
    tried.clear()
    monkeypatch.setattr(device_room, "free_memory", lambda device: 2**20)
    monkeypatch.setattr(estimate, "window_memory", lambda job, frames, dtype: frames * 2**18)
    rendered(replace(edit, editing=replace(edit.editing, caption="a man")))
    assert tried == [3, 2, 1, 3, 2, 1]


def test_another_error_is_no_reason_to_halve(shot: Shot, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Generator[denoise.StepResult, None, denoise.WindowResult]:
        yield from ()
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(denoise, "denoise_window", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        rendered(shot)


def test_a_model_that_overflows_delivers_no_black_frames(
    shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = denoise.denoise_window

    def overflowing(*window: Any) -> Generator[denoise.StepResult, None, denoise.WindowResult]:
        result = yield from whole(*window)
        return replace(result, latents=result.latents * torch.inf)

    monkeypatch.setattr(denoise, "denoise_window", overflowing)
    with pytest.raises(WeightsUnsupported, match="no picture"):
        rendered(shot)
    assert not list((tmp_path / "out").glob("*.png"))


def test_the_next_window_is_watched_ahead_and_the_pictures_are_the_same_to_the_bit(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plate = write_plate(tmp_path / "plate", 6)
    threads: list[tuple[tuple[int, ...], str]] = []
    watched = windows.watched

    def noted(job: Job, frames: Sequence[int], device: torch.device) -> windows.Watched:
        threads.append((tuple(frames), threading.current_thread().name))
        return watched(job, frames, device)

    monkeypatch.setattr(windows, "watched", noted)
    pictures = {}
    for looks_ahead in (False, True):
        monkeypatch.setattr(denoising.Denoising, "_ahead", looks_ahead)
        shot = small_shot(plate, tiny_model, tmp_path / "out" / "look.####.png")
        rendered(replace(shot, keyframing=Keyframing(minimum_gap=1, maximum_gap=1, window=4)))
        pictures[looks_ahead] = bits(tmp_path / "out")
        shutil.rmtree(tmp_path / "out")
    assert pictures[False] == pictures[True]
    plain, ahead = threads[: len(threads) // 2], threads[len(threads) // 2 :]
    assert [frames for frames, _ in plain] == [frames for frames, _ in ahead]
    assert len({name for _, name in plain}) == 1
    assert ahead[0][1] == plain[0][1]
    assert all(name.startswith("expected") for _, name in ahead[1:])
    assert not any(thread.name.startswith("expected") for thread in threading.enumerate())
