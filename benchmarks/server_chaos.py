# SPDX-License-Identifier: Apache-2.0
"""Kills a real server and its workers at random moments: `python benchmarks/server_chaos.py [--kills 200] [--seed 7]`.

A process of `fresco serve` renders jobs of a tiny model; new ones are submitted all the time, one client watches. After
each random while the server or its worker is killed with SIGKILL, or the worker is frozen. In the end everything must
be as if nothing had happened, or the script ends with 1:

    no job lost            every job that the server said it had is delivered (one whose workers died three times has
                           failed with its last words, and is tried again)
    no frame torn, twice   every delivery is, bit for bit, that of one uninterrupted render, and no .part is left
    none rendered again    a frame that lay there at a kill is the same file in the end
    events without gaps    the watcher has every number from 1 on, once, in order, across all restarts
"""
from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "protocol"), str(ROOT / "backend"), str(ROOT / "tests")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from servers import ENDS, Process  # noqa: E402
from shots import bits, rendered, small_shot, write_plate  # noqa: E402

import tiny  # noqa: E402
from fresco_protocol.client import Client  # noqa: E402
from fresco_protocol.errors import FrescoError, ServerError, WorkerDied  # noqa: E402
from fresco_protocol.job import Job, JobState  # noqa: E402
from fresco_protocol.messages import ListJobs, Retry, Status, Submit  # noqa: E402
from fresco_protocol.shot import Shot  # noqa: E402

FRAMES = 40
RUNNING_FIRST = 0.8  # part of the kills that wait until a worker, which takes seconds to load torch, has a job
LIVE = 3  # jobs that have not ended, at a time


@dataclass(kw_only=True)
class Chaos:
    """One run. stop: seconds that the server is stopped at each strike, in place of kills; 0 kills. said: jobs that
    the server confirmed, by their delivery's name. seen: files at each kill."""

    folder: Path
    stop: float
    choice: random.Random
    process: Process
    said: dict[str, str] = field(default_factory=dict)
    seen: dict[Path, tuple[int, int]] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    retried: int = 0

    def shot(self, name: str) -> Shot:
        return small_shot(self.folder / "plate" / "plate.####.png", self.folder / "model",
                          self.folder / name / "look.####.png")

    def submit(self, client: Client) -> None:
        """One more job, under a key of its own; sent again until it is confirmed."""
        name = f"job-{len(self.said):04d}"
        self.said[name] = client.request(Submit(shot=self.shot(name), client_key=name)).record.id

    def note_files(self) -> None:
        """Remember every frame that is there."""
        for path in self.folder.glob("job-*/look.*.png"):
            self.seen.setdefault(path, identity(path))

    def strike(self) -> None:
        """Kill the server or a worker, or freeze a worker until the server replaces it."""
        assert self.process.child is not None
        if self.stop:
            self.process.child.send_signal(signal.SIGSTOP)
            time.sleep(self.stop)
            self.note_files()
            self.process.child.send_signal(signal.SIGCONT)
            self.counts["stopped"] = self.counts.get("stopped", 0) + 1
            return
        workers = children(self.process.child.pid)
        kind = self.choice.choices(("server", "worker", "frozen"), (5, 4, 1))[0]
        if kind == "server" or not workers:
            self.process.child.kill()
            self.process.child.wait()
            self.note_files()
            self.process.start()
            kind = "server"
        else:
            try:
                os.kill(workers[0], signal.SIGKILL if kind == "worker" else signal.SIGSTOP)
            except ProcessLookupError:
                return
            self.note_files()
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def poll(self, watcher: Client) -> None:
        self.numbers += [event.number for event in watcher.poll() if event.durable]

    def attend(self, client: Client, watcher: Client, seconds: float) -> None:
        """Feed the queue, try failed jobs again, and listen, for a while."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.feed(client, watcher)

    def attend_running(self, client: Client, watcher: Client) -> None:
        """The same, until a worker has a job."""
        while not self.feed(client, watcher):
            pass

    def feed(self, client: Client, watcher: Client) -> bool:
        """See that there are jobs; whether one of them is running."""
        time.sleep(0.2)
        self.poll(watcher)
        with suppress(ServerError):  # it was killed; the client connects again
            self.retry_failed(client)
            live = client.request(ListJobs(states=tuple(set(JobState) - set(ENDS)))).records
            if len(live) < LIVE:
                self.submit(client)
            return any(record.state is JobState.RUNNING for record in live)
        return False

    def retry_failed(self, client: Client) -> None:
        for record in client.request(ListJobs(states=(JobState.FAILED,))).records:
            problem = record.problem
            if problem is None or problem.code != WorkerDied.code:
                raise FrescoError(f"job {record.id} failed: {problem}")
            client.request(Retry(job=record.id))
            self.retried += 1

    def finish(self, client: Client, watcher: Client) -> list[Job]:
        """All jobs, when every one has ended."""
        while True:
            self.poll(watcher)
            try:
                self.retry_failed(client)
                page = client.request(ListJobs(limit=1000))
            except ServerError:
                continue
            if all(record.state in ENDS for record in page.records) and watcher.last == client.request(Status()).last:
                return list(page.records)
            time.sleep(0.2)

    def faults(self, records: list[Job], whole: dict[str, str]) -> list[str]:
        """What is wrong in the end."""
        states = {record.id: record.state for record in records}
        found = [f"{name}: {states.get(job, 'lost')}" for name, job in self.said.items()
                 if states.get(job) is not JobState.DELIVERED]
        found += [f"{name}: other files than an uninterrupted render" for name in self.said
                  if bits(self.folder / name) != whole]
        found += [f"{path}: rendered again" for path, file in self.seen.items() if identity(path) != file]
        found += [f"{path}: left" for path in self.folder.glob("job-*/.*.part")]
        if self.numbers != list(range(1, len(self.numbers) + 1)):
            found.append(f"events with gaps or twice: {len(self.numbers)} seen, the last is {self.numbers[-1]}")
        return found


def identity(path: Path) -> tuple[int, int]:
    """Which file lies there."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def children(process: int) -> list[int]:
    """The processes that a process has started."""
    listed = Path(f"/proc/{process}/task/{process}/children")
    return [int(word) for word in listed.read_text().split()] if listed.exists() else []


