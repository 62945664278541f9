# SPDX-License-Identifier: Apache-2.0
"""What a shot must have to be queued, so that a slip of the pen is said at once, and not when its turn comes at night.

Of everything that it reads something must be there, and of its model all. One frame of a plate is enough, for the rest
may still be on its way from another program; and what a job of the queue is to deliver need not be there at all. The
worker judges everything again.
"""
from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from fresco_backend.files.frame_pattern import (
    FramePattern,
    file_type,
    frames_text,
    is_movie_delivery,
    plate_missing,
)
from fresco_backend.models.model_store import Changes, check
from fresco_protocol.errors import MatteError, OutputIsPlate, PlateMissing, RangeOutside, UsageError
from fresco_protocol.shot import Plate, Shot


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """expected: the path patterns that jobs of the queue are to deliver."""

    expected: Iterable[str]

    def check(self, shot: Shot, *, sources: bool = True) -> None:
        """Raises PlateMissing, MatteError, RangeOutside for a source of which nothing is there, OutputIsPlate for a
        delivery over the plate, OutputPattern for one that is not written, WeightsError for a model that cannot be
        used, UsageError for a pattern that is none. sources: whether they lie here, or are sent later."""
        if not is_movie_delivery(shot.delivery.sequence):
            file_type(shot.delivery.sequence)
        if sources:
            self._check_sources(shot)
        look = shot.look
        check(look.model, controls=look.controls or (), changes=Changes.of(look)).require()

    def _check_sources(self, shot: Shot) -> None:
        self._check_plate(shot.plate, FramePattern.parse(shot.delivery.sequence))
        if shot.matte is not None and (error := self._missing(shot.matte.sequence)):
            raise MatteError("the matte is missing", where=error.where, remedy=error.remedy)
        for control in shot.look.controls or ():
            if control.sequence is not None and (error := self._missing(control.sequence)):
                raise PlateMissing("the control images are missing", where=error.where, remedy=error.remedy)

    def _check_plate(self, plate: Plate, delivery: FramePattern) -> None:
        if (error := self._missing(plate.sequence)) is not None:
            raise error
        pattern = FramePattern.parse(plate.sequence)
        number = pattern.any_on_disk(plate.frames)
        if number is not None and _is_one(pattern, delivery, number):
            raise OutputIsPlate("this delivery would overwrite its own source", where=delivery.path(number),
                                remedy="Choose another folder or name; Fresco never writes over a plate.")
        there = pattern.on_disk() if number is None else {}
        if there:
            raise RangeOutside(f"the plate has none of the frames that are asked for: it has {frames_text(there)}",
                               where=plate.sequence,
                               remedy="Submit it with others, or when the first of them is there.")

    def _missing(self, sequence: str) -> PlateMissing | None:
        """What is said of a sequence that is neither there nor expected; None where it is."""
        pattern = FramePattern.parse(sequence)
        return None if pattern.any_on_disk() is not None or self._is_expected(pattern) else plate_missing(pattern)

    def _is_expected(self, pattern: FramePattern) -> bool:
        for path in self.expected:
            with suppress(UsageError):  # of a job that will fail, and delivers nothing
                if _is_one(pattern, FramePattern.parse(path), 1):
                    return True
        return False


def _is_one(pattern: FramePattern, other: FramePattern, number: int) -> bool:
    """Whether two patterns name one file for a frame, whatever links lead there."""
    return os.path.realpath(pattern.path(number)) == os.path.realpath(other.path(number))
