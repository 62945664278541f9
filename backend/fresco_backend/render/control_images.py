# SPDX-License-Identifier: Apache-2.0
"""The control images of one window: drawn by a detector, estimated by a network, or read from an artist's sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fresco_backend.guides import controls
from fresco_backend.models.model_files import read_index
from fresco_backend.models.model_store import detector_name
from fresco_backend.models.weights import Models
from fresco_backend.pixels.color import plate_space, to_engine
from fresco_backend.render.job import Job
from fresco_protocol.shot import Control, ControlKind


def control_images(
    job: Job, models: Models, control: Control, images: Tensor, frames: Sequence[int], sample: Callable[[], Tensor]
) -> Tensor:
    """What the ControlNet of a control sees of a window, float32 (N, 3, H, W) in [0, 1].

    images: the frames at the working size, (N, 3, H, W) in [-1, 1]. sample: gives frames spread over the whole shot.
    """
    if control.kind is ControlKind.SEQUENCE:
        return _artists(job, control, frames)
    if control.kind is ControlKind.DEPTH:
        detector = models.detectors[str(detector_name(control))]
        return detector.draw(images.to(models.device), job.identity, lambda: sample().to(models.device))
    if control.kind is ControlKind.SOFT_EDGE and not _draws_three_scales(job, control):
        return controls.pencil(images)
    return controls.detect(control.kind, images)


def _artists(job: Job, control: Control, frames: Sequence[int]) -> Tensor:
    reader = job.controls[control]
    drawn = [to_engine(frame, plate_space(frame)) for frame in map(reader.read, frames)]
    return torch.cat([job.working.to_working(image[None]) for image in drawn]) / 2 + 0.5


def _draws_three_scales(job: Job, control: Control) -> bool:
    """Whether the ControlNet is one of ours, whose soft edges have a channel for each scale."""
    place = job.inventory.place
    return control.model is None and place.is_dir() and "_fresco_controls" in read_index(place)
