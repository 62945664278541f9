# SPDX-License-Identifier: Apache-2.0
"""The workers of the server, seen from the server: one child process a device, watched, and replaced when it dies.

Threads read the children's pipes into one queue and wake the server's loop through an inproc socket, so that it waits
at one place for clients and workers, on every system. A worker that falls silent is killed: frames are atomic, and a
killed worker is what the queue recovers from anyway.
"""
from __future__ import annotations

import queue
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import zmq

from fresco_backend import settings
from fresco_backend.queue.job_state import Claim
from fresco_backend.roots import Roots
from fresco_backend.server.leftovers import worker_name
from fresco_backend.worker.worker_words import LONGEST_LINE, Beat, GoOn, Halt, Line, Ready, Render, line_of
from fresco_protocol.errors import FrescoError
from fresco_protocol.job import Worker

ANY = "auto"  # the device that a worker chooses itself
LARGEST_LOG = 64 * 1024  # bytes of a log that are written at once: each time waits for the disk
MOST_UNHEARD = 1000  # lines that wait for the server; then the workers wait
LEAVING = 0.2  # seconds in which a worker that has closed its pipe ends, as a rule
ORPHANED = 5.0  # seconds until the pipe of an ended worker, which another process holds open, is no longer waited for


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Seconds until the server acts. start: until a worker is ready; silence: without a heartbeat; stall: without an
    event of its job; halt: until a job stops that was asked to; respawn: from a death to the next start, doubled each
    time up to `longest_respawn`."""

    start: float = 300.0
    silence: float = 60.0
    stall: float = 3600.0
    halt: float = 60.0
    respawn: float = 0.5
    longest_respawn: float = 60.0


class Death(NamedTuple):
    """A worker ended. words: how, for a log."""

    words: str


class _Raw(NamedTuple):
    """What came out of a pipe. line: None when the worker is gone. is_log: of its log, not a word."""

    worker: str
    line: bytes | None
    is_log: bool = False


class Heard(NamedTuple):
    """Something from a worker: a word, lines of its log, or its death."""

    worker: WorkerProcess
    said: Line | str | Death


@dataclass(kw_only=True, eq=False)
class WorkerProcess:
    """One child. name: no other process ever had it. device: asked for, then the one that it has.

    since: when what it does now began; heard, worked: last heartbeat and last event; ended: when its end was seen;
    seconds of the monotonic clock. leaving: it says nothing more, and its end is waited for. distrusted: it was killed
    for what it said, and what it said after that is not taken.
    """

    name: str
    device: str
    process: subprocess.Popen[bytes]
    orders: queue.SimpleQueue[bytes | None] = field(default_factory=queue.SimpleQueue)
    ready: bool = False
    claim: Claim | None = None
    halt_since: float | None = None
    since: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    worked: float = field(default_factory=time.monotonic)
    beat: Beat | None = None
    ended: float | None = None
    leaving: bool = False
    distrusted: bool = False

    def begin(self, claim: Claim) -> None:
        """Give it a job."""
        self.claim, self.halt_since, self.worked = claim, None, time.monotonic()
        self.orders.put(Render(job=claim.job, shot=claim.shot, attempt=claim.number).to_bytes())

    def halt(self) -> None:
        """Ask it to stop its job after the running step."""
        if self.claim is not None and self.halt_since is None:
            self.halt_since = time.monotonic()
            self.orders.put(Halt().to_bytes())

    def go_on(self) -> None:
        """Take the Halt back."""
        if self.halt_since is not None:
            self.halt_since = None
            self.orders.put(GoOn().to_bytes())

    def distrust(self) -> None:
        """Kill it for what it said."""
        self.distrusted = True
        self.process.kill()

    def rest(self) -> None:
        """Its job has ended."""
        self.claim, self.halt_since = None, None

    @property
    def idle(self) -> bool:
        """Whether it can take a job."""
        return self.ready and self.claim is None

    @property
    def record(self) -> Worker:
        """The worker as the protocol tells it."""
        beat = self.beat or Beat(model=None, memory_bytes=None, memory_total=None)
        return Worker(device=self.device, job=self.claim.job if self.claim else None, model=beat.model,
                      memory_bytes=beat.memory_bytes, memory_total=beat.memory_total)

    def overdue(self, patience: Patience, now: float) -> str | None:
        """Why it must be taken for stuck; None while it need not."""
        if now - self.heard > (patience.silence if self.ready else patience.start):
            return f"no sign of life for {now - self.heard:.0f} s"
        if self.claim is None:
            return None
        if now - self.worked > patience.stall:
            return f"no progress for {now - self.worked:.0f} s"
        if self.halt_since is not None and now - self.halt_since > patience.halt:
            return f"it did not stop within {patience.halt:.0f} s"
        return None


class WorkerPool:
    """The workers. devices: what they shall use, one each; empty for none. `(ANY,)` starts one that finds the
    devices of the machine, and then one for each other GPU. descriptors: of locks, for the children to hold.
    say: writes a line into the server's log.
    """

    def __init__(self, devices: Sequence[str], *, roots: Roots, folder: Path, patience: Patience | None = None,
                 descriptors: Sequence[int] = (), say: Callable[[str], None]) -> None:
        self.patience = patience or Patience()
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PULL)
        self._said = _Said(self.socket)
        self._roots, self._folder, self._descriptors, self._say = roots, folder, tuple(descriptors), say
        self._workers: dict[str, WorkerProcess] = {}
        self._due = [(0.0, device) for device in devices]  # when to start which worker
        self._pauses: dict[str, float] = {}
        self._alone = tuple(devices) == (ANY,)
        self._seen = time.monotonic()

    def __iter__(self) -> Iterator[WorkerProcess]:
        return iter(list(self._workers.values()))

    @property
    def names(self) -> set[str]:
        """The names of those that run."""
        return set(self._workers)

    def having(self, job: str) -> WorkerProcess | None:
        """The worker that has this job."""
        return next((worker for worker in self if worker.claim is not None and worker.claim.job == job), None)

    def tend(self) -> None:
        """Start those that are due, and kill those that are stuck; their death is then heard as any other."""
        now = time.monotonic()
        for due, device in [entry for entry in self._due if entry[0] <= now]:
            self._due.remove((due, device))
            self._start(device)
        if now - self._seen > self.patience.silence / 4:  # the server itself was stopped
            self._excuse(now)
        self._seen = now
        for worker in self:
            if worker.process.poll() is not None:
                worker.ended = worker.ended or now
                worker.leaving |= now - worker.ended > ORPHANED
            elif not worker.leaving and (reason := worker.overdue(self.patience, now)):
                self._say(f"worker {worker.name} on {worker.device} is killed: {reason}")
                worker.heard = worker.worked = now
                worker.halt_since = None
                worker.process.kill()

    def hear(self) -> Heard | None:
        """The next thing that a worker said; None when there is nothing."""
        while (raw := self._said.next()) is not None:
            worker = self._workers.get(raw.worker)
            if worker is not None and (heard := self._take(worker, raw)) is not None:
                return heard
        for worker in self:
            if worker.leaving and worker.process.poll() is not None:
                return Heard(worker, self._bury(worker))
        return None

    def hush(self) -> None:
        """Let what waits to be heard no longer wake the loop; what is said after this does. Nobody is overdue for it.
        """
        self._said.hush()
        self._excuse(time.monotonic())

    def end(self, *, seconds: float) -> None:
        """End all workers: their pipes are closed, and those that are not gone in time are killed."""
        self._due.clear()
        for worker in self:
            worker.orders.put(None)
        deadline = time.monotonic() + seconds
        for worker in self:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
        for worker in self:
            with suppress(subprocess.TimeoutExpired):  # the system does not end it; its lock keeps others away
                worker.process.wait(1.0)
        self.socket.close(0)

    def _excuse(self, now: float) -> None:
        """Begin all clocks anew: the server heard nobody, and that was no worker's fault."""
        for worker in self:
            worker.heard = worker.worked = now
            worker.halt_since = now if worker.halt_since is not None else None

    def _take(self, worker: WorkerProcess, raw: _Raw) -> Heard | None:
        if raw.line is None:
            return self._dismissed(worker)
        if worker.distrusted and not raw.is_log:
            return None
        if raw.is_log:
            return Heard(worker, raw.line.decode("utf-8", "replace"))
        try:
            line = line_of(raw.line)
        except (FrescoError, UnicodeDecodeError) as error:  # what it says after this cannot be trusted either
            worker.distrust()
            return Heard(worker, f"it said what cannot be understood, and is killed: {error}")
        worker.heard = time.monotonic()
        if isinstance(line, Beat):
            worker.beat = line
        elif isinstance(line, Ready):
            self._welcome(worker, line)
        else:
            worker.worked = worker.heard
        return Heard(worker, line)

    def _welcome(self, worker: WorkerProcess, ready: Ready) -> None:
        worker.ready, worker.device = True, ready.device
        self._pauses.pop(ready.device, None)
        if self._alone:
            self._alone = False
            self._due += [(0.0, device) for device in ready.devices
                          if device.startswith("cuda") and device != ready.device]

    def _dismissed(self, worker: WorkerProcess) -> Heard | None:
        """Its death, where it has ended. Else it is killed; until it is gone it may write, and keeps its job."""
        worker.ready, worker.leaving = False, True
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(LEAVING)
            return Heard(worker, self._bury(worker))
        self._say(f"worker {worker.name} on {worker.device} is killed: it says nothing more, and does not end")
        worker.process.kill()
        return None

    def _bury(self, worker: WorkerProcess) -> Death:
        del self._workers[worker.name]
        code = worker.process.returncode
        self._start_later(worker.device)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return Death(f"worker {worker.name} on {worker.device} {how}")

    def _start_later(self, device: str) -> float:
        """Start one on this device again, after a pause that grows; gives the pause, seconds."""
        pause = self._pauses.get(device, self.patience.respawn)
        self._pauses[device] = min(2 * pause, self.patience.longest_respawn)
        self._due.append((time.monotonic() + pause, device))
        return pause

    def _start(self, device: str) -> None:
        try:
            process = self._spawned(device)
        except OSError as error:  # no memory, too many files or processes
            pause = self._start_later(device)
            self._say(f"no worker can be started on {device}, it is tried again in {pause:.1f} s: {error}")
            return
        name = worker_name(process.pid)
        worker = self._workers[name] = WorkerProcess(name=name, device=device, process=process)
        self._say(f"worker {name} starts on {device}, process {process.pid}")
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        log = _begin(_read_log, self._said, name, process.stderr)
        _begin(_read_words, self._said, name, process.stdout, log)
        _begin(_write_orders, process.stdin, worker.orders)

    def _spawned(self, device: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-P", "-m", "fresco_backend.worker.worker", "--device", device]
        words += [word for folder in self._roots.folders for word in ("--root", str(folder))]
        words += [word for folder in self._roots.models for word in ("--models", str(folder))]
        return subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self._folder,
            env=settings.child_environment(), pass_fds=self._descriptors if sys.platform != "win32" else (),
            start_new_session=True)  # Ctrl-C on the server's terminal is for the server


