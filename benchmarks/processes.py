# SPDX-License-Identifier: Apache-2.0
"""What another process takes of the machine, as Linux tells it in /proc."""

from __future__ import annotations

import os
from pathlib import Path


def processor(process: int) -> float:
    """Seconds of processor time that a process has used so far. Raises OSError when it has ended."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(process: int) -> dict[str, int]:
    """Bytes that a process holds now, by their names in proc(5): "VmRSS" is all, "RssAnon" is without mapped files.

    Empty when it has ended.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    rows = (line.split(":", 1) for line in lines if line.endswith(" kB"))
    return {name: 1024 * int(value.split()[0]) for name, value in rows}
