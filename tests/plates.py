# SPDX-License-Identifier: Apache-2.0
"""Small frames and sequences for the tests of reading, colour and writing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813

from fresco_backend.files.deliveries import DeliveryWriter, Encoding
from fresco_backend.files.frames import FloatArray, Frame
from fresco_protocol.shot import BitDepth


def noise(*shape: int, seed: int = 0) -> FloatArray:
    """Random float32 in [0, 1)."""
    return np.random.default_rng(seed).random(shape, np.float32)


def frame(
    width: int = 24,
    height: int = 16,
    *,
    depth: BitDepth = BitDepth.HALF,
    seed: int = 0,
    alpha: FloatArray | None = None,
    file_type: str = "openexr",
) -> Frame:
    """A frame of random colour that its depth stores exactly."""
    pixels = noise(height, width, 3, seed=seed)
    if depth is BitDepth.HALF:
        pixels = pixels.astype(np.float16).astype(np.float32)
    elif depth in (BitDepth.UINT8, BitDepth.UINT16):
        top = 255 if depth is BitDepth.UINT8 else 65535
        pixels = (np.round(pixels * top) / top).astype(np.float32)
    return Frame(
        pixels=pixels,
        channels=("R", "G", "B"),
        alpha=alpha,
        associated=file_type == "openexr",
        format=depth,
        file_type=file_type,
        metadata=oiio.ImageSpec(width, height, 3, depth.value),
    )


def write_sequence(
    folder: Path, numbers: Iterable[int], name: str = "plate.%04d.exr", *, width: int = 24, height: int = 16
) -> Path:
    """An EXR sequence with these frames; gives the pattern."""
    numbers = list(numbers)
    writer = DeliveryWriter(folder / name, numbers, like=frame(width, height), encoding=Encoding())
    for number in numbers:
        writer.write(number, frame(width, height, seed=abs(number)), "0")
    return folder / name


def with_pixels(source: Frame, pixels: FloatArray) -> Frame:
    """The frame with other colour."""
    return replace(source, pixels=pixels)


def header(source: Frame, **attributes: object) -> Frame:
    """The frame with attributes in its header; `__` stands for a colon."""
    spec = oiio.ImageSpec(source.metadata)
    for name, value in attributes.items():
        spec.attribute(name.replace("__", ":"), value)
    return replace(source, metadata=spec)
