# SPDX-License-Identifier: Apache-2.0
"""A minimal ZeroMQ client: DEALER over TCP, NULL mechanism, that talks to libzmq's ROUTER and never blocks unasked.

Source: ZMTP 3.0 (rfc.zeromq.org/spec/23); PING and PONG of ZMTP 3.1 (rfc.zeromq.org/spec/37), which libzmq sends to
peers of 3.0 too.
"""
from __future__ import annotations

import errno
import selectors
import socket
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, NoReturn, Optional, Union

from fresco_protocol.connection import START, host_and_port
from fresco_protocol.errors import MessageMalformed, ProtocolError, ServerLost, ServerMissing
from fresco_protocol.wire import LARGEST_BODY, LARGEST_MESSAGE, MOST_PARTS

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
LARGEST_COMMAND = 4096  # bytes; READY and PING take less than a hundred
LARGEST_BACKLOG = 2 * LARGEST_MESSAGE  # bytes that wait to be sent
CHUNK = 256 * 1024  # bytes asked of the socket at once
MOST_AT_ONCE = 1000  # frames, or reads, of one `receive`: a peer that never pauses does not keep its caller

TUNNEL = "Take a tunnel to its loopback: ssh -L PORT:127.0.0.1:PORT HOST"

_MORE, _LONG, _COMMAND = 1, 2, 4
_UNDERWAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY, 10035)  # 10035: WSAEWOULDBLOCK of Windows


class Greeting(NamedTuple):
    """What a peer says first. mechanism: "NULL", "PLAIN" or "CURVE"."""

    version: tuple[int, int]
    mechanism: str


class Command(NamedTuple):
    """A frame for the transport itself."""

    name: bytes
    data: bytes


def frame(data: bytes, flags: int = 0) -> bytes:
    """One ZMTP frame."""
    if len(data) < 256:
        return bytes((flags, len(data))) + data
    return bytes((flags | _LONG,)) + len(data).to_bytes(8, "big") + data


def command(name: bytes, data: bytes = b"") -> bytes:
    """One command, framed."""
    return frame(bytes((len(name),)) + name + data, _COMMAND)


def message(parts: Sequence[bytes]) -> bytes:
    """A message of several frames."""
    return b"".join(frame(part, _MORE if index < len(parts) - 1 else 0) for index, part in enumerate(parts))


READY = command(b"READY", b"\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER")


class Decoder:
    """Bytes of a peer, as they come -> greeting, commands, messages. No I/O; memory bounded by the wire's limits."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._greeted = False
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Takes bytes that arrived."""
        self._buffer += data

    def take(self) -> Union[Greeting, Command, list[bytes], None]:
        """The next item, None until more bytes come; raises MessageMalformed at what no peer may send."""
        if not self._greeted:
            return self._take_greeting()
        while True:
            found = self._take_frame()
            if found is None:
                return None
            flags, data = found
            if flags & _COMMAND:
                return self._as_command(data)
            self._parts.append(data)
            self._check_message()
            if not flags & _MORE:
                parts, self._parts = self._parts, []
                return parts

    def _take_greeting(self) -> Optional[Greeting]:
        start = bytes(self._buffer[:11])
        if start[:1] not in (b"", GREETING[:1]) or start[9:10] not in (b"", GREETING[9:10]):
            raise MessageMalformed("what listens there does not speak ZeroMQ", remedy=START)
        if start[10:] and start[10] < 3:
            raise MessageMalformed(f"what listens there speaks version {start[10]} of ZMTP, not 3")
        if len(self._buffer) < len(GREETING):
            return None
        greeting = bytes(self._buffer[:len(GREETING)])
        del self._buffer[:len(GREETING)]
        self._greeted = True
        mechanism = greeting[12:32].rstrip(b"\0").decode("ascii", "replace")
        return Greeting((greeting[10], greeting[11]), mechanism)

    def _take_frame(self) -> Optional[tuple[int, bytes]]:
        if len(self._buffer) < 2:
            return None
        flags = self._buffer[0]
        start = 9 if flags & _LONG else 2
        if flags & ~(_MORE | _LONG | _COMMAND) or (flags & _COMMAND and flags & _MORE):
            raise MessageMalformed(f"a frame with flags {flags:#04x}")
        if len(self._buffer) < start:
            return None
        size = int.from_bytes(self._buffer[1:start], "big")
        if size > (LARGEST_COMMAND if flags & _COMMAND else LARGEST_BODY):
            raise MessageMalformed(f"a frame of {size} bytes")
        if len(self._buffer) < start + size:
            return None
        data = bytes(self._buffer[start:start + size])
        del self._buffer[:start + size]
        return flags, data

    def _check_message(self) -> None:
        if len(self._parts) > MOST_PARTS or sum(map(len, self._parts)) > LARGEST_MESSAGE:
            raise MessageMalformed(f"a message of more than {MOST_PARTS} parts or {LARGEST_MESSAGE} bytes")

    def _as_command(self, data: bytes) -> Command:
        end = 1 + (data[0] if data else 0)
        if not data or end > len(data):
            raise MessageMalformed("a command without its name")
        return Command(data[1:end], data[end:])


