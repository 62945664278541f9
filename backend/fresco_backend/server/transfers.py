# SPDX-License-Identifier: Apache-2.0
"""What the server answers about files that go over the wire: plates that come in, deliveries that go out.

A job with files is submitted, waits for them, and is queued when they are all there. Its delivery can be fetched while
it grows, and so can that of any other job, file by file; then `Discard` takes away what lies in the server's folder,
and time does where nobody asks for it.
"""
from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fresco_backend.files.frame_pattern import MOVIES, PICTURES, FramePattern, record_path
from fresco_backend.path_mapping import PathMapping
from fresco_backend.queue.job_state import ENDED, LIVE, JobStatus
from fresco_backend.queue.jobs import JobQueue
from fresco_backend.roots import Roots
from fresco_backend.server.acceptance import Acceptance
from fresco_backend.server.checksums import Checksums, open_regular
from fresco_backend.server.reception import Judge
from fresco_backend.server.staged_upload import Chunk
from fresco_backend.server.staging import Staging, is_stale
from fresco_protocol import messages as m
from fresco_protocol.errors import FrescoError, InputError, JobRefused, PathRefused
from fresco_protocol.files import LARGEST_CHUNK, File, is_file_name
from fresco_protocol.job import JobState

CLEANED_EACH = 600.0  # seconds
MOST_PLACES = 100  # deliveries whose names are remembered
_NEEDED = LIVE - {JobState.SUBMITTED}  # the states in which a job's files do not grow old


class _Place(NamedTuple):
    """Where a delivery lies. frames: its files, or its movie, beside the record; None: all that is not hidden, for
    the folder has nothing else."""

    folder: Path
    frames: FramePattern | None
    record: str

    def has(self, name: str) -> bool:
        """Whether a file may be given out: one that a render writes. A client's shot names the folder and the pattern,
        and must not get a key or a document that lies in a root by calling it a delivery."""
        if not is_file_name(name) or "/" in name:
            return False
        return self.frames is None or name == self.record or (
            self.frames.has(name) and Path(name).suffix.lower() in {*PICTURES, *MOVIES})


