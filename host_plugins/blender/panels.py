# SPDX-License-Identifier: GPL-3.0-or-later
"""What is drawn: Sequencer > Sidebar > Fresco, and the preferences. Panels decide nothing and change nothing."""
from __future__ import annotations

import textwrap
from typing import Any

import bpy

from fresco_protocol.job import Problem

from . import compat, preferences, presets, server, thumbnails
from .jobs import queue
from .media import why_exported, why_other_frames
from .presets import Kind
from .properties import settings_of
from .rows import Row, Step

SHOWN = 12  # jobs in the list; older ones are counted
PROMPT_LENGTH = 36  # characters of a prompt in a row
ICONS = {
    "exporting": "RENDER_ANIMATION", "waiting": "SORTTIME", "submitted": "SORTTIME", "queued": "SORTTIME",
    "running": "STRIP_COLOR_05", "paused": "PAUSE", "delivered": "CHECKMARK", "failed": "ERROR", "cancelled": "X",
    "stopped": "X", "cancelling": "X", "deleting": "TRASH",
}
BESIDE_TEXT, LETTER, NARROWEST = 60, 5.6, 16  # pixels of margins and of a letter; letters of the shortest line
PHASES = {"analyse": "Motion", "invert": "Inversion", "keyframes": "Denoising", "deliver": "Writing", "movie": "Movie"}


class SidebarPanel:
    """Where all panels are."""

    bl_space_type = "SEQUENCE_EDITOR"
    bl_region_type = "UI"
    bl_category = "Fresco"

    @classmethod
    def poll(cls, context: Any) -> bool:
        """In the sequencer with a scene."""
        return compat.sequencer_scene(context) is not None


class LookPanel(SidebarPanel, bpy.types.Panel):
    """The look, and the two buttons."""

    bl_idname = "FRESCO_PT_look"
    bl_label = "Fresco"

    def draw(self, context: Any) -> None:
        """Prompt, strength, control, buttons."""
        settings, layout = settings_of(compat.sequencer_scene(context)), self.layout
        row = layout.row(align=True)
        row.menu("FRESCO_MT_looks", icon="PRESET")
        row.operator("fresco.preset_save", text="", icon="ADD").kind = "LOOK"
        if compat.TEXT_BOX:
            layout.textbox(settings, "prompt", initial_visible_lines=3, placeholder="a watercolour painting")
        else:
            layout.prop(settings, "prompt", text="", icon="GREASEPENCIL")
        column = layout.column()
        column.use_property_split, column.use_property_decorate = True, False
        column.prop(settings, "negative_prompt")
        row = column.row(align=True)
        row.prop(settings, "model")
        row.menu("FRESCO_MT_models", text="", icon="DOWNARROW_HLT")
        column.prop(settings, "task")
        if settings.task == "EDIT":
            column.prop(settings, "caption")
        _own(column, settings, "strength")
        column.prop(settings, "controls")
        if settings.controls in ("SOFT_EDGE", "CANNY"):
            column.prop(settings, "control_strength")
        column.prop(settings, "seed")
        column.prop(settings, "extent")
        _buttons(layout, context)


def _own(layout: Any, settings: Any, name: str) -> None:
    """A number that is the model's own until its box is ticked."""
    row = layout.row(heading=settings.bl_rna.properties[name].name)
    row.prop(settings, f"own_{name}", text="")
    number = row.row()
    number.enabled = getattr(settings, f"own_{name}")
    number.prop(settings, name, text="")


def _buttons(layout: Any, context: Any) -> None:
    row = layout.row(align=True)
    row.scale_y = 1.4
    row.operator("fresco.test_frame", icon="IMAGE_DATA")
    row.operator("fresco.stylise", icon="SEQ_STRIP_DUPLICATE")
    scene = compat.sequencer_scene(context)
    for strip in compat.selected_strips(context, scene)[:1]:
        reason = why_exported(scene, strip) or why_other_frames(strip, *compat.span(strip))
        if reason is not None and strip.type != "SOUND":
            _say(layout, context, f"Exported first: {reason}", "INFO")


class MattePanel(SidebarPanel, bpy.types.Panel):
    """Where the look goes."""

    bl_idname = "FRESCO_PT_matte"
    bl_label = "Matte"
    bl_parent_id = "FRESCO_PT_look"
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012, read by Blender

    def draw(self, context: Any) -> None:
        """The choice of a mask or a strip."""
        scene = compat.sequencer_scene(context)
        settings, layout = settings_of(scene), self.layout
        layout.use_property_split, layout.use_property_decorate = True, False
        layout.prop(settings, "matte", expand=True)
        if settings.matte == "MASK":
            layout.prop(settings, "matte_mask")
        elif settings.matte == "STRIP" and scene.sequence_editor is not None:
            name = "strips" if hasattr(scene.sequence_editor, "strips") else "sequences"
            layout.prop_search(settings, "matte_strip", scene.sequence_editor, f"{name}_all", icon="SEQ_STRIP_META")
        if settings.matte != "NONE":
            for name in ("matte_invert", "matte_grow", "matte_feather", "matte_propagate"):
                layout.prop(settings, name)


