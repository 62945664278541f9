# SPDX-License-Identifier: Apache-2.0
"""The script for looks whose drift is known: its figures mean what they say."""

from __future__ import annotations

from pathlib import Path

import known_drift
import pytest
import torch
from shots import write_plate

import tiny
from fresco_backend.engine import tones
from fresco_backend.engine.tones import Tones


def test_each_clip_has_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plate = write_plate(tmp_path / "plate", 5)
    known_drift.main([str(plate)])
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if plate.name in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == len(known_drift.HEADER)
    assert cells[1] == "100 %", "of five frames head and tail are the same"
    assert cells[2] == cells[3] == "0.0 / 0.0, 0.0 / 0.0", "then nothing drifts, and nothing is graded"
    assert cells[4] != cells[5]


def test_luma_alone_knows_no_hues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tones, "HUES", tones.HUES)
    known_drift.main([str(write_plate(tmp_path / "plate", 2)), "--luma-alone"])
    image = tiny.moving_plate(2, 32).images()
    assert len(Tones.of(image, image).table) == tones.LEVELS


def test_a_difference_is_of_mean_and_contrast() -> None:
    image = tiny.moving_plate(2, 32).images() * 0.5
    colour, contrast = known_drift.difference(image * 0.9 + torch.tensor([0.1, 0.0, 0.0])[:, None, None], image)
    assert colour == pytest.approx(float((image.mean((0, 2, 3)) * -0.1 + torch.tensor([0.1, 0, 0])).abs().max()) / 2)
    assert contrast == pytest.approx(0.1, abs=1e-5)


def test_every_look_stays_in_range_and_every_drift_is_seen() -> None:
    plate = tiny.moving_plate(2, 32).images()
    for look in known_drift.LOOKS.values():
        painted = look(plate)
        assert painted.shape == plate.shape and painted.abs().max() <= 1 + 1e-6
    for change in known_drift.DRIFTS.values():
        assert max(known_drift.difference(change(plate), plate)) > 0.02
