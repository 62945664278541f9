# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the frames of a movie come evenly: Blender shows them by time, and the server counts them.

Telephones and screen recorders leave frames out. MP4 and QuickTime files (ISO/IEC 14496-12) say so in a table; what
others do is not known here.
"""
from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Optional

CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


class Durations(NamedTuple):
    """How long frames last. scale: units a second. runs: (frames, units that each of them lasts)."""

    scale: int
    runs: list[tuple[int, int]]


def comes_evenly(path: str, rate: float) -> bool:
    """Whether each frame of a movie comes within half a frame of its count at this rate; True if it does not say."""
    try:
        with open(path, "rb") as file:
            found = _durations(file, os.path.getsize(path))
    except (OSError, struct.error):  # a missing file is told elsewhere
        return True
    if found is None or not found.runs or not found.scale or not rate:
        return True
    count, units = 0, 0
    last, length = found.runs[-1]
    for frames, each in [*found.runs[:-1], (last - 1, length)]:  # how long the last one lasts does not matter
        count, units = count + frames, units + frames * each
        if abs(units / found.scale * rate - count) >= 0.5:
            return False
    return True


def _durations(file: BinaryIO, end: int) -> Optional[Durations]:
    """Those of the first video track."""
    scale, handler = 0, b""
    for kind in _boxes(file, end):
        if kind == b"mdhd":
            file.seek(16 if file.read(4)[0] == 1 else 8, os.SEEK_CUR)  # two dates, of 64 bits or 32
            scale, = struct.unpack(">I", file.read(4))
        elif kind == b"hdlr":
            words = file.read(12)
            handler = handler if words[4:8] == b"dhlr" else words[8:]  # QuickTime's second one: where the data lie
        elif kind == b"stts" and handler == b"vide":
            runs, = struct.unpack(">4xI", file.read(8))
            table = file.read(8 * runs)
            return Durations(scale, list(struct.iter_unpack(">II", table)))
    return None


def _boxes(file: BinaryIO, end: int) -> Iterator[bytes]:
    """The kinds of the boxes up to an end, those inside others too; the file then stands behind the box's head."""
    while file.tell() + 8 <= end:
        start = file.tell()
        size, kind = struct.unpack(">I4s", file.read(8))
        if size == 1:  # a long one
            size, = struct.unpack(">Q", file.read(8))
        stop = start + size if size else end
        if not start + 8 <= stop <= end:
            return
        if kind in CONTAINERS:
            yield from _boxes(file, stop)
        else:
            yield kind
        file.seek(stop)
