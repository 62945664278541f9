# SPDX-License-Identifier: Apache-2.0
"""The wire: the way there and back, its limits, and that nothing but a message or a ProtocolError comes out of it."""
import copy
import hashlib
import hmac
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verbs import EXAMPLES, JPEG, SHOT

from fresco_protocol import wire
from fresco_protocol.errors import MessageMalformed, MessageRefused, ProtocolError, VersionMismatch
from fresco_protocol.events import Alive, Previewed
from fresco_protocol.messages import Lines, Message, Request, Status, Submit
from fresco_protocol.seal import ReplayGuard, Stamp, sign
from fresco_protocol.wire import NAMES, decode, encode

TOKEN = "0123456789abcdef" * 4
ID = "f" * 32
PAGE = (Path(__file__).parents[1] / "protocol" / "README.md").read_text(encoding="utf-8")
IDS = [type(example).__name__ for example in EXAMPLES]


def sealed(header: bytes, body: bytes, *blobs: bytes) -> list[bytes]:
    """The parts of anything, with the right signature."""
    stamp = Stamp.fresh().to_bytes()
    return [header, stamp, sign(TOKEN, [header, stamp, body, *blobs]), body, *blobs]


def header(type: str = "request.status", id: str | None = ID, version: object = wire.WIRE_VERSION) -> bytes:
    return json.dumps({"wire": version, "type": type, "id": id}).encode()


@pytest.mark.parametrize("example", EXAMPLES, ids=IDS)
def test_every_message_comes_back_equal(example: Message) -> None:
    id = ID if isinstance(example, Request) else None
    parts = encode(example, TOKEN, id=id)
    assert decode(parts, TOKEN) == (example, id)
    assert len(parts) == 4 + len(example.blobs)


def test_the_form_is_that_of_the_page() -> None:
    stamp = Stamp(bytes(range(16)), 1_700_000_000_000)
    picture = Previewed(number=1, time=2, job="job-0001", frame=3, step=4, steps=5, width=6, height=7, jpeg=JPEG)
    parts = encode(picture, TOKEN, stamp=stamp)
    assert json.loads(parts[0]) == {"wire": 2, "type": "event.previewed", "id": None}
    assert parts[1] == bytes(range(16)) + (1_700_000_000_000).to_bytes(8, "big")
    assert json.loads(parts[3]) == {"number": 1, "time": 2.0, "job": "job-0001", "frame": 3, "step": 4, "steps": 5,
                                    "width": 6, "height": 7}
    assert parts[4] == JPEG
    signed = b"fresco" + b"".join(len(part).to_bytes(8, "big") + part for part in (*parts[:2], *parts[3:]))
    assert parts[2] == hmac.new(TOKEN.encode(), signed, hashlib.sha256).digest()


def test_the_limits_are_those_of_the_page() -> None:
    rows = ("| parts", "| header | 1", "| body, blob")
    table = " ".join(line for line in PAGE.splitlines() if line.startswith(rows))
    assert re.findall(r"\d[\d,]*", table) == ["8", "4", "8", "1", "16", "4", "200,000"]
    assert (wire.MOST_PARTS, wire.MOST_BLOBS, wire.LARGEST_MESSAGE) == (8, 4, 8 * 2**20)
    assert (wire.LARGEST_HEADER, wire.DEEPEST, wire.LARGEST_BODY, wire.MOST_VALUES) == (1024, 16, 4 * 2**20, 200_000)
    assert f"version {wire.WIRE_VERSION}." in PAGE


@pytest.mark.parametrize("part", range(5))
@pytest.mark.parametrize("position", [0, -1])
def test_no_bit_can_be_turned(part: int, position: int) -> None:
    parts = encode(EXAMPLES[IDS.index("Previewed")], TOKEN)
    turned = bytearray(parts[part])
    turned[position] ^= 1
    with pytest.raises(MessageRefused):
        decode([*parts[:part], bytes(turned), *parts[part + 1:]], TOKEN)


def test_no_byte_can_move_from_one_part_to_the_next_and_no_other_token_signs() -> None:
    parts = encode(EXAMPLES[IDS.index("Previewed")], TOKEN)
    with pytest.raises(MessageRefused):
        decode([*parts[:3], parts[3] + parts[4][:1], parts[4][1:]], TOKEN)
    with pytest.raises(MessageRefused):
        decode(parts, TOKEN[::-1])


def test_a_message_counts_once() -> None:
    guard = ReplayGuard()
    parts = encode(Status(), TOKEN, id=ID)
    assert decode(parts, TOKEN, guard=guard).message == Status()
    with pytest.raises(MessageRefused, match="sent before") as caught:
        decode(parts, TOKEN, guard=guard)
    assert caught.value.request is None
    decode(encode(Status(), TOKEN, id=ID), TOKEN, guard=guard)


