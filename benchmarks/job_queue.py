# SPDX-License-Identifier: Apache-2.0
"""Latency of the durable queue with many queued jobs: `python benchmarks/job_queue.py [--jobs 1000] [--folder DIR]`.

Every change waits for the disk, so the time of one write and fsync on the same disk is measured beside it. FOLDER is
where the queue's file is made: name one on the disk that matters, memory file systems flatter.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "protocol"), str(ROOT / "backend")]

from fresco_backend.queue.jobs import JobQueue  # noqa: E402
from fresco_protocol.events import Advanced  # noqa: E402
from fresco_protocol.job import Job, Stage  # noqa: E402
from fresco_protocol.shot import Delivery, Look, Plate, Shot  # noqa: E402

SHOT = Shot(plate=Plate(sequence="/p.####.exr"), look=Look(prompt="ink"), delivery=Delivery(sequence="/o.####.exr"))


def milliseconds(work: Callable[[int], object], times: int) -> str:
    """Median and 99th percentile of the wall time of a call, and its mean processor time, in milliseconds."""
    spent, processor = [], time.process_time()
    for number in range(times):
        begin = time.perf_counter()
        work(number)
        spent.append(1000 * (time.perf_counter() - begin))
    processor = 1000 * (time.process_time() - processor) / times
    spent.sort()
    return f"p50 {spent[times // 2]:7.2f}   p99 {spent[int(times * 0.99)]:7.2f}   processor {processor:6.2f}"


def records(queue: JobQueue, limit: int) -> list[Job]:
    """What a client gets to see."""
    return [status.record for status in queue.jobs(limit=limit).jobs]


def measure(folder: Path, jobs: int) -> None:
    """Print the figures of a fresh queue in `folder`."""
    with JobQueue(folder / "jobs.sqlite") as queue, (folder / "raw").open("wb") as raw:
        for number in range(jobs):
            queue.submit(SHOT, key=f"key {number}", priority=number % 5)

        def fsync(_: int) -> None:
            raw.write(bytes(4096))
            raw.flush()
            os.fsync(raw.fileno())

        print(f"{jobs} queued jobs, milliseconds")
        print("write + fsync of 4 KiB   ", milliseconds(fsync, 200))
        print("submit                   ", milliseconds(lambda n: queue.submit(SHOT, key=f"more {n}"), 300))
        print("submit, sent again       ", milliseconds(lambda n: queue.submit(SHOT, key=f"more {n}"), 300))
        print("list 1000 jobs           ", milliseconds(lambda _: queue.jobs(), 100))
        print("list 1000 jobs as records", milliseconds(lambda _: records(queue, 1_000), 50))
        print("list 50 jobs as records  ", milliseconds(lambda _: records(queue, 50), 100))
        claim = queue.claim("w", "cpu")
        assert claim is not None
        step = Advanced(number=0, time=0, job=claim.job, stage=Stage.KEYFRAMES, done=1, total=20)
        print("report of one event      ", milliseconds(lambda _: queue.report(claim, [step]), 300))
        print("replay of 100 events     ", milliseconds(lambda n: queue.journal.events(n, limit=100), 100))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--folder", type=Path, help="default: the folder of temporary files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        measure(Path(name), arguments.jobs)
