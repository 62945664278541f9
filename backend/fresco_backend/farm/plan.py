# SPDX-License-Identifier: Apache-2.0
"""What a farm is asked to do for one shot: three steps of commands, decided on the machine that submits.

    keyframes (one task, with the device) -> in-betweens (chunks of frames, on any machine) -> verify (one task)

Choices that depend on the plate or on the model are made here once, so that every node does the same work.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fresco_backend.farm.node import output_of, plates_of
from fresco_backend.files.sequences import frames_text
from fresco_backend.render import estimate, windows
from fresco_backend.render.farm_stage import FarmStage
from fresco_backend.render.job import Job, open_job
from fresco_backend.render.pins import Pins
from fresco_protocol.errors import UsageError
from fresco_protocol.shot import Shot, parse_frames

SHOT_FILE, PINS_FILE = "shot.json", "pins.json"
CHUNK = 48  # frames of one task; of 16 frames, starting the task costs half of its time (BENCHMARKS.md)
MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a farm's people decide. command: how a node calls Fresco, word by word. chunk: frames of one task.

    device: whether the keyframes ask the farm for a GPU. server: whether a session keeps the model loaded for all its
    tasks. name: of the job; None is the shot's.
    """

    command: tuple[str, ...] = ("fresco",)
    chunk: int = CHUNK
    device: bool = True
    server: bool = False
    name: str | None = None

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise UsageError(f"a chunk of {self.chunk} frames", remedy="Give --chunk of 1 or more.")


@dataclass(frozen=True, kw_only=True)
class FarmPlan:
    """A shot, planned.

    shot: without open choices, paths absolute. frames: all that are delivered. windows: denoised one after the other.
    memory: MiB of the device at the peak, estimated.
    """

    name: str
    shot: Shot
    pins: Pins
    site: Site
    frames: tuple[int, ...]
    windows: int
    memory: int

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """The frames of each task of the in-betweens."""
        size = self.site.chunk
        return tuple(self.frames[start : start + size] for start in range(0, len(self.frames), size))

    def words(self, stage: FarmStage, folder: Path | str, *options: str) -> tuple[str, ...]:
        """The command of one stage on a node that sees the bundle in `folder`."""
        return (*self.site.command, "render", f"{folder}/{SHOT_FILE}", f"--stage={stage.value}",
                f"--pins={folder}/{PINS_FILE}", *options)

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The folders of the plate, the matte and the artist's control images."""
        return plates_of(self.shot)

    @property
    def output(self) -> Path:
        """The folder of the delivery, which every node sees; keyframes lie in `.fresco` in it."""
        return output_of(self.shot)


def plan_shot(shot: Shot, site: Site) -> FarmPlan:
    """Open a shot, choose its keyframes, and count its windows. Renders nothing. Raises what stands in the way."""
    with closing(open_job(shot)) as job:
        errors = list(windows.error_curve(job)) if windows.needs_analysis(job) else None
        keyframes = windows.choose_keyframes(job, errors)
        split = windows.split(job, keyframes)
        memory = estimate.device_memory(job, split, torch.float16)
        decided, frames = _decided(job, keyframes), job.frames
    with closing(open_job(decided)) as job:
        job.writer()  # a delivery that cannot be written is refused here, not on a hundred nodes
        pins = Pins.of(job)
    return FarmPlan(name=site.name or _name(shot), shot=decided, pins=pins, site=site, frames=frames,
                    windows=len(split), memory=memory // MEBIBYTE)


def _decided(job: Job, keyframes: Sequence[int]) -> Shot:
    """The shot with every choice made that a node would have to make again."""
    shot = job.shot
    frames = shot.plate.frames or parse_frames(frames_text(job.frames))
    chosen = parse_frames(frames_text(keyframes)) if keyframes else None
    return replace(
        shot, plate=replace(shot.plate, frames=frames),
        keyframing=replace(shot.keyframing, frames=chosen or shot.keyframing.frames),
        delivery=replace(shot.delivery, working_size=min(job.working.scaled)),
    )  # fmt: skip


def _name(shot: Shot) -> str:
    """A name that every engine takes: letters, digits, dots, dashes."""
    words = shot.name or Path(shot.delivery.sequence).stem.partition(".")[0]
    return re.sub(r"[^\w.-]+", "-", words, flags=re.ASCII).strip("-.") or "shot"
