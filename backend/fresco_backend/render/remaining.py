# SPDX-License-Identifier: Apache-2.0
"""What of a shot is still to do: which frames to deliver, and which windows to denoise before that. Integers only."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fresco_backend.engine.keyframes import Window

Has = Callable[[int], bool]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What is done in one go. windows: places of those to denoise first. frames: to deliver then. Both ascending."""

    windows: tuple[int, ...]
    frames: tuple[int, ...]


def batches(frames: Sequence[int], windows: Sequence[Window], *, has_key: Has, has_anchors: Has) -> tuple[Batch, ...]:
    """The work in order; each batch ends with the last keyframe of a window, so that frames come as early as they can.

    frames: those still to deliver, ascending. has_key: whether the stylised keyframe of a number is kept. has_anchors:
    whether those are that the window at a place leaves to the next one. No windows: nothing needs to be denoised.
    """
    if not windows:
        return (Batch(windows=(), frames=tuple(frames)),) if frames else ()
    keyframes = [key for window in windows for key in window.keys]
    place_of = {key: place for place, window in enumerate(windows) for key in window.keys}
    found: list[Batch] = []
    planned: set[int] = set()
    for members in _by_window(frames, windows):
        keys = {key for frame in members for key in neighbours(frame, keyframes) if not has_key(key)}
        needed = _with_anchors({place_of[key] for key in keys}, windows, has_anchors) - planned
        found.append(Batch(windows=tuple(sorted(needed)), frames=tuple(members)))
        planned |= needed
    return tuple(found)


def neighbours(frame: int, keyframes: Sequence[int]) -> tuple[int, ...]:
    """The keyframes that a frame is made from: itself if it is one, else those on both sides, or the only one there is.

    keyframes: ascending, at least one.
    """
    place = bisect_left(keyframes, frame)
    if place < len(keyframes) and keyframes[place] == frame:
        return (frame,)
    return tuple(keyframes[max(place - 1, 0) : place + 1])


def _by_window(frames: Sequence[int], windows: Sequence[Window]) -> Iterator[Sequence[int]]:
    """The frames up to each window's last keyframe; the last window also has those after it. None is empty."""
    ends = [*(window.keys[-1] for window in windows[:-1]), max(frames, default=0)]
    for end in ends:
        members = [frame for frame in frames if frame <= end]
        frames = frames[len(members) :]
        if members:
            yield members


def _with_anchors(places: set[int], windows: Sequence[Window], has_anchors: Has) -> set[int]:
    """The places, and those of the windows before them whose anchors are needed and not kept."""
    found = set(places)
    for place in places:
        while windows[place].anchors and not has_anchors(place - 1):
            place -= 1
            found.add(place)
    return found
