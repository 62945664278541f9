# SPDX-License-Identifier: Apache-2.0
"""Between the queue and the workers: who gets the next job, and what becomes of what workers say.

When the queue's disk refuses what a worker told, the word is kept, no other is taken, and it is tried again each
second: the workers wait at their pipes, and nothing is lost. A worker that says what cannot be taken at all is killed.
"""
from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field

from fresco_backend.queue.job_state import Claim, Wish
from fresco_backend.queue.jobs import JobQueue
from fresco_backend.queue.journal import EVENT_BYTES
from fresco_backend.server.leftovers import sweep
from fresco_backend.server.server_log import Faults, ServerLog
from fresco_backend.server.watchers import Watchers
from fresco_backend.server.worker_pool import Death, Heard, WorkerPool, WorkerProcess
from fresco_backend.worker.worker_words import Broken, Done, Halted, Line, Ready, Told
from fresco_protocol.errors import Busy, FrescoError, Interrupted, OutputError
from fresco_protocol.events import Previewed
from fresco_protocol.job import JobState

MOST_AT_ONCE = 50  # words of workers, before the loop looks elsewhere


@dataclass(kw_only=True)
class Work:
    """The work of the server. previews: the latest of each job that runs, kept here for whoever asks.

    unclaimed: whether the queue may have a job for an idle worker. behind: whether more was said than `hear` took.
    busy_at: when a job last ended, seconds of the monotonic clock.
    """

    queue: JobQueue
    pool: WorkerPool
    watchers: Watchers
    previews: dict[str, Previewed]
    log: ServerLog
    faults: Faults
    unclaimed: bool = True
    behind: bool = False
    busy_at: float = field(default_factory=time.monotonic)
    _kept: Heard | None = None  # what the disk refused
    _lost: bool = False  # whether a job may be in the hands of a worker that is dead

    @property
    def waits(self) -> bool:
        """Whether a word waits for the disk, and all others with it."""
        return self._kept is not None

    @property
    def is_busy(self) -> bool:
        """Whether a job is being rendered, or waits for a device."""
        return any(worker.claim for worker in self.pool) or bool(self.queue.jobs({JobState.QUEUED}, limit=0).total)

    def begin(self) -> None:
        """Take their jobs from workers of an earlier server."""
        for status in self.queue.recover(blamed=False):
            sweep(status)
            self.log.say(f"job {status.id} was running when the last server ended; it is {status.state.value} now")

    def assign(self) -> None:
        """Give queued jobs to idle workers."""
        self.unclaimed = False
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

    def hear(self) -> None:
        """Take what workers said, some of it at a time."""
        self.behind = False
        for _ in range(MOST_AT_ONCE):
            if self.waits:
                self.pool.hush()
                return
            heard = self.pool.hear()
            if heard is None:
                return
            self.took(heard)
        self.behind = True

    def try_again(self) -> None:
        """Take the word that the disk refused; and jobs from the dead, where that failed."""
        if self._kept is not None:
            self.took(self._kept)
        if self._lost:
            self._recover()
        self.unclaimed = True  # the disk may have refused the last claim

    def took(self, heard: Heard) -> bool:
        """Whether what a worker said is done with; if not, it is kept."""
        self._kept = None
        try:
            self._take(heard)
        except (OutputError, Busy) as error:
            self.log.say(f"the queue cannot be written, it is tried again: {error}")
            self._kept = heard
        except Exception as error:  # noqa: BLE001, whatever it is, it costs this worker and not the server
            self._distrust(heard, error)
        return self._kept is None

    def _take(self, heard: Heard) -> None:
        worker, said = heard
        if isinstance(said, str):
            self._take_log(worker, said)
        elif isinstance(said, Death):
            self._take_death(worker, said)
        elif isinstance(said, Ready):
            self.log.say(f"worker {worker.name} is ready on {said.device}")
            self.unclaimed = True
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
        self.previews.pop(claim.job, None)
        self.unclaimed, self.busy_at = True, time.monotonic()
        words = f": {said.problem.error()}" if isinstance(said, Broken) else ""
        self.log.say(f"job {claim.job} is {status.state.value}{words}")

    def _take_event(self, worker: WorkerProcess, claim: Claim, said: Told) -> None:
        if len(said.body) > EVENT_BYTES:
            self._leave_out(claim, said)
            return
        event = said.event()
        if isinstance(event, Previewed):
            self.previews[claim.job] = event
        if not event.durable:
            self.watchers.pass_on(event)
        elif isinstance(self.queue.report(claim, [event]), Wish):
            worker.halt()

    def _leave_out(self, claim: Claim, said: Told) -> None:
        """An event that the journal does not keep: the render goes on without it."""
        text = f"{said.type} of {len(said.body)} bytes is left out; an event may have {EVENT_BYTES}"
        self.faults.add(f"job {claim.job}", FrescoError(text))
        self.queue.journal.append_log(claim.job, text)

    def _distrust(self, heard: Heard, error: Exception) -> None:
        """Kill a worker that said what the server cannot take; its job goes on with the next one, as after a death."""
        worker = heard.worker
        self.faults.add(f"worker {worker.name} is killed for what it said", error)
        if isinstance(heard.said, Death):
            self._lost = True
            return
        worker.distrust()
        if worker.claim is not None:
            with suppress(FrescoError):
                self.queue.journal.append_log(worker.claim.job, f"killed for what it said: {error!r:.500}")

    def _take_log(self, worker: WorkerProcess, line: str) -> None:
        if worker.claim is None:
            self.log.say(f"worker {worker.name}: {line.rstrip()}")
        else:
            self.queue.journal.append_log(worker.claim.job, line)

    def _take_death(self, worker: WorkerProcess, death: Death) -> None:
        self.log.say(death.words)
        self.unclaimed = True
        if worker.claim is None:
            return
        self.queue.journal.append_log(worker.claim.job, death.words)
        self._recover()
        self.previews.pop(worker.claim.job, None)

    def _recover(self) -> None:
        for status in self.queue.recover(self.pool.names):
            sweep(status)
            self.log.say(f"job {status.id} lost its worker and is {status.state.value} now")
        self._lost = False

    def stop(self, deadline: float) -> None:
        """Let running steps end, and the workers give their jobs back. deadline: by the monotonic clock."""
        for worker in self.pool:
            worker.halt()
        while any(worker.claim for worker in self.pool) and time.monotonic() < deadline:
            self.pool.socket.poll(50)
            self.hear()

    def end(self) -> None:
        """End the workers, and queue what they did not give back."""
        self.pool.end(seconds=1.0)
        with suppress(FrescoError):  # the next start does it
            for status in self.queue.recover(blamed=False):
                sweep(status)
