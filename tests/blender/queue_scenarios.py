# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenarios of jobs: cancel, loss, reload, versions, undo, refusals, presets."""
from __future__ import annotations

import json
import os
import signal
import sys
import time
import zipfile
from pathlib import Path

import bpy
from blender.stage import Stage, burnt_number, files_below, refused, take_time


def cancelled(stage: Stage) -> None:
    """Cancel ends the job at the server; the strip stays, and Delete takes strip and files."""
    strip = stage.sequence("png")
    take_time(stage, steps=400)
    stage.select(strip)
    row, = stage.stylise(wait=False)
    stage.until(lambda: row.state == "running")
    bpy.ops.fresco.cancel(key=row.key)
    stage.until(lambda: row.is_ended)
    assert row.state == "cancelled" and stage.result(row) is not None
    assert stage.result(row).mute, "an empty result does not hide its plate"
    bpy.ops.fresco.delete_version(key=row.key)
    assert "fresco" not in " ".join(strip.name for strip in stage.strips if "fresco" in strip)
    assert not Path(row.shot_folder).exists() and row not in stage.queue.rows


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
    protocol = stage.module("fresco_protocol.connection")
    os.kill(protocol.read_connection(connection).pid, signal.SIGKILL)


def saved_and_reopened(stage: Stage) -> None:
    """The .blend keeps the queue: opened again it follows the job that went on, and fills the strip."""
    strip = stage.sequence("png", trim=(0, 16))
    take_time(stage, steps=12)
    stage.select(strip)
    row, = stage.stylise(wait=False)
    stage.until(lambda: row.state == "running")
    stage.scene.name = "Renamed"
    path = str(stage.work / "cut.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.read_homefile(use_factory_startup=False)
    assert not stage.queue.rows
    bpy.ops.wm.open_mainfile(filepath=path)
    again, = stage.queue.rows
    assert again is not row and again.key == row.key and not again.is_ended
    stage.until(lambda: again.is_ended)
    assert again.state == "delivered" and again.job.done == 8, again
    assert stage.span(stage.result(again)) == (1, 9)
    assert stage.seen(1, 1, muted=(stage.strips["png"],))[0].max() > 0.1


def versions(stage: Stage) -> None:
    """A new prompt is a new version beside the old; one shows, and each can go with its files."""
    strip = stage.sequence("png", at=7, trim=(2, 18))
    strip.use_flip_x = True
    stage.select(strip)
    first, = stage.stylise()
    stage.settings.prompt = "an ink drawing"
    bpy.ops.fresco.redo(key=first.key)
    second = stage.queue.rows[-1]
    assert second.state == "delivered" and second.version == 2 and second.group == first.group
    assert second.shot.plate == first.shot.plate, "the plate is exported once"
    assert stage.result(first).mute and not stage.result(second).mute
    assert stage.span(stage.result(second)) == stage.span(strip)
    bpy.ops.fresco.show_version(key=first.key)
    assert not stage.result(first).mute and stage.result(second).mute
    bpy.ops.fresco.take_choices(key=first.key)
    assert stage.settings.prompt == "a watercolour painting"
    bpy.ops.fresco.delete_version(key=first.key)
    assert not Path(first.folder).exists() and Path(second.folder).exists()
    assert not stage.result(second).mute
    bpy.ops.fresco.delete_version(key=second.key)
    assert not Path(second.shot_folder).exists()


def undo_is_one_step(stage: Stage) -> None:
    """One undo takes the result strip away; the job is not forgotten."""
    strip = stage.sequence("png", trim=(0, 22))
    stage.select(strip)
    bpy.ops.ed.undo_push(message="before")
    row, = stage.stylise()
    assert len(stage.strips) == 2
    bpy.ops.ed.undo()
    assert [found.name for found in stage.strips] == ["png"]
    assert stage.queue.rows == [row] and row.state == "delivered"
    bpy.ops.ed.redo()
    assert stage.result(row) is not None


def refusals(stage: Stage) -> None:
    """A grey button says why, and a wrong strip is refused in a sentence."""
    operators = stage.module("operators")
    assert operators.why_not(bpy.context) == "Select a strip in the sequencer first"
    strip = stage.sequence("png")
    stage.select(strip)
    stage.settings.prompt = " "
    assert operators.why_not(bpy.context) == "Write a prompt first"
    stage.settings.prompt, stage.settings.matte = "a watercolour", "MASK"
    assert operators.why_not(bpy.context) == "Choose a matte, or set Matte to None"
    stage.settings.matte = "NONE"
    assert bpy.ops.fresco.stylise.poll()
    stage.scene.frame_current = 400
    assert not bpy.ops.fresco.test_frame.poll()
    stage.settings.keyframes = "MARKERS"
    refused(lambda: bpy.ops.fresco.stylise(), 'no marker named "fresco" lies on the strip')
    stage.settings.keyframes = "AUTO"
    frame = stage.footage / "png" / "f.1003.png"
    frame.rename(frame.with_name("gone"))
    refused(lambda: bpy.ops.fresco.stylise(), "1 frames are missing on the disk")
    frame.with_name("gone").rename(frame)
    assert len(stage.strips) == 1 and not stage.queue.rows


def test_frame_and_markers(stage: Stage) -> None:
    """The playhead's frame alone; the artist's keyframes by marker; a preset set, kept and read."""
    strip = stage.sequence("png", at=11)
    stage.select(strip)
    stage.scene.frame_current = 15
    bpy.ops.fresco.test_frame()
    row = stage.queue.rows[-1]
    assert str(row.shot.plate.frames[0]) == "1005"
    assert stage.span(stage.result(row)) == (15, 16) and row.state == "delivered"
    assert burnt_number(stage.seen(15, 15, muted=(strip,))[0]) == 1005
    for frame in (11, 20, 34, 90):
        stage.scene.timeline_markers.new("fresco key", frame=frame)
    stage.settings.keyframes = "MARKERS"
    row, = stage.stylise()
    assert [str(frames) for frames in row.shot.keyframing.frames] == ["1001", "1010", "1024"]
    stage.settings.prompt = "a mosaic"
    bpy.ops.fresco.preset_save(preset="Mine")
    stage.settings.prompt, stage.settings.keyframes = "x", "AUTO"
    bpy.ops.fresco.preset_load(preset="Mine")
    assert (stage.settings.prompt, stage.settings.keyframes) == ("a mosaic", "MARKERS")
    bpy.ops.fresco.preset_load(preset="Ink")
    assert stage.settings.prompt == "an ink drawing"


def edits(stage: Stage) -> None:
    """An edit carries what the plate shows; the prompt is trimmed, numbers are the ones that were typed."""
    strip = stage.sequence("png")
    stage.select(strip)
    settings = stage.settings
    settings.task, settings.caption, settings.prompt = "EDIT", "a man on a boat", "  a robot on a boat "
    settings.strength, settings.controls, settings.control_strength = 0.6, "SOFT_EDGE", 0.8
    settings.keyframes, settings.interval, settings.steadiness, settings.optimisation = "INTERVAL", 6, "CUSTOM", False
    settings.file_format = "PNG"
    clip, = stage.module("timeline").collect(bpy.context, stage.module("timeline").Extent.STRIP, handles=0, matte=None)
    row = stage.queue.add(clip, stage.module("properties").choices_of(settings), str(stage.work / "shots"))
    shot = row.shot
    assert (shot.task.value, shot.editing.caption, shot.look.prompt) == ("edit", "a man on a boat", "a robot on a boat")
    assert shot.look.strength == 0.6 and shot.look.controls[0].strength == 0.8
    assert (shot.keyframing.minimum_gap, shot.keyframing.maximum_gap) == (6, 6)
    assert shot.coherence.optimisation is None and shot.coherence.temporal is not None
    assert shot.delivery.sequence.endswith(".####.png") and shot.delivery.color_space == "srgb"
    stage.queue.cancel(row)
    assert row.state == "stopped" and row.is_ended


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
