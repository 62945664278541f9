# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on in a real window, played by simulated events: python inside Blender, started by `window.py`.

    blender --enable-event-simulate --python screen.py -- WORK

WORK has fresco.zip, connection.txt (the path of the connection file) and plate/. Pictures are taken from outside: a
file NAME.wanted asks for one. What was measured goes into WORK/measured.json, a traceback into WORK/failure.txt.
"""
from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy

WORK = Path(sys.argv[-1])
ADDON = "bl_ext.user_default.fresco"
TICK = 0.02  # seconds between two ticks of the stop watch
STEP = 0.15  # seconds between two steps of the play
BUTTON = (0.8, 296)  # where Stylise is in the sidebar: part of its width, pixels below its top
PATIENCE = 600.0  # seconds for any one wait
LEAST_TICKS = 10.0  # a second, while the plate is exported, and while the server hangs
LONGEST_CALL = 0.05  # seconds for which an operator may hold the interface
HANGING = 4.0  # seconds

measured: dict[str, float] = {}
ticks = 0


def count() -> float:
    """A timer of Blender's that only counts: while the interface is frozen it stands."""
    global ticks
    ticks += 1
    return TICK


def module(name: str) -> Any:
    """A module of the installed add-on."""
    return importlib.import_module(f"{ADDON}.{name}")


def rows() -> list[Any]:
    """The queue."""
    found: list[Any] = module("jobs").queue.rows
    return found


def play() -> Iterator[None]:
    """The whole play; each yield lets Blender draw."""
    yield from set_up()
    yield from picture("idle")
    yield from stylise_by_click()
    yield from picture("exporting")
    yield from watch_export()
    yield from until(lambda: rows()[0].preview is not None or rows()[0].is_ended)
    yield from pause(1.0)
    yield from picture("running")
    yield from until(lambda: rows()[0].is_ended)
    yield from pause(1.0)
    yield from picture("done")
    assert "harbour: delivered" in reports(), reports()
    yield from maximise()  # back
    yield from picture("result")
    yield from maximise()
    speak_german()
    yield from stop_an_export()
    yield from hang()
    yield from fail()
    yield from picture("failed")
    bpy.ops.screen.userpref_show()
    yield from pause(2.0)
    preferences = bpy.context.window_manager.windows[-1].screen.areas[0]
    bpy.context.preferences.active_section = "ADDONS"
    bpy.ops.preferences.addon_show(module=ADDON)
    preferences.tag_redraw()
    yield from picture("preferences")


def set_up() -> Iterator[None]:
    """The strips, the sidebar, and a clock."""
    bpy.ops.extensions.package_install_files(filepath=str(WORK / "fresco.zip"), repo="user_default",
                                             enable_on_install=True)
    chosen = bpy.context.preferences.addons[ADDON].preferences
    chosen.connection_file, chosen.autostart = (WORK / "connection.txt").read_text(), False
    scene = module("compat").sequencer_scene(bpy.context)
    scene.render.resolution_x, scene.render.resolution_y, scene.render.fps = 1280, 720, 24
    scene.sequence_editor_create()
    scene.frame_end = 48
    _add_strip(scene)
    settings = scene.fresco
    settings.prompt, settings.folder = "a watercolour painting of a boat", str(WORK / "shots")
    settings.own_working_size, settings.working_size, settings.steps = True, 192, 6
    settings.steadiness = "QUICK"
    yield from _show_sidebar()
    bpy.app.timers.register(count, persistent=True)


def _add_strip(scene: Any) -> None:
    files = sorted((WORK / "plate").iterdir())
    strips = module("compat").strips_of(scene.sequence_editor)
    strip = strips.new_image(name="harbour", filepath=str(files[0]), channel=1, frame_start=1, fit_method="FIT")
    for path in files[1:]:
        strip.elements.append(path.name)
    strip.modifiers.new("grade", "COLOR_BALANCE").color_balance.gain = (1.05, 1.0, 0.95)
    strip.select = True