class Dealer:
    """One connection. `send` and `receive` never block: they do what the socket allows now; `wait` waits.

    All raise ServerMissing if nobody listens, ServerLost if the connection breaks, ProtocolError if the peer does not
    keep to the language. A broken Dealer stays broken: make another.
    """

    def __init__(self, endpoint: str) -> None:
        """Begins to connect. endpoint: such as "tcp://127.0.0.1:40001"."""
        self.endpoint = endpoint
        self._decoder = Decoder()
        self._connected = self._ready = False
        self._behind = False  # whether more has come than `receive` looked at
        self._outgoing = bytearray(GREETING)
        self._waiting: deque[bytes] = deque()  # messages, until the peer is ready
        self._socket = self._begin()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def _begin(self) -> socket.socket:
        host, port = host_and_port(self.endpoint)
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            link = socket.socket(family, kind, protocol)
        except (OSError, OverflowError, UnicodeError) as error:
            raise ServerMissing(f"no such host: {error}", where=self.endpoint, remedy=START) from None
        link.setblocking(False)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        failure = link.connect_ex(address)
        if failure not in _UNDERWAY:
            link.close()
            self._refused(failure)
        return link

    def fileno(self) -> int:
        """The socket's descriptor, for a host's own event loop."""
        return self._socket.fileno()

    def send(self, parts: Sequence[bytes]) -> None:
        """Sends a message, or keeps it until the socket takes it."""
        data = message(parts)
        if len(data) + len(self._outgoing) + sum(map(len, self._waiting)) > LARGEST_BACKLOG:
            raise ServerLost("the server takes nothing more", where=self.endpoint)
        if self._ready:
            self._outgoing += data
        else:
            self._waiting.append(data)
        self._flush()

    def receive(self) -> Optional[list[bytes]]:
        """The next message if it has come; answers PING on the way."""
        self._behind = False
        for _ in range(MOST_AT_ONCE):
            item = self._decoder.take()
            if item is None:
                if not self._read():
                    return None
            elif isinstance(item, list):
                if not self._ready:
                    raise MessageMalformed("a message before READY", where=self.endpoint)
                return item
            elif isinstance(item, Greeting):
                self._greet(item)
            else:
                self._obey(item)
        self._behind = True
        return None

    def wait(self, seconds: float) -> None:
        """Returns when something may have come or gone, after `seconds` at the latest."""
        wanted = selectors.EVENT_READ
        if self._outgoing or not self._connected:
            wanted |= selectors.EVENT_WRITE
        self._selector.modify(self._socket, wanted)
        self._selector.select(0.0 if self._behind else max(0.0, seconds))

    def close(self) -> None:
        """Ends the connection; what was not sent is dropped. May be called twice."""
        self._selector.close()
        self._socket.close()

    def _greet(self, greeting: Greeting) -> None:
        if greeting.mechanism != "NULL":
            raise ProtocolError(f"the server asks for {greeting.mechanism}, this client speaks plain ZeroMQ",
                                where=self.endpoint,
                                remedy=TUNNEL)
        self._outgoing += READY
        self._flush()

    def _obey(self, found: Command) -> None:
        if found.name == b"READY" and not self._ready:
            self._ready = True
            self._outgoing += b"".join(self._waiting)
            self._waiting.clear()
        elif found.name == b"PING" and len(found.data) >= 2:
            self._outgoing += command(b"PONG", found.data[2:18])  # a context follows the time to live
        elif found.name == b"ERROR":
            raise ProtocolError(f"the server refused the connection: {found.data[1:200]!r}", where=self.endpoint)
        elif found.name != b"PONG":
            raise MessageMalformed(f"a command {found.name[:20]!r} out of place", where=self.endpoint)
        if len(self._outgoing) > LARGEST_BACKLOG:
            raise ServerLost("the server takes nothing more", where=self.endpoint)
        self._flush()

    def _read(self) -> bool:
        """True if bytes came."""
        self._flush()
        if not self._connected:
            return False
        try:
            data = self._socket.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise ServerLost(f"the connection broke: {error.strerror or error}", where=self.endpoint) from None
        if not data:
            raise ServerLost("the server closed the connection", where=self.endpoint,
                             remedy=None if self._ready else f"A port for other machines asks for keys. {TUNNEL}")
        self._decoder.feed(data)
        return True

    def _flush(self) -> None:
        if not self._connect():
            return
        try:
            while self._outgoing:
                del self._outgoing[:self._socket.send(self._outgoing)]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._outgoing.clear()  # reading tells of the loss, after the server's last words

    def _connect(self) -> bool:
        """True once the connection stands."""
        if not self._connected:
            failure = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failure not in _UNDERWAY:
                self._refused(failure)
            try:
                self._socket.getpeername()  # the same question on every system
            except OSError:
                return False
            self._connected = True
        return True

    def _refused(self, failure: int) -> NoReturn:
        reason = errno.errorcode.get(failure, str(failure))
        raise ServerMissing(f"nothing listens there ({reason})", where=self.endpoint, remedy=START)
