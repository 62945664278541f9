# SPDX-License-Identifier: GPL-3.0-or-later
"""The operators that make jobs: stylise, test a frame, do it again.

Each has `execute`, which blocks, for scripts and `blender -b`, and `invoke` with `modal`, which follows the export
while the interface goes on. Each leaves one undo step.
"""
# Annotations are values here: Blender reads properties from them.
import time
from collections.abc import Callable
from typing import Any, Optional

import bpy
from bpy.props import BoolProperty, StringProperty

from fresco_protocol.errors import FrescoError, RangeOutside, UsageError

from . import compat, ticker, timeline
from .alignment import selected_groups, snap
from .choices import Keyframes
from .jobs import queue
from .properties import choices_of, extent_of, lacks_matte, matte_of, settings_of
from .rows import Row, Step
from .timeline import Extent

PAUSE = 0.05  # seconds between two looks of a blocking operator
CONNECTING = 60.0  # seconds that a blocking operator waits for the server; a first start reads libraries from disk


def why_not(context: Any, *, strips: bool = True) -> Optional[str]:
    """Why nothing can be stylised now; None if something can."""
    scene = compat.sequencer_scene(context)
    if scene is None or scene.sequence_editor is None:
        return "The sequencer shows no strips"
    settings = settings_of(scene)
    if not settings.prompt.strip():
        return "Write a prompt first"
    if strips and not compat.selected_strips(context, scene):
        return "Select a strip in the sequencer first"
    if lacks_matte(settings):
        return "Choose a matte, or set Matte to None"
    return None


def shows_scene(operator: Any, context: Any) -> bool:
    """The poll of operators that need a panel to act on: whether the sequencer shows a scene; else it says so."""
    operator.poll_message_set("The sequencer shows no scene")
    return compat.sequencer_scene(context) is not None


def report(operator: Any, error: FrescoError) -> set[str]:
    """Tells an error as Blender does, with what to do next."""
    operator.report({"ERROR"}, str(error))
    return {"CANCELLED"}


class MakesJobs:
    """What the operators that make jobs share. `begin` gives the rows, or raises a FrescoError."""

    bl_label: str
    report: Any
    bl_options = {"REGISTER"}  # noqa: RUF012, read by Blender; undo steps are pushed where the strip appears

    wait: BoolProperty(
        name="Wait", default=True, options={"SKIP_SAVE"},
        description="From a script: return when all frames are there; off: when the server has the job")

    def begin(self, context: Any) -> list[Row]:
        """The new rows."""
        raise NotImplementedError

    def execute(self, context: Any) -> set[str]:
        """Blocks until the jobs are done, or sent."""
        try:
            rows = self._begun(context)
            self._export(rows)
            _run(rows, to_the_end=self.wait)
        except FrescoError as error:
            return report(self, error)
        problem = next((row.problem for row in rows if row.problem is not None), None)
        return {"FINISHED"} if problem is None else report(self, problem.error())

    def invoke(self, context: Any, _: Any) -> set[str]:
        """Begins, and follows the export."""
        try:
            self._rows = self._begun(context)
        except FrescoError as error:
            return report(self, error)
        ticker.begin()
        self._timer = context.window_manager.event_timer_add(ticker.BUSY, window=context.window)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: Any, event: Any) -> set[str]:
        """Ends when the jobs are sent, failed, or stopped by Esc."""
        exporting = [row for row in self._rows if row.step is Step.EXPORTING]
        if event.type == "ESC" and event.value == "PRESS" and exporting:
            for row in exporting:
                queue.cancel(row)
            self.report({"INFO"}, "Export stopped")
            return self._ended(context, {"CANCELLED"})
        trouble = queue.link.trouble if queue.link.is_settled else None
        waiting = any(row.step is Step.WAITING for row in self._rows)
        if exporting or (waiting and trouble is None):
            return {"PASS_THROUGH"}
        if waiting:  # the queue goes on waiting; an operator that did would keep Blender from saving by itself
            self.report({"WARNING"}, f"The job waits for the server: {trouble}")
        for row in self._rows:
            if row.problem is not None:
                report(self, row.problem.error())
        return self._ended(context, {"FINISHED"})

    def cancel(self, context: Any) -> None:
        """Blender ends the operator; export and job go on."""
        self._ended(context, {"CANCELLED"})

    def _ended(self, context: Any, how: set[str]) -> set[str]:
        context.window_manager.event_timer_remove(self._timer)
        return how

    def _begun(self, context: Any) -> list[Row]:
        rows = self.begin(context)
        bpy.ops.ed.undo_push(message=f"Fresco: {self.bl_label}")
        return rows

    def _export(self, rows: list[Row]) -> None:
        if bpy.app.background:
            for row in rows:
                queue.export_now(row)


