# SPDX-License-Identifier: Apache-2.0
"""Inverted frames of a plate on disk: made once, and read again by every later edit of the same plate and model.

One file a frame: (T, C, h, w) float16 in NumPy's format, one entry for each time step that the run samples, mapped into
memory instead of read, so that a long clip takes no more memory than a short one. They lie beside the scratch folders
of the shots, in a folder named after all that they depend on, and stay when a shot is done.

Keyframes of a window are inverted together, and how many there are decides the last bits of each: other code computes a
larger batch. So a file is of its frame among these, and what a still or another choice of keyframes left is not taken:
a shot has the same pixels whatever was rendered before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fresco_backend import __version__
from fresco_backend.engine import denoise
from fresco_backend.engine.invert import inversion_steps
from fresco_backend.engine.keyframes import Window
from fresco_backend.engine.schedule import NoiseSchedule
from fresco_backend.engine.tiles import autoencoder_in_tiles
from fresco_backend.files.deliveries import refused
from fresco_backend.models.weights import Models
from fresco_backend.pixels.color_config import configuration_facts
from fresco_backend.render.job import Job
from fresco_backend.render.scratch import write_atomically
from fresco_backend.render.windows import inverted_input, overflow, strengthened
from fresco_protocol.shot import Compat, ControlKind, Shot, Task

DIGITS = 16  # of SHA-256, enough to name a folder or a file
CHANGING = ("prompt", "negative_prompt", "cues", "strength", "guidance", "steps", "sampler", "seed")
"""What of a look an inversion does not depend on; the steps that are sampled are named themselves."""


def needs_inversion(shot: Shot) -> bool:
    """Whether a shot looks at the plate's own way to noise."""
    return shot.task is Task.EDIT or shot.keyframing.synthesis.propagates


def inversion_text(shot: Shot) -> str:
    """The words that the plate is inverted with: its caption; in the authors' program they are none."""
    return "" if _as_reference(shot) else shot.editing.caption


class Inversions:
    """The inverted frames of one job.

    sampled: the time steps that its run samples. windows: of the whole shot. precision: what is computed in, such as
    "bfloat16 on cpu". noise_at: the time step that tells the noise of an edit, in the authors' program; None is the
    first one sampled.
    """

    def __init__(
        self, job: Job, schedule: NoiseSchedule, sampled: Sequence[int], windows: Sequence[Window], precision: str
    ) -> None:
        self._job, self._schedule, self._precision = job, schedule, precision
        self._groups = {frame: group for group in _groups(windows, job.shot.keyframing.window) for frame in group}
        steps = job.shot.editing.inversion_steps
        edits = job.shot.task is Task.EDIT and len(sampled) > 0
        self.noise_at = max(*schedule.timesteps(steps), *sampled) if edits and _as_reference(job.shot) else None
        self._sampled = sorted({*sampled, *([] if self.noise_at is None else [self.noise_at])})
        self._steps = inversion_steps(schedule, steps, sampled, until=self.noise_at)
        self.folder = job.scratch.folder.parent / f"inversion.{self._digest()}"

    @property
    def steps(self) -> int:
        """How many steps an inversion takes."""
        return len(self._steps)

    def waiting(self, frames: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """The frames that are still to be inverted for these to be there, those that belong together in one tuple."""
        groups = dict.fromkeys(self._groups[frame] for frame in frames)
        return tuple(group for group in groups if not all(path.is_file() for path in self.files(group)))

    def files(self, frames: Sequence[int]) -> tuple[Path, ...]:
        """Where frames are, or will be; the names tell what was inverted."""
        return tuple(map(self._path, frames))

    def make(self, models: Models, frames: Sequence[int]) -> Iterator[int]:
        """Invert frames, all in one go; yields after each step how many are done.

        Raises OutputError, and WeightsUnsupported for numbers that overflow, of which none is kept.
        """
        tiling, strengthening = self._job.tiling, strengthened(self._job.shot.look, models.unet)
        parts = denoise.DiffusionModels(unet=models.unet, vae=models.vae, schedule=self._schedule)
        window = inverted_input(self._job, models, frames, inversion_text(self._job.shot))
        way = denoise.invert_window(parts, window, denoise.Sampling(tiling=tiling), self._steps)
        kept: list[Tensor] = []
        tiled = autoencoder_in_tiles(models.vae, max(self._job.tiles[0])) if tiling else nullcontext()
        with tiled, strengthening, closing(way):
            for count, (timestep, latents) in enumerate(way, 1):
                if timestep in self._sampled:
                    kept.append(latents.half().cpu())
                yield count
        inverted = torch.stack(kept, dim=1)
        if not inverted.isfinite().all():
            raise overflow(self._job, models)
        for frame, states in zip(frames, inverted, strict=True):
            self._save(self._path(frame), states)

    def latents(self, frames: Sequence[int], device: torch.device) -> Callable[[int], Tensor]:
        """What gives the inverted latents (N, C, h, w) of frames, float32, at a time step that is sampled."""
        maps = [np.load(self._path(frame), mmap_mode="r") for frame in frames]

        def at(timestep: int) -> Tensor:
            place = self._sampled.index(timestep)
            return torch.from_numpy(np.stack([states[place] for states in maps])).to(device).float()

        return at

    def _digest(self) -> str:
        """What all frames' inversions depend on."""
        job = self._job
        look = json.loads(job.shot.to_json())["look"]
        facts = {
            "version": __version__, "look": {key: value for key, value in look.items() if key not in CHANGING},
            "weights": job.weights, "text": inversion_text(job.shot), "precision": self._precision,
            "timesteps": [step.timestep for step in self._steps], "sampled": self._sampled, "seen": _seen(job),
        }  # fmt: skip
        return _short(facts)

    def _path(self, frame: int) -> Path:
        """The file of a frame; one whose plate or control image was written again has another one."""
        sources = [reader.source(frame) for reader in (self._job.plate, *self._job.controls.values())]
        facts = [[str(source), source.stat().st_size, source.stat().st_mtime_ns] for source in sources]
        return self.folder / f"{frame}.{_short([facts, self._groups[frame]])}.npy"

    def _save(self, path: Path, states: Tensor) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda file: np.save(file, states.numpy()))
        except OSError as error:
            raise refused(path, error) from error


def _groups(windows: Sequence[Window], size: int) -> Iterator[tuple[int, ...]]:
    """The keyframes of each window, at most so many at once; its anchors are those of earlier ones."""
    for window in windows:
        yield from (window.keys[start : start + size] for start in range(0, len(window.keys), size))


def _as_reference(shot: Shot) -> bool:
    return shot.coherence is not None and shot.coherence.compat is Compat.REFERENCE


def _seen(job: Job) -> list[object]:
    """What decides, beside the file of a frame, what the engine sees of it."""
    working, showing = job.working, job.showing
    deep = any(control.kind is ControlKind.DEPTH for control in job.shot.look.controls or ())
    return [
        job.plate.window, working.region, working.scaled, working.padded, job.tiles, str(job.space),
        configuration_facts(),
        showing.method.value, showing.rendering.value, job.shot.delivery.grain is not None,
        job.frames if deep else (),  # all of them set the scale of depth
    ]  # fmt: skip


def _short(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:DIGITS]
