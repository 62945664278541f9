# SPDX-License-Identifier: Apache-2.0
"""The server: one loop between clients, the queue, workers and watchers. Light: torch lives in the workers.

    client ── request ──> Listener ──> Answers ──> JobQueue ──> Journal ──> Watchers ── events ──> clients
                                          └─ wish ─> WorkerPool ── words ──> Work ──> JobQueue

The loop never waits for a worker or a client, and nothing that one of them sends ends it: what nobody has thought of
costs the request, or the worker that said it, and is in the log.
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
from typing import cast

import zmq

import fresco_backend
from fresco_backend import settings
from fresco_backend.failure import of_the_system
from fresco_backend.path_mapping import PathMapping
from fresco_backend.queue.jobs import JobQueue, Limits
from fresco_backend.roots import Roots
from fresco_backend.server.answers import Answers
from fresco_backend.server.checksums import Checksums
from fresco_backend.server.gate import Gate
from fresco_backend.server.listener import Asked, Listener
from fresco_backend.server.reception import Reception
from fresco_backend.server.server_address import ExclusiveLock, fresh_token, is_copied, publish, withdraw
from fresco_backend.server.server_log import Faults, ServerLog
from fresco_backend.server.staging import KEEP_FREE, LIMIT, Staging, check_staging
from fresco_backend.server.transfers import Transfers
from fresco_backend.server.watchers import Watchers
from fresco_backend.server.work import Work
from fresco_backend.server.worker_pool import ANY, Patience, WorkerPool
from fresco_protocol.connection import Connection
from fresco_protocol.errors import FrescoError, UsageError
from fresco_protocol.job import Problem
from fresco_protocol.messages import Failed, Hello, Submit, Watch

HEARTBEAT = 2.0  # seconds
TICK = 1.0  # seconds between two looks at workers and clocks
LAG = 0.02  # seconds, while a watcher is behind
MOST_AT_ONCE = 50  # requests, before the loop looks elsewhere
GRACE = 6.0  # seconds for a running step at the end; a second later the signal handler of the command ends all
STAGING = ".fresco-staged"
ADAY = 86_400.0  # a lease that never ends: the pool itself sees which workers live


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a server runs. mapping: of paths that clients send. staging: folder of uploads, None is .fresco-staged in the
    first root; upload_limit: bytes of them, 0 takes none; keep_free: bytes of the disk that they leave free.
    port: 0 is any free one. gate: for other machines. devices: see WorkerPool. idle_exit: seconds without work or
    requests until it ends; None is never."""

    queue: Path
    connection: Path
    roots: Roots
    mapping: PathMapping = field(default_factory=PathMapping)
    staging: Path | None = None
    upload_limit: int = LIMIT
    keep_free: int = KEEP_FREE
    port: int = 0
    gate: Gate | None = None
    devices: tuple[str, ...] = (ANY,)
    idle_exit: float | None = None
    heartbeat: float = HEARTBEAT
    patience: Patience = field(default_factory=Patience)

    def staging_folder(self, queue: str) -> Path | None:
        """Where uploads lie: inside a root, for they are read and written there as any other files. queue: the name of
        its journal, for servers of several queues may have one root."""
        first = next(iter(self.roots.folders), None)
        if first is None or self.upload_limit == 0:
            return None
        folder = Path(os.path.realpath(self.staging or first / STAGING))
        self.roots.check_file(folder / queue)
        check_staging(folder, self.roots.folders)
        return Path(os.path.realpath(folder / queue))


