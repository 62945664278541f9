# SPDX-License-Identifier: Apache-2.0
"""Memory that is kept though nothing uses it any more: bounded, and given back between windows.

Without this a long clip takes more from window to window on a CPU, though nothing of a window outlives it:
- oneDNN, which torch computes with, keeps the last 1,024 kernels that it prepared, each for one shape. Every window
  has another number of shared tokens, and thus other shapes.
- ideep, between the two, keeps the last 1,024 products of matrices of a kind by their shapes, some 300 KB each in
  bfloat16. To find one there is no faster than to set it up again.
- The C library of Linux keeps freed blocks for later ones of the same size, which windows of other sizes do not have.
"""

from __future__ import annotations

import ctypes
import os
import sys

KERNELS = 224
"""What a window of Stable Diffusion 1.5 needs, 214, and three times what one of the embedded model does. With fewer
some are prepared again in every step: with 80, Stable Diffusion 1.5 took 3 % more time, and 100 MiB more."""

PRODUCTS = 64
"""Of each kind. Fewer cost no time: for 60 shapes in turn, two products took 148 to 150 microseconds with 16, 141 to
147 with 64, and 155 to 159 with 1,024."""

_CAPACITIES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": KERNELS, "LRU_CACHE_CAPACITY": PRODUCTS}  # read once


def bound_kernels() -> None:
    """Let oneDNN keep no more than KERNELS, and ideep PRODUCTS, if nobody has said otherwise; before torch computes."""
    for variable, number in _CAPACITIES.items():
        os.environ.setdefault(variable, str(number))


def give_back() -> None:
    """Give freed memory back to the system, where the C library can: glibc."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
