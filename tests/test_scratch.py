# SPDX-License-Identifier: Apache-2.0
"""Unfinished work on disk: kept exactly, whole or not at all, and removed without a trace."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from fresco_backend.engine.denoise import Anchors
from fresco_backend.render.scratch import Scratch, write_atomically
from fresco_protocol.errors import DiskFull, OutputDenied


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path / ".fresco" / "a1")


def test_keyframes_and_anchors_come_back_to_the_bit(scratch: Scratch) -> None:
    image, latents = torch.randn(3, 5, 7), torch.randn(4, 2, 4, 3, 3)
    assert not scratch.has_key(-5)
    assert not scratch.has_anchors(0)
    scratch.save_key(-5, image)
    scratch.save_anchors(0, Anchors(latents=latents))
    assert scratch.has_key(-5)
    assert scratch.has_anchors(0)
    assert not scratch.has_key(5)
    assert torch.equal(scratch.load_key(-5), image)
    assert torch.equal(scratch.load_anchors(0).latents, latents)


def test_a_run_of_no_steps_has_empty_anchors(scratch: Scratch) -> None:
    scratch.save_anchors(2, Anchors(latents=torch.empty(0, 2, 4, 8, 8)))
    assert scratch.load_anchors(2).latents.shape == (0, 2, 4, 8, 8)


def test_the_choice_of_keyframes_is_kept(scratch: Scratch) -> None:
    assert scratch.keyframes is None
    scratch.save_keyframes((-3, 1, 9))
    assert scratch.keyframes == (-3, 1, 9)


def test_warnings_are_kept_once_and_in_order(scratch: Scratch) -> None:
    assert not scratch.warnings
    for text in ("frame 1009: clamped", "frame 1001: clamped", "frame 1009: clamped"):
        scratch.save_warning(text)
        time.sleep(0.02)  # of a disk whose times are coarse
    assert scratch.warnings == ("frame 1009: clamped", "frame 1001: clamped")


def test_it_goes_without_a_trace_and_leaves_other_jobs(scratch: Scratch, tmp_path: Path) -> None:
    other = Scratch(tmp_path / ".fresco" / "b2")
    for each in (scratch, other):
        each.save_key(1, torch.zeros(3, 1, 1))
    scratch.remove()
    assert other.has_key(1)
    other.remove_empty()
    assert other.has_key(1)
    other.remove()
    assert list(tmp_path.iterdir()) == []
    other.remove()


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, lambda file: file.write(b"first"))

    def torn(file: BinaryIO) -> None:
        file.write(b"sec")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(path, torn)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("a.json", b"first")]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputDenied, match=r"keyframe\.1"):
        Scratch(tmp_path / "file" / "a").save_key(1, torch.zeros(1))


def test_a_full_disk_is_named(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fresco_backend.render.scratch.os.fsync", full)
    with pytest.raises(DiskFull):
        scratch.save_key(1, torch.zeros(1))
    assert list(scratch.folder.iterdir()) == []
