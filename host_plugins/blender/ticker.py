# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's clock for the queue: a timer that never waits, redraws what changed, and tells when a job is done.

In the background Blender has no timers: blocking operators call `step` themselves.
"""
from __future__ import annotations

import os
import time
import traceback
from typing import Any, Optional

import bpy
from bpy.app.handlers import persistent

from fresco_protocol.errors import FrescoError, ServerMissing

from . import preferences
from .jobs import queue

BUSY, IDLE = 0.2, 1.0  # seconds between two ticks
START_PAUSE = 30.0  # seconds until a server that was started and did not come may be started again

_started_at: Optional[float] = None


def clock() -> float:
    """What Blender's timer calls; the seconds until the next tick."""
    try:
        return step()
    except Exception:  # noqa: BLE001, a timer that raises is never called again, and all jobs would seem to stand still
        traceback.print_exc()
        return IDLE


def step() -> float:
    """One tick of queue and installation; the seconds until the next."""
    if bpy.app.is_job_running("RENDER"):  # strips must not change below a render
        return IDLE
    chosen = preferences.of()
    queue.connection_file = chosen.connection_path()
    changed = queue.tick()
    _start_server_for(chosen)
    if preferences.poll_installation() or changed:
        _redraw()
    if queue.news and not bpy.app.background:
        _notify()
    return BUSY if queue.is_busy else IDLE


def _start_server_for(chosen: Any) -> None:
    """Starts a server when jobs wait for one and the preferences allow it."""
    global _started_at
    waits = any(row.needs_server for row in queue.rows)
    if not (waits and isinstance(queue.link.trouble, ServerMissing) and chosen.may_start_server()):
        return
    if _started_at is not None and time.monotonic() - _started_at < START_PAUSE:
        return
    _started_at = time.monotonic()
    try:
        chosen.start_server(queue.folders)
    except FrescoError as error:
        queue.link.trouble = error


def begin() -> None:
    """Starts the timer, where there is one."""
    if not bpy.app.background and not bpy.app.timers.is_registered(clock):
        bpy.app.timers.register(clock, first_interval=BUSY, persistent=True)


def _redraw() -> None:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type in ("SEQUENCE_EDITOR", "PREFERENCES"):
                area.tag_redraw()
        window.workspace.status_text_set(None)  # the status bar redraws when told its text


def _notify() -> None:
    told, queue.news = queue.news, []
    with bpy.context.temp_override(window=bpy.context.window_manager.windows[0]):
        for news in told:
            bpy.ops.fresco.tell("INVOKE_DEFAULT", text=news.text, failed=news.is_bad)


def draw_status(self: Any, _: Any) -> None:
    """What the status bar shows while jobs run."""
    running = [row for row in queue.rows if not row.is_ended]
    if running:
        row = next((row for row in running if row.fraction > 0), running[0])
        bar = self.layout.row()
        bar.ui_units_x = 10
        bar.progress(factor=row.fraction, text=f"Fresco: {row.state} ({len(running)})")


@persistent
def write_rows(path: str, *_: object) -> None:
    """The .blend keeps the queue."""
    queue.save(path)


@persistent
def read_rows(*_: object) -> None:
    """The queue of the .blend goes on."""
    queue.load()
    begin()


@persistent
def show_ends(*_: object) -> None:
    """An undo knows nothing of jobs that ended since."""
    queue.show_ends()


def register() -> None:
    """Hangs the queue into loading, saving, undo and the status bar."""
    bpy.app.handlers.save_pre.append(write_rows)
    bpy.app.handlers.load_post.append(read_rows)
    bpy.app.handlers.undo_post.append(show_ends)
    bpy.app.handlers.redo_post.append(show_ends)
    bpy.types.STATUSBAR_HT_header.prepend(draw_status)
    begin()


def unregister() -> None:
    """Takes it out again; jobs go on at the server."""
    bpy.types.STATUSBAR_HT_header.remove(draw_status)
    bpy.app.handlers.redo_post.remove(show_ends)
    bpy.app.handlers.undo_post.remove(show_ends)
    bpy.app.handlers.load_post.remove(read_rows)
    bpy.app.handlers.save_pre.remove(write_rows)
    if bpy.app.timers.is_registered(clock):
        bpy.app.timers.unregister(clock)
    queue.link.close()
    for row in queue.rows:
        row.stop_export()


def folder_of(scene: Any) -> str:
    """Where the plates and results of a scene go: the user folder of the add-on for a .blend that was never saved.

    What is no whole path lies below the folder of the .blend; Blender's own working folder may be any.
    """
    stated = os.path.expanduser(scene.fresco.folder.strip()) or "//fresco"
    if not os.path.isabs(stated) and not stated.startswith("//"):
        stated = f"//{stated}"
    if stated.startswith("//") and not bpy.data.filepath:
        return os.path.join(preferences.user_folder(), "shots")
    return os.path.normpath(str(bpy.path.abspath(stated)))
