# SPDX-License-Identifier: Apache-2.0
"""Puts the menu script where Resolve looks for it, and takes it away again.

The tree below Resolve's folder "Fusion": Scripts/Edit and Scripts/Utility hold the menu entries, Modules/Fresco the
packages, because every .py in Scripts would become an entry.
"""
from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import fresco_protocol
from fresco_davinci.service import COMMAND_FILE
from fresco_protocol.errors import InputError, OutputDenied

HERE = Path(__file__).parent
PACKAGES = {"fresco_davinci": HERE, "fresco_protocol": Path(str(fresco_protocol.__file__)).parent}
MENUS = ("Edit", "Utility")
MODULES = "Modules/Fresco"
RECEIPT = f"{MODULES}/installed.json"
PRODUCT = "Blackmagic Design/DaVinci Resolve"


def fusion_folder(*, everybody: bool = False) -> Path:
    """Resolve's folder "Fusion" on this system: the user's own, or the one of everybody on the machine."""
    if sys.platform == "win32":
        root = os.environ.get("PROGRAMDATA", "C:/ProgramData") if everybody else os.environ.get("APPDATA", Path.home())
        return Path(root) / PRODUCT / ("Fusion" if everybody else "Support/Fusion")
    if sys.platform == "darwin":
        root = Path("/Library") if everybody else Path.home() / "Library"
        return root / "Application Support" / PRODUCT / "Fusion"
    if everybody:
        places = [Path(folder) / "Fusion" for folder in ("/opt/resolve", "/home/resolve")]
        return next((place for place in places if place.is_dir()), places[0])
    return Path.home() / ".local/share/DaVinciResolve/Fusion"


def layout() -> dict[str, Path]:
    """Every file to install: its path below Fusion, and the file that it is a copy of. Archives hold the same tree."""
    files = {f"Scripts/{menu}/{path.name}": path for menu in MENUS
             for path in sorted((HERE / "scripts").iterdir()) if path.suffix in (".py", ".lua")}
    for name, package in PACKAGES.items():
        for path in sorted(package.rglob("*.py")):
            if "scripts" not in path.relative_to(package).parts:
                files[f"{MODULES}/{name}/{path.relative_to(package).as_posix()}"] = path
    return files


def install(fusion: Path, command: list[str]) -> list[Path]:
    """Installs below a folder "Fusion", in place of an earlier installation; gives the files.

    command: how `fresco` is called on this machine, for starting the server. Raises OutputDenied.
    """
    files, note = layout(), f"{MODULES}/{COMMAND_FILE}"
    names = [*files, note, RECEIPT]
    try:
        if (fusion / RECEIPT).is_file():
            uninstall(fusion)
        (fusion / MODULES).mkdir(parents=True, exist_ok=True)
        (fusion / RECEIPT).write_text(json.dumps(names, indent=2), encoding="utf-8")  # first: half of it goes again too
        for name, source in files.items():
            (fusion / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, fusion / name)
        (fusion / note).write_text("".join(f"{word}\n" for word in command), encoding="utf-8")
    except OSError as error:
        raise _denied("installed", fusion, error) from error
    return [fusion / name for name in names]


def uninstall(fusion: Path) -> list[Path]:
    """Removes what `install` wrote and the folders that are then empty; gives the files.

    Raises InputError when nothing is installed there, OutputDenied.
    """
    if not (fusion / RECEIPT).is_file():
        raise InputError("Fresco is not installed there", where=fusion, remedy="Name the folder with --fusion.")
    try:
        names = _installed(fusion)
        for name in names:
            (fusion / name).unlink(missing_ok=True)
        for cache in (fusion / MODULES).rglob("__pycache__"):
            shutil.rmtree(cache)
        for folder in sorted((fusion / MODULES, *(fusion / MODULES).rglob("*")), reverse=True):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    except OSError as error:
        raise _denied("removed", fusion, error) from error
    return [fusion / name for name in names]


def _installed(fusion: Path) -> list[str]:
    """The files of an installation, its receipt the last; of a damaged receipt, all that can only be Fresco's."""
    try:
        names = json.loads((fusion / RECEIPT).read_text(encoding="utf-8"))
    except ValueError:
        names = None
    if isinstance(names, list) and RECEIPT in names and all(_is_ours(name) for name in names):
        return names
    below = [path.relative_to(fusion).as_posix() for path in (fusion / MODULES).rglob("*") if path.is_file()]
    entries = [name for name in layout() if not name.startswith(MODULES) and (fusion / name).is_file()]
    return [*entries, *(name for name in sorted(below) if name != RECEIPT), RECEIPT]


def _is_ours(name: object) -> bool:
    """Whether it is a path below the folders that Fresco writes into."""
    return isinstance(name, str) and name.startswith(("Scripts/", f"{MODULES}/")) and ".." not in name.split("/")


def _denied(what: str, fusion: Path, error: OSError) -> OutputDenied:
    remedy = "Close Resolve, look at what lies there, and do it again; or name another folder with --fusion."
    if isinstance(error, PermissionError):
        remedy = "Take the rights to write there (sudo, or an administrator's terminal); or name a folder by --fusion."
    return OutputDenied(f"the script cannot be {what}: {error.strerror}", where=error.filename or fusion, remedy=remedy)


def python_of_resolve() -> str:
    """Which Python Resolve's menu will use on this system, in a sentence or two."""
    if sys.platform == "win32":
        return ("Resolve takes the highest Python that is registered for this user, or the one that "
                "FUSION_PYTHON3_HOME names; it must be a 64-bit one from python.org, 3.10 to 3.12 at best.")
    if sys.platform == "darwin":
        return ("Resolve takes the Python below PYTHON3HOME (set it with launchctl setenv), else "
                "/usr/local/bin/python3, as python.org's installer makes it; 3.10 to 3.12 at best.")
    return ("Resolve takes the system's python3; Resolve Studio 21.1 brings its own. It needs 3.9 or later, and "
            "3.10 to 3.12 at best.")
