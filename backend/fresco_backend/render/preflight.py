# SPDX-License-Identifier: Apache-2.0
"""What can be said of a shot at once: that its plate or its model is missing, or that its delivery is of a type that is
not written. Torch takes many seconds to read."""

from __future__ import annotations

from pathlib import Path

from fresco_backend.files.frame_pattern import file_type, is_movie_delivery
from fresco_backend.files.movies import is_movie
from fresco_backend.files.plate import open_plate
from fresco_backend.models.model_store import check
from fresco_protocol.shot import Shot, frame_numbers


def require_sources(shot: Shot, *, model: bool) -> None:
    """Raise what a render would raise later of a file type, of a plate that is not there, or, if asked, of a model.

    A movie that is there is not opened, because its frames would be counted twice.
    """
    if not is_movie_delivery(shot.delivery.sequence):
        file_type(shot.delivery.sequence)
    if model:
        check(shot.look.model).require()
    if not (is_movie(shot.plate.sequence) and Path(shot.plate.sequence).is_file()):
        numbers = None if shot.plate.frames is None else sorted(frame_numbers(shot.plate.frames))
        open_plate(shot.plate.sequence, numbers, shot.plate.missing, shot.plate.layer).close()
