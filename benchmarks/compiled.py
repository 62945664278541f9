# SPDX-License-Identifier: Apache-2.0
"""What torch.compile would gain on this machine's CPU: the embedded model's U-Net, without any part of FRESCO.

    python benchmarks/compiled.py [--frames 4] [--size 512]

Prints seconds of one call as it is and compiled, and how long compiling takes: at first, and for another number of
frames. It needs a C++ compiler (Debian: g++). FRESCO's guidance would split the graph: this is the most that can be
gained.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from fresco_backend.models.weights import Models, load

TOKENS = 77
CALLS = 3


def inputs(models: Models, frames: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, time step and text of two branches of guidance."""
    config = models.unet.config
    latents = torch.randn(2 * frames, config.in_channels, size // 8, size // 8, dtype=models.dtype)
    return latents, torch.tensor(500), torch.randn(2 * frames, TOKENS, config.cross_attention_dim, dtype=models.dtype)


def seconds(call: Callable[..., object], given: tuple[Tensor, ...]) -> float:
    """CPU seconds of the quickest of a few calls."""
    spent = []
    for _ in range(CALLS):
        began = time.process_time()
        call(*given)
        spent.append(time.process_time() - began)
    return min(spent)


def wall(call: Callable[..., object], given: tuple[Tensor, ...]) -> float:
    began = time.perf_counter()
    call(*given)
    return time.perf_counter() - began


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--size", type=int, default=512, help="side in pixels (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = load("embedded")
    given = inputs(models, options.frames, options.size)
    compiled = torch.compile(models.unet)
    plain, first = seconds(models.unet, given), wall(compiled, given)
    print(f"as it is {plain:.2f} CPU-s a call; the first compiled call takes {first:.0f} s", flush=True)
    quick = seconds(compiled, given)
    print(f"compiled {quick:.2f} CPU-s a call, {plain / quick:.2f} times as fast", flush=True)
    print(f"another number of frames: {wall(compiled, inputs(models, options.frames + 1, options.size)):.0f} s")


if __name__ == "__main__":
    main()
