# SPDX-License-Identifier: Apache-2.0
"""The verbs of Fresco: what hosts ask, what the server replies, and what it tells unasked.

Message
├── Request[R]      answered by the reply R, or by Failed
├── Reply
└── Event           durable ones are numbered, kept and replayed; passing ones are not
    └── JobEvent

Each is a frozen noun that checks its values; protocol/README.md has them in a table. Times are seconds since 1970 UTC.
"""
from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Generic, Optional, TypeVar, cast, get_args

from fresco_protocol.document import Rule, noun, within
from fresco_protocol.frame_range import FrameNumber, FrameRange, Frames
from fresco_protocol.job import ClientKey, Count, Job, JobId, JobState, Priority, Problem, Seconds, Stage, Worker
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
    """Queues a shot, whose paths are absolute. client_key: from fresh_key(), once for each job that is wanted."""

    shot: Shot
    client_key: ClientKey
    priority: Priority = 0


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


@noun
class Event(Message):
    """What the server tells its watchers. number: its own; of a passing event, that of the last durable one."""

    number: Count
    time: Seconds

    durable: ClassVar[bool] = True


@noun
class JobEvent(Event):
    """An event of one job."""

    job: JobId


@noun
class JobChanged(JobEvent):
    """The job was submitted, or its state, priority or attempt changed."""

    record: Job


@noun
class Window:
    """Keyframes that are denoised together, anchors first."""

    keyframes: Frames


@noun
class Planned(JobEvent):
    """What a render will do.

    frames: to deliver; delivered: those of them that lie there finished, None if none does. keyframes, windows: None
    before the analysis. plate_size, working_size: width and height, pixels. memory_bytes, seconds: estimates for this
    device.
    """

    frames: Frames
    delivered: Optional[Frames]
    keyframes: Optional[Frames]
    windows: Optional[tuple[Window, ...]]
    plate_size: Size
    working_size: Size
    rate: Optional[Text]
    model: Text
    device: Text
    precision: Text
    seed: Count
    job_hash: Text
    scratch: Text
    memory_bytes: Optional[Count]
    seconds: Optional[Seconds]


@noun
class Advanced(JobEvent):
    """Work done in a stage: `done` of `total` units. window: 1-based, of `windows`."""

    stage: Stage
    done: Count
    total: Count
    frame: Optional[FrameNumber] = None
    window: Optional[Count] = None
    windows: Optional[Count] = None
    seconds_left: Optional[Seconds] = None


@noun
class Delivered(JobEvent):
    """One frame lies at `path`, whole. keyframe: it was denoised itself."""

    frame: FrameNumber
    path: Text
    keyframe: bool


@noun
class Warned(JobEvent):
    """Something that the user should know; the render goes on."""

    code: Text
    text: Text
    frame: Optional[FrameNumber] = None


@noun
class Finished(JobEvent):
    """All frames are delivered. rendered: by this run; reused: found finished. sidecar: path of the record."""

    rendered: Count
    reused: Count
    seconds: Seconds
    sidecar: Text
    outputs: tuple[Text, ...]


@noun
class Waited(JobEvent):
    """Another process makes a product that this job needs, such as "window.3"; said again while that lasts."""

    product: Text
    owner: Text

    durable = False


@noun
class Previewed(JobEvent):
    """A keyframe as it is denoised."""

    frame: FrameNumber
    step: Count
    steps: Count
    width: Pixels
    height: Pixels
    jpeg: Jpeg

    blobs = ("jpeg",)
    durable = False


@noun
class Alive(Event):
    """The loop that serves jobs runs."""

    durable = False


@noun
class WatchEnded(Event):
    """This watch got no events for a while; watch again from the last number."""

    durable = False


@noun
class ServerStopping(Event):
    """The server ends."""

    durable = False


REQUESTS: tuple[type[Request[Any]], ...] = (
    Hello, Submit, ListJobs, ShowJob, Watch, Cancel, Pause, Resume, Retry, SetPriority, Move, Logs,
    Preview, Status, Stop)
REPLIES: tuple[type[Reply], ...] = (
    Welcome, Submitted, Jobs, JobShown, Watching, Changed, Lines, PreviewImage, ServerStatus, Stopping, Failed)
EVENTS: tuple[type[Event], ...] = (
    JobChanged, Planned, Advanced, Delivered, Warned, Finished, Waited, Previewed, Alive, WatchEnded, ServerStopping)


def _named(kind: str, classes: Sequence[type[Message]]) -> dict[str, type[Message]]:
    return {f"{kind}." + re.sub(r"(?<!^)(?=[A-Z])", "-", of.__name__).lower(): of for of in classes}


TYPES: dict[str, type[Message]] = {
    **_named("request", REQUESTS), **_named("reply", REPLIES), **_named("event", EVENTS)}
NAMES: dict[type[Message], str] = {of: name for name, of in TYPES.items()}


def fresh_key() -> str:
    """A client key that no other job has; also the id of a request."""
    return secrets.token_hex(16)


def as_ranges(numbers: Sequence[int]) -> tuple[FrameRange, ...]:
    """Distinct frame numbers in few ranges, in the order given; `shot.frame_numbers` gives them back."""
    ranges, begin = [], 0
    while begin < len(numbers):
        length = _run(numbers, begin)
        step = numbers[begin + 1] - numbers[begin] if length > 1 else 1
        ranges.append(FrameRange(first=numbers[begin], last=numbers[begin + length - 1], step=step))
        begin += length
    return tuple(ranges)


def _run(numbers: Sequence[int], begin: int) -> int:
    """How many numbers from `begin` on ascend by one step; two that are no neighbours are no range."""
    if begin + 1 == len(numbers) or numbers[begin + 1] <= numbers[begin]:
        return 1
    step, end = numbers[begin + 1] - numbers[begin], begin + 2
    while end < len(numbers) and numbers[end] - numbers[end - 1] == step:
        end += 1
    return end - begin if end - begin > 2 or step == 1 else 1
