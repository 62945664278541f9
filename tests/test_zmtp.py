# SPDX-License-Identifier: Apache-2.0
"""The ZMTP client: its bytes, its limits, and its manners towards libzmq's ROUTER."""
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from fresco_protocol import zmtp
from fresco_protocol.errors import MessageMalformed, ProtocolError, ServerLost, ServerMissing
from fresco_protocol.wire import LARGEST_BODY, LARGEST_MESSAGE, MOST_PARTS
from fresco_protocol.zmtp import (
    GREETING,
    LARGEST_COMMAND,
    READY,
    Command,
    Dealer,
    Decoder,
    Greeting,
    command,
    frame,
    message,
)

Item = Greeting | Command | list[bytes]
ZmqSocket = zmq.Socket[bytes]


@pytest.fixture
def router() -> Iterator[ZmqSocket]:
    """A ROUTER with heartbeats that gives up on a peer after half a second of silence."""
    made: ZmqSocket = zmq.Context.instance().socket(zmq.ROUTER)
    for option, value in ((zmq.HEARTBEAT_IVL, 50), (zmq.HEARTBEAT_TIMEOUT, 500), (zmq.LINGER, 0),
                          (zmq.ROUTER_MANDATORY, 1), (zmq.RCVTIMEO, 5000)):
        made.setsockopt(option, value)
    made.bind("tcp://127.0.0.1:*")
    yield made
    made.close()


def address(router: ZmqSocket) -> str:
    found: str = router.getsockopt_string(zmq.LAST_ENDPOINT)
    return found


def received(dealer: Dealer, seconds: float = 5) -> list[bytes]:
    """The next message."""
    deadline = time.monotonic() + seconds
    while (parts := dealer.receive()) is None:
        assert time.monotonic() < deadline
        dealer.wait(0.2)
    return parts


def settle(dealer: Dealer, seconds: float) -> None:
    """Does for a while what a host's timer does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert dealer.receive() is None
        dealer.wait(0.02)


def taken(data: bytes, cuts: tuple[int, ...] = ()) -> list[Item]:
    """What a decoder makes of bytes that come in pieces."""
    decoder, items = Decoder(), []
    for begin, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
        decoder.feed(data[begin:end])
        while (item := decoder.take()) is not None:
            items.append(item)
    return items


def test_the_bytes_are_those_of_the_standard() -> None:
    assert len(GREETING) == 64
    assert GREETING[:12] == b"\xff\0\0\0\0\0\0\0\0\x7f\x03\x00"
    assert GREETING[12:33] == b"NULL" + bytes(17)
    assert READY == b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
    assert message([b"a", b""]) == b"\x01\x01a\x00\x00"
    assert frame(bytes(256)) == b"\x02" + struct.pack(">Q", 256) + bytes(256)


def test_messages_travel_both_ways_whole(router: ZmqSocket) -> None:
    dealer = Dealer(address(router))
    parts = [b"", b"x" * 255, b"y" * 256, b"z" * (3 * 2**20)]
    dealer.send(parts)  # before the connection stands
    deadline = time.monotonic() + 5
    while not router.poll(10):
        assert time.monotonic() < deadline
        assert dealer.receive() is None
        dealer.wait(0.01)
    identity, *arrived = router.recv_multipart()
    assert arrived == parts
    router.send_multipart([identity, *parts])
    assert received(dealer) == parts
    for index in range(100):
        router.send_multipart([identity, b"%d" % index])
    assert [received(dealer) for _ in range(100)] == [[b"%d" % index] for index in range(100)]
    dealer.close()
    dealer.close()


def test_heartbeats_are_answered(router: ZmqSocket) -> None:
    dealer = Dealer(address(router))
    dealer.send([b"hello"])
    settle(dealer, 1.2)  # twice the time after which the router gives up
    identity, hello = router.recv_multipart()
    router.send_multipart([identity, b"still there"])
    assert (hello, received(dealer)) == (b"hello", [b"still there"])
    dealer.close()


def test_a_host_that_does_not_answer_is_dropped_and_told(router: ZmqSocket) -> None:
    dealer = Dealer(address(router))
    settle(dealer, 0.2)
    time.sleep(1.0)
    with pytest.raises(ServerLost):
        settle(dealer, 2)
    dealer.close()


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken_port:
        endpoint = f"tcp://127.0.0.1:{taken_port.getsockname()[1]}"
    with pytest.raises(ServerMissing, match="ECONNREFUSED") as caught:
        settle(Dealer(endpoint), 2)
    assert caught.value.where == endpoint


class Peer:
    """The other side of a Dealer, by hand."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.dealer = Dealer(f"tcp://127.0.0.1:{server.getsockname()[1]}")
            self.socket, _ = server.accept()
        self.socket.settimeout(5)

    def heard(self, size: int) -> bytes:
        """The next bytes that the dealer sent."""
        self.dealer.receive()
        data = b""
        while len(data) < size:
            data += self.socket.recv(size - len(data))
        return data


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.dealer.close()
    made.socket.close()


def test_a_ping_is_answered_with_its_context_even_inside_a_message(peer: Peer) -> None:
    peer.socket.sendall(GREETING + READY + frame(b"one", 1) + command(b"PING", b"\0\x0acontext") + frame(b"two"))
    assert received(peer.dealer) == [b"one", b"two"]
    pong = command(b"PONG", b"context")
    assert peer.heard(len(GREETING + READY + pong)) == GREETING + READY + pong


