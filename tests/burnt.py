# SPDX-License-Identifier: Apache-2.0
"""Pictures that show their own number as sixteen black or white blocks, so that a frame that is off is caught."""
from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import OpenImageIO as oiio  # noqa: N813, the name in its own manual

from fresco_backend.files.frames import FloatArray
from fresco_backend.files.movies import MovieReader, is_movie

SIZE = (64, 64)  # width, height
BITS, ACROSS = 16, 4
BLOCK = SIZE[0] // ACROSS


def picture(number: int) -> FloatArray:
    """(H, W, 3) in [0, 1]: bit b of the number is the block in row b // 4, column b % 4."""
    bits = np.array([number >> bit & 1 for bit in range(BITS)], np.float32).reshape(ACROSS, ACROSS)
    return np.repeat(np.kron(bits, np.ones((BLOCK, BLOCK), np.float32))[..., None], 3, axis=2)


def number_in(pixels: FloatArray) -> int:
    """The number that a picture shows, whatever its gain."""
    centres = pixels[BLOCK // 2::BLOCK, BLOCK // 2::BLOCK, 0]
    threshold = max(float(pixels.max()), 0.1) / 2
    return sum(int(value > threshold) << bit for bit, value in enumerate(centres.reshape(-1)))


def write(path: Path, pixels: FloatArray, *, kind: str = "half") -> None:
    """Writes one picture; `kind` is OpenImageIO's name of a number format."""
    output = oiio.ImageOutput.create(str(path))
    assert output is not None, oiio.geterror()
    spec = oiio.ImageSpec(pixels.shape[1], pixels.shape[0], pixels.shape[2], kind)
    assert output.open(str(path), spec), output.geterror()
    assert output.write_image(pixels), output.geterror()
    output.close()


def write_sequence(folder: Path, numbers: Iterable[int], name: str = "shot.%04d.exr") -> str:
    """A sequence whose every frame shows its number; gives its pattern."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        write(folder / (name % number), picture(number), kind="uint8" if name.endswith(".png") else "half")
    return str(folder / name)


def write_movie(path: Path, numbers: Iterable[int], rate: Fraction = Fraction(24), *, alpha: bool = False) -> str:
    """A movie that shows these numbers: ProRes 4444; with alpha, its right half is clear."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("prores_ks", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuva444p10le"
        stream.options = {"profile": "4444"}
        for number in numbers:
            pixels = np.full((SIZE[1], SIZE[0], 4), 255, np.uint8)
            pixels[..., :3] = np.round(picture(number) * 255)
            if alpha:
                pixels[:, SIZE[0] // 2:, 3] = 0
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format="yuva444p10le")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def read(path: str, number: int) -> FloatArray:
    """One frame of a sequence or of a movie (frames from 1), (H, W, 3)."""
    if is_movie(path):
        reader = MovieReader(Path(path))
        pixels = reader.read(number).pixels
        reader.close()
        return pixels
    source = oiio.ImageInput.open(path % number)
    assert source is not None, oiio.geterror()
    found = source.read_image("float")
    source.close()
    return np.asarray(found, np.float32)
