# SPDX-License-Identifier: Apache-2.0
"""From a stylised image at the working size to the frame that is delivered: the plate's size, colour and kept parts."""
from __future__ import annotations

from torch import Tensor

from fresco_backend.files.canvas import with_part
from fresco_backend.files.frames import Frame
from fresco_backend.pixels.color import from_engine
from fresco_backend.pixels.detail import with_plate_detail
from fresco_backend.pixels.grain import put_back
from fresco_backend.pixels.mattes import composite
from fresco_backend.pixels.upscaler import enlarged
from fresco_backend.render.ingest import Ingested
from fresco_backend.render.job import Job
from fresco_protocol.shot import Upsampling


def finished(job: Job, number: int, image: Tensor, plate: Frame, ingested: Ingested) -> Frame:
    """The stylised frame in the plate's size and colour space; where the matte keeps the plate, the plate.

    image: (3, H, W) in [-1, 1] at the working size. plate: the frame of that number, on its canvas. ingested: what the
    engine saw of it.
    """
    delivery, region = job.shot.delivery, job.working.region
    painted = _enlarged(job, image, ingested)
    stylised = from_engine(painted, ingested.clean, job.space, job.showing, ingested.seen)
    if delivery.grain is not None:
        stylised = put_back(stylised, ingested.plate, ingested.clean, job.space, delivery.grain, number)
    if job.matte is not None:
        matte = job.matte_at(number)[region.y : region.y + region.height, region.x : region.x + region.width]
        stylised = composite(stylised, ingested.plate, matte)
    return with_part(plate, stylised, region)


def _enlarged(job: Job, image: Tensor, ingested: Ingested) -> Tensor:
    """The image at the plate's resolution, (3, H, W) of the region."""
    small = image[None].float().cpu()
    if job.shot.delivery.upscaler is not None:
        return enlarged(job.shot.delivery.upscaler, job.working.without_padding(small), job.working.region.size)[0]
    if job.shot.delivery.upsampling is Upsampling.BICUBIC:
        return job.working.to_region(small)[0]
    return with_plate_detail(job.working.without_padding(small), ingested.seen[None])[0]
