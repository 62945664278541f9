# SPDX-License-Identifier: Apache-2.0
"""Messages <-> lists of bytes: the form, the limits and the version that protocol/README.md gives. No sockets.

Parts: header, stamp, signature, body, blobs. Whatever arrives, `decode` gives a message or raises ProtocolError.
"""
from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn, Optional, TypeVar

from fresco_protocol import events as e
from fresco_protocol import messages as m
from fresco_protocol.document import noun, parse_json, read, write
from fresco_protocol.errors import MessageMalformed, ProtocolError, ShotError, VersionMismatch
from fresco_protocol.messages import Message, Request
from fresco_protocol.seal import ReplayGuard, Stamp, sign, verify

WIRE_VERSION = 2
MOST_BLOBS = 4
MOST_PARTS = 4 + MOST_BLOBS
LARGEST_HEADER = 1024  # bytes
LARGEST_BODY = 4 * 2**20  # bytes
LARGEST_BLOB = 4 * 2**20  # bytes
LARGEST_MESSAGE = 8 * 2**20  # bytes
DEEPEST = 16  # objects and lists inside each other; a submitted shot has 6
MOST_VALUES = 200_000  # in one body: a value of two bytes takes a hundred in memory
LONGEST_NUMBER = 40  # characters: longer ones cost time that grows with their square

REQUESTS: tuple[type[Request[Any]], ...] = (
    m.Hello, m.Submit, m.ListJobs, m.ShowJob, m.Watch, m.Cancel, m.Pause, m.Resume, m.Retry, m.SetPriority, m.Move,
    m.Logs, m.Preview, m.Upload, m.PutChunk, m.ListDelivery, m.GetChunk, m.Discard, m.Status, m.ListModels,
    m.Stop)
REPLIES: tuple[type[m.Reply], ...] = (
    m.Welcome, m.Submitted, m.Jobs, m.JobShown, m.Watching, m.Changed, m.Lines, m.PreviewImage, m.Uploaded,
    m.ChunkKept, m.DeliveryListed, m.ChunkGiven, m.ServerStatus, m.Models, m.Stopping, m.Failed)
EVENTS: tuple[type[e.Event], ...] = (
    e.JobChanged, e.Planned, e.Advanced, e.Delivered, e.Warned, e.Finished, e.Waited, e.Previewed, e.Alive,
    e.WatchEnded, e.ServerStopping)


def _named(kind: str, classes: Sequence[type[Message]]) -> dict[str, type[Message]]:
    return {f"{kind}." + re.sub(r"(?<!^)(?=[A-Z])", "-", of.__name__).lower(): of for of in classes}


TYPES: dict[str, type[Message]] = {
    **_named("request", REQUESTS), **_named("reply", REPLIES), **_named("event", EVENTS)}
NAMES: dict[type[Message], str] = {of: name for name, of in TYPES.items()}

_TEXTS = re.compile(rb'"(?:[^"\\]+|\\.?)*(?:"|\Z)', re.DOTALL)  # matches from any quote on, so it never backtracks
_NUMBERS = re.compile(rb"[-+.0-9eE]{%d,}" % (LONGEST_NUMBER + 1))
_ID = re.compile(r"[0-9a-f]{32}")


class Received(NamedTuple):
    """A message whose signature was right. id: of the request it is or answers; None for events."""

    message: Message
    id: Optional[str]


@noun
class Header:
    """The first part; its keys are the same in every version of the wire."""

    wire: int
    type: str
    id: Optional[str]


N = TypeVar("N")


def encode(message: Message, token: str, *, id: Optional[str] = None, stamp: Optional[Stamp] = None) -> list[bytes]:
    """The parts of a message, signed. id: 32 hex digits, for requests and replies; stamp: None is a fresh one.

    Raises MessageMalformed for a message beyond the limits.
    """
    header = Header(wire=WIRE_VERSION, type=NAMES[type(message)], id=id)
    fields = vars(message)
    body = {name: write(value) for name, value in fields.items() if name not in message.blobs}
    blobs = [fields[name] for name in message.blobs]
    signed = [_json(write(header)), (stamp or Stamp.fresh()).to_bytes(), _json(body), *blobs]
    parts = [*signed[:2], sign(token, signed), *signed[2:]]
    _check_sizes(parts)
    if len(signed[2]) > MOST_VALUES:  # else it cannot hold too many; nouns are neither deep nor long in numbers
        _check_json(signed[2])
    return parts


