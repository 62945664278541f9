# SPDX-License-Identifier: Apache-2.0
"""What a 4K half-float EXR sequence costs on its way in and out, against OpenImageIO alone on the same files.

    python benchmarks/throughput.py [--frames 11] [--size 3840x2160] [--compression zip] [--alpha]

Alone: read, write, and for a delivery that is proved to be whole, synced and read back. Fresco: `read_frame` (every
channel and attribute kept), `DeliveryWriter.write` (cleaned, signed, read back, synced, renamed). Samples come and go
as float32 each way, with the same compression and threads. Frame by frame all ways take turns, every other time the
other way round, so that what else the machine does meets all of them: the figures are medians over the frames, the
percentages medians of those of each frame, with their quartiles.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import OpenImageIO as oiio  # noqa: N813, the name in its own manual

from fresco_backend.files.deliveries import DeliveryWriter, Encoding
from fresco_backend.files.frames import Frame, read_frame
from fresco_protocol.shot import BitDepth

Samples = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


class Cost(NamedTuple):
    """What one frame took one way, in seconds."""

    wall: float
    cpu: float


def picture(width: int, height: int, *, alpha: bool) -> Samples:
    """A picture with grain, as a camera gives it: noise does not compress. With alpha: half of it a soft edge."""
    generator = np.random.default_rng(0)
    ramp = np.linspace(0, 2, width, dtype=np.float32)[None, :, None] * np.ones((height, 1, 3), np.float32)
    colour = ramp + generator.standard_normal((height, width, 3), np.float32) * 0.02
    return np.concatenate([colour, np.minimum(ramp[..., :1], 1)], axis=2) if alpha else colour


def write_alone(path: Path, samples: Samples, compression: str) -> None:
    """Write a file as OpenImageIO's manual does, in half. samples: (H, W, C)."""
    spec = oiio.ImageSpec(samples.shape[1], samples.shape[0], samples.shape[2], oiio.HALF)
    spec["compression"] = compression
    image = oiio.ImageOutput.create(str(path))
    if image is None:
        raise SystemExit(f"throughput.py: {oiio.geterror()}")
    if not (image.open(str(path), spec) and image.write_image(samples) and image.close()):
        raise SystemExit(f"throughput.py: {image.geterror()}")


def read_alone(path: Path) -> Samples:
    image = oiio.ImageInput.open(str(path))
    if image is None:
        raise SystemExit(f"throughput.py: {oiio.geterror()}")
    samples = image.read_image(oiio.FLOAT)
    image.close()
    return np.asarray(samples)


def cost(work: Callable[[int], object], number: int) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work(number)
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def in_turns(
    ways: Mapping[str, Callable[[int], object]], frames: int, warm: Callable[[int], object]
) -> dict[str, list[Cost]]:
    """What each frame costs each way; a first one that finds nothing warm is left out.

    warm: not measured; it does once what all ways do, since the first to ask for memory pays for the others.
    """
    found: dict[str, list[Cost]] = {name: [] for name in ways}
    for number in range(-1, frames):
        warm(max(number, 0))
        for name in ways if number % 2 else reversed(list(ways)):
            spent = cost(ways[name], max(number, 0))
            if number >= 0:
                found[name].append(spent)
    return found


def report(name: str, alone: Sequence[Cost], ours: Sequence[Cost]) -> None:
    other, own = (Cost(*map(statistics.median, zip(*costs, strict=True))) for costs in (alone, ours))
    shares = []
    for kind in ("wall", "cpu"):
        each = [100 * getattr(a, kind) / getattr(b, kind) for a, b in zip(alone, ours, strict=True)]
        low, middle, high = statistics.quantiles(each, n=4)
        shares.append(f"{middle:4.0f} % of its speed by {kind} ({low:.0f} to {high:.0f})")
    print(
        f"{name:<17} alone {other.wall:6.3f} s, {other.cpu:6.3f} CPU-s   Fresco {own.wall:6.3f} s,"
        f" {own.cpu:6.3f} CPU-s  {'  '.join(shares)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=11, help="two or more (default: %(default)s)")
    parser.add_argument("--size", default="3840x2160", help="(default: %(default)s)")
    parser.add_argument("--compression", default="zip", help="(default: %(default)s)")
    parser.add_argument("--alpha", action="store_true", help="RGBA in place of RGB")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), picture(width, height, alpha=options.alpha), options)


def measure(folder: Path, samples: Samples, options: argparse.Namespace) -> None:
    """Write a sequence, then measure all ways on it."""
    plates, alone, ours = (folder / name for name in ("plate", "alone", "ours"))
    for made in (plates, alone, ours):
        made.mkdir()
    for number in range(options.frames):
        write_alone(plates / f"{number:04d}.exr", samples, options.compression)
    frame: Frame = read_frame(plates / "0000.exr")
    encoding = Encoding(bit_depth=BitDepth.HALF, compression=options.compression)
    writer = DeliveryWriter(ours / "####.exr", range(options.frames), like=frame, encoding=encoding)

    def proved(number: int) -> None:
        """A delivery that is on the disk as a whole, which is what a render promises."""
        path = alone / f"{number:04d}.exr"
        write_alone(path, samples, options.compression)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        read_alone(path)

    def plate(number: int) -> Path:
        return plates / f"{number:04d}.exr"

    reading: dict[str, Callable[[int], object]] = {
        "read": lambda number: read_alone(plate(number)),
        "ingest": lambda number: read_frame(plate(number)),
    }
    writing: dict[str, Callable[[int], object]] = {
        "write": lambda number: write_alone(alone / f"{number:04d}.exr", samples, options.compression),
        "delivery": lambda number: writer.write(number, frame, "0"),
        "proved": proved,
    }
    found = in_turns(reading, options.frames, reading["read"]) | in_turns(writing, options.frames, writing["write"])
    report("ingest", found["read"], found["ingest"])
    report("delivery", found["write"], found["delivery"])
    report("in and out", both(found["read"], found["write"]), both(found["ingest"], found["delivery"]))
    report("delivery, proved", found["proved"], found["delivery"])


def both(first: Sequence[Cost], second: Sequence[Cost]) -> list[Cost]:
    """The cost of one after the other, frame by frame."""
    return [Cost(a.wall + b.wall, a.cpu + b.cpu) for a, b in zip(first, second, strict=True)]


if __name__ == "__main__":
    main()
