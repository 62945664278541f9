# SPDX-License-Identifier: Apache-2.0
"""The movie of a job, made of its delivered pictures, with the plate's exact rate and its sound."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fresco_backend.color import plate_space, to_engine
from fresco_backend.deliveries import DeliveryWriter
from fresco_backend.events import Event
from fresco_backend.frames import read_frame
from fresco_backend.job import Job
from fresco_backend.movie_delivery import Sound, write_movie
from fresco_backend.movies import MovieReader
from fresco_protocol.errors import UsageError


def assemble(job: Job, pictures: DeliveryWriter) -> Iterator[Event]:
    """Write the movie of all frames of the job. Raises OutputError, and UsageError when the rate is unknown."""
    if job.rate is None:
        raise UsageError("the plate does not state its frame rate, and a movie needs one", where="plate.rate",
                         remedy="Give it, for example --rate 24")
    frames = (_picture(pictures.path(number)) for number in job.frames)
    write_movie(Path(job.shot.delivery.sequence), frames, job.rate, _sound(job))
    yield from ()


def _picture(path: Path) -> NDArray[np.uint8]:
    frame = read_frame(path)
    display = to_engine(frame, plate_space(frame)) / 2 + 0.5
    return (display * 255).round().byte().permute(1, 2, 0).contiguous().numpy()


def _sound(job: Job) -> Sound | None:
    """The stretch of the plate's sound under the job's frames, when they follow each other without a gap."""
    plate, frames = job.plate, job.frames
    if not isinstance(plate, MovieReader) or not plate.has_audio or frames[-1] - frames[0] != len(frames) - 1:
        return None
    assert job.rate is not None
    return Sound(path=plate.path, start=plate.seconds(frames[0]), seconds=Fraction(len(frames)) / job.rate)
