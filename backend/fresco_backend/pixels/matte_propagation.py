# SPDX-License-Identifier: Apache-2.0
"""Mattes for frames that have none, from those that have one, along the motion of the plate, with a confidence."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fresco_backend.engine.flow import inconsistent, resize_flow, warp
from fresco_backend.files.deliveries import refused
from fresco_backend.guides import motion

_Given = tuple[int, Tensor]  # a frame and its matte

UNLIKE = 0.2  # of the range [-1, 1]: a traced pixel that differs by this much is believed by a third
LEAST = 0.02  # of confidence, so that a frame that nothing is sure of still gets the nearest matte


class Propagated(NamedTuple):
    """matte: (H, W) in [0, 1]. confidence: mean over the matte and a margin around it, in [0, 1]."""

    matte: Tensor
    confidence: float


class _Traced(NamedTuple):
    """Where a frame's pixels were in the one that has a matte: displacement (1, 2, h, w), confidence (1, 1, h, w)."""

    place: Tensor
    confidence: Tensor


def propagated(numbers: Sequence[int], given: Sequence[int], image: Callable[[int], Tensor],
               matte: Callable[[int], Tensor], folder: Path | None = None) -> Iterator[tuple[int, Propagated]]:
    """The mattes of the frames without one, interval by interval, in whatever order they are traced.

    numbers: of the plate, ascending. given: those of them that have a matte, at least one. image: (3, h, w) in [-1, 1]
    of a frame. matte: (H, W) of a given one. Between two given mattes each frame mixes both, by nearness and by
    confidence: where the flow there and back does not return, what was traced is not believed, and the less the colour
    has stayed, the less. Memory is that of a few frames, however long the interval: what waits lies in
    `folder` meanwhile, None is the system's for such files. Raises DiskFull, OutputDenied.
    """
    for frames, before, after in _intervals(numbers, given):
        if before is not None and after is not None:
            yield from _between(frames, (before, matte(before)), (after, matte(after)), image, folder)
            continue
        key, others = (before, frames) if before is not None else (after, frames[::-1])
        assert key is not None, "an interval has an end that is given"
        only = matte(key)
        for number, traced in _trace([key, *others], image):
            yield number, _mixed([(only, traced, 1.0)])


def _between(frames: Sequence[int], before: _Given, after: _Given, image: Callable[[int], Tensor],
             folder: Path | None) -> Iterator[tuple[int, Propagated]]:
    """Both ways through an interval meet at every frame: what the way back finds waits on the disk."""
    with _shelf(folder) as shelf:
        for number, traced in _trace([after[0], *reversed(frames)], image):
            _shelve(Path(shelf, f"{number}.npy"), traced)
        for place, (number, left) in enumerate(_trace([before[0], *frames], image), 1):
            share = place / (len(frames) + 1)
            right = _shelved(Path(shelf, f"{number}.npy"))
            yield number, _mixed([(before[1], left, 1 - share), (after[1], right, share)])


def _shelf(folder: Path | None) -> TemporaryDirectory[str]:
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        return TemporaryDirectory(prefix="matte-", dir=folder)
    except OSError as error:
        raise refused(folder or Path(error.filename or "TMPDIR"), error) from error


def _shelve(path: Path, traced: _Traced) -> None:
    try:
        np.save(path, torch.cat(traced, dim=1).numpy())
    except OSError as error:
        raise refused(path, error) from error


def _shelved(path: Path) -> _Traced:
    whole = torch.from_numpy(np.load(path))
    path.unlink()
    return _Traced(whole[:, :2], whole[:, 2:])


def _intervals(numbers: Sequence[int], given: Sequence[int]) -> Iterator[tuple[list[int], int | None, int | None]]:
    """Frames without a matte that stand together, and the given ones before and after them."""
    known = sorted(given)
    ends: list[int | None] = [None, *known, None]
    for before, after in pairwise(ends):
        frames = [number for number in numbers if (before is None or number > before)
                  and (after is None or number < after)]
        if frames:
            yield frames, before, after


def _trace(frames: Sequence[int], image: Callable[[int], Tensor]) -> Iterator[tuple[int, _Traced]]:
    """Follow the pixels of each frame back to the first one."""
    first = last = image(frames[0])[None]
    place, returns = torch.zeros_like(last[:, :2]), torch.ones_like(last[:, :1])
    for number in frames[1:]:
        here = image(number)[None]
        back, forth = motion.estimate(here, last)
        lost, _ = inconsistent(back, forth)
        place = back + _looked_up(place, back)
        returns = (1 - lost[:, None]) * warp(returns, back)
        unlike = (here - warp(first, place)).abs().mean(dim=1, keepdim=True)
        last = here
        yield number, _Traced(place, returns * torch.exp(-unlike / UNLIKE))


def _looked_up(values: Tensor, flow: Tensor) -> Tensor:
    """Values at p + flow(p); beyond the edge those of the edge."""
    inside = warp(torch.ones_like(values[:, :1]), flow)
    return torch.where(inside > 0.5, warp(values, flow) / inside.clamp(min=0.5), values)


def _mixed(sides: Sequence[tuple[Tensor, _Traced, float]]) -> Propagated:
    found, weights = [], []
    for matte, traced, weight in sides:
        height, width = matte.shape
        place = resize_flow(traced.place, height, width)
        sure = F.interpolate(traced.confidence, (height, width), mode="bilinear", align_corners=False)
        found.append(warp(matte[None, None], place)[0, 0])
        weights.append(weight * sure[0, 0].clamp(min=LEAST))
    total = sum(weights[1:], start=weights[0])
    matte = sum((one * weight for one, weight in zip(found, weights, strict=True)), torch.zeros_like(total)) / total
    return Propagated(matte.clamp(0, 1), _confidence(matte, total, sum(weight for *_, weight in sides)))


def _confidence(matte: Tensor, weights: Tensor, whole: float) -> float:
    """Mean certainty over the matte and a margin around it, where its edge is decided."""
    reach = max(matte.shape) // 64 * 2 + 3
    near = F.max_pool2d((matte[None, None] > 0.02).float(), reach, stride=1, padding=reach // 2)[0, 0]
    return float((weights * near).sum() / (near.sum().clamp(min=1) * whole)) if near.any() else 0.0
