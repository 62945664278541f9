# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays one scenario in a real Blender: python scenarios.py NAME ARCHIVE CONNECTION FOOTAGE WORK.

The process ends by `os._exit`, because bpy as a module crashes or hangs in its own clearing up.
"""
from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from blender import (
    animation_scenarios,
    panel_scenarios,
    queue_scenarios,
    server_scenarios,
    strip_scenarios,
    timeline_scenarios,
)
from blender.stage import Stage


def main(name: str, archive: str, connection: str, footage: str, work: str) -> int:
    """The exit code: 0 when the scenario went well."""
    rooms = (strip_scenarios, timeline_scenarios, animation_scenarios, queue_scenarios, server_scenarios,
             panel_scenarios)
    scenario = next(getattr(room, name) for room in rooms if hasattr(room, name))
    try:
        scenario(Stage(archive, connection, footage, work))
    except BaseException:  # noqa: BLE001, the process must end by its own hand
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