def main(kills: int, seed: int, longest_pause: float, stop: float, folder: Path) -> int:
    """Run, print what happened, and give the exit code."""
    write_plate(folder / "plate", FRAMES)
    tiny.save_pipeline(folder / "model")
    process = Process(folder=folder, words=("--device", "cpu"))
    chaos = Chaos(folder=folder, stop=stop, choice=random.Random(seed), process=process)
    rendered(chaos.shot("whole"))
    began = time.monotonic()
    process.start()
    try:
        process.connected().close()
        with process.client() as client, process.client() as watcher:
            watcher.watch()
            for number in range(kills):
                if chaos.choice.random() < RUNNING_FIRST:
                    chaos.attend_running(client, watcher)
                chaos.attend(client, watcher, chaos.choice.uniform(0.1, longest_pause))
                chaos.strike()
                if number % 10 == 9:
                    print(f"{number + 1} strikes, {len(chaos.said)} jobs, {time.monotonic() - began:.0f} s", flush=True)
            records = chaos.finish(client, watcher)
    finally:
        process.end()
    faults = chaos.faults(records, bits(folder / "whole"))
    print(f"seed {seed}: {chaos.counts} killed, frozen or stopped in {time.monotonic() - began:.0f} s; "
          f"{len(chaos.said)} jobs, {len(chaos.said) * FRAMES} frames, {len(chaos.seen)} of them there at a kill, "
          f"{len(chaos.numbers)} events; "
          f"{sum(record.attempt for record in records)} attempts, {chaos.retried} tried again by hand")
    print("\n".join(faults) or "nothing lost, torn, twice or out of order")
    return 1 if faults else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--pause", type=float, default=5.0, help="longest, in seconds, before a kill")
    parser.add_argument("--stop", type=float, default=0, metavar="SECONDS",
                        help="do not kill: stop the server for so long (SIGSTOP), and let it go on")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="fresco-chaos-"))
    code = main(arguments.kills, arguments.seed, arguments.pause, arguments.stop, place)
    if code == 0:
        shutil.rmtree(place)
    else:
        print(f"what is there stays in {place}")
    sys.exit(code)
