# SPDX-License-Identifier: Apache-2.0
"""The devices of this machine, and the precision in which networks run on each."""

from __future__ import annotations

import torch

from fresco_backend import settings
from fresco_protocol.errors import UsageError


def devices() -> list[str]:
    """The devices of this machine, the best one first."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def choose_device(name: str | None = None) -> torch.device:
    """The device of that name; for "auto" CUDA, else MPS, else the CPU. None asks the environment (FRESCO_DEVICE).

    Raises UsageError, which lists what there is, when the machine has no such device.
    """
    name = name or settings.device_name()
    present = devices()
    if name == "auto":
        return torch.device(present[0])
    if name not in present and not (name == "cuda" and present[0].startswith("cuda")):
        raise UsageError(f'this machine has no device "{name}"', remedy=f"It has: auto, {', '.join(present)}.")
    return torch.device(name)


def choose_dtype(device: torch.device) -> torch.dtype:
    """float16 on GPUs; on a CPU bfloat16 where it has instructions for it (some four times faster), else float32."""
    if device.type in ("cuda", "mps"):
        return torch.float16
    able = torch.cpu.get_capabilities()
    fast = any(able.get(key, False) for key in ("avx512_bf16", "amx_bf16"))
    return torch.bfloat16 if fast else torch.float32
