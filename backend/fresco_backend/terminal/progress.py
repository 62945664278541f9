# SPDX-License-Identifier: Apache-2.0
"""What a person sees of a render: a bar on a terminal, plain lines in a log; warnings once, and counted at the end."""
from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from fresco_backend.events import Advanced, Delivered, Event, Finished, Planned, Stage, Waited, Warned
from fresco_backend.terminal.plan_text import (
    count_text,
    counted,
    duration_text,
    headlines,
    path_text,
    product_text,
    work_text,
)

Clock = Callable[[], float]

LINE_INTERVAL = 5.0  # seconds from one line of a stage to its next, at least
LONGEST_SILENCE = 60.0  # seconds: a farm takes a silent log for a dead one
_HEARTBEAT = 5.0


class ProgressKind(Enum):
    """How a render tells of its progress."""

    AUTO = "auto"  # a bar on a terminal, plain lines elsewhere
    TTY = "tty"
    PLAIN = "plain"
    JSON = "json"  # events on stdout and nothing else
    OPENJD = "openjd"  # lines that an Open Job Description session understands, on stdout
    NONE = "none"  # warnings only


def choose_progress(kind: ProgressKind, stream: TextIO, *, alone: bool = True) -> Progress:
    """The progress of this kind on `stream`. alone: nothing else is written to the same terminal meanwhile."""
    if kind is ProgressKind.AUTO:
        able = stream.isatty() and os.environ.get("TERM") != "dumb"
        kind = ProgressKind.TTY if able and alone else ProgressKind.PLAIN
    kinds = {ProgressKind.TTY: TerminalProgress, ProgressKind.PLAIN: PlainProgress}
    return kinds.get(kind, Progress)(stream)


class Progress:
    """Tells of events on `stream`; this one of warnings only. A context manager, which leaves the terminal as it was.

    delivered: frames that this run delivered so far.
    """

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self.stream = stream
        self.clock = clock
        self.delivered = 0
        self._awaited = ""
        self._warnings: dict[tuple[str, str], list[Warned]] = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Stops drawing."""

    def show(self, event: Event) -> None:
        """Tells of one event of a render."""
        if isinstance(event, Delivered):
            self.delivered += 1
        elif isinstance(event, Warned):
            self._warn(event)
        elif isinstance(event, Planned):
            self.begin(event)
        elif isinstance(event, Advanced):
            self.advance(event)
        elif isinstance(event, Waited):
            self.wait(event)
        elif isinstance(event, Finished):
            self.finish(event)

    def say(self, line: str) -> None:
        """Writes one line."""
        self.stream.write(line + "\n")
        self.stream.flush()

    def begin(self, plan: Planned) -> None:
        """Tells what will be done."""

    def advance(self, event: Advanced) -> None:
        """Tells how far a stage is."""

    def wait(self, event: Waited) -> None:
        """Tells, once for each product, that another process makes it."""
        if event.product != self._awaited:
            self._awaited = event.product
            left = None if event.seconds is None else duration_text(event.seconds)
            self.say(_waiting(event) + (f" (taken over in {left}, if that has died)" if left else ""))

    def finish(self, event: Finished) -> None:
        """Tells that the render is done."""

    def _warn(self, event: Warned) -> None:
        alike = self._warnings.setdefault((event.code, event.text), [])
        alike.append(event)
        if len(alike) == 1:
            frame = "" if event.frame is None else f"frame {event.frame}: "
            self.say(f"warning: {frame}{event.text} [{event.code}]")

    def _end_lines(self, event: Finished) -> list[str]:
        """How long it took, where the result lies, and the warnings that came more than once."""
        kept = f", {event.reused} kept from before" if event.reused else ""
        outputs = [path_text(path) for path in event.outputs]
        if len(outputs) > 2:
            outputs = [f"{outputs[0]} … {outputs[-1]}"]
        what = f"{counted(event.rendered, 'frame')} rendered{kept}" if outputs else \
            "keyframes alone; the frames come with --stage in-betweens"
        record = [f"  record: {path_text(event.sidecar)}"] if event.sidecar else []
        return [f"done in {duration_text(event.seconds)}: {what}", *(f"  {output}" for output in outputs), *record,
                *(_again(alike) for alike in self._warnings.values() if len(alike) > 1)]


class PlainProgress(Progress):
    """Lines for a log: one where a stage begins and ends; between, one in LINE_INTERVAL to LONGEST_SILENCE seconds."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        super().__init__(stream, clock)
        self._lock = threading.RLock()  # events come from one thread, the heartbeat from another
        self._stopped = threading.Event()
        self._paces: dict[Stage, _Pace] = {}
        self._last = ""
        self._said = self.clock()

    def __enter__(self) -> PlainProgress:
        self.say("starting")
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stopped.set()

    def say(self, line: str) -> None:
        with self._lock:
            super().say(line)
            self._said = self.clock()

    def begin(self, plan: Planned) -> None:
        for line in headlines(plan):
            self.say(line)
        with self._lock:
            self._last = "the first step is not finished yet"  # loading, motion, and a slow step: no event comes

    def advance(self, event: Advanced) -> None:
        with self._lock:
            new = event.stage not in self._paces
            pace = self._paces.setdefault(event.stage, _Pace(event, self.clock()))
            left = pace.seconds_left(event, self.clock())
            self._last = ", ".join(filter(None, [work_text(event.stage.value, event.done, event.total),
                                                 *_details(event), left and f"{left} left"]))
            if new or event.done >= event.total or self.clock() - self._said >= LINE_INTERVAL:
                self.say(self._last)

    def wait(self, event: Waited) -> None:
        with self._lock:
            self._last = _waiting(event)
            super().wait(event)

    def finish(self, event: Finished) -> None:
        for line in self._end_lines(event):
            self.say(line)

    def tick(self) -> None:
        """Writes a line before a silence becomes LONGEST_SILENCE seconds."""
        with self._lock:
            if self.clock() - self._said >= LONGEST_SILENCE - _HEARTBEAT:
                self.say(f"still {self._last}" if self._last.startswith("waiting") else
                         f"still at work: {self._last or 'starting'}")

    def _beat(self) -> None:
        while not self._stopped.wait(_HEARTBEAT):
            self.tick()


