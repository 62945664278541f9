# SPDX-License-Identifier: Apache-2.0
"""How large the largest tensor of some code is, and what all take at once: proof that nothing dense is hidden."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Largest(TorchDispatchMode):
    """Within its context, `numel` is the number of elements of the largest tensor that any operation gave."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple) else (result,):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


class Held(TorchDispatchMode):
    """Within its context, `bytes` are those of the living tensors made in it, and `most` the most there were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self.most = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {tensor.untyped_storage()._cdata for tensor in args if isinstance(tensor, Tensor)}
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor) and (memory := tensor.untyped_storage())._cdata not in self._alive | given:
                self._alive.add(memory._cdata)
                self.bytes += memory.nbytes()
                self.most = max(self.most, self.bytes)
                weakref.finalize(memory, self._gone, memory._cdata, memory.nbytes())
        return result

    def _gone(self, memory: int, size: int) -> None:
        self._alive.discard(memory)
        self.bytes -= size
