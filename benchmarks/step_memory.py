# SPDX-License-Identifier: Apache-2.0
"""How many bytes of tensors are alive at once in plain steps and in FRESCO's, counted and not sampled.

python benchmarks/step_memory.py [--keyframes 2] [--sizes 512x512 512x896 768x768]

`fresco bench --shape sd15` on a CPU without its arithmetic: products give zeros of the right shape, all else runs. The
peak of a process moves by a hundred MiB from run to run with the blocks that the C library keeps; this count does not.
Weights are in it, what a product takes inside is not.
"""

from __future__ import annotations

import argparse
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fresco_backend.commands.bench import Load, Stage, measure
from fresco_backend.commands.bench_command import _size
from fresco_backend.commands.bench_models import Shape

MIB = 2**20
PLAIN, GUIDED = (Stage.PLAIN_STEP,), (Stage.REFERENCE, Stage.FIRST_STEP, Stage.STEP, Stage.LATE_STEP)


class Alive(TorchDispatchMode):
    """Counts the bytes of the living tensors that are made within its context, and skips products.

    most: the most there were, by stage.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most: dict[Stage | None, int] = {}
        self.stage: Stage | None = None
        self._bytes = 0
        self._alive: set[int] = set()

    def begin(self, stage: Stage) -> None:
        """What is made from now on belongs to this stage."""
        self.stage = stage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {tensor.untyped_storage()._cdata for tensor in args if isinstance(tensor, Tensor)}
        skipped = _PRODUCTS.get(func.overloadpacket)
        result = func(*args, **(kwargs or {})) if skipped is None else skipped(*args)
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._alive | given:
                self._count(tensor.untyped_storage())
        return result

    def _count(self, memory: Any) -> None:
        self._alive.add(memory._cdata)
        self._bytes += memory.nbytes()
        self.most[self.stage] = max(self.most.get(self.stage, 0), self._bytes)
        weakref.finalize(memory, self._gone, memory._cdata, memory.nbytes())

    def _gone(self, memory: int, size: int) -> None:
        self._alive.discard(memory)
        self._bytes -= size


def _convolution(images: Tensor, weight: Tensor, _: Any, strides: list[int], padding: list[int], *_rest: Any) -> Tensor:
    sides = zip(images.shape[2:], weight.shape[2:], strides, padding, strict=True)
    return images.new_zeros(len(images), len(weight), *((a + 2 * pad - b) // step + 1 for a, b, step, pad in sides))


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    batch, heads, tokens, _channels = query.shape
    mixed = query.new_zeros(batch, tokens, heads, value.shape[3]).transpose(1, 2)
    return mixed, query.new_zeros(batch, heads, tokens, dtype=torch.float32)


def _of_bytes(left: Tensor, right: Tensor) -> Tensor:
    return left.new_zeros(len(left), right.shape[1], dtype=torch.int32)


def _product(left: Tensor, right: Tensor) -> Tensor:
    return left.new_zeros(*left.shape[:-1], right.shape[-1])


aten = torch.ops.aten
_PRODUCTS: dict[Any, Callable[..., Any]] = {
    aten.convolution: _convolution,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten.mm: _product, aten.bmm: _product, aten._int_mm: _of_bytes,
    aten.addmm: lambda added, left, right: _product(left, right),
    aten.baddbmm: lambda added, left, right: _product(left, right),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keyframes", type=int, default=2)
    parser.add_argument("--sizes", nargs="+", type=_size, default=[(512, 512), (512, 896), (768, 768)])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| keyframes, size | plain, MiB | reference | first step | step | late step | added, MiB | a megapixel |")
    for width, height in options.sizes:
        load = Load(shape=Shape.SD15, keyframes=options.keyframes, height=height, width=width)
        with Alive() as alive:
            measure(load, alive.begin)
        plain, *guided = (alive.most[stage] / MIB for stage in (*PLAIN, *GUIDED))
        added, pixels = max(guided) - plain, options.keyframes * width * height
        cells = (plain, *guided, added, added / pixels * 1e6)
        name = f"{options.keyframes}, {width}x{height}"
        print(f"| {name} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
