# SPDX-License-Identifier: Apache-2.0
"""What `fresco doctor` says of good machines and of bad ones."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from fresco_backend.commands import doctor
from fresco_backend.commands.doctor import CHECKS, diagnose, examine
from fresco_backend.commands.finding import Concern, Verdict
from fresco_backend.models import model_files, model_store
from fresco_backend.render import free_memory
from fresco_protocol.errors import OutputDenied


@pytest.fixture(autouse=True)
def _scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FRESCO_SCRATCH", str(tmp_path / "scratch"))


def test_this_machine_has_what_the_tests_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCIO", raising=False)
    found = {name: examine(name, check) for name, check in CHECKS.items() if name != "model"}
    failed = {name: finding.text for name, finding in found.items() if finding.verdict is Verdict.FAIL}
    assert not failed
    assert "torch 2" in found["libraries"].text
    assert "openexr, tiff, png, jpeg" in found["images"].text
    assert "prores" in found["movies"].text


def test_findings_are_lines_with_advice_and_the_first_failure_is_the_exit_code(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> str:
        raise OutputDenied("it cannot be written", where="/scratch", remedy="Set FRESCO_SCRATCH.")

    monkeypatch.setattr(doctor, "CHECKS", {
        "python": lambda: "3.11", "memory": lambda: Concern(text="1.0 GiB free", remedy="Close other programs."),
        "scratch": broken})
    assert diagnose(as_json=False) == 4
    assert capsys.readouterr().out.splitlines() == [
        "ok    python      3.11", "warn  memory      1.0 GiB free", "                  Close other programs.",
        "fail  scratch     it cannot be written (/scratch)", "                  Set FRESCO_SCRATCH."]
    assert diagnose(as_json=True) == 4
    found = json.loads(capsys.readouterr().out)
    assert [finding["verdict"] for finding in found] == ["ok", "warn", "fail"]
    assert found[2]["remedy"] == "Set FRESCO_SCRATCH."


def test_a_concern_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", {"memory": lambda: Concern(text="little", remedy="Close.")})
    assert diagnose(as_json=True) == 0


@pytest.mark.parametrize("error", [ImportError("libGL.so.1"), OSError("cannot open"), RuntimeError("driver")])
def test_a_library_that_does_not_load_is_a_finding(error: Exception) -> None:
    def broken() -> str:
        raise error

    found = examine("images", broken)
    assert (found.verdict, found.exit_code) == (Verdict.FAIL, 1)
    assert str(error) in found.text
    assert found.remedy


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.LIBRARIES, "no_such_module", "no-such-package")
    found = examine("libraries", CHECKS["libraries"])
    assert found.verdict is Verdict.FAIL
    assert "no-such-package" in found.text


def test_scratch_that_is_a_file_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FRESCO_SCRATCH", str(tmp_path / "file"))
    found = examine("scratch", CHECKS["scratch"])
    assert (found.verdict, found.exit_code) == (Verdict.FAIL, 4)
    assert "FRESCO_SCRATCH" in str(found.remedy)


@pytest.mark.parametrize(("check", "limit"), [("scratch", "LEAST_SCRATCH"), ("memory", "LEAST_MEMORY")])
def test_little_room_is_a_concern(check: str, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRESCO_DEVICE", "cpu")
    monkeypatch.setattr(free_memory, "free_memory", lambda _device: 2**34)
    assert examine(check, CHECKS[check]).verdict is Verdict.OK
    monkeypatch.setattr(doctor, limit, 2**70)
    assert examine(check, CHECKS[check]).verdict is Verdict.WARN


def test_a_colour_configuration_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCIO", str(tmp_path / "config.ocio"))
    assert (examine("color", CHECKS["color"]).verdict, examine("color", CHECKS["color"]).exit_code) == (Verdict.FAIL, 6)
    (tmp_path / "config.ocio").touch()
    assert examine("color", CHECKS["color"]).verdict is Verdict.OK


def test_a_gpu_that_torch_does_not_see_is_a_concern(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    found = examine("device", CHECKS["device"])
    assert found.verdict is Verdict.WARN
    assert "NVIDIA" in found.text


@pytest.mark.parametrize(("problem", "verdict"), [(None, Verdict.OK), ("no C compiler", Verdict.WARN)])
def test_a_gpu_says_whether_its_features_are_optimised_the_fast_way(
    problem: str | None, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fresco_backend.models.device.choose_device", lambda: torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr("fresco_backend.engine.fused.problem", lambda device, dtype: problem)
    found = examine("device", CHECKS["device"])
    assert found.verdict is verdict
    assert "Some GPU" in found.text
    assert (problem or "fused") in found.text


def test_an_embedded_model_without_or_with_wrong_hashes_fails(tiny_model: Path, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    monkeypatch.setattr(model_store, "EMBEDDED_FOLDER", model)
    assert "SHA256SUMS" in examine("model", CHECKS["model"]).text
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    sums = model / model_files.CHECKSUMS
    sums.write_text(f"{model_files.sha256(weights)}  unet/{weights.name}\n", encoding="utf-8")
    assert examine("model", CHECKS["model"]).verdict is Verdict.OK
    sums.write_text(f"{'0' * 64}  unet/{weights.name}\n", encoding="utf-8")
    found = examine("model", CHECKS["model"])
    assert (found.verdict, found.exit_code) == (Verdict.FAIL, 7)
    assert found.remedy == doctor.REINSTALL
