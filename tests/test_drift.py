# SPDX-License-Identifier: Apache-2.0
"""Four hundred frames whose look drifts: what is delivered drifts by less than one percent and never jumps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shots import small_shot, with_look, write_plate
from torch import Tensor

import tiny
from fresco_backend.engine.tones import Tones
from fresco_backend.render import drift
from fresco_backend.render.job import Job, open_job
from fresco_protocol.shot import Coherence, Compat, Cue, Shot, parse_frames

WINDOWS, KEYS = 40, 10


@pytest.fixture
def shot(tiny_model: Path, tmp_path: Path) -> Shot:
    return small_shot(write_plate(tmp_path / "plate", 2), tiny_model, tmp_path / "out" / "look.####.png")


@pytest.fixture
def job(shot: Shot) -> Iterator[Job]:
    job = open_job(shot)
    yield job
    job.close()


def plate_of(window: int) -> Tensor:
    """A window of a plate that gets darker as it goes on."""
    return tiny.moving_plate(KEYS, 32).images() * (1 - 0.15 * window / WINDOWS) - 0.05 * window / WINDOWS


def drifting(window: int, plate: Tensor) -> Tensor:
    """A look that gets redder and flatter from window to window, as anchors that are copied again and again do."""
    steady = torch.tanh(plate * 1.2) * 0.7
    return steady * (1 - 0.1 * window / WINDOWS) + torch.tensor([0.12, -0.06, 0.0])[:, None, None] * window / WINDOWS


def graded(job: Job) -> list[Tensor]:
    plates = [plate_of(window) for window in range(WINDOWS)]
    return [drift.graded(job, place, plate, drifting(place, plate)) for place, plate in enumerate(plates)]


def test_a_long_clip_does_not_drift(job: Job) -> None:
    keys = graded(job)
    before = Tones.of(plate_of(WINDOWS - 1), drifting(WINDOWS - 1, plate_of(WINDOWS - 1))).drift(
        Tones.of(plate_of(0), drifting(0, plate_of(0)))
    )
    assert before.colour > 0.05 and before.contrast > 0.05
    after = drift.measured(job, WINDOWS)
    assert after is not None
    assert after.colour < 0.01 and after.contrast < 0.01
    own = Tones.of(plate_of(WINDOWS - 1), keys[-1]).drift(Tones.of(plate_of(0), keys[0]))
    assert (after.colour, after.contrast) == pytest.approx((own.colour, own.contrast))


def test_the_grade_never_jumps(job: Job) -> None:
    changes = []
    for window in range(WINDOWS):
        plate = plate_of(window)[:1].expand(KEYS, -1, -1, -1)  # one picture, so that nothing else changes
        changes.append(drift.graded(job, window, plate, drifting(window, plate)) - drifting(window, plate))
    change = torch.cat(changes).mean((2, 3))
    assert change[0].abs().max() == 0
    assert change[-1].abs().max() > 0.1
    assert (change[1:] - change[:-1]).abs().max() < 0.004, "half a code value of 8 bits"


def test_a_window_as_a_whole_is_graded(job: Job) -> None:
    """Its first keyframes are on the way from the grade before, and the others make up for them."""
    plate = plate_of(0)
    drift.graded(job, 0, plate, drifting(0, plate))
    for window in range(1, 8):
        drift.graded(job, window, plate, drifting(WINDOWS // 2 * (window % 2), plate))  # there and back at once
        left = drift.measured(job, window + 1)
        assert left is not None and max(left.colour, left.contrast) < 0.008


def test_a_window_that_is_made_again_is_graded_alike(job: Job) -> None:
    keys = graded(job)
    plate = plate_of(7)
    assert torch.equal(drift.graded(job, 7, plate, drifting(7, plate)), keys[7])


@pytest.mark.parametrize("change", ["tone", "reference", "cue", "per-frame"])
def test_what_is_not_wanted_is_measured_all_the_same(change: str, shot: Shot) -> None:
    cue = Cue(frames=parse_frames("1001"), prompt="night")
    changed = {
        "tone": replace(shot, coherence=Coherence(tone=False)),
        "reference": replace(shot, coherence=Coherence(compat=Compat.REFERENCE)),
        "cue": with_look(shot, cues=(cue,)),
        "per-frame": replace(shot, coherence=None),
    }[change]
    assert drift.holds_tone(shot) and not drift.holds_tone(changed)
    job = open_job(changed)
    keys = graded(job)
    job.close()
    assert torch.equal(keys[-1], drifting(WINDOWS - 1, plate_of(WINDOWS - 1)))
    left = drift.measured(job, WINDOWS)
    assert left is not None and left.colour > 0.05


def test_drift_needs_two_windows_that_are_there(job: Job) -> None:
    drift.graded(job, 0, plate_of(0), drifting(0, plate_of(0)))
    assert drift.measured(job, 1) is None
    assert drift.measured(job, 5) is None
