# SPDX-License-Identifier: Apache-2.0
"""Room on the device: whether a model fits, asked before it is loaded, and smaller windows where memory ran out.

A farm's own counting of memory is not enforced, and what a step takes is known to a factor of two only.
"""

from __future__ import annotations

import gc
import traceback

import torch

from fresco_backend import estimate
from fresco_backend.engine.keyframes import Window, halved
from fresco_backend.failure import is_out_of_memory
from fresco_backend.job import Job
from fresco_backend.plan_text import bytes_text
from fresco_backend.weights import choose_device, choose_dtype
from fresco_protocol.errors import DeviceMemory


def require_room(job: Job) -> None:
    """Raise DeviceMemory when the networks alone, without a frame, are larger than what is free on a GPU."""
    device = choose_device()
    if device.type != "cuda":
        return
    needed, (free, total) = estimate.loaded(job, choose_dtype(device)), torch.cuda.mem_get_info(device)
    if needed > free:
        there = f"{bytes_text(free)} of {bytes_text(total)} are free"
        raise DeviceMemory(f"the model takes {bytes_text(needed)}, and {there}", where=device,
                           remedy="Close what else uses the GPU, or take a node with more memory")


def halves_for_memory(window: Window, error: BaseException) -> tuple[Window, Window]:
    """Two windows in place of one in which memory ran out, with the room that it took given back.

    Raises the error itself where it is another one, or where no smaller window is left.
    """
    halves = halved(window) if is_out_of_memory(error) else None
    if halves is None:
        raise error
    traceback.clear_frames(error.__traceback__)  # which hold the tensors of the step
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return halves