def test_a_stranger_does_not_fill_the_guards_memory() -> None:
    guard = ReplayGuard(capacity=1)
    stamp = Stamp.fresh()
    with pytest.raises(MessageRefused, match="signature"):
        decode(encode(Status(), "another token" * 3, id=ID, stamp=stamp), TOKEN, guard=guard)
    decode(encode(Status(), TOKEN, id=ID, stamp=stamp), TOKEN, guard=guard)


@pytest.mark.parametrize(("version", "id", "kind", "what", "upgrade"), [
    (3, ID, "request.hello", "the client speaks version 3 of the wire, this server version 2", "server"),
    (1, ID, "request.unheard-of", "the client speaks version 1 of the wire, this server version 2", "client"),
    (3, ID, "reply.welcome", "the server speaks version 3 of the wire, this client version 2", "client"),
    (1, None, "event.alive", "the server speaks version 1 of the wire, this client version 2", "server"),
])
def test_versions_say_which_side_to_upgrade(version: int, id: str | None, kind: str, what: str, upgrade: str) -> None:
    with pytest.raises(VersionMismatch) as caught:
        decode(sealed(header(kind, id, version), b"whatever that version writes"), TOKEN)
    assert (caught.value.what, caught.value.remedy) == (what, f"Upgrade the {upgrade}.")
    assert caught.value.request == (id if kind.startswith("request") else None)


@pytest.mark.parametrize(("parts", "what", "answered"), [
    (sealed(header(), b"{}", b"a blob too many"), "1 blobs; request.status has 0", True),
    (sealed(header("event.previewed", None), b"{}"), "0 blobs; event.previewed has 1", False),
    (sealed(header("request.sing"), b"{}"), "an unknown type of message: 'request.sing'", True),
    (sealed(header(id=None), b"{}"), "a request without an id", False),
    (sealed(header(id="../../etc/passwd"), b"{}"), "an id that is not 32 hex digits", False),
    (sealed(header(version="1"), b"{}"), 'found "1"', False),
    (sealed(header(version=True), b"{}"), "found true", False),
    (sealed(b"{}", b"{}"), "found nothing", False),
    (sealed(b"[]", b"{}"), "a part that is not one JSON object", False),
    (sealed(header(), b""), "a part that is not one JSON object", True),
    (sealed(header(), b"{} {}"), "a part that is not one JSON object", True),
    (sealed(header(), b"\xff\xfe{\0}\0"), "a part that is not one JSON object", True),
    (sealed(header(), b'{"a":1}'), "found an unknown key", True),
    (sealed(header("request.cancel"), b'{"job":"job-0001","job":"job-0002"}'), "a part that is not one JSON", True),
    (sealed(header("request.cancel"), b'{"job":17}'), "found 17", True),
    (sealed(header("reply.welcome"), b'{"software":"s","pid":1,"shot_schema":1,"heartbeat":NaN}'), "found NaN", False),
    (sealed(header("reply.welcome"), b'{"software":"s","pid":1,"shot_schema":1,"heartbeat":1e999}'), "found I", False),
    (sealed(header(), b'{"a":' * 17 + b"1" + b"}" * 17), "JSON deeper than 16", True),
    (sealed(header(), b'{"a":' + b"[" * 100_000), "JSON deeper than 16", True),
    (sealed(header(), b'{"a":' + b"9" * 41 + b"}"), "a number of more than 40 characters", True),
    (sealed(header(), b'{"a":[' + b"0," * 200_000 + b"0]}"), "more than 200000 values", True),
    (sealed(header(), b'{"' + b"a" * 100_000 + b'":1}'), "found an unknown key", True),
    ([b""] * 3, "a message of 3 parts", False),
    ([b""] * 9, "a message of 9 parts", False),
    ([b"", b"", b"", b" " * (2**22 + 1)], "4194305 bytes in part 4", False),
    ([b" " * 1025, b"", b"", b""], "1025 bytes in part 1", False),
    ([b"", b"", b"", b" " * 2**22, b" " * 2**22, b" "], "a message of 8388609 bytes", False),
])
def test_what_is_malformed_is_refused_and_answered_where_somebody_asks(
        parts: list[bytes], what: str, answered: bool) -> None:
    with pytest.raises(MessageMalformed) as caught:
        decode(parts, TOKEN)
    assert caught.value.what.startswith(what)
    assert len(str(caught.value)) < 2000
    assert caught.value.request == (ID if answered else None)


