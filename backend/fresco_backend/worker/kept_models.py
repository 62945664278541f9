# SPDX-License-Identifier: Apache-2.0
"""Models that a worker keeps loaded from one job to the next, and lets go of where memory is short."""
from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from fresco_backend.models.weights import Models
from fresco_backend.render.free_memory import free_memory
from fresco_backend.render.job import Job
from fresco_protocol.shot import Control

ROOM = 1.5  # times the size of a model's files, as free memory, before another one is kept beside it
LEAST = 2 * 2**30  # bytes; with less than that free, an idle worker keeps nothing

Key = tuple[str, tuple[Control, ...], str, tuple[tuple[str, str], ...]]


class KeptModels:
    """The models of one device; those used last stay. For one thread.

    loader: `weights.load`. free: bytes that are free on the device; None where that is unknown.
    """

    def __init__(self, loader: Callable[..., Models], device: torch.device,
                 free: Callable[[torch.device], int | None] = free_memory) -> None:
        self._loader, self._device, self._free = loader, device, free
        self._kept: OrderedDict[Key, Models] = OrderedDict()
        self._weights: tuple[tuple[str, str], ...] = ()
        self._size = 0

    @property
    def newest(self) -> str | None:
        """The name of the model that was used last."""
        return self._kept[next(reversed(self._kept))].name if self._kept else None

    def expect(self, job: Job) -> None:
        """The job whose models will be asked for: files that changed since are loaded again."""
        self._weights = tuple(sorted(job.weights.items()))
        self._size = job.inventory.size

    def load(self, name: str, *, controls: Sequence[Control] = (), **options: object) -> Models:
        """A model as the loader gives it, kept from before if it can be.

        Controls that differ in nothing but strength and time share their networks.
        """
        controls = tuple(dict.fromkeys(controls))
        alike = tuple(replace(control, strength=1.0, start=0.0, end=1.0) for control in controls)
        key = (name, alike, repr(sorted(options.items())), self._weights)
        if key not in self._kept:
            self._make_room()
            self._kept[key] = self._loader(name, controls=controls, **options)
        self._kept.move_to_end(key)
        found = self._kept[key]
        return replace(found, controlnets=dict(zip(controls, found.controlnets.values(), strict=True)))

    def clear(self) -> None:
        """Let go of all."""
        self._kept.clear()
        self._sweep()

    def relax(self) -> None:
        """Let go of all if the device needs the memory for other things."""
        free = self._free(self._device) if self._kept else None
        if free is not None and free < LEAST:
            self.clear()

    def _make_room(self) -> None:
        while self._kept and self._is_tight():
            self._kept.popitem(last=False)
            self._sweep()

    def _is_tight(self) -> bool:
        free = self._free(self._device)
        return free is None or free < ROOM * self._size + LEAST

    def _sweep(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
