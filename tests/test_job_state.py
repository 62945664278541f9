# SPDX-License-Identifier: Apache-2.0
"""The transition table, and the queue against a simple model of it."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from queues import MEMORY, Clock, ended, live, shot, step

from fresco_backend.queue.job_state import ENDED, LIVE, TRANSITIONS, Claim, check_transition
from fresco_backend.queue.jobs import RESUMPTIONS, JobQueue
from fresco_protocol.errors import (
    FrescoError,
    Interrupted,
    UsageError,
)
from fresco_protocol.events import JobChanged
from fresco_protocol.job import JobState, Problem


def test_every_transition_outside_the_table_is_a_bug_and_says_so() -> None:
    for before, after in itertools.product(JobState, JobState):
        if after in TRANSITIONS[before]:
            check_transition("a", before, after)
            continue
        with pytest.raises(FrescoError, match=f"a {before.value} job does not become {after.value}") as caught:
            check_transition("a", before, after)
        assert caught.value.code == "bug"
    assert TRANSITIONS[JobState.DELIVERED] == frozenset()
    assert set(TRANSITIONS) == set(JobState) == LIVE | ENDED


PEOPLE: dict[str, dict[JobState, JobState]] = {  # what each wish makes of a job that does not run; else UsageError
    "release": dict.fromkeys((JobState.SUBMITTED, JobState.QUEUED), JobState.QUEUED),
    "cancel": dict.fromkeys((JobState.SUBMITTED, JobState.QUEUED, JobState.PAUSED, JobState.CANCELLED),
                            JobState.CANCELLED),
    "pause": dict.fromkeys((JobState.QUEUED, JobState.PAUSED), JobState.PAUSED),
    "resume": dict.fromkeys((JobState.QUEUED, JobState.PAUSED), JobState.QUEUED),
    "retry": dict.fromkeys((JobState.FAILED, JobState.CANCELLED, JobState.QUEUED), JobState.QUEUED),
}
SAME = object()
WISHES: dict[str, Any] = {  # what the worker of a running job hears then
    "cancel": "cancel", "pause": "pause", "resume": None, "retry": SAME}


@dataclass
class Modelled:
    """A job as plain facts."""

    id: str
    state: JobState
    priority: int
    key: str
    claims: int = 0
    deaths: int = 0
    wish: str | None = None
    story: list[str] = field(default_factory=list)

    def enter(self, state: JobState) -> None:
        self.state, self.wish = state, None
        self.story.append(state.value)

    def stop(self) -> None:
        ends = {"cancel": JobState.CANCELLED, "pause": JobState.PAUSED, None: JobState.QUEUED}
        self.enter(ends[self.wish])


class QueueMachine(RuleBasedStateMachine):
    """Any sequence of submits, wishes, workers' words, deaths and restarts, beside a list that does the same."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY, prefix="fresco-test-"))
        self.clock = Clock()
        self.jobs: dict[str, Modelled] = {}
        self.order: list[str] = []  # jobs that have not ended, in their order but for priority
        self.claims: dict[str, Claim] = {}
        self.stale: list[Claim] = []
        self.workers = itertools.count()
        self.seen = 0  # events
        self.told: dict[str, list[str]] = {}

    @initialize()
    def open(self) -> None:
        self.queue = JobQueue(self.folder / "q", clock=self.clock)

    def teardown(self) -> None:
        self.queue.close()
        shutil.rmtree(self.folder)

    def job(self, index: int) -> Modelled:
        return list(self.jobs.values())[index % len(self.jobs)]

    def refuses(self, verb: str, *arguments: Any, **named: Any) -> None:
        with pytest.raises(UsageError):
            getattr(self.queue, verb)(*arguments, **named)

    @rule(priority=st.integers(-2, 2), pending=st.booleans())
    def submit(self, priority: int, pending: bool) -> None:
        key = f"key {len(self.jobs)}"
        status, created = self.queue.submit(shot(), key=key, priority=priority, plate_pending=pending)
        assert created
        job = Modelled(id=status.id, key=key, state=JobState.PAUSED, priority=priority)
        job.enter(JobState.SUBMITTED if pending else JobState.QUEUED)
        self.jobs[job.id] = job
        self.order.append(job.id)

    @precondition(lambda self: self.jobs)
    @rule(index=st.integers(0, 30))
    def submit_again(self, index: int) -> None:
        job = self.job(index)
        status, created = self.queue.submit(shot(), key=job.key)
        assert (status.id, created) == (job.id, False)
        self.refuses("submit", shot(prompt="oil"), key=job.key)

    @precondition(lambda self: self.jobs)
    @rule(index=st.integers(0, 30), wish=st.sampled_from(sorted(PEOPLE)))
    def wish(self, index: int, wish: str) -> None:
        job = self.job(index)
        running = job.state is JobState.RUNNING
        if (running and (wish not in WISHES or (wish, job.wish) == ("resume", "cancel"))) or (
            not running and job.state not in PEOPLE[wish]
        ):
            self.refuses(wish, job.id)
            return
        getattr(self.queue, wish)(job.id)
        if running:
            job.wish = job.wish if job.wish == "cancel" or WISHES[wish] is SAME else WISHES[wish]
        elif PEOPLE[wish][job.state] is not job.state:
            if wish == "retry":
                job.deaths = 0
                self.order.append(job.id)
            job.enter(PEOPLE[wish][job.state])

    @precondition(lambda self: self.jobs)
    @rule(index=st.integers(0, 30), priority=st.integers(-3, 3))
    def prioritise(self, index: int, priority: int) -> None:
        job = self.job(index)
        if job.state in ENDED:
            self.refuses("prioritise", job.id, priority)
            return
        self.queue.prioritise(job.id, priority)
        job.story += [job.state.value] if job.priority != priority else []
        job.priority = priority

    @precondition(lambda self: self.jobs)
    @rule(index=st.integers(0, 30), other=st.integers(0, 30))
    def move(self, index: int, other: int) -> None:
        job, before = self.job(index), self.job(other)
        if {job.state, before.state} & (ENDED | {JobState.RUNNING}):
            self.refuses("move", job.id, before=before.id)
            return
        self.queue.move(job.id, before=before.id)
        if job is not before:
            self.order.remove(job.id)
            self.order.insert(self.order.index(before.id), job.id)
            job.priority = before.priority
            job.story.append(job.state.value)

    def expected(self) -> list[str]:
        """Jobs that have not ended, as workers would get them."""
        return sorted(self.order, key=lambda number: -self.jobs[number].priority)

    @rule()
    def claim(self) -> None:
        worker = f"w{next(self.workers)}"
        found = self.queue.claim(worker, "cpu")
        queued = [number for number in self.expected() if self.jobs[number].state is JobState.QUEUED]
        assert (found.job if found else None) == (queued[0] if queued else None)
        if found:
            job = self.jobs[found.job]
            job.enter(JobState.RUNNING)
            job.claims += 1
            self.claims[worker] = found

    @precondition(lambda self: self.claims)
    @rule(index=st.integers(0, 30), word=st.sampled_from(["report", "deliver", "fail", "give_back"]))
    def word(self, index: int, word: str) -> None:
        worker = sorted(self.claims)[index % len(self.claims)]
        claim = self.claims[worker]
        job = self.jobs[claim.job]
        if word == "report":
            heard = self.queue.report(claim, [step(claim.job)])
            assert (heard and heard.value) == job.wish
            job.story.append("step")
            return
        self.stale.append(self.claims.pop(worker))
        if word == "give_back":
            self.queue.give_back(claim)
            job.stop()
        elif word == "fail":
            self.queue.fail(claim, Problem(code="bug", what="words"))
            job.enter(JobState.FAILED)
        else:
            self.queue.deliver(claim)
            job.enter(JobState.DELIVERED)

    @precondition(lambda self: self.stale)
    @rule(index=st.integers(0, 30), word=st.sampled_from(["report", "deliver", "give_back"]))
    def late_word(self, index: int, word: str) -> None:
        with pytest.raises(Interrupted):
            getattr(self.queue, word)(self.stale[index % len(self.stale)])

    @rule(alive=st.sets(st.integers(0, 30)), silent=st.booleans())
    def recover(self, alive: set[int], silent: bool) -> None:
        self.clock.now += 61 if silent else 0
        names = {f"w{number}" for number in alive}
        lost = [worker for worker in self.claims if silent or worker not in names]
        recovered = self.queue.recover(alive=names)
        assert {status.id for status in recovered} == {self.claims[worker].job for worker in lost}
        for worker in lost:
            self.stale.append(self.claims.pop(worker))
            job = self.jobs[self.stale[-1].job]
            job.deaths += 1
            if job.wish is None and job.deaths > RESUMPTIONS:
                job.enter(JobState.FAILED)
            else:
                job.stop()

    @rule()
    def restart(self) -> None:
        self.queue.close()
        self.queue = JobQueue(self.folder / "q", clock=self.clock)

    @invariant()
    def the_queue_is_as_the_model(self) -> None:
        self.order = [number for number in self.order if self.jobs[number].state not in ENDED]
        assert [status.id for status in live(self.queue)] == self.expected()
        found = {status.id: status for status in (*live(self.queue), *ended(self.queue))}
        for job in self.jobs.values():
            status = found.pop(job.id)
            assert (status.state, status.priority, status.claims, status.interruptions) == (
                job.state, job.priority, job.claims, job.deaths)
            assert (status.wish and status.wish.value) == job.wish
            assert (status.ended_at is not None) == (job.state in ENDED)
        assert not found

    @invariant()
    def the_events_tell_it(self) -> None:
        events = self.queue.journal.events(self.seen, limit=10_000)
        assert [event.number for event in events] == list(range(self.seen + 1, self.seen + len(events) + 1))
        self.seen += len(events)
        for event in events:
            told = event.record.state.value if isinstance(event, JobChanged) else "step"
            self.told.setdefault(event.job, []).append(told)
        assert self.told == {number: job.story for number, job in self.jobs.items()}


QueueMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestQueueAgainstTheModel = QueueMachine.TestCase
