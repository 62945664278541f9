# SPDX-License-Identifier: Apache-2.0
"""The window inside Resolve (UIManager): what is wanted, the queue with its progress, and a preview.

The names of elements and their properties are those that scripts in use have; none was seen on a real Resolve. A timer
drives each clip's generator one step at a time, so that the window answers while clips render.
"""
from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Optional

from fresco_davinci.clip import Destination, Input, MatteChoice, MatteSource, Progress, Record, Wish
from fresco_davinci.presets import keep, presets
from fresco_davinci.stylisation import Left, Line, again, stylise
from fresco_davinci.timeline import Host, collect, records
from fresco_protocol.errors import FrescoError, UsageError
from fresco_protocol.shot import FrameRange, Look, Task

TICK = 200  # milliseconds
PREVIEW = 320  # pixels
INPUTS = {"Graded picture": Input.GRADED, "Source media, under the grade": Input.SOURCE}
PLACES = {"New clip on track FRESCO": Destination.TRACK, "Take of the clip": Destination.TAKE,
          "Media pool only": Destination.POOL}
TASKS = {"Translate": Task.TRANSLATE, "Edit": Task.EDIT}
MATTES = ("No matte", "Matte of the clip", "Alpha of the clip", "Video track...")


@dataclass
class Row:
    """One clip in the queue. steps: None once it has ended."""

    name: str
    steps: Optional[Generator[Progress, None, Record]]
    text: str = "waiting"
    still: bool = False

    def advance(self) -> Optional[bytes]:
        """Takes one step; gives a preview if there is a new one."""
        if self.steps is None:
            return None
        try:
            progress = next(self.steps)
        except StopIteration as end:
            self.steps, self.text = None, "done"
            return still_of(end.value) if self.still else None
        except Exception as error:  # noqa: BLE001, the one place where a row's errors end: the others go on
            self.steps, self.text = None, f"failed: {error}"
            return None
        self.text = f"{progress.phase.value} {100 * progress.fraction:.0f} %  {progress.text}".rstrip()
        return progress.preview

    def cancel(self) -> None:
        """Ends it; Resolve's queue and timeline are as before."""
        if self.steps is not None:
            self.steps.close()
            self.steps, self.text = None, "cancelled"

    def leave(self) -> None:
        """Lets its job go on at the server; Resolve's queue and timeline are as before."""
        if self.steps is not None:
            with suppress(Exception):  # Left comes back; or Resolve itself has quit, and the other rows are left too
                self.steps.throw(Left())
            self.steps = None


def still_of(record: Record) -> Optional[bytes]:
    """The picture of a still."""
    found = sorted(Path(record.folder).glob("look.*.png"))
    return found[0].read_bytes() if found else None


