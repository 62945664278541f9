# SPDX-License-Identifier: GPL-3.0-or-later
"""The queue as Blender sees it: each job from the export of its plate to the last frame on the timeline.

The server keeps the jobs; here are the rows that show them. Rows live outside Blender's data, so that undo does not
forget a job that runs, and are written into the scene when the .blend is saved. Nothing here waits for the server.
"""
from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any, NamedTuple, Optional, cast

import bpy

from fresco_protocol.errors import FrescoError, InputError, JobUnknown, OutputDenied, PathRefused, UsageError
from fresco_protocol.events import Advanced, Delivered, Event, JobChanged, JobEvent, Previewed, Warned
from fresco_protocol.messages import Cancel, Changed, ListModels, Models, Retry, Submit, Submitted, fresh_key
from fresco_protocol.shot import Rate

from . import compat, results, timeline
from .alignment import misplaced, moved
from .choices import Choices, Footage, Keyframes, extension_of, shot_of
from .folders import erase, safe, versions_in, write_shot
from .isolation import ChildExport, export_here
from .link import Answer, Link
from .rows import Row, Step, Wish, of_json_below, to_json
from .timeline import Clip, Extraction

QUEUE = "fresco_queue"  # custom property of a scene: rows as JSON
FOLDERS = "Name its folder in the preferences of Fresco, under Folders, press Stop Server, and redo the job."
COVERING = ("REPLACE", "ALPHA_OVER", "CROSS", "GAMMA_CROSS")  # a strip that blends so hides what it was made of
TRIED_AGAIN = 69  # exit code of errors about a server that is away


class News(NamedTuple):
    """Something that a person is told once."""

    text: str
    is_bad: bool


