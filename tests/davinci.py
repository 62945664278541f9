# SPDX-License-Identifier: Apache-2.0
"""What the tests of the DaVinci Resolve plug-in share: a real server, clips whose pictures show their numbers, a drive
to the end, and what is seen on the timeline frame by frame."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import burnt
from resolve_double import World
from resolve_timeline import TimelineItem

from fresco_davinci.clip import Clip, Progress, Record, Wish
from fresco_davinci.stylisation import Line, stylise
from fresco_davinci.timeline import Host, collect
from fresco_protocol.client import Client
from fresco_protocol.errors import ServerMissing
from fresco_protocol.shot import Look

ROOT = Path(__file__).parents[1]
PATH = os.pathsep.join(str(ROOT / room) for room in ("protocol", "backend"))
KEEPS = Look(prompt="a photo", strength=0.0)  # the plate comes back, so that its numbers can be read


@contextmanager
def served(folder: Path) -> Iterator[Line]:
    """A `fresco serve` of its own, in a process, that works below this folder."""
    connection = folder / "connection.json"
    environment = {**os.environ, "PYTHONPATH": PATH, "FRESCO_CONNECTION": str(connection), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "fresco_backend.cli", "serve", "--root", str(folder.parent), "--device", "cpu",
             "--queue", str(folder / "queue.sqlite")]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        _await(connection, server)
        yield Line(software="tests", connection=str(connection))
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def _await(connection: Path, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while True:
        try:
            with Client(str(connection), software="tests") as client:
                client.connect()
            return
        except ServerMissing:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How a test cuts its clip. first: number of the media's first frame; skipped: frames of it before the clip."""

    first: int = 1001
    frames: int = 16
    skipped: int = 4
    start: int = 10
    count: int = 4
    track: int = 1
    name: str = "shot.%04d.exr"


def edited(world: World, folder: Path, cut: Cut = Cut()) -> TimelineItem:
    """A clip on the world's timeline, with the playhead on its third frame."""
    pattern = burnt.write_sequence(folder / "media", range(cut.first, cut.first + cut.frames), cut.name)
    rate = world.timeline.rate.split()[0]
    media = world.imported(pattern, first=cut.first, count=cut.frames, rate=rate)
    world.timeline.playhead = cut.start + 2
    return world.timeline.put(media, cut.first + cut.skipped, cut.start, cut.count, cut.track)


def wish(folder: Path, **changes: Any) -> Wish:
    """A wish whose result shows the plate's numbers."""
    return replace(Wish(look=KEEPS, folder=str(folder / "results")), **changes)


def driven(steps: Generator[Progress, None, Record], *, seconds: float = 400.0) -> Record:
    """Drives a clip to its end."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            next(steps)
        except StopIteration as end:
            record: Record = end.value
            return record
        assert time.monotonic() < deadline, "the clip takes too long"
        time.sleep(0.01)


def stylised(world: World, line: Line, wanted: Wish) -> tuple[Host, Clip, Record]:
    """The clip under the playhead, stylised."""
    host = Host(world.resolve)
    clip = collect(host)[0]
    return host, clip, driven(stylise(host, clip, wanted, line))


def item_of(world: World, record: Record) -> TimelineItem:
    """The item that shows a result."""
    return next(item for item in world.timeline.items() if item.id == record.placed)


def numbers(item: TimelineItem) -> list[int]:
    """The numbers that a viewer reads, frame by frame, while an item plays."""
    return [burnt.number_in(item.picture(frame)) for frame in range(item.start, item.start + item.duration)]


def state(world: World) -> dict[str, Any]:
    """All of the user's that must come back as it was."""
    project, timeline = world.project, world.timeline
    told = world.ledger.version >= (19, 1)  # before, scripts can neither read nor set the marks
    return {"page": world.page, "playhead": timeline.playhead, "bin": world.pool.current.name,
            "marks": dict(timeline.marks) if told else None,
            "deliver": (dict(project.page.settings), project.page.form, project.page.mode, project.page.video),
            "tracks": [(track.name, track.enabled, track.locked) for kind in ("video", "subtitle")
                       for track in timeline.tracks[kind] if not track.name.startswith("FRESCO")],
            "jobs": dict(project.jobs), "timeline": project.current,
            "items": [(item.id, item.start, item.duration, item.shown.first, item.enabled) for item in timeline.items()
                      if not timeline.tracks["video"][item.track - 1].name.startswith("FRESCO")]}
