# SPDX-License-Identifier: Apache-2.0
"""One clip's way: validate, extract, submit, wait, integrate; and again with another look.

A generator of Progress: the window drives it from its timer, the command from a loop, and to close it is to cancel.
"""
from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from fresco_davinci.clip import Clip, Extraction, Input, Phase, Progress, Record, Result, Wish, file_name
from fresco_davinci.service import connected
from fresco_davinci.timeline import Host, extract, here, integrate, validate
from fresco_protocol.client import JUDGED, Client
from fresco_protocol.document import parse_json, read, write
from fresco_protocol.errors import (
    FrescoError,
    InputError,
    Interrupted,
    JobRefused,
    JobUnknown,
    OutputDenied,
    PathRefused,
    ServerError,
    ShotError,
    UsageError,
)
from fresco_protocol.events import Advanced, Event, JobChanged, Previewed, Warned
from fresco_protocol.job import Job, JobState
from fresco_protocol.messages import Cancel, Submit, fresh_key
from fresco_protocol.shot import BitDepth, Delivery, Look, Shot

RECORD = "fresco.json"
SOFTWARE = "fresco-davinci"
ENDS = (JobState.DELIVERED, JobState.FAILED, JobState.CANCELLED)


class Left(Exception):  # noqa: N818, no error: said into the steps of a clip
    """Thrown into the steps of a clip by who goes away: Resolve is put back as it was, and the job goes on."""


@dataclass(frozen=True)
class Line:
    """How the server is reached: a new client for each clip."""

    software: str = SOFTWARE
    connection: Optional[str] = None
    command: Optional[list[str]] = None

    def client(self) -> Client:
        """A client that is not connected yet."""
        return Client(self.connection, software=self.software)


def stylise(host: Host, clip: Clip, wish: Wish, line: Line, *,
            earlier: Optional[Record] = None) -> Generator[Progress, None, Record]:
    """Gives a clip its look and places the result; returns the record.

    earlier: what was done before; the result becomes its next version. Raises FrescoError; then, and when it is closed,
    Resolve and its timeline are as they were, and the job is cancelled. Left may be thrown into it.
    """
    validate(host, clip, wish)
    record = _begun(clip, wish, earlier)
    with line.client() as client:
        yield from connected(client, line.command, _folders(record))
        yield from _turn(host)
        validate(host, clip, wish)  # much may have happened meanwhile
        extraction = yield from extract(host, clip, wish, Path(record.folder))
        shot = shot_of(record, extraction)
        yield Progress(phase=Phase.QUEUED)
        job = _submitted(client, shot)
        record = replace(record, shot=shot, job=job.id)
        _save(record)
        with _cancelled_unless_ended(client, job), _told_where(host, record, "goes on at the server", Left):
            yield from _awaited(host, client, job)
    with _told_where(host, record, "is delivered and not placed", BaseException):
        yield from _turn(host)
        while not host.answers:
            yield Progress(phase=Phase.PLACING, text="waits until Resolve has ended its render or closed its dialog")
            yield from _turn(host)  # another clip may have begun meanwhile
        return place(host, record)


def _submitted(client: Client, shot: Shot) -> Job:
    try:
        return client.request(Submit(shot=shot, client_key=fresh_key()), seconds=JUDGED).record
    except PathRefused as error:
        raise PathRefused(error.what, where=error.where,
                          remedy="Run `fresco stop` and do it again: a server that is started then works in the clip's "
                                 "folders. One that you start yourself needs --root FOLDER.") from None


def again(host: Host, path: str, look: Look, line: Line) -> Generator[Progress, None, Record]:
    """The clip of a record with another look, as the next version on the current timeline. Raises as `stylise` does."""
    earlier = here(host, read_record(path), path)
    return (yield from stylise(host, earlier.clip, replace(earlier.wish, look=look), line, earlier=earlier))


def place(host: Host, record: Record) -> Record:
    """Integrates what a record's job delivered; returns the record with the item that shows it."""
    result = delivered(record)
    placed = record.placed
    if record.wish.destination is not None:
        placed = integrate(host, record.clip, record.wish, result, placed) or placed
    record = replace(record, placed=placed)
    _save(record)
    return record


def delivered(record: Record) -> Result:
    """The frames on the disk that a record's shot delivered. Raises InputError unless they are one unbroken run."""
    folder = Path(record.folder)
    matches = [re.fullmatch(r"look\.(\d+)\.\w+", path.name) for path in folder.iterdir()]
    found = sorted(int(match[1]) for match in matches if match)
    plate = record.shot.plate.frames if record.shot else None
    if not found or plate is None or found != list(range(found[0], found[-1] + 1)) or not (
            found[0] <= plate[0].first and plate[-1].last <= found[-1]):
        raise InputError("the delivered frames are not complete", where=folder, remedy="Do it again.")
    suffix = _suffix(record.wish)
    return Result(sequence=str(folder / f"look.%08d{suffix}"), first=found[0], last=found[-1],
                  head=plate[0].first - found[0], version=record.version, record=str(folder / RECORD))


def shot_of(record: Record, extraction: Extraction) -> Shot:
    """The shot of a clip: the result has the plate's own space, so that it fits where the plate was."""
    wish, still = record.wish, record.wish.destination is None
    space = extraction.plate.color_space
    if still or (space is None and not extraction.plate.sequence.lower().endswith(".exr")):
        space = "srgb_rec709_scene"  # an EXR would be taken for linear, and a picture to look at is sRGB
    delivery = Delivery(sequence=str(Path(record.folder) / f"look.########{_suffix(wish)}"), handles=wish.handles,
                        color_space=space, bit_depth=BitDepth.UINT8 if still else BitDepth.HALF)
    name = f"{record.clip.name.strip() or 'clip'} v{record.version:03d}"
    return Shot(name=name, plate=extraction.plate, matte=extraction.matte, look=wish.look, task=wish.task,
                delivery=delivery)


