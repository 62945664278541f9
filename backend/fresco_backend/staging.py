# SPDX-License-Identifier: Apache-2.0
"""Files of clients that share no disk with the server: kept below one folder of its own, chunk by chunk, until they
are whole, and taken away again.

    FOLDER/0f3a…/            one job, named after its client key
        manifest.json        the files, with their checksums, as the job was submitted
        plate/.p.1001.png.part   what has come of a file; it only ever grows by whole chunks
        plate/p.1001.png     a file that is whole and is what its checksum says
        delivery/            what is rendered

What is there tells how far an upload is, so that it goes on after any end of the server. A thread reckons checksums of
whole files; the loop of the server waits for no disk longer than one chunk takes.
"""
from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from fresco_backend.checksums import Checksums
from fresco_protocol.document import noun, parse_json, read, write
from fresco_protocol.errors import (
    Busy,
    ChecksumWrong,
    DiskFull,
    InputError,
    JobRefused,
    OutputDenied,
    OutputError,
    ShotError,
    UsageError,
)
from fresco_protocol.files import STAGED, File, Files
from fresco_protocol.job import ClientKey, Count
from fresco_protocol.shot import Shot

SCHEMA = 1
RESERVE = 2**30  # bytes of the disk that uploads leave free
LIMIT = 200 * 2**30  # bytes of all uploads together
KEPT = 7 * 86_400.0  # seconds that the files of a job stay after its end, or without a word of its client
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@noun
class Manifest:
    """What a client wants to send. key: of its job."""

    schema: Count
    key: ClientKey
    files: Files


@dataclass(kw_only=True)
class Upload:
    """One job's files on their way. held: bytes that are there, by name. whole, wrong: names of files that are there
    and are what their checksums say; that were there and were not."""

    folder: Path
    manifest: Manifest
    held: dict[str, int]
    whole: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.files = {file.name: file for file in self.manifest.files}

    @property
    def is_complete(self) -> bool:
        """Whether every file is there."""
        return len(self.whole) == len(self.manifest.files)

    @property
    def missing(self) -> int:
        """Bytes that have not come yet."""
        return sum(file.size - self.held[file.name] for file in self.manifest.files)

    def path(self, name: str) -> Path:
        """Where a file lies when it is whole."""
        return self.folder / name

    def part(self, name: str) -> Path:
        """Where it grows."""
        path = self.path(name)
        return path.with_name(f".{path.name}.part")


class Chunk(NamedTuple):
    """A part of a file on its way. offset: bytes. sha256: of the data."""

    name: str
    offset: int
    sha256: str
    data: bytes


