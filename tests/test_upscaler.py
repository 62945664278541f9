# SPDX-License-Identifier: Apache-2.0
"""A learned upsampler: a small network made on the spot, its tiles, and what is said of a file that is none."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from shots import rendered, small_shot, with_delivery, with_look, write_plate
from torch import Tensor

from fresco_backend.files.frames import Size, read_frame
from fresco_backend.pixels import upscaler
from fresco_backend.render.job import open_job
from fresco_protocol.errors import UsageError, WeightsMissing, WeightsRefused, WeightsUnsupported

SCALE, WIDTH, BIAS = 2, 8, 0.125


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A "Real-ESRGAN Compact" whose last layer only adds a number: twice the size by repetition, and brighter."""
    shapes = {"0": (WIDTH, 3), "2": (WIDTH, WIDTH), "4": (3 * SCALE**2, WIDTH)}
    state = {f"body.{number}.weight": torch.zeros(*shape, 3, 3) for number, shape in shapes.items()}
    state |= {f"body.{number}.bias": torch.zeros(shape[0]) for number, shape in shapes.items()}
    state |= {f"body.{number}.weight": torch.ones(WIDTH) for number in (1, 3)}
    state["body.4.bias"] += BIAS
    path = tmp_path / "2x.safetensors"
    save_file(state, path)
    return path


@pytest.fixture
def _spandrel() -> None:
    try:
        importlib.import_module("spandrel")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f'the extra "upscale" is not installed, or not with this torch: {error}')


@pytest.mark.usefixtures("_spandrel")
def test_a_picture_is_enlarged_by_the_network_and_fitted_to_the_plate(file: Path) -> None:
    upscaler.require(str(file))
    small = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(0)) - 0.5
    twice = upscaler.enlarged(str(file), small, Size(60, 40))
    expected = F.interpolate(small, scale_factor=2) + 2 * BIAS
    assert (twice - expected.clamp(-1, 1)).abs().max() < 1e-5
    assert upscaler.enlarged(str(file), small, Size(75, 50)).shape == (1, 3, 50, 75)


@pytest.mark.usefixtures("_spandrel")
def test_tiles_make_the_picture_that_one_call_makes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = torch.rand(1, 3, 300, 530, generator=torch.Generator().manual_seed(1)) - 0.5
    seen: list[tuple[int, ...]] = []
    network = upscaler._network(str(file), file.stat().st_mtime_ns)
    call = type(network).__call__

    def counted(self: object, image: Tensor) -> Tensor:
        seen.append(tuple(image.shape[2:]))
        result: Tensor = call(self, image)
        return result

    monkeypatch.setattr(type(network), "__call__", counted)
    large = upscaler.enlarged(str(file), small, Size(1060, 600))
    assert set(seen) == {(256, 256)} and len(seen) == 6
    assert (large - (F.interpolate(small, scale_factor=2) + 2 * BIAS).clamp(-1, 1)).abs().max() < 1e-5


@pytest.mark.usefixtures("_spandrel")
def test_a_shot_is_delivered_through_it_and_depends_on_its_file(file: Path, tmp_path: Path, tiny_model: Path) -> None:
    plate = write_plate(tmp_path / "plate", 1)
    shot = with_look(small_shot(plate, tiny_model, tmp_path / "out" / "look.####.exr"), strength=0.5)
    plain = with_delivery(shot, working_size=64, sequence=str(tmp_path / "plain" / "look.####.exr"))
    learned = with_delivery(plain, upscaler=str(file), sequence=str(tmp_path / "learned" / "look.####.exr"))
    for each in (plain, learned):
        rendered(each)
    dark, bright = (read_frame(tmp_path / name / "look.1001.exr").pixels.mean() for name in ("plain", "learned"))
    assert bright > dark, "the network makes all brighter"
    before = open_job(learned).identity
    state = file.read_bytes()
    file.write_bytes(state[:-1] + bytes([state[-1] ^ 1]))
    assert open_job(learned).identity != before


@pytest.mark.usefixtures("_spandrel")
def test_tensors_of_something_else_are_no_upsampler(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsUnsupported, match="no upsampler"):
        upscaler.require(str(tmp_path / "other.safetensors"))
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(WeightsRefused, match="cannot be read"):
        upscaler.require(str(tmp_path / "torn.safetensors"))


def test_a_file_that_is_missing_or_may_run_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="no such upscaler") as missing:
        upscaler.require(str(tmp_path / "4x.safetensors"))
    assert "Real-ESRGAN" in (missing.value.remedy or "")
    (tmp_path / "4x.pth").write_bytes(b"")
    with pytest.raises(WeightsRefused, match="can run code"):
        upscaler.require(str(tmp_path / "4x.pth"))


def test_without_the_package_it_says_how_to_get_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(UsageError, match="needs the package spandrel") as refusal:
        upscaler.require(str(file))
    assert "fresco-post[upscale]" in (refusal.value.remedy or "")
