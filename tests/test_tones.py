# SPDX-License-Identifier: Apache-2.0
"""Drift is measured colour by colour, and the grade takes it back without touching anything else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import tiny
from fresco_backend.engine.flow import warp
from fresco_backend.engine.tones import LARGEST_MIXTURE, LARGEST_OFFSET, Grade, Tones


@pytest.fixture(scope="module")
def plate() -> Tensor:
    return tiny.moving_plate(6, 64).images()


def look(plate: Tensor) -> Tensor:
    """A look that answers each tone of the plate with one colour."""
    return torch.tanh(plate.mean(-3, keepdim=True) * torch.tensor([1.5, 1.0, 0.5])[:, None, None]) * 0.8


def shares_of(orange: int) -> Tensor:
    """A plate of two colours that are equally bright, orange in the first columns and grey in the others."""
    colours = torch.tensor([[0.6, -0.1, -0.8], [-0.005, -0.005, -0.005]])
    columns = torch.where(torch.arange(64) < orange, 0, 1)
    return colours[columns].T[None, :, None].expand(1, 3, 64, 64).contiguous()


def saturated(image: Tensor, by: float) -> Tensor:
    grey = image.mean(-3, keepdim=True)
    return grey + (image - grey) * by


def test_a_darker_plate_is_no_drift(plate: Tensor) -> None:
    first, later = plate[:3], plate[3:] * 0.9 - 0.06
    drift = Tones.of(later, look(later)).drift(Tones.of(first, look(first)))
    assert drift.colour < 0.01 and drift.contrast < 0.05
    assert abs(float(look(later).mean() - look(first).mean())) / 2 > 0.015, "the mean of the result alone would say so"


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.1), (0.9, 0.0), (1.1, -0.06)])
def test_drift_is_what_was_added_and_the_grade_takes_it_back(gain: float, offset: float, plate: Tensor) -> None:
    steady, drifted = look(plate), look(plate) * gain + offset
    reference, tones = Tones.of(plate, steady), Tones.of(plate, drifted)
    drift = tones.drift(reference)
    expected = (steady.mean((0, 2, 3)) * (gain - 1) + offset).abs().max() / 2
    assert drift.colour == pytest.approx(float(expected), abs=2e-3)
    assert drift.contrast == pytest.approx(abs(gain - 1), abs=0.02)
    graded = tones.grade(reference).apply(drifted)
    left = Tones.of(plate, graded).drift(reference)
    assert max(left.colour, left.contrast) < 1e-3
    assert (graded - steady).abs().max() < 0.02


def test_a_steady_look_is_not_graded(plate: Tensor) -> None:
    tones = Tones.of(plate, look(plate))
    grade, neutral = tones.grade(tones), Grade.neutral()
    assert torch.allclose(grade.matrix, neutral.matrix, atol=1e-6)
    assert torch.allclose(grade.offset, neutral.offset, atol=1e-6)
    assert torch.equal(neutral.apply(look(plate)), look(plate))


def test_a_change_beyond_all_drift_is_left_to_the_picture(plate: Tensor) -> None:
    grade = Tones.of(plate, look(plate) * 0.3 + 0.9).grade(Tones.of(plate, look(plate)))
    assert (grade.matrix - torch.eye(3)).abs().max() <= LARGEST_MIXTURE + 1e-5
    mean = (look(plate) * 0.3 + 0.9).mean((0, 2, 3))
    assert (grade.matrix @ mean + grade.offset - mean).abs().max() <= LARGEST_OFFSET + 1e-5


def test_more_of_a_colour_is_no_drift() -> None:
    first, later = shares_of(20), shares_of(44)
    drift = Tones.of(later, later * 0.8).drift(Tones.of(first, first * 0.8))
    assert max(drift.colour, drift.contrast) < 1e-6
    assert drift.covered == pytest.approx(40 / 64)


def test_a_hue_that_fades_is_mended_and_grey_stays_grey(plate: Tensor) -> None:
    """Means of all pixels see nothing of it: what orange loses of its red, blue loses of its blue."""
    drifted = saturated(plate, 0.85)
    reference, tones = Tones.of(plate, plate), Tones.of(plate, drifted)
    assert tones.drift(reference).contrast > 0.01
    grade = tones.grade(reference)
    left = Tones.of(plate, grade.apply(drifted)).drift(reference)
    assert left.contrast < 2e-3
    assert (grade.apply(drifted) - plate).abs().mean() < 0.4 * (drifted - plate).abs().mean()
    greys = torch.linspace(-0.8, 0.8, 9).expand(3, 1, 9)
    graded = grade.apply(greys)
    assert (graded.amax(0) - graded.amin(0)).max() < 0.04


def test_another_scene_has_nothing_to_compare() -> None:
    first, later = shares_of(64), shares_of(0)
    grade = Tones.of(later, later * 0.5).grade(Tones.of(first, first))
    assert torch.equal(grade.matrix, torch.eye(3)) and not grade.offset.any()
    assert Tones.of(later, later).drift(Tones.of(first, first)).covered == 0


def test_a_grade_is_approached_in_even_parts(plate: Tensor) -> None:
    far = Grade(matrix=torch.diag(torch.tensor([1.2, 1.0, 0.8])), offset=torch.tensor([0.1, 0.0, -0.1]))
    half = Grade.neutral().towards(far, 0.5)
    assert torch.allclose(half.matrix, torch.diag(torch.tensor([1.1, 1.0, 0.9])))
    assert torch.allclose(half.offset, torch.tensor([0.05, 0.0, -0.05]))
    assert torch.equal(Grade.neutral().towards(far, 1.0).matrix, far.matrix)
    assert torch.allclose(Grade.neutral().towards(far, 1.5).offset, torch.tensor([0.15, 0.0, -0.15]))


def test_a_grade_touches_no_motion(plate: Tensor) -> None:
    grade = Grade(matrix=torch.tensor([[1.1, 0.0, 0.0], [0.1, 0.9, 0.0], [0.0, 0.2, 0.7]]), offset=torch.zeros(3))
    flow = torch.full((6, 2, 64, 64), 2.0)
    inside = (slice(None), slice(None), slice(0, 60), slice(0, 60))
    moved, graded = warp(grade.apply(plate * 0.5), flow)[inside], grade.apply(warp(plate * 0.5, flow))[inside]
    torch.testing.assert_close(moved, graded, rtol=0, atol=1e-6)


def test_a_flat_result_has_no_contrast_to_drift(plate: Tensor) -> None:
    flat = torch.zeros_like(plate)
    grade = Tones.of(plate, flat + 0.05).grade(Tones.of(plate, flat))
    assert torch.allclose(grade.matrix, torch.eye(3))
    assert torch.allclose(grade.offset, torch.full((3,), -0.05), atol=1e-6)
