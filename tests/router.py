# SPDX-License-Identifier: Apache-2.0
"""A small server for tests of clients: libzmq's ROUTER in a thread, with heartbeats, that answers from memory."""
from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import zmq

from fresco_protocol.connection import Connection
from fresco_protocol.errors import FrescoError, JobUnknown, ProtocolError
from fresco_protocol.events import Alive, Event, JobChanged, JobEvent
from fresco_protocol.job import Job, JobState, Problem
from fresco_protocol.messages import (
    Cancel,
    Changed,
    Failed,
    Hello,
    Jobs,
    ListJobs,
    Message,
    Reply,
    Request,
    Submit,
    Submitted,
    Watch,
    Watching,
    Welcome,
)
from fresco_protocol.seal import ReplayGuard
from fresco_protocol.shot import SCHEMA
from fresco_protocol.wire import decode, encode

TOKEN = "0123456789abcdef" * 4


class PyzmqDealer:
    """A client's transport over libzmq."""

    def __init__(self, endpoint: str) -> None:
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint)

    def send(self, parts: Sequence[bytes]) -> None:
        self.socket.send_multipart(parts, zmq.NOBLOCK)

    def receive(self) -> list[bytes] | None:
        try:
            return self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def wait(self, seconds: float) -> None:
        self.socket.poll(round(seconds * 1000))

    def close(self) -> None:
        self.socket.close()


@dataclass
class Memory:
    """What outlives a server: jobs, events, and the name of their numbering."""

    journal: str = "journal-1"
    jobs: dict[str, Job] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)


class Router:
    """The server; a context manager. silent: it reads and says nothing. refusals: why messages got no answer."""

    def __init__(self, memory: Memory | None = None, *, port: int = 0, heartbeat: float = 0.1,
                 shot_schema: int = SCHEMA, tamper: Callable[[list[bytes]], list[bytes]] = list) -> None:
        self.memory = memory or Memory()
        self.silent = False
        self.refusals: list[ProtocolError] = []
        self.received: list[Message] = []
        self.token = TOKEN
        self._heartbeat = heartbeat
        self._shot_schema = shot_schema
        self._tamper = tamper
        self._guard = ReplayGuard()
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._watchers: dict[bytes, str | None] = {}
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.LINGER, 200)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 50)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 2000)
        self._socket.bind(f"tcp://127.0.0.1:{port or '*'}")
        self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def port(self) -> int:
        return int(self.endpoint.rsplit(":", 1)[1])

    @property
    def connection(self) -> Connection:
        return Connection(endpoint=self.endpoint, token=self.token, pid=os.getpid(), version="0.0.1")

    def write_connection(self, folder: Path) -> str:
        """The path of a connection file as a server writes it."""
        path = folder / "connection.json"
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(self.connection.to_json(), encoding="utf-8")
        return str(path)

    def __enter__(self) -> Router:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._orders.put(None)
        self._thread.join(5)
        assert not self._thread.is_alive()

    def emit(self, make: Callable[[int], Event]) -> None:
        """Makes an event with the next number and tells the watchers."""
        self._orders.put(lambda: self._publish(make))

    def forget_watchers(self) -> None:
        """As if each connection had come anew: libzmq's own reconnection looks so to the server."""
        self._orders.put(self._watchers.clear)

    def tell(self, event: Event) -> None:
        """Sends an event to the watchers without keeping it."""
        self._orders.put(lambda: self._broadcast(event))

    def _serve(self) -> None:
        beat = time.monotonic()
        while True:
            while not self._orders.empty():
                order = self._orders.get()
                if order is None:
                    self._socket.close()
                    return
                order()
            if self._socket.poll(10):
                self._answer()
            if time.monotonic() - beat > self._heartbeat and not self.silent:
                beat = time.monotonic()
                self._broadcast(Alive(number=len(self.memory.events), time=time.time()))

    def _answer(self) -> None:
        client, *parts = self._socket.recv_multipart()
        if self.silent:
            return
        try:
            message, id = decode(parts, self.token, guard=self._guard)
            self.received.append(message)
            reply = self._reply(client, message)
        except ProtocolError as error:
            if error.request is None:
                self.refusals.append(error)
                return
            reply, id = Failed(problem=Problem.of(error)), error.request
        except FrescoError as error:
            reply = Failed(problem=Problem.of(error))
        self._send(client, reply, id)
        if isinstance(reply, Watching) and isinstance(message, Watch):
            self._watchers[client] = message.job
            for event in self.memory.events[reply.since:]:
                self._send_event(client, event)

    def _reply(self, client: bytes, request: Message) -> Reply:
        if isinstance(request, Hello):
            return Welcome(software="router 0", pid=os.getpid(), shot_schema=self._shot_schema,
                           heartbeat=self._heartbeat)
        if isinstance(request, Submit):
            return self._submit(request)
        if isinstance(request, ListJobs):
            return Jobs(records=tuple(self.memory.jobs.values()), total=len(self.memory.jobs))
        if isinstance(request, Watch):
            since = request.since if request.journal in (None, self.memory.journal) else 0
            return Watching(since=since, journal=self.memory.journal)
        if isinstance(request, Cancel) and request.job in self.memory.jobs:
            return Changed(record=self.memory.jobs[request.job])
        assert isinstance(request, Request)
        raise JobUnknown("no such job", where=getattr(request, "job", None), remedy="fresco jobs lists them.")

    def _submit(self, request: Submit) -> Submitted:
        known = [job for job in self.memory.jobs.values() if job.client_key == request.client_key]
        if known:
            return Submitted(record=known[0], created=False)
        job = Job(id=f"job-{len(self.memory.jobs) + 1:06}", name=request.shot.name or "shot", state=JobState.QUEUED,
                  priority=request.priority, client_key=request.client_key, output=request.shot.delivery.sequence,
                  submitted=time.time())
        self.memory.jobs[job.id] = job
        self._publish(lambda number: JobChanged(number=number, time=time.time(), job=job.id, record=job))
        return Submitted(record=job, created=True)

    def _publish(self, make: Callable[[int], Event]) -> None:
        event = make(len(self.memory.events) + 1)
        self.memory.events.append(event)
        self._broadcast(event)

    def _broadcast(self, event: Event) -> None:
        for client in list(self._watchers):
            self._send_event(client, event)

    def _send_event(self, client: bytes, event: Event) -> None:
        wanted = self._watchers[client]
        if wanted is None or not isinstance(event, JobEvent) or event.job == wanted:
            try:
                self._send(client, event, None)
            except zmq.ZMQError:  # it went away
                del self._watchers[client]

    def _send(self, client: bytes, message: Message, id: str | None) -> None:
        self._socket.send_multipart([client, *self._tamper(encode(message, self.token, id=id))])
