# SPDX-License-Identifier: Apache-2.0
"""The verbs of Fresco: what hosts ask, and what the server replies; each request stands below its reply.

Message
├── Request[R]      answered by the reply R, or by Failed
├── Reply
└── Event           what the server tells unasked: `events.py`

Each is a frozen noun that checks its values; protocol/README.md has them in a table. Times are seconds since 1970 UTC.
"""
from __future__ import annotations

import secrets
from typing import Annotated, Any, ClassVar, Generic, Optional, TypeVar, cast, get_args

from fresco_protocol.document import Rule, noun, within
from fresco_protocol.files import Chunk, Digest, File, FileName, Files
from fresco_protocol.frame_range import FrameNumber
from fresco_protocol.job import ClientKey, Count, Job, JobId, JobState, Priority, Problem, Seconds, Worker
from fresco_protocol.look import Text
from fresco_protocol.shot import Shot

Portion = Annotated[int, within(1, 1000)]
Pixels = Annotated[int, within(1, 1_000_000)]
Size = Annotated[tuple[Pixels, ...], Rule("that are width and height", lambda size: len(size) == 2)]
Jpeg = Annotated[bytes, Rule("that begins as a JPEG image does", lambda data: data[:2] == b"\xff\xd8")]


class Message:
    """Anything that goes over the wire. blobs: the fields that travel as bytes beside the body, in order."""

    blobs: ClassVar[tuple[str, ...]] = ()


class Reply(Message):
    """What the server answers to one request."""


R_co = TypeVar("R_co", bound=Reply, covariant=True)


class Request(Message, Generic[R_co]):
    """What a client asks; sent twice, the second one changes nothing."""

    @classmethod
    def answer(cls) -> type[R_co]:
        """The class of the reply when all goes well."""
        return cast("type[R_co]", get_args(cast(Any, cls).__orig_bases__[0])[0])


@noun
class Welcome(Reply):
    """The server speaks this version. shot_schema: of the shots it reads. heartbeat: seconds between two Alive."""

    software: Text
    pid: Count
    shot_schema: Count
    heartbeat: Annotated[float, within(0.01, 3600)]


@noun
class Hello(Request[Welcome]):
    """The first request of a connection. software: who asks, such as "fresco-blender 0.1.0 (Blender 5.2.3)"."""

    software: Text


@noun
class Submitted(Reply):
    """The job is on the disk. created: False if a job with this client key was there already."""

    record: Job
    created: bool


@noun
class Submit(Request[Submitted]):
    """Queues a shot, whose paths are absolute. client_key: from fresh_key(), once for each job that is wanted.

    files: that follow in chunks, each with its checksum; the job waits for them. Then paths may be `staged:` ones, and
    the delivery's is. None: the server reads the client's disk.
    """

    shot: Shot
    client_key: ClientKey
    priority: Priority = 0
    files: Optional[Files] = None


@noun
class Jobs(Reply):
    """Live jobs in the order in which they run, then ended ones, the newest first; perhaps fewer than the limit.

    total: without skip and limit.
    """

    records: tuple[Job, ...]
    total: Count


@noun
class ListJobs(Request[Jobs]):
    """Asks for the jobs in these states; None is all. limit: of one reply, which keeps the others waiting."""

    states: Optional[tuple[JobState, ...]] = None
    skip: Count = 0
    limit: Portion = 100


@noun
class JobShown(Reply):
    """One job with its shot."""

    record: Job
    shot: Shot


@noun
class ShowJob(Request[JobShown]):
    """Asks for a job and its shot, to do it again with changes."""

    job: JobId


@noun
class Watching(Reply):
    """Durable events after number `since` follow. journal: names the numbering."""

    since: Count
    journal: Text


@noun
class Watch(Request[Watching]):
    """Asks for events after number `since` of this journal, of one job or of all; replaces the connection's watch."""

    since: Count = 0
    journal: Optional[Text] = None
    job: Optional[JobId] = None


@noun
class Changed(Reply):
    """The job as it stands now."""

    record: Job


@noun
class Cancel(Request[Changed]):
    """Ends a job; whole frames stay."""

    job: JobId


@noun
class Pause(Request[Changed]):
    """Sets a job aside; its device does other work."""

    job: JobId


