# SPDX-License-Identifier: Apache-2.0
"""What a host, the command line and the tests use to speak with the server: requests, and events without blocking.

Jobs belong to the server: a client may vanish and come back. After a broken connection it connects again, sends again
what was not answered, and watches from the last event that it handed out.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Optional, Protocol, TypeVar, Union, cast

from fresco_protocol.connection import START, Connection, default_file, read_connection
from fresco_protocol.errors import (
    FrescoError,
    MessageMalformed,
    ProtocolError,
    ServerLost,
    ServerMissing,
    ServerSilent,
    VersionMismatch,
)
from fresco_protocol.events import Event, WatchEnded
from fresco_protocol.messages import Failed, Hello, Message, Reply, Request, Watch, Watching, Welcome, fresh_key
from fresco_protocol.shot import SCHEMA
from fresco_protocol.wire import decode, encode
from fresco_protocol.zmtp import Dealer

PATIENCE = 5.0  # seconds until a request without an answer fails
JUDGED = 30.0  # seconds for a Submit: the server looks into the folders of the shot, and says by itself when they hang
SILENT_BEATS = 3  # heartbeats without a word: the server is lost
SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 5.0  # seconds between two attempts to connect
MOST_EVENTS = 20_000  # kept for a host that does not poll; then they are dropped here and asked for again
MOST_PER_POLL = 1000  # messages read in one poll: the host's interface goes on

R = TypeVar("R", bound=Reply)


class Transport(Protocol):
    """What a Client needs of a connection; `zmtp.Dealer` is one. Nothing blocks but `wait`."""

    def send(self, parts: Sequence[bytes]) -> None:
        """Sends, now or later."""

    def receive(self) -> Optional[list[bytes]]:
        """The next message if one has come."""

    def wait(self, seconds: float) -> None:
        """Returns when something may have come, or after this time."""

    def close(self) -> None:
        """Ends the connection."""


class Client:
    """One host's line to the server; for one thread. Closed by `close` or at the end of `with`.

    trouble: why there is no connection now, while polling tries again; None when all is well.
    last, journal: number of the last event handed out, and its numbering: to watch on after a restart of the host.
    """

    def __init__(self, connection: Union[str, Connection, None] = None, *, software: str, seconds: float = PATIENCE,
                 dial: Callable[[str], Transport] = Dealer, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is opened yet: the first request connects.

        connection: path of a connection file, read again at every attempt; None is the default one. software: who
        asks, with its version. seconds: until an answer counts as missing. dial: endpoint -> transport.
        """
        self.trouble: Optional[FrescoError] = None
        self.last = 0
        self.journal: Optional[str] = None
        self._stated = connection
        self._hello = Hello(software=software)
        self._seconds = self._allowed = seconds
        self._dial = dial
        self._clock = clock
        self._transport: Optional[Transport] = None
        self._connection: Optional[Connection] = None
        self._welcome: Optional[Welcome] = None
        self._asked: dict[str, Request[Reply]] = {}
        self._replies: dict[str, Reply] = {}
        self._watch: Optional[Watch] = None
        self._watch_id = ""
        self._watching: Optional[Watching] = None
        self._refused: Optional[FrescoError] = None
        self._events: list[Event] = []
        self._newest = 0  # number of the last event taken, handed out or not
        self._heard = 0.0
        self._pause = SHORTEST_PAUSE
        self._next_attempt = 0.0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; jobs go on. May be called twice, and the client be used again."""
        if self._transport is not None:
            self._transport.close()
        self._transport = self._welcome = None
        self._watching = None
        self._asked.clear()
        self._replies.clear()

    def connect(self, *, seconds: Optional[float] = None) -> Welcome:
        """What the server says to Hello, in the given time. Raises as `request` does."""
        return self._retried(self._welcomed, seconds)

    def request(self, request: Request[R], *, seconds: Optional[float] = None) -> R:
        """The reply; waits `seconds` at most.

        Raises ServerMissing, ServerSilent, ServerLost (twice), ProtocolError, or the error that the server tells of.
        """
        return self._retried(lambda deadline: self._exchange(request, deadline), seconds)

    def requests(self, requests: Sequence[Request[R]], *, seconds: Optional[float] = None) -> list[R]:
        """The replies to several requests that are on the way together, in their order.

        Raises ServerLost at once, and whatever else `request` raises, the first error of them all.
        """
        self._allowed = self._seconds if seconds is None else seconds
        return self._exchange_all(requests, self._clock() + self._allowed)

    def watch(self, *, since: int = 0, journal: Optional[str] = None, job: Optional[str] = None,
              seconds: Optional[float] = None) -> Watching:
        """Begins to watch: `poll` gives the events after number `since`. Raises as `request` does, and even then
        `poll` goes on trying.
        """
        self._watch, self._watching, self._refused = Watch(job=job), None, None
        self._events.clear()
        self.journal, self.last, self._newest = journal, since, since
        if self._welcome is not None:
            self._post_watch()
        return self._retried(self._watched, seconds)

    def poll(self) -> list[Event]:
        """The events that came since the last poll, in order, each once; never blocks. Empty before `watch`.

        A lost server is no error: `trouble` tells, and later polls connect again. Raises ProtocolError if what
        answers cannot be understood, and the server's error if it refuses to go on with the watch.
        """
        if self._watch is not None:
            try:
                self._keep_up()
            except FrescoError as error:
                self._lose(error)
                if isinstance(error, ProtocolError):
                    raise
        self._check_refusal()
        events, self._events = self._events, []
        self.last = self._newest
        return events

    def _keep_up(self) -> None:
        if self._transport is None and self._clock() < self._next_attempt:
            return
        if self._welcome is not None and self._watching is None and self._watch_id not in self._asked:
            self._post_watch()
        if not all(self._read() for _ in range(MOST_PER_POLL)):
            self._check_silence()

    def _check_silence(self) -> None:
        limit = self._seconds if self._welcome is None else SILENT_BEATS * self._welcome.heartbeat
        if self._clock() - self._heard > limit:
            raise self._silent(limit)

    def _lose(self, error: FrescoError) -> None:
        self.close()
        self.trouble = error
        self._next_attempt = self._clock() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _retried(self, attempt: Callable[[float], R], seconds: Optional[float]) -> R:
        """Every request may be sent twice: once more, then, over a new connection."""
        self._allowed = self._seconds if seconds is None else seconds
        deadline = self._clock() + self._allowed
        try:
            return attempt(deadline)
        except ServerLost:
            return attempt(deadline)

    def _welcomed(self, deadline: float) -> Welcome:
        while self._welcome is None:
            self._advance(deadline)
        return self._welcome

    def _exchange(self, request: Request[R], deadline: float) -> R:
        return self._exchange_all([request], deadline)[0]

    def _exchange_all(self, requests: Sequence[Request[R]], deadline: float) -> list[R]:
        self._welcomed(deadline)
        ids = [self._post(request) for request in requests]
        while not all(id in self._replies for id in ids):
            self._advance(deadline)
        replies = [self._replies.pop(id) for id in ids]
        for reply in replies:
            if isinstance(reply, Failed):
                raise reply.problem.error()
        return cast("list[R]", replies)

    def _watched(self, deadline: float) -> Watching:
        while self._watching is None:
            self._check_refusal()
            self._advance(deadline)
        return self._watching

    def _advance(self, deadline: float) -> None:
        """Takes one message, or waits for one. However many come, the deadline stays where it is."""
        remaining = deadline - self._clock()
        if remaining <= 0:
            self.close()
            raise self._silent(self._allowed)
        if not self._read():
            cast(Transport, self._transport).wait(remaining)

    def _read(self) -> bool:
        """Takes one message if it has come, over a new connection where there is none."""
        try:
            transport = self._transport or self._open()
            parts = transport.receive()
            if parts is not None:
                self._take(*decode(parts, cast(Connection, self._connection).token))
        except ServerMissing as error:
            self.close()
            raise self._missing(error) from None
        except FrescoError:
            self.close()
            raise
        return parts is not None

    def _open(self) -> Transport:
        stated = default_file() if self._stated is None else self._stated
        self._connection = None  # an error must not name the one before
        self._connection = stated if isinstance(stated, Connection) else read_connection(stated)
        self._heard = self._clock()
        self._transport = self._dial(self._connection.endpoint)
        self._post(self._hello)
        return self._transport

    def _post(self, request: Request[R]) -> str:
        id = fresh_key()
        self._asked[id] = request
        cast(Transport, self._transport).send(encode(request, cast(Connection, self._connection).token, id=id))
        return id

    def _take(self, message: Message, id: Optional[str]) -> None:
        self._heard = self._clock()
        if isinstance(message, Event):
            self._take_event(message)
        elif not isinstance(message, Reply):
            raise MessageMalformed("the server sent a request")
        elif id in self._asked:  # else it answers what is no longer waited for
            self._take_reply(message, self._asked.pop(id), id)

    def _take_reply(self, reply: Reply, request: Request[Reply], id: str) -> None:
        if isinstance(reply, Failed) and isinstance(request, Hello):
            raise reply.problem.error()
        if isinstance(reply, Failed) and isinstance(request, Watch):
            self._watch, self._refused = None, reply.problem.error()
        elif not isinstance(reply, (Failed, request.answer())):
            raise MessageMalformed(f"{type(reply).__name__} answers {type(request).__name__}")
        elif isinstance(reply, Welcome):
            self._take_welcome(reply)
        elif isinstance(reply, Watching):
            self._take_watching(reply, id)
        else:
            self._replies[id] = reply

    def _take_welcome(self, welcome: Welcome) -> None:
        if welcome.shot_schema != SCHEMA:
            side = "client" if welcome.shot_schema > SCHEMA else "server"
            raise VersionMismatch(f"the server reads shots of schema {welcome.shot_schema}, the client writes {SCHEMA}",
                                  remedy=f"Upgrade the {side}.")
        self._welcome = welcome
        self.trouble, self._pause = None, SHORTEST_PAUSE
        if self._watch is not None:
            self._post_watch()

    def _post_watch(self) -> None:
        """Watches from the newest event on; what an earlier watch still sends is not taken."""
        self._watching = None
        self._watch_id = self._post(replace(cast(Watch, self._watch), since=self._newest, journal=self.journal))

    def _take_watching(self, reply: Watching, id: str) -> None:
        if id == self._watch_id:
            self._watching = reply
            self.journal, self._newest = reply.journal, reply.since

    def _take_event(self, event: Event) -> None:
        if self._watching is None:
            return
        if isinstance(event, WatchEnded):
            self._watching = None
        elif len(self._events) >= MOST_EVENTS:
            self._events.clear()
            self._watching, self._newest = None, self.last
        elif not event.durable or event.number > self._newest:
            self._events.append(event)
            self._newest = max(self._newest, event.number) if event.durable else self._newest

    def _check_refusal(self) -> None:
        if self._refused is not None:
            error, self._refused = self._refused, None
            raise error

    def _silent(self, seconds: float) -> ServerSilent:
        return ServerSilent(f"no answer within {seconds:g} s", where=self._place(),
                            remedy="The server may hang: look at its log. It is silent too towards the token of an "
                                   "earlier start, towards a key that is not on its list, and where the clocks of two "
                                   "machines differ by minutes.")

    def _missing(self, error: ServerMissing) -> ServerMissing:
        """The error, with where the client looked."""
        if self._connection is None or isinstance(self._stated, Connection):
            return error
        return ServerMissing(f"no server runs: process {self._connection.pid} no longer listens", where=self._place(),
                             remedy=START)

    def _place(self) -> str:
        endpoint = "" if self._connection is None else self._connection.endpoint
        found = "" if isinstance(self._stated, Connection) else f", as {self._stated or default_file()} says"
        return endpoint + found