class TerminalProgress(Progress):
    """A bar for each stage, with what is under way and the time that is left."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        super().__init__(stream, clock)
        console = Console(file=stream, force_terminal=True, highlight=False, markup=False, emoji=False)
        # stdout is not ours to redirect: events may go there.
        self._bars = Bars(SpinnerColumn(finished_text=" "), TextColumn("{task.description}", markup=False),
                          BarColumn(bar_width=24), TextColumn("{task.fields[detail]}", markup=False),
                          console=console, redirect_stdout=False, refresh_per_second=5)
        self._paces: dict[Stage, _Pace] = {}
        self._tasks: dict[Stage, TaskID] = {}
        self._counts: dict[Stage, str] = {}
        self._start = self._bars.add_task(_title("starting"), total=None, detail="")

    def __enter__(self) -> TerminalProgress:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._bars.update(self._start, visible=False)
        self._bars.stop()

    def say(self, line: str) -> None:
        self._bars.console.print(line, soft_wrap=True)

    def begin(self, plan: Planned) -> None:
        for line in headlines(plan):
            self.say(line)

    def advance(self, event: Advanced) -> None:
        self._bars.update(self._start, visible=False)
        if event.stage not in self._tasks:
            self._paces[event.stage] = _Pace(event, self.clock())
            self._tasks[event.stage] = self._bars.add_task(_title(event.stage.value), detail="")
        for stage, task in self._tasks.items():
            if stage is not event.stage:  # where work rests, what is left and what is under way are old news
                self._bars.update(task, detail=self._counts[stage])
        self._counts[event.stage] = count_text(event.stage.value, event.done, event.total)
        left = self._paces[event.stage].seconds_left(event, self.clock())
        words = [*_details(event), f"{left} left" if left else ""] if event.done < event.total else []
        self._bars.update(self._tasks[event.stage], completed=event.done, total=event.total,
                          detail="  ".join(filter(None, [self._counts[event.stage], *words])))

    def finish(self, event: Finished) -> None:
        self._bars.stop()  # so that the end stands below the bars
        for line in self._end_lines(event):
            self.say(line)


class _Pace:
    """How fast a stage goes, from its first event on: what was found finished is no work of this run."""

    def __init__(self, first: Advanced, now: float) -> None:
        self._done, self._began = first.done, now

    def seconds_left(self, event: Advanced, now: float) -> str:
        """The render's own estimate, else that of the stage; empty when there is none yet."""
        seconds = event.seconds_left
        if seconds is None and event.done > self._done:
            seconds = (now - self._began) / (event.done - self._done) * (event.total - event.done)
        return "" if seconds is None or event.done >= event.total else duration_text(seconds)


def _waiting(event: Waited) -> str:
    return f"waiting for {product_text(event.product)}, which {event.owner} makes"


def _details(event: Advanced) -> list[str]:
    window = "" if event.window is None else f"window {event.window}" + (f"/{event.windows}" if event.windows else "")
    return [part for part in (window, "" if event.frame is None else f"frame {event.frame}") if part]


def _title(words: str) -> str:
    return f"{words:<{max(len(stage.value) for stage in Stage)}}"


def _again(alike: list[Warned]) -> str:
    from fresco_backend.files.sequences import frames_text  # not above: OpenImageIO, which nobody shall wait for

    frames = [event.frame for event in alike if event.frame is not None]
    return f"warning, {len(alike)} times: {alike[0].text}" + (f" (frames {frames_text(frames)})" if frames else "")
