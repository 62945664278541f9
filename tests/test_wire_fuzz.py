# SPDX-License-Identifier: Apache-2.0
"""Mutated messages against the wire and a server that runs; benchmarks/wire_fuzz.py does the same for longer."""
from __future__ import annotations

import random
from pathlib import Path

import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import HARMLESS, TOKEN, mutated, mutated_bytes, signed
from servers import serving
from verbs import EXAMPLES

from fresco_protocol.errors import ProtocolError
from fresco_protocol.messages import Message, Status
from fresco_protocol.wire import decode
from fresco_protocol.zmtp import Decoder


def judged(parts: list[bytes]) -> Message | None:
    """The message, or None where the wire refuses it; any other exception is a fault."""
    try:
        return decode(parts, TOKEN).message
    except ProtocolError:
        return None


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**64), message=st.sampled_from(EXAMPLES))
def test_a_mutated_message_is_read_or_refused(seed: int, message: Message) -> None:
    judged(mutated(signed(message), random.Random(seed)))


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**64), message=st.sampled_from(EXAMPLES))
def test_a_mutated_body_that_is_well_signed_is_read_or_refused(seed: int, message: Message) -> None:
    choice = random.Random(seed)
    parts = signed(message)
    index = choice.choice([0, *range(3, len(parts))])
    parts[index] = mutated_bytes(parts[index], choice)
    judged(signed(parts))


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300), cut=st.integers(0, 300))
def test_any_bytes_of_a_peer_are_read_or_refused(data: bytes, cut: int) -> None:
    decoder = Decoder()
    try:
        for piece in (data[:cut], data[cut:]):
            decoder.feed(piece)
            while decoder.take() is not None:
                pass
    except ProtocolError:
        return


def test_a_server_outlives_mutated_messages_over_its_socket(tmp_path: Path) -> None:
    choice = random.Random(11)
    with serving(tmp_path) as running:
        token = running.connection.token
        stranger: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.connect(running.connection.endpoint)
        with stranger:
            for number in range(2000):
                parts = signed(HARMLESS[number % len(HARMLESS)], token)
                if number % 2:
                    stranger.send_multipart(mutated(parts, choice))
                else:
                    index = choice.choice([0, *range(3, len(parts))])
                    parts[index] = mutated_bytes(parts[index], choice)
                    stranger.send_multipart(signed(parts, token))
        with running.client(seconds=30) as client:
            assert client.request(Status()).software.startswith("fresco-post")
        assert running.thread.is_alive()
