# SPDX-License-Identifier: Apache-2.0
"""The stages into which a farm cuts one shot; each is a command that may run again, anywhere that sees the disk."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from fresco_protocol.errors import Busy, PartialDelivery

if TYPE_CHECKING:
    from fresco_backend.render.job import Job


class FarmStage(Enum):
    """One stage of a shot; a render without one runs all of them."""

    KEYFRAMES = "keyframes"  # denoise the windows, in order: the one stage that needs a model and a device
    IN_BETWEENS = "in-betweens"  # deliver frames from the keyframes; as many processes as there are frames may do it
    VERIFY = "verify"  # decode every frame; then the movie and the record, and scratch is removed


def require_frames(job: Job, delivered: Collection[int]) -> None:
    """Raise PartialDelivery unless every frame that is wanted of a job is delivered."""
    from fresco_backend.files.sequences import frames_text  # not above: OpenImageIO, which `--help` shall not wait for

    missing = [frame for frame in job.selected if frame not in delivered]
    if missing:
        names = frames_text(missing)
        raise PartialDelivery(f"{len(missing)} of {len(job.selected)} frames are not delivered: {names}",
                              where=job.shot.delivery.sequence, remedy=f"Render them: --frames={names}")


def require_keyframes(job: Job, missing: Sequence[int] = ()) -> None:
    """Raise Busy when keyframes are missing (or their choice is) in a run that only makes in-betweens of them."""
    if missing or (job.strength > 0 and job.scratch.keyframes is None):
        raise Busy("keyframes of these frames are not rendered yet", where=job.scratch.folder,
                   remedy="Run --stage keyframes first, on a disk that this machine sees.")
