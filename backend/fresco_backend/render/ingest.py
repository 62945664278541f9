# SPDX-License-Identifier: Apache-2.0
"""From a frame of the plate to what the engine sees of it: the part that is rendered, without grain, as a picture."""
from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fresco_backend.files.canvas import part
from fresco_backend.files.frames import Frame
from fresco_backend.pixels.color import to_engine
from fresco_backend.pixels.grain import without_grain
from fresco_backend.render.job import Job


@dataclass(frozen=True, kw_only=True, eq=False)
class Ingested:
    """plate: the part of the frame that is rendered. clean: the same without its grain, where the shot asks for that.

    seen: its picture, (3, H, W) in [-1, 1] at the plate's resolution.
    """

    plate: Frame
    clean: Frame
    seen: Tensor


def ingested(job: Job, frame: Frame) -> Ingested:
    """What the engine sees of a frame of the plate, on its canvas. Raises ColorError."""
    delivery = job.shot.delivery
    plate = part(frame, job.working.region)
    clean = plate if delivery.grain is None else without_grain(plate, job.space)
    return Ingested(plate=plate, clean=clean, seen=to_engine(clean, job.space, job.showing))