class CoherencePanel(SidebarPanel, bpy.types.Panel):
    """Keyframes, coherence and what else costs time."""

    bl_idname = "FRESCO_PT_coherence"
    bl_label = "Coherence"
    bl_parent_id = "FRESCO_PT_look"
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012, read by Blender

    def draw(self, context: Any) -> None:
        """Presets first, details below."""
        settings, layout = settings_of(compat.sequencer_scene(context)), self.layout
        layout.use_property_split, layout.use_property_decorate = True, False
        layout.prop(settings, "keyframes")
        if settings.keyframes == "INTERVAL":
            layout.prop(settings, "interval")
        layout.prop(settings, "steadiness")
        if settings.steadiness == "CUSTOM":
            column = layout.column(align=True)
            for name in ("cross_frame", "spatial", "temporal", "optimisation", "background"):
                column.prop(settings, name)


class AdvancedPanel(SidebarPanel, bpy.types.Panel):
    """Numbers that few need."""

    bl_idname = "FRESCO_PT_advanced"
    bl_label = "Advanced"
    bl_parent_id = "FRESCO_PT_coherence"
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012, read by Blender

    def draw(self, context: Any) -> None:
        """Steps, guidance, window, working size."""
        settings, layout = settings_of(compat.sequencer_scene(context)), self.layout
        layout.use_property_split, layout.use_property_decorate = True, False
        layout.prop(settings, "steps")
        _own(layout, settings, "guidance")
        layout.prop(settings, "window")
        _own(layout, settings, "working_size")


class OutputPanel(SidebarPanel, bpy.types.Panel):
    """What is written, and where."""

    bl_idname = "FRESCO_PT_output"
    bl_label = "Output"
    bl_parent_id = "FRESCO_PT_look"
    bl_options = {"DEFAULT_CLOSED"}  # noqa: RUF012, read by Blender

    def draw(self, context: Any) -> None:
        """Format, folder, handles."""
        settings, layout = settings_of(compat.sequencer_scene(context)), self.layout
        layout.use_property_split, layout.use_property_decorate = True, False
        layout.prop(settings, "file_format")
        layout.prop(settings, "folder")
        layout.prop(settings, "handles")


class QueuePanel(SidebarPanel, bpy.types.Panel):
    """The jobs of this .blend."""

    bl_idname = "FRESCO_PT_queue"
    bl_label = "Queue"

    def draw(self, context: Any) -> None:
        """The newest first."""
        layout = self.layout
        if queue.link.trouble is not None and any(row.needs_server for row in queue.rows):
            _server_line(layout, context)
        if not queue.rows:
            layout.label(text="No jobs yet")
            return
        for row in list(reversed(queue.rows))[:SHOWN]:
            _draw_row(layout.box(), context, row)
        if len(queue.rows) > SHOWN:
            layout.label(text=f"and {len(queue.rows) - SHOWN} older ones")
        layout.operator("fresco.clear_ended", icon="TRASH")


def _say(layout: Any, context: Any, text: str, icon: str = "NONE") -> None:
    """A text of any length: broken into the lines that the region is wide enough for."""
    room = context.region.width / context.preferences.system.ui_scale - BESIDE_TEXT
    lines = textwrap.wrap(text, max(NARROWEST, int(room / LETTER)), break_on_hyphens=False)
    column = layout.column(align=True)
    column.scale_y = 0.8 if len(lines) > 1 else 1
    for index, line in enumerate(lines):
        column.label(text=line, icon=icon if index == 0 else "NONE" if icon == "NONE" else "BLANK1")


def _server_line(layout: Any, context: Any) -> None:
    column = layout.column(align=True)
    column.alert = True
    _say(column, context, f"Server: {queue.link.trouble.what}" if queue.link.trouble else "", "UNLINKED")
    column.operator("fresco.server_start", icon="PLAY")


def _draw_row(box: Any, context: Any, row: Row) -> None:
    look = row.shot.look
    box.label(text=f"{look.prompt[:PROMPT_LENGTH]}  v{row.version:03}", icon=ICONS.get(row.state, "DOT"))
    thumbnail = thumbnails.icon_of(row)
    if thumbnail and not row.is_ended:
        box.template_icon(icon_value=thumbnail, scale=5)
    line = box.row(align=True)
    if row.is_ended:
        line.label(text=_ending(row))
    else:
        line.progress(factor=row.fraction, text=_phase(row))
    _row_buttons(line, row)
    if row.is_ended and row.problem is not None:
        _draw_problem(box, context, row.problem)
    if row.warning:
        _say(box, context, row.warning, "INFO")


def _row_buttons(head: Any, row: Row) -> None:
    verbs = [("fresco.explain", "QUESTION", row.problem is not None),
             ("fresco.retry", "FILE_REFRESH", row.is_ended and row.state in ("failed", "cancelled", "stopped")),
             ("fresco.take_choices", "EYEDROPPER", row.is_ended),
             ("fresco.redo", "LOOP_BACK", row.is_ended),
             ("fresco.show_version", "HIDE_OFF", len(queue.versions(row.group)) > 1),
             ("fresco.snap_to_source", "SNAP_ON", row.key in queue.misplaced),
             ("fresco.reveal", "FILE_FOLDER", not row.leaving),
             ("fresco.cancel", "X", not row.is_ended and row.state not in ("cancelling", "deleting")),
             ("fresco.delete_version", "TRASH", row.is_ended)]
    for name, icon, shown in verbs:
        if shown:
            head.operator(name, text="", icon=icon, emboss=False).key = row.key


