# SPDX-License-Identifier: Apache-2.0
"""What `fresco doctor` finds of the server: whether one runs, its queue, its roots, the rules for paths."""
from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from fresco_backend import settings
from fresco_backend.commands.finding import Concern
from fresco_backend.commands.job_commands import connected
from fresco_backend.path_mapping import PathMapping
from fresco_backend.server.server_address import is_copied
from fresco_protocol.errors import OutputDenied, ServerMissing
from fresco_protocol.messages import Status

SECONDS = 3.0  # that a server may take to answer


def server() -> str | Concern:
    """Whether a server runs and answers. Raises the ServerError or ProtocolError that stands in the way."""
    try:
        with connected() as client:
            status = client.request(Status(), seconds=SECONDS)
    except ServerMissing as error:
        if not settings.connection_file().exists():
            return 'none runs; "fresco submit" starts one when it is needed'
        remedy = 'It ended without a word. "fresco serve" starts it again; its jobs go on.'
        if is_copied(settings.connection_file()):
            remedy = "It is on another machine: open the tunnel again; copy the file again where it was started anew."
        return Concern(text=f"{error.what} ({error.where})", remedy=remedy)
    devices = ", ".join(worker.device for worker in status.workers) or "no device yet"
    return f"{status.software}, process {status.pid}, on {devices}; {status.queued} queued, {status.running} running"


def queue() -> str | Concern:
    """Whether the queue's file can be written, and by nobody else. Raises OutputDenied."""
    path = settings.queue_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent) as file:
            file.write(b"fresco")
        if path.exists():
            path.open("r+b").close()
    except OSError as error:
        raise OutputDenied(f"the queue cannot be written: {error.strerror}", where=path,
                           remedy="Give its owner the right to write the file and its folder, or set FRESCO_QUEUE."
                           ) from error
    if os.name == "posix" and path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        return Concern(text=f"others may read it: {path}", remedy=f"It holds prompts and paths: chmod 600 {path}")
    return str(path)


def roots() -> str | Concern:
    """The folders in which a server would work, and the rules for paths. Raises UsageError for rules that are none."""
    rules = settings.path_mapping()
    count = len(PathMapping.of_file(rules).rules) if rules else 0
    folders = settings.root_folders()
    missing = [folder for folder in folders if not folder.is_dir()]
    if missing:
        return Concern(text=f"no folder: {_listed(missing)}", remedy="Correct FRESCO_ROOTS.")
    mapped = f"; {count} rules for paths of other machines, in {rules}" if rules else ""
    return f"{_listed(folders)}{mapped}"


def _listed(folders: tuple[Path, ...] | list[Path]) -> str:
    return ", ".join(map(str, folders))


SERVER_CHECKS: dict[str, Callable[[], str | Concern]] = {"server": server, "queue": queue, "roots": roots}
