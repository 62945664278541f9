# SPDX-License-Identifier: GPL-3.0-or-later
"""The operators on jobs that are there: stop, go on, versions, files, and what went wrong."""
# Annotations are values here: Blender reads properties from them.
import os
from typing import Any

import bpy
from bpy.props import BoolProperty, StringProperty

from fresco_protocol.errors import FrescoError, InputError

from . import compat, results, ticker
from .jobs import queue
from .operators import report, wait_until
from .properties import settings_of, show
from .rows import Row

ANSWERING = 10.0  # seconds that a script waits for a server that is away


class OnJob:
    """What the operators on one job share. `act` may raise a FrescoError; `is_done` is what a script waits for."""

    bl_options = {"REGISTER", "INTERNAL"}  # noqa: RUF012, read by Blender

    report: Any
    poll_message_set: Any
    key: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, _: Any) -> bool:
        """Grey, and why."""
        cls.poll_message_set("There is no job")
        return bool(queue.rows)

    def act(self, context: Any, row: Row) -> None:
        """What the operator does."""
        raise NotImplementedError

    def is_done(self, _: Row) -> bool:
        """Whether all has happened that the user asked for."""
        return True

    def execute(self, context: Any) -> set[str]:
        """Acts, and waits for the server where there is something to wait for."""
        try:
            row = queue.row(self.key)
            self.act(context, row)
            wait_until(lambda: self.is_done(row), ANSWERING)
        except FrescoError as error:
            return report(self, error)
        ticker.begin()
        return {"FINISHED"}

    def invoke(self, context: Any, _: Any) -> set[str]:
        """Acts and goes on; the queue tells what the server says."""
        try:
            self.act(context, queue.row(self.key))
        except FrescoError as error:
            return report(self, error)
        ticker.begin()
        return {"FINISHED"}


class OnJobAtServer(OnJob):
    """An operator whose wish the server has to hear."""

    def is_done(self, row: Row) -> bool:
        """Whether the server took the wish. Raises what it said if it refused."""
        if row.refusal is not None:
            raise row.refusal
        return row.wish is None


class CancelJob(OnJobAtServer, bpy.types.Operator):
    """Stop this job. Frames that are finished stay"""

    bl_idname = "fresco.cancel"
    bl_label = "Cancel"

    def act(self, _: Any, row: Row) -> None:
        """Stops the export or the render."""
        queue.cancel(row)


class RetryJob(OnJobAtServer, bpy.types.Operator):
    """Go on with this job where it stopped"""

    bl_idname = "fresco.retry"
    bl_label = "Go On"

    def act(self, _: Any, row: Row) -> None:
        """Queues it again."""
        queue.retry(row)


class DeleteVersion(OnJob, bpy.types.Operator):
    """Remove this version: its strip and its files. The plate goes with the last version"""

    bl_idname = "fresco.delete_version"
    bl_label = "Delete Version and Files"

    wait: BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Asks first: files do not come back with undo."""
        self.wait = False
        return set(context.window_manager.invoke_confirm(self, event))

    def act(self, _: Any, row: Row) -> None:
        """Deletes strip and files."""
        queue.delete(row)
        bpy.ops.ed.undo_push(message="Fresco: Delete Version")

    def is_done(self, row: Row) -> bool:
        """Whether its worker has ended and its files are gone."""
        return not self.wait or row not in queue.rows


class ShowVersion(OnJob, bpy.types.Operator):
    """Show this version and mute the others"""

    bl_idname = "fresco.show_version"
    bl_label = "Show Version"

    def act(self, _: Any, row: Row) -> None:
        """Mutes the other versions."""
        results.switch(row.group, row.key)
        bpy.ops.ed.undo_push(message="Fresco: Show Version")


class TakeChoices(OnJob, bpy.types.Operator):
    """Put the prompt and all settings of this job back on the panel"""

    bl_idname = "fresco.take_choices"
    bl_label = "Take Settings"

    def act(self, context: Any, row: Row) -> None:
        """Shows its choices."""
        show(row.choices, settings_of(compat.sequencer_scene(context)))
        bpy.ops.ed.undo_push(message="Fresco: Take Settings")


class RevealFolder(OnJob, bpy.types.Operator):
    """Open the folder of the frames"""

    bl_idname = "fresco.reveal"
    bl_label = "Open Folder"

    def act(self, _: Any, row: Row) -> None:
        """Opens it in the system's file browser."""
        if not os.path.isdir(row.folder):
            raise InputError("the folder is gone", where=row.folder, remedy="Redo the job.")
        bpy.ops.wm.path_open(filepath=row.folder)


class ExplainProblem(OnJob, bpy.types.Operator):
    """What went wrong, and what to do next"""

    bl_idname = "fresco.explain"
    bl_label = "What Went Wrong"

    def act(self, context: Any, row: Row) -> None:
        """Shows a popup; a script gets the words as a report."""
        if row.problem is None:
            return
        lines = [text for text in (row.problem.what, row.problem.where, row.problem.remedy) if text]
        if bpy.app.background:
            self.report({"INFO"}, ". ".join(lines))
            return

        def draw(popup: Any, _: Any) -> None:
            for line in lines:
                popup.layout.label(text=line)

        context.window_manager.popup_menu(draw, title=f"{row.clip.strip}: {row.state}", icon="ERROR")


class ClearEnded(bpy.types.Operator):
    """Clear ended jobs from the list. Strips and files stay"""

    bl_idname = "fresco.clear_ended"
    bl_label = "Clear Ended"

    @classmethod
    def poll(cls, _: Any) -> bool:
        """Grey, and why."""
        cls.poll_message_set("No job has ended")
        return any(row.is_ended for row in queue.rows)

    def execute(self, _: Any) -> set[str]:
        """Forgets the rows."""
        queue.forget_ended()
        return {"FINISHED"}


class Tell(bpy.types.Operator):
    """Tell that a job has ended"""

    bl_idname = "fresco.tell"
    bl_label = "Fresco"
    bl_options = {"INTERNAL"}  # noqa: RUF012, read by Blender

    text: StringProperty()
    failed: BoolProperty()

    def execute(self, _: Any) -> set[str]:
        """Reports it, as Blender's own jobs do."""
        self.report({"WARNING" if self.failed else "INFO"}, self.text)
        return {"FINISHED"}

    def invoke(self, context: Any, _: Any) -> set[str]:
        """Reports it a moment later: what an operator called from Python reports is not shown, only printed."""
        self._timer = context.window_manager.event_timer_add(0.01, window=context.window)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: Any, event: Any) -> set[str]:
        """Now Blender itself has called."""
        if event.type != "TIMER":
            return {"PASS_THROUGH"}
        context.window_manager.event_timer_remove(self._timer)
        return self.execute(context)


CLASSES = (CancelJob, RetryJob, DeleteVersion, ShowVersion, TakeChoices, RevealFolder, ExplainProblem, ClearEnded,
           Tell)
