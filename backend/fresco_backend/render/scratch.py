# SPDX-License-Identifier: Apache-2.0
"""Unfinished work on disk, so that an interrupted shot goes on where it was: keyframes, anchors, tones, warnings.

Files appear whole, by a rename; what lies in a scratch folder belongs to one job and is never out of date.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors.torch import load, save
from torch import Tensor

from fresco_backend.engine.denoise import Anchors
from fresco_backend.files.deliveries import part_of, refused
from fresco_protocol.errors import OutputDenied


class Scratch:
    """The scratch folder of one job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def keyframes(self) -> tuple[int, ...] | None:
        """The choice of keyframes, in plate numbers; None when none is kept."""
        path = self._keyframes
        return tuple(json.loads(path.read_bytes())) if path.is_file() else None

    def save_keyframes(self, numbers: Sequence[int]) -> None:
        """Keep the choice of keyframes. Raises OutputError when it cannot."""
        self._write(self._keyframes, json.dumps(list(numbers)).encode())

    def has_key(self, frame: int) -> bool:
        """Whether the stylised keyframe of this number is there."""
        return self._key(frame).is_file()

    def save_key(self, frame: int, image: Tensor) -> None:
        """Keep a stylised keyframe: (3, H, W) in [-1, 1] at working size. Raises OutputError when it cannot."""
        self._save(self._key(frame), image)

    def load_key(self, frame: int) -> Tensor:
        """The stylised keyframe, float32 (3, H, W) in [-1, 1]."""
        return self._load(self._key(frame))

    def has_anchors(self, window: int) -> bool:
        """Whether the anchors that this window leaves to the next one are there."""
        return self._anchors(window).is_file()

    def save_anchors(self, window: int, anchors: Anchors) -> None:
        """Keep what the window leaves to the next one. Raises OutputError when it cannot."""
        self._save(self._anchors(window), anchors.latents)

    def load_anchors(self, window: int) -> Anchors:
        """What the window left to the next one."""
        return Anchors(latents=self._load(self._anchors(window)))

    def has_tones(self, window: int) -> bool:
        """Whether the tones of this window are there."""
        return self._tones(window).is_file()

    def save_tones(self, window: int, tones: Mapping[str, Tensor]) -> None:
        """Keep what this window's keyframes show of the plate's tones, and its grade. Raises OutputError."""
        self._write(self._tones(window), save({name: tensor.contiguous() for name, tensor in tones.items()}))

    def load_tones(self, window: int) -> dict[str, Tensor]:
        """What `save_tones` kept."""
        return load(self._tones(window).read_bytes())

    def save_parts(self, window: int, parts: Sequence[Sequence[int]]) -> None:
        """Keep the frames of each part in which this window was denoised, itself or halves. Raises OutputError."""
        self._write(self._parts(window), json.dumps(list(map(list, parts))).encode())

    def load_parts(self, window: int) -> tuple[tuple[int, ...], ...]:
        """What `save_parts` kept; nothing when nothing is."""
        path = self._parts(window)
        return tuple(map(tuple, json.loads(path.read_bytes()))) if path.is_file() else ()

    @property
    def precisions(self) -> frozenset[str]:
        """In what the windows that are kept were denoised, as `save_precision` was told."""
        found = set()
        for path in self.folder.glob("precision.*.txt"):
            with suppress(FileNotFoundError):  # another process, which is done, clears scratch
                found.add(path.read_text(encoding="utf-8"))
        return frozenset(found)

    def save_precision(self, window: int, text: str) -> None:
        """Keep in what this window was denoised, such as "bfloat16 on cpu". Raises OutputError."""
        self._write(self.folder / f"precision.{window}.txt", text.encode())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What every run of this job has warned of, each once, in order."""
        paths = sorted(self.folder.glob("warning.*.txt"), key=lambda path: path.stat().st_mtime_ns)
        return tuple(path.read_text(encoding="utf-8") for path in paths)

    def save_warning(self, text: str) -> None:
        """Keep a warning for the record, which another run may write. Raises OutputError when it cannot."""
        path = self.folder / f"warning.{hashlib.sha256(text.encode()).hexdigest()[:16]}.txt"
        if not path.is_file():
            self._write(path, text.encode())

    def remove(self) -> None:
        """Delete the folder with all that is in it, and the one above it when no other job is there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.remove_empty()

    def remove_empty(self) -> None:
        """Delete the folder, and the one above it, as far as nothing is in them."""
        with suppress(OSError):  # that is how the system says that something is there
            self.folder.rmdir()
        with suppress(OSError):
            self.folder.parent.rmdir()

    @property
    def _keyframes(self) -> Path:
        return self.folder / "keyframes.json"

    def _key(self, frame: int) -> Path:
        return self.folder / f"keyframe.{frame}.safetensors"

    def _anchors(self, window: int) -> Path:
        return self.folder / f"anchors.{window}.safetensors"

    def _tones(self, window: int) -> Path:
        return self.folder / f"tones.{window}.safetensors"

    def _parts(self, window: int) -> Path:
        return self.folder / f"parts.{window}.json"

    def _save(self, path: Path, tensor: Tensor) -> None:
        self._write(path, save({"tensor": tensor.float().contiguous().cpu()}))

    def _write(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda file: file.write(content))
        except OSError as error:
            raise refused(path, error) from error

    def _load(self, path: Path) -> Tensor:
        return load(path.read_bytes())["tensor"].to(torch.float32)


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file that has its name only when it is whole. Raises OSError; then nothing is left."""
    part = part_of(path)
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_document(path: Path, text: str, what: str) -> None:
    """Write a text file that a person named, whole or not at all; what stood there stays until then.

    what: the document in words, for the error. Raises OutputDenied, DiskFull.
    """
    try:
        write_atomically(path.resolve(), lambda file: file.write(text.encode()))
    except OSError as error:
        reason = refused(path, error)
        if isinstance(reason, OutputDenied):
            raise OutputDenied(f"{what} cannot be written: {error.strerror}", where=path,
                               remedy="Choose a folder that exists and that you may write to.") from error
        raise reason from error