def _run(rows: list[Row], *, to_the_end: bool) -> None:
    """Ticks until the jobs are done, or sent. Raises the link's trouble when no server comes."""
    wait_until(lambda: all(row.is_ended or (not to_the_end and row.step is Step.SENT) for row in rows))


def wait_until(holds: Callable[[], bool], seconds: Optional[float] = None) -> None:
    """Ticks until something holds. Raises the link's trouble when no server comes in so many seconds."""
    asked, limit = time.monotonic(), CONNECTING if seconds is None else seconds
    while not holds():
        ticker.step()
        if queue.link.is_up or any(row.step is Step.EXPORTING for row in queue.rows):
            asked = time.monotonic()
        elif time.monotonic() - asked > limit and queue.link.trouble is not None:
            raise queue.link.trouble
        time.sleep(PAUSE)


class Stylise(MakesJobs, bpy.types.Operator):
    """Give the selected strips a new look. Each becomes a job of its own, and its result a strip above it"""

    bl_idname = "fresco.stylise"
    bl_label = "Stylise"

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Grey, and why."""
        reason = why_not(context)
        cls.poll_message_set(reason or "")
        return reason is None

    def begin(self, context: Any) -> list[Row]:
        """One row for each selected strip."""
        settings = settings_of(compat.sequencer_scene(context))
        return _added(context, extent_of(settings), "no selected strip lies in the range")


class TestFrame(MakesJobs, bpy.types.Operator):
    """Stylise the frame under the playhead, to find the look before the whole shot is rendered"""

    bl_idname = "fresco.test_frame"
    bl_label = "Test Frame"

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Grey, and why."""
        reason = why_not(context)
        if reason is None and not _under_playhead(context):
            reason = "Put the playhead on a selected strip"
        cls.poll_message_set(reason or "")
        return reason is None

    def begin(self, context: Any) -> list[Row]:
        """One row for each selected strip under the playhead."""
        return _added(context, Extent.PLAYHEAD, "the playhead is on no selected strip")


def _under_playhead(context: Any) -> bool:
    scene = compat.sequencer_scene(context)
    spans = [compat.span(strip) for strip in compat.selected_strips(context, scene)]
    return any(start <= scene.frame_current < end for start, end in spans)


def _added(context: Any, extent: Extent, otherwise: str) -> list[Row]:
    scene = compat.sequencer_scene(context)
    settings = settings_of(scene)
    clips = timeline.collect(context, extent, handles=settings.handles, matte=matte_of(settings))
    if not clips:
        raise RangeOutside(otherwise, where=scene.name, remedy="Move it, or choose another range.")
    choices = choices_of(settings)
    for clip in clips:  # all or none: half a selection would be hard to undo
        timeline.validate(clip)
        if choices.keyframes is Keyframes.MARKERS:
            timeline.markers_of(clip)
    return [queue.add(clip, choices, ticker.folder_of(scene)) for clip in clips]


class Redo(MakesJobs, bpy.types.Operator):
    """Do this job again with what the panel says now: a new version beside the old one"""

    bl_idname = "fresco.redo"
    bl_label = "New Version"

    key: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Grey, and why."""
        reason = why_not(context, strips=False)
        cls.poll_message_set(reason or "")
        return reason is None

    def begin(self, context: Any) -> list[Row]:
        """The row of the new version."""
        settings = settings_of(compat.sequencer_scene(context))
        return [queue.add_version(queue.row(self.key), choices_of(settings))]


class SnapToSource(bpy.types.Operator):
    """Put results, with all versions, back over the strips they were made of, which were moved, slipped or trimmed"""

    bl_idname = "fresco.snap_to_source"
    bl_label = "Snap to Source"
    bl_options = {"REGISTER"}  # noqa: RUF012, read by Blender

    key: StringProperty(options={"HIDDEN", "SKIP_SAVE"}, description="A job; without one, the selected results")

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Grey, and why. The queue's button needs no selection."""
        cls.poll_message_set("Select a result strip of Fresco first")
        return bool(queue.rows) or bool(selected_groups(context))

    def execute(self, context: Any) -> set[str]:
        """Moves them, and says which frames have no result."""
        try:
            groups = [queue.row(self.key).group] if self.key else selected_groups(context)
            if not groups:
                raise UsageError("no result strip of Fresco is selected", remedy="Select one.")
            missing = sum(snap(group) for group in groups)
        except FrescoError as error:
            return report(self, error)
        bpy.ops.ed.undo_push(message="Fresco: Snap to Source")
        if missing:
            self.report({"WARNING"}, f"{missing} frames have no result yet: stylise the strip again")
        return {"FINISHED"}


CLASSES = (Stylise, TestFrame, Redo, SnapToSource)
