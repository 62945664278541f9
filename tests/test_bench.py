# SPDX-License-Identifier: Apache-2.0
"""The benchmark of a machine, at its smallest."""

from __future__ import annotations

import json

import pytest
import torch

from fresco_backend.cli import main
from fresco_backend.commands import bench_models
from fresco_backend.commands.bench import SPEED, Stage, moving_plate


def test_every_stage_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--json", "--keyframes", "2", "--size", "64x64", "--no-guidance"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["seconds_per_keyframe"]) == {stage.value for stage in Stage}
    assert all(seconds > 0 for seconds in found["seconds_per_keyframe"].values())
    assert found["ratio_to_plain"] > 0
    assert found["run_ratio"] > 0
    assert found["peak_memory_bytes"] >= found["peak_memory_plain_bytes"] > 0
    assert (found["shape"], found["keyframes"], found["size"]) == ("embedded", 2, [64, 64])


def test_people_read_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--keyframes", "2", "--size", "64x64", "--no-guidance"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("embedded, 2 keyframes of 64x64 without guidance")
    assert any(line.startswith("FRESCO step") and line.endswith("x plain") for line in lines)


@pytest.mark.parametrize("words", [["--size", "500x512"], ["--size", "512"], ["--keyframes", "1"]])
def test_what_no_model_takes_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    assert words[0] in capsys.readouterr().err


def test_random_weights_keep_the_size_of_what_passes() -> None:
    net = bench_models.random_network(torch.nn.Conv2d, {"in_channels": 64, "out_channels": 64, "kernel_size": 3},
                               torch.device("cpu"), torch.float32)
    passed = net(torch.randn(1, 64, 16, 16))
    assert 0.7 < passed[..., 2:-2, 2:-2].std() < 1.3


def test_the_plate_moves_evenly() -> None:
    plate = moving_plate(3, 32, 48)
    step = round(SPEED)
    assert torch.equal(plate[1, :, :, :-step], plate[0, :, :, step:])
    assert plate.abs().max() <= 1
