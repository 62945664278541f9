# SPDX-License-Identifier: Apache-2.0
"""The commands that speak with the server: submit, jobs, watch, cancel and its like, priority, logs, status."""
from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fresco_backend import __version__, failure, settings
from fresco_backend.commands.transfer_commands import add_download
from fresco_backend.interruption import Terminated
from fresco_backend.terminal.job_text import Pace, event_json, event_line, job_id, job_lines, status_lines
from fresco_backend.terminal.plan_text import counted, safe_text
from fresco_protocol import events as e
from fresco_protocol import messages as m
from fresco_protocol.client import JUDGED, Client
from fresco_protocol.document import write
from fresco_protocol.errors import (
    FrescoError,
    Interrupted,
    JobRefused,
    JobUnknown,
    ServerLost,
    ServerSilent,
    UsageError,
)
from fresco_protocol.job import Job, JobState
from fresco_protocol.shot import Shot

SUBMIT = """\
Queues a plate, or a shot document, and returns at once; options override what the document says. Where no server runs,
one is started in the background."""
POLL = 0.1  # seconds
LOST = 60.0  # seconds without a server until watching ends
ENDS = (JobState.DELIVERED, JobState.FAILED, JobState.CANCELLED)

Commands = Any  # argparse's action of sub-commands, whose class is private


def add_job_commands(commands: Commands) -> None:
    """Adds the commands."""
    _add_submit(commands)
    jobs = _add(commands, "jobs", _jobs, "list the server's jobs: live ones in order, then the last ones that ended")
    jobs.add_argument("--state", choices=[state.value for state in JobState], action="append",
                      help="only jobs in this state; may be repeated")
    jobs.add_argument("--limit", metavar="N", type=int, default=100, help="at most so many (default: 100)")
    watch = _add(commands, "watch", _watch, "tell what happens to one job until it ends, or to all of them")
    watch.add_argument("job", metavar="JOB", nargs="?", type=job_id,
                       help="a job's id (default: all jobs, until Ctrl-C)")
    watch.add_argument("--since", metavar="N", type=int, help="begin after this event's number (default: the job's "
                       "first event; of all jobs, from now on)")
    for verb, request, sentence in (("cancel", m.Cancel, "end jobs; whole frames stay"),
                                    ("pause", m.Pause, "set jobs aside; their device does other work"),
                                    ("resume", m.Resume, "queue paused jobs; they go on where they stopped"),
                                    ("retry", m.Retry, "queue failed or cancelled jobs; what is finished is kept")):
        command = _add(commands, verb, _change(request), sentence)
        command.add_argument("jobs", metavar="JOB", nargs="+", type=job_id,
                             help="a job's id, as \"fresco jobs\" shows it")
    priority = _add(commands, "priority", _prioritise, "give a job another place in the queue")
    priority.add_argument("job", metavar="JOB", type=job_id, help="a job's id")
    priority.add_argument("priority", metavar="N", type=int, nargs="?", help="-100 to 100; the higher runs first")
    priority.add_argument("--before", metavar="JOB", type=job_id, help="put it directly before this waiting job")
    logs = _add(commands, "logs", _logs, "print the log of a job, or of the server")
    logs.add_argument("job", metavar="JOB", nargs="?", type=job_id, help="a job's id (default: the server's own log)")
    logs.add_argument("--follow", action="store_true", help="go on until the job ends, or Ctrl-C")
    add_download(commands)
    _add(commands, "status", _status, "tell how the server is: devices, memory, queue, roots")


def _add(commands: Commands, name: str, run: Callable[[argparse.Namespace], int],
         sentence: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=sentence, description=f"{sentence[0].upper()}{sentence[1:]}.")
    command.add_argument("--json", action="store_true", help="JSON on stdout")
    command.set_defaults(run=run)
    return command


def _add_submit(commands: Commands) -> None:
    from fresco_backend.arguments.shot_arguments import add_shot_options

    command = commands.add_parser("submit", help="queue a plate, or a shot document, on the server", description=SUBMIT,
                                  usage="fresco submit PLATE|SHOT.json [options of fresco render]")
    command.add_argument("source", metavar="PLATE", help="as for fresco render")
    add_shot_options(command)
    group = command.add_argument_group("how it is queued")
    group.add_argument("--priority", metavar="N", type=int, default=0, help="-100 to 100; the higher runs first")
    group.add_argument("--client-key", metavar="KEY", help="submitted again with the same key, it is the same job")
    group.add_argument("--watch", action="store_true", help="tell what happens until it ends; Ctrl-C leaves it running")
    group.add_argument("--upload", action="store_true", help="send plate, matte and controls to a server that shares "
                       "no disk; the same command goes on where it stopped. Then: fresco download JOB -o DIR")
    group.add_argument("--no-start", action="store_true", help="fail where no server runs")
    group.add_argument("--progress", choices=["plain", "openjd"], default="plain", help="of --watch: lines for people, "
                       "or for Open Job Description")
    group.add_argument("--path-mapping", metavar="FILE", type=Path, default=argparse.SUPPRESS,
                       help="a farm's rules for the paths in the shot document (Open Job Description's JSON)")
    group.add_argument("--json", action="store_true", help="JSON lines on stdout")
    command.set_defaults(run=_submit)


