# SPDX-License-Identifier: Apache-2.0
"""The matte of a job: opened and checked against the plate, propagated to frames that lack it, frame by frame."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fresco_backend.files.canvas import matte_on
from fresco_backend.files.frames import Channels, FloatArray, read_header
from fresco_backend.files.movies import is_movie
from fresco_backend.files.plate import PlateReader, open_plate
from fresco_backend.files.sequences import FramePattern, frames_text
from fresco_backend.pixels.framing import sampled
from fresco_backend.pixels.matte_propagation import propagated
from fresco_backend.pixels.mattes import channel_samples, overlooked, shaped
from fresco_backend.pixels.resolution import fit, resized
from fresco_protocol.errors import FrameGap, MatteError, PlateMissing, RangeOutside
from fresco_protocol.shot import Matte, Missing

TRACED_SIDE = 360  # short side in pixels at which the motion of a matte is looked for
MOST = 65535  # of 16 bits
DOUBTFUL = 0.5  # of confidence, below which somebody should look at the matte


@dataclass(kw_only=True, eq=False)
class ShotMatte:
    """The mattes of a shot. plate: the open plate, whose canvas they lie on. reader: of the files that are there.

    kept: propagated mattes and their confidence, by frame; as many as the shot has frames without one, so packed.
    """

    matte: Matte
    plate: PlateReader
    reader: PlateReader
    kept: dict[int, tuple[NDArray[np.uint8], float]] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[int, ...]:
        """The frames of the plate that no file is there for."""
        return tuple(number for number in self.plate.numbers if number not in self.reader.numbers)

    @property
    def traced(self) -> tuple[int, ...]:
        """The frames along which mattes are propagated: the plate's, and where none of those has one, all up to it."""
        numbers, given = self.plate.numbers, self.reader.numbers
        if not set(numbers).isdisjoint(given):
            return numbers
        first, last = min(numbers[0], given[0]), max(numbers[-1], given[-1])
        return tuple(sorted({*numbers, *(number for number in self.plate.existing if first <= number <= last)}))

    @property
    def outside(self) -> tuple[Path, ...]:
        """The files that are read beside those of the plate's frames: of the plate and of the matte."""
        return tuple(reader.source(number) for reader, numbers in (
            (self.plate, self.traced), (self.reader, self.reader.numbers))
            for number in numbers if number not in self.plate.numbers)  # fmt: skip

    def at(self, number: int) -> FloatArray:
        """The matte of a frame on the plate's canvas, (H, W) in [0, 1], 1 = stylise. Raises MatteError.

        Where it is propagated, `propagate` must have been called.
        """
        if number in self.kept:
            return shaped(_unpacked(self.kept[number][0]), self.matte)
        return shaped(self._given(number), self.matte)

    def propagate(self, picture: Callable[[int], Tensor], folder: Path | None = None) -> dict[int, float]:
        """Make the mattes of the frames that have none; gives the confidence of each, in [0, 1].

        picture: what the engine sees of a frame, (3, H, W) in [-1, 1] at the plate's size. folder: for what lies on
        the disk meanwhile; see `propagated`.
        """
        size = fit(self.plate.size, min(TRACED_SIDE, *self.plate.size)).scaled

        def image(number: int) -> Tensor:
            return resized(picture(number)[None], size)[0]

        def given(number: int) -> Tensor:
            return torch.from_numpy(self._given(number))

        if self.missing and not self.kept:
            made = propagated(self.traced, self.reader.numbers, image, given, folder)
            self.kept = {number: (_packed(one.matte.numpy()), one.confidence) for number, one in made
                         if number in self.plate.numbers}
        return {number: confidence for number, (_, confidence) in self.kept.items()}

    def overlooked(self) -> str | None:
        """The channel that was probably meant where the shot names none and the alpha is opaque; of a few frames."""
        return overlooked(map(self.reader.read_channels, sampled(self.reader.numbers)), self.matte)

    def doubtful(self, number: int) -> float | None:
        """The confidence of a frame's matte where somebody should look at it; None where it was given or is sure."""
        confidence = self.kept[number][1] if number in self.kept else 1.0
        return confidence if confidence < DOUBTFUL else None

    def _given(self, number: int) -> FloatArray:
        found = self.reader.read_channels(number)
        placed = matte_on(found, self.plate.window, self.plate.display)
        return channel_samples(Channels(by_name=placed, metadata=found.metadata), self.matte)


