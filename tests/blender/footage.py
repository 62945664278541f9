# SPDX-License-Identifier: GPL-3.0-or-later
"""Footage for the tests in Blender: each frame has its number burnt in as twelve bars, the lowest bit at the left."""
from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import OpenImageIO as oiio  # noqa: N813

WIDTH, HEIGHT = 96, 64
BITS, BAR = 12, 8
FIRST, COUNT = 1001, 24
HIGHLIGHT = 4.0  # scene-linear, in the middle of the HDR frames

Pixels = npt.NDArray[np.float32]


def picture(number: int) -> Pixels:
    """(64, 96, 3) display-referred: bars above, a slope of colour below that moves with the number."""
    slope = (np.arange(WIDTH)[None] + np.arange(HEIGHT)[:, None] + 3 * number) % 128 / 160
    pixels = np.stack([slope, slope[::-1] * 0.5 + 0.1, 0.7 - slope / 2], axis=-1).astype(np.float32)
    for bit in range(BITS):
        pixels[4:24, bit * BAR:(bit + 1) * BAR] = 0.85 if number >> bit & 1 else 0.08
    return pixels


def write_footage(folder: Path) -> Path:
    """png/f.1001.png ..., exr/, hdr/ (with a highlight of 4.0) and movie.mp4, whose n-th frame has the number n.

    straight/ (PNG) and premultiplied/ (EXR) have a soft alpha; gap.mp4, gap.mov and gap.mkv leave frames out;
    turned.mp4 lies on its side, and streams.mp4 has a second stream, with numbers from 101 on.
    """
    alpha = np.clip((np.arange(WIDTH)[None, :, None] - 16) / 64, 0, 1) * np.ones((HEIGHT, 1, 1))
    for number in range(FIRST, FIRST + COUNT):
        pixels = picture(number)
        linear = np.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4).astype(np.float32)
        bright = linear.copy()
        bright[40:56, 40:56] = HIGHLIGHT
        _write(folder / "png" / f"f.{number}.png", pixels, oiio.UINT8)
        _write(folder / "exr" / f"f.{number}.exr", linear, oiio.HALF)
        _write(folder / "hdr" / f"f.{number}.exr", bright, oiio.HALF)
        _write(folder / "straight" / f"f.{number}.png", np.concatenate([pixels, alpha], -1), oiio.UINT8)
        _write(folder / "premultiplied" / f"f.{number}.exr", np.concatenate([linear * alpha, alpha], -1), oiio.HALF)
    _write_movie(folder / "movie.mp4")
    for extension in ("mp4", "mov", "mkv"):
        _write_movie(folder / f"gap.{extension}", gap=3)
    _turn(folder / "movie.mp4", folder / "turned.mp4")
    _write_movie(folder / "streams.mp4", streams=2)
    return folder


def _turn(path: Path, turned: Path) -> None:
    """A copy whose track asks to be shown turned by a quarter, as a telephone that stands upright does."""
    movie = bytearray(path.read_bytes())
    matrix = movie.index(b"tkhd") + 44
    movie[matrix:matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, HEIGHT << 16, 0, 1 << 30)
    turned.write_bytes(movie)


def _write(path: Path, pixels: Pixels, depth: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = oiio.ImageBuf(pixels.astype(np.float32))
    buffer.specmod().attribute("oiio:UnassociatedAlpha", int(path.suffix == ".png"))
    buffer.set_write_format(depth)
    assert buffer.write(str(path)), buffer.geterror()


def _write_movie(path: Path, gap: int = 0, streams: int = 1) -> None:
    """H.264 with frames that refer to later ones, as cameras and editors write it; a gap follows the twelfth."""
    with av.open(str(path), "w") as container:
        written = [container.add_stream("libx264", rate=Fraction(24)) for _ in range(streams)]
        for stream in written:
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.options = {"crf": "8", "bf": "2", "g": "12"}
        for number in range(1, COUNT + 1):
            for index, stream in enumerate(written):
                rgb = np.round(picture(number + 100 * index) * 255).astype(np.uint8)
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                frame.pts, frame.time_base = number - 1 + (gap if number > 12 else 0), Fraction(1, 24)
                container.mux(stream.encode(frame))
        for stream in written:
            container.mux(stream.encode())
