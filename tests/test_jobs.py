# SPDX-License-Identifier: Apache-2.0
"""The queue of the server: orders of people, words of workers, deaths of workers, limits."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from queues import STEP, Clock, claim, drained, shot, submit

from fresco_backend.job_state import JobState, JobStatus, Request
from fresco_backend.jobs import RESUMPTIONS, JobQueue, Limits
from fresco_protocol.errors import (
    Busy,
    FrescoError,
    Interrupted,
    ShotError,
    UsageError,
)

pytest_plugins = ["queues"]


def test_a_submitted_job_waits_until_its_plate_is_there(queue: JobQueue) -> None:
    job = queue.submit(shot(), key="a", plate_pending=True)
    assert job.state is JobState.SUBMITTED
    assert queue.claim("w1", "cpu") is None
    assert queue.release(job.id).state is JobState.QUEUED
    assert claim(queue).job == job.id
    with pytest.raises(UsageError, match="cannot be released"):
        queue.release(job.id)


def test_the_same_key_and_shot_are_the_same_job_whatever_became_of_it(queue: JobQueue) -> None:
    first = queue.submit(shot(), key="a", priority=3)
    assert queue.submit(shot(), key="a", priority=9) == first
    queue.deliver(claim(queue))
    assert queue.submit(shot(), key="a").state is JobState.DELIVERED
    with pytest.raises(UsageError, match=r'"a" belongs to another shot \(job 1\)'):
        queue.submit(shot(prompt="oil"), key="a")
    assert queue.submit(shot(), key="b").id != first.id
    assert len(queue.active()) + len(queue.history()) == 2


def test_priority_comes_first_and_then_the_order_of_submission(queue: JobQueue) -> None:
    jobs = {name: submit(queue, name, priority) for name, priority in zip("abcdef", (0, 0, 5, 0, 5, -1), strict=True)}
    queue.prioritise(jobs["f"], 5)
    queue.prioritise(jobs["a"], 5)
    assert [status.name for status in queue.active()] == list("acefbd")
    queue.prioritise(jobs["a"], 0)
    queue.move(jobs["d"], before=jobs["e"])
    assert queue.status(jobs["d"]).priority == 5
    assert drained(queue) == [jobs[name] for name in "cdefab"]


def test_a_pause_keeps_the_place_and_a_retry_goes_to_the_end(queue: JobQueue) -> None:
    jobs = [submit(queue, name) for name in "abc"]
    queue.pause(jobs[0])
    queue.cancel(jobs[1])
    assert [status.id for status in queue.active()] == [jobs[0], jobs[2]]
    queue.retry(jobs[1])
    queue.resume(jobs[0])
    assert drained(queue) == [jobs[0], jobs[2], jobs[1]]


def test_what_a_person_asks_of_a_running_job_its_worker_hears(queue: JobQueue) -> None:
    submit(queue, "a")
    held = claim(queue)
    assert queue.report(held, [STEP]) is None
    queue.pause(held.job)
    assert queue.report(held) is Request.PAUSE
    queue.resume(held.job)
    assert queue.report(held) is None
    queue.pause(held.job)
    queue.cancel(held.job)
    assert queue.pause(held.job).request is Request.CANCEL  # a pause does not take a cancel back
    with pytest.raises(UsageError, match="about to be cancelled"):
        queue.resume(held.job)
    assert queue.give_back(held).state is JobState.CANCELLED
    assert queue.cancel(held.job).state is JobState.CANCELLED
    with pytest.raises(UsageError, match="a cancelled job cannot be paused"):
        queue.pause(held.job)
    with pytest.raises(UsageError, match="there is no job 99"):
        queue.cancel(99)


@pytest.mark.parametrize(("asked", "state"), [
    (None, JobState.QUEUED), (JobQueue.pause, JobState.PAUSED), (JobQueue.cancel, JobState.CANCELLED)])
def test_a_job_whose_worker_stops_or_dies_becomes_what_was_asked(
    queue: JobQueue, asked: Callable[[JobQueue, int], JobStatus] | None, state: JobState
) -> None:
    for end in (queue.give_back, lambda _: queue.recover()[0]):
        job = submit(queue, f"job {queue.journal.last_number()}", priority=queue.journal.last_number() % 100)
        held = claim(queue)
        assert held.job == job
        if asked:
            asked(queue, job)
        after = end(held)
        assert (after.state, after.request) == (state, None)


def test_a_delivery_stands_though_a_cancel_came(queue: JobQueue) -> None:
    submit(queue, "a")
    held = claim(queue)
    queue.cancel(held.job)
    assert queue.deliver(held).state is JobState.DELIVERED
    with pytest.raises(UsageError, match="a delivered job cannot be cancelled"):
        queue.cancel(held.job)


def test_a_worker_has_one_job(queue: JobQueue) -> None:
    submit(queue, "a")
    submit(queue, "b")
    claim(queue)
    with pytest.raises(FrescoError, match="has a job already") as caught:
        queue.claim("w1", "cpu")
    assert caught.value.code == "bug"
    assert len([status for status in queue.active() if status.state is JobState.RUNNING]) == 1


# Workers that die.


def test_a_lease_that_is_renewed_holds_and_one_that_is_not_ends(queue: JobQueue, clock: Clock) -> None:
    submit(queue, "a")
    held = claim(queue)
    for _ in range(5):
        clock.now += 50
        queue.report(held)
        assert queue.recover(alive={"w1"}) == ()
    clock.now += 61
    (lost,) = queue.recover(alive={"w1"})
    assert (lost.state, lost.interruptions) == (JobState.QUEUED, 1)
    late: list[Callable[[], object]] = [
        lambda: queue.report(held, [STEP]), lambda: queue.deliver(held), lambda: queue.give_back(held),
        lambda: queue.fail(held, "x")]
    before = queue.journal.last_number()
    for again in (False, True):  # also when the same worker has the job again, by another claim
        if again:
            assert claim(queue).number == held.number + 1
            before += 1
        for word in late:
            with pytest.raises(Interrupted, match="was taken from worker w1"):
                word()
    assert queue.journal.last_number() == before


def test_after_two_resumptions_a_job_fails_with_its_last_words(queue: JobQueue) -> None:
    submit(queue, "a", priority=1)
    submit(queue, "b")
    for attempt in range(RESUMPTIONS + 1):
        held = claim(queue, f"w{attempt}")
        assert held.job == 1  # it keeps its place
        queue.journal.append_log(held.job, f"attempt {attempt}\nSegmentation fault of device {attempt}\n")
        (after,) = queue.recover()
    assert (after.state, after.interruptions, after.claims) == (JobState.FAILED, 3, 3)
    assert after.words is not None
    assert after.words.endswith("attempt 2\nSegmentation fault of device 2")
    assert queue.retry(1).interruptions == 0
    assert queue.status(1).words is None


def test_only_jobs_of_dead_workers_are_taken(queue: JobQueue) -> None:
    for name in "abc":
        submit(queue, name)
    held = [claim(queue, worker) for worker in ("w1", "w2", "w3")]
    assert [status.id for status in queue.recover(alive={"w1", "w3"})] == [held[1].job]
    assert queue.report(held[0]) is None


def test_a_shot_that_this_version_cannot_read_fails_and_holds_nobody_up(queue: JobQueue, folder: Path) -> None:
    submit(queue, "a")
    submit(queue, "b")
    with sqlite3.connect(folder / "jobs.sqlite") as other:
        other.execute("UPDATE job SET shot = replace(shot, '\"schema\": 1', '\"schema\": 7') WHERE id = 1")
    other.close()
    assert claim(queue).job == 2
    failed = queue.status(1)
    assert failed.state is JobState.FAILED
    assert failed.words is not None
    assert "schema" in failed.words


def test_history_has_the_shot_for_another_go(queue: JobQueue) -> None:
    original = shot("dock", prompt="gouache, größer")
    queue.submit(original, key="a")
    queue.fail(claim(queue), "no such plate \udcff")
    (ended,) = queue.history()
    assert (ended.state, ended.name, ended.words) == (JobState.FAILED, "dock", "no such plate \\udcff")
    assert queue.shot(ended.id) == original
    assert queue.submit(queue.shot(ended.id), key="b").state is JobState.QUEUED
    assert queue.history(skip=1) == ()
    with pytest.raises(UsageError, match="there is no job 9"):
        queue.shot(9)


def test_limits_are_said_in_words(folder: Path) -> None:
    with JobQueue(folder / "q", limits=Limits(active=2, shot_bytes=3_000)) as queue:
        with pytest.raises(ShotError, match="at most 3000 bytes"):
            queue.submit(shot(prompt="p" * 3_000), key="a")
        submit(queue, "a")
        submit(queue, "b")
        with pytest.raises(Busy, match="2 jobs have not ended"):
            submit(queue, "c")
        assert submit(queue, "a") == 1  # known already: the queue being full is no matter
        queue.cancel(1)
        submit(queue, "c")
        with pytest.raises(Busy):
            queue.retry(1)
        for key in ("", "k" * 201, "a\nb", "\udcff"):
            with pytest.raises(UsageError, match="client key"):
                queue.submit(shot(), key=key)
        with pytest.raises(UsageError, match="no priority 101"):
            queue.prioritise(2, 101)


