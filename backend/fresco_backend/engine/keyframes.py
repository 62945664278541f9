# SPDX-License-Identifier: Apache-2.0
"""Which frames are denoised, and which of them together: keyframe choice, windows with anchors, rotating groups.

Integers only. Frames are counted from 0 here, whatever the plate's own numbers are.
Source: Yang et al., "FRESCO: Spatial-Temporal Correspondence for Zero-Shot Video Translation", CVPR 2024, section 4.4
and algorithm 1; rotating groups: arXiv 2512.03905.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# The paper carries the clip's first keyframe and the previous window's last one into every later window.
ANCHORS = 2
# A last window with fewer keys of its own has too little to agree on, so keys move into it.
FEWEST_KEYS = 3
_TAKEN = -1.0
# A cut changes at least so much of the picture, and so many times more than the frames around it. In twelve real clips
# the four cuts had 0.25 and 15 or more, and nothing else both; of these clips joined in pairs all 66 cuts are found.
_CUT_ERROR, _CUT_RATIO = 0.04, 6.0


@dataclass(frozen=True, kw_only=True)
class Window:
    """Keyframes that are denoised together.

    anchors: frames carried on from earlier windows with their latents: none in the first window, else the first
    keyframe of all and the last one of the previous window (one frame where these are the same).
    keys: the frames that this window renders. All ascending, frame indices of the clip.
    """

    anchors: tuple[int, ...]
    keys: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.keys:
            raise ValueError("a window needs at least one keyframe of its own")
        if len(self.anchors) > ANCHORS:
            raise ValueError(f"a window has at most {ANCHORS} anchors, not {len(self.anchors)}")
        if list(self.frames) != sorted(set(self.frames)):
            raise ValueError(f"the frames of a window must ascend, anchors first: {self.frames}")

    @property
    def frames(self) -> tuple[int, ...]:
        """All frames that are denoised together, anchors first."""
        return self.anchors + self.keys


def regular_keys(count: int, interval: int, *, cover_last: bool = True) -> tuple[int, ...]:
    """Give every interval-th frame of a clip of count frames, and the last frame.

    cover_last=False leaves the frames after the last multiple without a keyframe, as the reference does (which then
    drops them from its output); it serves comparison only. Raises ValueError for a count or interval below 1.
    """
    _check_positive(count=count, interval=interval)
    keys = tuple(range(0, count, interval))
    return keys if keys[-1] == count - 1 or not cover_last else (*keys, count - 1)


def adaptive_keys(errors: Sequence[float], smallest: int, largest: int) -> tuple[int, ...]:
    """Give keyframes where the picture changes most, at least `smallest` frames apart (algorithm 1 of the paper).

    errors: for each frame its difference to the frame before, 0 or more; errors[0] is not used.
    Keys are added while a gap exceeds `largest` and a candidate is left, so a gap may exceed it when `smallest` leaves
    no room. The first and the last frame are always keys. The window that a key closes to others is
    [key - smallest, key + smallest), the reference's; the paper's is open on the left. Raises ValueError when
    there are no frames or not 1 <= smallest <= largest.
    """
    _check_positive(count=len(errors), smallest=smallest)
    if smallest > largest:
        raise ValueError(f"the smallest interval, {smallest}, exceeds the largest, {largest}")
    open_errors = list(errors)
    _take(open_errors, 0, smallest)
    _take(open_errors, len(errors) - smallest, len(errors))
    keys = sorted({0, len(errors) - 1})
    while _largest_gap(keys) > largest:
        peak = max(range(len(open_errors)), key=open_errors.__getitem__)
        if open_errors[peak] == _TAKEN:
            break
        keys = sorted([*keys, peak])
        _take(open_errors, peak - smallest, peak + smallest)
    return tuple(keys)


def cuts(errors: Sequence[float]) -> tuple[int, ...]:
    """Give the first frames of new scenes: those that differ from the frame before far more than their neighbours do.

    errors: as of `adaptive_keys`, in units of [-1, 1] squared. A flash is no cut, for it changes two frames in a row.
    """
    def is_cut(frame: int) -> bool:
        around = max((errors[near] for near in (frame - 1, frame + 1) if 0 < near < len(errors)), default=0.0)
        return errors[frame] >= max(_CUT_ERROR, _CUT_RATIO * around)

    return tuple(frame for frame in range(1, len(errors)) if is_cut(frame))


def split_windows(keys: Sequence[int], size: int, *, fewest: int | None = None) -> tuple[Window, ...]:
    """Give the windows of a clip: at most `size` frames each, its anchors counted.

    keys: ascending frame indices. size: 3 or more, or as many as there are keys. A last window with fewer than
    `fewest` keys of its own takes some from the window before. fewest is 3, or what fits beside the anchors when size
    is 3 or 4; the reference has 3 always, and so exceeds such sizes. One window holds all keys when they fit:
    any number works, 1 included. Raises ValueError without keys or for a size below 3 that does not hold all keys.
    """
    chunks = _chunks(keys, size)
    if len(chunks) > 1:
        _balance(chunks, min(FEWEST_KEYS, size - ANCHORS) if fewest is None else fewest)
    return _with_anchors(chunks)


def halved(window: Window, *, anchored: bool = True) -> tuple[Window, Window] | None:
    """Give two windows, one after the other, that hold fewer frames each; None where anchors would make up for that.

    They are denoised as any two windows: the second one is anchored in the first one's last key. anchored: False for
    frames that are each for itself.
    """
    if not anchored:
        half, rest = window.keys[: (len(window.keys) + 1) // 2], window.keys[(len(window.keys) + 1) // 2 :]
        return (Window(anchors=(), keys=half), Window(anchors=(), keys=rest)) if rest else None
    middle = (len(window.frames) + ANCHORS) // 2 - len(window.anchors)
    if middle >= len(window.keys) or len(window.frames) < FEWEST_KEYS + 1:
        return None
    first, second = window.keys[:middle], window.keys[middle:]
    beginning = window.frames[0]
    anchors = (beginning,) if first[-1] == beginning else (beginning, first[-1])
    return Window(anchors=window.anchors, keys=first), Window(anchors=anchors, keys=second)


def rotating_groups(count: int, radix: int) -> tuple[tuple[int, ...], ...]:
    """Give the key groups of the rotating mode: group g holds frame 0 and frames g, g + radix, g + 2 radix ...

    Denoising step i uses group i mod radix, so every frame is a keyframe once in radix steps. There are never more
    groups than frames after the first, and always one. Raises ValueError for a count or radix below 1.
    """
    _check_positive(count=count, radix=radix)
    starts = range(1, min(radix, count - 1) + 1)
    return tuple((0, *range(start, count, radix)) for start in starts) or ((0,),)


def _chunks(keys: Sequence[int], size: int) -> list[list[int]]:
    """Give the keys cut so that all chunks but the first leave room for the anchors."""
    if not keys:
        raise ValueError("there are no keyframes to put into windows")
    if len(keys) <= size:
        return [list(keys)]
    step = size - ANCHORS
    if step < 1:
        raise ValueError(f"a window of {size} frames has no room for {ANCHORS} anchors and a key; take 3 or more")
    return [list(keys[:size])] + [list(keys[start : start + step]) for start in range(size, len(keys), step)]


def _balance(chunks: list[list[int]], fewest: int) -> None:
    """Move keys into the last chunk until it holds enough or the chunk before is used up, in place."""
    while len(chunks[-1]) < fewest and chunks[-2]:
        chunks[-1].insert(0, chunks[-2].pop())
    if not chunks[-2]:
        del chunks[-2]


def _with_anchors(chunks: Sequence[Sequence[int]]) -> tuple[Window, ...]:
    first = chunks[0][0]
    anchors = [(), *((first, chunk[-1]) if chunk[-1] != first else (first,) for chunk in chunks[:-1])]
    return tuple(Window(anchors=held, keys=tuple(chunk)) for held, chunk in zip(anchors, chunks, strict=True))


def _take(errors: list[float], start: int, stop: int) -> None:
    """Close the frames start..stop-1 to further keys, in place; what lies outside the clip is ignored."""
    for frame in range(max(start, 0), min(stop, len(errors))):
        errors[frame] = _TAKEN


def _largest_gap(keys: Sequence[int]) -> int:
    return max((after - before for before, after in pairwise(keys)), default=0)


def _check_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be 1 or more, not {number}")
