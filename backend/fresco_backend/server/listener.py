# SPDX-License-Identifier: Apache-2.0
"""The server's end of the wire: a ROUTER, from which only requests come that are signed, fresh and well formed.

A stranger costs one signature's check and gets no answer; what is refused is logged once a kind, then counted.
"""
from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from fresco_backend.server.gate import Gate
from fresco_backend.server.server_log import Recurring
from fresco_protocol.errors import FrescoError, MessageMalformed, ProtocolError, UsageError
from fresco_protocol.job import Problem
from fresco_protocol.messages import Failed, Message, Request
from fresco_protocol.seal import ReplayGuard
from fresco_protocol.wire import LARGEST_BODY, MOST_PARTS, decode, encode

LOOPBACK = "127.0.0.1"
LINGER = 500  # milliseconds that the last words may take
MOST_WAITING = 256  # messages that wait for one client that does not read
PING, DEAF = 30_000, 300_000  # milliseconds; a host's interface may be busy for minutes, and its jobs go on anyway
HANDSHAKE = 10_000  # milliseconds
MOST_REFUSED = 50  # messages of one socket, until the loop looks elsewhere
REBIND = 2.0  # seconds that the system may take to give a port back
MOST_MEMORY = 512 * 2**20  # bytes beyond those of the start
OPTIONS = {
    zmq.ROUTER_MANDATORY: 1, zmq.ROUTER_HANDOVER: 1, zmq.LINGER: LINGER, zmq.MAXMSGSIZE: LARGEST_BODY,
    zmq.SNDHWM: MOST_WAITING, zmq.RCVHWM: MOST_WAITING, zmq.BACKLOG: 512, zmq.HEARTBEAT_IVL: PING,
    zmq.HEARTBEAT_TIMEOUT: DEAF, zmq.HANDSHAKE_IVL: HANDSHAKE}


class Sent(Enum):
    """What became of a message."""

    SENT = "sent"
    FULL = "full"  # the client does not read: so many messages wait for it already
    GONE = "gone"


class Peer(NamedTuple):
    """A connection: its socket, and its routing id there."""

    socket: zmq.Socket[bytes]
    id: bytes


class Asked(NamedTuple):
    """A request, with the connection that it came from."""

    client: Peer
    request: Request[Any]
    id: str


class Listener:
    """The ROUTER, bound to the loopback, and beside it one for other machines, if there is a `gate` for it.

    port: 0 is any free one. say: writes a line into the server's log. Raises UsageError when a port is taken.
    """

    def __init__(self, token: str, *, port: int = 0, gate: Gate | None = None, say: Callable[[str], None]) -> None:
        self._token = token
        self._guard = ReplayGuard()
        self._refusals = Recurring(say)
        self._say = say
        self._gate = gate
        self.sockets = [self._bound(f"tcp://{LOOPBACK}:{port or '*'}", None)]
        self.endpoint: str = self.sockets[0].getsockopt_string(zmq.LAST_ENDPOINT)
        if gate is not None:
            self.sockets.append(self._bound(gate.endpoint, gate))
        self._memory: int | None = _memory()  # from which on growth is counted

    def _bound(self, endpoint: str, gate: Gate | None) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = (zmq.Context.instance() if gate is None else gate.context).socket(zmq.ROUTER)
        for option, value in OPTIONS.items():
            socket.setsockopt(option, value)
        if gate is not None:
            gate.guard(socket)
        deadline = time.monotonic() + REBIND
        while True:
            try:
                socket.bind(endpoint)
            except zmq.ZMQError as error:
                if error.errno == zmq.EADDRINUSE and time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                socket.close()
                raise UsageError(f"cannot listen: {error}", where=endpoint,
                                 remedy="Take another --port, or none: then any free one is taken.") from error
            return socket

    def relieve(self) -> bool:
        """Ends all connections if somebody fills the server's memory; True if so. Clients come back by themselves.

        libzmq bounds a part, not the number of parts: a stranger may send one message without an end. It is all in the
        memory of the connection, and goes with it.
        """
        if len(self.sockets) < 1 + (self._gate is not None):
            self._bind_again()
            return True
        held = _memory()
        if held is None:
            return False
        if self._memory is None:  # what connections held is given back by now, or kept by the allocator for later
            self._memory = held
        if held - self._memory < MOST_MEMORY:
            return False
        self._say(f"all connections are ended: they hold {(held - self._memory) // 2**20} MiB")
        self.close(linger=0)
        self.sockets, self._memory = [], None
        self._bind_again()
        return True

    def _bind_again(self) -> None:
        """What is not bound, is; a port that another program took meanwhile is tried again at the next `relieve`."""
        gates = [(self.endpoint, None), *([(self._gate.endpoint, self._gate)] if self._gate else [])]
        for endpoint, gate in gates[len(self.sockets):]:
            self.sockets.append(self._bound(endpoint, gate))

    def receive(self) -> Asked | None:
        """The next request; None when none is waiting, or after MOST_REFUSED messages that are none: they are answered
        or dropped here, and whoever sends them without a pause does not keep the loop."""
        for socket in self.sockets:
            for _ in range(MOST_REFUSED):
                try:
                    id, *parts = socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                try:
                    return self._asked(Peer(socket, id), parts)
                except ProtocolError as error:
                    self._refuse(error)
                    if error.request is not None:
                        self.send(Peer(socket, id), Failed(problem=Problem.of(error)), error.request)
                except Exception as error:  # noqa: BLE001, whatever the reader has overlooked costs this message only
                    self._refuse(ProtocolError(f"it could not be read: {error!r}"))
        return None

    def _refuse(self, error: ProtocolError) -> None:
        kind = re.sub(r"\d+", "#", error.what.split(":")[0][:80]) if error.code != MessageMalformed.code else ""
        self._refusals.add(f"{error.code} {kind}", f"refused a message: {error.what[:200]} [{error.code}]")

    def send(self, client: Peer, message: Message, id: str | None = None) -> Sent:
        """Sends a message; a reply that is beyond the limits of the wire becomes Failed."""
        try:
            parts = encode(message, self._token, id=id)
        except FrescoError as error:
            if not isinstance(error, MessageMalformed) or id is None:
                raise
            parts = encode(Failed(problem=Problem.of(error)), self._token, id=id)
        return self.send_parts(client, parts)

    def encoded(self, message: Message) -> list[bytes]:
        """The parts of an event, to be sent to many."""
        return encode(message, self._token)

    def send_parts(self, client: Peer, parts: list[bytes]) -> Sent:
        """Sends what `encoded` gave."""
        try:
            client.socket.send_multipart([client.id, *parts], zmq.NOBLOCK)
        except zmq.Again:
            return Sent.FULL
        except zmq.ZMQError:  # EHOSTUNREACH
            return Sent.GONE
        return Sent.SENT

    def close(self, *, linger: int = LINGER) -> None:
        """Ends all connections; what is on the way has `linger` milliseconds to arrive."""
        for socket in self.sockets:
            socket.close(linger)

    def _asked(self, client: Peer, parts: list[bytes]) -> Asked:
        if len(parts) > MOST_PARTS:
            raise MessageMalformed(f"{len(parts)} parts; at most {MOST_PARTS} are allowed")
        message, id = decode(parts, self._token, guard=self._guard)
        if not isinstance(message, Request) or id is None:
            raise MessageMalformed("what is no request")
        return Asked(client, message, id)


def _memory() -> int | None:
    """Bytes that this process holds; None where the system does not tell."""
    table = Path("/proc/self/statm")
    return int(table.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") if table.is_file() else None
