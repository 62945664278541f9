# SPDX-License-Identifier: Apache-2.0
"""The server over its socket, without workers: both transports, the queue, watchers, refusals, its place."""
from __future__ import annotations

import io
import itertools
import os
import secrets
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import zmq
from router import PyzmqDealer
from servers import PACKAGES, Process, Running, polled, serving, shot_in, waited

from fresco_backend.queue.job_state import ENDED
from fresco_backend.roots import Roots
from fresco_backend.server.listener import MOST_REFUSED, Listener
from fresco_backend.server.server import Options, Server
from fresco_backend.server.server_address import is_copied
from fresco_backend.server.server_log import ServerLog
from fresco_backend.server.worker_pool import Heard, WorkerProcess
from fresco_backend.worker.worker_words import Told
from fresco_protocol.client import Client, Transport
from fresco_protocol.connection import host_and_port
from fresco_protocol.errors import (
    Busy,
    DiskFull,
    InputError,
    JobRefused,
    JobUnknown,
    MessageMalformed,
    OutputDenied,
    PathRefused,
    ServerError,
    ServerMissing,
    ServerSilent,
    UsageError,
)
from fresco_protocol.events import Alive, JobChanged, ServerStopping, Warned, WatchEnded
from fresco_protocol.job import JobState
from fresco_protocol.messages import (
    Cancel,
    Hello,
    ListJobs,
    ListModels,
    Logs,
    Message,
    Move,
    Pause,
    Preview,
    Resume,
    Retry,
    SetPriority,
    ShowJob,
    Status,
    Stop,
    Submit,
    Watch,
    fresh_key,
)
from fresco_protocol.seal import Stamp, sign
from fresco_protocol.shot import Control, ControlKind, Delivery, Matte, Plate
from fresco_protocol.wire import decode, encode
from fresco_protocol.zmtp import GREETING, READY, Dealer, frame

Dial = Callable[[str], Transport]


@pytest.fixture(params=[Dealer, PyzmqDealer], ids=["stdlib", "pyzmq"])
def dial(request: pytest.FixtureRequest) -> Dial:
    """Both transports."""
    made: Dial = request.param
    return made


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with serving(tmp_path, heartbeat=0.2) as server:
        yield server


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with running.client() as client:
        yield client


def numbers(events: Sequence[object]) -> list[int]:
    return [event.number for event in events if isinstance(event, JobChanged)]


def test_the_life_of_jobs_over_both_transports(running: Running, dial: Dial) -> None:
    with running.client(dial=dial) as client:
        assert client.connect().pid == os.getpid()
        first, second = running.submit(client, "first"), running.submit(client, "second", priority=5)
        assert (first.state, first.name, second.priority) == (JobState.QUEUED, "first", 5)
        page = client.request(ListJobs())
        assert ([record.id for record in page.records], page.total) == ([second.id, first.id], 2)
        assert client.request(SetPriority(job=first.id, priority=9)).record.priority == 9
        assert client.request(Move(job=second.id, before=first.id)).record.priority == 9
        assert [record.id for record in client.request(ListJobs(limit=1)).records] == [second.id]
        assert client.request(Pause(job=first.id)).record.state is JobState.PAUSED
        assert client.request(Resume(job=first.id)).record.state is JobState.QUEUED
        assert client.request(Cancel(job=first.id)).record.state is JobState.CANCELLED
        assert client.request(Retry(job=first.id)).record.state is JobState.QUEUED
        shown = client.request(ShowJob(job=first.id))
        assert shown.shot == shot_in(running.folder, "first")
        status = client.request(Status())
        assert (status.queued, status.running, status.workers, status.last) == (2, 0, (), 8)
        assert status.roots == (str(running.folder.resolve()),)
        assert "embedded" in client.request(ListModels()).models


def test_a_submit_sent_twice_is_one_job_and_its_key_no_others(running: Running, client: Client) -> None:
    submit = Submit(shot=shot_in(running.folder), client_key="key")
    first, second = client.request(submit), client.request(submit)
    assert (first.created, second.created, first.record.id) == (True, False, second.record.id)
    with pytest.raises(UsageError, match="belongs to another shot"):
        client.request(Submit(shot=shot_in(running.folder, "other"), client_key="key"))


