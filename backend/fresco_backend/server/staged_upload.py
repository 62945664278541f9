# SPDX-License-Identifier: Apache-2.0
"""One job's files on their way: what is there of each, in a folder that the server made for them."""
from __future__ import annotations

import errno
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fresco_protocol.document import noun, parse_json, read, write
from fresco_protocol.errors import DiskFull, FrescoError, OutputDenied
from fresco_protocol.files import File, Files
from fresco_protocol.job import ClientKey, Count

SCHEMA = 1
MANIFEST = "manifest.json"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@noun
class Manifest:
    """What a client wants to send. key: of its job."""

    schema: Count
    key: ClientKey
    files: Files


class Chunk(NamedTuple):
    """A part of a file on its way. offset: bytes. sha256: of the data."""

    name: str
    offset: int
    sha256: str
    data: bytes


@dataclass(kw_only=True)
class StagedUpload:
    """The files of one job. held: bytes that are there, by name. whole, wrong: names of files that are there and are
    what their checksums say; that were there and were not. refused: what the disk said, by the name of a file that has
    come and cannot be read back. touched: when something last came, or somebody last wanted it, seconds since 1970."""

    folder: Path
    manifest: Manifest
    held: dict[str, int] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)
    refused: dict[str, FrescoError] = field(default_factory=dict)
    touched: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.files = {file.name: file for file in self.manifest.files}
        self.size = sum(file.size for file in self.manifest.files)
        self.missing = self.size  # bytes that have not come yet
        for file in self.manifest.files:
            self.hold(file, 0)

    @classmethod
    def begin(cls, folder: Path, manifest: Manifest) -> StagedUpload:
        """A new one. Raises OSError or ValueError, which leave a part of the folder; FileExistsError leaves it as
        it was."""
        folder.mkdir(mode=0o700)
        for name in ("delivery", *{file.name.rpartition("/")[0] for file in manifest.files}):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        upload = cls(folder=folder, manifest=manifest)
        for file in manifest.files:
            if file.size == 0:
                upload.part(file.name).touch()
        _write_whole(folder / MANIFEST, write(manifest))
        return upload

    @classmethod
    def load(cls, folder: Path) -> StagedUpload:
        """The one of an earlier start. Raises FileNotFoundError where it never began; OSError, ValueError, ShotError
        where it cannot be read."""
        manifest = read(parse_json((folder / MANIFEST).read_text(encoding="utf-8")), Manifest)
        if manifest.schema != SCHEMA:
            raise ValueError(f"its manifest has schema {manifest.schema}; this version of Fresco reads {SCHEMA}")
        touched = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
        upload = cls(folder=folder, manifest=manifest, touched=touched)
        for file in manifest.files:
            if upload.path(file.name).is_file():
                upload.whole.add(file.name)
                upload.hold(file, file.size)
            else:
                size, changed = _state(upload.part(file.name))
                upload.hold(file, min(file.size, size))
                upload.touched = max(upload.touched, changed)
        return upload

    @property
    def is_complete(self) -> bool:
        """Whether every file is there."""
        return len(self.whole) == len(self.manifest.files)

    def hold(self, file: File, size: int) -> None:
        """So many bytes of a file are there now."""
        self.missing -= size - self.held.get(file.name, 0)
        self.held[file.name] = size

    def touch(self, when: float) -> None:
        """Somebody wanted it at this time; the next start of the server knows it too."""
        self.touched = when
        with suppress(OSError):  # then that start knows when something last came
            os.utime(self.folder, (when, when))

    def path(self, name: str) -> Path:
        """Where a file lies when it is whole."""
        return self.folder / name

    def part(self, name: str) -> Path:
        """Where it grows."""
        path = self.path(name)
        return path.with_name(f".{path.name}.part")

    def append(self, file: File, data: bytes) -> None:
        """Let a file grow. Raises DiskFull, OutputDenied: then it is as it was before."""
        held = self.held[file.name]
        part = self.part(file.name)
        try:
            with part.open("r+b" if held else "wb", buffering=0) as target:
                target.seek(held)
                rest = memoryview(data)
                try:
                    while rest:
                        rest = rest[target.write(rest):]
                except OSError:
                    target.truncate(held)
                    raise
        except OSError as error:
            raise refused(part, error) from error
        self.hold(file, held + len(data))


def refused(place: Path, error: OSError | ValueError) -> DiskFull | OutputDenied:
    """What a client is told of what the server's disk refuses."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return DiskFull("the disk of the server is full", where=place,
                        remedy="Make room there and do the same again; what has arrived is kept.")
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return OutputDenied(f"the server cannot keep files there: {why}", where=place,
                        remedy="Give its owner the right to write there, or start it with another --staging.")


def _state(path: Path) -> tuple[int, float]:
    """Size, and seconds since 1970 of the last change."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0.0
    return status.st_size, status.st_mtime


def _write_whole(path: Path, document: object) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