def _draw_problem(box: Any, context: Any, problem: Problem) -> None:
    column = box.column(align=True)
    column.alert = True
    _say(column, context, problem.what)
    if problem.remedy:
        _say(box, context, problem.remedy)


def _phase(row: Row) -> str:
    """What runs, how far it is, and how long it will take."""
    if row.step is Step.EXPORTING:
        return f"Exporting {row.exports[0].done()} of {row.exports[0].total}" if row.exports else "Exporting"
    if row.stage is None or row.state != "running":
        return row.state.capitalize()
    stage, left = row.stage.stage, row.stage.seconds_left
    done = f"{PHASES.get(stage.value, stage.value)}, {stage.unit} {row.stage.done} of {row.stage.total}"
    return done + (f", {duration(left)} left" if left is not None else "")


def _ending(row: Row) -> str:
    job = row.job
    if job is not None and job.started is not None and job.ended is not None:
        return f"{job.done} frames, {row.state} in {duration(job.ended - job.started)}"
    return row.state.capitalize()


def duration(seconds: float) -> str:
    """A time in words: 45 s, 3 min, 2 h 5 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class LookMenu(bpy.types.Menu):
    """The looks that come with the add-on, then one's own."""

    bl_idname = "FRESCO_MT_looks"
    bl_label = "Looks"

    def draw(self, _: Any) -> None:
        """One line each."""
        _presets(self.layout, Kind.LOOK)
        self.layout.separator()
        self.layout.operator("fresco.preset_import", icon="FILE_FOLDER")


class ModelMenu(bpy.types.Menu):
    """The models of the server, then models with their numbers, kept as presets."""

    bl_idname = "FRESCO_MT_models"
    bl_label = "Models"

    def draw(self, _: Any) -> None:
        """One line each."""
        layout = self.layout
        for name in queue.models.models if queue.models is not None else ():
            layout.operator("fresco.model_choose", text=name).name = name
        layout.operator("fresco.models_refresh", icon="FILE_REFRESH")
        layout.separator()
        _presets(layout, Kind.MODEL)
        layout.operator("fresco.preset_save", text="Save Model Preset", icon="ADD").kind = "MODEL"
        layout.operator("fresco.preset_import", icon="FILE_FOLDER")


def _presets(layout: Any, kind: Kind) -> None:
    for name in presets.names(preferences.preset_folder(), kind):
        row = layout.row(align=True)
        load = row.operator("fresco.preset_load", text=name)
        load.preset, load.kind = name, kind.name
        if name not in presets.BUILT_IN[kind]:
            delete = row.operator("fresco.preset_delete", text="", icon="X")
            delete.preset, delete.kind = name, kind.name


def draw_strip_menu(self: Any, _: Any) -> None:
    """What the menu Strip has of Fresco."""
    self.layout.separator()
    self.layout.operator("fresco.stylise")
    self.layout.operator("fresco.test_frame")
    self.layout.operator("fresco.snap_to_source")


def draw_preferences(chosen: Any, layout: Any, context: Any) -> None:
    """The server: is it there, how is it started, how is it installed."""
    box = layout.box()
    trouble = queue.link.trouble
    state = "Connected" if queue.link.is_up else trouble.what.capitalize() if trouble else "Not connected yet"
    box.label(text=f"Server: {state}", icon="LINKED" if queue.link.is_up else "UNLINKED")
    row = box.row(align=True)
    for name in ("fresco.server_check", "fresco.server_start", "fresco.server_stop"):
        row.operator(name)
    row.operator("fresco.open_log", text="Log").log = "server"
    layout.prop(chosen, "python")
    layout.prop(chosen, "autostart")
    layout.prop(chosen, "roots")
    layout.prop(chosen, "connection_file")
    _draw_installation(chosen, layout.box(), context)


def _draw_installation(chosen: Any, box: Any, context: Any) -> None:
    box.prop(chosen, "requirement")
    row = box.row(align=True)
    row.operator("fresco.install_backend", icon="IMPORT")
    running = preferences.installation is not None and not preferences.installation.is_over
    if running:
        row.operator("fresco.install_cancel", icon="X")
    row.operator("fresco.open_log", text="Log").log = "installation"
    found = preferences.installation
    if found is not None and found.problem is not None:
        _say(box, context, f"{found.problem.what.capitalize()}. {found.problem.remedy}", "ERROR")
    failed = found is not None and found.problem is not None
    for line in server.last_lines(preferences.log_path("installation"))[-5:] if running or failed else ():
        box.label(text=line[:120])


CLASSES = (LookPanel, MattePanel, CoherencePanel, AdvancedPanel, OutputPanel, QueuePanel, LookMenu, ModelMenu)
