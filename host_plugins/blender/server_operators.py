# SPDX-License-Identifier: GPL-3.0-or-later
"""The operators on the server: start, look, stop, install, logs, models."""
# Annotations are values here: Blender reads properties from them.
import os
import time
from typing import Any

import bpy
from bpy.props import StringProperty

from fresco_protocol.errors import FrescoError, UsageError
from fresco_protocol.messages import Stop

from . import preferences, ticker
from .jobs import queue
from .operators import report, shows_scene, wait_until
from .queue_operators import ANSWERING


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
            preferences.of().start_server(queue.folders)
        except FrescoError as error:
            return report(self, error)
        ticker.begin()
        self.report({"INFO"}, "The server starts")
        return {"FINISHED"}


class CheckServer(bpy.types.Operator):
    """Look whether the server answers"""

    bl_idname = "fresco.server_check"
    bl_label = "Connect"

    @classmethod
    def poll(cls, _: Any) -> bool:
        """Grey, and why."""
        cls.poll_message_set("A frame is being rendered: wait for it")
        return not bpy.app.is_job_running("RENDER")

    def execute(self, _: Any) -> set[str]:
        """Connects anew, and waits for what comes of it."""
        self._begin()
        wait_until(lambda: queue.link.is_settled)
        if queue.link.trouble is not None:
            return report(self, queue.link.trouble)
        self.report({"INFO"}, "The server answers")
        return {"FINISHED"}

    def invoke(self, _: Any, __: Any) -> set[str]:
        """Connects anew; the line above the button tells what comes of it."""
        self._begin()
        ticker.begin()
        return {"FINISHED"}

    def _begin(self) -> None:
        queue.link.close()
        queue.refresh_models()


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
        """Asks it to end, and waits for its word."""
        answer = queue.link.ask(Stop())
        try:
            wait_until(lambda: not queue.link.waits_for(answer), ANSWERING)
        except FrescoError as error:
            return report(self, error)
        return {"FINISHED"} if answer.error is None else report(self, answer.error)

    def invoke(self, _: Any, __: Any) -> set[str]:
        """Asks it to end and goes on."""
        queue.link.ask(Stop())
        ticker.begin()
        return {"FINISHED"}


class RefreshModels(bpy.types.Operator):
    """Ask the server which models it has"""

    bl_idname = "fresco.models_refresh"
    bl_label = "Ask the Server for Models"

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Grey, and why."""
        return shows_scene(cls, context)

    def execute(self, _: Any) -> set[str]:
        """Asks, and waits for the answer."""
        queue.refresh_models()
        wait_until(lambda: not queue.is_asking_models)
        trouble = queue.link.trouble
        return report(self, trouble) if trouble is not None else {"FINISHED"}

    def invoke(self, _: Any, __: Any) -> set[str]:
        """Asks and goes on; the list fills when the answer comes."""
        queue.refresh_models()
        ticker.begin()
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
        preferences.install()
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

    @classmethod
    def poll(cls, _: Any) -> bool:
        """Grey, and why."""
        cls.poll_message_set("Nothing was started or installed from here yet, so there is no log")
        return os.path.isdir(os.path.dirname(preferences.log_path("server")))

    def execute(self, _: Any) -> set[str]:
        """Opens it with the system's program."""
        path = preferences.log_path(self.log)
        if not os.path.isfile(path):
            return report(self, UsageError("there is no such log yet", where=path))
        bpy.ops.wm.path_open(filepath=path)
        return {"FINISHED"}


CLASSES = (StartServer, CheckServer, StopServer, RefreshModels, InstallBackend, CancelInstallation, OpenLog)
