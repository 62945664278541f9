# SPDX-License-Identifier: Apache-2.0
"""Room on the device: whether a model fits, asked before it is loaded; windows that fit, and smaller ones where not.

What a step takes is known roughly, and others take memory meanwhile: a plan does not spare the case that it runs out.
"""

from __future__ import annotations

import gc
import traceback
from dataclasses import dataclass
from typing import Any

import torch

from fresco_backend.engine.keyframes import Window, halved
from fresco_backend.failure import is_out_of_memory
from fresco_backend.models.device import choose_device, choose_dtype
from fresco_backend.render import estimate
from fresco_backend.render.free_memory import free_memory
from fresco_backend.render.job import Job
from fresco_backend.terminal.plan_text import bytes_text
from fresco_protocol.errors import DeviceMemory

SPARED = 0.1
"""Part of the free memory that a plan leaves alone."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What a job takes at once. dtype: of its U-Net. free: bytes beside its networks; None, unknown, limits nothing."""

    job: Job
    dtype: torch.dtype
    free: int | None

    @classmethod
    def of(cls, job: Job, device: torch.device, dtype: torch.dtype) -> MemoryPlan:
        """The plan by what a device has free now, when the networks are loaded."""
        return cls(job=job, dtype=dtype, free=free_memory(device))

    def parts(self, window: Window) -> tuple[Window, ...]:
        """The window itself where there is room for it, else two halves, each again likewise; never a larger one."""
        halves = _halves(self.job, window)
        if halves is None or self._fits(self._step(window)) or self._step(halves[0]) >= self._step(window):
            return (window,)
        return tuple(part for half in halves for part in self.parts(half))

    def pictures(self, vae: Any, most: int) -> int:
        """How many pictures an autoencoder takes at once, 1 to `most`."""
        each = estimate.picture_memory(self.job, vae)
        return next((count for count in range(most, 1, -1) if self._fits(count * each)), 1)

    def told(self, window: Window, parts: tuple[Window, ...]) -> str:
        """Why a window is divided, in words."""
        largest = max(len(part.frames) for part in parts)
        needed = bytes_text(self._step(window))
        return (f"{bytes_text(self.free or 0)} of memory are free, and a window of {len(window.frames)} frames takes "
                f"about {needed}; it is denoised with {largest} at most, which is a little less steady")

    def _step(self, window: Window) -> int:
        return estimate.window_memory(self.job, len(window.frames), self.dtype)

    def _fits(self, needed: int) -> bool:
        return self.free is None or needed <= self.free * (1 - SPARED)


def require_room(job: Job) -> None:
    """Raise DeviceMemory when the networks alone, without a frame, are larger than what is free on a GPU."""
    device = choose_device()
    if device.type != "cuda":
        return
    needed, (free, total) = estimate.loaded(job, choose_dtype(device)), torch.cuda.mem_get_info(device)
    if needed > free:
        there = f"{bytes_text(free)} of {bytes_text(total)} are free"
        raise DeviceMemory(f"the model takes {bytes_text(needed)}, and {there}", where=device,
                           remedy="Close what else uses the GPU, or take a node with more memory.")


def halves_for_memory(job: Job, window: Window, error: BaseException) -> tuple[Window, Window]:
    """Two windows in place of one in which memory ran out, with the room that it took given back.

    Raises the error itself where it is another one, or where no smaller window is left.
    """
    halves = _halves(job, window) if is_out_of_memory(error) else None
    if halves is None:
        raise error
    _clear(error)
    return halves


def fewer_for_memory(frames: tuple[int, ...], error: BaseException) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two parts in place of frames that are each for itself, likewise."""
    if len(frames) < 2 or not is_out_of_memory(error):
        raise error
    _clear(error)
    middle = (len(frames) + 1) // 2
    return frames[:middle], frames[middle:]


def _halves(job: Job, window: Window) -> tuple[Window, Window] | None:
    """Frame by frame, without constraints, nothing ties a half to the other."""
    return halved(window, anchored=job.shot.coherence is not None)


def _clear(error: BaseException) -> None:
    traceback.clear_frames(error.__traceback__)  # which hold the tensors of the step
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
