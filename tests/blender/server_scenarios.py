# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenarios of the server: killed, hanging, missing, elsewhere, installed."""
from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import bpy
from blender.stage import Stage, files_below, refused, take_time

LONGEST_TICK = 0.05  # seconds for which Blender's interface may stand still


def server_killed(stage: Stage) -> None:
    """The server dies in the middle; the add-on starts another, and the job is finished there."""
    connection = stage.preferences.connection_file
    strip = stage.sequence("png", trim=(0, 16))
    take_time(stage, steps=12)
    stage.select(strip)
    row, = stage.stylise(wait=False)
    stage.until(lambda: row.state == "running")
    _kill_server(stage, connection)
    stage.until(lambda: stage.queue.link.trouble is not None)
    assert not row.is_ended
    stage.preferences.python = os.environ["FRESCO_TEST_PYTHON"]
    bpy.ops.fresco.server_start()
    stage.until(lambda: row.is_ended)
    assert row.state == "delivered", row.problem
    assert files_below(row.folder) >= 8
    bpy.ops.fresco.server_stop()


def _kill_server(stage: Stage, connection: str) -> None:
    os.kill(_server_of(stage, connection), signal.SIGKILL)


def _server_of(stage: Stage, connection: str) -> int:
    found: int = stage.module("fresco_protocol.connection").read_connection(connection).pid
    return found


def server_hangs(stage: Stage) -> None:
    """A server that stands still holds no tick of Blender's timer; what the user wants is kept until it goes on."""
    strip = stage.sequence("png")
    take_time(stage, steps=400)
    stage.select(strip)
    row, = stage.stylise(wait=False)
    stage.until(lambda: row.state == "running")
    server = _server_of(stage, stage.preferences.connection_file)
    os.kill(server, signal.SIGSTOP)
    try:
        stage.queue.cancel(row)  # as the button does, which does not wait
        seconds = [_seconds_of_tick(stage) for _ in range(80)]  # four seconds: the thread waits two for an answer
        assert stage.queue.link.trouble.code == "server-silent" and row.state == "cancelling"
        stage.queue.link.close()  # as Connect does
        stage.queue.refresh_models()
        seconds += [_seconds_of_tick(stage) for _ in range(20)]
    finally:
        os.kill(server, signal.SIGCONT)
    slow = [tick for tick in seconds if tick > LONGEST_TICK]
    assert len(slow) <= 2 and max(seconds) < 0.5, f"{len(slow)} slow ticks, the slowest of {max(seconds)} s"
    stage.until(lambda: row.is_ended)
    assert row.state == "cancelled"


def _seconds_of_tick(stage: Stage) -> float:
    begin = time.perf_counter()
    stage.module("ticker").step()
    seconds = time.perf_counter() - begin
    time.sleep(0.05)
    return seconds


def no_server(stage: Stage) -> None:
    """Without a server the job waits, and the add-on says so; the command gives up with a remedy."""
    os.environ["PATH"] = ""  # no command of Fresco's on it
    stage.preferences.connection_file = str(stage.work / "nothing.json")
    stage.module("operators").__dict__["CONNECTING"] = 0.5
    strip = stage.sequence("png", trim=(0, 22))
    stage.select(strip)
    begun = time.monotonic()
    refused(lambda: bpy.ops.fresco.stylise(), "no server runs")
    assert time.monotonic() - begun < 10
    row, = stage.queue.rows
    assert row.state == "waiting" and stage.result(row) is not None
    elsewhere = stage.work / "elsewhere.json"
    elsewhere.write_text(json.dumps({"schema": 1, "endpoint": "tcp://198.51.100.1:4000", "token": "0" * 64, "pid": 1,
                                     "version": "1"}))
    elsewhere.chmod(0o600)
    stage.preferences.connection_file = str(elsewhere)
    bpy.context.preferences.system.use_online_access = False
    refused(lambda: bpy.ops.fresco.server_check(), "the server is on another machine, and Blender is told to stay")
    stage.preferences.connection_file = str(stage.work / "nothing.json")
    refused(lambda: bpy.ops.fresco.server_start(), "Choose a Python with Fresco in the preferences")


def programs_of_a_desktop(stage: Stage) -> None:
    """A Blender that a desktop started knows few folders; Python and the link of pipx are found all the same."""
    server, home = stage.module("server"), stage.work / "home"
    venv, programs = home / "pipx/fresco-post/bin", home / ".local/bin"
    for path in (venv / "python", venv / "fresco", programs / "python3.12"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    (programs / "fresco").symlink_to(venv / "fresco")
    os.environ["HOME"], os.environ["PATH"] = str(home), "/nowhere"
    assert str(programs / "python3.12") in server.pythons(), server.pythons()
    assert server.found_server() == str(venv / "python"), server.found_server()


def folders_of_the_jobs(stage: Stage) -> None:
    """A server is started for the folders of the jobs that wait for it; one that runs for others says what to do."""
    far = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        shutil.copytree(stage.footage / "png", far / "png")
        strip = stage.strips.new_image(name="far", filepath=str(far / "png/f.1001.png"), channel=2, frame_start=1)
        strip.elements.append("f.1002.png")
        stage.select(strip)
        refused(lambda: bpy.ops.fresco.stylise(), "Name its folder in the preferences of Fresco, under Folders")
        stage.queue.link.close()
        stage.preferences.connection_file = str(stage.work / "nothing.json")
        stage.preferences.python = os.environ["FRESCO_TEST_PYTHON"]
        stage.module("operators").__dict__["CONNECTING"] = 0.5
        refused(lambda: bpy.ops.fresco.stylise(), "no server runs")
        begun: list[list[str]] = []
        os.environ.pop("FRESCO_ROOTS", None)
        stage.module("server").__dict__["start"] = lambda *_, roots, **__: begun.append(list(roots))
        bpy.ops.fresco.server_start()
        stage.preferences.roots = "/mnt/show; /mnt/footage"
        bpy.ops.fresco.server_start()
        row = stage.queue.rows[-1]
        assert {str(far / "png"), row.folder, str(Path.home())} <= set(begun[0]), begun
        assert begun[1] == ["/mnt/show", "/mnt/footage"]
    finally:
        shutil.rmtree(far)


def backend_installed(stage: Stage) -> None:
    """Install Backend asks for online access, makes an environment of its own, and its Python is then the server's."""
    preferences = stage.module("preferences")
    bpy.context.preferences.system.use_online_access = False
    refused(lambda: bpy.ops.fresco.install_backend(), "Blender is told to stay offline")
    bpy.context.preferences.system.use_online_access = True
    stage.preferences.requirement = str(stage.work / "nothing-0.1-py3-none-any.whl")
    refused(lambda: bpy.ops.fresco.install_backend(), "the installation ended with code 1")
    assert "nothing-0.1" in "\n".join(stage.module("server").last_lines(preferences.log_path("installation")))
    assert not stage.preferences.python_path().startswith(preferences.backend_folder())
    stage.preferences.requirement = str(_wheel(stage.work))
    bpy.ops.fresco.install_backend()
    python = stage.preferences.python_path()
    assert python.startswith(preferences.backend_folder()) and not python.startswith(sys.prefix)
    assert stage.preferences.may_start_server() is False, "not unless the preferences say so"


def _wheel(folder: Path) -> Path:
    """A package with a command `fresco` and nothing to fetch."""
    path, info = folder / "fresco_post-0.0.1-py3-none-any.whl", "fresco_post-0.0.1.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("fresco_standin.py", "def main():\n    return 0\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: fresco-post\nVersion: 0.0.1\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\nfresco = fresco_standin:main\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path
