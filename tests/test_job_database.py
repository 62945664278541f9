# SPDX-License-Identifier: Apache-2.0
"""The queue against files and disks that refuse, and against kill -9."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import queue_killer
import queues
from plain_user import plain_user
from queues import PATHS, ended, live, submit

from fresco_backend.queue.job_database import MIGRATIONS, JobDatabase
from fresco_backend.queue.job_state import JobStatus, check_transition
from fresco_backend.queue.jobs import JobQueue, Limits
from fresco_protocol.errors import (
    Busy,
    DiskFull,
    FrescoError,
    InputError,
    OutputDenied,
    OutputError,
    UsageError,
)
from fresco_protocol.events import JobChanged
from fresco_protocol.job import Job, JobState

folder, clock, queue = queues.folder, queues.clock, queues.queue  # fixtures


def test_the_file_is_its_owners_and_the_queue_is_its_threads(queue: JobQueue, folder: Path) -> None:
    submit(queue, "a")
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    raised: list[BaseException] = []

    def other() -> None:
        try:
            live(queue)
        except sqlite3.ProgrammingError as error:
            raised.append(error)
        with JobQueue(folder / "jobs.sqlite") as own:
            raised.extend([] if live(own)[0].name == "a" else [AssertionError()])

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert len(raised) == 1 and isinstance(raised[0], sqlite3.ProgrammingError)


def closed_queue(folder: Path, jobs: int = 60) -> Path:
    path = folder / "jobs.sqlite"
    with JobQueue(path) as queue:
        for number in range(jobs):
            submit(queue, str(number))
    return path


def refused(path: Path, kind: type[FrescoError], match: str) -> None:
    """The queue does not open, says why and what to do, and leaves the file as it is."""
    before = path.read_bytes()
    with pytest.raises(kind, match=match) as caught:
        JobQueue(path)
    assert caught.value.remedy
    assert caught.value.where == str(path)
    assert path.read_bytes() == before


def test_files_of_others_and_of_the_future_are_refused_untouched(folder: Path) -> None:
    path = closed_queue(folder)
    with sqlite3.connect(path) as other:
        other.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    other.close()
    refused(path, UsageError, "written by a newer Fresco")
    foreign = folder / "foreign.sqlite"
    with sqlite3.connect(foreign) as other:
        other.execute("CREATE TABLE job (id)")
    other.close()
    refused(foreign, UsageError, "another program")


@pytest.mark.parametrize("place", [0, 2 * 4096, 10 * 4096])  # the file's header, and pages of jobs and events
def test_a_damaged_file_is_noticed_when_it_is_opened(folder: Path, place: int) -> None:
    path = closed_queue(folder)
    content = bytearray(path.read_bytes())
    content[place:place + 3_000] = b"\xa5" * 3_000
    path.write_bytes(content)
    refused(path, InputError, "the queue is damaged")
    path.write_bytes(b"no database at all, but text\n" * 100)
    refused(path, InputError, "the queue is damaged")


def test_a_file_or_folder_that_may_not_be_written_is_denied(tmp_path: Path) -> None:
    path = closed_queue(tmp_path, 2)
    path.chmod(0o444)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    with plain_user(tmp_path):
        refused(path, OutputDenied, "cannot be written")
        with pytest.raises(OutputDenied, match="Permission denied"):
            JobQueue(locked / "new" / "jobs.sqlite")


def test_a_queue_that_becomes_read_only_still_answers_and_loses_nothing(queue: JobQueue) -> None:
    job = submit(queue, "a")
    before = live(queue), queue.journal.events()
    connection = queue._database._connection
    connection.execute("PRAGMA query_only = ON")  # SQLite's own SQLITE_READONLY, as a remounted disk gives it
    for change in (lambda: submit(queue, "b"), lambda: queue.cancel(job), lambda: queue.claim("w1", "cpu")):
        with pytest.raises(OutputDenied, match="readonly database"):
            change()
        assert (live(queue), queue.journal.events()) == before
    connection.execute("PRAGMA query_only = OFF")
    assert submit(queue, "b") == live(queue)[1].id


def test_who_waits_too_long_for_another_process_is_told(folder: Path) -> None:
    path = closed_queue(folder, 1)
    first, second = JobDatabase(path), JobDatabase(path, patience=0.01)
    with first.changing(), pytest.raises(Busy, match="another process"), second.changing():
        pytest.fail("two changes at a time")
    with second.changing() as connection:
        assert connection.in_transaction
    first.close()
    second.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk; the limit of the file size is tested below")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(queue: JobQueue, expected: type[OutputError]) -> tuple[int, OutputError]:
    """Submit until it is refused; the number of jobs, and the refusal."""
    for number in range(10_000):
        try:
            submit(queue, str(number))
        except OutputError as error:
            assert isinstance(error, expected)
            return number, error
    raise AssertionError("the disk never ran full")


def test_a_full_disk_refuses_a_job_whole_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    path = small_disk / "jobs.sqlite"
    with JobQueue(path, limits=Limits(live=10_000)) as queue:
        count, error = fill(queue, DiskFull)
        assert count > 10 and error.remedy is not None
        assert "nothing that was queued is lost" in error.remedy
        assert [status.name for status in live(queue)] == [str(number) for number in range(count)]
        ballast.unlink()
        submit(queue, str(count))
    with JobQueue(path) as queue:
        assert [entry.number for entry in queue.journal.events()] == list(range(1, count + 2))
        assert len(live(queue)) == count + 1


LIMITED = """
import resource
from fresco_backend.queue.jobs import Limits
from pathlib import Path
from queues import live, submit
from test_job_database import fill
from fresco_backend.queue.jobs import JobQueue
from fresco_protocol.errors import OutputError
with JobQueue(Path(sys.argv[1]), limits=Limits(live=10_000)) as queue:
    for limit in (300_000, 200_000):  # bytes of a file; the log before the database, then the database itself
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        count, error = fill(queue, OutputError)
        assert [status.name for status in live(queue)] == [str(number) for number in range(count)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        submit(queue, str(count))
        print(error.code, count)
"""


def test_a_write_that_the_system_cuts_short_leaves_the_queue_whole(folder: Path) -> None:
    path = folder / "jobs.sqlite"
    run = subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {PATHS!r}\n{LIMITED}", str(path)],
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    codes, counts = zip(*(line.split() for line in run.stdout.splitlines()), strict=True)
    assert set(codes) == {"output"} and len(codes) == 2
    with JobQueue(path) as queue:
        assert len(live(queue)) == int(counts[-1]) + 1
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_kill_in_the_middle_of_changes_loses_and_doubles_nothing(folder: Path) -> None:
    path, acknowledged = folder / "jobs.sqlite", folder / "acknowledged"
    run = subprocess.run([sys.executable, queue_killer.__file__, str(path), str(acknowledged), "60"], check=False,
                         capture_output=True, text=True, timeout=120, env={"PYTHONPATH": os.pathsep.join(PATHS)})
    assert run.returncode == 0, run.stderr
    said: dict[str, list[tuple[str, ...]]] = {}
    for verb, *rest in (line.split(maxsplit=2) for line in acknowledged.read_text().splitlines()):
        said.setdefault(verb, []).append(tuple(rest))
    assert "broken" not in said, said["broken"]
    assert len(said["submitted"]) > 50 and len(said["delivered"]) > 20
    assert len(set(said["claimed"])) == len(said["claimed"]), "a claim was given twice"
    with queue_killer.opened(path) as queue:
        queue.recover()
        jobs = {status.id: status for status in (*live(queue), *ended(queue))}
        assert {(status.key, status.id) for status in jobs.values()} >= set(said["submitted"])
        assert {job for job, status in jobs.items() if status.state is JobState.DELIVERED} >= {
            job for (job,) in said["delivered"]}
        check_story(queue, jobs)


def check_story(queue: JobQueue, jobs: dict[str, JobStatus]) -> None:
    """The events have no gap, and for each job they tell one possible life that ends where the job is."""
    entries = queue.journal.events(limit=10**6)
    assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
    last: dict[str, Job] = {}
    for event in entries:
        if not isinstance(event, JobChanged):
            assert last[event.job].state is JobState.RUNNING
            continue
        record, before = event.record, last.get(event.job)
        if before is None:
            assert (record.state, record.attempt) == (JobState.QUEUED, 0)
        else:
            check_transition(event.job, before.state, record.state)
            assert record.attempt == before.attempt + (record.state is JobState.RUNNING)
        last[event.job] = record
    assert last == {job: status.record for job, status in jobs.items()}
