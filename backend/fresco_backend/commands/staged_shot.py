# SPDX-License-Identifier: Apache-2.0
"""A shot whose files go over the wire: which files those are, and the shot as the server will have it."""
from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path, PurePath
from typing import NamedTuple

from fresco_backend.files.frame_pattern import FramePattern
from fresco_backend.files.movies import is_movie
from fresco_protocol.errors import PlateMissing, UsageError
from fresco_protocol.files import STAGED, File, is_file_name
from fresco_protocol.shot import Shot, frame_numbers


class Staged(NamedTuple):
    """sources: path of each file here, by its name there."""

    shot: Shot
    sources: dict[str, str]


def staged(shot: Shot) -> Staged:
    """The shot with `staged:` in place of folders, and the files that it needs: of the plate, with the delivery's
    handles; of the matte; of controls that are sequences. Models are the server's own.

    Raises PlateMissing, UsageError.
    """
    sources: dict[str, str] = {}
    numbers = _numbers(shot)

    def sent(sequence: str, folder: str) -> str:
        for path in _files(sequence, numbers):
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
    if shot.plate.frames is None:
        return None
    wanted, handles = frame_numbers(shot.plate.frames), shot.delivery.handles
    return {*wanted, *range(min(wanted) - handles, min(wanted)), *range(max(wanted) + 1, max(wanted) + handles + 1)}


def _files(sequence: str, numbers: set[int] | None) -> list[Path]:
    if is_movie(sequence):
        return [Path(sequence)]
    there = FramePattern.parse(sequence).on_disk()
    found = [path for number, path in there.items()
             if numbers is None or number in numbers or len(there) == 1]
    if not found:
        raise PlateMissing("no file of it is here to be sent", where=sequence,
                           remedy="Check the name, the padding and the frames.")
    return found
