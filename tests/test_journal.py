# SPDX-License-Identifier: Apache-2.0
"""Events and logs: numbered, replayed, bounded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from queues import STEP, claim, shot, submit

from fresco_backend.events import Warned
from fresco_backend.jobs import JobQueue, Limits
from fresco_backend.journal import PIECE, Retention
from fresco_protocol.errors import (
    FrescoError,
    UsageError,
)

pytest_plugins = ["queues"]


def test_events_are_numbered_over_all_jobs_and_replayed_from_any(queue: JobQueue) -> None:
    first, second = submit(queue, "a"), submit(queue, "b")
    held = claim(queue)
    queue.report(held, [STEP, Warned(code="x", text="…")])
    queue.pause(second)
    queue.deliver(held)
    entries = queue.journal.events()
    assert [entry.number for entry in entries] == list(range(1, 8)) and queue.journal.last_number() == 7
    assert [entry.job for entry in entries] == [first, second, first, first, first, second, first]
    assert entries[3].event == STEP.to_json()
    assert entries[6].event == {"event": "entered", "state": "delivered", "before": "running", "claim": 1,
                                "worker": "w1", "device": "cpu", "words": None}
    assert queue.journal.events(3, limit=2) == entries[3:5]
    assert queue.journal.events(1, job=second) == (entries[1], entries[5])
    assert queue.journal.events(7) == ()


def test_an_error_leaves_neither_change_nor_event(queue: JobQueue) -> None:
    submit(queue, "a")
    held = claim(queue)
    before = queue.status(held.job), queue.journal.events()
    with pytest.raises(FrescoError, match="the journal keeps"):
        queue.report(held, [STEP, Warned(code="x", text="y" * 2**20)])
    assert (queue.status(held.job), queue.journal.events()) == before


def test_passing_events_go_and_changes_of_state_stay(folder: Path) -> None:
    with JobQueue(folder / "q", retention=Retention(passing_events=5, detailed=1)) as queue:
        for name in "abc":
            submit(queue, name)
            held = claim(queue)
            for done in range(1, 21):
                queue.report(held, [replace(STEP, done=done)])
            queue.journal.append_log(held.job, "words")
            passing = [entry.event["done"] for entry in queue.journal.events(job=held.job) if "done" in entry.event]
            assert passing == list(range(16, 21))
            queue.deliver(held)
        states = [entry.event["state"] for entry in queue.journal.events() if entry.event["event"] == "entered"]
        assert states == ["queued", "running", "delivered"] * 3
        assert [len(queue.journal.events(job=job)) for job in (1, 2, 3)] == [3, 3, 8]
        assert [len(queue.journal.read_log(job).data) for job in (1, 2, 3)] == [0, 0, 5]
        assert queue.journal.last_number() == 69
        queue.submit(shot("z"), key="z")
        assert queue.journal.events()[-1].number == 70  # numbers are not given twice


def test_old_history_is_forgotten_and_numbers_go_on(folder: Path) -> None:
    with JobQueue(folder / "q", limits=Limits(history=2)) as queue:
        waiting = submit(queue, "waiting", priority=-5)
        for name in "abcd":
            submit(queue, name)
            queue.deliver(claim(queue))
        assert [status.name for status in queue.history()] == ["d", "c"]
        assert [status.id for status in queue.active()] == [waiting]
        assert {entry.job for entry in queue.journal.events()} == {waiting, 4, 5}
        last = queue.journal.last_number()
    with JobQueue(folder / "q", limits=Limits(history=1)) as queue:
        assert [status.name for status in queue.history()] == ["d"]
        assert queue.submit(shot("a"), key="a").id == 6
        assert queue.journal.events(last)[0].number == last + 1


def test_a_log_is_read_from_any_offset_and_loses_its_beginning_only(folder: Path) -> None:
    with JobQueue(folder / "q", retention=Retention(log_bytes=3 * PIECE)) as queue:
        job, whole = submit(queue, "a"), b""
        assert queue.journal.read_log(job).data == b""
        for number in range(40):
            text = f"{number}: ünïcödé \udcff\n" * (number * 7 % 200)
            whole += text.encode(errors="backslashreplace")
            assert queue.journal.append_log(job, text) == len(whole)
            for offset in (0, len(whole) // 2, max(0, len(whole) - 100), len(whole), len(whole) + 5):
                page = queue.journal.read_log(job, offset, limit=50)
                assert page.start >= offset
                assert page.data == whole[page.start:page.start + 50]
                assert page.start == offset or len(whole) > 2 * PIECE
        pages, offset = b"", 0
        while (page := queue.journal.read_log(job, offset, limit=7_000)).data:
            assert page.start == offset or not pages
            pages, offset = pages + page.data, page.end
        assert whole.endswith(pages)
        assert 2 * PIECE < len(pages) <= 3 * PIECE
        assert queue.journal.append_log(job, "x" * 10 * PIECE) == len(whole) + 10 * PIECE
        assert queue.journal.read_log(job, limit=10**9).data == b"x" * 3 * PIECE
        with pytest.raises(UsageError, match="there is no job 9"):
            queue.journal.read_log(9)