def connected() -> Client:
    """A client of the server that the connection file names; with a key, where the settings name one."""
    software, key = f"fresco {__version__}", settings.client_key()
    if key is None:
        return Client(software=software)
    from fresco_backend.server.gate import SERVER, CurveDealer

    return Client(software=software, dial=partial(CurveDealer, client=key, server=key.with_name(f"{SERVER}.key")))


def _submit(arguments: argparse.Namespace) -> int:
    from fresco_backend.arguments.shot_arguments import shot_of
    from fresco_backend.farm.openjd_progress import ServedProgress

    shot, selection = shot_of(arguments)
    if selection is not None:
        raise UsageError("with a document --frames is a part of its shot, and a job is a whole one", where="--frames",
                         remedy=f"Render the part here: fresco render {shlex.quote(arguments.source)} --frames=... ; "
                         'or write the frames of the shot into "plate.frames" of the document. One frame: --still N')
    if arguments.still is not None:
        from fresco_backend.render.still import still

        shot = still(shot, arguments.still)
    key = arguments.client_key or m.fresh_key()
    with connected() as client:
        if arguments.upload:
            from fresco_backend.commands.transfer_commands import sent

            record = sent(client, shot, key=arguments.client_key, priority=arguments.priority, as_json=arguments.json)
            said: dict[str, Any] = {"event": "uploaded"}
        else:
            if not arguments.no_start:
                _ensure(client, shot)
            found = _submitted(client, m.Submit(shot=shot, client_key=key, priority=arguments.priority))
            record, said = found.record, {"event": "submitted", "created": found.created}
        if arguments.json:
            _print({**said, "job": write(record)})
        else:
            sys.stderr.write(f"job {record.id} is {record.state.value}; see: fresco watch {record.id}\n")
            if not arguments.watch:
                sys.stdout.write(record.id + "\n")
        if not arguments.watch:
            return 0
        tell = ServedProgress(sys.stdout).tell if arguments.progress == "openjd" else None
        return _watched(client, record.id, 0, as_json=arguments.json, tell=tell, uploaded=arguments.upload)


def _submitted(client: Client, submit: m.Submit) -> m.Submitted:
    try:
        return client.request(submit, seconds=JUDGED)
    except (ServerSilent, ServerLost) as error:
        raise type(error)(error.what, where=error.where, remedy="It may have queued the job all the same; with "
                          f"--client-key {submit.client_key} the same command queues it once. {error.remedy or ''}"
                          ) from error


def _ensure(client: Client, shot: Shot) -> None:
    from fresco_backend.roots import folders_of
    from fresco_backend.server.server_start import IDLE_EXIT, ensure_server

    process = ensure_server(client, roots=folders_of(shot))
    if process is not None:
        sys.stderr.write(f"no server ran: started one in the background, process {process.pid}; it ends after "
                         f"{IDLE_EXIT} minutes without work. Its log: {settings.server_log()}\n")


def _jobs(arguments: argparse.Namespace) -> int:
    states = None if arguments.state is None else tuple(JobState(state) for state in arguments.state)
    with connected() as client:
        records, total = _listed(client, states, arguments.limit)
    if arguments.json:
        _print({"jobs": [write(record) for record in records], "total": total})
    else:
        sys.stdout.write("".join(f"{line}\n" for line in job_lines(records, total)))
    return 0


def _listed(client: Client, states: tuple[JobState, ...] | None, limit: int) -> tuple[list[Job], int]:
    """Jobs of as many replies as it takes."""
    records: list[Job] = []
    while True:
        page = client.request(m.ListJobs(states=states, skip=len(records), limit=min(1000, limit - len(records))))
        records += page.records
        if not page.records or len(records) >= min(limit, page.total):
            return records, page.total


def _watch(arguments: argparse.Namespace) -> int:
    with connected() as client:
        if not arguments.job and not arguments.json:
            live = client.request(m.ListJobs(states=tuple(set(JobState) - set(ENDS)), limit=1)).total
            sys.stderr.write(f"{counted(live, 'job')} waiting or running; what happens is told here until Ctrl-C\n"
                             if live else "no job waits or runs; what happens from now on is told here, until Ctrl-C\n")
        since = arguments.since
        if since is None:
            since = 0 if arguments.job else client.request(m.Status()).last
        return _watched(client, arguments.job, since, as_json=arguments.json)


