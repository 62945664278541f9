# SPDX-License-Identifier: Apache-2.0
"""Windows in which memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from shots import delivered, rendered, small_shot, write_plate

from fresco_backend.engine import denoise
from fresco_backend.events import Warned
from fresco_protocol.shot import Keyframing, Shot

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


def test_a_window_is_halved_where_memory_runs_out_and_the_render_goes_on(shot: Shot, memory_for: Failing) -> None:
    tried = memory_for(4)
    events = rendered(shot)
    assert tried == [6, 4, 4]
    assert len(delivered(events)) == 6
    (warning,) = [event for event in events if isinstance(event, Warned)]
    assert warning.code == "window-halved"
    assert "6 frames" in warning.text


def test_halves_are_halved_again(shot: Shot, memory_for: Failing) -> None:
    tried = memory_for(3)
    assert len(delivered(rendered(shot))) == 6
    assert tried == [6, 4, 3, 3, 4, 3, 3]


def test_when_no_smaller_window_is_left_the_error_is_told(shot: Shot, memory_for: Failing) -> None:
    memory_for(2)
    with pytest.raises(torch.OutOfMemoryError):
        rendered(shot)


def test_another_error_is_no_reason_to_halve(shot: Shot, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Generator[denoise.StepResult, None, denoise.WindowResult]:
        yield from ()
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(denoise, "denoise_window", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        rendered(shot)
