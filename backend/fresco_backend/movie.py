# SPDX-License-Identifier: Apache-2.0
"""The movie of a job, made of its delivered pictures, with the plate's exact rate and its sound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fresco_backend.color import plate_space, to_engine
from fresco_backend.deliveries import DeliveryWriter
from fresco_backend.events import Event
from fresco_backend.frames import read_frame
from fresco_backend.job import Job
from fresco_backend.movie_delivery import write_movie
from fresco_backend.movies import MovieReader
from fresco_protocol.errors import UsageError


def assemble(job: Job, pictures: DeliveryWriter) -> Iterator[Event]:
    """Write the movie of all frames of the job. Raises OutputError, and UsageError when the rate is unknown."""
    if job.rate is None:
        raise UsageError("the plate does not state its frame rate, and a movie needs one", where="plate.rate",
                         remedy="Give it, for example --rate 24")
    frames = (_picture(pictures.path(number)) for number in job.frames)
    sound = job.plate.sound() if isinstance(job.plate, MovieReader) else None
    write_movie(Path(job.shot.delivery.sequence), frames, job.rate, sound)
    yield from ()


def _picture(path: Path) -> NDArray[np.uint8]:
    frame = read_frame(path)
    display = to_engine(frame, plate_space(frame)) / 2 + 0.5
    return (display * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
