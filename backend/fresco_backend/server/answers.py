# SPDX-License-Identifier: Apache-2.0
"""What the server answers to each request: the queue's words, in the protocol's."""
from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import fresco_backend
from fresco_backend.queue.job_state import JobStatus, Wish
from fresco_backend.queue.jobs import JobQueue
from fresco_backend.roots import Roots
from fresco_backend.server.server_log import ServerLog
from fresco_backend.server.transfers import Transfers
from fresco_backend.server.worker_pool import WorkerPool
from fresco_protocol import messages as m
from fresco_protocol.errors import JobRefused
from fresco_protocol.events import Previewed
from fresco_protocol.job import Job, JobState
from fresco_protocol.shot import SCHEMA
from fresco_protocol.wire import LARGEST_BODY

SOFTWARE = f"fresco-post {fresco_backend.__version__}"
_LARGEST_PAGE = LARGEST_BODY // 2  # bytes of a list of jobs, for estimates that may err


@dataclass(kw_only=True)
class Answers:
    """Answers requests. heartbeat: seconds between two Alive. last: gives the number of the newest event.

    previews: the latest one of each job that runs. stop: None, else at_once of the Stop that was asked for.
    """

    queue: JobQueue
    pool: WorkerPool
    roots: Roots
    transfers: Transfers
    log: ServerLog
    heartbeat: float
    started: float = field(default_factory=time.time)
    previews: dict[str, Previewed] = field(default_factory=dict)
    stop: bool | None = None

    def reply(self, request: m.Request[Any]) -> m.Reply:
        """The answer to any request but Watch. Raises FrescoError, which is the answer then."""
        return _ANSWERS[type(request)](self, request)

    def _hello(self, _request: m.Hello) -> m.Welcome:
        return m.Welcome(software=SOFTWARE, pid=os.getpid(), shot_schema=SCHEMA, heartbeat=self.heartbeat)

    def _submit(self, request: m.Submit) -> m.Submitted:
        return self.transfers.submit(request)

    def _upload(self, request: m.Upload) -> m.Uploaded:
        return self.transfers.upload(request)

    def _put(self, request: m.PutChunk) -> m.ChunkKept:
        return self.transfers.put(request)

    def _list_delivery(self, request: m.ListDelivery) -> m.DeliveryListed:
        return self.transfers.list_delivery(request)

    def _get(self, request: m.GetChunk) -> m.ChunkGiven:
        return self.transfers.get(request)

    def _discard(self, request: m.Discard) -> m.Changed:
        return self.transfers.discard(request)

    def _list(self, request: m.ListJobs) -> m.Jobs:
        page = self.queue.jobs(request.states, skip=request.skip, limit=request.limit)
        return m.Jobs(records=_fitting([status.record for status in page.jobs]), total=page.total)

    def _show(self, request: m.ShowJob) -> m.JobShown:
        return m.JobShown(record=self.queue.status(request.job).record, shot=self.queue.shot(request.job))

    def _cancel(self, request: m.Cancel) -> m.Changed:
        return self._wished(self.queue.cancel(request.job))

    def _pause(self, request: m.Pause) -> m.Changed:
        return self._wished(self.queue.pause(request.job))

    def _resume(self, request: m.Resume) -> m.Changed:
        return self._wished(self.queue.resume(request.job))

    def _retry(self, request: m.Retry) -> m.Changed:
        self.transfers.check_retry(request.job)
        return m.Changed(record=self.queue.retry(request.job).record)

    def _prioritise(self, request: m.SetPriority) -> m.Changed:
        return m.Changed(record=self.queue.prioritise(request.job, request.priority).record)

    def _move(self, request: m.Move) -> m.Changed:
        return m.Changed(record=self.queue.move(request.job, before=request.before).record)

    def _logs(self, request: m.Logs) -> m.Lines:
        if request.job is None:
            lines, following = self.log.page(request.since, request.limit)
            return m.Lines(lines=lines, next=following)
        page = self.queue.journal.read_log(request.job, request.since, limit=request.limit)
        return m.Lines(lines=page.lines, next=page.next)

    def _preview(self, request: m.Preview) -> m.PreviewImage:
        status = self.queue.status(request.job)
        latest = self.previews.get(request.job)
        if latest is None:
            raise JobRefused(f"there is no preview of this {status.state.value} job", where=f"job {request.job}",
                             remedy="Previews are made while keyframes are denoised; ask again then.")
        return m.PreviewImage(**{name: value for name, value in vars(latest).items() if name not in ("number", "time")})

    def _status(self, _request: m.Status) -> m.ServerStatus:
        counts = {state: self.queue.jobs({state}, limit=0).total for state in _COUNTED}
        return m.ServerStatus(
            software=SOFTWARE, pid=os.getpid(), started=self.started, workers=tuple(w.record for w in self.pool),
            queued=counts[JobState.QUEUED], running=counts[JobState.RUNNING], paused=counts[JobState.PAUSED],
            roots=tuple(map(str, self.roots.folders)), last=self.queue.journal.last_number())

    def _models(self, _request: m.ListModels) -> m.Models:
        from fresco_backend.models.model_library import Kind, named  # asked for seldom; the hub's library takes a while

        found = named()
        return m.Models(models=found[Kind.MODEL], loras=found[Kind.LORA], autoencoders=found[Kind.AUTOENCODER],
                        controlnets=found[Kind.CONTROLNET])

    def _stop(self, request: m.Stop) -> m.Stopping:
        self.stop = request.at_once or bool(self.stop)
        return m.Stopping()

    def _wished(self, status: JobStatus) -> m.Changed:
        """Passes what a person wants of a running job on to its worker."""
        worker = self.pool.having(status.id)
        if worker is not None and status.state is JobState.RUNNING:
            worker.halt() if isinstance(status.wish, Wish) else worker.go_on()
        return m.Changed(record=status.record)


_COUNTED = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)
_ANSWERS: Mapping[type[m.Request[Any]], Callable[[Answers, Any], m.Reply]] = {
    m.Hello: Answers._hello, m.Submit: Answers._submit, m.ListJobs: Answers._list, m.ShowJob: Answers._show,
    m.Cancel: Answers._cancel, m.Pause: Answers._pause, m.Resume: Answers._resume, m.Retry: Answers._retry,
    m.SetPriority: Answers._prioritise, m.Move: Answers._move, m.Logs: Answers._logs, m.Preview: Answers._preview,
    m.Upload: Answers._upload, m.PutChunk: Answers._put, m.ListDelivery: Answers._list_delivery,
    m.GetChunk: Answers._get, m.Discard: Answers._discard,
    m.Status: Answers._status, m.ListModels: Answers._models, m.Stop: Answers._stop}


def _fitting(records: list[Job]) -> tuple[Job, ...]:
    """The first of the records, as many as surely fit in one reply, but at least one."""
    size = 0
    found: list[Job] = []
    for record in records:
        problem = record.problem
        texts = [record.name, record.output, record.client_key]
        texts += [text for text in (problem.what, problem.where, problem.remedy) if text] if problem else []
        size += 600 + 12 * sum(map(len, texts))  # a character takes twelve bytes at most, escaped
        if found and size > _LARGEST_PAGE:
            break
        found.append(record)
    return tuple(found)
