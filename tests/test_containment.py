# SPDX-License-Identifier: Apache-2.0
"""Whatever a worker, a client or the disk does, the server goes on: it costs a worker, or one request."""
from __future__ import annotations

import errno
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from false_workers import with_worker
from servers import ended, polled, serving, waited

from fresco_backend import settings
from fresco_backend.queue.job_database import JobDatabase
from fresco_backend.queue.job_state import Claim, Wish
from fresco_backend.queue.jobs import JobQueue
from fresco_backend.queue.journal import EVENT_BYTES
from fresco_backend.server import listener as listener_room
from fresco_backend.server import server as server_room
from fresco_backend.server import work
from fresco_backend.server.answers import Answers
from fresco_backend.server.listener import Listener
from fresco_backend.server.server import Server
from fresco_backend.server.server_address import fresh_token
from fresco_backend.server.worker_pool import Patience, WorkerPool
from fresco_protocol.client import Client
from fresco_protocol.connection import host_and_port
from fresco_protocol.errors import DiskFull, FrescoError, InputError, ServerSilent, UsageError, WorkerDied
from fresco_protocol.events import Event, JobChanged, JobEvent
from fresco_protocol.job import JobState
from fresco_protocol.messages import ListJobs, Logs, Status

FATAL = {
    "of another job": 'say(warned(job[::-1], "x"))',
    "no JSON": 'say(Told(type="event.warned", body="{"))',
    "no event": 'say(Told(type="event.of-tomorrow", body="{}"))',
    "no hexadecimal": 'say(Told(type="event.previewed", body="{}", blob="xyz"))',
    "a number too large": 'say(Told.of(Finished(number=0, time=0, job=job, rendered=2**62, reused=2**62, seconds=1.0, '
                          'sidecar="/s", outputs=("/o",))))',
    "no line": r"say(b'\xff\n')",
    "a pipe closed too early": "os.close(1); time.sleep(60)",
    "the end, with the pipe in other hands": 'subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3)"]); '
                                             "os._exit(1)",
}
HARMLESS = {
    "too large": f'say(warned(job, "x" * {EVENT_BYTES + 1}))',
    "too many values": 'say(Told.of(Finished(number=0, time=0, job=job, rendered=1, reused=0, seconds=1.0, '
                       'sidecar="/s", outputs=("a",) * 205_000)))',
}


@pytest.mark.parametrize("what", FATAL)
def test_what_no_worker_may_say_costs_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    with with_worker(tmp_path, monkeypatch, FATAL[what]) as running, running.client(seconds=20) as client:
        record = ended(client, running.submit(client).id, 60)
        assert record.problem is not None
        assert (record.state, record.problem.code, record.attempt) == (JobState.FAILED, WorkerDied.code, 3)
        assert client.request(Status()).queued == 0