class Window:
    """The window and its queue."""

    def __init__(self, host: Host, line: Line, ui: Any, dispatcher: Any) -> None:
        """ui: UIManager; dispatcher: its event loop."""
        self.host, self.line, self.ui, self.dispatcher = host, line, ui, dispatcher
        self.rows: list[Row] = []
        self.looks = presets()
        self._shown = 0  # pictures so far: a label shows a file again only under another name
        self._folder = tempfile.TemporaryDirectory(prefix="fresco-preview-")
        self.window = dispatcher.AddWindow({"ID": "Fresco", "WindowTitle": "Fresco", "Geometry": [200, 200, 760, 640]},
                                           [self._layout()])
        self.items = self.window.GetItems()
        self.timer = ui.Timer({"ID": "FrescoTimer", "Interval": TICK})
        self._fill()
        self._connect()

    def serve(self) -> list[str]:
        """Shows the window until it is closed; gives what the user should know then.

        What Resolve renders for a clip is stopped; jobs that are at the server go on there.
        """
        self.window.Show()
        self.timer.Start()
        try:
            self.dispatcher.RunLoop()
        finally:
            self.timer.Stop()
            self.window.Hide()
            for row in self.rows:
                row.leave()
            self._folder.cleanup()
        return self.host.notices

    def _layout(self) -> Any:
        ui = self.ui
        return ui.VGroup({"Spacing": 6}, [
            self._row("Look", ui.ComboBox({"ID": "look"}), ui.Button({"ID": "keep", "Text": "Keep"})),
            self._row("Prompt", ui.LineEdit({"ID": "prompt", "PlaceholderText": "a watercolour painting"})),
            self._row("Not", ui.LineEdit({"ID": "negative"})),
            self._row("Model", ui.LineEdit({"ID": "model", "Text": "embedded"}), ui.ComboBox({"ID": "task"})),
            self._row("Strength", ui.LineEdit({"ID": "strength", "PlaceholderText": "0 to 1; empty: the model's own"})),
            self._row("Picture", ui.ComboBox({"ID": "input"}), ui.ComboBox({"ID": "place"})),
            self._row("Space", ui.LineEdit({"ID": "space", "PlaceholderText": "of the plate, by its OpenColorIO name; "
                                                                               "empty: as Resolve has it"})),
            self._row("Matte", ui.ComboBox({"ID": "matte"}), ui.SpinBox({"ID": "track", "Minimum": 1, "Maximum": 99})),
            self._row("Frames", ui.LineEdit({"ID": "part", "PlaceholderText": "of the clip, such as 1-48; empty: all"}),
                      ui.SpinBox({"ID": "handles", "Minimum": 0, "Maximum": 1000})),
            ui.HGroup({}, [ui.Button({"ID": "stylise", "Text": "Stylise"}), ui.Button({"ID": "still", "Text": "Still"}),
                           ui.Button({"ID": "redo", "Text": "Redo"}), ui.Button({"ID": "cancel", "Text": "Cancel"})]),
            ui.Label({"ID": "says", "WordWrap": True, "Text": " ".join(self.host.edition.limits)}),
            ui.Tree({"ID": "queue", "ColumnCount": 3}),
            ui.Label({"ID": "preview", "Text": ""}),
        ])

    def _row(self, label: str, *elements: Any) -> Any:
        return self.ui.HGroup({}, [self.ui.Label({"Text": label, "Weight": 0.2}), *elements])

    def _fill(self) -> None:
        choices = {"look": ["", *self.looks], "task": TASKS, "input": INPUTS, "place": PLACES, "matte": MATTES}
        for id, texts in choices.items():
            for text in texts:
                self.items[id].AddItem(text)
        header = self.items["queue"].NewItem()
        for column, text in enumerate(("", "Clip", "State")):
            header.Text[column] = text
        self.items["queue"].SetHeaderItem(header)

    def _connect(self) -> None:
        on = self.window.On
        on.stylise.Clicked = lambda _=None: self._said(self._stylise)
        on.still.Clicked = lambda _=None: self._said(self._still)
        on.redo.Clicked = lambda _=None: self._said(self._redo)
        on.keep.Clicked = lambda _=None: self._said(self._keep)
        on.cancel.Clicked = lambda _=None: self._cancel()
        on.look.CurrentIndexChanged = lambda _=None: self._take_preset()
        on.Fresco.Close = lambda _=None: self.dispatcher.ExitLoop()
        self.dispatcher.On.Timeout = lambda _=None: self.tick()

    def _said(self, action: Callable[[], None]) -> None:
        """Does it, and says what went wrong."""
        try:
            action()
            self._say()
        except FrescoError as error:
            self.items["says"].Text = str(error)

    def _say(self) -> None:
        self.items["says"].Text = " ".join((*self.host.edition.limits, *self.host.notices))

    def look(self) -> Look:
        """The look that the window asks for: the chosen preset with what was typed over it. Raises ShotError."""
        items = self.items
        chosen = self.looks.get(str(items["look"].CurrentText))
        base = chosen or Look(prompt=str(items["prompt"].Text).strip() or " ")
        strength = str(items["strength"].Text).strip()
        try:
            amount = float(strength) if strength else None
        except ValueError:
            raise UsageError(f'the strength "{strength}" is no number', remedy="Take a number from 0 to 1.") from None
        prompt, negative, model = (str(items[id].Text).strip() for id in ("prompt", "negative", "model"))
        return replace(base, prompt=prompt, negative_prompt=negative, model=model, strength=amount)

    def wish(self) -> Wish:
        """All that the window asks for. Raises ShotError."""
        items = self.items
        part = str(items["part"].Text).strip()
        return Wish(look=self.look(), task=TASKS[str(items["task"].CurrentText)],
                    input=INPUTS[str(items["input"].CurrentText)], destination=PLACES[str(items["place"].CurrentText)],
                    matte=self._matte(), part=FrameRange.parse(part) if part else None,
                    handles=int(items["handles"].Value), color_space=str(items["space"].Text).strip() or None)

    def _matte(self) -> Optional[MatteChoice]:
        chosen = MATTES.index(str(self.items["matte"].CurrentText))
        if chosen == 0:
            return None
        source = (MatteSource.CLIP, MatteSource.ALPHA, MatteSource.TRACK)[chosen - 1]
        return MatteChoice(source=source, track=int(self.items["track"].Value) if source is MatteSource.TRACK else None)

    def _stylise(self) -> None:
        wish = self.wish()
        for clip in collect(self.host):
            self.rows.append(Row(clip.name, stylise(self.host, clip, wish, self.line)))

    def _still(self) -> None:
        """The frame under the playhead alone, shown here and placed nowhere."""
        clips = collect(self.host)
        clip = next((clip for clip in clips if clip.playhead is not None), None)
        if clip is None or clip.playhead is None:
            raise UsageError("the playhead does not stand on the clip", where=clips[0].name,
                             remedy="Put it there, on the Edit or the Color page.")
        frame = FrameRange(first=clip.playhead, last=clip.playhead)
        wish = replace(self.wish(), destination=None, part=frame, handles=0)
        steps = stylise(self.host, clip, wish, self.line)
        self.rows.append(Row(f"{clip.name}, frame {clip.playhead}", steps, still=True))

    def _redo(self) -> None:
        look = self.look()
        for path in records(self.host):
            self.rows.append(Row(Path(path).parent.name, again(self.host, path, look, self.line)))

    def _keep(self) -> None:
        look = self.look()
        name = keep(look.prompt, look).stem
        if name not in self.looks:
            self.items["look"].AddItem(name)
        self.looks = presets()

    def _cancel(self) -> None:
        """Cancels every clip that has not ended."""
        for row in self.rows:
            row.cancel()
        self._draw()

    def _take_preset(self) -> None:
        look = self.looks.get(str(self.items["look"].CurrentText))
        if look is not None:
            self.items["prompt"].Text, self.items["negative"].Text = look.prompt, look.negative_prompt
            self.items["model"].Text = look.model
            self.items["strength"].Text = "" if look.strength is None else f"{look.strength:g}"

    def tick(self) -> None:
        """One step of every clip that runs."""
        running = [row for row in self.rows if row.steps is not None]
        for row in running:
            picture = row.advance()
            if picture is not None:
                self._show(picture)
        if running:
            self._draw()
            if self.host.notices:
                self._say()

    def _draw(self) -> None:
        tree = self.items["queue"]
        tree.Clear()
        for number, row in enumerate(self.rows, start=1):
            item = tree.NewItem()
            for column, text in enumerate((str(number), row.name, row.text)):
                item.Text[column] = text
            tree.AddTopLevelItem(item)

    def _show(self, picture: bytes) -> None:
        self._shown += 1
        suffix = ".jpg" if picture[:2] == b"\xff\xd8" else ".png"
        path = Path(self._folder.name) / f"{self._shown}{suffix}"
        path.write_bytes(picture)
        self.items["preview"].Text = f'<img src="{path.as_posix()}" width="{PREVIEW}">'
