# SPDX-License-Identifier: Apache-2.0
"""Latency of a server with a full queue and many watchers: `python benchmarks/server_load.py [--jobs 1000]`.

The server is a process of `fresco serve` without a worker, the watchers are another process, and this one asks. Wall
time is what a client waits, on whatever else the machine does; the server's processor time does not depend on that.
The last figures are of a server whose worker renders a shot of a tiny model, which tells many events a second.
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "protocol"), str(ROOT / "backend"), str(ROOT / "tests")]

from processes import processor  # noqa: E402
from servers import Process, shot_in  # noqa: E402

from fresco_protocol.client import Client  # noqa: E402
from fresco_protocol.job import JobState  # noqa: E402
from fresco_protocol.messages import ListJobs, SetPriority, ShowJob, Status, Submit, fresh_key  # noqa: E402

IDLE = 20.0  # seconds
FRAMES = 500  # of the shot that is rendered meanwhile


def measure(name: str, times: int, process: int, ask: Callable[[int], object]) -> None:
    """Print what one kind of request takes."""
    spent, before = [], processor(process)
    for number in range(times):
        begin = time.perf_counter()
        ask(number)
        spent.append(1000 * (time.perf_counter() - begin))
    used = 1000 * (processor(process) - before) / times
    spent.sort()
    print(f"{name:<34} p50 {spent[times // 2]:7.2f}   p99 {spent[int(times * 0.99)]:7.2f}   "
          f"server's processor {used:6.2f}", flush=True)


def watch(file: str, watchers: int) -> None:
    """Watch with many connections until the process is ended; say when all of them do."""
    clients = [Client(file, software=f"watcher {number}") for number in range(watchers)]
    for client in clients:
        client.watch(since=client.request(Status(), seconds=60).last, seconds=60)
    print("watching", flush=True)
    while True:
        for client in clients:
            client.poll()
        time.sleep(0.2)


def main(jobs: int, watchers: int, times: int, folder: Path) -> None:
    """Measure, without watchers and with them."""
    process = Process(folder=folder, words=("--device", "none"))
    process.start()
    try:
        process.connected().close()
        assert process.child is not None
        server = process.child.pid
        with Client(process.file, software="load", seconds=60) as client:
            def submit(number: int) -> object:
                shot = shot_in(folder, f"look-{number}")
                return client.request(Submit(shot=shot, client_key=fresh_key(), priority=number % 5))

            for number in range(jobs):
                submit(number)
            first = client.request(ListJobs(limit=1)).records[0].id
            print(f"{jobs} queued jobs, load of the machine {os.getloadavg()[0]:.1f}; milliseconds")

            def all_requests(suffix: str) -> None:
                measure(f"status{suffix}", times, server, lambda _: client.request(Status()))
                measure(f"jobs, a page of 100{suffix}", times, server, lambda _: client.request(ListJobs()))
                measure(f"submit{suffix}", times, server, submit)
                measure(f"priority{suffix}", times, server,
                        lambda number: client.request(SetPriority(job=first, priority=number % 50)))

            all_requests("")
            words = [sys.executable, __file__, "--watch", process.file, "--watchers", str(watchers)]
            with subprocess.Popen(words, stdout=subprocess.PIPE) as other:
                assert other.stdout is not None
                other.stdout.readline()
                all_requests(f", {watchers} watchers")
                before = processor(server)
                time.sleep(IDLE)
                used = processor(server) - before
                other.terminate()
        print(f"idle, {watchers} watchers: {100 * used / IDLE:.2f} % of one core")
    finally:
        process.end()


def main_working(times: int, folder: Path) -> None:
    """Measure while a worker works; the job must still run at the end."""
    from shots import small_shot, write_plate

    import tiny

    write_plate(folder / "plate", FRAMES)
    tiny.save_pipeline(folder / "model")
    shot = small_shot(folder / "plate" / "plate.####.png", folder / "model", folder / "out" / "look.####.png")
    process = Process(folder=folder, words=("--device", "cpu"))
    process.start()
    try:
        process.connected().close()
        assert process.child is not None
        server = process.child.pid
        with Client(process.file, software="load", seconds=60) as client:
            job = client.request(Submit(shot=shot, client_key=fresh_key())).record.id
            while client.request(ShowJob(job=job)).record.done < 3:
                time.sleep(0.1)
            first, began = client.request(Status()).last, time.monotonic()
            measure("status, a worker works", times, server, lambda _: client.request(Status()))
            measure("jobs, a worker works", times, server, lambda _: client.request(ListJobs()))
            measure("show, a worker works", times, server, lambda _: client.request(ShowJob(job=job)))
            told = (client.request(Status()).last - first) / (time.monotonic() - began)
            record = client.request(ShowJob(job=job)).record
            if record.state is not JobState.RUNNING:
                raise SystemExit(f"the job is {record.state.value} too early: {record.problem}")
            print(f"meanwhile the worker told {told:.0f} events a second; {record.done} of {record.total} frames")
    finally:
        process.end()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--watchers", type=int, default=100)
    parser.add_argument("--times", type=int, default=300, help="requests of each kind")
    parser.add_argument("--watch", metavar="FILE", help="only watch, for the script itself")
    arguments = parser.parse_args()
    if arguments.watch:
        watch(arguments.watch, arguments.watchers)
    with tempfile.TemporaryDirectory() as name:
        main(arguments.jobs, arguments.watchers, arguments.times, Path(name))
    with tempfile.TemporaryDirectory() as name:
        main_working(arguments.times, Path(name))
