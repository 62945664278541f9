# SPDX-License-Identifier: GPL-3.0-or-later
"""One job as Blender sees it, from the export of its plate to its last frame, and as JSON values in a .blend."""
from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Optional

from fresco_protocol.document import read, write
from fresco_protocol.errors import FrescoError
from fresco_protocol.events import Advanced
from fresco_protocol.job import Job, JobState, Problem
from fresco_protocol.messages import Cancel, Reply, Request, Retry, Submit
from fresco_protocol.shot import Shot

from . import timeline
from .choices import Choices
from .folders import carried
from .isolation import ChildExport, Export
from .link import Answer
from .timeline import Clip

ENDS = (JobState.DELIVERED, JobState.FAILED, JobState.CANCELLED)


class Step(Enum):
    """Where a row stands before the server has its job, or without one."""

    EXPORTING = "exporting"
    WAITING = "waiting"  # for the server
    SENT = "sent"  # the job's state tells the rest
    STOPPED = "stopped"  # by the user, before it was sent
    FAILED = "failed"  # before it was sent


class Wish(Enum):
    """What the user wants of a job that the server has; kept until the server took it, away as it may be."""

    CANCEL = "cancel"
    RETRY = "retry"


@dataclass(eq=False)
class Row:
    """One job. key: the client key, which the result strip carries too. group: of all versions of one result.

    folder: of this version. shot_folder: of all versions, with the exported plate. exports: still to be done.
    was_sent: the server may have it, answered or not. answer: to what it was asked last, until it comes.
    halting: the server ends it, and its worker finishes a step. refusal: what the server said to the last wish.
    leaving: strip and files go as soon as nobody writes them any more.
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
    wish: Optional[Wish] = None
    was_sent: bool = False
    halting: bool = False
    refusal: Optional[FrescoError] = None
    leaving: bool = False
    answer: Optional[Answer] = field(default=None, repr=False)
    warning: Optional[str] = None
    preview: Optional[bytes] = field(default=None, repr=False)
    stage: Optional[Advanced] = None
    child: Optional[ChildExport] = field(default=None, repr=False)

    @property
    def is_ended(self) -> bool:
        """Whether nothing more happens by itself."""
        if self.wish is Wish.RETRY:
            return False
        if self.step is Step.SENT:
            return self.job is not None and self.job.state in ENDS
        return self.step in (Step.STOPPED, Step.FAILED)

    @property
    def needs_server(self) -> bool:
        """Whether there is something to ask the server, or to hear of it."""
        return not self.is_ended and self.step is not Step.EXPORTING

    @property
    def folders(self) -> list[str]:
        """Where its files are read and written."""
        matte = self.shot.matte.sequence if self.shot.matte is not None else self.shot.plate.sequence
        return [os.path.dirname(path) for path in (self.shot.plate.sequence, matte, self.shot.delivery.sequence)]

    @property
    def state(self) -> str:
        """The state in one word, for people."""
        if self.leaving:
            return "deleting"
        if self.wish is Wish.RETRY:
            return "waiting"
        if self.wish is Wish.CANCEL or self.halting:
            return "cancelling"
        return self.job.state.value if self.step is Step.SENT and self.job is not None else self.step.value

    @property
    def fraction(self) -> float:
        """How much is done of what runs now, in [0, 1]."""
        if self.step is Step.EXPORTING and self.exports:
            return self.exports[0].done() / self.exports[0].total
        if self.stage is not None and self.stage.total:
            return self.stage.done / self.stage.total
        return 1.0 if self.state == "delivered" else 0.0

    @property
    def seen(self) -> tuple[Any, ...]:
        """What a person sees change."""
        return self.state, self.fraction, self.preview, self.warning, self.problem

    def request(self) -> Optional[Request[Reply]]:
        """What is to be asked of the server next; None when there is nothing."""
        if self.step is Step.WAITING:
            return Submit(shot=self.shot, client_key=self.key)
        if self.wish is None or self.job is None:
            return None
        return Cancel(job=self.job.id) if self.wish is Wish.CANCEL else Retry(job=self.job.id)

    def stop_export(self) -> None:
        """Ends the child that exports, if there is one."""
        if self.child is not None:
            self.child.cancel()
        self.child = None

    def fail(self, error: FrescoError) -> None:
        """It ends here; its files stay."""
        self.step, self.wish, self.problem = Step.FAILED, None, Problem.of(error)

    def change(self, record: Job) -> None:
        """The server's word on the job."""
        self.job, self.step, self.problem, self.was_sent = record, Step.SENT, record.problem, True
        if record.state in ENDS:
            self.halting = False
            self.wish = None if self.wish is Wish.CANCEL else self.wish


def to_json(row: Row) -> dict[str, Any]:
    """A row as JSON values. An export that runs is begun anew by whoever reads it."""
    return {"key": row.key, "group": row.group, "version": row.version, "clip": timeline.clip_to_json(row.clip),
            "shot": json.loads(row.shot.to_json()), "choices": write(row.choices), "folder": row.folder,
            "shot_folder": row.shot_folder, "step": row.step.value, "job": write(row.job),
            "problem": write(row.problem), "wish": row.wish and row.wish.value, "was_sent": row.was_sent,
            "leaving": row.leaving, "exports": len(row.exports)}


def of_json(found: dict[str, Any]) -> Row:
    """The row of its values; a job that had not ended is sent once more, which finds it or makes it again.

    Raises KeyError, TypeError, ValueError or FrescoError for values of something else.
    """
    clip, step = timeline.clip_of_json(found["clip"]), Step(found["step"])
    left = int(found.get("exports", 2 if step is Step.EXPORTING else 0))  # of plate and matte, at the end of both
    exports = timeline.extract(clip, found["shot_folder"]).exports[-left:] if left else ()
    row = Row(key=found["key"], group=found["group"], version=found["version"], clip=clip,
              shot=Shot.from_json(json.dumps(found["shot"])), choices=read(found["choices"], Choices),
              folder=found["folder"], shot_folder=found["shot_folder"], step=step, exports=exports,
              job=read(found["job"], Optional[Job]), problem=read(found["problem"], Optional[Problem]),
              wish=found.get("wish") and Wish(found["wish"]), was_sent=bool(found.get("was_sent")),
              leaving=bool(found.get("leaving")))
    if step is Step.SENT and not row.is_ended and row.wish is not Wish.RETRY:
        row.step = Step.WAITING
    return row


def of_json_below(found: dict[str, Any], home: str, now: str) -> Row:
    """The row of its values in a .blend that was moved, or copied, from folder `home` to folder `now`.

    Where its files came along, it is about those: what lies at the old place may be another project's by now. Not
    where the server has a job that did not end, which reads and writes at the old place. Raises as `of_json`.
    """
    row = of_json(found)
    if home == now or not (home and now) or (row.was_sent and not row.is_ended):
        return row
    along = of_json(carried(found, home, now))
    return along if along.shot_folder != row.shot_folder and os.path.isdir(along.shot_folder) else row
