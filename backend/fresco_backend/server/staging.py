# SPDX-License-Identifier: Apache-2.0
"""Files of clients that share no disk with the server: kept below one folder of its own, chunk by chunk, until they
are whole, and taken away again.

    FOLDER/<queue>/          the journal's name: servers of other queues may share the folder
        0f3a…/               one job, named after its client key
            manifest.json    the files, with their checksums, as the job was submitted
            plate/.p.1001.png.part   what has come of a file; it only ever grows by whole chunks
            plate/p.1001.png a file that is whole and is what its checksum says
            delivery/        what is rendered
        .0f3a….9c1d….gone/   a job whose files are being deleted

What is there tells how far an upload is, so that it goes on after any end of the server. Whatever else lies there, or
cannot be read, is left alone. A thread reckons checksums of
whole files; the loop of the server waits for no disk longer than one chunk takes.
"""
from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from fresco_backend.server.checksums import Checksums
from fresco_backend.server.staged_upload import SCHEMA, Chunk, Manifest, StagedUpload, refused
from fresco_protocol.errors import (
    Busy,
    ChecksumWrong,
    DiskFull,
    JobRefused,
    OutputDenied,
    PathRefused,
    ShotError,
    UsageError,
)
from fresco_protocol.files import STAGED, File, Files, is_file_name
from fresco_protocol.shot import Shot

KEEP_FREE = 10**9  # bytes of the disk that uploads leave free
LIMIT = 200 * 10**9  # bytes of all uploads together
MOST_FILES = 200_000  # of all uploads together
KEPT = 7 * 86_400.0  # seconds that the files of a job stay after its end, or without a word of its client
AWAY = 3_600.0  # seconds without a look at the clock after which they do not count: no server ran, or the clock jumped
_PLACE = re.compile(r"[0-9a-f]{24}")  # what a job's folder is called
_GONE = re.compile(rf"\.{_PLACE.pattern}\.[0-9a-f]{{8}}\.gone")  # and then, until it is deleted
_QUEUE = re.compile(r"[0-9a-f]{16}")  # what the folder of a queue is called


