# SPDX-License-Identifier: Apache-2.0
"""The samplers' script: it runs on a small model and plate, and prints one row for each sampler and number of steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import samplers
from shots import write_plate


def test_every_sampler_and_number_of_steps_has_a_row(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samplers, "LIMIT", 20)
    plate = write_plate(tmp_path / "plate", 1)
    samplers.main(["--plate", str(plate), "--frames", "1001", "--model", str(tiny_model), "--size", "64",
                   "--steps", "2", "10", "--prompts", "a photo"])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["ddim", "2"], ["ddim", "10"], ["dpm++", "2"], ["dpm++", "10"]]
    quality = {(row[0], row[1]): float(row[2]) for row in rows}
    assert quality["dpm++", "10"] > quality["dpm++", "2"]
    assert quality["ddim", "10"] > quality["ddim", "2"]