def decode(parts: Sequence[bytes], token: str, *, guard: Optional[ReplayGuard] = None) -> Received:
    """The message that the parts hold. guard: refuses replays; for the server, which is asked.

    Raises MessageRefused (signature, age, replay), VersionMismatch or MessageMalformed. The error's `request` is the id
    of the request that is to be answered, if there is one.
    """
    _check_sizes(parts)
    header_part, stamp_part, signature, body, *blobs = parts
    verify(token, [header_part, stamp_part, body, *blobs], signature)
    stamp = Stamp.from_bytes(stamp_part)
    if guard is not None:
        guard.admit(stamp)
    header = _read_header(header_part)
    try:
        return Received(_read_message(header, body, blobs), header.id)
    except ProtocolError as error:
        error.request = header.id if header.type.startswith("request.") else None
        raise


def _check_sizes(parts: Sequence[bytes]) -> None:
    if not 4 <= len(parts) <= MOST_PARTS:
        raise MessageMalformed(f"a message of {len(parts)} parts; 4 to {MOST_PARTS} are allowed")
    most = [LARGEST_HEADER, LARGEST_HEADER, LARGEST_HEADER, LARGEST_BODY, *[LARGEST_BLOB] * MOST_BLOBS]
    for index, (part, largest) in enumerate(zip(parts, most)):
        if len(part) > largest:
            raise MessageMalformed(f"{len(part)} bytes in part {index + 1}; at most {largest} are allowed")
    if sum(map(len, parts)) > LARGEST_MESSAGE:
        raise MessageMalformed(f"a message of {sum(map(len, parts))} bytes; at most {LARGEST_MESSAGE} are allowed")


def _read_header(part: bytes) -> Header:
    document = _parse(part)
    version = document.get("wire")
    if type(version) is int and version != WIRE_VERSION:
        _mismatch(version, document)
    header = _read(document, Header, "header")
    if header.id is not None and _ID.fullmatch(header.id) is None:
        raise MessageMalformed("an id that is not 32 hex digits", where="header.id")
    return header


def _mismatch(version: int, document: dict[str, Any]) -> NoReturn:
    asked, id = str(document.get("type")).startswith("request."), document.get("id")
    peer, here = ("client", "server") if asked else ("server", "client")
    error = VersionMismatch(f"the {peer} speaks version {version} of the wire, this {here} version {WIRE_VERSION}",
                            remedy=f"Upgrade the {here if version > WIRE_VERSION else peer}.")
    error.request = id if asked and isinstance(id, str) and _ID.fullmatch(id) else None
    raise error


def _read_message(header: Header, body: bytes, blobs: Sequence[bytes]) -> Message:
    kind = TYPES.get(header.type)
    if kind is None:
        raise MessageMalformed(f"an unknown type of message: {header.type[:60]!r}", where="header.type")
    if issubclass(kind, Request) and header.id is None:
        raise MessageMalformed("a request without an id", where="header.id")
    fields = _parse(body)
    if len(blobs) != len(kind.blobs) or fields.keys() & set(kind.blobs):
        raise MessageMalformed(f"{len(blobs)} blobs; {header.type} has {len(kind.blobs)}", where=header.type)
    return _read({**fields, **dict(zip(kind.blobs, blobs))}, kind, header.type)


def _read(document: dict[str, Any], kind: type[N], name: str) -> N:
    try:
        found: N = read(document, kind)
    except ShotError as error:
        seen = error.inside(name)  # cut, for a key may be as long as the message
        allowed = f"Allowed: {seen.allowed[:1000]}"
        raise MessageMalformed(seen.what[:300], where=seen.path[:200], remedy=allowed) from None
    return found


def _parse(part: bytes) -> dict[str, Any]:
    _check_json(part)
    try:
        return parse_json(part.decode("utf-8"))
    except (UnicodeDecodeError, ShotError) as error:
        raise MessageMalformed(f"a part that is not one JSON object: {str(error)[:300]}") from None


def _check_json(part: bytes) -> None:
    """Checks how deep the JSON is, how many values it has and how long its numbers are, before it is parsed."""
    # without backslashes every quote begins or ends a text
    structure = _TEXTS.sub(b"", part) if b"\\" in part else b"".join(part.split(b'"')[::2])
    if max(sum(map(structure.count, (b",", b"[", b"{"))), sum(map(structure.count, (b"]", b"}")))) > MOST_VALUES:
        raise MessageMalformed(f"more than {MOST_VALUES} values in one body")
    depth = 0
    for bracket in re.finditer(rb"[\[\]{}]", structure):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > DEEPEST:
            raise MessageMalformed(f"JSON deeper than {DEEPEST}")
    if _NUMBERS.search(structure):
        raise MessageMalformed(f"a number of more than {LONGEST_NUMBER} characters")


def _json(document: dict[str, Any]) -> bytes:
    # ASCII with escapes: file names that are not UTF-8 are lone surrogates, which UTF-8 cannot carry
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")
