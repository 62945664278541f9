# SPDX-License-Identifier: GPL-3.0-or-later
"""The operators on the server and on presets."""
# Annotations are values here: Blender reads properties from them.
import time
from typing import Any

import bpy
from bpy.props import StringProperty

from fresco_protocol.errors import FrescoError, UsageError
from fresco_protocol.messages import Stop

from . import compat, preferences, presets, server, ticker
from .jobs import queue
from .operators import report
from .properties import choices_of, settings_of, show


class StartServer(bpy.types.Operator):
    """Start the Fresco server of this machine"""

    bl_idname = "fresco.server_start"
    bl_label = "Start Server"

    @classmethod
    def poll(cls, _: Any) -> bool:
        """Grey, and why."""
        cls.poll_message_set("The server runs already" if queue.link.is_up else
                             "Choose a Python with Fresco in the preferences, or press Install Backend")
        return not queue.link.is_up and bool(preferences.of().python_path())

    def execute(self, _: Any) -> set[str]:
        """Starts it detached and goes on."""
        try:
            preferences.of().start_server()
        except FrescoError as error:
            return report(self, error)
        ticker.begin()
        self.report({"INFO"}, "The server starts")
        return {"FINISHED"}


class CheckServer(bpy.types.Operator):
    """Look whether the server answers"""

    bl_idname = "fresco.server_check"
    bl_label = "Connect"

    def execute(self, _: Any) -> set[str]:
        """Connects anew."""
        queue.link.close()
        queue.link.open(preferences.of().connection_path())
        if queue.link.trouble is not None:
            return report(self, queue.link.trouble)
        self.report({"INFO"}, "The server answers")
        return {"FINISHED"}


class StopServer(bpy.types.Operator):
    """End the server. Its queue goes on when it starts again"""

    bl_idname = "fresco.server_stop"
    bl_label = "Stop Server"

    @classmethod
    def poll(cls, _: Any) -> bool:
        """Grey, and why."""
        cls.poll_message_set("No server is connected")
        return queue.link.is_up

    def execute(self, _: Any) -> set[str]:
        """Asks it to end."""
        try:
            queue.link.request(Stop())
        except FrescoError as error:
            return report(self, error)
        return {"FINISHED"}


class InstallBackend(bpy.types.Operator):
    """Install Fresco's backend into an environment of its own, in the background. Blender's Python stays as it is"""

    bl_idname = "fresco.install_backend"
    bl_label = "Install Backend"

    @classmethod
    def poll(cls, _: Any) -> bool:
        """Grey, and why."""
        running = preferences.installation is not None and not preferences.installation.is_over
        cls.poll_message_set("It is being installed" if running else
                             "Blender is told to stay offline: allow Online Access in Preferences > System")
        return not running and bpy.app.online_access

    def execute(self, context: Any) -> set[str]:
        """In the background and from a script: returns when it is done."""
        result = self.invoke(context, None)
        while result == {"FINISHED"} and preferences.poll_installation():
            time.sleep(0.2)
        found = preferences.installation
        return report(self, found.problem) if found is not None and found.problem is not None else result

    def invoke(self, _: Any, __: Any) -> set[str]:
        """Begins and goes on."""
        python = server.found_python()
        if python is None:
            return report(self, UsageError(
                "no Python 3.11 or later was found on this machine",
                remedy="Install one from python.org or your system's packages, and press the button again."))
        preferences.install(python)
        ticker.begin()
        return {"FINISHED"}


class CancelInstallation(bpy.types.Operator):
    """Stop the installation and remove what it made"""

    bl_idname = "fresco.install_cancel"
    bl_label = "Stop Installation"

    @classmethod
    def poll(cls, _: Any) -> bool:
        """Grey, and why."""
        cls.poll_message_set("Nothing is being installed")
        return preferences.installation is not None and not preferences.installation.is_over

    def execute(self, _: Any) -> set[str]:
        """Ends pip."""
        if preferences.installation is not None:
            preferences.installation.cancel()
        return {"FINISHED"}


class OpenLog(bpy.types.Operator):
    """Open this log"""

    bl_idname = "fresco.open_log"
    bl_label = "Open Log"

    log: StringProperty(default="server", options={"HIDDEN"})

    def execute(self, _: Any) -> set[str]:
        """Opens it with the system's program."""
        bpy.ops.wm.path_open(filepath=preferences.log_path(self.log))
        return {"FINISHED"}


class LoadPreset(bpy.types.Operator):
    """Put this preset on the panel"""

    bl_idname = "fresco.preset_load"
    bl_label = "Load Preset"

    preset: StringProperty(options={"HIDDEN"})

    def execute(self, context: Any) -> set[str]:
        """Shows its choices."""
        settings = settings_of(compat.sequencer_scene(context))
        try:
            show(presets.load(preferences.preset_folder(), self.preset, choices_of(settings)), settings)
        except FrescoError as error:
            return report(self, error)
        bpy.ops.ed.undo_push(message="Fresco: Load Preset")
        return {"FINISHED"}


class SavePreset(bpy.types.Operator):
    """Keep what the panel shows as a preset, a file that can be given to others"""

    bl_idname = "fresco.preset_save"
    bl_label = "Save Preset"

    preset: StringProperty(name="Name", description="Letters, digits and spaces")

    def invoke(self, context: Any, _: Any) -> set[str]:
        """Asks for the name."""
        return set(context.window_manager.invoke_props_dialog(self))

    def execute(self, context: Any) -> set[str]:
        """Writes the file."""
        settings = settings_of(compat.sequencer_scene(context))
        try:
            path = presets.save(preferences.preset_folder(), self.preset, choices_of(settings))
        except FrescoError as error:
            return report(self, error)
        self.report({"INFO"}, f"Saved {path}")
        return {"FINISHED"}


class DeletePreset(bpy.types.Operator):
    """Delete this preset's file"""

    bl_idname = "fresco.preset_delete"
    bl_label = "Delete Preset"

    preset: StringProperty(options={"HIDDEN"})

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Asks first."""
        return set(context.window_manager.invoke_confirm(self, event))

    def execute(self, _: Any) -> set[str]:
        """Removes the file."""
        try:
            presets.delete(preferences.preset_folder(), self.preset)
        except FrescoError as error:
            return report(self, error)
        return {"FINISHED"}


class ImportPreset(bpy.types.Operator):
    """Put a preset that somebody gave you on the panel"""

    bl_idname = "fresco.preset_import"
    bl_label = "Open Preset File"

    filepath: StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})
    filter_glob: StringProperty(default=f"*{presets.EXTENSION}", options={"HIDDEN"})

    def invoke(self, context: Any, _: Any) -> set[str]:
        """Asks for the file."""
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: Any) -> set[str]:
        """Shows its choices."""
        try:
            show(presets.load_file(self.filepath), settings_of(compat.sequencer_scene(context)))
        except FrescoError as error:
            return report(self, error)
        bpy.ops.ed.undo_push(message="Fresco: Open Preset File")
        return {"FINISHED"}


CLASSES = (StartServer, CheckServer, StopServer, InstallBackend, CancelInstallation, OpenLog, LoadPreset, SavePreset,
           DeletePreset, ImportPreset)
