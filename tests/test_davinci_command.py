# SPDX-License-Identifier: Apache-2.0
"""`fresco resolve` from a terminal: stylize, redo, place, install, uninstall, doctor."""
from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import burnt
import pytest
from davinci import Cut, edited, item_of, numbers, state
from resolve_double import World
from router import Router
from test_client import PYTHONS, interpreter

from fresco_backend import cli
from fresco_davinci import commands, doctor, installation, service
from fresco_davinci.clip import Progress
from fresco_davinci.service import connected, fresco_command
from fresco_davinci.stylisation import read_record
from fresco_protocol.client import Client
from fresco_protocol.errors import InputError, ServerMissing
from fresco_protocol.events import JobChanged
from fresco_protocol.job import JobState
from fresco_protocol.messages import Submit

ROOT = Path(__file__).parents[1]


class Deliverer(Router):
    """A server that delivers every shot at once: it writes pictures with the numbers of the plate's frames."""

    def _reply(self, client: bytes, request: Any) -> Any:
        reply: Any = super()._reply(client, request)
        if isinstance(request, Submit):
            frames = request.shot.plate.frames
            assert frames is not None
            folder, name = Path(request.shot.delivery.sequence).parent, Path(request.shot.delivery.sequence).suffix
            burnt.write_sequence(folder, frames[0].numbers(), f"look.%08d{name}")
            ended = replace(reply.record, state=JobState.DELIVERED)
            self.emit(lambda number: JobChanged(number=number, time=time.time(), job=ended.id, record=ended))
        return reply


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A Studio that this terminal reaches, as its own Python module lets it, with a server behind."""
    world = World((21, 0, 4))
    edited(world, tmp_path)
    modules = tmp_path / "scripting" / "Modules"
    modules.mkdir(parents=True)
    (modules / "DaVinciResolveScript.py").write_text("answer = None\ndef scriptapp(name): return answer\n")
    monkeypatch.setenv("RESOLVE_SCRIPT_API", str(modules.parent))
    monkeypatch.syspath_prepend(str(modules))
    monkeypatch.delitem(sys.modules, "DaVinciResolveScript", raising=False)
    import DaVinciResolveScript  # type: ignore[import-not-found]

    DaVinciResolveScript.answer = world.resolve
    monkeypatch.setattr(commands, "TICK", 0.01)
    with Deliverer() as router:
        monkeypatch.setenv("FRESCO_CONNECTION", router.write_connection(tmp_path))
        yield world
    sys.modules.pop("DaVinciResolveScript", None)
    assert world.violations == []


def called(*words: str) -> int:
    """The exit code of `fresco resolve ...`."""
    return cli.main(["resolve", *words])


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The JSON lines on stdout."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_stylize_and_redo_from_a_terminal(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert called("stylize", "--prompt", "a comic", "--strength", "0.3", "--folder", out, "--json") == 0
    found = events(capsys)
    assert [event["event"] for event in found][-1] == "placed"
    assert {event["phase"] for event in found if event["event"] == "progress"} >= {"extracting", "queued"}
    record = read_record(f"{found[-1]['folder']}/fresco.json")
    assert (record.wish.look.prompt, record.wish.look.strength) == ("a comic", 0.3)
    assert called("redo", "--prompt", "a mosaic") == 0
    second = read_record(f"{Path(record.folder).with_name('v002')}/fresco.json")
    assert (second.wish.look.prompt, second.wish.look.strength, second.placed) == ("a mosaic", 0.3, record.placed)
    assert "version 2 in" in capsys.readouterr().err


def test_every_option_reaches_the_wish(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("stylize", "--prompt", "a comic", "--input", "source", "--place", "pool", "--frames", "2-3",
                  "--handles", "2", "--color-space", "ACEScct", "--folder", str(tmp_path / "out"), "--json") == 0
    record = read_record(f"{events(capsys)[-1]['folder']}/fresco.json")
    assert record.shot is not None
    assert [str(frames) for frames in record.shot.plate.frames or ()] == ["1006-1007"]
    assert (record.shot.delivery.handles, record.shot.plate.color_space) == (2, "ACEScct")
    assert record.shot.delivery.color_space == "ACEScct"


def test_a_result_that_resolve_missed_is_placed_later(world: World, tmp_path: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    assert called("stylize", "--prompt", "a comic", "--folder", str(tmp_path / "out"), "--json") == 0
    path = f"{events(capsys)[-1]['folder']}/fresco.json"
    world.timeline.tracks["video"][1].items.clear()
    assert called("place", path) == 0
    record = read_record(path)
    assert (item_of(world, record).start, numbers(item_of(world, record))) == (86410, [1, 2, 3, 4])


def test_what_the_user_should_know_is_said_after_a_failure_too(world: World, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    real = type(world.pool).do_AppendToTimeline
    monkeypatch.setattr(type(world.pool), "do_AppendToTimeline", lambda *_: [None])
    assert called("stylize", "--prompt", "a comic", "--folder", str(tmp_path / "out")) == 71
    said = capsys.readouterr().err
    assert "is delivered and not placed" in said
    monkeypatch.setattr(type(world.pool), "do_AppendToTimeline", real)
    assert called("place", said.split('fresco resolve place "')[1].split('"')[0]) == 0
    assert [item.start for item in world.timeline.tracks["video"][1].items] == [86410]


def test_a_still_from_a_terminal(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("stylize", "--prompt", "a comic", "--still", "--folder", str(tmp_path / "out"), "--json") == 0
    assert events(capsys)[-1]["event"] == "delivered"
    world.timeline.playhead = 400
    world.timeline.items()[0].selected = True
    assert called("stylize", "--prompt", "a comic", "--still") == 2


@pytest.mark.parametrize(("words", "code", "said"), [
    (["stylize"], 2, "needs a prompt"), (["stylize", "--prompt", "a", "--strength", "3"], 2, "look.strength"),
    (["stylize", "--prompt", "a", "--frames", "x"], 2, "1001-1048"),
    (["stylize", "--prompt", "a", "--matte", "x"], 2, "track:N"),
    (["stylize", "--prompt", "a", "--handles", "3"], 2, "has no handles"),
    (["stylize", "--prompt", "a", "--folder", "100% new"], 2, 'a "%" in a folder'),
    (["redo"], 3, "no result of Fresco"),
    (["place", "/nowhere/fresco.json"], 3, "cannot be read")])
def test_what_is_wrong_is_one_sentence_and_an_exit_code(world: World, words: list[str], code: int, said: str,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    assert called(*words) == code
    assert said in capsys.readouterr().err


def test_without_a_resolve_the_way_round_is_told(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    sys.modules["DaVinciResolveScript"].answer = None  # type: ignore[attr-defined]
    assert called("stylize", "--prompt", "a comic") == 71
    said = capsys.readouterr().err
    assert "External scripting using" in said
    assert "fresco otio" in said


def test_without_its_module_the_way_round_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RESOLVE_SCRIPT_API", str(tmp_path))
    assert called("stylize", "--prompt", "a comic") == 71
    assert "RESOLVE_SCRIPT_LIB" in capsys.readouterr().err


def test_the_doctor_compares_a_resolve_with_the_table(world: World, tmp_path: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    world.timeline.playhead = 11
    before = (world.project.current, list(world.project.timelines), list(world.pool.root.clips))
    assert called("doctor", "-o", str(report), "--probe") == 0
    found = json.loads(report.read_text())["resolve"]
    assert (found["edition"], found["lacking"], found["not examined"]) == ("DaVinci Resolve Studio 21.0.4", [], [])
    assert found["probe"]["append"]["endFrame"] == "exclusive"
    assert (found["probe"]["append"]["start"], found["probe"]["append"]["speed in OTIO"]) == (0, 1)
    assert (world.project.current, world.project.timelines, world.pool.root.clips) == before


def test_the_doctor_names_what_a_release_lacks_and_how_it_counts(tmp_path: Path) -> None:
    world = World((18, 6), studio=False)
    edited(world, tmp_path)
    world.end_exclusive = False
    report = doctor.examine(world.resolve, probing=True)
    assert "Project.DeleteRenderPreset (since 19.1)" in report["lacking"]
    assert "Timeline.GetSelectedClips (since 21.0.4)" in report["lacking"]
    assert report["probe"]["append"]["endFrame"] == "inclusive"
    assert world.violations == []


def test_the_doctor_reports_without_a_resolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESOLVE_SCRIPT_API", str(tmp_path))
    assert called("doctor", "-o", str(tmp_path / "report.json")) == 71
    report = json.loads((tmp_path / "report.json").read_text())
    assert "does not load" in report["resolve"]["failed"]
    assert report["environment"] == {"RESOLVE_SCRIPT_API": str(tmp_path)}


def tree(folder: Path) -> set[str]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_report_that_cannot_be_written_is_told(world: World, tmp_path: Path,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    assert called("doctor", "-o", str(tmp_path / "none" / "report.json")) == 4
    assert "the report cannot be written: No such file or directory" in capsys.readouterr().err


def test_install_and_uninstall_leave_other_peoples_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fusion = tmp_path / "Fusion"
    other = fusion / "Scripts" / "Edit" / "Other.py"
    other.parent.mkdir(parents=True)
    other.touch()
    assert called("install", "--fusion", str(fusion)) == 0
    assert {"Scripts/Edit/Fresco.py", "Scripts/Utility/Fresco.py", "Scripts/Edit/Fresco (OTIO).lua",
            "Modules/Fresco/fresco_davinci/timeline/collect.py", "Modules/Fresco/fresco_protocol/client.py",
            "Modules/Fresco/command.txt"} <= tree(fusion)
    assert "Workspace > Scripts > Fresco" in capsys.readouterr().err
    stale = fusion / "Modules/Fresco/fresco_davinci/__pycache__"
    stale.mkdir()
    (stale / "a.pyc").touch()
    assert called("install", "--fusion", str(fusion)) == 0
    assert called("uninstall", "--fusion", str(fusion), "--json") == 0
    assert tree(fusion) == {"Scripts/Edit/Other.py"}
    assert not (fusion / "Modules" / "Fresco").exists()
    assert called("uninstall", "--fusion", str(fusion)) == 3


@pytest.mark.parametrize("receipt", ["", "{", "7", "null", "{}", "[1, 2]", '["Scripts/Edit/Other.py"]', None])
def test_a_damaged_receipt_is_no_obstacle(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                          receipt: str | None) -> None:
    fusion, stranger = tmp_path / "Fusion", tmp_path / "stranger.txt"
    stranger.touch()
    other = fusion / "Scripts" / "Edit" / "Other.py"
    other.parent.mkdir(parents=True)
    other.touch()
    damaged = json.dumps([str(stranger), "Modules/Fresco/installed.json"]) if receipt is None else receipt
    for again in ("install", "uninstall"):
        assert called("install", "--fusion", str(fusion)) == 0
        (fusion / "Modules/Fresco/fresco_davinci/of_an_older_release.py").touch()
        (fusion / "Modules/Fresco/installed.json").write_text(damaged)
        assert called(again, "--fusion", str(fusion)) == 0, capsys.readouterr().err
        assert not (fusion / "Modules/Fresco/fresco_davinci/of_an_older_release.py").exists()
    assert (tree(fusion), stranger.exists()) == ({"Scripts/Edit/Other.py"}, True)


def test_half_an_installation_is_taken_away_again(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    fusion = tmp_path / "Fusion"
    blocked = fusion / "Modules/Fresco/fresco_protocol"
    blocked.parent.mkdir(parents=True)
    blocked.touch()
    assert called("install", "--fusion", str(fusion)) == 4
    assert str(blocked) in capsys.readouterr().err, "which file it is"
    assert "Scripts/Edit/Fresco.py" in tree(fusion)
    blocked.unlink()
    assert called("uninstall", "--fusion", str(fusion)) == 0
    assert tree(fusion) == set()
    monkeypatch.setattr("shutil.copyfile", refuses)
    assert called("install", "--fusion", str(fusion)) == 4
    assert "sudo" in capsys.readouterr().err


def refuses(*_: object) -> None:
    raise PermissionError(13, "Permission denied", "/opt/resolve/Fusion")


def test_a_folder_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "Fusion").touch()
    assert called("install", "--fusion", str(tmp_path / "Fusion")) == 4


@pytest.mark.parametrize(("platform", "everybody", "folder"), [
    ("linux", False, ".local/share/DaVinciResolve/Fusion"), ("linux", True, "/opt/resolve/Fusion"),
    ("darwin", False, "Library/Application Support/Blackmagic Design/DaVinci Resolve/Fusion"),
    ("darwin", True, "/Library/Application Support/Blackmagic Design/DaVinci Resolve/Fusion"),
    ("win32", False, "Roaming/Blackmagic Design/DaVinci Resolve/Support/Fusion"),
    ("win32", True, "/ProgramData/Blackmagic Design/DaVinci Resolve/Fusion")])
def test_each_system_has_its_folder(platform: str, everybody: bool, folder: str, tmp_path: Path,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path / "Roaming"))
    monkeypatch.setenv("PROGRAMDATA", "/ProgramData")
    assert installation.fusion_folder(everybody=everybody) == tmp_path / folder
    assert "3.10 to 3.12" in installation.python_of_resolve()


INSTALLED = """
    import runpy
    class Resolve:
        def GetProductName(self): return "DaVinci Resolve"
        def GetVersion(self): return [21, 0, 4, 1, ""]
    runpy.run_path({script!r}, init_globals={{"resolve": Resolve(), "fusion": None, "bmd": None}})
    """


@pytest.mark.parametrize("version", PYTHONS)
def test_the_installed_menu_entry_finds_its_packages(version: str, tmp_path: Path) -> None:
    """As Resolve runs it: in another Python, from any folder, without this project's paths."""
    fusion = tmp_path / ".local/share/DaVinciResolve/Fusion"
    installation.install(fusion, ["fresco"])
    program = textwrap.dedent(INSTALLED).format(script=str(fusion / "Scripts/Edit/Fresco.py"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    python = interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed here")
    run = subprocess.run([python, "-I", "-S", "-c", program], env={**environment, "HOME": str(tmp_path)}, cwd="/",
                         capture_output=True, text=True, check=False, timeout=60)
    assert "opens no windows" in run.stdout, run.stderr


def test_without_its_packages_the_menu_entry_says_so(tmp_path: Path) -> None:
    script = ROOT / "host_plugins" / "davinci" / "fresco_davinci" / "scripts" / "Fresco.py"
    run = subprocess.run([sys.executable, "-I", "-S", str(script)], env={"HOME": str(tmp_path)}, capture_output=True,
                         text=True, check=True)
    assert "fresco resolve install" in run.stdout


def test_the_command_is_the_stated_one_the_installers_or_the_search_paths(tmp_path: Path,
                                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "__file__", str(tmp_path / "Fresco" / "fresco_davinci" / "service.py"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerMissing):
        fresco_command()
    (tmp_path / "fresco").touch(mode=0o755)
    assert fresco_command() == [str(tmp_path / "fresco")]
    (tmp_path / "Fresco").mkdir()
    (tmp_path / "Fresco" / "command.txt").write_text("/a b/python\n-m\nfresco_backend.cli\n")
    assert fresco_command() == ["/a b/python", "-m", "fresco_backend.cli"]
    monkeypatch.setenv("FRESCO_COMMAND", "/other/fresco")
    assert fresco_command() == ["/other/fresco"]


@pytest.mark.parametrize("stated", ["", "/mnt/show"])
def test_a_server_is_started_where_none_runs(tmp_path: Path, stated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRESCO_ROOTS", stated)
    monkeypatch.setenv("PYTHONHOME", "/the/python/of/resolve")
    with Router() as router:
        path = tmp_path / "connection.json"
        starter = tmp_path / "fresco"
        starter.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/arguments\n"
                           f"echo \"home $PYTHONHOME\" > {tmp_path}/python\ncp {tmp_path}/ready.json {path}\n"
                           f"chmod 600 {path}\nsleep 2\n")
        starter.chmod(0o755)
        (tmp_path / "ready.json").write_text(router.connection.to_json())
        with Client(str(path), software="tests") as client:
            said: list[Progress] = list(connected(client, [str(starter)], ["/show"]))
            assert client.connect().software == "router 0"
        assert said[0].text == "starting the server"
        arguments = (tmp_path / "arguments").read_text()
        assert arguments.startswith("serve --idle-exit 30")
        assert arguments.endswith("--root /show\n") is not bool(stated)
        assert (tmp_path / "python").read_text() == "home \n"


def test_a_server_that_does_not_start_is_told(tmp_path: Path) -> None:
    with Client(str(tmp_path / "connection.json"), software="tests") as client, \
            pytest.raises(ServerMissing, match="did not start"):
        for _ in connected(client, ["false"]):
            time.sleep(0.05)


def test_a_command_that_is_gone_is_told(tmp_path: Path) -> None:
    """The environment that the installer noted was moved or deleted."""
    with Client(str(tmp_path / "connection.json"), software="tests") as client, \
            pytest.raises(ServerMissing, match="cannot be started") as missing:
        next(connected(client, [str(tmp_path / "gone/bin/python"), "-m", "fresco_backend.cli"]))
    assert (missing.value.where, "fresco resolve install" in str(missing.value.remedy)) == (
        str(tmp_path / "gone/bin/python"), True)


def test_a_record_that_is_damaged_is_told(tmp_path: Path) -> None:
    (tmp_path / "fresco.json").write_text('{"clip": 1}')
    with pytest.raises(InputError, match="cannot be read"):
        read_record(str(tmp_path / "fresco.json"))


def test_two_clips_from_a_terminal(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = edited(world, tmp_path / "second", Cut(start=40, first=2001))
    for item in world.timeline.items():
        item.selected = True
    assert called("stylize", "--prompt", "a comic", "--folder", str(tmp_path / "out")) == 0
    assert [item.start for item in world.timeline.tracks["video"][1].items] == [86410, other.start]
    assert capsys.readouterr().err.count("version 1 in") == 2


def packager() -> Any:
    """host_plugins/package.py, which is a program and no module of a package."""
    spec = importlib.util.spec_from_file_location("package", ROOT / "host_plugins" / "package.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_archive_is_what_the_installer_makes() -> None:
    package = packager()
    files = set(package.davinci_files())
    copied = {name for name in installation.layout() if not name.endswith("py.typed")}
    assert copied - files == set()
    assert files - copied <= {"Modules/Fresco/README.md", "Modules/Fresco/LICENSE",
                              "Modules/Fresco/fresco_protocol/py.typed"}
    assert package.problems("davinci", package.davinci_files()) == []


def test_the_wheel_carries_what_the_installer_copies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert "host_plugins/davinci/fresco_davinci" in project["wheel"]["packages"]
    assert "host_plugins" in project["sdist"]["include"]
    packages = [ROOT / folder for folder in project["wheel"]["packages"]]
    for source in installation.layout().values():
        assert any(source.is_relative_to(package) for package in packages)


def test_ctrl_c_cancels_and_puts_everything_back(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state(world)

    def interrupts(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupts)
    assert called("stylize", "--prompt", "a comic", "--folder", str(tmp_path / "out")) == 130
    assert (state(world), world.project.jobs) == (before, {})
