# SPDX-License-Identifier: Apache-2.0
"""Mattes of a few frames, carried along the motion of the plate."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tiny
from fresco_backend.guides import motion
from fresco_backend.pixels import matte_propagation
from fresco_backend.pixels.matte_propagation import Propagated, propagated
from fresco_protocol.errors import OutputDenied

PLATE = tiny.moving_plate(7, 96)


def image(number: int) -> Tensor:
    return torch.from_numpy(PLATE.frames[number]).permute(2, 0, 1) * 2 - 1


def matte(number: int) -> Tensor:
    return torch.from_numpy(PLATE.matte[number])


def overlap(found: Tensor, truth: Tensor) -> float:
    """Intersection over union."""
    one, two = found > 0.5, truth > 0.5
    return float((one & two).sum() / (one | two).sum())


def results(*given: int) -> dict[int, Propagated]:
    return dict(propagated(range(7), given, image, matte))


def test_every_frame_without_a_matte_gets_one() -> None:
    assert sorted(results(3)) == [0, 1, 2, 4, 5, 6]
    assert list(results(0, 6)) == [1, 2, 3, 4, 5]
    assert results(*range(7)) == {}


def test_a_matte_follows_what_it_lies_on() -> None:
    for number, found in results(0, 6).items():
        assert overlap(found.matte, matte(number)) > 0.88
    one = results(0)
    assert overlap(one[3].matte, matte(3)) > overlap(matte(0), matte(3)) + 0.2
    assert all(torch.isfinite(found.matte).all() and 0 <= found.matte.min() <= found.matte.max() <= 1
               for found in one.values())  # fmt: skip


def test_memory_does_not_grow_with_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Motion is replaced by none: what is counted is the traced frames that live at once."""
    still = torch.zeros(1, 2, 96, 96)
    monkeypatch.setattr(motion, "estimate", lambda *_: (still, still))
    kept: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = 0
    traced = matte_propagation._Traced

    def counted(place: Tensor, confidence: Tensor) -> object:
        nonlocal most
        kept.add(confidence)
        most = max(most, len(kept))
        return traced(place, confidence)

    monkeypatch.setattr(matte_propagation, "_Traced", counted)
    found = [number for number, _ in propagated(range(40), [0, 39], lambda _: image(0), matte=lambda _: matte(0))]
    assert found == list(range(1, 39)) and most <= 4


def test_what_waits_lies_in_the_folder_that_is_given_and_goes(tmp_path: Path) -> None:
    made = propagated(range(7), [0, 6], image, matte, tmp_path / "job")
    next(made)
    assert len(list((tmp_path / "job").glob("matte-*/*.npy"))) == 4
    assert len(list(made)) == 4
    assert list((tmp_path / "job").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "job").write_text("a file")
    with pytest.raises(OutputDenied, match="job"):
        next(propagated(range(7), [0, 6], image, matte, tmp_path / "job"))


def test_two_mattes_are_better_than_one() -> None:
    assert overlap(results(0, 6)[5].matte, matte(5)) > overlap(results(0)[5].matte, matte(5))


def test_confidence_is_high_where_the_motion_is_clear_and_low_after_a_cut() -> None:
    assert all(found.confidence > 0.55 for found in results(0, 6).values())
    alone = [found.confidence for found in results(0).values()]
    assert alone == sorted(alone, reverse=True)  # as the overlap with the truth does

    def cut(number: int) -> Tensor:
        return image(number) if number < 3 else -image(6 - number).flip(1, 2)

    after = dict(propagated(range(6), [0], cut, matte))
    assert after[1].confidence > 0.7
    assert max(after[number].confidence for number in (3, 4, 5)) < 0.1


def test_the_matte_may_be_larger_than_the_pictures_it_is_traced_on() -> None:
    def large(number: int) -> Tensor:
        return torch.nn.functional.interpolate(matte(number)[None, None], scale_factor=2.0)[0, 0]

    found = dict(propagated(range(7), [0], image, large))[1]
    assert found.matte.shape == (192, 192)
    assert overlap(found.matte, large(1)) == pytest.approx(overlap(results(0)[1].matte, matte(1)), abs=0.05)
