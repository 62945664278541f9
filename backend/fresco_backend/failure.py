# SPDX-License-Identifier: Apache-2.0
"""The one error exit of the command: any exception -> words for a person, an object for a program, an exit code."""
from __future__ import annotations

import errno
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fresco_backend import settings
from fresco_backend.interruption import Terminated
from fresco_protocol.errors import DeviceMemory, DiskFull, FrescoError, InputError, Interrupted

EXIT_CODES = """\
exit codes:
  0    every frame that was asked for is delivered
  1    a bug of Fresco
  2    the command or the shot document does not make sense as it stands
  3    plate or matte missing, incomplete or unreadable
  4    the delivery cannot be written
  5    some frames were delivered and some failed
  6    colour space or colour configuration unknown
  7    weights of the model missing, damaged or not usable
  8    this machine differs from the one that planned the job: versions, weights, files
  12   the device ran out of memory
  69   no server runs, or it does not answer
  70   the worker of a job died again and again
  71   the editing application did not do what it was asked
  75   busy: the same command succeeds later
  76   client and server do not understand each other: versions, token or a damaged message
  130  interrupted (Ctrl-C); the same command goes on
  143  terminated (SIGTERM); the same command goes on"""

_FORBIDDEN = {errno.EACCES, errno.EPERM}
_FAILING = {getattr(errno, name) for name in ("EIO", "ESTALE", "ENOTCONN", "EHOSTDOWN", "ENETUNREACH", "ETIMEDOUT")
            if hasattr(errno, name)}  # a share that is gone
_NOWHERE = {errno.ENAMETOOLONG, errno.ELOOP}
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def report(error: BaseException, *, as_json: bool, command: Sequence[str], as_openjd: bool = False) -> int:
    """Says what happened on stderr (and for a program on stdout), and gives the exit code."""
    known = translated(error, command)
    place = f" ({known.where})" if known.where else ""
    label = "" if isinstance(known, Interrupted) else "error: "
    sys.stderr.write(f"fresco: {label}{known.what}{place} [{known.code}]\n")
    if known.remedy:
        sys.stderr.write(f"  {known.remedy}\n")
    if os.environ.get("FRESCO_TRACEBACK") == "1":
        traceback.print_exception(error)
    if as_json:
        sys.stdout.write(json.dumps(to_json(known)) + "\n")
    if as_openjd:
        sys.stdout.write(f"openjd_fail: {' '.join(known.what.split())}{place} [{known.code}]\n")
    return known.exit_code


def to_json(error: FrescoError) -> dict[str, Any]:
    """The error as a JSON object; "code" and "exit_code" are stable."""
    return {"event": "error", "code": error.code, "exit_code": error.exit_code, "what": error.what,
            "where": error.where, "remedy": error.remedy}


def translated(error: BaseException, command: Sequence[str]) -> FrescoError:
    """The error of the house for any exception; of a bug, the traceback is written to a file."""
    if isinstance(error, FrescoError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted", terminated=isinstance(error, Terminated))
    if isinstance(error, OSError) and (known := of_the_system(error)) is not None:
        return known
    if is_out_of_memory(error):
        return DeviceMemory(f"the device ran out of memory: {_first_line(error)}",
                            remedy="Take a smaller --working-size or a smaller --window, or close other programs. "
                                   "The same command goes on where this one stopped.")
    return FrescoError(f"this is a bug of Fresco: {type(error).__name__}: {_first_line(error)}",
                       remedy=_written(error, command))


def of_the_system(error: OSError) -> FrescoError | None:
    """What the system refused at a file, in words; None where it is no matter of rights, disks or shares. For what no
    reader or writer has said better: any look at a path may meet a folder that this user may not search."""
    if not isinstance(error.filename, (str, bytes, os.PathLike)):
        return None
    why, where = error.strerror, os.fsdecode(error.filename)
    if error.errno in _FORBIDDEN:
        return InputError(f"this user may not get at it: {why}", where=where, remedy="Give the user that Fresco runs "
                          "as its rights there, those to search the folders above it too, and run the same command "
                          "again.")
    if error.errno in _FAILING:
        return InputError(f"the disk or the share fails: {why}", where=where,
                          remedy="See that it is mounted and whole, and run the same command again.")
    if error.errno in _NOWHERE:
        return InputError(f"the path leads nowhere: {why}", where=where, remedy="Correct it.")
    if error.errno in _FULL:
        return DiskFull(f"the disk is full: {why}", where=where, remedy="Make room and run the same command again.")
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, judged without importing torch: its class on CUDA, its words elsewhere.

    The CPU has other words on Windows; CUDA's libraries, which allocate beside torch, have a status.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    words = ("can't allocate memory", "not enough memory", "out of memory", "STATUS_ALLOC_FAILED")
    return bool({"MemoryError", "OutOfMemoryError"} & names) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or "no message").splitlines()[0][:300]


def _written(error: BaseException, command: Sequence[str]) -> str:
    """Writes the traceback to a file, and gives the sentence that says where."""
    text = "".join([f"fresco {' '.join(command)}\n{platform.platform()}, Python {platform.python_version()}\n\n",
                    *traceback.format_exception(error)])
    name = f"fresco-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    for folder in (settings.scratch_folder() / "tracebacks", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return f"The traceback is in {folder / name}: please report it. FRESCO_TRACEBACK=1 shows it here."
    return "Set FRESCO_TRACEBACK=1 to see the traceback, and please report it."
