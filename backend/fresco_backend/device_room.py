# SPDX-License-Identifier: Apache-2.0
"""Whether a model fits on its device, asked before it is loaded: a farm's own counting of memory is not enforced."""

from __future__ import annotations

import torch

from fresco_backend import estimate
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
