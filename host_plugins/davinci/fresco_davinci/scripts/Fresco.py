# SPDX-License-Identifier: Apache-2.0
"""Workspace > Scripts > Fresco. Finds the packages beside Resolve's own folders, and opens the window.

Written so that Python 3.6 can read it, because an old Python shall be told so in a sentence.
"""
import os
import sys
from pathlib import Path

PRODUCT = "Blackmagic Design/DaVinci Resolve"


def fusion_folders() -> list:  # type: ignore[type-arg]
    """Where an installer may have put Modules/Fresco. `__file__` is not known to scripts of the menu."""
    home = Path.home()
    if sys.platform == "win32":
        return [Path(os.environ.get("APPDATA", str(home))) / PRODUCT / "Support" / "Fusion",
                Path(os.environ.get("PROGRAMDATA", "C:/ProgramData")) / PRODUCT / "Fusion"]
    if sys.platform == "darwin":
        return [root / "Application Support" / PRODUCT / "Fusion" for root in (home / "Library", Path("/Library"))]
    return [home / ".local/share/DaVinciResolve/Fusion", Path("/opt/resolve/Fusion"), Path("/home/resolve/Fusion")]


def main() -> str:
    """Opens the window; gives the sentence that says why it cannot."""
    if sys.version_info < (3, 9):  # noqa: UP036, whose Python runs this is not ours to choose
        return f"Fresco: Python 3.9 or later is needed; Resolve uses {sys.version.split()[0]} at {sys.prefix}\n"
    folders = [fusion / "Modules" / "Fresco" for fusion in fusion_folders()]
    found = [folder for folder in folders if (folder / "fresco_davinci").is_dir()]
    if not found:
        return "Fresco: its packages are not there; run: fresco resolve install\n"
    sys.path.insert(0, str(found[0]))
    from fresco_davinci.menu import run

    run(globals().get("resolve"), globals().get("fusion"), globals().get("bmd"))
    return ""


sys.stdout.write(main())
