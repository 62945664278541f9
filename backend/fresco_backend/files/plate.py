# SPDX-License-Identifier: Apache-2.0
"""A plate that is open for reading, whatever it is made of."""
from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from fresco_backend.files.frames import Channels, Frame, Size, Window
from fresco_backend.files.movies import MovieReader, is_movie
from fresco_backend.files.sequences import FramePattern, SequenceReader
from fresco_protocol.errors import UsageError
from fresco_protocol.shot import Missing


class PlateReader(Protocol):
    """The frames of a plate by their numbers; mattes and control sequences are read through it too.

    numbers: the frames to render, ascending. existing: those that are there, also outside the range. window: the canvas
    that holds all of them, on the pixel plane. size: of the canvas. display: the part of the plane that is meant to be
    seen. rate: frames per second, or None when the plate does not say. files: every file that it owns on disk, none of
    which may be written.
    """

    @property
    def numbers(self) -> tuple[int, ...]: ...

    @property
    def existing(self) -> tuple[int, ...]: ...

    @property
    def size(self) -> Size: ...

    @property
    def window(self) -> Window: ...

    @property
    def display(self) -> Window: ...

    @property
    def rate(self) -> Fraction | None: ...

    @property
    def files(self) -> tuple[Path, ...]: ...

    def source(self, number: int) -> Path:
        """The file that a frame is read from; of a held frame, that of the one before it."""

    def read(self, number: int) -> Frame:
        """The frame of this number, on the canvas. Raises FrameUnreadable, FrameSize."""

    def read_channels(self, number: int) -> Channels:
        """Every channel of a frame, in its own window; it need not be a picture. Raises as `read` does."""

    def close(self) -> None:
        """Let go of open files."""


def open_plate(path: str | Path, numbers: Sequence[int] | None = None, missing: Missing = Missing.ERROR,
               layer: str | None = None) -> PlateReader:
    """The plate at a path: a movie file, whose frames count from 1, an image sequence, or one image.

    numbers: the frames to render; None is all of them. missing: what to do at gaps of a sequence. layer: which picture
    of its files, where they hold several.
    Raises PlateMissing, FrameGap, RangeOutside, FrameUnreadable, UsageError (a pattern that cannot be understood, a
    layer of a movie).
    """
    if not is_movie(path):
        return SequenceReader(FramePattern.parse(path), numbers, missing, layer)
    if layer:
        raise UsageError(f"a movie has no layers, and '{layer}' is asked for", where=path,
                         remedy="Leave the layer out.")
    return MovieReader(Path(path), numbers)
