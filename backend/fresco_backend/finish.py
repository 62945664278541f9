# SPDX-License-Identifier: Apache-2.0
"""From a stylised image at the working size to the frame that is delivered: the plate's size, colour and kept parts."""
from __future__ import annotations

from torch import Tensor

from fresco_backend.color import from_engine
from fresco_backend.frames import Frame
from fresco_backend.job import Job
from fresco_backend.mattes import composite


def finished(job: Job, number: int, image: Tensor, plate: Frame) -> Frame:
    """The stylised frame in the plate's size and colour space, over the plate where the matte keeps it.

    image: (3, H, W) in [-1, 1] at the working size. plate: the frame of that number, on its canvas.
    """
    painted = job.working.to_plate(image[None])[0]
    stylised = from_engine(painted, plate, job.space, job.shot.delivery.highlights)
    return composite(stylised, plate, job.matte_at(number)) if job.matte else stylised