class Queue:
    """All rows of the open .blend, the newest last.

    news: not told yet. misplaced: keys of results that lie elsewhere than their sources would have.
    connection_file: None is the usual one. models: of the server, None until it was asked.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.link = Link()
        self.news: list[News] = []
        self.misplaced: frozenset[str] = frozenset()
        self.connection_file: Optional[str] = None
        self.models: Optional[Models] = None
        self._models_asked: Optional[Answer] = None
        self._models_known = self._models_wanted = False
        self._deleted: dict[str, Row] = {}  # by key; undo brings their strips back
        self._unread: list[Any] = []  # rows of the .blend that cannot be read; they are saved as they were

    def row(self, key: str) -> Row:
        """The row of a key. Raises UsageError."""
        found = next((row for row in self.rows if row.key == key), None)
        if found is None:
            raise UsageError("this job is not in the list", where=key)
        return found

    def versions(self, group: str) -> list[Row]:
        """The versions of a result, the oldest first."""
        return sorted((row for row in self.rows if row.group == group and not row.leaving),
                      key=lambda row: row.version)

    def add(self, clip: Clip, choices: Choices, base: str) -> Row:
        """A new job: its result strip is on the timeline at once. Raises the InputError that stands in the way."""
        timeline.validate(clip)
        key = fresh_key()
        shot_folder = os.path.join(base, f"{safe(clip.strip)}_{key[:8]}")
        extraction = timeline.extract(clip, shot_folder)
        row = _row(key, key, 1, clip, choices, extraction, shot_folder)
        write_shot(row.shot, row.folder)
        timeline.integrate(_result(row))
        _, strip = results.strip_of_job(key)
        if strip.blend_type not in COVERING:
            row.warning = f"Its source below blends by {strip.blend_type.replace('_', ' ').title()} too: mute that one"
        self.rows.append(row)
        return row

    def add_version(self, old: Row, choices: Choices) -> Row:
        """The same plate with other choices, beside the result that is there."""
        if old.exports:
            raise UsageError("the plate of this job was not exported", where=old.clip.strip,
                             remedy="Stylise the strip again.")
        extraction = Extraction(plate=old.shot.plate.sequence, color_space=old.shot.plate.color_space or "srgb",
                                matte=old.shot.matte.sequence if old.shot.matte else None, exports=())
        version = max(*(row.version for row in self.rows if row.group == old.group), *versions_in(old.shot_folder)) + 1
        clip = moved(old.clip, old.key)
        row = _row(fresh_key(), old.group, version, clip, choices, extraction, old.shot_folder)
        write_shot(row.shot, row.folder)
        _, strip = results.strip_of_job(old.key)
        timeline.integrate(_result(row), beside=old.key if strip is not None else None)
        self.rows.append(row)
        return row

    def export_now(self, row: Row) -> None:
        """Exports what a row needs and returns when it is there; for scripts and the background."""
        while row.exports and row.step is Step.EXPORTING:
            try:
                export_here(row.exports[0])
            except Exception as error:  # noqa: BLE001, whatever Blender raises ends the row
                self._fail(row, _refusal(error))
                return
            row.exports = row.exports[1:]
        if row.step is Step.EXPORTING:
            row.step = Step.WAITING

    def tick(self) -> bool:
        """Does what can be done without waiting; True if something changed that a person sees."""
        before = self._seen
        self.misplaced = misplaced() if self.rows else frozenset()
        self._take()
        self._export()
        if self._models_wanted or any(row.needs_server for row in self.rows):
            self.link.open(self.connection_file)
        if self.link.is_up:
            self._ask()
        elif self.link.is_settled:
            self._models_wanted = False  # nobody is there to say
        for row in [row for row in self.rows if row.leaving and row.is_ended]:
            self._remove(row)
        return before != self._seen

    @property
    def _seen(self) -> tuple[Any, ...]:
        """What a person sees change."""
        return [row.seen for row in self.rows], self.link.trouble, self.link.is_up, self.models, self.misplaced

    @property
    def folders(self) -> list[str]:
        """Where the jobs that wait for the server are read and written."""
        found = [folder for row in self.rows if row.needs_server for folder in row.folders]
        return [folder for folder in dict.fromkeys(found) if os.path.isdir(folder)]

    @property
    def is_asking_models(self) -> bool:
        """Whether it is not known yet which models the server has, and somebody wants to know."""
        return self._models_wanted

    @property
    def is_busy(self) -> bool:
        """Whether something happens that a person wants to see at once."""
        return self._models_wanted or any(not row.is_ended for row in self.rows)

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
        except Exception as error:  # noqa: BLE001, else the row would try again at each tick, for ever
            row.child = None
            self._fail(row, _refusal(error))
        if not row.exports and row.step is Step.EXPORTING:
            row.step = Step.WAITING

    def _fail(self, row: Row, error: FrescoError) -> None:
        """The row ends here; its empty strip no longer hides the plate."""
        row.fail(error)
        results.hide(row.key, True)
        self._tell_end(row)

    def _tell_end(self, row: Row) -> None:
        if not row.leaving:
            self.news.append(News(f"{row.clip.strip}: {row.state}", is_bad=row.problem is not None))

    def _ask(self) -> None:
        """Asks the server what is to be asked, once."""
        if not self._models_known and not self.link.waits_for(self._models_asked):
            self._models_asked = self.link.ask(ListModels())
        for row in self.rows:
            request = row.request() if not self.link.waits_for(row.answer) else None
            if request is not None and not row.halting:
                row.was_sent = True
                row.answer = self.link.ask(request)

    def _take(self) -> None:
        refreshed: dict[str, Row] = {}
        for item in self.link.poll():
            if isinstance(item, Answer):
                self._take_answer(item)
                continue
            row = self._row_of(item)
            if row is not None:
                self._apply(row, item)
                if isinstance(item, (Delivered, JobChanged)):
                    refreshed[row.key] = row
        for row in refreshed.values():
            for _, strip in results.strips_of_job(row.key):
                compat.show_new_files(strip)

    def _take_answer(self, answer: Answer) -> None:
        if answer is self._models_asked:
            if answer.error is None or answer.error.exit_code != TRIED_AGAIN:  # an older server has no list
                self.models = cast(Optional[Models], answer.reply)
                self._models_known, self._models_wanted = True, False
            return
        row = next((row for row in self.rows if row.answer is answer), None)
        if row is None:
            return
        row.answer = None
        if answer.error is not None:
            self._refused(row, answer, answer.error)
            return
        record = cast("Submitted | Changed", answer.reply).record
        if isinstance(answer.request, (Cancel, Retry)):
            row.halting = isinstance(answer.request, Cancel)
            row.wish = None
        self._change(row, record)

    def _refused(self, row: Row, answer: Answer, error: FrescoError) -> None:
        if error.exit_code == TRIED_AGAIN:
            return
        if isinstance(answer.request, Submit):
            self._fail(row, PathRefused(error.what, where=error.where, remedy=FOLDERS)
                       if isinstance(error, PathRefused) else error)
            return
        row.wish, row.refusal = None, error
        self.news.append(News(f"{row.clip.strip}: {error}", is_bad=True))
        if isinstance(error, JobUnknown) and not row.is_ended:
            self._stop(row)

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

    def _change(self, row: Row, record: Any) -> None:
        was_new, was_ended = row.job is None, row.is_ended
        row.change(record)
        ends = row.is_ended and not was_ended
        if was_new or ends:
            results.note(row.key, job=record.id, state=record.state.value)
        if ends:
            self._tell_end(row)
        if ends and not record.done:
            results.hide(row.key, True)

    def show_ends(self) -> None:
        """Tells the strips again how their jobs stand, which an undo does not know.

        Those without a frame hide, or they would hide their plates; those that went on since show.
        """
        for row in self.rows:
            if row.job is not None:
                results.note(row.key, job=row.job.id, state=row.job.state.value)
            if row.is_ended and (row.job is None or not row.job.done):
                results.hide(row.key, True)
            else:
                results.show_hidden(row.key)
        for key, row in self._deleted.items():
            self._hide_deleted(key, row)

    def _hide_deleted(self, key: str, row: Row) -> None:
        """An undo brought the strips of a deleted version back, without their files: another version shows, or none."""
        shown = [strip for _, strip in results.strips_of_job(key) if not strip.mute]
        if not shown:
            return
        others = self.versions(row.group)
        if others:
            results.switch(row.group, others[-1].key)
        results.hide(key, True)
        self.news.append(News(f"{shown[0].name}: its files were deleted, and undo does not bring them back; the strip "
                              "is muted", is_bad=True))

    def cancel(self, row: Row) -> None:
        """Ends a job, at the latest when its server is back; frames that are whole stay."""
        row.stop_export()
        if row.was_sent and not row.is_ended:
            row.wish, row.refusal = Wish.CANCEL, None
        elif not row.is_ended:
            self._stop(row)

    def _stop(self, row: Row) -> None:
        row.step, row.wish = Step.STOPPED, None
        results.hide(row.key, True)

    def retry(self, row: Row) -> None:
        """Does a failed or cancelled job again from where it stopped, at the latest when its server is back."""
        results.hide(row.key, False)
        if row.step is Step.SENT and row.job is not None:
            row.wish, row.refusal = Wish.RETRY, None
        else:
            row.problem = None
            row.step = Step.EXPORTING if row.exports else Step.WAITING

    def delete(self, row: Row) -> None:
        """Takes a version away: its job, its strip, its files; with the last version the exported plate too.

        The strip goes at once. The row and the files of a job that runs go when its worker has put its pen down: a
        frame that it finished later would lie there for ever.
        """
        row.leaving = True
        self._deleted[row.key] = row
        self.cancel(row)
        results.remove(row.key)
        others = self.versions(row.group)
        if others:
            results.switch(row.group, others[-1].key)
        if row.is_ended:
            self._remove(row)

    def _remove(self, row: Row) -> None:
        self.rows.remove(row)
        others = any(other.group == row.group for other in self.rows)
        cleared = set(versions_in(row.shot_folder)) - {0, row.version}  # off the list; their strips and files stay
        erase(row.folder if others or cleared else row.shot_folder)

    def forget_ended(self) -> None:
        """Clears ended rows from the list; strips and files stay."""
        self.rows = [row for row in self.rows if not row.is_ended]

    def refresh_models(self) -> None:
        """Asks the server which models it has."""
        self._models_known, self._models_wanted = False, True

    def save(self, path: str) -> None:
        """Writes the rows into their scenes. path: of the .blend that is about to be written."""
        scenes = {record.get("key"): scene for scene, _, record in results.every()}
        homes = [(scenes.get(row.key) or _home(row), row) for row in self.rows]
        for index, scene in enumerate(bpy.data.scenes):
            rows = [to_json(row) for home, row in homes if home == scene]
            unread = self._unread if index == 0 else []
            if rows or unread or QUEUE in scene:
                scene[QUEUE] = json.dumps({"since": self.link.since, "journal": self.link.journal,
                                           "home": os.path.dirname(path), "rows": [*rows, *unread]})

    def load(self) -> None:
        """Takes the rows of the .blend in place of the present ones, whose jobs go on at the server."""
        for row in self.rows:
            row.stop_export()
        self.rows, self.news, self._unread, self._deleted = [], [], [], {}
        self.link.close()
        self.link.since, self.link.journal = 0, None
        for text in [scene[QUEUE] for scene in bpy.data.scenes if isinstance(scene.get(QUEUE), str)]:
            self._read(text)
        if self._unread:
            self.news.append(News(f"{len(self._unread)} jobs of this .blend cannot be read; it keeps them as they are",
                                  is_bad=True))

    def _read(self, text: str) -> None:
        """The rows of one scene; one that cannot be read costs no other."""
        try:
            found = json.loads(text)
            rows, since, journal = list(found["rows"]), int(found["since"]), found["journal"]
            home = str(found.get("home", ""))
        except (ValueError, TypeError, KeyError):
            self._unread.append(text)
            return
        self.link.since, self.link.journal = since, journal
        for values in rows:
            try:
                self.rows.append(of_json_below(values, home, os.path.dirname(bpy.data.filepath)))
            except (FrescoError, ValueError, TypeError, KeyError, AttributeError):
                self._unread.append(values)


queue = Queue()


def _refusal(error: Exception) -> FrescoError:
    """What stopped an export, in words for its row: a full disk must end the row, not the timer of all rows."""
    if isinstance(error, FrescoError):
        return error
    if isinstance(error, OSError):
        return OutputDenied(f"the clip cannot be exported: {error.strerror or error}", where=error.filename,
                            remedy="Make room there, or choose another folder in the panel, and redo it.")
    return InputError(f"Blender cannot export the clip: {error}", remedy="Render it in Blender to see why.")


def _row(key: str, group: str, version: int, clip: Clip, choices: Choices, extraction: Extraction,
         shot_folder: str) -> Row:
    folder, name = os.path.join(shot_folder, f"v{version:03}"), f"{safe(clip.strip)}_v{version:03}"
    markers = tuple(timeline.markers_of(clip)) if choices.keyframes is Keyframes.MARKERS else ()
    footage = Footage(name=name, plate=extraction.plate, color_space=extraction.color_space, frames=clip.frames,
                      rate=Rate.parse(clip.rate), matte=extraction.matte, markers=markers,
                      output=os.path.join(folder, f"{name}.####{extension_of(choices)}"))
    return Row(key=key, group=group, version=version, clip=clip, shot=shot_of(choices, footage), choices=choices,
               folder=folder, shot_folder=shot_folder, exports=extraction.exports,
               step=Step.EXPORTING if extraction.exports else Step.WAITING)


def _result(row: Row) -> timeline.Result:
    look = row.shot.look
    record = {"key": row.key, "group": row.group, "version": row.version, "seed": look.seed, "model": look.model,
              "prompt": look.prompt, "shot": json.loads(row.shot.to_json())}
    return timeline.Result(clip=row.clip, name=f"{look.prompt[:30]} v{row.version:03}", record=record,
                           sequence=row.shot.delivery.sequence)


def _home(row: Row) -> Any:
    """The scene that keeps a row whose result strip is gone."""
    return bpy.data.scenes.get(row.clip.scene) or bpy.data.scenes[0]
