# SPDX-License-Identifier: Apache-2.0
"""The frames of a job from its stylised keyframes and the motion between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby

from torch import Tensor

from fresco_backend.engine.long_flow import REACH, FlowPair, LongFlow
from fresco_backend.engine.propagate import StyledKey, propagate
from fresco_backend.guides import motion
from fresco_backend.render.job import Job
from fresco_backend.render.remaining import neighbours
from fresco_backend.render.windows import working_image

HELD_PLATES = REACH + 4  # what flow is composed over, the far keyframe, and some to spare


def stylised(job: Job, frames: Iterable[int], keyframes: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """The frames with their stylised images (3, H, W) in [-1, 1] at working size, in order.

    frames: ascending; asked for one interval at a time. The stylised keyframes beside them must lie in the job's
    scratch folder. One frame is worked on at a time, and what is held does not grow with the clip. A frame does not
    depend on which others are asked for.
    """

    @lru_cache(maxsize=HELD_PLATES)
    def plate(number: int) -> Tensor:
        return working_image(job, number)

    def estimate(first: int, second: int) -> FlowPair:
        there, back = motion.estimate_finely(plate(first)[None], plate(second)[None])
        return there[0], back[0]

    for beside, interval in groupby(frames, key=lambda frame: neighbours(frame, keyframes)):
        keys = [StyledKey(frame=key, image=job.scratch.load_key(key)) for key in beside]
        members = list(interval)
        flow = LongFlow(_around(job.frames, beside, members), plate, estimate)
        yield from zip(members, propagate(members, keys, plate, flow), strict=True)


def _around(frames: Sequence[int], beside: Sequence[int], members: Sequence[int]) -> list[int]:
    """All frames of an interval with its keyframes: to the last member where no keyframe follows, and alike before."""
    first, last = min(*beside, *members), max(*beside, *members)
    return [frame for frame in frames if first <= frame <= last]
