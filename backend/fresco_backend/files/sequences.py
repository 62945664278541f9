# SPDX-License-Identifier: Apache-2.0
"""Plates that are image sequences: their frames on the disk, and what to do about gaps."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import OpenImageIO as oiio  # noqa: N813, the name in its own manual

from fresco_backend.files.canvas import laid_on, union
from fresco_backend.files.frame_pattern import FramePattern as FramePattern  # their names, for all who read sequences
from fresco_backend.files.frame_pattern import frames_text as frames_text
from fresco_backend.files.frame_pattern import other_paddings, plate_missing
from fresco_backend.files.frames import (
    Channels,
    Frame,
    Size,
    Window,
    data_window,
    display_window,
    read_channels,
    read_frame,
    read_header,
)
from fresco_protocol.errors import (
    FrameGap,
    FrameSize,
    FrameUnreadable,
    InputError,
    RangeOutside,
)
from fresco_protocol.shot import Missing


class SequenceReader:
    """An image sequence that is open for reading (a `plate.PlateReader`).

    held: frames that are missing and shown as the frame before them. skipped: frames that were left out.
    """

    def __init__(self, pattern: FramePattern, numbers: Sequence[int] | None, missing: Missing,
                 layer: str | None = None) -> None:
        """Find the frames. numbers: the frames to render; None is the range of the pattern, or all from first to last.
        layer: which picture of each file; see `layers.picture`.

        Raises PlateMissing, RangeOutside, FrameGap (policy `error`; it lists the gaps), FrameUnreadable.
        """
        self.pattern, self.layer = pattern, layer
        self._sources = pattern.on_disk()
        if not self._sources:
            raise plate_missing(pattern)
        wanted = _wanted(pattern, numbers, self._sources)
        gaps = tuple(number for number in wanted if number not in self._sources)
        _require_inside(wanted, self._sources, pattern)
        if gaps and missing is Missing.ERROR:
            raise _gap(pattern, gaps)
        self.held = gaps if missing is Missing.HOLD else ()
        self.skipped = gaps if missing is Missing.SKIP else ()
        self.numbers: tuple[int, ...] = tuple(number for number in wanted if number not in self.skipped)
        if not self.numbers:
            raise _gap(pattern, gaps)
        first = read_header(self.source(self.numbers[0]), layer)
        headers = {self.numbers[0]: first, **self._headers(self.numbers[1:])}
        self.display: Window = display_window(first)
        self._require_one_plate(headers)
        self.window: Window = union(map(data_window, headers.values()))
        self.size: Size = self.window.size
        self.rate: Fraction | None = _rate(first)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every frame on disk, also outside the range."""
        return tuple(self._sources.values())

    @property
    def existing(self) -> tuple[int, ...]:
        """Every frame on disk, ascending, also outside the range."""
        return tuple(self._sources)

    def read(self, number: int) -> Frame:
        """The frame of this number, or the one that stands for it, on the canvas. Raises FrameUnreadable, FrameSize."""
        frame = read_frame(self.source(number), self.layer)
        if not self.window.holds(data_window(frame.metadata)):
            raise self._another_size(number, frame.size, self.size)
        return laid_on(frame, self.window)

    def read_channels(self, number: int) -> Channels:
        """Every channel of a frame as its file has it, whether it is a picture or not. Raises FrameUnreadable."""
        return read_channels(self.source(number))

    def close(self) -> None:
        """Nothing stays open between two frames."""

    def _headers(self, numbers: Sequence[int]) -> dict[int, oiio.ImageSpec]:
        """The headers that can be read; a frame without one is refused when it is read, and costs no other."""
        found = {}
        for number in numbers:
            with suppress(FrameUnreadable):
                found[number] = read_header(self.source(number), self.layer)
        return found

    def _require_one_plate(self, headers: Mapping[int, oiio.ImageSpec]) -> None:
        """Data windows may differ from frame to frame, the picture that is to be seen may not."""
        for number, header in headers.items():
            if display_window(header) != self.display:
                raise self._another_size(number, display_window(header).size, self.display.size)

    def _another_size(self, number: int, size: Size, first: Size) -> FrameSize:
        return FrameSize(f"frame {number} is {size}, and frame {self.numbers[0]} is {first}", where=self.source(number),
                         remedy="Render the odd one again; one plate has one size.")

    def source(self, number: int) -> Path:
        """The file that a frame is read from; of a held frame, that of the one before it."""
        if number in self._sources:
            return self._sources[number]
        if number not in self.held:
            raise ValueError(f"frame {number} is not in {frames_text(self.numbers)}")
        return self._sources[max(present for present in self._sources if present < number)]


def _wanted(pattern: FramePattern, numbers: Sequence[int] | None, sources: Mapping[int, Path]) -> tuple[int, ...]:
    if numbers is None:
        numbers = pattern.frames or range(min(sources), max(sources) + 1)
    if not numbers:
        raise InputError("the range holds no frame", where=pattern, remedy="Ask for at least one frame.")
    return tuple(sorted(set(numbers)))


def _require_inside(wanted: Sequence[int], sources: Mapping[int, Path], pattern: FramePattern) -> None:
    outside = [number for number in wanted if not min(sources) <= number <= max(sources)]
    if outside:
        advice = (" A path with a frame field, such as name.####.exr, names the whole sequence."
                  if pattern.padding is None else "")
        raise RangeOutside(f"frames {frames_text(outside)} lie outside the plate, which has {frames_text(sources)}",
                           where=pattern, remedy=f"Choose frames from {min(sources)} to {max(sources)}.{advice}")


def _gap(pattern: FramePattern, gaps: Sequence[int]) -> FrameGap:
    return FrameGap(f"frames {frames_text(gaps)} are missing", where=pattern, remedy=other_paddings(pattern) or
                    "Render them, or choose --missing hold (repeat the frame before) or --missing skip")


def _rate(header: oiio.ImageSpec) -> Fraction | None:
    value = header.getattribute("FramesPerSecond")
    if isinstance(value, (tuple, list)) and len(value) == 2 and value[0] > 0 and value[1] > 0:
        return Fraction(int(value[0]), int(value[1]))
    return None
