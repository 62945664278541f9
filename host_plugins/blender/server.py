# SPDX-License-Identifier: GPL-3.0-or-later
"""The Fresco server as a process: find a Python that has it, install it into one, start it. Never Blender's own Python.

What runs long runs beside Blender, writes into a log, and is asked now and then; nothing here waits for it.
"""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Optional

from fresco_protocol.errors import FrescoError, ServerError, UsageError

OLDEST = (3, 11)
NEWEST_KNOWN = (3, 14)
PACKAGE = "fresco-post"
IDLE_MINUTES = 60  # without a job and without a host the server ends itself
CHECK = f"import sys; sys.exit(0 if sys.version_info >= {OLDEST} else 3)"
LAST_LINES = 40
NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows opens a console for each program that has none


def python_of(venv: str) -> str:
    """The Python of a virtual environment."""
    return os.path.join(venv, "Scripts", "python.exe") if sys.platform == "win32" else \
        os.path.join(venv, "bin", "python")


def has_server(python: str) -> bool:
    """Whether Fresco is installed in the environment of this Python; looks at files, starts nothing."""
    name = "fresco.exe" if sys.platform == "win32" else "fresco"
    return os.path.isfile(os.path.join(os.path.dirname(python), name))


def search_path() -> str:
    """Where programs are looked for: a Blender that a desktop started, macOS's above all, knows too few folders."""
    desktop = () if sys.platform == "win32" else (
        "/usr/local/bin", "/opt/homebrew/bin", os.path.expanduser("~/.local/bin"))
    return os.pathsep.join(folder for folder in (*os.get_exec_path(), *desktop) if folder)


def found_server() -> Optional[str]:
    """The Python beside the command `fresco` of the system's path, which may be a link (pipx); None without one."""
    command = shutil.which("fresco", path=search_path())
    python = os.path.join(os.path.dirname(os.path.realpath(command)),
                          "python.exe" if sys.platform == "win32" else "python") if command else None
    return python if python is not None and os.path.isfile(python) else None


def pythons() -> list[str]:
    """The Pythons of the system's path that may be new enough to make an environment with, the best first.

    Blender's own is left alone: an environment made from it would break with the next Blender.
    """
    names = [f"python{OLDEST[0]}.{minor}" for minor in range(NEWEST_KNOWN[1] - 1, OLDEST[1] - 1, -1)]
    names += ["python3", "python", *(["py"] if sys.platform == "win32" else [])]  # py: the launcher of python.org
    found = (shutil.which(name, path=search_path()) for name in names)
    return list(dict.fromkeys(path for path in found if path is not None))


def start(python: str, log: str, *, connection_file: Optional[str] = None, roots: Sequence[str] = ()) -> None:
    """Starts the server detached from Blender: it outlives it, and its jobs too. Raises UsageError, ServerError.

    roots: folders that it may read and write; none is its own choice: home and temporary folder.
    """
    if not python:
        raise UsageError("no Python with Fresco is chosen", where="preferences of Fresco",
                         remedy="Choose one there, or press Install Backend.")
    environment = dict(os.environ, **({"FRESCO_CONNECTION": connection_file} if connection_file else {}))
    for name in ("PYTHONPATH", "PYTHONHOME"):  # Blender's are not the server's
        environment.pop(name, None)
    words = [python, "-m", "fresco_backend.cli", "serve", "--idle-exit", str(IDLE_MINUTES),
             *(word for root in roots for word in ("--root", root))]
    os.makedirs(os.path.dirname(log), exist_ok=True)
    try:
        with open(log, "ab") as file:
            _spawn(words, file, environment)
    except OSError as error:
        raise ServerError(f"the server cannot be started: {error.strerror}", where=python,
                          remedy="Choose another Python in the preferences of Fresco.") from None


def _spawn(words: Sequence[str], log: IO[bytes], environment: dict[str, str]) -> None:
    if sys.platform == "win32":  # a detached one would have no console, and its workers would open one each
        flags = NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
        subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                         creationflags=flags)
    else:
        subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                         start_new_session=True)


@dataclass
class Installation:
    """The backend being installed into an environment of its own. Nothing here waits.

    venv: its folder. requirement: what pip gets: a name, a wheel, or a source folder. log: where all output goes.
    is_over: nothing runs any more. problem: why it went badly.
    """

    venv: str
    requirement: str
    log: str

    def __post_init__(self) -> None:
        self.problem: Optional[FrescoError] = None
        self.is_over = False
        self._candidates: list[str] = []
        self._is_searching = True
        self._commands: list[list[str]] = []
        self._child: Optional[subprocess.Popen[bytes]] = None

    def begin(self) -> None:
        """Starts: the first Python that is new enough, an environment from it, then pip in that."""
        os.makedirs(os.path.dirname(self.log), exist_ok=True)
        with open(self.log, "wb"):
            pass
        self._candidates = pythons()
        self._try_next()

    def _try_next(self) -> None:
        """Looks at the next Python; a shim on the path may lie there and refuse."""
        if not self._candidates:
            self.is_over = True
            self.problem = UsageError("no Python 3.11 or later was found on this machine",
                                      remedy="Install one from python.org or your system's packages, and press the "
                                             "button again.")
            return
        self._commands = [[self._candidates[0], "-c", CHECK]]
        self._next()

    def _install(self, python: str) -> None:
        inside = python_of(self.venv)
        pip = [inside, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", self.requirement]
        self._is_searching, self._commands = False, [[python, "-m", "venv", "--clear", self.venv], pip]
        self._next()

    def poll(self) -> None:
        """Goes on to the next command; sets `is_over` once nothing runs any more, and `problem` if it went badly."""
        code = None if self._child is None else self._child.poll()
        if code is None:
            return
        if self._is_searching:
            python = self._candidates.pop(0)
            self._install(python) if code == 0 else self._try_next()
            return
        if code != 0:
            self.problem = ServerError(f"the installation ended with code {code}", where=self.log,
                                       remedy="The log says why.")
            self._commands.clear()
        self.is_over = not self._commands
        if self._commands:
            self._next()

    def cancel(self) -> None:
        """Ends it and removes the half-made environment."""
        self._commands.clear()
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self.is_over = True
        shutil.rmtree(self.venv, ignore_errors=True)

    def _next(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        with open(self.log, "ab") as log:
            self._child = subprocess.Popen(self._commands.pop(0), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                           env=environment, creationflags=NO_WINDOW)


def last_lines(log: str, count: int = LAST_LINES) -> list[str]:
    """The end of a log; empty without one."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()[-count:]
    except OSError:
        return []
