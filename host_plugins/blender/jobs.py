# SPDX-License-Identifier: GPL-3.0-or-later
"""The queue as Blender sees it: each job from the export of its plate to the last frame on the timeline.

The server keeps the jobs; here are the rows that show them. Rows live outside Blender's data, so that undo does not
forget a job that runs, and are written into the scene when the .blend is saved.
"""
from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Optional

import bpy

from fresco_protocol.document import read, write
from fresco_protocol.errors import FrescoError, OutputDenied, UsageError
from fresco_protocol.events import Advanced, Delivered, Event, JobChanged, JobEvent, Previewed, Warned
from fresco_protocol.job import Job, JobState, Problem
from fresco_protocol.messages import Cancel, Retry, Submit, fresh_key
from fresco_protocol.shot import Rate, Shot

from . import compat, timeline
from .choices import Choices, Footage, Keyframes, extension_of, shot_of
from .isolation import ChildExport, Export, export_here
from .link import Link
from .timeline import Clip, Extraction

QUEUE = "fresco_queue"  # custom property of a scene: rows as JSON
ENDS = (JobState.DELIVERED, JobState.FAILED, JobState.CANCELLED)
SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


class Step(Enum):
    """Where a row stands before the server has its job, or without one."""

    EXPORTING = "exporting"
    WAITING = "waiting"  # for the server
    SENT = "sent"  # the job's state tells the rest
    STOPPED = "stopped"  # by the user, before it was sent
    FAILED = "failed"  # before it was sent


@dataclass
class Row:
    """One job. key: the client key, which the result strip carries too. group: of all versions of one result.

    folder: of this version. shot_folder: of all versions, with the exported plate. exports: still to be done.
    """

    key: str
    group: str
    version: int
    clip: Clip
    shot: Shot
    choices: Choices
    folder: str
    shot_folder: str
    step: Step
    exports: tuple[Export, ...] = ()
    job: Optional[Job] = None
    problem: Optional[Problem] = None
    warning: Optional[str] = None
    preview: Optional[bytes] = None
    stage: Optional[Advanced] = None
    child: Optional[ChildExport] = field(default=None, repr=False)

    @property
    def is_ended(self) -> bool:
        """Whether nothing more happens by itself."""
        if self.step is Step.SENT:
            return self.job is not None and self.job.state in ENDS
        return self.step in (Step.STOPPED, Step.FAILED)

    @property
    def state(self) -> str:
        """The state in one word, for people."""
        return self.job.state.value if self.step is Step.SENT and self.job is not None else self.step.value

    @property
    def fraction(self) -> float:
        """How much is done of what runs now, in [0, 1]."""
        if self.step is Step.EXPORTING and self.exports:
            return self.exports[0].done() / self.exports[0].total
        if self.stage is not None and self.stage.total:
            return self.stage.done / self.stage.total
        return 1.0 if self.state == "delivered" else 0.0