class Server:
    """A server in its place: it listens, and clients find it, from the beginning of `with` to its end.

    Raises Busy when another one is there, UsageError for the connection file of another machine's, and what the queue
    raises when its file cannot be used.
    """

    def __init__(self, options: Options, *, log: ServerLog | None = None) -> None:
        self.options = options
        self.log = log or ServerLog(sys.stderr)
        self._open = ExitStack()
        self.faults = Faults(self.log.say)
        self._signal: int | None = None

    def __enter__(self) -> Server:
        _allow_many_files()
        if is_copied(self.options.connection):
            raise UsageError("this connection file is a copy from another machine, and would be written over",
                             where=self.options.connection, remedy="Delete it where it is no longer needed, or set "
                             "FRESCO_CONNECTION to another file.")
        with ExitStack() as stack:
            database = Path(os.path.realpath(self.options.queue))  # which has one lock, whatever link leads to it
            locks = [stack.enter_context(ExclusiveLock(path))
                     for path in dict.fromkeys((database, self.options.connection))]
            self.queue = stack.enter_context(JobQueue(self.options.queue, limits=Limits(lease=ADAY)))
            token = fresh_token()
            gate = stack.enter_context(self.options.gate) if self.options.gate else None
            self.listener = Listener(token, port=self.options.port, gate=gate, say=self.log.say)
            stack.callback(self.listener.close)
            self.pool = WorkerPool(
                self.options.devices, roots=self.options.roots, folder=self.options.queue.parent,
                patience=self.options.patience, descriptors=[lock.descriptor for lock in locks], say=self.log.say)
            self.watchers = Watchers(journal=self.queue.journal, listener=self.listener, say=self.log.say)
            self.transfers = self._transfers(stack)
            self.reception = Reception(_folders)
            stack.callback(self.reception.close)
            self.answers = Answers(queue=self.queue, pool=self.pool, roots=self.options.roots, log=self.log,
                                   transfers=self.transfers, heartbeat=self.options.heartbeat)
            self.work = Work(queue=self.queue, pool=self.pool, watchers=self.watchers, previews=self.answers.previews,
                             log=self.log, faults=self.faults)
            stack.callback(self.work.end)
            self.connection = Connection(endpoint=self.listener.endpoint, token=token, pid=os.getpid(),
                                         version=fresco_backend.__version__)
            self._begin()
            publish(self.connection, self.options.connection)
            stack.callback(withdraw, self.connection, self.options.connection)
            self._open = stack.pop_all()
        gate = self.options.gate
        others = "" if gate is None else f", and for other machines with a listed key at {gate.endpoint}"
        self.log.say(f"listens at {self.listener.endpoint}{others}; connection file {self.options.connection}; queue "
                     f"{self.options.queue}; roots {', '.join(map(str, self.options.roots.folders)) or 'none'}")
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self.log.say("has ended")

    def _transfers(self, stack: ExitStack) -> Transfers:
        checksums = Checksums(self.log.say)
        stack.callback(checksums.close)
        folder = self.options.staging_folder(self.queue.journal.name())
        staging = Staging(folder, limit=self.options.upload_limit, keep_free=self.options.keep_free,
                          checksums=checksums, say=self.log.say)
        return Transfers(queue=self.queue, staging=staging, checksums=checksums, roots=self.options.roots,
                         mapping=self.options.mapping, say=self.log.say)

    def _begin(self) -> None:
        self._poller = self._polling()
        now = time.monotonic()
        self._next_beat = self._next_tick = now
        self._asked_at = now  # when somebody last wanted something
        self._behind = self._idle = False
        self.work.begin()

    def _polling(self) -> zmq.Poller:
        poller = zmq.Poller()
        for socket in (*self.listener.sockets, self.pool.socket, self.reception.socket):
            poller.register(socket, zmq.POLLIN)
        return poller

    # The loop.

    def run(self) -> None:
        """Serves until it is asked to stop, by a request, a signal or idleness."""
        with self._signals():
            while not self._is_over():
                ready = dict(self._poller.poll(self._pause()))
                if any(socket in ready for socket in self.listener.sockets):
                    self._contained(self._answer_requests)
                self._contained(self.work.hear)
                self._tend()
        self._finish()

    def end(self) -> None:
        """Ends `run` within a TICK; for other threads."""
        self._signal = signal.SIGTERM

    def _contained(self, part: Callable[[], object]) -> None:
        """A part of the loop; what it raises is said, and does not end the server. The next round tries it again."""
        try:
            part()
        except Exception as error:  # noqa: BLE001, the jobs of everybody hang on this loop
            self.faults.add(part.__name__.strip("_").replace("_", " "), error)

    def _pause(self) -> int:
        """Milliseconds that the loop may wait."""
        if self.work.behind:
            return 0
        if self._behind:
            return int(1000 * LAG)
        return max(0, int(1000 * (min(self._next_beat, self._next_tick) - time.monotonic())))

    def _answer_requests(self) -> None:
        for _ in range(MOST_AT_ONCE):
            asked = self.listener.receive()
            if asked is None:
                return
            self._answer(asked)

    def _answer(self, asked: Asked, *, judged: bool = False, against: Exception | None = None) -> None:
        """Answers a request, or has its shot judged first. against: what stands against one that was judged."""
        try:
            if against is not None:
                raise against
            if isinstance(asked.request, Submit) and not judged and (judge := self.transfers.judgement(asked.request)):
                self.reception.take(asked, asked.request.client_key, judge)
                return
            reply = (self.watchers.watch(asked.client, asked.request) if isinstance(asked.request, Watch)
                     else self.answers.reply(asked.request))
        except FrescoError as error:
            reply = Failed(problem=Problem.of(error))
        except Exception as error:  # noqa: BLE001, it costs this request
            place = type(asked.request).__name__
            self.faults.add(place, error)
            known = of_the_system(error) if isinstance(error, OSError) else None
            reply = Failed(problem=Problem.of(known or FrescoError(
                f"the server failed at {place}: {error!r:.300}",
                remedy="This is a bug of Fresco; the server's log has more: fresco logs")))
        self.listener.send(asked.client, reply, asked.id)
        if not isinstance(asked.request, (Hello, Watch)):
            self._asked_at = time.monotonic()
        self.work.unclaimed = True

    def _answer_judged(self) -> None:
        for asked, against in self.reception.answered():
            self._answer(asked, judged=True, against=against)

    def _tend(self) -> None:
        now = time.monotonic()
        self._contained(self._answer_judged)
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self._contained(self.work.try_again)
            self._contained(self.pool.tend)
            self._contained(self._relieve)
            self._contained(self._stay_found)
            self._contained(self.transfers.clean)
            self._contained(self._look_for_work)
        self._contained(self._queue_uploaded)
        if self.work.unclaimed:
            self._contained(self.work.assign)
        self._contained(self._tell_watchers)
        if now >= self._next_beat:
            self._next_beat = now + self.options.heartbeat
            self._contained(self.watchers.beat)

    def _queue_uploaded(self) -> None:
        if self.transfers.tend():
            self.work.unclaimed = True

    def _relieve(self) -> None:
        try:
            ended = self.listener.relieve()
        except UsageError as error:  # another program has the port now
            self.faults.add("nobody can connect", error)
            ended = True
        if ended:
            self._poller = self._polling()
            self.watchers.forget()

    def _stay_found(self) -> None:
        """Write the connection file again where it is gone: a user's runtime folder goes with the last login."""
        if not self.options.connection.exists():
            publish(self.connection, self.options.connection)
            self.log.say(f"the connection file was gone, and is written again: {self.options.connection}")

    def _tell_watchers(self) -> None:
        self._behind = False  # where this fails, the loop goes on at its own pace
        self.watchers.gather()
        self._behind = self.watchers.pump()

    def _look_for_work(self) -> None:
        """See whether the server has had nothing to do for too long."""
        idle = time.monotonic() - max(self._asked_at, self.work.busy_at)
        if self.options.idle_exit is None or idle < self.options.idle_exit:
            return
        if self.work.is_busy:
            self._asked_at = time.monotonic()
        else:
            self.log.say(f"ends: nothing to do for {idle:.0f} s")
            self._idle = True

    def _is_over(self) -> bool:
        return self._signal is not None or self.answers.stop is not None or self._idle

    # The end.

    def _finish(self) -> None:
        """Lets running steps end, and the workers give their jobs back."""
        self.log.say("stops")
        self._contained(self.watchers.stop)
        self.work.stop(time.monotonic() + (0 if self.answers.stop else GRACE))

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


def _folders(asked: Asked) -> str:
    """The folders that a shot names, where one of them hangs; none is looked into."""
    shot = cast(Submit, asked.request).shot
    named = [shot.plate.sequence, *([shot.matte.sequence] if shot.matte else []), shot.delivery.sequence]
    return ", ".join(dict.fromkeys(str(Path(path).parent) for path in named))


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
