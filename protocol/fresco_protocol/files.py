# SPDX-License-Identifier: Apache-2.0
"""The nouns of files that go over the wire, for a client that shares no disk with the server.

A shot that is submitted with files names each of them as `staged:` and the file's name, such as
"staged:plate/p.####.exr"; the server has them below a folder of its own, where the delivery is written too. Sizes are
bytes.
"""
from __future__ import annotations

import re
from typing import Annotated, Optional

from fresco_protocol.document import Rule, noun
from fresco_protocol.job import Count

STAGED = "staged:"
LARGEST_CHUNK = 512 * 1024  # bytes: what the server's loop reads, checks and writes in a few milliseconds
MOST_FILES = 20_000  # of one job
LONGEST_PIECE = 240  # bytes of UTF-8: of the 255 that systems take, for it grows under a longer name

_PIECE = re.compile(r"[^./\\:\x00-\x1f\x7f][^/\\:\x00-\x1f\x7f]*")
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # Windows opens these in any folder


def is_file_name(text: str) -> bool:
    """Whether a text names a file, or a file in one folder, and nothing else on any system; hidden ones are none."""
    pieces = text.split("/")
    return len(pieces) <= 2 and len(text) <= 255 and all(
        _PIECE.fullmatch(piece) and _DEVICE.fullmatch(piece) is None and piece[-1] not in ". " and _is_short(piece)
        for piece in pieces)


def _is_short(piece: str) -> bool:
    try:
        return len(piece.encode()) <= LONGEST_PIECE
    except UnicodeEncodeError:  # half of a pair: no text that a system takes
        return False


FileName = Annotated[str, Rule('that names a file in at most one folder, such as "plate/p.1001.exr"', is_file_name)]
Digest = Annotated[str, Rule("of 64 hexadecimal digits",
                             lambda text: re.fullmatch(r"[0-9a-f]{64}", text) is not None)]
Chunk = Annotated[bytes, Rule(f"of 1 to {LARGEST_CHUNK} bytes", lambda data: 0 < len(data) <= LARGEST_CHUNK)]


@noun
class File:
    """A file. sha256: of all of it; None while the server still reckons it."""

    name: FileName
    size: Count
    sha256: Optional[Digest]


Files = Annotated[tuple[File, ...], Rule(f"of {MOST_FILES} at most", lambda files: len(files) <= MOST_FILES)]