def test_a_mistake_in_a_shot_is_named_by_its_path() -> None:
    body = json.loads(encode(Submit(shot=SHOT, client_key="k"), TOKEN, id=ID)[3])
    body["shot"]["look"]["controls"][0]["strength"] = 7.5
    with pytest.raises(MessageMalformed) as caught:
        decode(sealed(header("request.submit"), json.dumps(body).encode()), TOKEN)
    assert str(caught.value) == ("found 7.5 (request.submit.shot.look.controls[0].strength). "
                                 "Allowed: a number from 0 to 2")


def test_what_is_beyond_the_limits_is_not_sent_either() -> None:
    with pytest.raises(MessageMalformed, match="in part 4"):
        encode(Lines(lines=("x" * 2**22,), next=1), TOKEN, id=ID)
    with pytest.raises(MessageMalformed, match="values"):
        encode(Lines(lines=("",) * 200_001, next=1), TOKEN, id=ID)


@pytest.mark.parametrize("body", [
    b'"' + b'\\"' * 2_000_000, b'"' + b'\\"' * 2_000_000 + b"\\", b'"' * 4_000_000, b"]" * 4_000_000,
    b'{"a":"' + b"x" * 4_000_000 + b'"}', b'{"a":' + b"e" * 4_000_000,
], ids=["open text", "open escape", "quotes", "closing", "long text", "long word"])
def test_no_body_takes_long(body: bytes) -> None:
    parts = sealed(header(), body)
    begin = time.process_time()
    with pytest.raises(MessageMalformed):
        decode(parts, TOKEN)
    assert time.process_time() - begin < 2


PROPERTY = settings(max_examples=200, deadline=None)
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                      lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
                      max_leaves=6)


def message_or_protocol_error(parts: list[bytes]) -> Message | None:
    """The message; None for a ProtocolError. Anything else that is raised fails the test."""
    try:
        return decode(parts, TOKEN, guard=ReplayGuard()).message
    except ProtocolError as error:
        assert error.request in (None, ID)
        assert str(error)
        return None


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, below in inner for place in places(below, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with something else at the path."""
    if not path:
        return new
    whole = copy.deepcopy(value)
    inner = whole
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return whole


@PROPERTY
@given(st.lists(st.binary(max_size=64), max_size=10))
def test_any_bytes_give_a_protocol_error(parts: list[bytes]) -> None:
    assert message_or_protocol_error(parts) is None


@PROPERTY
@given(st.sampled_from(sorted(NAMES.values())) | st.text(max_size=12), st.binary(max_size=64),
       st.lists(st.binary(max_size=8), max_size=5))
def test_any_signed_body_gives_a_message_or_a_protocol_error(kind: str, body: bytes, blobs: list[bytes]) -> None:
    message_or_protocol_error(sealed(header(kind), body, *blobs))


@PROPERTY
@given(st.sampled_from(EXAMPLES), st.data())
def test_a_valid_message_with_a_foreign_value_gives_a_message_or_a_protocol_error(example: Message,
                                                                                  data: st.DataObject) -> None:
    head, _, _, body, *blobs = encode(example, TOKEN, id=ID)
    document = json.loads(body)
    mutant = changed(document, data.draw(st.sampled_from(places(document))), data.draw(VALUES))
    found = message_or_protocol_error(sealed(head, json.dumps(mutant).encode(), *blobs))
    if found is not None:  # what was accepted is a message like any other
        assert decode(encode(found, TOKEN, id=ID), TOKEN).message == found


@PROPERTY
@given(st.sampled_from(EXAMPLES), st.data())
def test_a_valid_message_with_bytes_changed_gives_a_message_or_a_protocol_error(example: Message,
                                                                                data: st.DataObject) -> None:
    parts = encode(example, TOKEN, id=ID)
    which = data.draw(st.sampled_from([0, *range(3, len(parts))]))
    begin = data.draw(st.integers(0, len(parts[which])))
    end = data.draw(st.integers(begin, min(len(parts[which]), begin + 8)))
    parts[which] = parts[which][:begin] + data.draw(st.binary(max_size=8)) + parts[which][end:]
    message_or_protocol_error(sealed(parts[0], *parts[3:]))


@PROPERTY
@given(st.sampled_from(EXAMPLES), st.data())
def test_parts_lost_doubled_or_swapped_are_refused(example: Message, data: st.DataObject) -> None:
    parts = encode(example, TOKEN, id=ID)
    order = data.draw(st.lists(st.integers(0, len(parts) - 1), max_size=10))
    found = message_or_protocol_error([parts[index] for index in order])
    assert (found is not None) == (order == list(range(len(parts))))


def test_events_need_no_id() -> None:
    assert decode(encode(Alive(number=1, time=2), TOKEN), TOKEN).id is None
