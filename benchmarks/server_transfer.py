# SPDX-License-Identifier: Apache-2.0
"""Plates sent to a server and deliveries fetched over its socket: `python benchmarks/server_transfer.py [--files 48]`.

How fast both are over the loopback, what they cost the server, and how long another client waits meanwhile. Files hold
random bytes. Over a real network the network is what counts: AT_ONCE chunks are on the way at a time.
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "protocol"), str(ROOT / "backend"), str(ROOT / "tests")]

from processes import processor  # noqa: E402
from servers import Process, shot_in  # noqa: E402

from fresco_backend.commands.staged_shot import staged  # noqa: E402
from fresco_protocol.client import Client  # noqa: E402
from fresco_protocol.messages import Status  # noqa: E402
from fresco_protocol.transfer import download, files_of, upload  # noqa: E402

BETWEEN = 0.02  # seconds between two requests of the other client


def wait_beside(file: str) -> None:
    """Another client, in a process of its own: prints how long it waits, when its input ends."""
    spent: list[float] = []
    over = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    with Client(file, software="other", seconds=60) as client:
        while not over.is_set():
            begin = time.perf_counter()
            client.request(Status())
            spent.append(1000 * (time.perf_counter() - begin))
            time.sleep(BETWEEN)
    spent.sort()
    print(f"status of another client p50 {spent[len(spent) // 2]:.1f} ms, p99 {spent[int(len(spent) * 0.99)]:.1f} ms")


def measure(name: str, size: int, process: Process, work: Callable[[], object]) -> None:
    """Print what a transfer of `size` bytes takes."""
    assert process.child is not None
    words = [sys.executable, __file__, "--beside", process.file]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        begin, before = time.monotonic(), processor(process.child.pid)
        work()
        seconds, used = time.monotonic() - begin, processor(process.child.pid) - before
        said, _ = other.communicate()
    print(f"{name:<8} {size / 1e6:.0f} MB in {seconds:.1f} s: {size / 1e6 / seconds:.0f} MB/s, server's processor "
          f"{1e9 * used / size:.1f} s a GB; {said.strip()}", flush=True)


def main(files: int, megabytes: float, folder: Path) -> None:
    """Send and fetch."""
    (folder / "here").mkdir()
    for number in range(1001, 1001 + files):
        (folder / "here" / f"plate.{number}.exr").write_bytes(os.urandom(int(megabytes * 1e6)))
    shot, sources = staged(shot_in(folder / "here"))
    size = files * int(megabytes * 1e6)
    process = Process(folder=folder, words=("--device", "none"))
    process.start()
    try:
        process.connected().close()
        with Client(process.file, software="load", seconds=60) as client:
            begin = time.monotonic()
            manifest = files_of(sources)
            print(f"{'checksum':<8} {size / 1e6 / (time.monotonic() - begin):.0f} MB/s", flush=True)
            measure("upload", size, process,
                    lambda: upload(client, shot, sources, client_key="load", files=manifest))
            job = upload(client, shot, sources, client_key="load", files=manifest)
            there = Path(job.output).parents[1]
            for path in sorted((there / "plate").iterdir()):
                path.rename(there / "delivery" / path.name)
            measure("download", size, process, lambda: download(client, job.id, str(folder / "back")))
    finally:
        process.end()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=48)
    parser.add_argument("--megabytes", type=float, default=10, help="of one file")
    parser.add_argument("--beside", metavar="FILE", help="only be the other client, for the script itself")
    arguments = parser.parse_args()
    if arguments.beside:
        wait_beside(arguments.beside)
        sys.exit()
    with tempfile.TemporaryDirectory() as name:
        main(arguments.files, arguments.megabytes, Path(name))
