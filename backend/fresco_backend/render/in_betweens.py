# SPDX-License-Identifier: Apache-2.0
"""The frames of a job from its stylised keyframes and the motion between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from itertools import chain, groupby
from math import prod

import torch
from torch import Tensor

from fresco_backend.engine.long_flow import REACH, FlowPair, LongFlow
from fresco_backend.engine.propagate import StyledKey, propagate
from fresco_backend.files.movies import MovieReader
from fresco_backend.guides import motion
from fresco_backend.render.ahead import side_by_side
from fresco_backend.render.free_memory import free_memory
from fresco_backend.render.job import Job
from fresco_backend.render.remaining import neighbours
from fresco_backend.render.windows import working_image

HELD_PLATES = REACH + 4  # what flow is composed over, the far keyframe, and some to spare

MOST_WORKERS = 4
THREADS_A_WORKER = 4

BYTES_A_PIXEL = 1000
"""What an interval holds of working size: plates, chains of flow, and frames that wait."""

BYTES_A_PLATE_PIXEL = 100
"""What it takes to read a frame of the plate and see it as the engine does: 690 MiB for one of 4K."""


def stylised(
    job: Job, frames: Iterable[int], keyframes: Sequence[int], *, workers: int = 1
) -> Iterator[tuple[int, Tensor]]:
    """The frames with their stylised images (3, H, W) in [-1, 1] at working size, in order.

    frames: ascending; asked for one interval at a time, or as many as there are workers. The stylised keyframes beside
    them must lie in the job's scratch folder. workers: intervals that are worked on at a time, each in a thread of its
    own. What is held does not grow with the clip. A frame does not depend on which others are asked for.
    """
    intervals = (
        _interval(job, list(members), beside)
        for beside, members in groupby(frames, key=lambda frame: neighbours(frame, keyframes))
    )
    if workers == 1:
        yield from chain.from_iterable(intervals)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // workers))
    try:
        with closing(side_by_side(intervals, workers)) as images:
            yield from images
    finally:
        torch.set_num_threads(threads)


def workers_for(job: Job) -> int:
    """How many intervals are worth working on at a time on this machine.

    One for every four threads, which share no more than so much of the work of one frame; as many as fit a quarter of
    the free memory; and one alone where a movie is read, which goes from frame to frame.
    """
    if any(isinstance(reader, MovieReader) for reader in job.readers):
        return 1
    free = free_memory(torch.device("cpu"))
    each = BYTES_A_PIXEL * prod(job.working.padded) + BYTES_A_PLATE_PIXEL * prod(job.plate.size)
    room = MOST_WORKERS if free is None else free // (4 * each)
    return max(1, min(MOST_WORKERS, torch.get_num_threads() // THREADS_A_WORKER, room))


def _interval(job: Job, members: Sequence[int], beside: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """Frames of one interval. beside: the keyframes around it."""

    @lru_cache(maxsize=HELD_PLATES)
    def plate(number: int) -> Tensor:
        return working_image(job, number)

    def estimate(first: int, second: int) -> FlowPair:
        there, back = motion.estimate_finely(plate(first)[None], plate(second)[None])
        return there[0], back[0]

    keys = [StyledKey(frame=key, image=job.scratch.load_key(key)) for key in beside]
    flow = LongFlow(_around(job.frames, beside, members), plate, estimate)
    yield from zip(members, propagate(members, keys, plate, flow), strict=True)


def _around(frames: Sequence[int], beside: Sequence[int], members: Sequence[int]) -> list[int]:
    """All frames of an interval with its keyframes: to the last member where no keyframe follows, and alike before."""
    first, last = min(*beside, *members), max(*beside, *members)
    return [frame for frame in frames if first <= frame <= last]
