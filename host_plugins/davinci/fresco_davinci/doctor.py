# SPDX-License-Identifier: Apache-2.0
"""`fresco resolve doctor`: what this machine's Resolve has of what Fresco calls, as a report that can be sent."""
from __future__ import annotations

import json
import os
import platform
import struct
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

from fresco_davinci.api import CALLS
from fresco_davinci.installation import RECEIPT, fusion_folder, python_of_resolve
from fresco_davinci.scripting import script_folders
from fresco_davinci.timeline import Host, objects, probe
from fresco_protocol.errors import FrescoError, OutputDenied

VARIABLES = ("RESOLVE_SCRIPT_API", "RESOLVE_SCRIPT_LIB", "PYTHON3HOME", "FUSION_PYTHON3_HOME", "PYTHONHOME")
PROBED = 8  # frames


def machine() -> dict[str, Any]:
    """What can be told without Resolve. Paths below the home folder are written with ~: the report may be sent."""
    places = {f"{name} Fusion folder": fusion_folder(everybody=everybody)
              for name, everybody in (("own", False), ("everybody's", True))}
    return {
        "system": platform.platform(), "python": sys.version.split()[0], "python of Resolve": python_of_resolve(),
        **{name: f"{_short(folder)}, {'installed' if (folder / RECEIPT).is_file() else 'not installed'}"
           for name, folder in places.items()},
        "scripting modules": {_short(folder): folder.is_dir() for folder in script_folders()},
        "environment": {name: _short(Path(os.environ[name])) for name in VARIABLES if os.environ.get(name)},
    }


def examine(resolve: Any, *, probing: bool) -> dict[str, Any]:
    """What a running Resolve has and lacks. probing: asks a scratch timeline too, which is deleted again."""
    host = Host(resolve)
    found = {name: sorted(dir(thing)) for name, thing in objects(host).items()}
    report = {"edition": str(host.edition), "limits": list(host.edition.limits), "methods": found,
              "lacking": lacking(found), "not examined": sorted({call.owner for call in CALLS} - set(found))}
    return {**report, "probe": _probed(host)} if probing else report


def lacking(found: dict[str, list[str]]) -> list[str]:
    """Calls that Fresco makes and these objects do not have, with the release that is said to bring them."""
    return [f"{call.owner}.{call.name} (since {call.since})" for call in CALLS
            if call.owner in found and call.name not in found[call.owner]]


def write_report(report: dict[str, Any], path: Path) -> Path:
    """The report as a JSON file. Raises OutputDenied."""
    try:
        path.write_text(json.dumps(report, indent=2, default=str), encoding="utf-8")
    except OSError as error:
        raise OutputDenied(f"the report cannot be written: {error.strerror}", where=path,
                           remedy="Name another file with --output.") from None
    return path


def _probed(host: Host) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="fresco-probe-") as folder:
        for number in range(1001, 1001 + PROBED):
            (Path(folder) / f"probe.{number}.png").write_bytes(_png(number))
        try:
            return probe(host, str(Path(folder) / "probe.%04d.png"), first=1001, last=1000 + PROBED)
        except FrescoError as error:
            return {"failed": str(error)}


def _png(number: int, size: int = 64) -> bytes:
    """A grey picture, another grey for another number (PNG, ISO/IEC 15948)."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes([16 * number % 256]) * size) * size
    head = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _short(path: Path) -> str:
    home = str(Path.home())
    text = str(path)
    return f"~{text[len(home):]}" if text.startswith(home) else text
