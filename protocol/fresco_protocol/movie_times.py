# SPDX-License-Identifier: Apache-2.0
"""Whether the frames of a movie come evenly, and upright: hosts show them by time, and the server counts them.

Telephones and screen recorders leave frames out. MP4 and QuickTime files (ISO/IEC 14496-12) say so in a table; in MXF
(SMPTE ST 377-1) a track has one rate. Others (Matroska, AVI, transport streams, MP4 in fragments) would have to be
read from end to end: they are not asked, and nothing is promised for them.
"""
from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Optional

CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
MXF = bytes.fromhex("060e2b34020501010d010201")  # the head of a partition


class Durations(NamedTuple):
    """How long frames last. scale: units a second. runs: (frames, units that each of them lasts)."""

    scale: int
    runs: list[tuple[int, int]]


def comes_evenly(path: str, rate: float) -> Optional[bool]:
    """Whether each frame of a movie comes within half a frame of its count at this rate; None if it does not say.

    rate: frames a second. Raises OSError when the file cannot be read.
    """
    with open(path, "rb") as file:
        if file.read(len(MXF)) == MXF:
            return True
        file.seek(0)
        try:
            found = _durations(file, os.path.getsize(path))
        except struct.error:  # cut off
            return None
    if found is None or not found.runs or not found.scale or not rate:
        return None
    count, units = 0, 0
    last, length = found.runs[-1]
    for frames, each in [*found.runs[:-1], (last - 1, length)]:  # how long the last one lasts does not matter
        count, units = count + frames, units + frames * each
        if abs(units / found.scale * rate - count) >= 0.5:
            return False
    return True


def is_turned(path: str) -> bool:
    """Whether an MP4 or QuickTime movie says that its pictures are to be turned or mirrored. Raises OSError."""
    across = down = 1
    with open(path, "rb") as file:
        try:
            for kind in _boxes(file, os.path.getsize(path)):
                if kind == b"tkhd":
                    file.seek(48 if file.read(4)[:1] == b"\1" else 36, os.SEEK_CUR)  # to the matrix of the track
                    across, _, _, _, down = struct.unpack(">5i", file.read(20))  # both 0 in one that lies on its side
                elif kind == b"hdlr" and file.read(12)[8:] == b"vide":
                    return across <= 0 or down <= 0
        except struct.error:  # cut off
            return False
    return False


def _durations(file: BinaryIO, end: int) -> Optional[Durations]:
    """Those of the first video track; None where there is none, and where the table is not all of it."""
    scale, handler, found = 0, b"", None
    for kind in _boxes(file, end):
        if kind == b"mdhd":
            version = file.read(4)[:1]
            file.seek(16 if version == b"\1" else 8, os.SEEK_CUR)  # two dates, of 64 bits or 32
            scale, = struct.unpack(">I", file.read(4))
        elif kind == b"hdlr":
            words = file.read(12)
            handler = handler if words[4:8] == b"dhlr" else words[8:]  # QuickTime's second one: where the data lie
        elif kind == b"stts" and handler == b"vide" and found is None:
            runs, = struct.unpack(">4xI", file.read(8))
            table = file.read(8 * runs)
            found = Durations(scale, list(struct.iter_unpack(">II", table)))
        elif kind == b"mvex":  # more frames follow, in fragments
            return None
    return found


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