def sequencer() -> tuple[Any, Any, Any]:
    """Window, area and sidebar in which the play happens."""
    window = bpy.context.window_manager.windows[0]
    areas = [area for area in window.screen.areas if area.type == "SEQUENCE_EDITOR"]
    area = max(areas, key=lambda area: (area.spaces.active.view_type == "SEQUENCER", area.width * area.height))
    return window, area, next(region for region in area.regions if region.type == "UI")


def _show_sidebar() -> Iterator[None]:
    _, area, sidebar = sequencer()
    area.spaces.active.show_region_ui = True
    for _ in range(10):
        yield
        area.tag_redraw()
        try:
            sidebar.active_panel_category = "Fresco"
        except TypeError:  # it has not been drawn yet
            continue
    yield from maximise()
    with over_timeline():
        bpy.ops.sequencer.view_all()
    yield


def maximise() -> Iterator[None]:
    """The sequencer fills the window, or no longer does."""
    with over_timeline():
        bpy.ops.screen.screen_full_area()
    yield from pause(1.0)


def over_timeline() -> Any:
    """As if the mouse were over the strips."""
    window, area, _ = sequencer()
    canvas = next(region for region in area.regions if region.type == "WINDOW")
    return bpy.context.temp_override(window=window, area=area, region=canvas)


def stylise_by_click() -> Iterator[None]:
    """The button Stylise, by the mouse; the result strip is on the timeline at once."""
    window, _, sidebar = sequencer()
    x, y = sidebar.x + round(sidebar.width * BUTTON[0]), sidebar.y + sidebar.height - BUTTON[1]
    for kind, value in (("MOUSEMOVE", "NOTHING"), ("LEFTMOUSE", "PRESS"), ("LEFTMOUSE", "RELEASE")):
        window.event_simulate(type=kind, value=value, x=x, y=y)
        yield
    yield from pause(0.5)
    assert len(rows()) == 1, "the click on Stylise did nothing: look at idle.png for its place"
    scene = module("compat").sequencer_scene(bpy.context)
    assert len(module("compat").strips_of(scene.sequence_editor)) == 2


def watch_export() -> Iterator[None]:
    """How often Blender's timers run while a child exports the plate."""
    begin, first = time.monotonic(), ticks
    yield from until(lambda: rows()[0].step.value != "exporting")
    seconds = time.monotonic() - begin
    measured["export seconds"], measured["ticks a second"] = seconds, (ticks - first) / seconds
    assert measured["ticks a second"] >= LEAST_TICKS, measured
    assert rows()[0].problem is None, rows()[0].problem


def stop_an_export() -> Iterator[None]:
    """Esc ends the export of the operator that runs."""
    window, area, _ = sequencer()
    canvas = next(region for region in area.regions if region.type == "WINDOW")
    count_before = len(rows())
    with over_timeline():
        bpy.ops.fresco.stylise("INVOKE_DEFAULT")
    assert len(rows()) == count_before + 1
    yield from pause(0.5)
    x, y = canvas.x + canvas.width // 2, canvas.y + canvas.height // 2
    window.event_simulate(type="MOUSEMOVE", value="NOTHING", x=x, y=y)
    window.event_simulate(type="ESC", value="PRESS", x=x, y=y)
    yield
    window.event_simulate(type="ESC", value="RELEASE", x=x, y=y)
    yield from until(lambda: rows()[-1].is_ended)
    assert rows()[-1].state == "stopped", rows()[-1].state


def reports() -> str:
    """What Blender has shown in its status bar, which its Info editor keeps."""
    window, area, _ = sequencer()
    was = area.type
    area.type = "INFO"
    region = next(region for region in area.regions if region.type == "WINDOW")
    try:
        with bpy.context.temp_override(window=window, area=area, region=region):
            bpy.ops.info.select_all(action="SELECT")
            bpy.ops.info.report_copy()
        return str(bpy.context.window_manager.clipboard)
    finally:
        area.type = was