@pytest.mark.parametrize(("data", "kind", "what"), [
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", MessageMalformed, "does not speak ZeroMQ"),
    (b"\xff" + bytes(8) + b"\x7f\x01", MessageMalformed, "version 1 of ZMTP"),
    (GREETING.replace(b"NULL\0", b"CURVE"), ProtocolError, "asks for CURVE"),
    (GREETING + message([b"too early"]), MessageMalformed, "before READY"),
    (GREETING + command(b"ERROR", b"\x03no!"), ProtocolError, "no!"),
    (GREETING + READY + READY, MessageMalformed, "out of place"),
    (GREETING + READY + b"\x08\x00", MessageMalformed, "flags 0x08"),
    (GREETING + READY + b"\x05\x00", MessageMalformed, "flags 0x05"),
    (GREETING + READY + b"\x04\x00", MessageMalformed, "without its name"),
    (GREETING + READY + b"\x04\x02\x05x", MessageMalformed, "without its name"),
    (GREETING + READY + b"\x02" + struct.pack(">Q", LARGEST_BODY + 1), MessageMalformed, "a frame of 4194305 bytes"),
    (GREETING + READY + b"\x02" + b"\xff" * 8, MessageMalformed, "a frame of"),
    (GREETING + READY + b"\x06" + struct.pack(">Q", LARGEST_COMMAND + 1), MessageMalformed, "a frame of"),
    (GREETING + READY + b"\x01\x00" * (MOST_PARTS + 1), MessageMalformed, "more than 8 parts"),
])
def test_what_no_peer_may_send(peer: Peer, data: bytes, kind: type[ProtocolError], what: str) -> None:
    peer.socket.sendall(data)
    with pytest.raises(ProtocolError, match=what) as caught:
        received(peer.dealer)
    assert type(caught.value) is kind


def test_a_message_of_many_large_frames_is_refused_before_it_is_whole() -> None:
    decoder = Decoder()
    decoder.feed(GREETING)
    assert decoder.take() == Greeting((3, 0), "NULL")
    for _ in range(LARGEST_MESSAGE // LARGEST_BODY):
        decoder.feed(frame(bytes(LARGEST_BODY), 1))
        assert decoder.take() is None
    decoder.feed(frame(b"x", 1))
    with pytest.raises(MessageMalformed, match="8388608 bytes"):
        decoder.take()


def test_a_peer_that_takes_nothing_does_not_fill_the_memory(peer: Peer) -> None:
    peer.socket.sendall(GREETING + READY)
    with pytest.raises(ServerLost, match="takes nothing more"):
        for _ in range(100):
            peer.dealer.send([bytes(LARGEST_BODY)])
            peer.dealer.receive()


def test_a_peer_that_never_pauses_does_not_keep_its_caller(peer: Peer) -> None:
    peer.socket.sendall(GREETING + READY)

    def flood() -> None:
        end = time.monotonic() + 2
        with suppress(OSError):
            while time.monotonic() < end:
                peer.socket.sendall(1000 * command(b"PING", b"\0\0"))

    def drain() -> None:  # else the answers fill the memory, which is refused
        with suppress(OSError):
            while peer.socket.recv(1 << 20):
                pass

    threads = [threading.Thread(target=work) for work in (flood, drain)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        assert peer.dealer.receive() is None
    assert time.monotonic() - began < 1.5
    peer.dealer.close()
    for thread in threads:
        thread.join(5)


def test_what_is_left_of_a_flood_is_not_waited_for(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmtp, "MOST_AT_ONCE", 5)
    peer.socket.sendall(GREETING + READY + 20 * command(b"PING", b"\0\0") + message([b"at last"]))
    began = time.monotonic()
    while (parts := peer.dealer.receive()) is None:
        peer.dealer.wait(2)
    assert parts == [b"at last"]
    assert time.monotonic() - began < 1


def test_a_connection_that_ends_is_lost(peer: Peer) -> None:
    peer.socket.sendall(GREETING + READY + message([b"last words"]))
    peer.socket.close()
    assert received(peer.dealer) == [b"last words"]
    with pytest.raises(ServerLost, match=r"closed|broke"):
        settle(peer.dealer, 2)


STREAM = GREETING + READY + message([b"a", b"b" * 300]) + command(b"PING", b"\0\1x") + message([b""])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=6).map(sorted))
def test_it_does_not_matter_how_the_bytes_are_cut(cuts: list[int]) -> None:
    assert taken(STREAM, tuple(cuts)) == [
        Greeting((3, 0), "NULL"), Command(b"READY", READY[8:]), [b"a", b"b" * 300], Command(b"PING", b"\0\1x"), [b""]]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b"", GREETING, GREETING + READY]), st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_give_items_or_malformed(start: bytes, data: bytes, cut: int) -> None:
    whole = start + data
    try:
        items = taken(whole, (min(cut, len(whole)),))
    except MessageMalformed:
        return
    assert all(isinstance(item, (Greeting, Command, list)) for item in items)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(STREAM) - 1), st.integers(0, 255))
def test_one_wrong_byte_gives_items_or_malformed(position: int, value: int) -> None:
    try:
        taken(STREAM[:position] + bytes((value,)) + STREAM[position + 1:])
    except MessageMalformed:
        return
