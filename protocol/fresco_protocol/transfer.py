# SPDX-License-Identifier: Apache-2.0
"""A plate sent to a server that shares no disk with this machine, and a delivery fetched from it.

Both go in chunks with checksums, and go on after a broken connection, a restart of the server or of this program with
what is there: nothing that has arrived is sent again.

    with Client(software="my-tool 1.0") as client:
        record = upload(client, shot, {"plate/p.1001.exr": "/show/p.1001.exr"}, client_key=key)
        ...
        download(client, record.id, "/show/out")
"""
from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Optional, TypeVar

from fresco_protocol.client import Client
from fresco_protocol.errors import (
    Busy,
    ChecksumWrong,
    DiskFull,
    InputError,
    OutputDenied,
    OutputError,
    ServerError,
    ServerSilent,
)
from fresco_protocol.files import LARGEST_CHUNK, File
from fresco_protocol.job import Job, JobState
from fresco_protocol.messages import GetChunk, ListDelivery, PutChunk, Reply, Request, Submit, Upload, Uploaded
from fresco_protocol.shot import Shot

AT_ONCE = 4  # chunks on the way at a time, so that a long way costs no waiting
PATIENCE = 60.0  # seconds without a server until a transfer gives up; the same call goes on later
PAUSE = 0.2  # seconds between two looks at what the server still does
SLOWEST = 10_000_000  # bytes a second at which a server reads its own files at least
MOST_WRONG = 2  # times that a file may come out wrong

R = TypeVar("R", bound=Reply)


class Moved(NamedTuple):
    """How far a transfer is. what: "reading", "sending", "checking" or "fetching". done, total: bytes."""

    what: str
    done: int
    total: int
    name: str


Told = Callable[[Moved], None]


def files_of(sources: Mapping[str, str], told: Optional[Told] = None) -> tuple[File, ...]:
    """The files of an upload with their checksums. sources: path here, by name there. Raises InputError."""
    sizes = {name: _size(path) for name, path in sources.items()}
    total, done = sum(sizes.values()), 0
    found = []
    for name in sorted(sources):
        found.append(File(name=name, size=sizes[name], sha256=_checksum(sources[name])))
        done += sizes[name]
        _tell(told, Moved("reading", done, total, name))
    return tuple(found)


def upload(client: Client, shot: Shot, sources: Mapping[str, str], *, client_key: str, priority: int = 0,
           files: Optional[tuple[File, ...]] = None, told: Optional[Told] = None, patience: float = PATIENCE) -> Job:
    """Submits a shot, sends its files, and gives the job as soon as it is queued.

    shot: with `staged:` in place of folders, see `files.py`. sources: path here, by name there. client_key: the same
    one goes on where an earlier call stopped. files: from `files_of`, where they are known. told: hears how far it is.
    Raises ServerError after `patience` seconds without a server, InputError, ChecksumWrong, or the server's error.
    """
    files = files_of(sources, told) if files is None else files
    sending = _Sending(client, files, sources, told, patience)
    return sending.run(Submit(shot=shot, client_key=client_key, priority=priority, files=files))


def download(client: Client, job: str, folder: str, *, told: Optional[Told] = None, patience: float = PATIENCE,
             replaceable: Callable[[str], bool] = lambda _path: True) -> tuple[Job, list[str]]:
    """Fetches what a job has delivered by now, and what is not here already; gives the job, and the files' paths.

    replaceable: whether another file, which has the name of a fetched one, may go; OutputDenied where not.
    Every file gets its name when it is whole, right and on the disk. Raises ServerError when there is no server for
    `patience` seconds, or when it gives no checksum for that long beyond the time that reading the files takes; Busy
    where another program fetches into the same folder; OutputError, ChecksumWrong, or the server's error.
    """
    link = _Link(client, patience)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise _unwritten(folder, error) from error
    here: dict[str, File] = {}
    moved_at = time.monotonic()
    while True:
        record, files = _listed(link, job)
        ready = [file for file in files if file.sha256 is not None]
        new = [file for file in ready if here.get(file.name) != file]
        total = sum(file.size for file in files)
        done = sum(file.size for file in ready) - sum(file.size for file in new)
        for file in new:
            _fetch(link, job, file, folder, partial(_tell_fetching, told, done, total, file.name), replaceable)
            done += file.size
            here[file.name] = file
        if len(ready) == len(files) and not new:
            return record, [os.path.join(folder, file.name) for file in files]
        if new:
            moved_at = time.monotonic()
        else:
            _check_checksums_come([file for file in files if file.sha256 is None], job, moved_at, patience)
            time.sleep(PAUSE)


