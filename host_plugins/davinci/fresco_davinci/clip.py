# SPDX-License-Identifier: Apache-2.0
"""Clips of a Resolve timeline and what is wanted of them, in numbers that outlive Resolve's objects.

No call of Resolve stands here. Timeline frames are absolute: a timeline that starts at 01:00:00:00 and 24 fps has 86400
as its first one. "Part" and "playhead" count the clip's own frames from 1.
"""
from __future__ import annotations

import re
from enum import Enum
from typing import Annotated, Optional

from fresco_protocol.document import FILLED, noun, within
from fresco_protocol.errors import ShotError
from fresco_protocol.job import Count
from fresco_protocol.messages import Jpeg, Size
from fresco_protocol.shot import FrameRange, Look, Matte, Plate, Rate, Shot, Task

Text = Annotated[str, FILLED]
FrameNumber = Annotated[int, within(-99_999_999, 99_999_999)]
Position = Annotated[int, within(1, 10_000_000)]


class Input(Enum):
    """Which picture of the clip becomes the plate."""

    GRADED = "graded"  # rendered by Resolve: retime, grade and effects are in it
    SOURCE = "source"  # the media itself: the look lies under the grade, and handles are possible


class Destination(Enum):
    """Where the result goes."""

    TRACK = "track"  # a clip on a track named FRESCO, above everything
    TAKE = "take"  # a take of the clip itself
    POOL = "pool"  # the media pool only


class MatteSource(Enum):
    """Where Resolve has the matte."""

    CLIP = "clip"  # the matte that is attached to the clip in the media pool
    TRACK = "track"  # a video track that shows black and white
    ALPHA = "alpha"  # the clip's own alpha, rendered as ProRes 4444


class Phase(Enum):
    """What happens to a clip now."""

    WAITING = "waiting"
    EXTRACTING = "extracting"
    QUEUED = "queued"
    RENDERING = "rendering"
    PLACING = "placing"


@noun
class Media:
    """The file or sequence behind a clip.

    path: movie, or pattern such as "shot.%04d.exr". first, last: Resolve's own numbers of its frames, inclusive.
    """

    path: Text
    sequence: bool
    first: FrameNumber
    last: FrameNumber
    rate: Rate
    size: Optional[Size] = None
    color_space: Optional[Text] = None

    @property
    def count(self) -> int:
        """How many frames it has."""
        return int(self.last - self.first + 1)

    def frame(self, offset: int) -> int:
        """The number by which Fresco knows the frame `offset` frames after the first: movies count from 1."""
        return offset + (self.first if self.sequence else 1)


@noun
class Clip:
    """One clip on a video track.

    timeline, item: Resolve's unique ids. first, count: where it lies, timeline frames. size: of the timeline, pixels.
    media: None for titles, generators and compound clips. head, tail: frames of the media before and after the clip.
    steady: the media's frames are shown one by one, in order. playhead: its position in the clip, if it stands there.
    """

    timeline: Text
    timeline_name: Text
    project: str
    item: Text
    name: str
    track: Position
    first: FrameNumber
    count: Position
    rate: Rate
    drop_frame: bool
    size: Size
    space: Optional[Text]
    media: Optional[Media]
    head: int
    tail: int
    steady: bool
    playhead: Optional[Position] = None


@noun
class MatteChoice:
    """The matte that is wanted. track: number of the video track, for MatteSource.TRACK only."""

    source: MatteSource
    track: Optional[Position] = None
    invert: bool = False

    def __post_init__(self) -> None:
        if (self.track is None) is (self.source is MatteSource.TRACK):
            raise ShotError("track", str(self.track), 'the number of a video track when source is "track", else none')


