# SPDX-License-Identifier: Apache-2.0
"""The server: one loop between clients, the queue, workers and watchers. Light: torch lives in the workers.

    client ── request ──> Listener ──> Answers ──> JobQueue ──> Journal ──> Watchers ── events ──> clients
                                          └─ wish ─> WorkerPool ── words ──┘

The loop never waits for a worker or a client. When the queue's disk refuses what a worker told, the server keeps the
word, takes no other, and tries again each second: the workers wait at their pipes, and nothing is lost.
"""
from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import zmq

import fresco_backend
from fresco_backend import settings
from fresco_backend.answers import Answers
from fresco_backend.gate import Gate
from fresco_backend.job_state import Claim, Wish
from fresco_backend.jobs import JobQueue, Limits
from fresco_backend.leftovers import sweep
from fresco_backend.listener import Asked, Listener
from fresco_backend.path_mapping import PathMapping
from fresco_backend.roots import Roots
from fresco_backend.server_address import ExclusiveLock, fresh_token, publish, withdraw
from fresco_backend.server_log import ServerLog
from fresco_backend.watchers import Watchers
from fresco_backend.worker_pool import ANY, Death, Heard, Patience, WorkerPool, WorkerProcess
from fresco_backend.worker_words import Broken, Done, Halted, Line, Ready, Told
from fresco_protocol.connection import Connection
from fresco_protocol.errors import Busy, FrescoError, Interrupted, OutputError
from fresco_protocol.events import Previewed
from fresco_protocol.job import JobState, Problem
from fresco_protocol.messages import Failed, Hello, Watch

