# SPDX-License-Identifier: Apache-2.0
"""The server behind the host: found by its connection file, or started with the command that the installer noted."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Optional

from fresco_davinci.clip import Phase, Progress
from fresco_protocol.client import Client
from fresco_protocol.errors import ServerError, ServerMissing

COMMAND_FILE = "command.txt"  # beside the package: one word a line
IDLE_MINUTES = 30
START_SECONDS = 60.0


def fresco_command() -> list[str]:
    """How `fresco` is called on this machine: FRESCO_COMMAND, the installer's note, or the search path.

    Raises ServerMissing when there is no `fresco`.
    """
    note = Path(__file__).parents[1] / COMMAND_FILE
    stated = os.environ.get("FRESCO_COMMAND", "").strip()
    if stated:
        return [stated]
    if note.is_file():
        return note.read_text(encoding="utf-8").split("\n")[:-1]
    found = shutil.which("fresco")
    if found is None:
        raise ServerMissing("no server runs, and the command fresco is not found",
                            remedy="Install Fresco, and run `fresco resolve install` in its environment.")
    return [found]


def connected(client: Client, command: Optional[list[str]] = None,
              roots: Sequence[str] = ()) -> Generator[Progress, None, None]:
    """Connects, starting a server when none runs; yields while it waits. Raises ServerError.

    roots: folders that a new server works in, besides the home folder and the one for temporary files; FRESCO_ROOTS
    comes first.
    """
    try:
        client.connect()
        return
    except ServerMissing:
        server = _start(command or fresco_command(), roots)
    deadline = time.monotonic() + START_SECONDS
    while True:
        yield Progress(phase=Phase.WAITING, text="starting the server")
        try:
            client.connect(seconds=1.0)
            return
        except ServerError as error:
            if server.poll() not in (None, 0) or time.monotonic() > deadline:
                raise ServerMissing("the server did not start", where=" ".join(server.args),  # type: ignore[arg-type]
                                    remedy="Run `fresco serve` in a terminal, and read what it says.") from error


def _start(command: list[str], roots: Sequence[str]) -> subprocess.Popen[bytes]:
    """Detached: the server outlives Resolve, and holds nothing of it open. Raises ServerMissing."""
    quiet, environment = subprocess.DEVNULL, dict(os.environ)
    environment.pop("PYTHONHOME", None)  # it may choose Resolve's Python, and no other one starts with it
    words = [*command, "serve", "--idle-exit", str(IDLE_MINUTES)]
    if not os.environ.get("FRESCO_ROOTS"):  # else the studio has said it
        for root in dict.fromkeys((str(Path.home()), tempfile.gettempdir(), *roots)):
            words += ["--root", root]
    try:
        if sys.platform == "win32":
            flags = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
            return subprocess.Popen(words, stdin=quiet, stdout=quiet, stderr=quiet, env=environment,
                                    creationflags=flags)
        return subprocess.Popen(words, stdin=quiet, stdout=quiet, stderr=quiet, env=environment,
                                start_new_session=True)
    except OSError as error:  # the environment was moved or deleted since it was noted
        raise ServerMissing(f"the server cannot be started: {error.strerror}", where=command[0],
                            remedy="Install Fresco again, and run `fresco resolve install` in its "
                                   "environment.") from None
