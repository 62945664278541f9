# SPDX-License-Identifier: Apache-2.0
"""Events and logs: numbered, replayed, bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
import queues
from queues import claim, ended, live, shot, step, submit

from fresco_backend.queue.jobs import JobQueue, Limits
from fresco_backend.queue.journal import LINE_LENGTH, Retention
from fresco_protocol.errors import FrescoError, JobUnknown
from fresco_protocol.events import Advanced, JobChanged, Warned

folder, clock, queue = queues.folder, queues.clock, queues.queue  # fixtures


def states(queue: JobQueue, since: int = 0) -> list[str]:
    return [event.record.state.value for event in queue.journal.events(since) if isinstance(event, JobChanged)]


def test_events_are_numbered_over_all_jobs_and_replayed_from_any(queue: JobQueue) -> None:
    first, second = submit(queue, "a"), submit(queue, "b")
    held = claim(queue)
    queue.report(held, [step(first), Warned(number=99, time=0, job=first, code="x", text="…")])
    queue.pause(second)
    queue.prioritise(second, 5)
    queue.prioritise(second, 5)
    delivered = queue.deliver(held)
    events = queue.journal.events()
    assert [event.number for event in events] == list(range(1, 9))
    assert queue.journal.last_number() == 8
    assert [event.job for event in events] == [first, second, first, first, first, second, second, first]
    assert events[3] == step(first).__class__(**{**vars(step(first)), "number": 4, "time": events[3].time})
    assert 0 < events[0].time <= events[7].time
    assert isinstance(events[7], JobChanged)
    assert events[7].record == delivered.record == queue.status(first).record
    assert queue.journal.events(3, limit=2) == events[3:5]
    assert queue.journal.events(1, job=second) == (events[1], events[5], events[6])
    assert queue.journal.events(8) == ()


def test_the_numbering_has_a_name_that_stays(folder: Path) -> None:
    names = []
    for path in (folder / "a", folder / "a", folder / "b"):
        with JobQueue(path) as queue:
            names.append(queue.journal.name())
    assert names[0] == names[1] != names[2]
    assert len(names[0]) == 16


def test_an_error_leaves_neither_change_nor_event(queue: JobQueue) -> None:
    submit(queue, "a")
    held = claim(queue)
    before = queue.status(held.job), queue.journal.events()
    with pytest.raises(FrescoError, match="the journal keeps"):
        queue.report(held, [step(held.job), Warned(number=0, time=0, job=held.job, code="x", text="y" * 2**20)])
    assert (queue.status(held.job), queue.journal.events()) == before


def test_passing_events_go_and_changes_of_state_stay(folder: Path) -> None:
    with JobQueue(folder / "q", retention=Retention(passing_events=5, detailed=1)) as queue:
        jobs = [submit(queue, name) for name in "abc"]
        for job in jobs:
            held = claim(queue)
            for done in range(1, 21):
                queue.report(held, [step(job, done)])
            queue.journal.append_log(job, "words")
            kept = [event.done for event in queue.journal.events(job=job) if isinstance(event, Advanced)]
            assert kept == list(range(16, 21))
            queue.deliver(held)
        assert states(queue) == ["queued"] * 3 + ["running", "delivered"] * 3
        assert [len(queue.journal.events(job=job)) for job in jobs] == [3, 3, 8]
        assert [queue.journal.read_log(job).lines for job in jobs] == [(), (), ("words",)]
        assert queue.journal.read_log(jobs[0]).next == 1
        assert queue.journal.last_number() == 69
        submit(queue, "z")
        assert queue.journal.events()[-1].number == 70  # numbers are not given twice


def test_old_history_is_forgotten_and_numbers_go_on(folder: Path) -> None:
    with JobQueue(folder / "q", limits=Limits(history=2)) as queue:
        waiting = submit(queue, "waiting", priority=-5)
        jobs = []
        for name in "abcd":
            jobs.append(submit(queue, name))
            queue.deliver(claim(queue))
        assert [status.id for status in ended(queue)] == [jobs[3], jobs[2]]
        assert [status.id for status in live(queue)] == [waiting]
        assert {event.job for event in queue.journal.events()} == {waiting, *jobs[2:]}
        last = queue.journal.last_number()
    with JobQueue(folder / "q", limits=Limits(history=1)) as queue:
        assert [status.id for status in ended(queue)] == [jobs[3]]
        assert queue.submit(shot("a"), key="a").created
        assert queue.journal.events(last)[0].number == last + 1


def test_a_log_is_read_from_any_line_and_loses_its_beginning_only(folder: Path) -> None:
    with JobQueue(folder / "q", retention=Retention(log_lines=50)) as queue:
        job = submit(queue, "a")
        assert queue.journal.read_log(job) == queue.journal.read_log(job, 0)
        whole: list[str] = []
        for number in range(30):
            new = [f"{number}: ünïcödé {line}" for line in range(number * 7 % 11)]
            queue.journal.append_log(job, "\n".join(new))
            whole += new
            kept = max(0, len(whole) - 50)
            for since in (0, len(whole) // 2, len(whole) - 3, len(whole), len(whole) + 5):
                page = queue.journal.read_log(job, since, limit=7)
                begin = max(since, kept)
                assert list(page.lines) == whole[begin:begin + 7]
                assert page.next == (begin + len(page.lines) if page.lines else max(since, len(whole)))
        assert len(whole) > 100
        assert queue.journal.last_words(job, lines=2) == "\n".join(whole[-2:])


def test_long_lines_and_odd_characters_are_kept_in_pieces(folder: Path) -> None:
    with JobQueue(folder / "q", retention=Retention(log_lines=10)) as queue:
        job = submit(queue, "a")
        queue.journal.append_log(job, "x" * (2 * LINE_LENGTH + 1) + "\n\n/plate/\udcff\x00.exr\r\n")
        assert queue.journal.read_log(job).lines == (
            "x" * LINE_LENGTH, "x" * LINE_LENGTH, "x", "", "/plate/\\udcff\x00.exr")
        queue.journal.append_log(job, "\n".join(map(str, range(1_000))))
        assert queue.journal.read_log(job).lines == tuple(map(str, range(990, 1_000)))
        assert queue.journal.read_log(job).next == 1_005
        for ask in (queue.journal.read_log, queue.journal.last_words):
            with pytest.raises(JobUnknown):
                ask("ffffffffffff")
        with pytest.raises(JobUnknown):
            queue.journal.append_log("ffffffffffff", "x")
