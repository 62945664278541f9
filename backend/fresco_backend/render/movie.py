# SPDX-License-Identifier: Apache-2.0
"""The movie of a job, made of its delivered pictures, with the plate's exact rate and its sound."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fresco_backend.events import Advanced, Event, Stage, Warned
from fresco_backend.files.deliveries import DeliveryWriter
from fresco_backend.files.frames import Frame, orientation, pixel_aspect, read_frame
from fresco_backend.files.movie_delivery import write_movie
from fresco_backend.files.movies import MovieReader, Sound
from fresco_backend.render.job import Job
from fresco_protocol.errors import UsageError

# Turns by 90 degrees against the clock and whether left and right are exchanged before, by the orientation of Exif.
_UPRIGHT = {1: (0, False), 2: (0, True), 3: (2, False), 4: (2, True), 5: (1, True), 6: (3, False), 7: (3, True),
            8: (1, False)}
_TIMECODE = re.compile(r"(\d\d:\d\d:\d\d)([:;.])(\d\d)")


def assemble(job: Job, pictures: DeliveryWriter) -> Iterator[Event]:
    """Write the movie of all frames of the job. Raises OutputError, and UsageError when the rate is unknown."""
    if job.rate is None:
        raise UsageError("the plate does not state its frame rate, and a movie needs one", where="plate.rate",
                         remedy="Give it, for example --rate 24")
    yield Advanced(stage=Stage.MOVIE, done=0, total=len(job.frames))
    sound = _sound(job)
    if sound is None and isinstance(job.plate, MovieReader) and job.plate.has_audio:
        yield Warned(code="sound-left-out", text="the plate's sound does not fit the movie's frames and rate: left out")
    frames = (_picture(pictures.path(number), orientation(job.like)) for number in job.frames)
    written = write_movie(Path(job.shot.delivery.sequence), frames, job.rate, sound, _pixel_aspect(job.like),
                          _timecode(job))
    yield Advanced(stage=Stage.MOVIE, done=written, total=len(job.frames))


def _sound(job: Job) -> Sound | None:
    """The sound of the job's frames; None when there is none, or when it would run away from another frame rate."""
    plate = job.plate
    return plate.sound() if isinstance(plate, MovieReader) and plate.rate == job.rate else None


def _timecode(job: Job) -> str | None:
    """Where the movie begins on the plate's clock, by which editing programs find its frames; see `write_movie`.

    None when the plate has no time code, and when its frames are not one after the other, or at another rate.
    """
    plate, first = job.plate, job.frames[0]
    if plate.rate not in (None, job.rate) or len(job.frames) != job.frames[-1] - first + 1:
        return None
    if isinstance(plate, MovieReader):
        stated, passed = plate.timecode or ("00:00:00:00" if first > 1 else ""), first - 1
    else:
        stated, passed = _of_header(job.like), 0
    found = _TIMECODE.fullmatch(stated)
    return f"{found[1]}{found[2]}{int(found[3]) + passed:02}" if found else None


def _of_header(frame: Frame) -> str:
    """The time code of a picture file, or nothing (SMPTE ST 12-1; bit 6 of its first word: it drops frames)."""
    text, words = frame.metadata.get_string_attribute("smpte:TimeCode"), frame.metadata.getattribute("smpte:TimeCode")
    drops = isinstance(words, tuple) and words[0] & 0x40
    return f"{text[:-3]};{text[-2:]}" if drops else text


def _picture(path: Path, stored: int) -> NDArray[np.uint8]:
    """Codes (H, W, 3) of a delivered picture, upright. stored: the orientation of the plate, which no movie states."""
    codes: NDArray[np.uint8] = np.rint(read_frame(path).pixels * 255).astype(np.uint8)
    turns, mirrored = _UPRIGHT[stored]
    codes = np.rot90(codes[:, ::-1] if mirrored else codes, turns)
    return np.repeat(codes, 3, axis=2) if codes.shape[2] == 1 else codes


def _pixel_aspect(like: Frame) -> float:
    """The width of an upright pixel over its height."""
    stored = pixel_aspect(like)
    return 1 / stored if _UPRIGHT[orientation(like)][0] % 2 else stored
