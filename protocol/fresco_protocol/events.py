# SPDX-License-Identifier: Apache-2.0
"""What the server tells its watchers unasked.

Event           durable ones are numbered, kept and replayed; passing ones are not
└── JobEvent

Each is a frozen noun that checks its values; protocol/README.md has them in a table. Times are seconds since 1970 UTC.
"""
from __future__ import annotations

from typing import ClassVar, Optional

from fresco_protocol.document import noun
from fresco_protocol.frame_range import FrameNumber, Frames
from fresco_protocol.job import Count, Job, JobId, Seconds, Stage
from fresco_protocol.look import Text
from fresco_protocol.messages import Jpeg, Message, Pixels, Size


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
    device. tiles: in which each picture is predicted.
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
    tiles: Count = 1


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