def test_errors_come_as_their_classes(running: Running, client: Client) -> None:
    with pytest.raises(JobUnknown):
        client.request(Cancel(job="0123456789ab"))
    job = running.submit(client).id
    with pytest.raises(JobRefused, match="no preview of this queued job"):
        client.request(Preview(job=job))


def test_a_watcher_that_comes_back_misses_nothing(running: Running, dial: Dial) -> None:
    with running.client() as other, running.client(dial=dial) as client:
        client.watch()
        for number in range(3):
            running.submit(other, f"a{number}")
        assert numbers(polled(client, lambda events: len(numbers(events)) == 3)) == [1, 2, 3]
        journal, last = client.journal, client.last
        client.close()
        jobs = [running.submit(other, f"b{number}").id for number in range(120)]
        client.watch(since=last, journal=journal)
        assert numbers(polled(client, lambda events: len(numbers(events)) == 120)) == list(range(4, 124))
        client.watch(since=2, job=jobs[7])
        assert numbers(polled(client, lambda events: len(numbers(events)) == 1)) == [11]
        client.watch(since=10**6, journal="of another queue")
        assert numbers(polled(client, lambda events: len(numbers(events)) == 123))[0] == 1


def test_events_of_a_watch_come_live_and_only_of_its_job(running: Running, client: Client) -> None:
    mine, other = running.submit(client, "mine").id, running.submit(client, "other").id
    with running.client() as watcher:
        watcher.watch(since=2, job=mine)
        for request in (Pause(job=other), Pause(job=mine), Resume(job=other), Resume(job=mine)):
            client.request(request)
        events = polled(watcher, lambda events: len(numbers(events)) == 2)
        assert numbers(events) == [4, 6]
        assert {event.job for event in events if isinstance(event, JobChanged)} == {mine}


def test_the_loop_itself_gives_the_heartbeat(running: Running, client: Client) -> None:
    client.watch()
    begin = time.monotonic()
    polled(client, lambda events: len([event for event in events if isinstance(event, Alive)]) >= 5)
    assert 0.6 < time.monotonic() - begin < 5


def raw(running: Running) -> zmq.Socket[bytes]:
    """A DEALER of libzmq that takes next to nothing from its connection unless it is read."""
    dealer: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    dealer.setsockopt(zmq.LINGER, 0)
    dealer.setsockopt(zmq.RCVHWM, 1)
    dealer.setsockopt(zmq.RCVBUF, 4096)
    dealer.connect(running.connection.endpoint)
    return dealer