class _Said:
    """What threads read from the pipes, in order, for the thread of the server, whose socket wakes it."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._address = f"inproc://workers-{secrets.token_hex(8)}"
        socket.bind(self._address)
        self._waiting: queue.Queue[_Raw] = queue.Queue(MOST_UNHEARD)
        self._ahead: _Raw | None = None  # taken already, and not given yet

    def next(self) -> _Raw | None:
        """What came first; None when nothing is there. Lines of a log that follow each other come as one."""
        self.hush()
        found, self._ahead = self._ahead or self._taken(), None
        while found is not None and found.line is not None and found.is_log and len(found.line) < LARGEST_LOG:
            self._ahead = self._taken()
            if self._ahead is None or not self._ahead.is_log or self._ahead.worker != found.worker:
                break
            found = found._replace(line=found.line + (self._ahead.line or b""))
            self._ahead = None
        return found

    def hush(self) -> None:
        """Take the wakes, and none of the lines."""
        with suppress(zmq.Again):
            while True:
                self._socket.recv(zmq.NOBLOCK)

    def _taken(self) -> _Raw | None:
        with suppress(queue.Empty):
            return self._waiting.get_nowait()
        return None

    @contextmanager
    def teller(self) -> Iterator[Callable[[_Raw], None]]:
        """What a thread calls for each line; it waits while too many wait."""
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(self._address)

        def tell(raw: _Raw) -> None:
            self._waiting.put(raw)
            with suppress(zmq.Again):  # so many wakes wait already that one more is not needed
                socket.send(b"", zmq.NOBLOCK)

        with socket:
            yield tell


def _begin(target: Callable[..., None], *words: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=words, daemon=True)
    thread.start()
    return thread


def _read_words(said: _Said, name: str, pipe: IO[bytes], log: threading.Thread) -> None:
    with said.teller() as tell, pipe:
        with suppress(OSError):  # its death must be told in any case
            while line := pipe.readline(LONGEST_LINE):
                tell(_Raw(name, line))
        log.join(1.0)  # its last words come before its death
        tell(_Raw(name, None))


def _read_log(said: _Said, name: str, pipe: IO[bytes]) -> None:
    with said.teller() as tell, pipe:
        while line := pipe.readline(LONGEST_LINE):
            tell(_Raw(name, line, is_log=True))


def _write_orders(pipe: IO[bytes], orders: queue.SimpleQueue[bytes | None]) -> None:
    """A thread of its own, because a worker that is stopped reads nothing and the pipe fills."""
    try:
        with pipe:
            while (order := orders.get()) is not None:
                pipe.write(order)
                pipe.flush()
    except OSError:  # the worker is gone, and its death is heard elsewhere
        return
