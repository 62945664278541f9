# SPDX-License-Identifier: Apache-2.0
"""`fresco submit --upload` and `fresco download`: for a server that shares no disk with this machine."""
from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fresco_backend.job_state import ENDED
from fresco_backend.plan_text import bytes_text, counted
from fresco_protocol.client import Client
from fresco_protocol.document import write
from fresco_protocol.errors import Busy
from fresco_protocol.job import Job, JobState
from fresco_protocol.messages import Discard
from fresco_protocol.shot import Shot
from fresco_protocol.transfer import Moved, Told, download, files_of, upload

DOWNLOAD = """\
Fetches what a job has delivered, every file checked; what is here already is not fetched again, so the same command
goes on where it stopped. Of a job that was submitted with --upload, it then deletes the server's copy of plate and
delivery."""
SAID_EACH = 5.0  # seconds between two lines where there is no terminal


def add_download(commands: Any) -> None:
    """Adds the command."""
    command = commands.add_parser("download", help="fetch a job's delivery from a server that shares no disk",
                                  description=DOWNLOAD)
    command.add_argument("job", metavar="JOB", help="a job's id")
    command.add_argument("-o", "--output", metavar="DIR", type=Path, required=True,
                         help="folder; made if it is not there")
    command.add_argument("--keep", action="store_true", help="leave the server's copy where it is")
    command.add_argument("--json", action="store_true", help="JSON lines on stdout")
    command.set_defaults(run=_download)


def sent(client: Client, shot: Shot, *, key: str | None, priority: int, as_json: bool) -> Job:
    """The job of a shot whose files were sent; what this takes is shown. key: None is the shot's own."""
    from fresco_backend.staged_shot import key_of, staged

    remote, sources = staged(shot)
    with _shown(as_json=as_json) as told:
        files = files_of(sources, told)
        return upload(client, remote, sources, client_key=key or key_of(remote, files), priority=priority,
                      files=files, told=told)


def _download(arguments: argparse.Namespace) -> int:
    from fresco_backend.job_commands import connected

    with connected() as client:
        with _shown(as_json=arguments.json) as told:
            record, paths = download(client, arguments.job, str(arguments.output), told=told)
        over = record.state in ENDED
        if record.state is JobState.DELIVERED and not arguments.keep:  # another one may be tried again
            client.request(Discard(job=record.id))
    if arguments.json:
        _print({"event": "downloaded", "job": write(record), "files": paths})
    else:
        sys.stderr.write(f"{counted(len(paths), 'file')} of job {record.id} in {arguments.output}\n")
    if not over:
        raise Busy(f"the job is {record.state.value}; what it has delivered by now is here", where=f"job {record.id}",
                   remedy="Run the same command again for the rest.")
    return 0


@contextmanager
def _shown(*, as_json: bool) -> Iterator[Told]:
    """What shows a transfer: a bar on a terminal, now and then a line elsewhere."""
    if sys.stderr.isatty() and not as_json:
        with _bar() as told:
            yield told
        return
    last: tuple[str, float] = ("", 0.0)

    def tell(moved: Moved) -> None:
        nonlocal last
        now = time.monotonic()
        if moved.what == last[0] and now - last[1] < SAID_EACH and moved.done < moved.total:
            return
        if moved.what == last[0] == "checking" and now - last[1] < SAID_EACH:
            return
        last = (moved.what, now)
        if as_json:
            _print({"event": "moved", **moved._asdict()})
        else:
            sys.stderr.write(f"{moved.what} {moved.name}: {bytes_text(moved.done)} of {bytes_text(moved.total)}\n")

    yield tell


@contextmanager
def _bar() -> Iterator[Callable[[Moved], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr)) as progress:
        tasks: dict[str, Any] = {}

        def tell(moved: Moved) -> None:
            if moved.what not in tasks:
                tasks[moved.what] = progress.add_task(moved.what, total=moved.total)
            progress.update(tasks[moved.what], completed=moved.done, total=moved.total)

        yield tell


def _print(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
