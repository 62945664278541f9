# SPDX-License-Identifier: Apache-2.0
"""Renders on a device that pretends to be a GPU: nothing mixes devices, and the pictures are a CPU's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from elsewhere import DEVICE, Elsewhere, pretending
from shots import FRAMES, delivered, rendered, small_shot, with_delivery, with_look, write_plate

import tiny
from fresco_backend.models import weights
from fresco_protocol.delivery import Matte
from fresco_protocol.look import FreeU, Sampler
from fresco_protocol.shot import Coherence, Control, ControlKind, Editing, FeatureOptimisation, Shot, Synthesis, Task


def test_the_pretence_refuses_what_a_gpu_refuses() -> None:
    with pretending():
        there = torch.ones(3, device="cuda")
        assert there.device == DEVICE
        assert torch.ones(3).device == torch.device("cpu")
        assert (there * 2 + torch.tensor(1.0)).device == DEVICE
        assert there.cpu().device == torch.device("cpu")
        assert torch.zeros_like(there).new_zeros(2).device == DEVICE
        assert there[torch.tensor([0, 1])].device == DEVICE
        assert torch.nn.Linear(3, 3).to("cuda").weight.device == DEVICE
        with pytest.raises(RuntimeError, match="same device"):
            torch.ones(3) + there
        with pytest.raises(RuntimeError, match="same device"):
            torch.nn.functional.linear(there, torch.ones(3, 3))
        with pytest.raises(RuntimeError, match="same device"):
            torch.ones(3)[torch.zeros(1, dtype=torch.long, device="cuda")]
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        with pytest.raises(TypeError, match="numpy"):
            np.asarray(there)
    assert isinstance(there, Elsewhere)


def optimising(**options: Any) -> Coherence:
    """All constraints, and few steps of the dearest one."""
    return Coherence(optimisation=FeatureOptimisation(iterations=2, **options))


def with_a_matte(shot: Shot, folder: Path) -> Shot:
    matte = tiny.write_sequence(folder / "matte", tiny.moving_plate(len(FRAMES), 64).matte)
    return replace(shot, matte=Matte(sequence=str(matte), feather=2.0))


def with_synthesis(shot: Shot, synthesis: Synthesis) -> Shot:
    return replace(shot, keyframing=replace(shot.keyframing, synthesis=synthesis))


def as_edit(shot: Shot) -> Shot:
    return replace(shot, task=Task.EDIT, editing=Editing(caption="a photo", inversion_steps=4))


def codes(path: Path) -> npt.NDArray[np.float64]:
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture.astype(np.float64)


SHOTS: dict[str, Callable[[Shot, Path], Shot]] = {
    "translation": lambda shot, folder: shot,
    "soft edges, FreeU": lambda shot, folder: with_look(
        shot, controls=(Control(kind=ControlKind.SOFT_EDGE),), free_u=FreeU(), negative_prompt="night"),
    "matte and background": with_a_matte,
    "DPM-Solver, squared": lambda shot, folder: replace(
        with_look(shot, sampler=Sampler.DPM), coherence=optimising(spatial_squared=True)),
    "LCM, conditional half only": lambda shot, folder: replace(
        with_look(shot, sampler=Sampler.LCM), coherence=optimising(conditional_only=True)),
    "features": lambda shot, folder: with_synthesis(shot, Synthesis.FEATURES),
    "mixed": lambda shot, folder: with_synthesis(shot, Synthesis.MIXED),
    "every frame": lambda shot, folder: with_synthesis(shot, Synthesis.EVERY_FRAME),
    "edit": lambda shot, folder: as_edit(shot),
    "edit of features": lambda shot, folder: as_edit(with_synthesis(shot, Synthesis.FEATURES)),
    "tiles": lambda shot, folder: with_delivery(shot, working_size=128, tile_size=64),
}  # fmt: skip


@pytest.mark.parametrize("kind", SHOTS)
def test_every_kind_of_shot_goes_through_on_a_gpu(
    kind: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRESCO_DEVICE", "cuda")
    shot = small_shot(write_plate(tmp_path / "plate"), tiny_model, tmp_path / "out" / "look.####.png")
    shot = replace(shot, coherence=optimising())
    with pretending():
        events = rendered(SHOTS[kind](shot, tmp_path))
    assert delivered(events) == list(FRAMES)
    assert all(codes(tmp_path / "out" / f"look.{frame}.png").std() > 10 for frame in FRAMES)


def test_a_gpu_makes_the_pictures_of_a_cpu(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "choose_dtype", lambda device: torch.float32)
    plate = write_plate(tmp_path / "plate")
    for device in ("cpu", "cuda"):
        monkeypatch.setenv("FRESCO_DEVICE", device)
        with pretending() if device == "cuda" else nullcontext():
            rendered(small_shot(plate, tiny_model, tmp_path / device / "look.####.png"))
    pictures = [[codes(path) for path in sorted((tmp_path / device).glob("*.png"))] for device in ("cpu", "cuda")]
    for by_cpu, by_gpu in zip(*pictures, strict=True):  # batches are cut otherwise, and signs of near nothing may turn
        assert np.abs(by_cpu - by_gpu).mean() < 1.5
