# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's line to the server: a thread speaks with it, so that a server that hangs never holds the interface.

The thread owns the client and knows nothing of Blender. What it hears lies in one queue, in order, until Blender's
timer takes it by `Link.poll`: events, answers, and how the line is.
"""
from __future__ import annotations

import time
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Optional, Union

import bpy

from fresco_protocol.client import Client
from fresco_protocol.connection import default_file, host_and_port, read_connection
from fresco_protocol.errors import FrescoError, ServerError, ServerLost, ServerMissing
from fresco_protocol.events import Event
from fresco_protocol.messages import Reply, Request

PATIENCE = 2.0  # seconds that the thread waits for an answer; on one machine it takes milliseconds
LOOK = 0.1  # seconds between two looks for events
PAUSE, LONG_PAUSE = 0.5, 5.0  # seconds until the next attempt: nobody there; somebody who keeps silent
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def software() -> str:
    """Who asks, for the server's log."""
    return f"fresco-blender (Blender {bpy.app.version_string})"


@dataclass(eq=False)
class Answer:
    """What becomes of a request: `poll` hands it out with a reply or an error in it."""

    request: Request[Reply]
    reply: Optional[Reply] = None
    error: Optional[FrescoError] = None


@dataclass(frozen=True)
class State:
    """How the line is. trouble: why there is no connection now; None when all is well.

    since, journal: the events that were handed out, so that none is missed and none comes twice.
    """

    trouble: Optional[FrescoError]
    since: int
    journal: Optional[str]


@dataclass(frozen=True)
class Address:
    """Where a line leads. file: the connection file, None is the usual one. online: whether it may leave the machine.

    since, journal: the event to go on after. software: who asks.
    """

    file: Optional[str]
    online: bool
    since: int
    journal: Optional[str]
    software: str

    def check_allowed(self) -> None:
        """Raises ServerError where the server is on another machine and Blender is told to stay offline."""
        host, _ = host_and_port(read_connection(self.file or default_file()).endpoint)
        if host not in LOOPBACK and not self.online:
            raise ServerError("the server is on another machine, and Blender is told to stay offline", where=host,
                              remedy="Allow Online Access in Preferences > System.")


class Line(Thread):
    """The thread of one connection file, until `end`. It may outlive that by one wait for an answer."""

    def __init__(self, address: Address) -> None:
        """Does not start it."""
        super().__init__(name="fresco", daemon=True)
        self.heard: SimpleQueue[Union[Event, Answer, State]] = SimpleQueue()
        self._address = address
        self._asked: SimpleQueue[Optional[Answer]] = SimpleQueue()
        self._client: Optional[Client] = None
        self._state: Optional[State] = None
        self._trouble: Optional[FrescoError] = None
        self._next_attempt = 0.0

    def ask(self, answer: Answer) -> None:
        """Has a request sent; never waits."""
        self._asked.put(answer)

    def end(self) -> None:
        """Hangs up; never waits."""
        self._asked.put(None)

    def run(self) -> None:
        """Speaks with the server."""
        try:
            self._speak()
        except Exception as error:  # noqa: BLE001, whatever it is, Blender must learn that nobody listens any more
            self._tell(ServerLost(f"the line to the server broke: {error!r}", remedy="Press Connect."))
        finally:
            self._hang_up()

    def _speak(self) -> None:
        while True:
            try:
                answer = self._asked.get(timeout=LOOK)
                if answer is None:
                    return
            except Empty:
                answer = None
            if self._client is None and time.monotonic() >= self._next_attempt:
                self._connect()
            if answer is not None:
                self._answer(answer)
            self._listen()

    def _connect(self) -> None:
        try:
            self._address.check_allowed()
            self._client = Client(self._address.file, software=self._address.software, seconds=PATIENCE)
            self._client.watch(since=self._known[0], journal=self._known[1])
            self._tell(None)
        except FrescoError as error:
            self._lose(error)

    @property
    def _known(self) -> tuple[int, Optional[str]]:
        """The event that was handed out last."""
        found = self._state or self._address
        return found.since, found.journal

    def _answer(self, answer: Answer) -> None:
        try:
            if self._client is None:
                raise self._trouble or ServerMissing("no server is connected", remedy="Start it in the preferences.")
            answer.reply = self._client.request(answer.request)
        except FrescoError as error:
            answer.error = error
            if self._client is not None and isinstance(error, ServerError):
                self._lose(error)  # who is silent now is not asked again at once
        self.heard.put(answer)

    def _listen(self) -> None:
        if self._client is None:
            return
        try:
            for event in self._client.poll():
                self.heard.put(event)
            self._tell(self._client.trouble)
        except FrescoError as error:
            self._lose(error)

    def _lose(self, error: FrescoError) -> None:
        self._hang_up()
        self._next_attempt = time.monotonic() + (PAUSE if isinstance(error, ServerMissing) else LONG_PAUSE)
        self._tell(error)

    def _tell(self, trouble: Optional[FrescoError]) -> None:
        self._trouble = trouble
        since, journal = (self._client.last, self._client.journal) if self._client is not None else self._known
        state = State(trouble, since, journal)
        if state != self._state:
            self._state = state
            self.heard.put(state)

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None


class Link:
    """Blender's end of the line; nothing in it waits. trouble: why there is no connection now; None when all is well.

    is_settled: whether it is known how the line is. since, journal: see `State`.
    """

    def __init__(self) -> None:
        self.trouble: Optional[FrescoError] = None
        self.since = 0
        self.journal: Optional[str] = None
        self.is_settled = False
        self._line: Optional[Line] = None
        self._way: tuple[Optional[str], bool] = (None, False)  # connection file, and whether it may leave the machine
        self._open_questions: list[Answer] = []

    @property
    def is_up(self) -> bool:
        """Whether the server answered and was not lost since."""
        return self._line is not None and self.is_settled and self.trouble is None

    def open(self, connection_file: Optional[str]) -> None:
        """Begins to watch the server of this connection file; does nothing when it does so already."""
        way = connection_file, bool(bpy.app.online_access)
        if self._line is not None and self._line.is_alive() and way == self._way:
            return
        self.close()
        self._way = way
        self._line = Line(Address(*way, self.since, self.journal, software()))
        self._line.start()

    def close(self) -> None:
        """Hangs up; jobs go on, and what was not answered is not waited for."""
        if self._line is not None:
            self._line.end()
        self._line, self.is_settled = None, False
        self._open_questions.clear()

    def ask(self, request: Request[Reply]) -> Answer:
        """Sends a request. Its answer comes out of a later `poll`, if the line is not closed before."""
        answer = Answer(request)
        if self._line is not None:
            self._line.ask(answer)
            self._open_questions.append(answer)
        return answer

    def waits_for(self, answer: Optional[Answer]) -> bool:
        """Whether this answer may still come."""
        return answer in self._open_questions

    def poll(self) -> list[Union[Event, Answer]]:
        """What came since the last poll, in order. A lost server is no error: `trouble` tells."""
        found: list[Union[Event, Answer]] = []
        while self._line is not None and not self._line.heard.empty():
            item = self._line.heard.get()
            if isinstance(item, State):
                self.trouble, self.since, self.journal = item.trouble, item.since, item.journal
                self.is_settled = True
                continue
            if isinstance(item, Answer):
                self._open_questions.remove(item)
            found.append(item)
        return found
