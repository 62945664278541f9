# SPDX-License-Identifier: Apache-2.0
"""The frames of a job from its stylised keyframes and the motion between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby

from torch import Tensor

from fresco_backend import motion
from fresco_backend.engine.propagate import StyledKey, propagate
from fresco_backend.job import Job
from fresco_backend.remaining import neighbours
from fresco_backend.windows import working_image

HELD_PLATES = 4  # both keyframes of an interval, the frame, and one to spare


def stylised(job: Job, frames: Iterable[int], keyframes: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """The frames with their stylised images (3, H, W) in [-1, 1] at working size, in order.

    frames: ascending; asked for one interval at a time. The stylised keyframes beside them must lie in the job's
    scratch folder. One frame is worked on at a time.
    """

    @lru_cache(maxsize=HELD_PLATES)
    def plate(number: int) -> Tensor:
        return working_image(job, number)

    def flow(first: int, second: int) -> tuple[Tensor, Tensor]:
        there, back = motion.estimate(plate(first)[None], plate(second)[None])
        return there[0], back[0]

    for beside, interval in groupby(frames, key=lambda frame: neighbours(frame, keyframes)):
        keys = [StyledKey(frame=key, image=job.scratch.load_key(key)) for key in beside]
        members = list(interval)
        yield from zip(members, propagate(members, keys, plate, flow), strict=True)
