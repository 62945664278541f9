# SPDX-License-Identifier: Apache-2.0
"""Real workers behind a real server: a tiny model renders, and workers are stopped, killed and frozen on the way."""
from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from servers import Process, Running, ended, polled, serving, waited
from shots import bits, rendered, small_shot, with_look, with_plate, write_plate

from fresco_backend.commands.staged_shot import staged
from fresco_backend.files.frames import read_frame
from fresco_backend.server.worker_pool import Patience
from fresco_protocol.client import Client
from fresco_protocol.errors import WorkerDied
from fresco_protocol.events import Delivered, Event, Finished, JobChanged, Planned, Previewed
from fresco_protocol.job import Job, JobState
from fresco_protocol.messages import Cancel, Discard, Logs, Pause, Resume, Retry, Status, Submit, fresh_key
from fresco_protocol.shot import Shot, parse_frames
from fresco_protocol.transfer import download, upload

LONG = 24  # frames: a second or two of work
PATIENCE = Patience(silence=8, halt=30, respawn=0.1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is the server's root, with a plate of LONG frames."""
    folder = tmp_path_factory.mktemp("served")
    write_plate(folder / "plate", LONG)
    return folder


@pytest.fixture(scope="module")
def running(place: Path, tiny_model: Path) -> Iterator[Running]:
    """One server with one worker for all tests: a worker takes seconds to load torch."""
    with serving(place, roots=[place, tiny_model.parent], devices=("cpu",), patience=PATIENCE) as server:
        yield server


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with running.client(seconds=20) as client:
        yield client


def shot(place: Path, model: Path, name: str) -> Shot:
    return small_shot(place / "plate" / "plate.####.png", model, place / name / "look.####.png")


def submitted(client: Client, wanted: Shot) -> str:
    return client.request(Submit(shot=wanted, client_key=fresh_key())).record.id


def of(kind: type[Event], events: Sequence[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


def is_underway(record: Job) -> bool:
    return record.state is JobState.RUNNING and 3 <= record.done <= LONG // 2


def inodes(folder: Path) -> dict[str, int]:
    """The delivered files: a frame that is rendered again has another one."""
    return {path.name: path.stat().st_ino for path in folder.glob("look.*.png")}


def worker_of(running: Running) -> int:
    """The process id of the worker that has a job."""
    return next(worker.process.pid for worker in running.server.pool if worker.claim is not None)


def test_a_job_is_rendered_as_the_command_renders_it(
        running: Running, client: Client, place: Path, tiny_model: Path) -> None:
    client.watch(since=client.request(Status()).last)
    job = submitted(client, shot(place, tiny_model, "whole"))
    events = polled(client, lambda events: bool(of(Finished, events)) and client.last == events[-1].number
                    and events[-1].number > of(Finished, events)[0].number, 240)
    durable = [event.number for event in events if event.durable]
    assert durable == list(range(durable[0], durable[0] + len(durable)))
    states = [event.record.state.value for event in of(JobChanged, events)]  # type: ignore[attr-defined]
    assert states == ["queued", "running", "delivered"]
    assert len(of(Planned, events)) == 1
    assert [event.frame for event in of(Delivered, events)] == list(range(1001, 1001 + LONG))  # type: ignore[attr-defined]
    previews = of(Previewed, events)
    assert previews
    assert previews[0].jpeg[:2] == b"\xff\xd8"  # type: ignore[attr-defined]
    assert max(previews[0].width, previews[0].height) == 256  # type: ignore[attr-defined]
    record = ended(client, job)
    assert (record.state, record.done, record.total, record.attempt) == (JobState.DELIVERED, LONG, LONG, 1)
    assert any(f"{LONG} frames" in line for line in client.request(Logs(job=job)).lines)
    worker = client.request(Status()).workers[0]
    assert (worker.device, worker.job) == ("cpu", None)
    rendered(shot(place, tiny_model, "by-command"))
    assert bits(place / "whole") == bits(place / "by-command")


def test_the_worker_tells_which_model_it_holds(running: Running, client: Client, place: Path, tiny_model: Path) -> None:
    first = submitted(client, shot(place, tiny_model, "kept-1"))
    again = submitted(client, with_look(shot(place, tiny_model, "kept-2"), seed=7))
    assert {ended(client, job).state for job in (first, again)} == {JobState.DELIVERED}
    assert waited_model(client) == str(tiny_model)


def waited_model(client: Client) -> str | None:
    """The model that the worker holds, once its heartbeat has told."""
    deadline = time.monotonic() + 10
    while (worker := client.request(Status()).workers[0]).model is None and time.monotonic() < deadline:
        time.sleep(0.2)
    return worker.model


def test_a_cancelled_job_leaves_whole_frames_and_can_be_tried_again(
        running: Running, client: Client, place: Path, tiny_model: Path) -> None:
    job = submitted(client, shot(place, tiny_model, "cancelled"))
    waited(client, job, is_underway)
    client.request(Cancel(job=job))
    assert ended(client, job).state is JobState.CANCELLED
    before = inodes(place / "cancelled")
    assert 3 <= len(before) < LONG
    assert not list((place / "cancelled").glob(".*.part"))
    client.request(Retry(job=job))
    assert ended(client, job).state is JobState.DELIVERED
    assert before.items() <= inodes(place / "cancelled").items(), "a finished frame was rendered again"
    assert bits(place / "cancelled") == bits(place / "whole")


def test_a_paused_job_goes_on_where_it_was(running: Running, client: Client, place: Path, tiny_model: Path) -> None:
    job = submitted(client, shot(place, tiny_model, "paused"))
    waited(client, job, is_underway)
    client.request(Pause(job=job))
    record = waited(client, job, lambda record: record.state is JobState.PAUSED)
    before = inodes(place / "paused")
    assert len(before) == record.done
    other = submitted(client, with_look(shot(place, tiny_model, "meanwhile"), strength=0.0))
    assert ended(client, other).state is JobState.DELIVERED
    client.request(Resume(job=job))
    assert (ended(client, job).state, ended(client, job).attempt) == (JobState.DELIVERED, 2)
    assert before.items() <= inodes(place / "paused").items()


def test_a_job_that_fails_says_why_and_the_next_one_is_rendered(
        running: Running, client: Client, place: Path, tiny_model: Path) -> None:
    (place / "broken.1001.png").write_bytes(b"\x89PNG no")
    bad = small_shot(place / "broken.####.png", tiny_model, place / "failed" / "look.####.png")
    record = ended(client, submitted(client, bad))
    assert record.problem is not None
    assert (record.state, record.problem.code, record.problem.exit_code) == (JobState.FAILED, "frame-unreadable", 3)
    good = submitted(client, with_look(shot(place, tiny_model, "after"), strength=0.0))
    assert ended(client, good).state is JobState.DELIVERED


def test_files_that_are_links_out_of_the_roots_are_refused_when_they_are_known(
        running: Running, client: Client, place: Path, tiny_model: Path, tmp_path: Path) -> None:
    (place / "linked").mkdir()
    for frame in sorted((place / "plate").glob("*.png"))[:9]:
        (tmp_path / frame.name).write_bytes(frame.read_bytes())
        (place / "linked" / frame.name).symlink_to(tmp_path / frame.name)
    bad = small_shot(place / "linked" / "plate.####.png", tiny_model, place / "stolen" / "look.####.png")
    record = ended(client, submitted(client, bad))
    assert record.problem is not None
    assert record.problem.code == "path-refused"
    assert not (place / "stolen").exists()


def test_a_worker_that_dies_or_freezes_is_replaced_and_its_job_fails_at_the_third_time_with_its_last_words(
        running: Running, client: Client, place: Path, tiny_model: Path) -> None:
    job = submitted(client, shot(place, tiny_model, "killed"))
    for attempt, number in enumerate((signal.SIGKILL, signal.SIGSTOP, signal.SIGKILL), 1):
        waited(client, job, lambda record, attempt=attempt: record.attempt == attempt  # type: ignore[misc]
               and record.state is JobState.RUNNING and len(inodes(place / "killed")) >= 4 * attempt)
        os.kill(worker_of(running), number)
        before, began = inodes(place / "killed"), time.monotonic()
        client.request(Status())
        assert time.monotonic() - began < 2, "the server waits for nobody"
        waited(client, job, lambda record, attempt=attempt: (record.attempt, record.state)  # type: ignore[misc]
               != (attempt, JobState.RUNNING))
        assert before.items() <= inodes(place / "killed").items()
    record = ended(client, job)
    assert record.problem is not None
    assert (record.state, record.problem.code) == (JobState.FAILED, WorkerDied.code)
    assert "killed by signal 9" in record.problem.what
    assert "no sign of life" in running.log.getvalue()
    client.request(Retry(job=job))
    assert ended(client, job).state is JobState.DELIVERED
    assert before.items() <= inodes(place / "killed").items(), "a finished frame was rendered again"
    assert bits(place / "killed") == bits(place / "whole")


def test_a_plate_that_is_sent_is_rendered_as_one_that_lies_there(
        running: Running, client: Client, place: Path, tiny_model: Path, tmp_path: Path) -> None:
    few = with_plate(shot(place, tiny_model, "here"), frames=parse_frames("1001-1004"))
    rendered(few)
    remote, sources = staged(few)
    record = upload(client, remote, sources, client_key=fresh_key())
    assert ended(client, record.id).state is JobState.DELIVERED
    found, paths = download(client, record.id, str(tmp_path / "back"))
    assert found.state is JobState.DELIVERED
    names = sorted(path.name for path in (place / "here").iterdir() if path.is_file())
    assert [Path(path).name for path in paths] == names
    for name in inodes(place / "here"):  # the files differ: each carries the hash of its job, and of its plate's files
        there, here = read_frame(tmp_path / "back" / name), read_frame(place / "here" / name)
        assert np.array_equal(there.pixels, here.pixels), name
    client.request(Discard(job=record.id))
    assert not Path(record.output).parent.exists()


def test_a_killed_server_loses_nothing(place: Path, tiny_model: Path) -> None:
    process = Process(folder=place / "process", words=("--device", "cpu", "--root", str(place), "--root",
                                                       str(tiny_model.parent)))
    process.folder.mkdir()
    process.start()
    try:
        with process.connected() as client:
            client.watch()
            job = submitted(client, shot(place, tiny_model, "orphan"))
            waiting = submitted(client, with_look(shot(place, tiny_model, "next"), strength=0.0))
            waited(client, job, is_underway)
            before = inodes(place / "orphan")
            assert process.child is not None
            process.child.kill()
            process.child.wait()
            process.start()
            process.connected().close()
            events = polled(client, lambda events: len([event for event in of(JobChanged, events)
                                                        if event.record.state is JobState.DELIVERED]) == 2,  # type: ignore[attr-defined]
                            240)
            assert ended(client, job).attempt == 2
            assert ended(client, waiting).state is JobState.DELIVERED
        durable = [event.number for event in events if event.durable]
        assert durable == list(range(1, len(durable) + 1))
        assert before.items() <= inodes(place / "orphan").items(), "a finished frame was rendered again"
        assert bits(place / "orphan") == bits(place / "whole")
        assert not list((place / "orphan").glob(".*.part"))
    finally:
        process.end()
