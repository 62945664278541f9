# SPDX-License-Identifier: Apache-2.0
"""Starting a server in the background, when a client needs one and none runs."""
from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fresco_backend import settings
from fresco_backend.server.server_address import COPIED, is_copied
from fresco_protocol.client import Client
from fresco_protocol.errors import Busy, OutputDenied, ServerError, ServerMissing
from fresco_protocol.messages import Welcome

PATIENCE = 30.0  # seconds until it must answer; workers load later
IDLE_EXIT = 30  # minutes; nobody knows that it runs
LARGEST_LOG = 5 * 2**20  # bytes; then the log of earlier starts is put aside


def ensure_server(client: Client, *, roots: Sequence[Path] = ()) -> subprocess.Popen[bytes] | None:
    """The server that the client reaches: None when one ran, else the process that was started for it.

    roots: folders that the new server works in, besides those of the settings. Raises ServerError when it does not come
    up, with the end of its log; ServerMissing where the one that is missing is another machine's.
    """
    try:
        client.connect()
    except ServerMissing as error:
        if is_copied(settings.connection_file()):  # a new server would take the place of the file, and of that machine
            raise ServerMissing(error.what, where=error.where, remedy=f"{COPIED} To render on this one, delete the "
                                "copy or unset FRESCO_CONNECTION.") from error
        process = start_server(roots)
        _wait(client, process)
        return process
    return None


def start_server(roots: Sequence[Path] = ()) -> subprocess.Popen[bytes]:
    """Start `fresco serve` with this Python, detached: it outlives its parent and the parent's terminal."""
    log = settings.server_log()
    words = [sys.executable, "-P", "-m", "fresco_backend.cli", "serve", "--idle-exit", str(IDLE_EXIT)]
    words += [word for root in dict.fromkeys((*settings.root_folders(), *roots)) for word in ("--root", str(root))]
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if log.is_file() and log.stat().st_size > LARGEST_LOG:
            log.replace(log.with_name(f"{log.name}.1"))
        with log.open("ab") as stream:
            return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, cwd=log.parent,
                                    env=settings.child_environment(), **_DETACHED)
    except OSError as error:
        raise OutputDenied(f"the server's log cannot be written: {error.strerror}", where=log,
                           remedy="Set FRESCO_QUEUE to a file in a folder of your own.") from error


if sys.platform == "win32":
    # A console that nobody sees, which its workers share: without any, Windows would open one for each of them.
    _DETACHED: dict[str, Any] = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    _DETACHED: dict[str, Any] = {"start_new_session": True}


def _wait(client: Client, process: subprocess.Popen[bytes]) -> Welcome:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return client.connect()
        except ServerError as error:
            code = process.poll()
            if code not in (None, Busy.exit_code):  # Busy: another client's server came first
                raise ServerError(f"the server ended with code {code}: {_last_words()}", where=settings.server_log(),
                                  remedy='Start it by hand to see why: "fresco serve"') from error
            if time.monotonic() > deadline and code == Busy.exit_code:
                raise ServerMissing("a server has the queue, and its connection file is not where this client looks",
                                    where=settings.queue_file(), remedy="Set FRESCO_CONNECTION as it was where that "
                                    "server was started, or take another FRESCO_QUEUE.") from error
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _last_words() -> str:
    lines = settings.server_log().read_text(encoding="utf-8", errors="replace").splitlines()
    return " / ".join(lines[-3:])
