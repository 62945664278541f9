# SPDX-License-Identifier: Apache-2.0
"""What the menu entry runs inside Resolve: the window, or one sentence that says why there is none."""
from __future__ import annotations

import sys
from typing import Any

from fresco_davinci.stylisation import Line
from fresco_davinci.timeline import Host
from fresco_davinci.window import Window
from fresco_protocol.errors import FrescoError


def run(resolve: Any, fusion: Any, bmd: Any) -> None:
    """Opens the window and serves it until it is closed. resolve, fusion, bmd: the names that Resolve gives scripts."""
    try:
        host = Host(resolve)
        ui = fusion.UIManager if host.edition.has_windows else None
        if not ui:
            say(" ".join(host.edition.limits) or "Resolve gave no window to this script.")
            return
        line = Line(software=f"fresco-davinci ({host.edition})")
        for notice in Window(host, line, ui, bmd.UIDispatcher(ui)).serve():
            say(notice)
    except FrescoError as error:
        say(str(error))


def say(text: str) -> None:
    """Writes to the console of Resolve (Workspace > Console), which shows what scripts print.

    On Windows its encoding may lack letters of a clip's name, which is no reason to keep the rest back.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(f"Fresco: {text}\n".encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()
