# SPDX-License-Identifier: Apache-2.0
"""Where scratch, weights and the connection file live on this machine, and what the environment says.

Every function reads the environment when it is called and makes no folder: whoever writes makes it.

    FRESCO_SCRATCH      scratch folder                      default: the user's cache folder; .fresco for shots
    FRESCO_MODELS       folder of models known by a name    default: the user's data folder
    FRESCO_CONNECTION   connection file of the server       default: the user's runtime folder
    FRESCO_CLIENT_KEY   file of a client's secret key       default: none, for a server on this machine
    FRESCO_QUEUE        file of the server's jobs           default: in the user's state folder
    FRESCO_PATH_MAPPING file of rules for clients' paths    default: none
    FRESCO_ROOTS        folders in which the server works   default: home, temporary and current folder
    FRESCO_OFFLINE      1: never download                   default: 0
    FRESCO_DEVICE       auto, cpu, cuda, cuda:1, mps        default: auto
    OCIO                colour configuration                default: a built-in one

Source of the default folders: XDG Base Directory Specification 0.8; Apple's File System Programming Guide; Known
Folders of Windows.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import fresco_backend
import fresco_protocol
from fresco_protocol.connection import default_file
from fresco_protocol.errors import UsageError

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def scratch_folder() -> Path:
    """The folder of what Fresco may lose between two runs."""
    return _from_environment("FRESCO_SCRATCH") or _user_folder("XDG_CACHE_HOME", ".cache", mac="Caches") / "scratch"


def shot_scratch(delivery: Path) -> Path:
    """The folder of unfinished work of the shots that are delivered into `delivery`: keyframes, anchors.

    FRESCO_SCRATCH, else `.fresco` beside the delivery, which every machine sees that sees the delivery.
    """
    return _from_environment("FRESCO_SCRATCH") or delivery / ".fresco"


def models_folder() -> Path:
    """The folder whose entries are models that can be asked for by name alone."""
    data = _user_folder("XDG_DATA_HOME", ".local/share", mac="Application Support")
    return _from_environment("FRESCO_MODELS") or data / "models"


def connection_file() -> Path:
    """The file in which a running server says how to reach it. It is gone after a restart of the machine, or stale."""
    return Path(default_file())


def client_key() -> Path | None:
    """The secret key with which this client goes to a server on another machine; `server.key` lies beside it."""
    return _from_environment("FRESCO_CLIENT_KEY")


def queue_file() -> Path:
    """The database of the server's jobs, which outlives it and the machine's restarts."""
    state = _user_folder("XDG_STATE_HOME", ".local/state", mac="Application Support")
    return _from_environment("FRESCO_QUEUE") or state / "queue.sqlite"


def server_log() -> Path:
    """The log of a server that was started in the background."""
    return queue_file().with_name("server.log")


def root_folders() -> tuple[Path, ...]:
    """The folders in which the server reads and writes when its command names none."""
    stated = [Path(text).expanduser().absolute() for text in os.environ.get("FRESCO_ROOTS", "").split(os.pathsep)
              if text.strip()]
    return tuple(stated) or (Path.home(), Path(tempfile.gettempdir()), Path.cwd())


def path_mapping() -> Path | None:
    """The file of rules by which the server reads paths of other machines; None when there is none."""
    return _from_environment("FRESCO_PATH_MAPPING")


def offline() -> bool:
    """True when nothing may be downloaded. Raises UsageError when FRESCO_OFFLINE is no yes or no."""
    word = os.environ.get("FRESCO_OFFLINE", "").strip().lower() or "0"
    if word not in _TRUE + _FALSE:
        raise UsageError(f'"{word}" is neither yes nor no', where="FRESCO_OFFLINE", remedy="Set it to 1 or 0.")
    return word in _TRUE


def device_name() -> str:
    """The device that the environment asks for, or "auto"."""
    return os.environ.get("FRESCO_DEVICE", "").strip().lower() or "auto"


def color_configuration() -> str | None:
    """The colour configuration that the environment names: a path or "ocio://..."; None when it names none."""
    return os.environ.get("OCIO", "").strip() or None


def child_environment() -> dict[str, str]:
    """This process's environment, in which a child finds the same packages."""
    packages = [str(Path(package.__file__ or "").parents[1]) for package in (fresco_backend, fresco_protocol)]
    known = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []  # an empty entry is the current folder
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*packages, *known])}


def _from_environment(variable: str) -> Path | None:
    text = os.environ.get(variable, "").strip()
    return Path(text).expanduser().absolute() if text else None


def _user_folder(variable: str, below_home: str, *, mac: str) -> Path:
    """Fresco's folder inside the user's folder of one kind on this platform."""
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "fresco"
    if sys.platform == "darwin":
        return Path.home() / "Library" / mac / "fresco"
    # The specification: a relative path in one of these variables is invalid and must be ignored.
    stated = Path(os.environ.get(variable, ""))
    return (stated if stated.is_absolute() else Path.home() / below_home) / "fresco"
