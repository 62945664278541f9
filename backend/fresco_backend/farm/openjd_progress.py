# SPDX-License-Identifier: Apache-2.0
"""Progress as a session of Open Job Description reads it: lines on stdout that begin with `openjd_`.

Source: Open Job Description, "How Jobs Are Run", stdout messages: openjd_progress is a percentage, openjd_status one
line of text, openjd_fail says why an action failed (its exit code decides that it did).
"""

from __future__ import annotations

import time
from typing import TextIO

from fresco_backend.events import Advanced, Finished, Stage
from fresco_backend.render.farm_stage import FarmStage
from fresco_backend.terminal.progress import Clock, PlainProgress
from fresco_protocol import events as e

# What each stage of a render counts in a run of all stages: denoising takes most of the time.
_SHARES = {
    None: {Stage.KEYFRAMES: 0.8, Stage.DELIVER: 0.2},
    FarmStage.KEYFRAMES: {Stage.KEYFRAMES: 1.0},
    FarmStage.IN_BETWEENS: {Stage.DELIVER: 1.0},
    FarmStage.VERIFY: {Stage.MOVIE: 1.0},
}


class OpenJDProgress(PlainProgress):
    """The lines of a log, each as the status of the action, and how far all of it is. stage: the only one that runs."""

    def __init__(self, stream: TextIO, stage: FarmStage | None, clock: Clock = time.monotonic) -> None:
        super().__init__(stream, clock)
        self._shares = _SHARES[stage]
        self._done: dict[Stage, float] = {}
        self._told = -1.0

    @property
    def percentage(self) -> float:
        """How much of the run is done, 0 to 100."""
        return 100 * sum(share * self._done.get(stage, 0.0) for stage, share in self._shares.items())

    def say(self, line: str) -> None:
        with self._lock:
            super().say(f"openjd_status: {line}")
            told = round(self.percentage, 1)
            if told != self._told:
                self._told = told
                super().say(f"openjd_progress: {told}")

    def advance(self, event: Advanced) -> None:
        with self._lock:
            self._done[event.stage] = event.done / max(event.total, 1)
            super().advance(event)

    def finish(self, event: Finished) -> None:
        self._done = dict.fromkeys(self._shares, 1.0)
        super().finish(event)


class ServedProgress:
    """Progress for a session of Open Job Description, of a job that a server renders: from the protocol's events."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._done: dict[str, float] = {}

    def tell(self, event: e.Event, line: str | None) -> None:
        """An event, and what people read of it."""
        if line:
            self._stream.write(f"openjd_status: {line}\n")
        if isinstance(event, e.Advanced):
            self._done[event.stage.value] = event.done / max(event.total, 1)
            whole = sum(share * self._done.get(stage.value, 0.0) for stage, share in _SHARES[None].items())
            self._stream.write(f"openjd_progress: {round(100 * whole, 1)}\n")
        elif isinstance(event, e.Finished):
            self._stream.write("openjd_progress: 100.0\n")
        self._stream.flush()
