# SPDX-License-Identifier: Apache-2.0
"""`fresco submit --upload` and `fresco download`: for a server that shares no disk with this machine."""
from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fresco_backend import settings
from fresco_backend.interruption import Terminated
from fresco_backend.queue.job_state import ENDED
from fresco_backend.server.server_address import COPIED, is_copied
from fresco_backend.terminal.job_text import job_id
from fresco_backend.terminal.plan_text import bytes_text, counted
from fresco_protocol.client import Client
from fresco_protocol.document import write
from fresco_protocol.errors import (
    Busy,
    InputError,
    Interrupted,
    JobRefused,
    PartialDelivery,
    ServerError,
    ServerMissing,
)
from fresco_protocol.job import Job, JobState
from fresco_protocol.messages import Discard, ListDelivery, Retry, Submit
from fresco_protocol.shot import Shot
from fresco_protocol.transfer import PATIENCE, Moved, Told, download, files_of, upload

DOWNLOAD = """\
Fetches what a job has delivered, every file checked; what is here already is not fetched again, so the same command
goes on where it stopped. Of a job that was submitted with --upload, it then deletes the server's copy of plate and
delivery."""
SAID_EACH = 5.0  # seconds between two lines where there is no terminal


def add_download(commands: Any) -> None:
    """Adds the command."""
    command = commands.add_parser("download", help="fetch a job's delivery from a server that shares no disk",
                                  description=DOWNLOAD)
    command.add_argument("job", metavar="JOB", type=job_id, help="a job's id")
    command.add_argument("-o", "--output", metavar="DIR", type=Path, required=True,
                         help="folder; made if it is not there")
    command.add_argument("--keep", action="store_true", help="leave the server's copy where it is")
    command.add_argument("--json", action="store_true", help="JSON lines on stdout")
    command.set_defaults(run=_download)


def sent(client: Client, shot: Shot, *, key: str | None, priority: int, as_json: bool) -> Job:
    """The job of a shot whose files were sent; what this takes is shown. key: None is the shot's own, and a fresh one
    where the files of its ended job are gone. Raises JobRefused for a given key whose job has ended, and for a job that
    is cancelled meanwhile."""
    from fresco_backend.commands.staged_shot import key_of, staged

    remote, sources = staged(shot)
    with _resumable(), _shown(as_json=as_json) as told:
        files = files_of(sources, told)
        submit = Submit(shot=remote, client_key=key or key_of(remote, files), priority=priority, files=files)
        while (known := _over(client, submit, again=key is None)) is not None:
            if key is not None:
                raise JobRefused(f"the job of this key is {known.state.value} already", where=f"job {known.id}",
                                 remedy="Take another --client-key. Or, where its files are still there: fresco retry")
            submit = replace(submit, client_key=f"{key_of(remote, files)}-{known.id}")  # the next one of the same shot
        record = upload(client, remote, sources, client_key=submit.client_key, priority=priority, files=files,
                        told=told)
    if record.state is JobState.CANCELLED:
        raise JobRefused("the job was cancelled while its files came", where=f"job {record.id}",
                         remedy="To queue it after all, do the same again: what has arrived is kept.")
    return record


def _over(client: Client, submit: Submit, *, again: bool) -> Job | None:
    """The job of a known key that has ended, with nothing left to fetch. again: one whose files are still there is
    tried again instead."""
    found = client.request(submit, seconds=PATIENCE)  # thousands of names, over a slow way
    record = found.record
    if found.created or record.state not in ENDED:
        return None
    if record.state is JobState.DELIVERED:
        return None if client.request(ListDelivery(job=record.id, limit=1)).total else record
    if again:
        with suppress(JobRefused):
            client.request(Retry(job=record.id))
            return None
    return record


def _download(arguments: argparse.Namespace) -> int:
    from fresco_backend.commands.job_commands import connected

    with connected() as client:
        with _resumable(), _shown(as_json=arguments.json) as told:
            record, paths = download(client, arguments.job, str(arguments.output), told=told,
                                     replaceable=_is_delivery)
        over = record.state in ENDED
        if over and not paths and record.problem is not None:
            raise record.problem.error()
        if over and not paths:
            raise JobRefused(f"nothing to fetch: the job is {record.state.value}, and no file of a delivery is on the "
                             "server", where=f"job {record.id}",
                             remedy="A download deletes the server's copy. Submit the shot again to render it again.")
        if record.state is JobState.DELIVERED and not arguments.keep:  # another one may be tried again
            client.request(Discard(job=record.id))
    if arguments.json:
        _print({"event": "downloaded", "job": write(record), "files": paths})
    else:
        sys.stderr.write(f"{counted(len(paths), 'file')} of job {record.id} in {arguments.output}\n")
    if not over:
        raise Busy(f"the job is {record.state.value}; what it has delivered by now is here", where=f"job {record.id}",
                   remedy="Run the same command again for the rest.")
    if record.state is not JobState.DELIVERED:
        raise PartialDelivery(f"the job is {record.state.value}; what it had delivered is here, and whole",
                              where=f"job {record.id}", remedy=f"Why: fresco watch {record.id}. For the rest: fresco "
                              f"retry {record.id}, and when it has ended the same command again.")
    return 0


def _is_delivery(path: str) -> bool:
    """Whether a file says that Fresco delivered it: what else has a delivery's name, such as a plate, stays."""
    from fresco_backend.files.frame_pattern import MOVIES, PICTURES, record_path
    from fresco_backend.files.frames import embedded_job_hash
    from fresco_backend.files.image_files import decoded
    from fresco_backend.models.model_files import sha256

    with suppress(InputError, OSError, ValueError, LookupError, TypeError):
        if Path(path).suffix.lower() in PICTURES:
            return any(map(embedded_job_hash, decoded(Path(path))))
        if Path(path).suffix.lower() in MOVIES:
            return bool(json.loads(record_path(path).read_bytes())["movie"] == sha256(Path(path)))
        return bool(json.loads(Path(path).read_bytes())["job"])
    return False


@contextmanager
def _resumable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Interrupted("interrupted; what has arrived is kept", remedy="The same command goes on.",
                          terminated=isinstance(stop, Terminated)) from None
    except ServerError as error:
        advice = COPIED if isinstance(error, ServerMissing) and is_copied(settings.connection_file()) else error.remedy
        then = "Then the same command goes on: what has arrived is kept."
        raise type(error)(error.what, where=error.where, remedy=f"{advice} {then}" if advice else then) from error


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
