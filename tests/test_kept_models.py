# SPDX-License-Identifier: Apache-2.0
"""Models that a worker keeps: loaded once, loaded again when their files change, given up where memory is short."""
from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import torch

from fresco_backend.render.job import Job
from fresco_backend.worker.kept_models import LEAST, ROOM, KeptModels
from fresco_protocol.shot import Control, ControlKind

GIB = 2**30
CANNY, SOFT = Control(kind=ControlKind.CANNY), Control(kind=ControlKind.SOFT_EDGE)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """In place of `weights.Models`: what KeptModels touches of it."""

    name: str
    controlnets: dict[Control, object]


@dataclass
class Shelf:
    """A loader that counts, and a device with so much free memory."""

    free: int = 100 * GIB
    loads: list[str] = field(default_factory=list)

    def load(self, name: str, *, controls: tuple[Control, ...] = (), **_: object) -> Any:
        self.loads.append(name)
        return Loaded(name=name, controlnets={control: object() for control in controls})

    def kept(self) -> KeptModels:
        return KeptModels(self.load, torch.device("cpu"), lambda _device: self.free)


def job(digest: str = "a", size: int = GIB) -> Job:
    return cast(Job, SimpleNamespace(weights={"unet/model": digest}, inventory=SimpleNamespace(size=size)))


def test_the_same_model_is_loaded_once_until_its_files_change() -> None:
    shelf = Shelf()
    kept = shelf.kept()
    kept.expect(job())
    first = kept.load("embedded")
    assert kept.load("embedded").controlnets == first.controlnets
    assert (shelf.loads, kept.newest) == (["embedded"], "embedded")
    kept.expect(job("b"))
    kept.load("embedded")
    kept.load("embedded", vae="other")
    assert shelf.loads == ["embedded"] * 3


def test_controls_of_another_strength_share_their_networks() -> None:
    shelf = Shelf()
    kept = shelf.kept()
    kept.expect(job())
    weak = Control(kind=ControlKind.CANNY, strength=0.3, end=0.5)
    first, second = kept.load("m", controls=(CANNY, SOFT)), kept.load("m", controls=(weak, SOFT))
    assert list(second.controlnets) == [weak, SOFT]
    assert second.controlnets[weak] is first.controlnets[CANNY]
    kept.load("m", controls=(SOFT,))
    assert shelf.loads == ["m", "m"]


def test_a_control_that_is_asked_for_twice_is_one() -> None:
    shelf = Shelf()
    kept = shelf.kept()
    kept.expect(job())
    assert list(kept.load("m", controls=(CANNY, SOFT, CANNY)).controlnets) == [CANNY, SOFT]


def test_what_was_used_last_stays_where_memory_is_short() -> None:
    shelf = Shelf()
    kept = shelf.kept()
    kept.expect(job())
    for name in ("a", "b", "a"):
        kept.load(name)
    assert shelf.loads == ["a", "b"]
    shelf.free = int(ROOM * GIB + LEAST) - 1
    kept.load("c")
    shelf.free = 100 * GIB
    kept.load("c")
    kept.load("a")
    assert shelf.loads == ["a", "b", "c", "a"]


def test_an_idle_worker_gives_all_up_when_others_need_the_memory() -> None:
    shelf = Shelf()
    kept = shelf.kept()
    kept.expect(job())
    kept.load("a")
    kept.relax()
    assert kept.newest == "a"
    shelf.free = LEAST - 1
    kept.relax()
    assert kept.newest is None