@noun
class Wish:
    """What is wanted of a clip.

    part: frames of the clip, counted from 1; None is all. handles: extra frames at both ends, for Input.SOURCE.
    destination: None places nothing: a still to look at. folder: where results go; None is Fresco in the home folder.
    color_space: of the plate, where Resolve's own word cannot be understood.
    """

    look: Look
    task: Task = Task.TRANSLATE
    input: Input = Input.GRADED
    destination: Optional[Destination] = Destination.TRACK
    matte: Optional[MatteChoice] = None
    part: Optional[FrameRange] = None
    handles: Annotated[int, within(0, 1000)] = 0
    folder: Optional[Text] = None
    color_space: Optional[Text] = None

    def range_in(self, clip: Clip) -> FrameRange:
        """The wanted frames of a clip, counted from 1."""
        return self.part or FrameRange(first=1, last=clip.count)


@noun
class Extraction:
    """A plate on the disk, and the matte that goes with it."""

    plate: Plate
    matte: Optional[Matte] = None


@noun
class Result:
    """Delivered frames. sequence: their pattern. first, last: their numbers; head: how many of them are handles."""

    sequence: Text
    first: FrameNumber
    last: FrameNumber
    head: Count
    version: Position
    record: Text

    @property
    def count(self) -> int:
        """How many frames there are, handles included."""
        return self.last - self.first + 1


@noun
class Record:
    """What was done to a clip; lies beside the result as fresco.json, and the clip's marker names it, for redo.

    placed: unique id of the timeline item that shows the result; None while there is none.
    """

    clip: Clip
    wish: Wish
    version: Position
    folder: Text
    job: Optional[Text] = None
    shot: Optional[Shot] = None
    placed: Optional[Text] = None


@noun
class Progress:
    """How far a clip is. fraction: of the phase, 0 to 1. preview: a keyframe as it is denoised."""

    phase: Phase
    fraction: Annotated[float, within(0, 1)] = 0.0
    text: str = ""
    preview: Optional[Jpeg] = None


def rate_of(text: str) -> tuple[Rate, bool]:
    """The rate that Resolve writes as "29.97 DF", "29.97" or "29,97", and whether it says DF. Raises ShotError."""
    number, _, flag = text.strip().replace(",", ".").partition(" ")
    whole, _, decimals = number.partition(".")  # no rate needs more than three: 23.976023976 is 23.976
    return Rate.parse(f"{whole}.{decimals[:3]}".rstrip("0").rstrip(".") if decimals else whole), \
        flag.strip().upper() == "DF"


def rate_text(rate: Rate) -> str:
    """The rate as Resolve writes it: "24", "23.976", "29.97"."""
    return f"{rate.numerator / rate.denominator:.3f}".rstrip("0").rstrip(".")


def frames_of(timecode: str, rate: Rate, *, drop_frame: bool) -> int:
    """Frames from 00:00:00:00 to a timecode (SMPTE ST 12-1). Raises ShotError.

    Golden: 29.97 DF, 00:01:00;02 -> 1800; 01:00:00;00 -> 107892. 24, 01:00:00:00 -> 86400.
    """
    match = re.fullmatch(r"(\d+)[:;.](\d+)[:;.](\d+)[:;.,](\d+)", timecode.strip())
    if match is None:
        raise ShotError("", f'"{timecode}"', "a timecode such as 01:00:00:00")
    hours, minutes, seconds, frames = map(int, match.groups())
    nominal = round(rate.numerator / rate.denominator)
    total = 60 * hours + minutes
    dropped = nominal // 15 * (total - total // 10) if drop_frame else 0
    return (60 * total + seconds) * nominal + frames - dropped


def sequence_pattern(path: str) -> Optional[str]:
    """The pattern of a sequence that Resolve writes as "shot.[1001-1048].exr": "shot.%04d.exr"; None for one file."""
    match = re.fullmatch(r"(.*)\[(\d+)-\d+\]([^/\\]*)", path, re.DOTALL)
    return f"{match[1]}%0{len(match[2])}d{match[3]}" if match else None


def file_name(text: str) -> str:
    """The text as part of a file name on every system; "unnamed" when nothing is left of it."""
    return re.sub(r"[^\w.-]+", "_", text).strip("._")[:60] or "unnamed"
