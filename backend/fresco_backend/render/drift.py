# SPDX-License-Identifier: Apache-2.0
"""Drift of a shot from its first window to its last: measured for each window, and graded away where the shot says so.

Each window's grade is found from its own keyframes and reached along them from the grade of the window before, so that
no picture jumps and their mean meets. What a later window needs lies in the scratch folder, so a shot goes on where it
was.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fresco_backend.engine.tones import Drift, Grade, Tones
from fresco_backend.render.job import Job
from fresco_backend.render.scratch import Scratch
from fresco_protocol.shot import Compat, Shot


def holds_tone(shot: Shot) -> bool:
    """Whether later windows are graded to the first one. A cue is a change that is wanted; the reference knows none."""
    coherence = shot.coherence
    wanted = coherence is not None and coherence.tone and coherence.compat is not Compat.REFERENCE
    return wanted and not shot.look.cues


def graded(job: Job, window: int, plate: Tensor, keys: Tensor) -> Tensor:
    """The keyframes of a window with its share of the grade; its tones are kept for the windows after it.

    window: its place. plate, keys: (N, 3, H, W) in [-1, 1], what the engine saw and made. Raises OutputError.
    """
    scratch, grade = job.scratch, Grade.neutral()
    if window and holds_tone(job.shot):
        before, grade = _grade(scratch, window - 1), Tones.of(plate, keys).grade(_tones(scratch, 0))
        on_the_way = [before.towards(grade, share) for share in _shares(len(keys))]
        keys = torch.stack([step.apply(key) for step, key in zip(on_the_way, keys, strict=True)])
        grade = on_the_way[-1]
    table = Tones.of(plate, keys).table
    scratch.save_tones(window, {"table": table, "matrix": grade.matrix, "offset": grade.offset})
    return keys


def measured(job: Job, windows: int) -> Drift | None:
    """The drift of what is delivered, first window to last; None when not all of them were made here."""
    scratch = job.scratch
    if windows < 2 or not (scratch.has_tones(0) and scratch.has_tones(windows - 1)):
        return None
    return _tones(scratch, windows - 1).drift(_tones(scratch, 0))


def _shares(count: int) -> list[float]:
    """How much of its window's grade each keyframe has: all by the middle, and a little more to make up for the first.

    Their mean is 1, so that the window as a whole is graded; all at once would jump where the window before ends.
    """
    way = ((torch.arange(count) + 1) * 2 / count).clamp(max=1)
    shares: list[float] = (way / way.mean()).tolist()
    return shares


def _tones(scratch: Scratch, window: int) -> Tones:
    return Tones(table=scratch.load_tones(window)["table"])


def _grade(scratch: Scratch, window: int) -> Grade:
    kept = scratch.load_tones(window)
    return Grade(matrix=kept["matrix"], offset=kept["offset"])
