# SPDX-License-Identifier: GPL-3.0-or-later
"""The preferences: which server, how it is started, and how it is installed."""
# Annotations are values here: Blender reads properties from them.
import os
import tempfile
from collections.abc import Sequence
from typing import Any, Optional

import bpy
from bpy.props import BoolProperty, StringProperty

from . import server


class FrescoPreferences(bpy.types.AddonPreferences):
    """What is true on this machine, whatever .blend is open."""

    bl_idname = __package__

    python: StringProperty(
        name="Backend Python", subtype="FILE_PATH",
        description="A Python in which Fresco is installed, such as venv/bin/python; never Blender's own")
    requirement: StringProperty(
        name="Install From", default=server.PACKAGE,
        description="What pip installs: the name of the package, a wheel, or the folder of Fresco's source")
    autostart: BoolProperty(
        name="Start the Server When a Job Needs It", default=True,
        description="The server outlives Blender, finishes its jobs, and ends itself when it has nothing to do")
    roots: StringProperty(
        name="Folders",
        description="Where the server may read and write, separated by semicolons, such as /mnt/jobs;/mnt/footage; "
                    "empty: your home, the temporary folder, and those of the jobs for which it is started. "
                    "It holds from the next start")
    connection_file: StringProperty(
        name="Connection File", subtype="FILE_PATH",
        description="How to reach the server; empty is the usual place on this machine. For a server elsewhere: "
                    "a copy of its connection file, with the port of your ssh tunnel")

    def connection_path(self) -> Optional[str]:
        """The connection file; None is the usual one."""
        return str(bpy.path.abspath(self.connection_file)) if self.connection_file else None

    def python_path(self) -> str:
        """The Python that has Fresco: the one chosen, else installed here, else on the system's path, else empty."""
        if self.python:
            return str(bpy.path.abspath(self.python))
        own = server.python_of(backend_folder())
        return own if server.has_server(own) else server.found_server() or ""

    def start_server(self, needed: Sequence[str] = ()) -> None:
        """Starts the server of this machine. Raises UsageError, ServerError.

        needed: folders of jobs that wait for it, for which it is opened where no folders are stated.
        """
        folders = [bpy.path.abspath(folder.strip()) for folder in self.roots.split(";") if folder.strip()]
        if needed and not folders and not os.environ.get("FRESCO_ROOTS"):
            folders = [os.path.expanduser("~"), tempfile.gettempdir(), *needed]
        server.start(self.python_path(), log_path("server"), connection_file=self.connection_path(), roots=folders)

    def may_start_server(self) -> bool:
        """Whether a missing server is one of this machine, and may be started unasked."""
        return self.autostart and bool(self.python_path())

    def draw(self, context: Any) -> None:
        """Shows what is chosen and how the server is."""
        from .panels import draw_preferences

        draw_preferences(self, self.layout, context)


def of() -> Any:
    """The preferences of this add-on."""
    return bpy.context.preferences.addons[__package__].preferences


def user_folder() -> str:
    """The folder that Blender keeps for this add-on; made when needed."""
    return str(bpy.utils.extension_path_user(__package__, create=True))


def backend_folder() -> str:
    """Where Install Backend puts the environment."""
    return os.path.join(user_folder(), "backend")


def preset_folder() -> str:
    """Where presets are kept, to be shared as files."""
    return os.path.join(user_folder(), "presets")


def log_path(name: str) -> str:
    """The log of the server or of the installation."""
    return os.path.join(user_folder(), "logs", f"{name}.log")


installation: Optional[server.Installation] = None


def install() -> None:
    """Begins to install the backend."""
    global installation
    installation = server.Installation(backend_folder(), of().requirement, log_path("installation"))
    installation.begin()


def poll_installation() -> bool:
    """True while the backend is being installed, and once when that has just ended."""
    if installation is None or installation.is_over:
        return False
    installation.poll()
    return True


CLASSES = (FrescoPreferences,)


def register() -> None:
    """Makes the preferences known."""
    for kind in CLASSES:
        bpy.utils.register_class(kind)


def unregister() -> None:
    """Takes them away; an installation that runs ends."""
    if installation is not None and not installation.is_over:
        installation.cancel()
    for kind in reversed(CLASSES):
        bpy.utils.unregister_class(kind)