@dataclass(kw_only=True)
class Transfers:
    """The files of all jobs. say: writes a line into the server's log."""

    queue: JobQueue
    staging: Staging
    checksums: Checksums
    roots: Roots
    mapping: PathMapping
    say: Callable[[str], None]
    _places: OrderedDict[str, _Place] = field(default_factory=OrderedDict)
    _listed: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    _cleaned: float = 0.0

    def judgement(self, request: m.Submit) -> Judge | None:
        """What must be judged of a shot before it is queued; it raises what Roots and Acceptance do, and looks into
        folders that may not answer. None where it is sent again, and is a job already."""
        if self.queue.having_key(request.client_key) is not None:
            return None
        shot, files = self.mapping.shot(request.shot), request.files
        if files is not None:
            shot = self.staging.located(shot, request.client_key)
        acceptance = Acceptance(expected=() if files is not None else self.queue.outputs())

        def judge() -> None:
            self.roots.check_shot(shot)
            acceptance.check(shot, sources=files is None)

        return judge

    def submit(self, request: m.Submit) -> m.Submitted:
        """Queue a shot that was judged; one with files waits for them."""
        shot = self.mapping.shot(request.shot)
        if request.files is None:
            found = self.queue.submit(shot, key=request.client_key, priority=request.priority)
            return m.Submitted(record=found.status.record, created=found.created)
        shot = self.staging.located(shot, request.client_key)
        self.roots.check_shot(shot)
        known = self.queue.having_key(request.client_key)
        if known is None or known.state is JobState.SUBMITTED:
            begun = self.staging.begin(request.client_key, request.files)
        else:  # they came and may be gone again
            begun = False
        try:
            found = self.queue.submit(shot, key=request.client_key, priority=request.priority, plate_pending=True)
        except FrescoError:
            if begun:
                self.staging.discard(request.client_key)
            raise
        return m.Submitted(record=found.status.record, created=found.created)

    def upload(self, request: m.Upload) -> m.Uploaded:
        """How far a job's files are. Raises OutputError for one that has come, and that the disk refuses."""
        self.tend()
        status = self.queue.status(request.job)
        if status.state is not JobState.SUBMITTED:
            return m.Uploaded(record=status.record, held=(), whole=0, wrong=())
        self.staging.look_again(status.key)
        upload = self.staging.of(status.key)
        return m.Uploaded(record=status.record, held=tuple(upload.held[file.name] for file in upload.manifest.files),
                          whole=len(upload.whole), wrong=tuple(sorted(upload.wrong)))

    def put(self, request: m.PutChunk) -> m.ChunkKept:
        """Keep a chunk."""
        status = self.queue.status(request.job)
        upload = self.staging.of(status.key)
        if status.state is not JobState.SUBMITTED and request.name not in upload.whole:
            raise JobRefused(f"a {status.state.value} job takes no files", where=f"job {request.job}",
                             remedy="Submit it again with a fresh key.")
        chunk = Chunk(request.name, request.offset, request.sha256, request.data)
        return m.ChunkKept(held=self.staging.take(status.key, chunk))

    def list_delivery(self, request: m.ListDelivery) -> m.DeliveryListed:
        """Files of a delivery; the checksum of each as soon as it is reckoned."""
        status = self.queue.status(request.job)
        if request.skip == 0 or request.job not in self._listed:
            self._listed = {request.job: self._files(status)}
        paths = self._listed[request.job]
        found = map(self._file, paths[request.skip:request.skip + request.limit])
        return m.DeliveryListed(record=status.record, files=tuple(file for file in found if file), total=len(paths))

    def get(self, request: m.GetChunk) -> m.ChunkGiven:
        """A chunk of a delivered file. Raises PathRefused for a file that is not the delivery's."""
        place = self._place(self.queue.status(request.job))
        if not place.has(request.name):
            raise PathRefused("the delivery of this job has no such file", where=request.name,
                              remedy="Ask for its files first.")
        path = place.folder / request.name
        self.roots.check_file(path)
        try:
            with open_regular(path, "rb") as file:
                size = file.seek(0, 2)
                file.seek(min(request.offset, size))
                data = file.read(LARGEST_CHUNK)
        except OSError as error:
            raise InputError(f"it cannot be read: {error.strerror}", where=path) from error
        if not data:
            raise InputError(f"it has {size} bytes, and none from byte {request.offset} on", where=path,
                             remedy="Ask for the delivery's files again: this one has changed.")
        return m.ChunkGiven(offset=request.offset, size=size, sha256=hashlib.sha256(data).hexdigest(), data=data)

    def discard(self, request: m.Discard) -> m.Changed:
        """Take away what an ended job left in the server's folder."""
        status = self.queue.status(request.job)
        if status.state not in ENDED:
            raise JobRefused(f"the files of a {status.state.value} job are needed", where=f"job {request.job}",
                             remedy="Cancel it first, or wait for its end.")
        self.staging.discard(status.key)
        return m.Changed(record=status.record)

    def check_retry(self, job: str) -> None:
        """Raises JobRefused for a job whose files never came, or are gone."""
        status = self.queue.status(job)
        folder = self.staging.folder
        if status.state in ENDED and folder is not None and Path(status.output).is_relative_to(folder):
            there = status.key in self.staging.keys and self.staging.of(status.key).is_complete
            if not there:
                raise JobRefused("the files of this job are not on the server", where=f"job {job}",
                                 remedy="Submit it again with a fresh key.")

    def tend(self) -> bool:
        """Queue the jobs whose files are all there; True where one was. Raises Busy."""
        self.staging.tend()
        released = False
        for key in self.staging.waiting():
            status = self.queue.having_key(key)
            if status is not None and status.state is JobState.SUBMITTED:
                self.queue.release(status.id)
                self.say(f"job {status.id} has its files and is queued")
                released = True
            self.staging.settle(key)
        return released

    def clean(self) -> None:
        """Once in a while: take away the files of jobs that ended long ago, never came, or are forgotten."""
        if time.monotonic() < self._cleaned:
            return
        self._cleaned = time.monotonic() + CLEANED_EACH
        self.staging.look_at_the_clock()
        for key in self.staging.keys:
            status = self.queue.having_key(key)
            if status is not None and status.state in _NEEDED:
                self.staging.keep(key)
            if status is not None and status.state is JobState.SUBMITTED and is_stale(self.staging.idle_since(key)):
                status = self.queue.cancel(status.id)
            if self._is_over(status, key):
                self.say(f"the files of job {status.id if status else 'of an earlier time'} are taken away")
                self.staging.discard(key)

    def _is_over(self, status: JobStatus | None, key: str) -> bool:
        if status is None:
            return True
        if status.state is JobState.CANCELLED and not self.staging.of(key).is_complete:
            return True
        return status.state in ENDED and is_stale(max(status.ended_at or 0.0, self.staging.idle_since(key)))

    def _files(self, status: JobStatus) -> tuple[Path, ...]:
        place = self._place(status)
        try:
            return tuple(sorted(path for path in place.folder.iterdir()
                                if place.has(path.name) and path.is_file() and not path.is_symlink()))
        except OSError:  # nothing is delivered yet
            return ()

    def _file(self, path: Path) -> File | None:
        try:
            digest, size = self.checksums.of(path), path.stat().st_size
        except OSError:  # it is replaced just now, or gone
            return None
        if digest is None:
            self.checksums.ask(path)
        return File(name=path.name, size=size, sha256=digest)

    def _place(self, status: JobStatus) -> _Place:
        if status.id not in self._places:
            sequence = Path(self.queue.shot(status.id).delivery.sequence)
            staged = self.staging.folder is not None and sequence.is_relative_to(self.staging.folder)
            frames = None if staged else FramePattern.parse(sequence)
            self._places[status.id] = _Place(sequence.parent, frames, record_path(sequence).name)
            if len(self._places) > MOST_PLACES:
                self._places.popitem(last=False)
        return self._places[status.id]


