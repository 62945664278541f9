# SPDX-License-Identifier: Apache-2.0
"""The archives that people install: reproducible, whole, and free of anything that a host does not have."""
from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def _package() -> ModuleType:
    spec = importlib.util.spec_from_file_location("package", ROOT / "host_plugins" / "package.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


package = _package()


@pytest.mark.parametrize("host", sorted(package.HOSTS))
def test_the_same_source_gives_the_same_bytes(host: str, tmp_path: Path) -> None:
    first, second = package.build(host, tmp_path / "a"), package.build(host, tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    assert not list(tmp_path.rglob("*.part"))


def test_the_extension_carries_the_protocol_as_a_part_of_itself(tmp_path: Path) -> None:
    with zipfile.ZipFile(package.build("blender", tmp_path)) as archive:
        names = archive.namelist()
        assert {"blender_manifest.toml", "__init__.py", "LICENSE", "timeline.py", "fresco_protocol/client.py",
                "fresco_protocol/LICENSE"} <= set(names)
        assert not [name for name in names if name.endswith((".whl", ".so", ".pyd"))]
        client = archive.read("fresco_protocol/client.py").decode()
        timeline = archive.read("timeline.py").decode()
    assert "from .connection import" in client and "from fresco_protocol" not in client
    assert "from .fresco_protocol.errors import" in timeline


@pytest.mark.parametrize(("name", "source", "sentence"), [
    ("panels.py", "import numpy", "panels.py imports numpy"),
    ("panels.py", "from fresco_protocol import shot", "panels.py imports fresco_protocol"),
    ("panels.py", "match x:\n    case 1: pass", "is not Python 3.9"),
    ("blender_manifest.toml", 'tagline = "It ends with a stop."', "tagline is one sentence"),
    ("blender_manifest.toml", 'wheels = ["a.whl"]', "names wheels"),
    ("blender_manifest.toml", 'id = "fresco"', "lacks version"),
])
def test_what_a_host_would_refuse_is_not_built(name: str, source: str, sentence: str) -> None:
    files = {**package.blender_files(), name: source.encode()}
    assert any(sentence in problem for problem in package.problems("blender", files))
    assert not package.problems("blender", package.blender_files())


def test_an_archive_without_its_license_is_not_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {name: data for name, data in package.blender_files().items() if name != "LICENSE"}
    monkeypatch.setattr(package, "blender_files", lambda: files)
    with pytest.raises(SystemExit, match="LICENSE is missing"):
        package.build("blender", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_names_what_it_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert package.main(["--out", str(tmp_path), "--host", "blender"]) == 0
    assert Path(capsys.readouterr().out.strip()).is_file()