def test_a_watcher_that_does_not_read_loses_its_watch_and_nobody_else(
        running: Running, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fresco_backend.server.watchers.PATIENCE", 0.5)
    token = running.connection.token
    job = running.submit(client, "x" * 80_000).id  # events as long fill the buffers of the system soon
    with raw(running) as deaf:
        deaf.send_multipart(encode(Watch(), token, id=fresh_key()))
        assert deaf.poll(5000)
        client.watch()
        for number in range(400):
            client.request(SetPriority(job=job, priority=number % 2 + 1))
        assert numbers(polled(client, lambda events: client.last == 401, 60)) == list(range(1, 402))
        time.sleep(1.2)
        found: list[Message] = []
        while deaf.poll(1000) and not (found and isinstance(found[-1], WatchEnded)):
            found.append(decode(deaf.recv_multipart(), token).message)
        assert isinstance(found[-1], WatchEnded)
        assert numbers(found) == list(range(1, len(numbers(found)) + 1))
        assert len(numbers(found)) < 400


# Refusals.

def test_a_stranger_gets_no_answer_and_is_logged_once(running: Running, client: Client) -> None:
    stranger = Client(running.connection.__class__(**{**vars(running.connection), "token": secrets.token_hex(32)}),
                      software="stranger")
    with stranger, pytest.raises(ServerSilent):
        stranger.connect(seconds=0.5)
    with raw(running) as dealer:
        for _ in range(50):
            dealer.send_multipart(encode(Hello(software="x"), secrets.token_hex(32), id=fresh_key()))
        assert not dealer.poll(300)
    assert client.request(Status()).queued == 0
    assert running.log.getvalue().count("the signature is not made with this server's token") == 1


def test_strangers_do_not_keep_the_loop() -> None:
    """A stranger who sends faster than signatures are checked: `receive` comes back all the same."""
    listener = Listener(secrets.token_hex(32), say=lambda _line: None)
    try:
        parts = [b"id", *encode(Hello(software="x"), secrets.token_hex(32), id=fresh_key())]
        taken = itertools.count()

        def endless(_flags: int) -> list[bytes]:
            next(taken)
            return parts

        own, listener.sockets = listener.sockets, [cast("Any", SimpleNamespace(recv_multipart=endless))]
        assert listener.receive() is None
        assert next(taken) == MOST_REFUSED
        listener.sockets = own
    finally:
        listener.close(linger=0)


def test_a_queue_that_another_process_holds_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").mkdir()
    options = Options(queue=tmp_path / "state" / "queue.sqlite", connection=tmp_path / "state" / "connection.json",
                      roots=Roots.declared([tmp_path]), devices=())
    with Server(options, log=ServerLog(io.StringIO())) as server:
        server.queue._database._connection.execute("PRAGMA busy_timeout = 10")
        job = server.queue.submit(shot_in(tmp_path), key="first").status.id
        claim = server.queue.claim("worker", "cpu")
        worker = WorkerProcess(name="worker", device="cpu", process=cast("subprocess.Popen[bytes]", None), claim=claim)
        holder = sqlite3.connect(options.queue, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        told = Told.of(Warned(number=0, time=0, job=job, code="test", text="x"))
        assert not server.work.took(Heard(worker, told)), "the word waits"
        holder.execute("ROLLBACK")
        holder.close()
        server._next_tick = 0.0
        server._tend()
        assert not server.work.waits
        assert server.queue.status(job).state is JobState.RUNNING


def test_a_message_that_was_sent_before_is_refused(running: Running, client: Client) -> None:
    token = running.connection.token
    parts = encode(Submit(shot=shot_in(running.folder), client_key=fresh_key()), token, id=fresh_key())
    with raw(running) as dealer:
        dealer.send_multipart(parts)
        assert dealer.poll(2000)
        dealer.recv_multipart()
        dealer.send_multipart(parts)
        old = Stamp(secrets.token_bytes(16), time.time_ns() // 1_000_000 - 600_000)
        dealer.send_multipart(encode(Hello(software="x"), token, id=fresh_key(), stamp=old))
        assert not dealer.poll(300)
    assert client.request(ListJobs()).total == 1
    assert "sent before" in running.log.getvalue()


def test_a_signed_message_that_makes_no_sense_is_answered(running: Running) -> None:
    token = running.connection.token
    parts = encode(Hello(software="x"), token, id="0" * 32)
    parts[3] = b'{"software": "x", "and": {"more": 1}}'
    parts[2] = sign(token, [*parts[:2], *parts[3:]])
    with raw(running) as dealer:
        dealer.send_multipart(parts)
        assert dealer.poll(2000)
        reply, id = decode(dealer.recv_multipart(), token)
        assert (id, reply.problem.code) == ("0" * 32, MessageMalformed.code)  # type: ignore[attr-defined]


@pytest.mark.parametrize("garbage", [
    b"GET / HTTP/1.1\r\n\r\n", bytes(200), os.urandom(5000), b"\xff" + bytes(8) + b"\x7f\x03" + os.urandom(300),
])
def test_garbage_disturbs_nobody(running: Running, client: Client, garbage: bytes) -> None:
    with socket.create_connection(host_and_port(running.connection.endpoint)) as link:
        link.sendall(garbage)
        assert client.request(Status()).queued == 0


def test_what_is_too_large_is_refused(running: Running, client: Client) -> None:
    token = running.connection.token
    with raw(running) as dealer:
        dealer.send_multipart([b"x"] * 5000)
        dealer.send_multipart([b"x" * 5_000_000])  # beyond the limit of a part: libzmq ends the connection
        assert not dealer.poll(300)
    with raw(running) as dealer:
        dealer.send_multipart(encode(Status(), token, id=fresh_key()))
        assert dealer.poll(2000)
    assert client.request(Status()).queued == 0


def test_a_message_without_an_end_is_cut_off_and_clients_come_back(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fresco_backend.server.listener.MOST_MEMORY", 30 * 2**20)
    with serving(tmp_path, heartbeat=0.2) as running, running.client() as client:
        client.watch()
        endpoint = running.connection.endpoint
        with socket.create_connection(host_and_port(endpoint)) as link:
            link.sendall(GREETING + READY)
            with pytest.raises(OSError, match=r"reset|Broken pipe"):
                while True:
                    link.sendall(frame(bytes(2**20), 1))
        deadline = time.monotonic() + 20
        while "all connections are ended" not in running.log.getvalue() or client.trouble is not None:
            assert time.monotonic() < deadline
            client.poll()
            time.sleep(0.05)
        while True:  # the door is shut for a moment
            try:
                job = running.submit(client).id
                break
            except ServerError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert numbers(polled(client, lambda events: len(numbers(events)) == 1)) == [1]
        assert client.request(ShowJob(job=job)).record.state is JobState.QUEUED
        assert running.connection.endpoint == endpoint


def test_many_connections_cost_nothing(running: Running, client: Client) -> None:
    place = host_and_port(running.connection.endpoint)
    links = [socket.create_connection(place) for _ in range(400)]
    began = time.monotonic()
    assert client.request(Status()).queued == 0
    assert time.monotonic() - began < 2
    for link in links:
        link.close()


def escape(folder: Path, outside: Path) -> dict[str, str]:
    (folder / "link").symlink_to(outside)
    (folder / "plate.mov").symlink_to(outside / "plate.mov")
    return {
        "elsewhere": "/etc/plate.####.exr", "dots": f"{folder}/../{outside.name}/p.####.exr", "root": "/",
        "folder link": f"{folder}/link/p.####.exr", "file link": f"{folder}/plate.mov", "relative": "p.####.exr",
        "sibling": f"{folder}x/p.####.exr", "zero": f"{folder}/\0/p.####.exr", "home": "~/p.####.exr"}


@pytest.mark.parametrize("place", ["plate", "matte", "delivery", "control"])
def test_paths_that_lead_out_of_the_roots_are_refused(tmp_path: Path, place: str) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    good = shot_in(inside)
    with serving(tmp_path, roots=[inside]) as running, running.client() as client:
        for path in escape(inside, outside).values():
            control = Control(kind=ControlKind.SEQUENCE, sequence=path)
            changes: dict[str, dict[str, Any]] = {
                "plate": {"plate": Plate(sequence=path)}, "matte": {"matte": Matte(sequence=path)},
                "delivery": {"delivery": Delivery(sequence=path)},
                "control": {"look": replace(good.look, controls=(control,))}}
            bad = replace(good, **changes[place])
            with pytest.raises(UsageError) as caught:
                client.request(Submit(shot=bad, client_key=fresh_key()))
            assert caught.value.code == "path-refused", path
        assert client.request(Submit(shot=good, client_key=fresh_key())).created
        assert client.request(ListJobs()).total == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there such a path is one of the server's own")
def test_a_path_of_another_system_is_named_for_what_it_is(running: Running, client: Client) -> None:
    shot = replace(shot_in(running.folder), plate=Plate(sequence="Z:\\show\\plate.####.exr"))
    with pytest.raises(PathRefused, match="no absolute path") as caught:
        client.request(Submit(shot=shot, client_key=fresh_key()))
    assert "FRESCO_PATH_MAPPING" in str(caught.value.remedy)


@pytest.mark.parametrize("model", ["/etc/model", "../model", "~root/model", "{inside}/link"])
def test_models_that_lead_out_of_the_roots_are_refused(tmp_path: Path, model: str) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    good = shot_in(inside)
    with serving(tmp_path, roots=[inside]) as running, running.client() as client:
        bad = replace(good, look=replace(good.look, model=model.format(inside=inside)))
        with pytest.raises(UsageError) as caught:
            client.request(Submit(shot=bad, client_key=fresh_key()))
        assert caught.value.code == "path-refused"


# Its place.

def test_the_connection_file_is_its_owners_and_goes_with_the_server(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        status = Path(running.file).stat()
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert running.connection.token not in running.log.getvalue()
    assert not Path(running.file).exists()
    with running.client() as client, pytest.raises(ServerMissing):
        client.connect()


def test_a_connection_file_that_is_gone_is_written_again(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        before = running.connection
        for name in (running.file, f"{running.file}.lock"):  # as a login manager does at the end of the last session
            Path(name).unlink()
        deadline = time.monotonic() + 10
        while not Path(running.file).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert running.connection == before
        assert not is_copied(Path(running.file))
        with running.client() as client:
            assert client.request(Status()).queued == 0
    assert not Path(running.file).exists()


def test_the_connection_file_of_another_machine_is_not_written_over(tmp_path: Path) -> None:
    copied = tmp_path / "state" / "connection.json"
    copied.parent.mkdir()
    copied.write_text("of the box")
    with pytest.raises(UsageError, match="copy from another machine"), serving(tmp_path):
        pass
    assert copied.read_text() == "of the box"


def test_a_second_server_is_refused_and_the_first_goes_on(
        tmp_path: Path, running: Running, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fresco_backend.server.server_address.PATIENCE", 0.2)
    before = Path(running.file).read_text()
    with pytest.raises(Busy), serving(tmp_path):
        pass
    assert Path(running.file).read_text() == before
    assert client.request(Status()).queued == 0


@pytest.mark.parametrize("link", ["link.sqlite", "linked/queue.sqlite"])
def test_a_link_to_the_queue_lets_no_second_server_in(
        tmp_path: Path, running: Running, client: Client, monkeypatch: pytest.MonkeyPatch, link: str) -> None:
    monkeypatch.setattr("fresco_backend.server.server_address.PATIENCE", 0.2)
    (tmp_path / "link.sqlite").symlink_to(running.server.options.queue)
    (tmp_path / "linked").symlink_to(running.server.options.queue.parent)
    options = replace(running.server.options, queue=tmp_path / link, connection=tmp_path / "other.json")
    with pytest.raises(Busy, match="at work here already"), Server(options, log=ServerLog(io.StringIO())):
        pass
    assert client.request(Status()).queued == 0


def test_jobs_and_the_numbers_of_events_outlive_the_server(tmp_path: Path) -> None:
    with serving(tmp_path) as running, running.client() as client:
        jobs = [running.submit(client, f"a{number}").id for number in range(3)]
        client.watch()
        polled(client, lambda events: len(numbers(events)) == 3)
        journal = client.journal
    with serving(tmp_path) as running, running.client() as client:
        assert [record.id for record in client.request(ListJobs()).records] == jobs
        client.watch(since=3, journal=journal)
        running.submit(client, "b")
        assert numbers(polled(client, lambda events: len(numbers(events)) == 1)) == [4]


def test_a_client_follows_the_server_to_its_next_start(tmp_path: Path) -> None:
    with serving(tmp_path, heartbeat=0.2) as running:
        client = running.client()
        client.watch()
        job = running.submit(client).id
        polled(client, lambda events: len(numbers(events)) == 1)
    with serving(tmp_path, heartbeat=0.2) as running:
        with running.client() as other:
            other.request(Pause(job=job))
        events = polled(client, lambda events: len(numbers(events)) == 1)
        assert numbers(events) == [2]
        client.close()


def test_the_queue_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    with serving(tmp_path):
        pass
    queue = tmp_path / "state" / "queue.sqlite"
    if os.getuid() == 0:
        queue.unlink()
        queue.mkdir()
    else:
        queue.chmod(0o400)
    with pytest.raises(OutputDenied), serving(tmp_path):
        pass


def test_a_root_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"), serving(tmp_path, roots=[tmp_path / "none"]):
        pass


def test_it_stops_when_asked_to_and_says_so(tmp_path: Path) -> None:
    with serving(tmp_path) as running, running.client() as client, running.client() as watcher:
        watcher.watch()
        client.request(Stop())
        polled(watcher, lambda events: any(isinstance(event, ServerStopping) for event in events))
        running.thread.join(5)
        assert not running.thread.is_alive()


def test_it_ends_when_nobody_needs_it(tmp_path: Path) -> None:
    with serving(tmp_path, idle_exit=0.3) as running, running.client() as client:
        job = running.submit(client).id
        time.sleep(1.5)
        assert running.thread.is_alive(), "a job is queued"
        client.request(Cancel(job=job))
        running.thread.join(5)
        assert not running.thread.is_alive()
        assert "nothing to do" in running.log.getvalue()


def test_its_log_can_be_read(running: Running, client: Client) -> None:
    page = client.request(Logs())
    assert page.lines[0].endswith(f"roots {running.folder.resolve()}")
    assert client.request(Logs(since=page.next)).lines == ()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    process = Process(folder=tmp_path, words=("--json",))
    process.start()
    try:
        with process.connected():
            assert process.child is not None
            process.child.send_signal(number)
            assert process.child.wait(15) == 0
    finally:
        process.end()
    assert not Path(process.file).exists()


def test_a_server_that_was_stopped_for_a_while_goes_on(tmp_path: Path) -> None:
    process = Process(folder=tmp_path, words=("--device", "none"))
    process.start()
    try:
        with process.connected() as client:
            client.watch()
            job = client.request(Submit(shot=shot_in(tmp_path), client_key="k")).record.id
            assert process.child is not None
            process.child.send_signal(signal.SIGSTOP)
            deadline = time.monotonic() + 30
            while client.trouble is None:
                assert time.monotonic() < deadline
                client.poll()
                time.sleep(0.05)
            assert isinstance(client.trouble, ServerSilent)
            process.child.send_signal(signal.SIGCONT)
            while client.trouble is not None:
                assert time.monotonic() < deadline + 30
                client.poll()
                time.sleep(0.05)
            client.request(Cancel(job=job), seconds=20)
            polled(client, lambda events: client.last == 2)
    finally:
        process.end()


def test_the_server_is_light() -> None:
    program = f"import sys; sys.path[:0] = {PACKAGES}; " \
              "import fresco_backend.server.server, fresco_backend.commands.job_commands; " \
              "print(*sorted({'torch', 'numpy', 'cv2', 'OpenImageIO', 'diffusers'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_a_list_of_jobs_comes_in_pages_that_fit_a_message(
        running: Running, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fresco_backend.server.answers._LARGEST_PAGE", 4000)
    jobs = [running.submit(client, f"a{number}").id for number in range(7)]
    found: list[str] = []
    while len(found) < len(jobs):
        page = client.request(ListJobs(skip=len(found), limit=1000))
        assert page.total == 7
        assert 0 < len(page.records) < 7
        found += [record.id for record in page.records]
    assert found == jobs


def test_ended_jobs_come_last(running: Running, client: Client) -> None:
    first, second = running.submit(client, "first").id, running.submit(client, "second").id
    client.request(Cancel(job=first))
    assert [record.id for record in client.request(ListJobs()).records] == [second, first]
    assert client.request(ListJobs(states=tuple(ENDED))).total == 1
    waited(client, first, lambda record: record.state is JobState.CANCELLED, 1)


def filled(server: Server, *, full: bool) -> None:
    """Let the queue's file grow no further, as on a full disk; or let it grow again."""
    connection = server.queue._database._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages if full else 10**9}")


def read_only(server: Server, *, full: bool) -> None:
    """Let SQLite refuse to write, as on a disk that was remounted; or let it write again."""
    server.queue._database._connection.execute(f"PRAGMA query_only = {'ON' if full else 'OFF'}")


@pytest.mark.parametrize(("filled", "error"), [(filled, DiskFull), (read_only, OutputDenied)])
def test_on_a_disk_that_refuses_nothing_is_lost_and_clients_are_told(
        tmp_path: Path, filled: Callable[..., None], error: type[Exception]) -> None:
    (tmp_path / "state").mkdir()
    options = Options(queue=tmp_path / "state" / "queue.sqlite", connection=tmp_path / "state" / "connection.json",
                      roots=Roots.declared([tmp_path]), devices=())
    with Server(options, log=ServerLog(io.StringIO())) as server:
        submit = Submit(shot=shot_in(tmp_path, "x" * 100_000), client_key="key")
        job = server.queue.submit(shot_in(tmp_path), key="first").status.id
        claim = server.queue.claim("worker", "cpu")
        worker = WorkerProcess(name="worker", device="cpu", process=cast("subprocess.Popen[bytes]", None), claim=claim)
        event = Warned(number=0, time=0, job=job, code="test", text="x" * 50_000)
        filled(server, full=True)
        assert not server.work.took(Heard(worker, Told.of(event)))
        with pytest.raises(error):
            server.answers.reply(submit)
        assert server.answers.reply(ListJobs()).total == 1, "it still answers"  # type: ignore[attr-defined]
        server._tend()
        assert server.work.waits, "the word waits"
        assert server.queue.status(job).state is JobState.RUNNING
        filled(server, full=False)
        server._next_tick = 0.0
        server._tend()
        assert not server.work.waits
        assert [event.number for event in server.queue.journal.events()] == [1, 2, 3]
        assert server.answers.reply(submit).created
