# SPDX-License-Identifier: Apache-2.0
"""How much memory a device has to spare: a GPU tells it, a CPU has what the system and the process's group leave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

_UNLIMITED = "max"
_HUGE = 2**60  # what version 1 of control groups says where nothing is limited


def free_memory(device: torch.device, root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take on a device; None where nobody tells.

    What torch keeps of freed memory counts as free. root: of the file system, where a CPU's memory is looked up.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + kept)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return min((room for room in (_available(root), *_group_rooms(root)) if room is not None), default=None)


def _available(root: Path) -> int | None:
    """What Linux could give without swapping."""
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _group_rooms(root: Path) -> Iterator[int | None]:
    """What each control group above this process leaves it: its own, that of its container, that of a farm's task."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base, names = (root / "sys/fs/cgroup", ("memory.max", "memory.current"))
        if controllers == "memory":
            base, names = base / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        below = Path(path.lstrip("/"))
        for group in (below, *below.parents):
            yield _room(base / group, *names)


def _room(group: Path, limit_name: str, usage_name: str) -> int | None:
    limit, usage = _text(group / limit_name).strip(), _text(group / usage_name).strip()
    if not limit or not usage or limit == _UNLIMITED or int(limit) >= _HUGE:
        return None
    # Pages of files that were read are counted as used, and given back as soon as anything else wants them.
    pages = (line.split() for line in _text(group / "memory.stat").splitlines())
    cached = {name: int(value) for name, value in pages if name in ("inactive_file", "total_inactive_file")}
    return max(0, int(limit) - int(usage) + max(cached.values(), default=0))


def _text(path: Path) -> str:
    """What a file says; nothing where it is not there."""
    try:
        return path.read_text()
    except OSError:
        return ""
