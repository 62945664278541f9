# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fresco_backend import settings
from fresco_protocol.errors import UsageError

LINUX_ONLY = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the XDG specification is for Linux")


@LINUX_ONLY
def test_defaults_follow_the_xdg_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    assert settings.scratch_folder() == tmp_path / "XDG_CACHE_HOME/fresco/scratch"
    assert settings.models_folder() == tmp_path / "XDG_DATA_HOME/fresco/models"
    assert settings.connection_file() == tmp_path / "XDG_RUNTIME_DIR/fresco/connection.json"
    assert not list(tmp_path.iterdir()), "asking for a folder must not make it"


@LINUX_ONLY
@pytest.mark.parametrize("stated", ["", "relative/folder"])
def test_an_empty_or_relative_xdg_folder_is_ignored(stated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/artist")
    monkeypatch.setenv("XDG_CACHE_HOME", stated)
    assert settings.scratch_folder() == Path("/home/artist/.cache/fresco/scratch")


def test_macos_and_windows_have_their_own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert settings.models_folder() == Path.home() / "Library/Application Support/fresco/models"
    assert settings.scratch_folder() == Path.home() / "Library/Caches/fresco/scratch"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert settings.scratch_folder() == tmp_path / "fresco/scratch"


def test_fresco_variables_win_and_are_read_at_each_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in ("first", "second"):
        monkeypatch.setenv("FRESCO_SCRATCH", str(tmp_path / folder))
        monkeypatch.setenv("FRESCO_MODELS", str(tmp_path / folder))
        monkeypatch.setenv("FRESCO_CONNECTION", str(tmp_path / folder / "c.json"))
        assert settings.scratch_folder() == settings.models_folder() == tmp_path / folder
        assert settings.connection_file() == tmp_path / folder / "c.json"


@pytest.mark.parametrize(("word", "answer"), [("1", True), ("Yes", True), ("0", False), ("off", False), ("", False)])
def test_offline_understands_yes_and_no(word: str, answer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRESCO_OFFLINE", word)
    assert settings.offline() is answer


def test_offline_refuses_another_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRESCO_OFFLINE", "maybe")
    with pytest.raises(UsageError, match="FRESCO_OFFLINE"):
        settings.offline()


def test_device_name_is_auto_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.device_name() == "auto"
    monkeypatch.setenv("FRESCO_DEVICE", "CUDA:1")
    assert settings.device_name() == "cuda:1"


def test_settings_never_bring_in_torch() -> None:
    program = "import sys; sys.path[:0] = sys.argv[1:]; import fresco_backend.settings; print('torch' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", program, *sys.path], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.strip() == "False"


def test_unfinished_work_lies_beside_the_delivery_unless_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert settings.shot_scratch(tmp_path / "out") == tmp_path / "out" / ".fresco"
    monkeypatch.setenv("FRESCO_SCRATCH", str(tmp_path / "fast"))
    assert settings.shot_scratch(tmp_path / "out") == tmp_path / "fast"