class Queue:
    """All rows of the open .blend, the newest last.

    finished: rows that ended since somebody looked, for notices. connection_file: None is the usual one.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.link = Link()
        self.finished: list[Row] = []
        self.connection_file: Optional[str] = None

    def row(self, key: str) -> Row:
        """The row of a key. Raises UsageError."""
        found = next((row for row in self.rows if row.key == key), None)
        if found is None:
            raise UsageError("this job is not in the list", where=key)
        return found

    def versions(self, group: str) -> list[Row]:
        """The versions of a result, the oldest first."""
        return sorted((row for row in self.rows if row.group == group), key=lambda row: row.version)

    def add(self, clip: Clip, choices: Choices, base: str) -> Row:
        """A new job: its result strip is on the timeline at once. Raises the InputError that stands in the way."""
        timeline.validate(clip)
        key = fresh_key()
        shot_folder = os.path.join(base, f"{_safe(clip.strip)}_{key[:8]}")
        extraction = timeline.extract(clip, shot_folder)
        row = _row(key, key, 1, clip, choices, extraction, shot_folder)
        _write_shot(row)
        timeline.integrate(_result(row))
        self.rows.append(row)
        return row

    def add_version(self, old: Row, choices: Choices) -> Row:
        """The same plate with other choices, beside the result that is there."""
        if old.step is Step.EXPORTING or (old.problem is not None and old.step is Step.FAILED):
            raise UsageError("the plate of this job was not exported", where=old.clip.strip,
                             remedy="Stylise the strip again.")
        extraction = Extraction(plate=old.shot.plate.sequence, color_space=old.shot.plate.color_space or "srgb",
                                matte=old.shot.matte.sequence if old.shot.matte else None, exports=())
        version = max(row.version for row in self.versions(old.group)) + 1
        row = _row(fresh_key(), old.group, version, old.clip, choices, extraction, old.shot_folder)
        _write_shot(row)
        _, strip = timeline.strip_of_job(old.key)
        timeline.integrate(_result(row), beside=strip.name if strip is not None else None)
        self.rows.append(row)
        return row

    def export_now(self, row: Row) -> None:
        """Exports what a row needs and returns when it is there; for scripts and the background."""
        while row.exports and row.step is Step.EXPORTING:
            try:
                export_here(row.exports[0])
            except (FrescoError, OSError) as error:
                self._fail(row, _refusal(error))
                return
            row.exports = row.exports[1:]
        if row.step is Step.EXPORTING:
            row.step = Step.WAITING

    def tick(self) -> bool:
        """Does what can be done without waiting; True if something changed that a person sees."""
        before = [(row.state, row.fraction, row.preview, row.warning) for row in self.rows]
        self._export()
        if any(not row.is_ended and row.step is not Step.EXPORTING for row in self.rows):
            self.link.open(self.connection_file)
        self._take(self.link.poll())
        for row in self.rows:
            if row.step is Step.WAITING and self.link.is_up:
                self._send(row)
        return before != [(row.state, row.fraction, row.preview, row.warning) for row in self.rows]

    def _export(self) -> None:
        """One child at a time: two renders would only be slower."""
        row = next((row for row in self.rows if row.step is Step.EXPORTING), None)
        if row is None:
            return
        try:
            if row.child is None and row.exports:
                row.child = ChildExport(row.exports[0])
            if row.child is None or row.child.poll():
                row.child, row.exports = None, row.exports[1:]
        except (FrescoError, OSError) as error:
            row.child = None
            self._fail(row, _refusal(error))
        if not row.exports and row.step is Step.EXPORTING:
            row.step = Step.WAITING

    def _fail(self, row: Row, error: FrescoError) -> None:
        """The row ends here; its files stay, its empty strip no longer hides the plate."""
        row.step, row.problem = Step.FAILED, Problem.of(error)
        timeline.mute(row.key, True)

    def _send(self, row: Row) -> None:
        try:
            self._change(row, self.link.request(Submit(shot=row.shot, client_key=row.key)).record)
        except FrescoError as error:
            if error.exit_code != 69:  # a server that is away is waited for
                self._fail(row, error)

    def _take(self, events: list[Event]) -> None:
        refreshed: dict[str, Row] = {}
        for event in events:
            row = self._row_of(event)
            if row is not None:
                self._apply(row, event)
                if isinstance(event, (Delivered, JobChanged)):
                    refreshed[row.key] = row
        for row in refreshed.values():
            _, strip = timeline.strip_of_job(row.key)
            if strip is not None:
                compat.show_new_files(strip)

    def _row_of(self, event: Event) -> Optional[Row]:
        if not isinstance(event, JobEvent):
            return None
        key = event.record.client_key if isinstance(event, JobChanged) else None
        return next((row for row in self.rows
                     if row.key == key or (row.job is not None and row.job.id == event.job)), None)

    def _apply(self, row: Row, event: Event) -> None:
        if isinstance(event, JobChanged):
            self._change(row, event.record)
        elif isinstance(event, Advanced):
            row.stage = event
        elif isinstance(event, Delivered) and row.job is not None:
            row.job = replace(row.job, done=row.job.done + 1)
        elif isinstance(event, Previewed):
            row.preview = event.jpeg
        elif isinstance(event, Warned):
            row.warning = event.text

    def _change(self, row: Row, record: Job) -> None:
        was_new, was_ended = row.job is None, row.is_ended
        row.job, row.step, row.problem = record, Step.SENT, record.problem
        ends = row.is_ended and not was_ended
        if was_new or ends:
            timeline.note(row.key, job=record.id, state=record.state.value)
        if ends:
            self.finished.append(row)
        if ends and not record.done:
            timeline.mute(row.key, True)

    def cancel(self, row: Row) -> None:
        """Ends a job; frames that are whole stay. Raises what the server tells."""
        if row.child is not None:
            row.child.cancel()
            row.child = None
        if row.step is Step.SENT and row.job is not None:
            self._change(row, self.link.request(Cancel(job=row.job.id)).record)
        elif not row.is_ended:
            row.step = Step.STOPPED
            timeline.mute(row.key, True)

    def retry(self, row: Row) -> None:
        """Does a failed or cancelled job again from where it stopped. Raises what the server tells."""
        timeline.mute(row.key, False)
        if row.step is Step.SENT and row.job is not None:
            self._change(row, self.link.request(Retry(job=row.job.id)).record)
        else:
            row.problem = None
            row.step = Step.EXPORTING if row.exports else Step.WAITING

    def delete(self, row: Row) -> None:
        """Takes a version away: its job, its strip, its files; with the last version the exported plate too."""
        if not row.is_ended:
            self.cancel(row)
        timeline.remove(row.key)
        self.rows.remove(row)
        shutil.rmtree(row.folder, ignore_errors=True)
        others = self.versions(row.group)
        if others:
            timeline.switch(row.group, others[-1].key)
        else:
            shutil.rmtree(row.shot_folder, ignore_errors=True)

    def forget_ended(self) -> None:
        """Clears ended rows from the list; strips and files stay."""
        self.rows = [row for row in self.rows if not row.is_ended]

    def save(self) -> None:
        """Writes the rows into their scenes."""
        homes = [(_home(row), row) for row in self.rows]
        for scene in bpy.data.scenes:
            rows = [_to_json(row) for home, row in homes if home == scene]
            if rows or QUEUE in scene:
                scene[QUEUE] = json.dumps({"since": self.link.since, "journal": self.link.journal, "rows": rows})

    def load(self) -> None:
        """Takes the rows of the .blend in place of the present ones, whose jobs go on at the server."""
        for row in self.rows:
            if row.child is not None:
                row.child.cancel()
        self.rows, self.finished = [], []
        self.link.close()
        for found in _saved():
            self.link.since, self.link.journal = found["since"], found["journal"]
            self.rows += [_of_json(row) for row in found["rows"]]


queue = Queue()


def _refusal(error: FrescoError | OSError) -> FrescoError:
    """What stopped an export, in words for its row: a full disk must end the row, not the timer of all rows."""
    if isinstance(error, FrescoError):
        return error
    return OutputDenied(f"the clip cannot be exported: {error.strerror or error}", where=error.filename,
                        remedy="Make room there, or choose another folder in the panel, and redo it")


def _safe(name: str) -> str:
    return "".join(sign if sign in SAFE else "_" for sign in name)[:40].strip(".") or "strip"


def _row(key: str, group: str, version: int, clip: Clip, choices: Choices, extraction: Extraction,
         shot_folder: str) -> Row:
    folder, name = os.path.join(shot_folder, f"v{version:03}"), f"{_safe(clip.strip)}_v{version:03}"
    markers = tuple(timeline.markers_of(clip)) if choices.keyframes is Keyframes.MARKERS else ()
    footage = Footage(name=name, plate=extraction.plate, color_space=extraction.color_space, frames=clip.frames,
                      rate=Rate.parse(clip.rate), matte=extraction.matte, markers=markers,
                      output=os.path.join(folder, f"{name}.####{extension_of(choices)}"))
    return Row(key=key, group=group, version=version, clip=clip, shot=shot_of(choices, footage), choices=choices,
               folder=folder, shot_folder=shot_folder, exports=extraction.exports,
               step=Step.EXPORTING if extraction.exports else Step.WAITING)


def _write_shot(row: Row) -> None:
    """The document beside the frames: `fresco render shot.json` makes them again. Raises OutputDenied."""
    try:
        os.makedirs(row.folder, exist_ok=True)
        with open(os.path.join(row.folder, "shot.json"), "w", encoding="utf-8") as file:
            file.write(row.shot.to_json() + "\n")
    except OSError as error:
        raise OutputDenied(f"the folder cannot be written: {error.strerror}", where=row.folder,
                           remedy="Choose another folder under Output.") from None


def _result(row: Row) -> timeline.Result:
    look = row.shot.look
    record = {"key": row.key, "group": row.group, "version": row.version, "seed": look.seed, "model": look.model,
              "prompt": look.prompt, "shot": json.loads(row.shot.to_json())}
    return timeline.Result(clip=row.clip, name=f"{look.prompt[:30]} v{row.version:03}", record=record,
                           sequence=row.shot.delivery.sequence)


def _home(row: Row) -> Any:
    """The scene that keeps a row: where its result is, whatever the scene is called now."""
    scene, _ = timeline.strip_of_job(row.key)
    return scene or bpy.data.scenes.get(row.clip.scene) or bpy.data.scenes[0]


def _to_json(row: Row) -> dict[str, Any]:
    """A row as JSON values. An export that runs is begun anew by whoever reads it."""
    return {"key": row.key, "group": row.group, "version": row.version, "clip": timeline.clip_to_json(row.clip),
            "shot": json.loads(row.shot.to_json()), "choices": write(row.choices), "folder": row.folder,
            "shot_folder": row.shot_folder, "step": row.step.value, "job": write(row.job),
            "problem": write(row.problem)}


def _of_json(found: dict[str, Any]) -> Row:
    """The row of its values; a job that had not ended is sent once more, which finds it or makes it again."""
    clip, step = timeline.clip_of_json(found["clip"]), Step(found["step"])
    exports = timeline.extract(clip, found["shot_folder"]).exports if step is Step.EXPORTING else ()
    row = Row(key=found["key"], group=found["group"], version=found["version"], clip=clip,
               shot=Shot.from_json(json.dumps(found["shot"])), choices=read(found["choices"], Choices),
               folder=found["folder"], shot_folder=found["shot_folder"], step=step, exports=exports,
               job=read(found["job"], Optional[Job]), problem=read(found["problem"], Optional[Problem]))
    if step is Step.SENT and not row.is_ended:
        row.step = Step.WAITING
    return row


def _saved() -> Iterator[dict[str, Any]]:
    for scene in bpy.data.scenes:
        if isinstance(scene.get(QUEUE), str):
            yield json.loads(scene[QUEUE])