def _check_checksums_come(left: Sequence[File], job: str, since: float, patience: float) -> None:
    """Raises ServerSilent when the server has had time enough to read the files that still lack a checksum."""
    if time.monotonic() - since > patience + sum(file.size for file in left) / SLOWEST:
        raise ServerSilent(f"the server comes to no checksum of {left[0].name}, the first of {len(left)}",
                           where=f"job {job}", remedy="Its log says whether it cannot read it: fresco logs. Do the "
                           "same again for what is left; what was ready is here.")


class _Link:
    """Requests that are sent again while the server is away, for `patience` seconds."""

    def __init__(self, client: Client, patience: float) -> None:
        self._client, self._patience = client, patience

    def ask(self, request: Request[R]) -> R:
        return self.ask_all([request])[0]

    def ask_all(self, requests: Sequence[Request[R]]) -> list[R]:
        lost: Optional[float] = None
        while True:
            try:
                return self._client.requests(requests, seconds=self._patience)
            except ServerError:
                now = time.monotonic()
                lost = now if lost is None else lost
                if now - lost >= self._patience:
                    raise
                time.sleep(PAUSE)


class _Sending:
    """The files of one job on their way to the server, until the server has them all and queues the job."""

    def __init__(self, client: Client, files: Sequence[File], sources: Mapping[str, str], told: Optional[Told],
                 patience: float) -> None:
        self._client, self._link = client, _Link(client, patience)
        self._files, self._sources = files, sources
        self._told, self._patience = told, patience
        self._times = dict.fromkeys((file.name for file in files), 0)  # that each of them was sent to its end
        self._total = sum(file.size for file in files)  # bytes
        self._done = 0  # bytes that have arrived
        self._best, self._best_at = -1, time.monotonic()  # the most that had arrived when the server was lost, and when

    def run(self, submit: Submit) -> Job:
        """Submits the job and sends what is missing, round by round; gives the job once it is queued."""
        record = self._link.ask(submit).record
        while record.state is JobState.SUBMITTED:
            there = self._link.ask(Upload(job=record.id))  # what has arrived, after a lost connection too
            record = there.record
            self._check_wrong(there)
            left = [(file, held) for file, held in zip(self._files, there.held) if held < file.size]
            self._done = self._total - sum(file.size - held for file, held in left)
            try:
                self._send(record.id, left)
            except ServerError:
                if self._is_stuck():
                    raise
            if not left and record.state is JobState.SUBMITTED:
                _tell(self._told, Moved("checking", self._total, self._total,
                                        f"{there.whole} of {len(self._files)} files"))
                time.sleep(PAUSE)
        return record

    def _check_wrong(self, there: Uploaded) -> None:
        """Raises ChecksumWrong where a file that came out wrong on the server is not worth sending again."""
        for file, held in zip(self._files, there.held):
            if file.name in there.wrong and held == 0:
                _check_again(file, self._sources[file.name], self._times[file.name], there.record.id)

    def _send(self, job: str, left: Sequence[tuple[File, int]]) -> None:
        """Sends the rest of each file, from the bytes on that are there."""
        for file, held in left:
            for chunks in _batches(_chunks(job, file, held, self._sources[file.name])):
                self._client.requests(chunks, seconds=self._patience)  # a slow way takes a while
                self._done += sum(len(chunk.data) for chunk in chunks)
                _tell(self._told, Moved("sending", self._done, self._total, file.name))
            self._times[file.name] += 1

    def _is_stuck(self) -> bool:
        """Whether no more has arrived than before, for longer than `patience`."""
        if self._done > self._best:
            self._best, self._best_at = self._done, time.monotonic()
            return False
        return time.monotonic() - self._best_at > self._patience


def _chunks(job: str, file: File, held: int, path: str) -> Iterable[PutChunk]:
    """The chunks of a file from byte `held` on. Raises InputError."""
    try:
        with open(path, "rb") as source:
            source.seek(held)
            offset = held
            while offset < file.size:
                data = source.read(min(LARGEST_CHUNK, file.size - offset))
                if not data:
                    raise InputError("the file has become shorter", where=path, remedy="Submit the shot again.")
                yield PutChunk(job=job, name=file.name, offset=offset, sha256=hashlib.sha256(data).hexdigest(),
                               data=data)
                offset += len(data)
    except OSError as error:
        raise _unread(path, error) from error