def speak_german() -> None:
    """The add-on's texts go through Blender's translation."""
    view = bpy.context.preferences.view
    was = view.language
    view.language = next(code for code in ("de_DE", "de") if code in bpy.app.translations.locales)
    view.use_translate_interface = True
    try:
        assert bpy.app.translations.pgettext_iface("No jobs yet") == "Noch keine Aufträge"
        assert bpy.app.translations.pgettext_iface("Stylise", "Operator") == "Stilisieren"
    finally:
        view.language = was


def hang() -> Iterator[None]:
    """The server stands still: cancelling returns at once, and Blender's timers go on."""
    scene = module("compat").sequencer_scene(bpy.context)
    module("compat").selected_strips(bpy.context, scene)[0].modifiers.clear()
    scene.fresco.steps = 200
    yield from by_key("F")
    yield from until(lambda: rows()[-1].state == "running")
    server = json.loads(Path((WORK / "connection.txt").read_text()).read_text())["pid"]
    os.kill(server, signal.SIGSTOP)
    try:
        begin, first = time.monotonic(), ticks
        bpy.ops.fresco.cancel("INVOKE_DEFAULT", key=rows()[-1].key)
        measured["cancel seconds"] = time.monotonic() - begin
        yield from pause(HANGING)
        measured["ticks a second while the server hangs"] = (ticks - first) / (time.monotonic() - begin)
        yield from picture("hanging")
    finally:
        os.kill(server, signal.SIGCONT)
    assert measured["cancel seconds"] < LONGEST_CALL, measured
    assert measured["ticks a second while the server hangs"] >= LEAST_TICKS, measured
    yield from until(lambda: rows()[-1].is_ended)
    assert rows()[-1].state == "cancelled", rows()[-1].state


def by_key(letter: str) -> Iterator[None]:
    """One of the add-on's shortcuts, over the strips; a new row comes of it."""
    window, area, _ = sequencer()
    keys = bpy.context.window_manager.keyconfigs.user.keymaps["Sequencer"].keymap_items
    assert [key for key in keys if key.idname.startswith("fresco.") and key.type == letter and key.shift and key.alt]
    canvas = next(region for region in area.regions if region.type == "WINDOW")
    before = len(rows())
    x, y = canvas.x + canvas.width // 2, canvas.y + canvas.height // 2
    window.event_simulate(type="MOUSEMOVE", value="NOTHING", x=x, y=y)
    yield
    for value in ("PRESS", "RELEASE"):
        window.event_simulate(type=letter, value=value, x=x, y=y, shift=True, alt=True)
        yield
    yield from until(lambda: len(rows()) > before)


def fail() -> Iterator[None]:
    """A model that is not there."""
    module("compat").sequencer_scene(bpy.context).fresco.model = str(WORK / "no-such-model")
    with over_timeline():
        bpy.ops.fresco.stylise("INVOKE_DEFAULT")
    yield from until(lambda: rows()[-1].is_ended)
    assert rows()[-1].state == "failed", rows()[-1].state
    yield from pause(1.0)


def picture(name: str) -> Iterator[None]:
    """Asks for a picture and waits until it was taken."""
    sequencer()[1].tag_redraw()
    yield from pause(0.6)
    wanted = WORK / f"{name}.wanted"
    wanted.touch()
    yield from until(lambda: not wanted.exists())


def pause(seconds: float) -> Iterator[None]:
    """Lets Blender draw for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield


def until(holds: Any) -> Iterator[None]:
    """Waits for something."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, [(row.state, row.problem) for row in rows()]
        yield


acts = play()


def act() -> float:
    """One step of the play."""
    try:
        next(acts)
    except StopIteration:
        (WORK / "measured.json").write_text(json.dumps(measured))
        os._exit(0)
    except BaseException:  # noqa: BLE001, whoever watches shall see it
        (WORK / "failure.txt").write_text(traceback.format_exc())
        os._exit(1)
    return STEP


bpy.context.preferences.view.show_splash = False
bpy.app.timers.register(act, first_interval=2.0, persistent=True)
