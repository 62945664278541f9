# SPDX-License-Identifier: Apache-2.0
"""What a 4K half-float EXR sequence costs on its way in and out, against OpenImageIO alone on the same files.

    python benchmarks/throughput.py [--frames 6] [--size 3840x2160] [--compression zip]

Alone: read, write, and for a delivery that is proved to be whole, read back. Fresco: `read_frame` (every channel and
attribute kept), `DeliveryWriter.write` (cleaned, signed, read back, synced, renamed). One frame after the other; wall
and CPU seconds of the best of the frames, so that other work on the machine hardly counts.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813, the name in its own manual

from fresco_backend.files.deliveries import DeliveryWriter
from fresco_backend.files.frames import Frame, read_frame


def picture(width: int, height: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """A picture with grain, as a camera gives it: noise does not compress."""
    generator = np.random.default_rng(0)
    ramp = np.linspace(0, 2, width, dtype=np.float32)[None, :, None] * np.ones((height, 1, 3), np.float32)
    return ramp + generator.standard_normal((height, width, 3), np.float32) * 0.02


def write_alone(path: Path, samples: np.ndarray[tuple[int, ...], np.dtype[np.float32]], compression: str) -> None:
    """As OpenImageIO's manual writes a file."""
    spec = oiio.ImageSpec(samples.shape[1], samples.shape[0], 3, oiio.HALF)
    spec["compression"] = compression
    image = oiio.ImageOutput.create(str(path))
    if image is None:
        raise SystemExit(f"throughput.py: {oiio.geterror()}")
    if not (image.open(str(path), spec) and image.write_image(samples) and image.close()):
        raise SystemExit(f"throughput.py: {image.geterror()}")


def read_alone(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    image = oiio.ImageInput.open(str(path))
    if image is None:
        raise SystemExit(f"throughput.py: {oiio.geterror()}")
    samples = image.read_image(oiio.FLOAT)
    image.close()
    return np.asarray(samples)


def best(work: Callable[[int], object], frames: int) -> tuple[float, float]:
    """Wall and CPU seconds of the quickest frame."""
    walls, spent = [], []
    for number in range(frames):
        wall, cpu = time.perf_counter(), time.process_time()
        work(number)
        walls.append(time.perf_counter() - wall)
        spent.append(time.process_time() - cpu)
    return min(walls), min(spent)


def report(name: str, ours: tuple[float, float], alone: tuple[float, float]) -> None:
    of_wall, of_cpu = (100 * other / own for own, other in zip(ours, alone, strict=True))
    print(f"{name:<22} alone {alone[0]:6.3f} s, {alone[1]:6.3f} CPU-s   Fresco {ours[0]:6.3f} s, {ours[1]:6.3f} CPU-s"
          f"   {of_wall:4.0f} % of its speed by wall, {of_cpu:4.0f} % by CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=6, help="(default: %(default)s)")
    parser.add_argument("--size", default="3840x2160", help="(default: %(default)s)")
    parser.add_argument("--compression", default="zip", help="(default: %(default)s)")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), picture(width, height), options)


def measure(
    folder: Path, samples: np.ndarray[tuple[int, ...], np.dtype[np.float32]], options: argparse.Namespace
) -> None:
    """Write a sequence, then measure both ways on it."""
    plates, alone, ours = (folder / name for name in ("plate", "alone", "ours"))
    for made in (plates, alone, ours):
        made.mkdir()
    for number in range(options.frames):
        write_alone(plates / f"{number:04d}.exr", samples, options.compression)
    frame: Frame = read_frame(plates / "0000.exr")
    writer = DeliveryWriter(ours / "####.exr", range(options.frames), like=frame)

    def proved(number: int) -> None:
        """A delivery that is on the disk as a whole, which is what a render promises."""
        path = alone / f"{number:04d}.exr"
        write_alone(path, samples, options.compression)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        read_alone(path)

    ingest = best(lambda number: read_frame(plates / f"{number:04d}.exr"), options.frames)
    report("ingest", ingest, best(lambda number: read_alone(plates / f"{number:04d}.exr"), options.frames))
    delivery = best(lambda number: writer.write(number, frame, "0"), options.frames)
    plain = best(lambda number: write_alone(alone / f"{number:04d}.exr", samples, options.compression), options.frames)
    report("delivery, unproved", delivery, plain)
    report("delivery, proved", delivery, best(proved, options.frames))


if __name__ == "__main__":
    main()