HEARTBEAT = 2.0  # seconds
TICK = 1.0  # seconds between two looks at workers and clocks
LAG = 0.02  # seconds, while a watcher is behind
MOST_AT_ONCE = 50  # requests, or words of workers, before the loop looks elsewhere
GRACE = 6.0  # seconds for a running step at the end; a second later the signal handler of the command ends all
ADAY = 86_400.0  # a lease that never ends: the pool itself sees which workers live


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a server runs. mapping: of paths that clients send. port: 0 is any free one. gate: for other machines.
    devices: see WorkerPool. idle_exit: seconds without work or requests until it ends; None is never."""

    queue: Path
    connection: Path
    roots: Roots
    mapping: PathMapping = field(default_factory=PathMapping)
    port: int = 0
    gate: Gate | None = None
    devices: tuple[str, ...] = (ANY,)
    idle_exit: float | None = None
    heartbeat: float = HEARTBEAT
    patience: Patience = field(default_factory=Patience)


class Server:
    """A server in its place: it listens, and clients find it, from the beginning of `with` to its end.

    Raises Busy when another one is there, and what the queue raises when its file cannot be used.
    """

    def __init__(self, options: Options, *, log: ServerLog | None = None) -> None:
        self.options = options
        self.log = log or ServerLog(sys.stderr)
        self._open = ExitStack()
        self._signal: int | None = None

    def __enter__(self) -> Server:
        _allow_many_files()
        with ExitStack() as stack:
            locks = [stack.enter_context(ExclusiveLock(path))
                     for path in dict.fromkeys((self.options.queue, self.options.connection))]
            self.queue = stack.enter_context(JobQueue(self.options.queue, limits=Limits(lease=ADAY)))
            token = fresh_token()
            gate = stack.enter_context(self.options.gate) if self.options.gate else None
            self.listener = Listener(token, port=self.options.port, gate=gate, say=self.log.say)
            stack.callback(self.listener.close)
            self.pool = WorkerPool(
                self.options.devices, roots=self.options.roots, folder=self.options.queue.parent,
                patience=self.options.patience, descriptors=[lock.descriptor for lock in locks], say=self.log.say)
            stack.callback(self._end_workers)
            self.watchers = Watchers(journal=self.queue.journal, listener=self.listener)
            self.answers = Answers(queue=self.queue, pool=self.pool, roots=self.options.roots, log=self.log,
                                   mapping=self.options.mapping, heartbeat=self.options.heartbeat)
            self.connection = Connection(endpoint=self.listener.endpoint, token=token, pid=os.getpid(),
                                         version=fresco_backend.__version__)
            self._begin()
            publish(self.connection, self.options.connection)
            stack.callback(withdraw, self.connection, self.options.connection)
            self._open = stack.pop_all()
        self.log.say(f"listens at {self.listener.endpoint}; connection file {self.options.connection}; queue "
                     f"{self.options.queue}; roots {', '.join(map(str, self.options.roots.folders)) or 'none'}")
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self.log.say("has ended")

    def _begin(self) -> None:
        self._poller = self._polling()
        now = time.monotonic()
        self._next_beat = self._next_tick = now
        self._busy_at = now  # when there was last something to do
        self._unclaimed = True  # whether the queue may have a job for an idle worker
        self._behind = False
        self._kept: Heard | None = None  # what the disk refused
        for status in self.queue.recover(blamed=False):
            sweep(status)
            self.log.say(f"job {status.id} was running when the last server ended; it is {status.state.value} now")

    def _polling(self) -> zmq.Poller:
        poller = zmq.Poller()
        for socket in (*self.listener.sockets, self.pool.socket):
            poller.register(socket, zmq.POLLIN)
        return poller

    # The loop.

    def run(self) -> None:
        """Serves until it is asked to stop, by a request, a signal or idleness."""
        with self._signals():
            while not self._is_over():
                ready = dict(self._poller.poll(self._pause()))
                if any(socket in ready for socket in self.listener.sockets):
                    self._answer_requests()
                if self._kept is None:  # else its pool waits
                    self._hear_workers()
                self._tend()
        self._finish()

    def end(self) -> None:
        """Ends `run` within a TICK; for other threads."""
        self._signal = signal.SIGTERM

    def _pause(self) -> int:
        """Milliseconds that the loop may wait."""
        if self._behind:
            return int(1000 * LAG)
        return max(0, int(1000 * (min(self._next_beat, self._next_tick) - time.monotonic())))

    def _answer_requests(self) -> None:
        for _ in range(MOST_AT_ONCE):
            asked = self.listener.receive()
            if asked is None:
                return
            self._answer(asked)

    def _answer(self, asked: Asked) -> None:
        try:
            reply = (self.watchers.watch(asked.client, asked.request) if isinstance(asked.request, Watch)
                     else self.answers.reply(asked.request))
        except FrescoError as error:
            reply = Failed(problem=Problem.of(error))
        self.listener.send(asked.client, reply, asked.id)
        if not isinstance(asked.request, (Hello, Watch)):
            self._busy_at = time.monotonic()
        self._unclaimed = True

    def _hear_workers(self) -> None:
        for _ in range(MOST_AT_ONCE):
            heard = self.pool.hear()
            if heard is None or not self._took(heard):
                return

    def _took(self, heard: Heard) -> bool:
        """Whether what a worker said is on the disk; if not, it is kept."""
        self._kept = None
        try:
            self._take(heard)
        except (OutputError, Busy) as error:
            self.log.say(f"the queue cannot be written, it is tried again: {error}")
            self._kept = heard
        return self._kept is None

    def _tend(self) -> None:
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + TICK
            if self._kept is not None:
                self._took(self._kept)
            self.pool.tend()
            if self.listener.relieve():
                self._poller = self._polling()
                self.watchers.forget()
            self._unclaimed = True  # the disk may have refused the last claim
        if self._unclaimed:
            self._assign()
        self.watchers.gather()
        self._behind = self.watchers.pump()
        if now >= self._next_beat:
            self._next_beat = now + self.options.heartbeat
            self.watchers.beat()

    def _is_over(self) -> bool:
        if self._signal is not None or self.answers.stop is not None:
            return True
        idle = time.monotonic() - self._busy_at
        if self.options.idle_exit is None or idle < self.options.idle_exit:
            return False
        if any(worker.claim for worker in self.pool) or self.queue.jobs({JobState.QUEUED}, limit=0).total:
            self._busy_at = time.monotonic()
            return False
        self.log.say(f"ends: nothing to do for {idle:.0f} s")
        return True

    # Workers.

    def _assign(self) -> None:
        """Gives queued jobs to idle workers."""
        self._unclaimed = False
        for worker in self.pool:
            if worker.idle:
                try:
                    claim = self.queue.claim(worker.name, worker.device)
                except (OutputError, Busy) as error:
                    self.log.say(f"no job can be begun: {error}")
                    return
                if claim is None:
                    return
                self.log.say(f"job {claim.job} begins on {worker.device}, attempt {claim.number}")
                worker.begin(claim)

    def _take(self, heard: Heard) -> None:
        worker, said = heard
        if isinstance(said, str):
            self._take_log(worker, said)
        elif isinstance(said, Death):
            self._take_death(worker, said)
        elif isinstance(said, Ready):
            self.log.say(f"worker {worker.name} is ready on {said.device}")
            self._unclaimed = True
        elif worker.claim is not None:
            with suppress(Interrupted):  # the job is no longer its own; what it says is old
                self._take_word(worker, worker.claim, said)

    def _take_word(self, worker: WorkerProcess, claim: Claim, said: Line) -> None:
        if isinstance(said, Told):
            self._take_event(worker, claim, said)
            return
        if isinstance(said, Done):
            status = self.queue.deliver(claim)
        elif isinstance(said, Halted):
            status = self.queue.give_back(claim)
        elif isinstance(said, Broken):
            status = self.queue.fail(claim, said.problem)
        else:
            return
        worker.rest()
        self.answers.previews.pop(claim.job, None)
        self._unclaimed, self._busy_at = True, time.monotonic()
        words = f": {said.problem.error()}" if isinstance(said, Broken) else ""
        self.log.say(f"job {claim.job} is {status.state.value}{words}")

    def _take_event(self, worker: WorkerProcess, claim: Claim, said: Told) -> None:
        event = said.event()
        if isinstance(event, Previewed):
            self.answers.previews[claim.job] = event
        if not event.durable:
            self.watchers.pass_on(event)
        elif isinstance(self.queue.report(claim, [event]), Wish):
            worker.halt()

    def _take_log(self, worker: WorkerProcess, line: str) -> None:
        if worker.claim is None:
            self.log.say(f"worker {worker.name}: {line.rstrip()}")
        else:
            self.queue.journal.append_log(worker.claim.job, line)

    def _take_death(self, worker: WorkerProcess, death: Death) -> None:
        self.log.say(death.words)
        self._unclaimed = True
        if worker.claim is None:
            return
        self.queue.journal.append_log(worker.claim.job, death.words)
        for status in self.queue.recover(self.pool.names):
            sweep(status)
            self.log.say(f"job {status.id} lost its worker and is {status.state.value} now")
        self.answers.previews.pop(worker.claim.job, None)

    # The end.

    def _finish(self) -> None:
        """Lets running steps end, and the workers give their jobs back."""
        self.log.say("stops")
        self.watchers.stop()
        deadline = time.monotonic() + (0 if self.answers.stop else GRACE)
        for worker in self.pool:
            worker.halt()
        while any(worker.claim for worker in self.pool) and time.monotonic() < deadline:
            self.pool.socket.poll(50)
            if self._kept is None:
                self._hear_workers()

    def _end_workers(self) -> None:
        self.pool.end(seconds=1.0)
        with suppress(FrescoError):  # the next start does it
            for status in self.queue.recover(blamed=False):
                sweep(status)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals end the loop in good order; a second one is for `interruption.py`. Only in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, earlier in before.items():
                signal.signal(number, earlier)

    def _note(self, number: int, _frame: object) -> None:
        self._signal = number


def _allow_many_files() -> None:
    """A connection is an open file: as many as the system lets this user have."""
    if sys.platform != "win32":
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with suppress(OSError, ValueError):  # some systems say more than they give
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def serve(options: Options, *, said: Callable[[Server], None]) -> None:
    """Runs a server until its end. said: is called when clients can find it."""
    with Server(options) as server:
        said(server)
        server.run()


def options_of(*, roots: tuple[Path, ...], queue: Path | None = None, **rest: object) -> Options:
    """Options with the places that the settings name."""
    folders = roots or settings.root_folders()
    models = [settings.models_folder()] if settings.models_folder().is_dir() else []
    rules = settings.path_mapping()
    return Options(queue=queue or settings.queue_file(), connection=settings.connection_file(),
                   mapping=PathMapping.of_file(rules) if rules else PathMapping(),
                   roots=Roots.declared(folders, models), **rest)  # type: ignore[arg-type]