class Staging:
    """All uploads of the server. folder: of its queue; None where it takes none. limit: bytes of all of them together.
    keep_free: bytes of the disk that they leave free.

    say: writes a line into the server's log. Raises OutputDenied for a folder that cannot be listed.
    """

    def __init__(self, folder: Path | None, *, limit: int = LIMIT, keep_free: int = KEEP_FREE, checksums: Checksums,
                 say: Callable[[str], None]) -> None:
        self.folder = folder
        self._limit, self._keep_free, self._checksums, self._say = limit, keep_free, checksums, say
        self._uploads: dict[str, StagedUpload] = {}
        self._checking: dict[Path, tuple[StagedUpload, File]] = {}
        self._complete: set[str] = set()
        self._looked = time.time()
        if folder is not None:
            self._looked = _changed(folder) or self._looked  # before anything is changed there
            for name in _entries(folder):
                self._find(folder / name)

    @property
    def keys(self) -> tuple[str, ...]:
        """The client keys of the jobs that have files here."""
        return tuple(self._uploads)

    def of(self, key: str) -> StagedUpload:
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
        self._check_room(files)
        try:
            upload = StagedUpload.begin(folder, Manifest(schema=SCHEMA, key=key, files=files))
        except FileExistsError as error:
            raise OutputDenied("files of this job are there, and could not be read when the server started",
                               where=folder, remedy="Its log says why. Or submit with a fresh key.") from error
        except (OSError, ValueError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise refused(folder, error) from error
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
        upload.touched = time.time()
        if end > held:
            upload.append(file, chunk.data[held - chunk.offset:])
            self._check_file(upload, file)
        return upload.held[file.name]

    def tend(self) -> None:
        """Take in what the thread has found of whole files."""
        for path in self._checksums.done():
            if path in self._checking:
                upload, file = self._checking.pop(path)
                self._judge(upload, file)

    def look_again(self, key: str) -> None:
        """Raises what the disk said of files that have come, OutputDenied or DiskFull, once: then they are read again.
        """
        upload = self.of(key)
        said, upload.refused = upload.refused, {}
        for name in said:
            self._check_file(upload, upload.files[name])
        for error in said.values():
            raise error

    def waiting(self) -> tuple[str, ...]:
        """The keys of uploads that are complete and not settled."""
        return tuple(key for key in self._complete)

    def settle(self, key: str) -> None:
        """The job of this key has its files."""
        self._complete.discard(key)

    def located(self, shot: Shot, key: str) -> Shot:
        """The shot with the places of its files here in place of `staged:` ones. Raises UsageError, PathRefused."""
        if not shot.delivery.sequence.startswith(f"{STAGED}delivery/"):
            raise UsageError("a shot whose files are sent is delivered beside them", where="delivery.sequence",
                             remedy=f'Name it "{STAGED}delivery/" and a pattern; then fetch it: fresco download JOB')
        folder = self._place(key)

        def here(path: str) -> str:
            if not path.startswith(STAGED):
                return path
            if not is_file_name(path[len(STAGED):]):
                raise PathRefused("no name of a file that is sent", where=path[:300],
                                  remedy=f'Name a folder and a file or a pattern: "{STAGED}plate/p.####.exr"')
            return str(folder / path[len(STAGED):])

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
        gone = upload.folder.with_name(f".{upload.folder.name}.{secrets.token_hex(4)}.gone")
        with suppress(OSError):  # then its job's end takes them away after the next start
            upload.folder.replace(gone)
            self._delete(gone)

    def idle_since(self, key: str) -> float:
        """Since when nobody has wanted the upload of this key: seconds since 1970, by the clock of now."""
        return self.of(key).touched

    def keep(self, key: str) -> None:
        """Its files are wanted now."""
        self.of(key).touch(time.time())

    def look_at_the_clock(self) -> None:
        """To be called several times within AWAY seconds. Files grow old while a server is there to be asked for them:
        not on a machine that is off, nor by a jump of its clock. When this was last called, the folder's time tells."""
        now, before, self._looked = time.time(), self._looked, time.time()
        if self.folder is None or not self._uploads:
            return
        if abs(now - before) > AWAY:
            self._say(f"no server looked at its uploads for {(now - before) / 3600:.1f} hours by the clock, which do "
                      "not count for their age")
            for upload in self._uploads.values():
                upload.touch(min(now, upload.touched + now - before))
        with suppress(OSError):  # then what follows counts, as if a server had been here
            os.utime(self.folder, (now, now))

    def _place(self, key: str) -> Path:
        if self.folder is None:
            raise UsageError("this server takes no files", remedy="Start it with a --root, or share a disk with it.")
        return self.folder / _place_name(key)

    def _delete(self, folder: Path) -> None:
        self._checksums.work(lambda: shutil.rmtree(folder, ignore_errors=True))

    def _check_room(self, files: Files) -> None:
        assert self.folder is not None
        size = sum(file.size for file in files)
        if size > self._limit:
            raise UsageError(f"{size} bytes of files; this server takes {self._limit}", where=self.folder,
                             remedy="Start it with a higher --upload-limit, or share a disk with it.")
        there = sum(upload.size for upload in self._uploads.values())
        count = sum(len(upload.files) for upload in self._uploads.values())
        if there + size > self._limit or count + len(files) > MOST_FILES:
            raise Busy(f"{count} files of other uploads are on the server, {there} bytes; it takes {MOST_FILES} files "
                       f"and {self._limit} bytes", where=self.folder,
                       remedy="Download what is delivered, which takes its files away.")
        try:
            for folder in (self.folder.parent, self.folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free - sum(upload.missing for upload in self._uploads.values())
        except OSError as error:
            raise refused(self.folder, error) from error
        if size + self._keep_free > free:
            raise DiskFull(f"{size / 1e6:.1f} MB of files do not fit on the server's disk: {max(0, free) / 1e6:.1f} MB "
                           f"are free, of which {self._keep_free / 1e6:.0f} MB shall stay so", where=self.folder,
                           remedy="Make room there, or start it with another --staging or a lower --keep-free.")

    def _find(self, place: Path) -> None:
        """What an earlier start left: an upload goes on, what was to be deleted is, and all else stays as it is."""
        if _GONE.fullmatch(place.name):
            self._delete(place)
        elif _PLACE.fullmatch(place.name):
            try:
                self._load(place)
            except FileNotFoundError:  # it never began
                self._delete(place)
            except (OSError, ValueError, ShotError) as error:
                self._say(f"an upload cannot be read, and is left alone: {place}: {error}")
        else:
            self._say(f"not of Fresco, and left alone: {place}")

    def _load(self, place: Path) -> None:
        upload = StagedUpload.load(place)
        if place.name != _place_name(upload.manifest.key):
            raise ValueError("its manifest belongs to another folder")
        self._uploads[upload.manifest.key] = upload
        self._check_finished(upload)

    def _check_finished(self, upload: StagedUpload) -> None:
        for file in upload.manifest.files:
            self._check_file(upload, file)
        self._note(upload)

    def _note(self, upload: StagedUpload) -> None:
        if upload.is_complete:
            self._complete.add(upload.manifest.key)

    def _check_file(self, upload: StagedUpload, file: File) -> None:
        if upload.held[file.name] == file.size and file.name not in upload.whole:
            self._checking[upload.part(file.name)] = (upload, file)
            self._checksums.ask(upload.part(file.name), sync=True)

    def _judge(self, upload: StagedUpload, file: File) -> None:
        part = upload.part(file.name)
        try:
            digest = self._checksums.found(part)
            if digest is None:  # it changed meanwhile
                self._check_file(upload, file)
            elif digest == file.sha256:
                part.replace(upload.path(file.name))
                upload.whole.add(file.name)
                upload.wrong.discard(file.name)
                self._note(upload)
            else:
                part.unlink()
                upload.hold(file, 0)
                upload.wrong.add(file.name)
                self._say(f"upload {upload.folder.name}: {file.name} is not what its checksum says, and begins anew")
        except OSError as error:
            upload.refused[file.name] = refused(part, error)
            self._say(f"upload {upload.folder.name}: {file.name} has come, and the disk refuses it: {error}")


def check_staging(folder: Path, roots: tuple[Path, ...]) -> None:
    """Raises UsageError for a folder of uploads that is a root itself, or has something else in it already."""
    remedy = "Name a folder of its own, such as a new one inside a root."
    if folder in roots:
        raise UsageError("a root is no folder for uploads", where=folder, remedy=remedy)
    for name in _entries(folder):
        if not _QUEUE.fullmatch(name) and not name.startswith("."):  # the system's own, such as .snapshot
            raise UsageError(f"the folder for uploads has something else in it: {name}", where=folder, remedy=remedy)


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:  # nothing was ever sent
        return []
    except OSError as error:
        raise refused(folder, error) from error


def _changed(folder: Path) -> float | None:
    """When a folder last changed, seconds since 1970; None where it cannot be asked."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return None


def _place_name(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:24]


def _check(files: Files) -> None:
    names: set[str] = set()
    for file in files:
        if file.name.casefold() in names:
            raise UsageError("two files of one name", where=file.name,
                             remedy="Names must differ in more than capitals.")
        names.add(file.name.casefold())
        if "/" not in file.name or file.name.casefold().startswith("delivery/") or file.sha256 is None:
            raise UsageError("a file needs a folder that is not the delivery's, and its checksum", where=file.name)


def is_stale(idle_since: float) -> bool:
    """Whether nobody has wanted files since so long that they go."""
    return time.time() - idle_since > KEPT
