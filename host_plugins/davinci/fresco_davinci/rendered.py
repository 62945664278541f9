# SPDX-License-Identifier: Apache-2.0
"""Files that Resolve rendered -> a plate whose frames are numbered as wanted. No call of Resolve stands here."""
from __future__ import annotations

import re
import shutil
from pathlib import Path

from fresco_protocol.errors import DiskFull, OutputDenied, OutputError

RESERVE = 256 * 2**20  # bytes that stay free


def rendered_frames(folder: Path, suffix: str) -> dict[int, Path]:
    """The frames in a folder by the number in their names, ascending: separators and padding differ by release."""
    named = ((re.fullmatch(r".*?(\d+)", path.stem), path) for path in folder.iterdir() if path.suffix == suffix)
    return dict(sorted((int(match[1]), path) for match, path in named if match))


def numbered(folder: Path, suffix: str, *, count: int, first: int) -> str:
    """Renames the rendered frames so that they count from `first`, and gives their pattern.

    Raises OutputError unless exactly `count` neighbouring frames lie there, each with something in it.
    """
    found = rendered_frames(folder, suffix)
    numbers = list(found)
    if len(numbers) != count or numbers != list(range(numbers[0], numbers[0] + count)):
        raise OutputError(f"Resolve rendered {len(numbers)} of {count} frames", where=folder,
                          remedy="On the Deliver page choose a preset that exports video, such as H.264 Master; look "
                                 "whether the disk is full; then do it again.")
    empty = [path.name for path in found.values() if path.stat().st_size == 0]
    if empty:
        raise OutputError(f"Resolve wrote empty files: {', '.join(empty[:3])}", where=folder,
                          remedy="Look whether the disk is full, and do it again.")
    pattern = folder / f"{folder.name}.%08d{suffix}"
    for number in reversed(numbers) if first > numbers[0] else numbers:  # so that no new name is one still to be read
        found[number].rename(str(pattern) % (first + number - numbers[0]))
    return str(pattern)


def one_movie(folder: Path) -> str:
    """The movie that Resolve rendered into a folder. Raises OutputError unless there is one."""
    movies = [path for path in folder.iterdir() if path.suffix.lower() == ".mov" and path.stat().st_size]
    if len(movies) != 1:
        raise OutputError(f"Resolve rendered {len(movies)} movies in place of one", where=folder,
                          remedy="Look at the render queue of the Deliver page, and do it again.")
    return str(movies[0])


def prepared(folder: Path, *, size: tuple[int, ...], frames: int) -> Path:
    """The folder, made. Raises DiskFull unless so many half-float frames have room, OutputDenied if it refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise OutputDenied(f"the folder cannot be made: {error.strerror}", where=folder,
                           remedy="Choose another folder with --folder.") from error
    needed = frames * size[0] * size[1] * 6 + RESERVE  # three halves a pixel, uncompressed
    if free < needed:
        raise DiskFull(f"{frames} frames may take {needed // 2**20} MiB, and {free // 2**20} MiB are free",
                       where=folder, remedy="Make room, or choose another folder with --folder.")
    return folder