class Staging:
    """All uploads of the server. folder: None where it takes none. limit: bytes of all of them together.

    say: writes a line into the server's log.
    """

    def __init__(self, folder: Path | None, *, limit: int = LIMIT, checksums: Checksums,
                 say: Callable[[str], None]) -> None:
        self.folder = folder
        self._limit, self._checksums, self._say = limit, checksums, say
        self._uploads: dict[str, Upload] = {}
        self._checking: dict[Path, tuple[Upload, File]] = {}
        self._complete: set[str] = set()
        if folder is not None and folder.is_dir():
            for place in sorted(folder.iterdir()):
                self._load(place)

    @property
    def keys(self) -> tuple[str, ...]:
        """The client keys of the jobs that have files here."""
        return tuple(self._uploads)

    def of(self, key: str) -> Upload:
        """The upload of a client's key. Raises JobRefused when it has none."""
        if key not in self._uploads:
            raise JobRefused("this job has no files on the server", remedy="It was submitted without any, or they were "
                             "taken away after its end; submit it again with a fresh key.")
        return self._uploads[key]

    def begin(self, key: str, files: Files) -> bool:
        """Make room for the files of a job; False when they are under way already.

        Raises UsageError for files that cannot be taken, Busy when others have to go first, DiskFull, OutputDenied.
        """
        if key in self._uploads:
            if self._uploads[key].manifest.files != files:
                raise UsageError(f'the client key "{key}" belongs to other files',
                                 remedy="Take a fresh key for each new shot.")
            return False
        folder = self._place(key)
        _check(files)
        self._check_room(sum(file.size for file in files))
        upload = Upload(folder=folder, manifest=Manifest(schema=SCHEMA, key=key, files=files),
                        held={file.name: 0 for file in files})
        try:
            for name in ("delivery", *{file.name.rpartition("/")[0] for file in files}):
                (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            for file in files:
                if file.size == 0:
                    upload.part(file.name).touch()
            _write_whole(folder / "manifest.json", write(upload.manifest))
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise _refused(folder, error) from error
        self._uploads[key] = upload
        self._check_finished(upload)
        return True

    def take(self, key: str, chunk: Chunk) -> int:
        """Keep a chunk; gives how many bytes of its file are there. One that is there already changes nothing.

        Raises ChecksumWrong, UsageError for a file or a place that is not the upload's, DiskFull, OutputDenied: then
        the file is as it was before.
        """
        upload = self.of(key)
        file = upload.files.get(chunk.name)
        if file is None:
            raise UsageError("the job was submitted without this file", where=chunk.name)
        held, end = upload.held[file.name], chunk.offset + len(chunk.data)
        if chunk.offset > held or end > file.size:
            raise UsageError(f"bytes {chunk.offset} to {end} do not follow the {held} that are there, of {file.size}",
                             where=file.name, remedy="Go on from what the server has.")
        if hashlib.sha256(chunk.data).hexdigest() != chunk.sha256:
            raise ChecksumWrong("a chunk changed on the way", where=f"{file.name}, byte {chunk.offset}",
                                remedy="Send it again.")
        if end > held:
            _append(upload.part(file.name), held, chunk.data[held - chunk.offset:])
            upload.held[file.name] = end
            self._check_file(upload, file)
        return upload.held[file.name]

    def tend(self) -> None:
        """Take in what the thread has found of whole files. Raises OutputError; then that file is looked at again."""
        for path in self._checksums.done():
            if path in self._checking:
                upload, file = self._checking.pop(path)
                self._judge(upload, file)

    def waiting(self) -> tuple[str, ...]:
        """The keys of uploads that are complete and not settled."""
        return tuple(key for key in self._complete)

    def settle(self, key: str) -> None:
        """The job of this key has its files."""
        self._complete.discard(key)

    def located(self, shot: Shot, key: str) -> Shot:
        """The shot with the places of its files here in place of `staged:` ones. Raises UsageError."""
        if not shot.delivery.sequence.startswith(f"{STAGED}delivery/"):
            raise UsageError("a shot whose files are sent is delivered beside them", where="delivery.sequence",
                             remedy=f'Name it "{STAGED}delivery/" and a pattern; then fetch it: fresco download JOB')
        folder = self._place(key)

        def here(path: str) -> str:
            return str(folder / path[len(STAGED):]) if path.startswith(STAGED) else path

        controls = shot.look.controls and tuple(
            replace(control, sequence=control.sequence and here(control.sequence)) for control in shot.look.controls)
        return replace(
            shot, plate=replace(shot.plate, sequence=here(shot.plate.sequence)),
            matte=shot.matte and replace(shot.matte, sequence=here(shot.matte.sequence)),
            look=replace(shot.look, controls=controls),
            delivery=replace(shot.delivery, sequence=here(shot.delivery.sequence)))

    def discard(self, key: str) -> None:
        """Take away all files of a job; nothing happens where it has none."""
        upload = self._uploads.pop(key, None)
        if upload is None:
            return
        self._complete.discard(key)
        self._checking = {path: (other, file) for path, (other, file) in self._checking.items() if other is not upload}
        gone = upload.folder.with_name(f".{upload.folder.name}.gone")
        with suppress(OSError):  # what cannot go now goes at the next start
            upload.folder.replace(gone)
            self._checksums.work(lambda: shutil.rmtree(gone, ignore_errors=True))

    def idle_since(self, key: str) -> float:
        """When something last changed in the upload of this key: seconds since 1970."""
        folder = self._uploads[key].folder
        with suppress(OSError):
            return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
        return 0.0

    def _place(self, key: str) -> Path:
        if self.folder is None:
            raise UsageError("this server takes no files", remedy="Start it with a --root, or share a disk with it.")
        return self.folder / hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:24]

    def _check_room(self, size: int) -> None:
        assert self.folder is not None
        if size > self._limit:
            raise UsageError(f"{size} bytes of files; this server takes {self._limit}", where=self.folder,
                             remedy="Start it with a higher --upload-limit, or share a disk with it.")
        there = sum(file.size for upload in self._uploads.values() for file in upload.manifest.files)
        if there + size > self._limit:
            raise Busy(f"{there} bytes of other uploads are on the server, which takes {self._limit}",
                       where=self.folder, remedy="Download what is delivered, which takes its files away.")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free - sum(upload.missing for upload in self._uploads.values())
        except OSError as error:
            raise _refused(self.folder, error) from error
        if size + RESERVE > free:
            raise DiskFull(f"{size} bytes of files do not fit on the server's disk, of which {max(0, free)} are free",
                           where=self.folder, remedy="Make room there, or start it with another --staging.")

    def _load(self, place: Path) -> None:
        """An upload of an earlier start; what is none is taken away."""
        try:
            manifest = read(parse_json((place / "manifest.json").read_text(encoding="utf-8")), Manifest)
        except (OSError, ValueError, ShotError):
            shutil.rmtree(place, ignore_errors=True)
            return
        upload = Upload(folder=place, manifest=manifest, held={})
        for file in manifest.files:
            if upload.path(file.name).is_file():
                upload.whole.add(file.name)
            there = file.name in upload.whole
            upload.held[file.name] = file.size if there else min(file.size, _size(upload.part(file.name)))
        self._uploads[manifest.key] = upload
        self._check_finished(upload)

    def _check_finished(self, upload: Upload) -> None:
        for file in upload.manifest.files:
            self._check_file(upload, file)
        self._note(upload)

    def _note(self, upload: Upload) -> None:
        if upload.is_complete:
            self._complete.add(upload.manifest.key)

    def _check_file(self, upload: Upload, file: File) -> None:
        if upload.held[file.name] == file.size and file.name not in upload.whole:
            self._checking[upload.part(file.name)] = (upload, file)
            self._checksums.ask(upload.part(file.name), sync=True)

    def _judge(self, upload: Upload, file: File) -> None:
        part = upload.part(file.name)
        try:
            if self._checksums.of(part) == file.sha256:
                part.replace(upload.path(file.name))
                upload.whole.add(file.name)
                upload.wrong.discard(file.name)
                self._note(upload)
                return
            part.unlink()
        except OSError as error:
            self._check_file(upload, file)
            raise _refused(part, error) from error
        upload.held[file.name] = 0
        upload.wrong.add(file.name)
        self._say(f"upload {upload.folder.name}: {file.name} is not what its checksum says, and begins anew")