def _check_again(file: File, path: str, times: int, job: str) -> None:
    """Raises ChecksumWrong unless it is worth sending a file again that came out wrong on the server.

    times: that it was sent so far. Once may be bad luck: after a power cut, parts of it never reached the disk there.
    """
    if _checksum(path) != file.sha256:
        raise ChecksumWrong("the file is not the one that was submitted: it has changed since", where=path,
                            remedy=f"Take this job back, fresco cancel {job}, and submit the shot again.")
    if times >= MOST_WRONG:
        raise ChecksumWrong("the server has another file than the one that was sent, again and again", where=path,
                            remedy="Its disk or the way there damages files; its log says more: fresco logs. The same "
                            "command goes on with what is left.")


def _batches(chunks: Iterable[PutChunk]) -> Iterable[list[PutChunk]]:
    batch: list[PutChunk] = []
    for chunk in chunks:
        batch.append(chunk)
        if len(batch) == AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _listed(link: _Link, job: str) -> tuple[Job, list[File]]:
    """The job, and the files of its delivery. The job is as it was before they were listed: if it had ended by then,
    they are all there are.
    """
    first = ListDelivery(job=job)
    page = link.ask(first)
    record, files, skip = page.record, list(page.files), first.limit
    while skip < page.total:
        page = link.ask(replace(first, skip=skip))
        files += page.files
        skip += first.limit
    return record, files


def _fetch(link: _Link, job: str, file: File, folder: str, told: Callable[[int], None],
           replaceable: Callable[[str], bool]) -> None:
    path, part = os.path.join(folder, file.name), os.path.join(folder, f".{file.name}.part")
    if _is(path, file):
        told(file.size)
        return
    if os.path.lexists(path) and not replaceable(path):
        raise OutputDenied("a file that is no delivery of Fresco's has this name already", where=path,
                           remedy="Name another folder: this one may be the plate's.")
    for _ in range(MOST_WRONG):
        try:
            _grow(link, job, file, part, told)
            if _checksum(part) == file.sha256:
                os.replace(part, path)
                return
            os.unlink(part)
        except OSError as error:
            raise _unwritten(path, error) from error
    raise ChecksumWrong("it came out wrong again and again", where=path,
                        remedy="Is it being rendered again? Fetch it when the job has ended.")


def _grow(link: _Link, job: str, file: File, part: str, told: Callable[[int], None]) -> None:
    """Append what is missing, whole chunks at a time."""
    with open(part, "ab") as target:
        offset = target.tell()
        if offset > file.size:
            offset = target.truncate(0)
        while offset < file.size:
            starts = range(offset, file.size, LARGEST_CHUNK)[:AT_ONCE]
            for given in link.ask_all([GetChunk(job=job, name=file.name, offset=start) for start in starts]):
                if os.fstat(target.fileno()).st_size != offset:
                    raise Busy("another program fetches into this folder", where=os.path.dirname(part),
                               remedy="Wait for its end, or name another folder.")
                if given.offset != offset or hashlib.sha256(given.data).hexdigest() != given.sha256:
                    raise ChecksumWrong("a chunk changed on the way", where=f"{file.name}, byte {offset}",
                                        remedy="Do the same again: what has arrived is kept.")
                target.write(given.data)
                target.flush()
                offset += len(given.data)
            told(min(offset, file.size))
        os.fsync(target.fileno())  # before the server is told to delete its own


def _is(path: str, file: File) -> bool:
    return os.path.isfile(path) and os.path.getsize(path) == file.size and _checksum(path) == file.sha256


def _checksum(path: str) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as source:
            while data := source.read(1 << 20):
                digest.update(data)
    except OSError as error:
        raise _unread(path, error) from error
    return digest.hexdigest()


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError as error:
        raise _unread(path, error) from error


def _unread(path: str, error: OSError) -> InputError:
    return InputError(f"it cannot be read: {error.strerror}", where=path)


def _unwritten(path: str, error: OSError) -> OutputError:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG):
        return DiskFull("the disk is full", where=path,
                        remedy="Make room and do the same again: what has arrived is kept.")
    return OutputDenied(f"it cannot be written: {error.strerror}", where=path, remedy="Name another folder.")


def _tell_fetching(told: Optional[Told], before: int, total: int, name: str, size: int) -> None:
    _tell(told, Moved("fetching", before + size, total, name))


def _tell(told: Optional[Told], moved: Moved) -> None:
    if told is not None:
        told(moved)