def _watched(client: Client, job: str | None, since: int, *, as_json: bool,
             tell: Callable[[e.Event, str | None], None] | None = None, uploaded: bool = False) -> int:
    """Tells events until the job has ended; gives its exit code. tell: in place of people. uploaded: it was sent."""
    if job is not None:
        _shown(client, job)  # an unknown job is said at once
    client.watch(since=since, job=job)
    try:
        return _told_to_the_end(client, job, as_json=as_json, tell=tell, uploaded=uploaded)
    except KeyboardInterrupt as stop:
        if job is None:
            raise
        raise Interrupted("no longer watched; the job goes on", where=f"job {job}", terminated=isinstance(
            stop, Terminated), remedy=f"To see it again: fresco watch {job}. To end it: fresco cancel {job}") from None


def _told_to_the_end(client: Client, job: str | None, *, as_json: bool,
                     tell: Callable[[e.Event, str | None], None] | None, uploaded: bool) -> int:
    lost_at, warned, pace = None, set(), Pace()
    while True:
        for event in client.poll():
            if isinstance(event, e.Warned) and not as_json:  # each attempt says it again
                warning = (event.job, event.code, event.text, event.frame)
                if warning in warned:
                    continue
                warned.add(warning)
            if uploaded and not as_json and isinstance(event, e.Finished):
                event = replace(event, outputs=())  # paths of a machine whose disk this one does not see
            if tell is not None:
                tell(event, event_line(event))
            elif as_json or pace.tells(event):
                _tell(event, as_json=as_json)
            ended = isinstance(event, e.JobChanged) and event.record.state in ENDS
            if job is not None and ended and (last := _shown(client, job)).state in ENDS:  # else it was tried again
                away = uploaded or not Path(last.output).parent.exists()
                if last.state is JobState.DELIVERED and away and client.request(m.ListDelivery(job=job, limit=1)).total:
                    sys.stderr.write(f"the delivery lies on the server; to fetch it: fresco download {job} -o DIR\n")
                return _exit_code(last)
        if client.trouble is None:
            lost_at = None
        elif lost_at is None:
            lost_at = time.monotonic()
            sys.stderr.write(f"{client.trouble}; trying again\n")
        elif time.monotonic() - lost_at > LOST:
            raise client.trouble
        time.sleep(POLL)


def _tell(event: e.Event, *, as_json: bool) -> None:
    if as_json:
        _print(event_json(event))
    elif line := event_line(event):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _exit_code(record: Job) -> int:
    if record.problem is not None and record.state is JobState.FAILED:
        raise record.problem.error()
    if record.state is JobState.CANCELLED:
        raise Interrupted("the job was cancelled; whole frames are there", where=f"job {record.id}",
                          remedy=f"To go on: fresco retry {record.id}")
    return 0


def _change(request: Callable[..., m.Request[m.Changed]]) -> Callable[[argparse.Namespace], int]:
    """What asks this of each job, whatever the others answer; every refusal is said, and the last one is raised."""
    def run(arguments: argparse.Namespace) -> int:
        refused: list[FrescoError] = []
        with connected() as client:
            for job in arguments.jobs:
                try:
                    _say_changed(client.request(request(job=job)).record, as_json=arguments.json)
                except (JobUnknown, JobRefused) as error:
                    refused.append(error)
        for earlier in refused[:-1]:
            failure.report(earlier, as_json=arguments.json, command=arguments.words)
        if refused:
            raise refused[-1]
        return 0

    return run


def _prioritise(arguments: argparse.Namespace) -> int:
    if (arguments.priority is None) == (arguments.before is None):
        raise UsageError("give a priority, or --before another job", remedy="See: fresco priority --help")
    request: m.Request[m.Changed] = (
        m.Move(job=arguments.job, before=arguments.before) if arguments.before
        else m.SetPriority(job=arguments.job, priority=arguments.priority))
    with connected() as client:
        _say_changed(client.request(request).record, as_json=arguments.json)
    return 0


def _say_changed(record: Job, *, as_json: bool) -> None:
    if as_json:
        _print({"event": "changed", "job": write(record)})
    else:
        stops = " until its step ends" if record.state is JobState.RUNNING else ""
        sys.stderr.write(f"job {record.id} is {record.state.value}{stops}, priority {record.priority}\n")


def _logs(arguments: argparse.Namespace) -> int:
    since = 0
    with connected() as client:
        while True:
            page = client.request(m.Logs(job=arguments.job, since=since))
            since = page.next
            for line in page.lines:
                if arguments.json:
                    _print({"line": line})
                else:
                    sys.stdout.write(safe_text(line) + "\n")
            if page.lines:
                sys.stdout.flush()
            elif not arguments.follow or _has_ended(client, arguments.job):
                return 0
            else:
                time.sleep(1.0)


def _has_ended(client: Client, job: str | None) -> bool:
    return job is not None and _shown(client, job).state in ENDS


def _shown(client: Client, job: str) -> Job:
    return client.request(m.ShowJob(job=job)).record


def _status(arguments: argparse.Namespace) -> int:
    with connected() as client:
        status = client.request(m.Status())
    if arguments.json:
        _print({"status": write(status)})
    else:
        sys.stdout.write("".join(f"{line}\n" for line in status_lines(status)))
    return 0


def _print(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
