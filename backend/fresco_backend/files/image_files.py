# SPDX-License-Identifier: Apache-2.0
"""Image files open for reading (through OpenImageIO): every failure in words, and the proof that a file is whole."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import OpenImageIO as oiio  # noqa: N813, the name in its own manual
from numpy.typing import NDArray

from fresco_protocol.errors import FrameUnreadable

Value = TypeVar("Value")

ROWS = 256  # read at once or more: the most that a codec of EXR packs together


def decoded(path: Path) -> list[oiio.ImageSpec]:
    """The headers of all parts of a file, all of whose bytes have been decoded; no sample is kept.

    In the numbers of the file and a few rows at a time, which takes two thirds of the time of reading a frame, and next
    to no memory. Of EXR one channel: to read it unpacks whole rows, and what is damaged in another channel shows as
    well. Raises FrameUnreadable.
    """
    image = opened(path)
    try:
        headers = []
        for spec in parts(image, path):
            channels = 1 if image.format_name() == "openexr" else spec.nchannels
            for _ in strips(image, spec, channels, oiio.UNKNOWN, path):
                pass
            headers.append(spec)
        return headers
    finally:
        image.close()


def parts(image: oiio.ImageInput, path: Path) -> Iterator[oiio.ImageSpec]:
    """The headers of all parts of an open file, which stands at each part meanwhile. Raises FrameUnreadable."""
    found, stated = 0, 1
    while image.seek_subimage(found, 0):
        spec = image.spec()
        stated = max(stated, spec.get_int_attribute("oiio:subimages"))
        yield spec
        found += 1
    message(image.geterror)  # the search for one part more ends in an error
    if found < stated:
        raise unreadable(path, f"part {found + 1} of it is damaged")


def strips(image: oiio.ImageInput, spec: oiio.ImageSpec, channels: int, kind: oiio.BASETYPE,
           path: Path) -> Iterator[tuple[slice, NDArray[Any]]]:
    """The part where a file stands, from top to bottom: which rows, and their samples (rows, W, channels) as `kind`.

    As many rows at once as give each of the library's threads something to unpack. channels: how many, from the first
    one. Raises FrameUnreadable.
    """
    def read(top: int, bottom: int) -> NDArray[Any] | None:
        if spec.tile_width:
            return image.read_tiles(spec.x, spec.x + spec.width, top, bottom, spec.z, spec.z + 1, 0, channels, kind)
        return image.read_scanlines(top, bottom, spec.z, 0, channels, kind)

    if spec.tile_width:
        height = max(ROWS // spec.tile_height, 1) * spec.tile_height
    else:
        height = max(ROWS, oiio.get_int_attribute("threads") * spec.get_int_attribute("oiio:RowsPerChunk"))
    for top in range(0, spec.height, height):
        rows = slice(top, min(top + height, spec.height))
        samples = guarded(partial(read, spec.y + rows.start, spec.y + rows.stop), path)
        if samples is None or image.has_error:
            raise unreadable(path, message(image.geterror))
        yield rows, np.asarray(samples).reshape(-1, spec.width, channels)


def opened(path: Path) -> oiio.ImageInput:
    """A file open for reading, its colour as it is stored. Raises FrameUnreadable."""
    hints = oiio.ImageSpec()
    hints.attribute("oiio:UnassociatedAlpha", 1)  # PNG: without it the reader multiplies by alpha and loses codes
    image = guarded(lambda: oiio.ImageInput.open(str(path), hints), path)
    if image is None:
        raise unreadable(path, message(oiio.geterror))
    return image


def guarded(call: Callable[[], Value], path: Path) -> Value:
    """The result of a call into OpenImageIO, whose bindings raise what they like on a damaged file."""
    try:
        return call()
    except (UnicodeDecodeError, RuntimeError, ValueError, MemoryError, SystemError) as error:
        raise unreadable(path, str(error)) from error


def message(getter: Callable[[], str]) -> str:
    """What the library says of its last failure, which is forgotten with that."""
    try:
        return getter()
    except UnicodeDecodeError:  # the library quotes bytes of the damaged file
        return "the file is damaged"


def unreadable(path: Path, reason: str) -> FrameUnreadable:
    """The error of a file that cannot be read for this reason."""
    reason = " ".join(reason.split()).removeprefix(f'"{path}": ') or "the file is damaged"
    return FrameUnreadable(f"this frame cannot be read: {reason}", where=path,
                           remedy="Render or copy the frame again, or leave it out of the range.")