@noun
class Resume(Request[Changed]):
    """Queues a paused job; it goes on where it stopped."""

    job: JobId


@noun
class Retry(Request[Changed]):
    """Queues a failed or cancelled job; finished windows and frames are kept."""

    job: JobId


@noun
class SetPriority(Request[Changed]):
    """Moves a job in the queue: the higher priority runs first, then the one submitted first."""

    job: JobId
    priority: Priority


@noun
class Move(Request[Changed]):
    """Puts a waiting job directly before another one, whose priority it takes."""

    job: JobId
    before: JobId


@noun
class Lines(Reply):
    """Lines of a log. next: the `since` of the next request."""

    lines: tuple[str, ...]
    next: Count


@noun
class Logs(Request[Lines]):
    """Asks for log lines from number `since` on; job: None is the server's own log."""

    job: Optional[JobId] = None
    since: Count = 0
    limit: Portion = 1000


@noun
class PreviewImage(Reply):
    """The latest preview of a job."""

    job: JobId
    frame: FrameNumber
    step: Count
    steps: Count
    width: Pixels
    height: Pixels
    jpeg: Jpeg

    blobs = ("jpeg",)


@noun
class Preview(Request[PreviewImage]):
    """Asks for the latest preview of a running job."""

    job: JobId


@noun
class Uploaded(Reply):
    """How far an upload is. held: bytes that are there of each file, in the order of the submit. whole: files that are
    there and are what their checksums say. wrong: those that were not, and begin anew.
    """

    record: Job
    held: tuple[Count, ...]
    whole: Count
    wrong: tuple[FileName, ...]


@noun
class Upload(Request[Uploaded]):
    """Asks how far the upload of a job's files is."""

    job: JobId


@noun
class ChunkKept(Reply):
    """The chunk is there. held: bytes of its file that are."""

    held: Count


@noun
class PutChunk(Request[ChunkKept]):
    """Sends a part of a file. offset: of its first byte; every byte before it is there. sha256: of the part."""

    job: JobId
    name: FileName
    offset: Count
    sha256: Digest
    data: Chunk

    blobs = ("data",)


@noun
class DeliveryListed(Reply):
    """Files of a job's delivery that are whole by now, in order; perhaps fewer than the limit. total: of them all."""

    record: Job
    files: tuple[File, ...]
    total: Count


@noun
class ListDelivery(Request[DeliveryListed]):
    """Asks for the files of a job's delivery."""

    job: JobId
    skip: Count = 0
    limit: Portion = 1000


@noun
class ChunkGiven(Reply):
    """A part of a file. sha256: of the part. size: of the file."""

    offset: Count
    size: Count
    sha256: Digest
    data: Chunk

    blobs = ("data",)


@noun
class GetChunk(Request[ChunkGiven]):
    """Asks for the part of a delivered file that begins at `offset`."""

    job: JobId
    name: FileName
    offset: Count


@noun
class Discard(Request[Changed]):
    """Deletes what a job that has ended left in the server's own folder: uploaded files, and their delivery."""

    job: JobId


@noun
class ServerStatus(Reply):
    """How the server is. roots: folders that it may read and write. last: number of the last durable event."""

    software: Text
    pid: Count
    started: Seconds
    workers: tuple[Worker, ...]
    queued: Count
    running: Count
    paused: Count
    roots: tuple[Text, ...]
    last: Count


@noun
class Status(Request[ServerStatus]):
    """Asks how the server is."""


@noun
class Models(Reply):
    """Names that a look may give to its model, LoRAs, autoencoder and ControlNets, by what they are for."""

    models: tuple[Text, ...]
    loras: tuple[Text, ...]
    autoencoders: tuple[Text, ...]
    controlnets: tuple[Text, ...]


@noun
class ListModels(Request[Models]):
    """Asks for what lies on the server's machine; whether each is whole is told when a job needs it."""


@noun
class Stopping(Reply):
    """The server ends; its queue goes on at its next start."""


@noun
class Stop(Request[Stopping]):
    """Ends the server. at_once: do not finish the running step."""

    at_once: bool = False


@noun
class Failed(Reply):
    """The request was not carried out."""

    problem: Problem


def fresh_key() -> str:
    """A client key that no other job has; also the id of a request."""
    return secrets.token_hex(16)
