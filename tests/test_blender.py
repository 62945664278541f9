# SPDX-License-Identifier: Apache-2.0
"""The extension in real Blenders, with a real server: one process for each scenario below blender/.

`python tests/blender/install.py` gets the Blenders; `make test` does that first. Without them these tests are skipped.
The oldest and the newest that are there are played; with FRESCO_BLENDERS=all every one, for which CI has not the
time.
"""
from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from blender.footage import write_footage
from blender.install import installed, python_of
from servers import Process

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "blender" / "scenarios.py"
PATIENCE = 400  # seconds for one scenario on a busy machine
ALONE = "server_killed"  # with a server of its own
ONCE = ("backend_installed", "server_hangs", "an_unreadable_row", "models_and_presets", "names_of_sequences",
        "every_operator_is_whole", "progress_says_what_it_counts", "programs_of_a_desktop",
        "folders_of_the_jobs", "folders_as_people_type_them")
# those say little about Blender, and take long together
STUDIO = "ocio://studio-config-v2.1.0_aces-v1.3_ocio-v2.3"
VERSIONS = installed() if os.environ.get("FRESCO_BLENDERS") == "all" else sorted({*installed()[:1], *installed()[-1:]})
SCENARIOS = [node.name for path in sorted(SCRIPT.parent.glob("*_scenarios.py"))
             for node in ast.parse(path.read_text(encoding="utf-8")).body
             if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension, built as for people."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, str(ROOT / "host_plugins" / "package.py"), "--host", "blender", "--out", str(out)],
                   check=True, capture_output=True)
    return next(out.glob("*.zip"))


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server that may use its folder, and footage in it."""
    folder = tmp_path_factory.mktemp("studio")
    write_footage(folder / "footage")
    yield from serving(folder)


def serving(folder: Path) -> Iterator[Process]:
    """`fresco serve` in a process of its own."""
    (folder / "state").mkdir()
    server = Process(folder=folder, words=("--device", "cpu"))
    server.start()
    try:
        yield server
    finally:
        if server.child is not None:
            server.child.send_signal(signal.SIGTERM)
            server.child.wait(60)


def play(version: str, scenario: str, archive: Path, server: Process, work: Path, **variables: str) -> None:
    """Runs a scenario; fails with its output."""
    work.mkdir(parents=True)
    environment = {**os.environ, **variables, "BLENDER_USER_RESOURCES": str(work / "user"), "OMP_NUM_THREADS": "1",
                   "FRESCO_QUEUE": str(server.folder / "state" / "queue.sqlite"),
                   "FRESCO_TEST_PYTHON": sys.executable}
    words = [str(python_of(version)), "-W", "ignore", str(SCRIPT), scenario, str(archive), server.file,
             str(server.folder / "footage"), str(work)]
    run = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.returncode == 0, f"{run.stdout[-2000:]}\n{run.stderr[-4000:]}\n{server.log.read_text()[-2000:]}"


def test_continuous_integration_has_two_versions_of_blender() -> None:
    assert not os.environ.get("CI") or len(VERSIONS) >= 2, "run tests/blender/install.py"


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name not in (ALONE, *ONCE)])
@pytest.mark.parametrize("version", VERSIONS)
def test_scenario(version: str, scenario: str, archive: Path, studio: Process) -> None:
    play(version, scenario, archive, studio, studio.folder / version / scenario)


@pytest.mark.parametrize("scenario", ONCE)
@pytest.mark.parametrize("version", VERSIONS[-1:])
def test_scenario_on_the_newest(version: str, scenario: str, archive: Path, studio: Process) -> None:
    play(version, scenario, archive, studio, studio.folder / version / scenario)


@pytest.mark.parametrize("scenario", ["sequence_from_1001", "strip_as_matte"])
@pytest.mark.parametrize("version", VERSIONS[-1:])
def test_scenario_in_the_colours_of_a_studio(version: str, scenario: str, archive: Path, studio: Process) -> None:
    """A configuration of ACES, whose names are not Blender's, and where EXR files are ACES2065-1."""
    play(version, scenario, archive, studio, studio.folder / version / f"{scenario}_aces", OCIO=STUDIO)


@pytest.mark.parametrize("version", VERSIONS[-1:])
def test_a_killed_server_loses_nothing(version: str, archive: Path, tmp_path: Path) -> None:
    write_footage(tmp_path / "footage")
    for server in serving(tmp_path):
        play(version, ALONE, archive, server, tmp_path / "work")


@pytest.mark.parametrize("version", VERSIONS)
def test_blender_itself_finds_the_extension_valid(version: str, archive: Path) -> None:
    program = next(python_of(version).parents[1].rglob("blender_ext.py"))
    run = subprocess.run([str(python_of(version)), str(program), "validate", str(archive)], capture_output=True,
                         text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_file_stands_in_the_plan() -> None:
    page = (ROOT / "host_plugins" / "blender" / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in (ROOT / "host_plugins" / "blender").glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"^\| `(\w+\.py)` \|", page, re.MULTILINE)) == files
