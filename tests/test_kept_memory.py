# SPDX-License-Identifier: Apache-2.0
"""What nothing uses any more is bounded, and given back."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fresco_backend.kept_memory import KERNELS, PRODUCTS, bound_kernels, give_back

CAPACITY, OF_IDEEP = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"
BLOCK, BLOCKS = 64 * 2**10, 1600  # 100 MiB, in blocks that the C library keeps for itself

CONVOLVE = """
import torch
from fresco_backend.kept_memory import KERNELS
from fresco_backend.models.device import choose_device, choose_dtype
choose_dtype(choose_device())  # computes, long before a model is loaded
for _ in range(2):
    for side in range(8, 9 + KERNELS):
        torch.nn.functional.conv2d(torch.zeros(2, 32, side, side), torch.zeros(32, 32, 3, 3))
"""

MULTIPLY = """
import ctypes, torch
import fresco_backend

class Count(ctypes.Structure):  # mallinfo2
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

count = ctypes.CDLL(None).mallinfo2
count.restype = Count
torch.set_grad_enabled(False)
layer = torch.nn.Linear(320, 320).bfloat16()
for number in range(500):
    layer(torch.zeros(2, 600 + number, 320, dtype=torch.bfloat16))
    if number in (299, 499):  # oneDNN keeps KERNELS of them
        found = count()
        print(found.uordblks + found.hblkhd)
"""


def resident() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


def test_what_somebody_has_said_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CAPACITY, "7")
    bound_kernels()
    assert os.environ[CAPACITY] == "7"
    for variable, number in ((CAPACITY, KERNELS), (OF_IDEEP, PRODUCTS)):
        monkeypatch.delenv(variable)
        bound_kernels()
        assert os.environ[variable] == str(number)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch computes without oneDNN")
def test_kernels_that_are_too_many_are_prepared_again() -> None:
    """In a process of its own, since oneDNN looks once."""
    surroundings = {**os.environ, "ONEDNN_VERBOSE": "profile_create"}
    surroundings.pop(CAPACITY, None)
    command = [sys.executable, "-c", CONVOLVE]
    said = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=True).stdout
    assert sum("cache_miss" in line and "convolution" in line for line in said.splitlines()) == 2 * (KERNELS + 1)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_products_of_ever_new_shapes_do_not_fill_the_memory() -> None:
    """In a process of its own, since ideep looks once."""
    surroundings = {name: value for name, value in os.environ.items() if name not in (CAPACITY, OF_IDEEP)}
    command = [sys.executable, "-c", MULTIPLY]
    said = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=True).stdout
    early, late = map(int, said.split())
    assert late - early < 10 * 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_goes_back_to_the_system() -> None:
    blocks = [bytes(BLOCK) for _ in range(BLOCKS)]
    held = blocks[-1:]  # nothing below a block that is in use is given back of its own accord
    blocks.clear()
    before = resident()
    give_back()
    assert before - resident() > BLOCK * BLOCKS / 2
    assert len(held[0]) == BLOCK
