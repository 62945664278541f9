# SPDX-License-Identifier: Apache-2.0
"""Image files open for reading (through OpenImageIO): every failure in words, and the proof that a file is whole."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import OpenImageIO as oiio  # noqa: N813, the name in its own manual

from fresco_protocol.errors import FrameUnreadable

Value = TypeVar("Value")

ROWS = 256  # read at once: the most that a codec of EXR packs together


def decoded(path: Path) -> list[oiio.ImageSpec]:
    """The headers of all parts of a file, all of whose bytes have been decoded; no sample is kept.

    In the numbers of the file and a few rows at a time, which takes two thirds of the time of reading a frame, and next
    to no memory. Raises FrameUnreadable.
    """
    image = opened(path)
    try:
        headers: list[oiio.ImageSpec] = []
        while image.seek_subimage(len(headers), 0):
            headers.append(image.spec())
            _decode(image, headers[-1], len(headers) - 1, path)
        message(image.geterror)  # the search for one part more ends in an error
        if len(headers) < headers[0].get_int_attribute("oiio:subimages", 1):
            raise unreadable(path, f"part {len(headers) + 1} of it is damaged")
        return headers
    finally:
        image.close()


def _decode(image: oiio.ImageInput, spec: oiio.ImageSpec, place: int, path: Path) -> None:
    """Decode one part: of a tiled file all at once.

    Of EXR one channel: to read it unpacks whole rows, and what is damaged in another channel shows as well.
    """
    height = spec.height if spec.tile_width else ROWS
    channels = 1 if image.format_name() == "openexr" else spec.nchannels
    for top in range(spec.y, spec.y + spec.height, height):
        bottom = min(top + height, spec.y + spec.height)
        if spec.tile_width:
            rows = guarded(lambda: image.read_image(place, 0, 0, channels, oiio.UNKNOWN), path)
        else:
            rows = guarded(lambda top=top, bottom=bottom: image.read_scanlines(  # type: ignore[misc]
                top, bottom, 0, 0, channels, oiio.UNKNOWN), path)
        if rows is None or image.has_error:
            raise unreadable(path, message(image.geterror))


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
                           remedy="Render or copy the frame again, or leave it out of the range")
