# SPDX-License-Identifier: Apache-2.0
"""The queue of the server: orders of people, words of workers, deaths of workers, limits."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import queues
from queues import Clock, claim, drained, ended, live, shot, step, submit

from fresco_backend.queue.job_state import JobStatus, Wish
from fresco_backend.queue.jobs import RESUMPTIONS, JobQueue, Limits
from fresco_protocol.errors import (
    Busy,
    FrescoError,
    Interrupted,
    JobRefused,
    JobUnknown,
    ShotError,
    UsageError,
    WorkerDied,
)
from fresco_protocol.events import Delivered, Finished, Planned
from fresco_protocol.job import JobState, Problem
from fresco_protocol.shot import FrameRange

folder, clock, queue = queues.folder, queues.clock, queues.queue  # fixtures

PROBLEM = Problem(code="plate-missing", what="no such plate \udcff", where="/p.####.exr", remedy="Export it.")


def test_a_submitted_job_waits_until_its_plate_is_there(queue: JobQueue) -> None:
    job = queue.submit(shot(), key="a", plate_pending=True).status
    assert job.state is JobState.SUBMITTED
    assert queue.claim("w1", "cpu") is None
    assert queue.release(job.id).state is JobState.QUEUED
    assert claim(queue).job == job.id
    with pytest.raises(JobRefused, match="a running job cannot be released"):
        queue.release(job.id)


def test_the_same_key_and_shot_are_the_same_job_whatever_became_of_it(queue: JobQueue) -> None:
    first = queue.submit(shot(), key="a", priority=3)
    assert first.created
    assert queue.submit(shot(), key="a", priority=9) == (first.status, False)
    queue.deliver(claim(queue))
    assert queue.submit(shot(), key="a").status.state is JobState.DELIVERED
    with pytest.raises(UsageError, match=f'"a" belongs to another shot .job {first.status.id}.'):
        queue.submit(shot(prompt="oil"), key="a")
    assert queue.submit(shot(), key="b").status.id != first.status.id
    assert len(live(queue)) + len(ended(queue)) == 2


def test_priority_comes_first_and_then_the_order_of_submission(queue: JobQueue) -> None:
    jobs = {name: submit(queue, name, priority) for name, priority in zip("abcdef", (0, 0, 5, 0, 5, -1), strict=True)}
    queue.prioritise(jobs["f"], 5)
    queue.prioritise(jobs["a"], 5)
    assert [status.name for status in live(queue)] == list("acefbd")
    queue.prioritise(jobs["a"], 0)
    queue.move(jobs["d"], before=jobs["e"])
    assert queue.status(jobs["d"]).priority == 5
    assert drained(queue) == [jobs[name] for name in "cdefab"]


def test_a_pause_keeps_the_place_and_a_retry_goes_to_the_end(queue: JobQueue) -> None:
    jobs = [submit(queue, name) for name in "abc"]
    queue.pause(jobs[0])
    queue.cancel(jobs[1])
    assert [status.id for status in live(queue)] == [jobs[0], jobs[2]]
    queue.retry(jobs[1])
    queue.resume(jobs[0])
    assert drained(queue) == [jobs[0], jobs[2], jobs[1]]


def test_what_a_person_asks_of_a_running_job_its_worker_hears(queue: JobQueue) -> None:
    submit(queue, "a")
    held = claim(queue)
    assert queue.report(held, [step(held.job)]) is None
    queue.pause(held.job)
    assert queue.report(held) is Wish.PAUSE
    queue.resume(held.job)
    assert queue.report(held) is None
    queue.pause(held.job)
    queue.cancel(held.job)
    assert queue.pause(held.job).wish is Wish.CANCEL  # a pause does not take a cancel back
    with pytest.raises(JobRefused, match="about to be cancelled"):
        queue.resume(held.job)
    assert queue.give_back(held).state is JobState.CANCELLED
    assert queue.cancel(held.job).state is JobState.CANCELLED
    with pytest.raises(JobRefused, match="a cancelled job cannot be paused"):
        queue.pause(held.job)
    with pytest.raises(JobUnknown, match="no such job"):
        queue.cancel("ffffffffffff")


@pytest.mark.parametrize(("asked", "state"), [
    (None, JobState.QUEUED), (JobQueue.pause, JobState.PAUSED), (JobQueue.cancel, JobState.CANCELLED)])
def test_a_job_whose_worker_stops_or_dies_becomes_what_was_asked(
    queue: JobQueue, asked: Callable[[JobQueue, str], JobStatus] | None, state: JobState
) -> None:
    for end in (queue.give_back, lambda _: queue.recover()[0]):
        job = submit(queue, f"job {queue.journal.last_number()}", priority=queue.journal.last_number() % 100)
        held = claim(queue)
        assert held.job == job
        if asked:
            asked(queue, job)
        after = end(held)
        assert (after.state, after.wish) == (state, None)


def test_a_delivery_stands_though_a_cancel_came(queue: JobQueue) -> None:
    submit(queue, "a")
    held = claim(queue)
    queue.cancel(held.job)
    assert queue.deliver(held).state is JobState.DELIVERED
    with pytest.raises(JobRefused, match="a delivered job cannot be cancelled"):
        queue.cancel(held.job)


def test_a_worker_has_one_job(queue: JobQueue) -> None:
    submit(queue, "a")
    submit(queue, "b")
    claim(queue)
    with pytest.raises(FrescoError, match="has a job already") as caught:
        queue.claim("w1", "cpu")
    assert caught.value.code == "bug"
    assert len([status for status in live(queue) if status.state is JobState.RUNNING]) == 1


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
        lambda: queue.report(held, [step(held.job)]), lambda: queue.deliver(held), lambda: queue.give_back(held),
        lambda: queue.fail(held, PROBLEM)]
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
    job = submit(queue, "a", priority=1)
    submit(queue, "b")
    for attempt in range(RESUMPTIONS + 1):
        held = claim(queue, f"w{attempt}")
        assert held.job == job  # it keeps its place
        queue.journal.append_log(held.job, f"attempt {attempt}\nSegmentation fault of device {attempt}\n")
        (after,) = queue.recover()
    assert (after.state, after.interruptions, after.claims) == (JobState.FAILED, 3, 3)
    assert after.problem is not None
    assert after.problem.code == WorkerDied.code
    assert after.problem.what.endswith("attempt 2\nSegmentation fault of device 2")
    again = queue.retry(job)
    assert (again.state, again.interruptions, again.problem, again.ended_at) == (JobState.QUEUED, 0, None, None)
    assert queue.retry(job) == again


def test_only_jobs_of_dead_workers_are_taken(queue: JobQueue) -> None:
    for name in "abc":
        submit(queue, name)
    held = [claim(queue, worker) for worker in ("w1", "w2", "w3")]
    assert [status.id for status in queue.recover(alive={"w1", "w3"})] == [held[1].job]
    assert queue.report(held[0]) is None


def test_a_shot_that_this_version_cannot_read_fails_and_holds_nobody_up(queue: JobQueue, folder: Path) -> None:
    jobs = [submit(queue, "a"), submit(queue, "b")]
    with sqlite3.connect(folder / "jobs.sqlite") as other:
        other.execute("UPDATE job SET shot = replace(shot, '\"schema\": 1', '\"schema\": 7') WHERE key = 'a'")
    other.close()
    assert claim(queue).job == jobs[1]
    failed = queue.status(jobs[0])
    assert failed.state is JobState.FAILED
    assert failed.problem is not None
    assert (failed.problem.code, failed.problem.where) == ("shot-invalid", "schema")


def test_history_has_the_shot_for_another_go(queue: JobQueue) -> None:
    original = shot("dock", prompt="gouache, größer")
    queue.submit(original, key="a")
    queue.fail(claim(queue), PROBLEM)
    (job,) = ended(queue)
    assert (job.state, job.problem, job.record.problem) == (JobState.FAILED, PROBLEM, PROBLEM)
    assert queue.shot(job.id) == original
    assert queue.submit(queue.shot(job.id), key="b").created
    with pytest.raises(JobUnknown, match="no such job"):
        queue.shot("ffffffffffff")


def test_limits_are_said_in_words(folder: Path) -> None:
    with JobQueue(folder / "q", limits=Limits(live=2, shot_bytes=3_000)) as queue:
        with pytest.raises(ShotError, match="at most 3000 bytes"):
            queue.submit(shot(prompt="p" * 3_000), key="a")
        first, second = submit(queue, "a"), submit(queue, "b")
        with pytest.raises(Busy, match="2 jobs have not ended"):
            submit(queue, "c")
        assert submit(queue, "a") == first  # known already: the queue being full is no matter
        queue.cancel(first)
        submit(queue, "c")
        with pytest.raises(Busy):
            queue.retry(first)
        for key in ("", "k" * 129, "a\nb", "\udcff"):
            with pytest.raises(UsageError, match="client key"):
                queue.submit(shot(), key=key)
        with pytest.raises(UsageError, match="no priority 101"):
            queue.prioritise(second, 101)


def test_pages_show_live_jobs_in_order_and_then_ended_ones(queue: JobQueue) -> None:
    for name in "abcdef":
        submit(queue, name)
    for job in [status.id for status in live(queue)][1:4]:
        queue.cancel(job)
    names = ["a", "e", "f", "d", "c", "b"]
    for skip, limit in itertools.product(range(8), range(8)):
        page = queue.jobs(skip=skip, limit=limit)
        assert ([status.name for status in page.jobs], page.total) == (names[skip:skip + limit], 6)
    assert [status.name for status in queue.jobs({JobState.QUEUED}, skip=1).jobs] == ["e", "f"]
    assert queue.jobs({JobState.FAILED}) == ((), 0)


def test_a_job_tells_how_far_it_is(queue: JobQueue) -> None:
    job = queue.submit(shot("a"), key="a", priority=7).status
    record = job.record
    assert (record.id, record.output, record.client_key, record.priority) == (job.id, "/out/a.####.exr", "a", 7)
    assert (record.attempt, record.done, record.total, record.started) == (0, 0, None, None)
    held = claim(queue)
    delivered = Delivered(number=0, time=0, job=job.id, frame=3, path="/o", keyframe=True)
    queue.report(held, [planned(job.id), step(job.id), delivered])
    record = queue.status(job.id).record
    assert (record.done, record.total, record.attempt) == (2, 5, 1)
    assert (record.stage, record.seconds_left) == (step(job.id).stage, 9.5)
    paused = queue.give_back(held).record
    assert (paused.done, paused.total, paused.stage, paused.seconds_left) == (2, 5, None, None)
    held = claim(queue)
    queue.report(held, [
        Finished(number=0, time=0, job=job.id, rendered=3, reused=2, seconds=1, sidecar="/s", outputs=())])
    assert queue.deliver(held).record.done == 5


def planned(job: str) -> Planned:
    return Planned(
        number=0, time=0, job=job, frames=(FrameRange(first=1, last=9, step=2),),
        delivered=(FrameRange(first=1, last=1),), keyframes=None, windows=None, plate_size=(64, 48),
        working_size=(64, 48), rate=None, model="m", device="cpu", precision="float32", seed=0, job_hash="5f",
        scratch="/s", memory_bytes=None, seconds=None,
    )  # fmt: skip


def test_an_event_of_another_job_is_a_bug(queue: JobQueue) -> None:
    submit(queue, "a")
    other = submit(queue, "b")
    held, before = claim(queue), queue.journal.last_number()
    with pytest.raises(FrescoError, match="does not keep") as caught:
        queue.report(held, [step(held.job), step(other)])
    assert caught.value.code == "bug"
    assert queue.journal.last_number() == before