@pytest.mark.parametrize("what", HARMLESS)
def test_an_event_that_cannot_be_kept_or_told_is_left_out(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    with with_worker(tmp_path, monkeypatch, HARMLESS[what]) as running, running.client(seconds=20) as client:
        client.watch()
        job = running.submit(client).id
        record = ended(client, job, 60)
        assert (record.state, record.attempt) == (JobState.DELIVERED, 1)
        states = [event.record.state for event in polled(client, is_delivered) if isinstance(event, JobChanged)]
        assert states == [JobState.QUEUED, JobState.RUNNING, JobState.DELIVERED]
        if what == "too large":
            assert any("is left out" in line for line in client.request(Logs(job=job)).lines)


def is_delivered(events: list[Event]) -> bool:
    return any(isinstance(event, JobChanged) and event.record.state is JobState.DELIVERED for event in events)


def test_a_problem_in_too_many_words_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speech = 'say(Broken(problem=Problem(code="bug", what="x" * 2**20, where="y" * 2**20, remedy="z" * 2**20)))'
    with with_worker(tmp_path, monkeypatch, speech) as running, running.client(seconds=20) as client:
        record = ended(client, running.submit(client).id, 60)
        assert record.problem is not None
        assert (record.state, record.problem.code, record.problem.where) == (JobState.FAILED, "bug", "y" * 12_000)


def test_a_worker_that_cannot_be_started_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with with_worker(tmp_path, monkeypatch, "") as running:
        deadline = time.monotonic() + 20
        while not any(worker.ready for worker in running.server.pool):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        works = WorkerPool._spawned
        monkeypatch.setattr(WorkerPool, "_spawned", raising(OSError(11, "Resource temporarily unavailable")))
        for worker in running.server.pool:
            worker.process.kill()
        while "no worker can be started" not in running.log.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        monkeypatch.setattr(WorkerPool, "_spawned", works)
        with running.client(seconds=20) as client:
            assert ended(client, running.submit(client).id, 60).state is JobState.DELIVERED


def raising(error: Exception) -> Callable[..., Any]:
    def raise_it(*_: object, **__: object) -> None:
        raise error

    return raise_it


def test_while_the_disk_refuses_a_word_the_loop_rests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds, full = [0], threading.Event()
    tend, report = Server._tend, JobQueue.report

    def counted(server: Server) -> None:
        rounds[0] += 1
        tend(server)

    def refused(queue: JobQueue, claim: Claim, events: Iterable[JobEvent] = ()) -> Wish | None:
        if full.is_set():
            raise DiskFull("the disk of the queue is full")
        return report(queue, claim, events)

    monkeypatch.setattr(Server, "_tend", counted)
    monkeypatch.setattr(JobQueue, "report", refused)
    talks = "[(say(warned(job, str(number))), time.sleep(0.05)) for number in range(40)]"
    with with_worker(tmp_path, monkeypatch, talks) as running, running.client() as client:
        full.set()
        job = running.submit(client).id
        deadline = time.monotonic() + 10
        while not running.server.work.waits and time.monotonic() < deadline:
            time.sleep(0.01)
        before = rounds[0]
        time.sleep(1)
        assert rounds[0] - before < 300, "one for each word at most, and those of the clocks"
        full.clear()
        assert ended(client, job).state is JobState.DELIVERED


def test_a_disk_that_is_full_for_long_costs_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has to make room first, which takes longer than a worker may be silent."""
    full, report = threading.Event(), JobQueue.report

    def refused(queue: JobQueue, claim: Claim, events: Iterable[JobEvent] = ()) -> Wish | None:
        if full.is_set():
            raise DiskFull("the disk of the queue is full")
        return report(queue, claim, events)

    monkeypatch.setattr(JobQueue, "report", refused)
    monkeypatch.setattr(server_room, "TICK", 0.1)
    talks = "[(say(warned(job, str(number))), time.sleep(0.05)) for number in range(40)]"
    with with_worker(tmp_path, monkeypatch, talks, patience=Patience(silence=1.0)) as running, \
            running.client() as client:
        full.set()
        job = running.submit(client).id
        time.sleep(3)
        assert running.server.work.waits
        full.clear()
        record = ended(client, job)
        assert (record.state, record.attempt) == (JobState.DELIVERED, 1)
        assert "is killed" not in running.log.getvalue()


def test_words_that_came_at_once_are_taken_without_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "MOST_AT_ONCE", 1)
    monkeypatch.setattr(server_room, "TICK", 5.0)  # which would take them, one each time
    burst = "say(b''.join(warned(job, str(number)).to_bytes() for number in range(50)))"
    with with_worker(tmp_path, monkeypatch, burst, heartbeat=5.0) as running, running.client() as client:
        running.submit(client)
        looked = sqlite3.connect(f"{(tmp_path / 'state' / 'queue.sqlite').as_uri()}?mode=ro", uri=True)
        with closing(looked):  # at the disk, for a request would move the loop
            deadline = time.monotonic() + 60  # twelve rounds of the loop
            while looked.execute("SELECT state FROM job").fetchall() != [(JobState.DELIVERED.value,)]:
                assert time.monotonic() < deadline
                time.sleep(0.1)


# Clients.

def test_a_request_that_the_server_fails_at_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "reply", raising(RuntimeError("nobody thought of this")))
    monkeypatch.setenv("FRESCO_SCRATCH", str(tmp_path / "scratch"))
    with serving(tmp_path) as running, running.client() as client:
        for _ in range(3):
            with pytest.raises(FrescoError, match="nobody thought of this") as caught:
                client.request(Status())
            assert caught.value.code == "bug"
        assert running.log.getvalue().count("nobody thought of this") == 1
        assert len(list((tmp_path / "scratch" / "tracebacks").iterdir())) == 1
        monkeypatch.undo()
        assert client.request(Status()).queued == 0


def test_a_folder_that_the_servers_system_refuses_is_told_as_such(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = PermissionError(errno.EACCES, "Permission denied", "/show/out")
    monkeypatch.setattr(Answers, "reply", raising(refused))
    with serving(tmp_path) as running, running.client() as client:
        with pytest.raises(InputError, match="Permission denied") as caught:
            client.request(Status())
        assert caught.value.where == "/show/out"


def test_a_message_that_the_reader_fails_at_costs_this_message(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as running:
        monkeypatch.setattr(listener_room, "decode", raising(RecursionError("too deep")))
        with running.client() as client, pytest.raises(ServerSilent):
            client.connect(seconds=0.3)
        monkeypatch.undo()
        with running.client() as client:
            assert client.request(Status()).queued == 0
        assert "it could not be read: RecursionError" in running.log.getvalue()


def test_a_journal_that_cannot_be_read_for_a_while_ends_no_watch(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as running, running.client() as client:
        client.watch()
        monkeypatch.setattr(type(running.server.queue.journal), "events", raising(ValueError("torn")))
        running.submit(client)
        assert not polled(client, lambda _: "tell watchers: " in running.log.getvalue())
        monkeypatch.undo()
        assert len(polled(client, lambda events: any(isinstance(event, JobChanged) for event in events))) >= 1
        assert "tell watchers: " in running.log.getvalue()


def queue_with_events(folder: Path, events: list[tuple[str, str]]) -> None:
    """A server's queue with one job, to whose first event these are added: type and body of each."""
    with serving(folder) as running, running.client() as client:
        job = running.submit(client).id
    database = JobDatabase(folder / "state" / "queue.sqlite")
    with database.changing() as connection:
        connection.executemany("INSERT INTO event (job, time, lasting, type, body) VALUES (?, 1.0, 1, ?, ?)",
                               [(job, *event) for event in events])
    database.close()


def test_an_event_of_another_version_is_left_out(tmp_path: Path) -> None:
    queue_with_events(tmp_path, [("event.of-tomorrow", "{}")] * 60 + [("event.warned", '{"colour": "red"}')])
    with serving(tmp_path) as running, running.client() as client:
        client.watch()
        running.submit(client, "other")
        events = polled(client, lambda events: len([e for e in events if isinstance(e, JobChanged)]) == 2)
        assert [event.number for event in events if event.durable] == [1, 63]


def test_a_page_short_of_an_unreadable_event_is_not_the_end_of_a_replay(tmp_path: Path) -> None:
    readable = ("event.warned", '{"code": "c", "text": "t"}')
    queue_with_events(tmp_path, [("event.of-tomorrow", "{}"), *[readable] * 60])
    with serving(tmp_path) as running, running.client() as client:
        client.watch()
        events = polled(client, lambda events: any(event.durable and event.number == 62 for event in events))
        assert [event.number for event in events if event.durable] == [1, *range(3, 63)]


def test_a_port_that_another_program_takes_meanwhile_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_room, "REBIND", 0.1)
    monkeypatch.setattr(listener_room, "MOST_MEMORY", 0)
    listener = Listener(fresh_token(), say=lambda _line: None)
    place = host_and_port(listener.endpoint)
    listener.close(linger=0)
    deadline = time.monotonic() + 5
    while True:
        try:
            thief = socket.create_server(place)
            break
        except OSError:
            assert time.monotonic() < deadline
    with thief, pytest.raises(UsageError, match="cannot listen"):
        listener.relieve()
    assert listener.sockets == []
    while not listener.sockets:
        assert listener.relieve()
    assert host_and_port(listener.endpoint) == place
    listener.close(linger=0)


def test_a_child_does_not_import_from_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert "" not in settings.child_environment()["PYTHONPATH"].split(":" if sys.platform != "win32" else ";")
    monkeypatch.setenv("PYTHONPATH", "/one")
    assert settings.child_environment()["PYTHONPATH"].endswith("/one")


def test_lines_that_recur_are_said_once(tmp_path: Path) -> None:
    with serving(tmp_path) as running, running.client() as client:
        faults = running.server.faults
        for number in range(500):
            faults.add(f"place {number}", FrescoError("the same"))
        assert len(running.log.getvalue().splitlines()) < 220
        assert client.request(ListJobs()).total == 0
        waited(client, running.submit(client).id, lambda record: record.state is JobState.QUEUED, 1)


def test_a_client_that_is_gone_is_nobodys_trouble(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        for _ in range(20):
            client: Client = running.client()
            client.watch()
            client.close()
        with running.client() as client:
            running.submit(client)
            assert client.request(Status()).queued == 1
