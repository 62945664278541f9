# SPDX-License-Identifier: Apache-2.0
"""A picture larger than the model likes: as a whole and in overlapping tiles, by memory, time, and what shows of seams.

    .venv/bin/python benchmarks/tiles.py PLATE --working-size 576 [--frames 1001-1002] [--pictures DIR]

Each way is rendered by a process of its own, whose peak memory its side-car tells; the delivery has the working size's
detail. Seams: where a tile begins or ends, the step from each row or column to the next, against the steps of all
others; the same lines are measured in the picture that was made as a whole, which has no tiles, so that what the
picture itself has there is seen. 1.00 is no seam.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fresco_backend.engine.tiles import Tiling
from fresco_backend.frames import FloatArray, read_frame
from fresco_backend.resolution import PIXELS_PER_LATENT, SHARED
from fresco_backend.transfer import srgb_encode

WHOLE = 8192


def edges(length: int, side: int) -> list[int]:
    """Rows or columns of a padded picture at which tiles begin or end inside of it."""
    latents = side // PIXELS_PER_LATENT
    tiling = Tiling(side=latents, overlap=latents // SHARED)
    tiles = tiling.tiles((min(latents, length), length // PIXELS_PER_LATENT))
    ends = {tile.left for tile in tiles} | {tile.left + tile.width for tile in tiles}
    return sorted(end * PIXELS_PER_LATENT for end in ends if 0 < end * PIXELS_PER_LATENT < length)


def seams(picture: FloatArray, axis: int, places: list[int]) -> float:
    """Mean step over the lines at these places against the mean over all others. picture: (H, W, 3), display codes."""
    steps = np.abs(np.diff(picture, axis=axis)).mean(axis=(1 - axis, 2))
    chosen = np.isin(np.arange(len(steps)), [place - 1 for place in places])
    return float(steps[chosen].mean() / steps[~chosen].mean()) if chosen.any() else float("nan")


def rendered(options: argparse.Namespace, tile: int, folder: Path) -> tuple[dict[str, Any], list[FloatArray]]:
    """The side-car and the frames of a render in a process of its own."""
    command = [sys.executable, "-c", "import sys; from fresco_backend.cli import main; sys.exit(main())", "render",
               options.plate, "--frames", options.frames, "--keyframes", "every:1", "--prompt", options.prompt,
               "--working-size", str(options.working_size), "--tile-size", str(tile), "--quality", options.quality,
               "--steps", str(options.steps), "--upsampling", "bicubic",
               "-o", str(folder / "out.####.exr")]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    record = json.loads((folder / "out.exr.fresco.json").read_text(encoding="utf-8"))
    frames = [read_frame(path) for path in sorted(folder.glob("out.*.exr"))]
    return record, [np.clip(srgb_encode(frame.pixels), 0, 1) for frame in frames]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plate", help="a sequence whose size is about the working size: nothing is enlarged then")
    parser.add_argument("--frames", default="1001-1002", help="(default: %(default)s)")
    parser.add_argument("--working-size", type=int, default=576, help="(default: %(default)s)")
    parser.add_argument("--tile-size", type=int, default=384, help="(default: %(default)s)")
    parser.add_argument("--prompt", default="an oil painting of a boat", help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--quality", default="draft", help="(default: %(default)s)")
    parser.add_argument("--pictures", type=Path, help="a folder in which the frames are left")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = {}
        for name, tile in (("whole", WHOLE), ("tiles", options.tile_size)):
            folder = (options.pictures or Path(temporary)) / name
            folder.mkdir(parents=True, exist_ok=True)
            found[name] = rendered(options, tile, folder)
    for name, (record, pictures) in found.items():
        width, height = record["plate"]["working_size"]
        across, down = (edges(length, options.tile_size) for length in (width, height))
        figures = [(seams(picture, 1, _seen(across, width, picture.shape[1])),
                    seams(picture, 0, _seen(down, height, picture.shape[0]))) for picture in pictures]  # fmt: skip
        columns, rows = np.mean(figures, axis=0)
        measures = record["measures"]
        memory, seconds = measures["peak_memory_bytes"] / 2**20, measures["seconds"]["keyframes"]
        print(f"{name}: {record['plate']['tiles']} of {width}x{height}, {memory:.0f} MiB at the peak, {seconds:.0f} s, "
              f"steps at the tiles' edges {columns:.2f} across and {rows:.2f} down of those elsewhere")  # fmt: skip


def _seen(places: list[int], padded: int, delivered: int) -> list[int]:
    """The places without the even padding, as far as they are in the delivery."""
    margin = (padded - delivered) // 2
    return [place - margin for place in places if 0 < place - margin < delivered]


if __name__ == "__main__":
    main()
