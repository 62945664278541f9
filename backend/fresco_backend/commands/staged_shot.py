# SPDX-License-Identifier: Apache-2.0
"""A shot whose files go over the wire: which files those are, and the shot as the server will have it."""
from __future__ import annotations

import hashlib
from bisect import bisect
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePath
from typing import NamedTuple

from fresco_backend.files.frame_pattern import FramePattern
from fresco_backend.files.movies import is_movie
from fresco_protocol.errors import PlateMissing, UsageError
from fresco_protocol.files import STAGED, File, is_file_name
from fresco_protocol.shot import Matte, Plate, Shot, with_handles


class Staged(NamedTuple):
    """sources: path of each file here, by its name there."""

    shot: Shot
    sources: dict[str, str]


def staged(shot: Shot) -> Staged:
    """The shot with `staged:` in place of folders, and the files that it needs: of the plate, with the delivery's
    handles, what stands in for missing frames and what leads to a matte; of the matte; of controls that are sequences.
    Models are the server's own.

    Raises PlateMissing, UsageError.
    """
    sources: dict[str, str] = {}
    numbers = _numbers(shot)

    def sent(sequence: str, folder: str) -> str:
        for path in _files(sequence, numbers, with_neighbours=folder == "plate"):
            name = f"{folder}/{path.name}"
            if not is_file_name(name):
                raise UsageError("a file of this name cannot be sent", where=path, remedy="Give it a plainer name.")
            sources[name] = str(path)
        return f"{STAGED}{folder}/{PurePath(sequence).name}"

    controls = shot.look.controls and tuple(
        replace(control, sequence=control.sequence and sent(control.sequence, f"control-{place}"))
        for place, control in enumerate(shot.look.controls))
    found = replace(
        shot, plate=replace(shot.plate, sequence=sent(shot.plate.sequence, "plate")),
        matte=shot.matte and replace(shot.matte, sequence=sent(shot.matte.sequence, "matte")),
        look=replace(shot.look, controls=controls),
        delivery=replace(shot.delivery, sequence=f"{STAGED}delivery/{PurePath(shot.delivery.sequence).name}"))
    return Staged(found, sources)


def key_of(shot: Shot, files: tuple[File, ...]) -> str:
    """A client key that the same shot with the same files has again, so that its upload goes on."""
    text = shot.to_json() + "".join(f"{file.name} {file.sha256}\n" for file in files)
    return f"upload-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:32]}"


def _numbers(shot: Shot) -> set[int] | None:
    """The frames that the render looks at; None is all."""
    if shot.plate.frames is None:
        return None
    numbers = set(chain.from_iterable(with_handles(shot.plate.frames, shot.delivery.handles)))
    return numbers | (_leading_to_mattes(shot.matte, shot.plate, numbers) if shot.matte else set())


def _leading_to_mattes(matte: Matte, plate: Plate, numbers: set[int]) -> set[int]:
    """The frames along which a matte is propagated to these, none of which has one: up to the nearest on both sides."""
    if not matte.propagate or is_movie(matte.sequence):
        return set()
    given = set(FramePattern.parse(matte.sequence).on_disk())
    there = given if is_movie(plate.sequence) else set(FramePattern.parse(plate.sequence).on_disk())
    if not given.isdisjoint(numbers):
        return set()
    first = max((number for number in given & there if number < min(numbers)), default=min(numbers))
    last = min((number for number in given & there if number > max(numbers)), default=max(numbers))
    return {number for number in given | there if first <= number <= last}


def _files(sequence: str, numbers: set[int] | None, *, with_neighbours: bool) -> list[Path]:
    if is_movie(sequence):
        return [Path(sequence)]
    there = FramePattern.parse(sequence).on_disk()
    needed = set(there) if numbers is None or len(there) == 1 else numbers
    if needed.isdisjoint(there):
        raise PlateMissing("no file of it is here to be sent", where=sequence,
                           remedy="Check the name, the padding and the frames.")
    if with_neighbours:
        needed = needed | _neighbours(list(there), needed)
    return [path for number, path in there.items() if number in needed]


def _neighbours(there: list[int], needed: set[int]) -> set[int]:
    """The frames before and after each needed one that is missing: the one before may stand in for it, and without
    either the range would seem to lead out of the plate. there: ascending."""
    found: set[int] = set()
    for number in needed.difference(there):
        place = bisect(there, number)
        found.update(there[max(0, place - 1):place + 1])
    return found