def _packed(samples: FloatArray) -> NDArray[np.uint8]:
    """A matte as the bytes of a 16-bit PNG: most of it is flat, so that they are a hundredth of its samples."""
    codes = np.rint(samples * MOST).astype(np.uint16)
    return cv2.imencode(".png", codes, (cv2.IMWRITE_PNG_COMPRESSION, 1))[1]


def _unpacked(packed: NDArray[np.uint8]) -> FloatArray:
    codes = cv2.imdecode(packed, cv2.IMREAD_UNCHANGED)
    assert codes is not None, "the bytes are our own"
    return np.asarray(codes, np.float32) / np.float32(MOST)


def open_matte(matte: Matte, plate: PlateReader) -> ShotMatte:
    """The mattes of a shot, checked before anything is rendered: all frames there, of the plate's size, readable.

    Raises MatteError, FrameUnreadable; RangeOutside for a movie that is too short.
    """
    with ExitStack() as opened:
        try:
            reader = opened.enter_context(closing(
                open_plate(matte.sequence, _wanted(matte, plate), Missing.ERROR)))
        except PlateMissing as error:
            raise MatteError("the matte is missing", where=error.where, remedy=error.remedy) from error
        except (FrameGap, RangeOutside) as error:
            raise error if is_movie(matte.sequence) else _lacking(matte, plate) from error
        if plate.display.size != reader.display.size and plate.size != reader.size:
            raise MatteError(f"the matte is {reader.size}, and the plate is {plate.size}",
                             where=matte.sequence, remedy="Render the matte in the size of the plate.")
        for path in dict.fromkeys(map(reader.source, reader.numbers)) if not is_movie(matte.sequence) else ():
            read_header(path)
        found = ShotMatte(matte=matte, plate=plate, reader=reader)
        found.at(reader.numbers[0])  # an unknown channel shall stop the job here
        opened.pop_all()
    return found


def _lacking(matte: Matte, plate: PlateReader) -> MatteError:
    pattern = FramePattern.parse(matte.sequence)
    there = pattern.on_disk()
    whole = "Name the whole sequence, as in matte.####.png" if pattern.padding is None else "Render them"
    return MatteError(f"the matte lacks frames {frames_text(n for n in plate.numbers if n not in there)}",
                      where=pattern, remedy=f"{whole}, or let the plate's motion carry it there: --matte-propagate")


def _wanted(matte: Matte, plate: PlateReader) -> Sequence[int]:
    """The frames to read: all of the plate's, or those of them that are there when the others are propagated.

    Where none of them has one, as of a still, the nearest ones that the plate leads to.
    """
    numbers = plate.numbers
    if not matte.propagate or is_movie(matte.sequence):
        return numbers
    there = FramePattern.parse(matte.sequence).on_disk().keys()
    if not there or not there.isdisjoint(numbers):
        return [number for number in numbers if number in there] or numbers
    given = [number for number in plate.existing if number in there]
    if not given:
        raise MatteError(f"the matte has the frames {frames_text(there)}, and the plate has none of them",
                         where=matte.sequence, remedy=f"Draw one on a frame of {frames_text(plate.existing)}")
    first = max((number for number in given if number < numbers[0]), default=numbers[0])
    last = min((number for number in given if number > numbers[-1]), default=numbers[-1])
    return [number for number in given if first <= number <= last]
