# SPDX-License-Identifier: Apache-2.0
"""What the server and its workers say to each other: one JSON object a line, over the pipes of the child process.

Order (server -> worker)  Render, Halt, GoOn      a closed pipe: the server is gone, end at once
Word  (worker -> server)  Ready, Beat, Told, Halted, Done, Broken
"""
from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar

from fresco_protocol.document import noun, parse_json, read, within, write
from fresco_protocol.errors import FrescoError
from fresco_protocol.events import JobEvent
from fresco_protocol.job import Count, JobId, Problem
from fresco_protocol.look import Text
from fresco_protocol.shot import Shot
from fresco_protocol.wire import NAMES, TYPES

LONGEST_LINE = 8 * 2**20  # bytes


class Line:
    """Anything that goes through a pipe."""

    kinds: ClassVar[dict[str, type[Line]]] = {}

    def __init_subclass__(cls) -> None:
        Line.kinds[cls.__name__] = cls

    def to_bytes(self) -> bytes:
        """The line, its end included."""
        fields: Any = write(self)
        return json.dumps({"is": type(self).__name__, **fields}, separators=(",", ":")).encode("ascii") + b"\n"


@noun
class Render(Line):
    """Render this shot, which is the job's. attempt: counts from 1."""

    job: JobId
    shot: Shot
    attempt: Annotated[int, within(1, 2**31)]


@noun
class Halt(Line):
    """Stop the job after the running step, and keep what is finished."""


@noun
class GoOn(Line):
    """Take a Halt back that was not obeyed yet."""


@noun
class Ready(Line):
    """The worker has loaded its libraries and found its device. devices: all that this machine has."""

    device: Text
    devices: tuple[Text, ...]


@noun
class Beat(Line):
    """The worker lives. model: that is loaded. memory: of the device that it holds, and in all; bytes."""

    model: Text | None
    memory_bytes: Count | None
    memory_total: Count | None


@noun
class Told(Line):
    """An event of the job that is rendered; of class `type` of the protocol's, with `body` as its fields."""

    type: Text
    body: Text
    blob: str | None = None

    @classmethod
    def of(cls, event: JobEvent) -> Told:
        """The line of an event."""
        blobs = {name: getattr(event, name) for name in event.blobs}
        fields = {name: write(value) for name, value in vars(event).items() if name not in blobs}
        blob = next((data.hex() for data in blobs.values()), None)
        return cls(type=NAMES[type(event)], body=json.dumps(fields), blob=blob)

    def event(self) -> JobEvent:
        """The event of the line. Raises FrescoError when it is none."""
        kind = TYPES.get(self.type)
        if kind is None or not issubclass(kind, JobEvent):
            raise FrescoError(f"a worker told of {self.type}")
        blobs = {name: bytes.fromhex(self.blob or "") for name in kind.blobs}
        event: JobEvent = read({**json.loads(self.body), **blobs}, kind)
        return event


@noun
class Halted(Line):
    """The job was stopped in good order before its end."""


@noun
class Done(Line):
    """All frames of the job are delivered."""


@noun
class Broken(Line):
    """The render ended with this problem."""

    problem: Problem


def line_of(data: bytes) -> Line:
    """The line of its bytes. Raises FrescoError, a bug, for anything else."""
    document = parse_json(data.decode("utf-8"))
    kind = Line.kinds.get(document.pop("is", ""))
    if kind is None:
        raise FrescoError(f"a line that is none: {data[:60]!r}")
    line: Line = read(document, kind)
    return line
