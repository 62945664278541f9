# SPDX-License-Identifier: Apache-2.0
"""The running Resolve, as a program outside of it reaches it (Studio only)."""
from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from fresco_davinci.edition import BY_HAND
from fresco_protocol.errors import HostRefused

MODULE = "DaVinciResolveScript"
SCRIPTING = "Blackmagic Design/DaVinci Resolve"


def script_folders() -> list[Path]:
    """Folders in which Resolve's Python module may lie: RESOLVE_SCRIPT_API, else where its installers put it."""
    stated = os.environ.get("RESOLVE_SCRIPT_API", "").strip()
    if stated:
        return [Path(stated) / "Modules"]
    if sys.platform == "win32":
        data = os.environ.get("PROGRAMDATA", "C:/ProgramData")
        return [Path(data) / SCRIPTING / "Support/Developer/Scripting/Modules"]
    if sys.platform == "darwin":
        return [Path("/Library/Application Support") / SCRIPTING / "Developer/Scripting/Modules"]
    return [Path(folder) / "Developer/Scripting/Modules" for folder in ("/opt/resolve", "/home/resolve")]


def resolve_from_terminal() -> Any:
    """The object `resolve`. Raises HostRefused with the way round when there is none."""
    folders = [str(folder) for folder in script_folders() if folder.is_dir()]
    sys.path.extend(folder for folder in folders if folder not in sys.path)
    try:
        found = importlib.import_module(MODULE).scriptapp("Resolve")
    except ImportError as error:
        raise HostRefused(f"Resolve's scripting module does not load: {error}",
                          where=", ".join(map(str, script_folders())),
                          remedy="Install DaVinci Resolve Studio on this machine, or set RESOLVE_SCRIPT_API and "
                                 "RESOLVE_SCRIPT_LIB as its README says.") from error
    if found is None:
        raise HostRefused("no Resolve lets this terminal in",
                          remedy="Start Resolve Studio, and set Preferences > General > External scripting using to "
                                 f"Local. The free edition has no such door. {BY_HAND}")
    return found
