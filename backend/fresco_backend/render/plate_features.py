# SPDX-License-Identifier: Apache-2.0
"""What edits take of their plate, on disk: computed for the first prompt, read for every later one of the same windows.

One safetensors file for each window and step at which something is injected, float16, beside the inverted frames. It is
read as it was computed, so that what is kept decides no pixel. A guided layer of n tokens and c channels takes 2 n c
bytes for a keyframe and step: by the networks' shapes, for a keyframe in 20 steps, 15 MB with the embedded model at
384x576, and 130 MB with Stable Diffusion 1.5 at 512x512. So there is a limit for all windows of a plate together; what
goes beyond it is computed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from fresco_backend.engine.invert import PlateFeatures
from fresco_backend.render.inversions import Inversions
from fresco_backend.render.job import Job
from fresco_backend.render.scratch import write_atomically
from fresco_protocol.shot import Task

LIMIT = 4 * 2**30
"""Bytes on disk of one plate's features at most."""

CONVOLUTION = "convolution"


@dataclass(frozen=True, kw_only=True)
class KeptFeatures:
    """The plate's features of one window; an `invert.FeatureStore`. folder: of the window; those beside it are others'.

    A disk that is full keeps less: nothing is lost but time.
    """

    folder: Path
    limit: int = LIMIT

    @classmethod
    def of(cls, job: Job, inversions: Inversions, frames: Sequence[int], precision: torch.dtype) -> KeptFeatures | None:
        """What is kept of a window of a job; None where an edit takes nothing that could be.

        Propagated features and tiles are computed again: see `predictors._ByPivots`.
        """
        shot = job.shot
        if shot.task is not Task.EDIT or shot.keyframing.synthesis.propagates or len(job.tiles) > 1:
            return None
        facts = {
            "frames": [path.name for path in inversions.files(frames)], "precision": str(precision),
            "coherence": json.loads(shot.to_json())["coherence"],
            "injection": [shot.editing.attention, shot.editing.convolution],
            "caption": shot.editing.caption,  # the authors' program inverts without it, and has it in this branch
        }  # fmt: skip
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        return cls(folder=inversions.folder / "features" / digest)

    def load(self, timestep: int, device: torch.device) -> PlateFeatures | None:
        """See `invert.FeatureStore`."""
        path = self._path(timestep)
        if not path.is_file():
            return None
        found = load_file(path, device=str(device))
        convolution = found.pop(CONVOLUTION, None)
        return PlateFeatures(
            tokens=tuple(found[str(place)] for place in range(len(found))) or None, convolution=convolution)

    def save(self, timestep: int, features: PlateFeatures) -> None:
        """See `invert.FeatureStore`."""
        named = {str(place): tokens for place, tokens in enumerate(features.tokens or ())}
        if features.convolution is not None:
            named[CONVOLUTION] = features.convolution
        size = sum(tensor.nbytes for tensor in named.values())
        if self._taken() + size > self.limit:
            return
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            written = save({name: tensor.cpu().contiguous() for name, tensor in named.items()})
            write_atomically(self._path(timestep), lambda file: file.write(written))

    def _taken(self) -> int:
        """Bytes of all windows of the plate."""
        return sum(path.stat().st_size for path in self.folder.parent.glob("*/*.safetensors"))

    def _path(self, timestep: int) -> Path:
        return self.folder / f"{timestep}.safetensors"