def _check(files: Files) -> None:
    names: set[str] = set()
    for file in files:
        if file.name.casefold() in names:
            raise UsageError("two files of one name", where=file.name,
                             remedy="Names must differ in more than capitals.")
        names.add(file.name.casefold())
        if "/" not in file.name or file.name.startswith("delivery/") or file.sha256 is None:
            raise UsageError("a file needs a folder that is not the delivery's, and its checksum", where=file.name)


def _append(part: Path, held: int, data: bytes) -> None:
    try:
        with part.open("r+b" if held else "wb", buffering=0) as file:
            file.seek(held)
            rest = memoryview(data)
            try:
                while rest:
                    rest = rest[file.write(rest):]
            except OSError:
                file.truncate(held)
                raise
    except OSError as error:
        raise _refused(part, error) from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _write_whole(path: Path, document: object) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _refused(place: Path, error: OSError) -> OutputError | InputError:
    if error.errno in _FULL:
        return DiskFull("the disk of the server is full", where=place,
                        remedy="Make room there and do the same again; what has arrived is kept.")
    return OutputDenied(f"the server cannot keep files there: {error.strerror}", where=place,
                        remedy="Give its owner the right to write there, or start it with another --staging.")


def is_stale(idle_since: float) -> bool:
    """Whether nobody has wanted files since so long that they go."""
    return time.time() - idle_since > KEPT
