# SPDX-License-Identifier: Apache-2.0
"""Rows of the coherence table for whole ways of making frames: both tasks, by every mode of synthesis."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from fresco_backend.models.weights import Models
from fresco_backend.render import in_betweens, windows
from fresco_backend.render.denoising import Denoising
from fresco_backend.render.job import Job, open_job
from fresco_protocol.shot import Editing, Keyframing, Look, Shot, Synthesis, Task

GAP = 3  # frames from one keyframe to the next where there are in-betweens, so that eight frames have some


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A task, and how its frames come about."""

    task: Task
    synthesis: Synthesis

    @property
    def name(self) -> str:
        """For the command line: "edit-features"."""
        return f"{self.task.value}-{self.synthesis.value}"

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.task.value}, {self.synthesis.value}"

    @property
    def identity(self) -> str:
        """A text that differs where the mode does."""
        return self.name

    def applied(self, shot: Shot, caption: str) -> Shot:
        """The shot made in this way. caption: what its plate shows. An edit's strength is its own."""
        keyframing = Keyframing(minimum_gap=GAP, maximum_gap=GAP, synthesis=self.synthesis, rotation=GAP)
        strength = shot.look.strength if self.task is Task.TRANSLATE else None
        return replace(shot, task=self.task, keyframing=keyframing, editing=Editing(caption=caption),
                       look=replace(shot.look, strength=strength))


MODES = tuple(Mode(task=task, synthesis=synthesis) for task, synthesis in product(Task, Synthesis))


def stylised(shot: Shot, load: Callable[[Look], Models]) -> Tensor:
    """All frames of a shot as it would deliver them, at working size with its padding: (N, 3, H, W) in [-1, 1]."""
    with TemporaryDirectory() as folder:
        placed = replace(shot, delivery=replace(shot.delivery, sequence=str(Path(folder) / "frame.####.png")))
        with closing(open_job(placed)) as job:
            return _stylised(job, load(job.shot.look))


def _stylised(job: Job, models: Models) -> Tensor:
    errors = list(windows.error_curve(job)) if windows.needs_analysis(job) else None
    keyframes = windows.choose_keyframes(job, errors)
    split = windows.split(job, keyframes)
    denoising = Denoising(job=job, models=models, windows=split, places=tuple(range(len(split))))
    for place in denoising.places:
        deque(denoising.invert(place), maxlen=0)
        deque(denoising.window(place, place), maxlen=0)
    return torch.stack([image for _, image in in_betweens.stylised(job, job.frames, keyframes)])
