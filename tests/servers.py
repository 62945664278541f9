# SPDX-License-Identifier: Apache-2.0
"""Servers for tests: in a thread of the test, or as a process of their own, with or without workers."""
from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fresco_backend.roots import Roots
from fresco_backend.server.server import Options, Server
from fresco_backend.server.server_log import ServerLog
from fresco_protocol.client import Client
from fresco_protocol.connection import Connection, read_connection
from fresco_protocol.events import Event
from fresco_protocol.job import Job, JobState
from fresco_protocol.messages import ShowJob, Submit, fresh_key
from fresco_protocol.shot import Delivery, Look, Plate, Shot

PACKAGES = [path for path in sys.path if path.endswith(("protocol", "backend"))]
ENDS = (JobState.DELIVERED, JobState.FAILED, JobState.CANCELLED)


def shot_in(folder: Path, name: str = "look") -> Shot:
    """A shot that a server takes, with a plate that is none: it is for servers without workers."""
    (folder / "plate.1001.exr").touch()
    return Shot(plate=Plate(sequence=str(folder / "plate.####.exr")), look=Look(prompt="ink"),
                delivery=Delivery(sequence=str(folder / f"{name[:200]}.####.exr")), name=name)


@dataclass(kw_only=True)
class Running:
    """A server that runs. log: what it says."""

    folder: Path
    server: Server
    log: io.StringIO
    thread: threading.Thread

    @property
    def file(self) -> str:
        return str(self.server.options.connection)

    @property
    def connection(self) -> Connection:
        return read_connection(self.file)

    def client(self, **options: Any) -> Client:
        return Client(self.file, software="test 1", **options)

    def submit(self, client: Client, name: str = "look", **options: Any) -> Job:
        request = Submit(shot=shot_in(self.folder, name), client_key=options.pop("key", fresh_key()), **options)
        return client.request(request).record


@contextmanager
def serving(folder: Path, *, devices: Sequence[str] = (), roots: Sequence[Path] | None = None,
            **options: Any) -> Iterator[Running]:
    """A server in a thread; its queue and connection file lie in `folder`, which is its root too. It takes uploads
    however full the disk of the tests is."""
    log, started, errors = io.StringIO(), threading.Event(), list[BaseException]()
    places = Options(queue=folder / "state" / "queue.sqlite", connection=folder / "state" / "connection.json",
                     roots=Roots.declared([folder] if roots is None else roots), devices=tuple(devices),
                     **{"keep_free": 0, **options})
    server = Server(places, log=ServerLog(log))

    def run() -> None:
        try:
            with server:
                started.set()
                server.run()
        except BaseException as error:  # noqa: BLE001, the test shall see it
            errors.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run, name="server")
    thread.start()
    started.wait(20)
    try:
        if not errors:
            yield Running(folder=folder, server=server, log=log, thread=thread)
    finally:
        server.end()
        thread.join(20)
    if errors:
        raise errors[0]
    assert not thread.is_alive()


@dataclass(kw_only=True)
class Process:
    """A server in a process of its own: `fresco serve`."""

    folder: Path
    words: tuple[str, ...] = ()
    child: subprocess.Popen[bytes] | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.folder / "server.txt"

    @property
    def file(self) -> str:
        return str(self.folder / "state" / "connection.json")

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PACKAGES), "FRESCO_CONNECTION": self.file,
                       "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        words = [sys.executable, "-m", "fresco_backend.cli", "serve", "--root", str(self.folder), "--queue",
                 str(self.folder / "state" / "queue.sqlite"), "--keep-free", "0", *self.words]
        with self.log.open("ab") as stream:
            self.child = subprocess.Popen(words, env=environment, stdout=stream, stderr=stream)

    def client(self) -> Client:
        return Client(self.file, software="test 1")

    def connected(self, seconds: float = 30) -> Client:
        """A client, as soon as this very process answers."""
        assert self.child is not None
        deadline = time.monotonic() + seconds
        while True:
            client = self.client()
            try:
                if client.connect(seconds=1).pid == self.child.pid:
                    return client
            except Exception:  # noqa: BLE001, it is not up yet
                assert self.child.poll() is None, self.log.read_text()
            client.close()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def end(self) -> None:
        if self.child is not None and self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(15)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


def polled(client: Client, until: Callable[[list[Event]], bool], seconds: float = 20) -> list[Event]:
    """Events of as many polls as it takes."""
    events: list[Event] = []
    deadline = time.monotonic() + seconds
    while not until(events):
        assert time.monotonic() < deadline, f"got {[type(event).__name__ for event in events]}, {client.trouble}"
        events += client.poll()
        time.sleep(0.01)
    return events


def waited(client: Client, job: str, wanted: Callable[[Job], bool], seconds: float = 240) -> Job:
    """The job, as soon as it is as wanted."""
    deadline = time.monotonic() + seconds
    while True:
        record = client.request(ShowJob(job=job)).record
        if wanted(record):
            return record
        assert time.monotonic() < deadline, record
        time.sleep(0.05)


def ended(client: Client, job: str, seconds: float = 240) -> Job:
    """The job when it has ended."""
    return waited(client, job, lambda record: record.state in ENDS, seconds)