def read_record(path: str) -> Record:
    """The record in a file. Raises InputError when it is gone or damaged."""
    try:
        found: Record = read(parse_json(Path(path).read_text(encoding="utf-8")), Record)
    except (OSError, UnicodeDecodeError, ShotError) as error:
        raise InputError(f"the record of the clip cannot be read: {error}", where=path,
                         remedy="Stylise the clip anew, or bring the folder back.") from None
    return found


def _folders(record: Record) -> list[str]:
    """Where the server must read and write for a clip."""
    media = record.clip.media if record.wish.input is Input.SOURCE else None
    return [record.folder, *([str(Path(media.path).parent)] if media else [])]


def _suffix(wish: Wish) -> str:
    return ".png" if wish.destination is None else ".exr"


def _begun(clip: Clip, wish: Wish, earlier: Optional[Record]) -> Record:
    """A folder of its own for the next version."""
    names = (clip.project, clip.timeline_name, f"{_stem(clip.name)}_{clip.item[:8]}")
    folder = Path(wish.folder or Path.home() / "Fresco").joinpath(*map(file_name, names))
    if earlier is not None:
        folder = Path(earlier.folder).parent
    if "%" in str(folder):
        raise UsageError('a "%" in a folder is read as the number of a frame', where=folder,
                         remedy="Choose another folder with --folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        version = 1 + max((int(path.name[1:]) for path in folder.glob("v[0-9][0-9][0-9]*") if path.name[1:].isdigit()),
                          default=0)
        made = folder / f"v{version:03d}"
        made.mkdir()
    except OSError as error:
        raise OutputDenied(f"the folder cannot be made: {error.strerror}", where=folder,
                           remedy="Choose another folder with --folder.") from error
    return Record(clip=clip, wish=wish, version=version, folder=str(made), placed=earlier.placed if earlier else None)


def _stem(name: str) -> str:
    """The name of a clip without numbers of frames and without its suffix: "shot" of "shot.[1001-1048].exr"."""
    return re.sub(r"(\.?\[\d+-\d+\])?\.\w+$", "", name)


def _save(record: Record) -> None:
    path = Path(record.folder) / RECORD
    unfinished = path.with_suffix(".part")
    try:
        unfinished.write_text(json.dumps(write(record), indent=2, ensure_ascii=True), encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise OutputDenied(f"the record cannot be written: {error.strerror}", where=path,
                           remedy="Look whether the disk is full.") from error


def _turn(host: Host) -> Generator[Progress, None, None]:
    """Waits while another clip has the timeline."""
    while host.busy:
        yield Progress(phase=Phase.WAITING, text="another clip is being extracted")


@contextmanager
def _cancelled_unless_ended(client: Client, job: Job) -> Iterator[None]:
    """Whoever stops waiting does not want the job; that it has ended, or that the server is gone, changes nothing."""
    try:
        yield
    except (GeneratorExit, KeyboardInterrupt):
        with suppress(ServerError, JobRefused, JobUnknown):
            client.request(Cancel(job=job.id), seconds=2.0)
        raise


@contextmanager
def _told_where(host: Host, record: Record, what: str, kind: type[BaseException]) -> Iterator[None]:
    """Whoever ends by this kind of exception is told where the frames come to."""
    try:
        yield
    except kind:
        host.notice(f'"{record.clip.name}" {what}: import its frames from {record.folder}, or in Studio run '
                    f'fresco resolve place "{Path(record.folder) / RECORD}"')
        raise


def _awaited(host: Host, client: Client, job: Job) -> Generator[Progress, None, None]:
    """Follows a job to its end; what it warns of becomes a notice.

    Raises the error of a failed one, Interrupted for one that somebody cancelled.
    """
    client.watch(job=job.id)
    now = Progress(phase=Phase.QUEUED)
    while True:
        for event in client.poll():
            now = _after(now, event)
            if isinstance(event, Warned):
                host.notice(f"{job.name}: {event.text}.")
            if isinstance(event, JobChanged) and event.record.state in ENDS:
                _check_end(event.record)
                return
        trouble = client.trouble
        yield now if trouble is None else replace(now, text=f"trying again: {trouble}")


def _after(now: Progress, event: Event) -> Progress:
    if isinstance(event, JobChanged):
        phase = Phase.RENDERING if event.record.state is JobState.RUNNING else Phase.QUEUED
        return replace(now, phase=phase, text=event.record.state.value)
    if isinstance(event, Advanced):
        left = "" if event.seconds_left is None else f", {event.seconds_left:.0f} s left"
        return replace(now, phase=Phase.RENDERING, fraction=min(1.0, event.done / max(1, event.total)),
                       text=f"{event.stage.value}, {event.stage.unit} {event.done} of {event.total}{left}")
    if isinstance(event, Previewed):
        return replace(now, preview=event.jpeg)
    return now


def _check_end(job: Job) -> None:
    if job.state is JobState.FAILED:
        raise job.problem.error() if job.problem else FrescoError("the job failed without a word")
    if job.state is JobState.CANCELLED:
        raise Interrupted("the job was cancelled", where=job.name, remedy="Stylise the clip again.")
