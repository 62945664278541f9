# SPDX-License-Identifier: Apache-2.0
"""A device that pretends: tensors on "cuda:0" are computed on the CPU, and what no real GPU would take is refused.

For machines without a GPU. Refused are operations whose tensors lie on two devices, and a GPU's tensor handed to NumPy.
Speed, memory and rounding are the CPU's. `pretending` is a context; code in it finds one CUDA device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from fresco_backend.engine import fused
from fresco_backend.render import ahead, estimate

DEVICE = torch.device("cuda:0")
MEMORY = 8 * 2**30

_FREE_OF_PLACE = {Tensor.copy_, torch._has_compatible_shallow_copy_type}
_INDEXED = {Tensor.__getitem__, Tensor.__setitem__}  # on a GPU by indices of either place
_TO_NUMPY: set[Any] = {Tensor.numpy, Tensor.__array__}


class Elsewhere(Tensor):
    """A tensor that says to be on the device."""


class Pretence(TorchFunctionMode):
    """Every call of torch as it would go with a GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [each for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        there = [each for each in tensors if isinstance(each, Elsewhere)]
        if func == Tensor.device.__get__:
            return DEVICE if there else func(*args)
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return bool(there)
        if func in _TO_NUMPY and there:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func is torch._C._nn._parse_to:  # of a module's `to`, whose tensors come by themselves
            return func(*args, **kwargs)
        if func is Tensor.to:
            return self._moved(args, kwargs)
        if func is Tensor.cpu:
            return _tagged(func, args, kwargs, Tensor)
        wanted = kwargs.get("device")
        if wanted is not None:
            kwargs["device"] = _really(wanted)
            return _tagged(func, args, kwargs, Elsewhere if torch.device(wanted).type == "cuda" else Tensor)
        if func not in _FREE_OF_PLACE:
            checked = tensors[:1] if func in _INDEXED and there and tensors[0] is there[0] else tensors
            _require_one_place(func, checked)
        kind = isinstance(tensors[0], Elsewhere) if tensors and func in _FREE_OF_PLACE else bool(there)
        return _tagged(func, args, kwargs, Elsewhere if kind else Tensor)

    def _moved(self, args: Any, kwargs: dict[str, Any]) -> Tensor:
        own, *others = args
        named = [*others, *kwargs.values()]
        kind: type[Tensor] = Elsewhere if isinstance(own, Elsewhere) else Tensor
        for value in named:
            if isinstance(value, (str, torch.device)):
                kind = Elsewhere if torch.device(value).type == "cuda" else Tensor
            elif isinstance(value, Tensor):
                kind = Elsewhere if isinstance(value, Elsewhere) else Tensor

        really = {key: _really(value) for key, value in kwargs.items()}
        moved: Tensor = _tagged(Tensor.to, (own, *map(_really, others)), really, kind)
        return moved


def _really(value: Any) -> Any:
    """Where a device lies on this machine; anything else as it is."""
    named = isinstance(value, (str, torch.device))
    return torch.device("cpu") if named and torch.device(value).type == "cuda" else value


def _require_one_place(func: Any, tensors: list[Tensor]) -> None:
    places = {isinstance(each, Elsewhere) for each in tensors if each.dim() or isinstance(each, Elsewhere)}
    if len(places) > 1:
        raise RuntimeError(f"Expected all tensors to be on the same device, found cuda:0 and cpu in {func.__name__}")


def _tagged(func: Callable[..., Any], args: Any, kwargs: Any, kind: type[Tensor]) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        result = func(*args, **kwargs)

        def tag(value: Any) -> Any:
            if not isinstance(value, Tensor) or isinstance(value, Elsewhere) == (kind is Elsewhere):
                return value
            return value.as_subclass(kind)

        return pytree.tree_map(tag, result)


def _pretend() -> None:
    """For the life of a thread."""
    Pretence().__enter__()  # type: ignore[no-untyped-call]


@contextmanager
def pretending() -> Iterator[None]:
    """One CUDA device of `MEMORY` bytes, in this thread and in those of `render.ahead`."""

    class Pool(ThreadPoolExecutor):
        def __init__(self, max_workers: int, thread_name_prefix: str) -> None:
            super().__init__(max_workers, thread_name_prefix, initializer=_pretend)

    with pytest.MonkeyPatch.context() as patch, Pretence():
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(torch.cuda, "mem_get_info", lambda device=None: (MEMORY, MEMORY))
        for name in ("memory_reserved", "memory_allocated", "max_memory_allocated"):
            patch.setattr(torch.cuda, name, lambda device=None: 0)
        for name in ("synchronize", "empty_cache"):
            patch.setattr(torch.cuda, name, lambda device=None: None)
        patch.setattr(estimate, "_matmul_speed", lambda device, dtype: 1e12)  # a CPU takes seconds in half precision
        patch.setattr(fused, "usable", lambda features: False)
        patch.setattr(ahead, "ThreadPoolExecutor", Pool)
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            yield
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(before)
