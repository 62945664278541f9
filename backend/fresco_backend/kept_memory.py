# SPDX-License-Identifier: Apache-2.0
"""Memory that is kept though nothing uses it any more: bounded, and given back between windows.

Without this a long clip takes more from window to window on a CPU, though nothing of a window outlives it:
- oneDNN, which torch computes with, keeps the last 1,024 kernels that it prepared, each for one shape. Every window
  has another number of shared tokens, and thus other shapes.
- The C library of Linux keeps freed blocks for later ones of the same size, which windows of other sizes do not have.
"""

from __future__ import annotations

import ctypes
import os
import sys

KERNELS = 224
"""What a window of Stable Diffusion 1.5 needs, 214, and three times what one of the embedded model does. With fewer
some are prepared again in every step: with 80, Stable Diffusion 1.5 took 3 % more time, and 100 MiB more."""

_CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"  # read by oneDNN when it prepares its first kernel


def bound_kernels() -> None:
    """Let oneDNN keep no more than KERNELS, if nobody has said otherwise; before torch computes anything."""
    os.environ.setdefault(_CAPACITY, str(KERNELS))


def give_back() -> None:
    """Give freed memory back to the system, where the C library can: glibc."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
