# SPDX-License-Identifier: Apache-2.0
"""Light from 1/64 to 64 through the whole loop: what of its order and its energy comes back from a painted ramp.

    .venv/bin/python benchmarks/ramp.py [--prompts "an oil painting" "a comic"] [--strength 0.6]

A grey ramp of 256x128, painted by the model at its own strength, highlights as by default. Energy: sum of squares of
stops over middle grey where the plate is over white, against the plate's. Falling: stretches of half a stop over white,
of 12, that are not brighter than the one before. Error: root mean square of stops, by bands of the plate's luminance.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813, the name in its own manual

from fresco_backend import pipeline
from fresco_backend.files.frames import FloatArray, read_frame
from fresco_backend.pixels.color_config import color_space, luminance_weights
from fresco_protocol.shot import Delivery, Look, Plate, Shot

WIDTH, HEIGHT, STOPS = 256, 128, 6
GREY = 0.18
SPACES = ("lin_rec709_scene", "ACEScg")  # shown by the sRGB curve, and by ACES 2.0
BANDS = ((1, 4), (4, 16), (16, np.inf))


def plate(path: Path, space: str) -> None:
    """The ramp as an EXR of half floats."""
    ramp = np.exp2(np.linspace(-STOPS, STOPS, WIDTH, dtype=np.float32))[None, :, None]
    image = oiio.ImageBuf(np.ascontiguousarray(np.broadcast_to(ramp, (HEIGHT, WIDTH, 3))))
    image.specmod()["oiio:ColorSpace"] = space
    if not image.write(str(path), oiio.HALF):
        raise SystemExit(f"ramp.py: {image.geterror()}")


def stops(pixels: FloatArray, space: str) -> FloatArray:
    light = pixels @ np.array(luminance_weights(color_space(space)), np.float32)
    return np.asarray(np.log2(np.maximum(light, 1e-6)), np.float32)


def row(folder: Path, space: str, prompt: str, options: argparse.Namespace) -> str:
    """Render one ramp and tell what came back of it."""
    plate(folder / "plate.1001.exr", space)
    shot = Shot(
        plate=Plate(sequence=str(folder / "plate.####.exr"), color_space=space),
        look=Look(prompt=prompt, model=options.model, strength=options.strength),
        delivery=Delivery(sequence=str(folder / "out.####.exr"), working_size=HEIGHT, overwrite=True),
    )
    for _ in pipeline.render(shot):
        pass
    before, after = (stops(read_frame(folder / f"{name}.1001.exr").pixels, space) for name in ("plate", "out"))
    over = before > 0
    energy = [float(np.square(light[over] - np.log2(GREY)).sum()) for light in (before, after)]
    bright = np.median(after[:, before[0] > 0], axis=0)
    stretches = bright[: len(bright) // 12 * 12].reshape(12, -1).mean(axis=1)
    errors = [float(np.sqrt(np.square((after - before)[(before >= np.log2(low)) & (before < np.log2(high))]).mean()))
              for low, high in BANDS]  # fmt: skip
    cells = [space, prompt, f"{energy[1] / energy[0]:.3f}", f"{int((np.diff(stretches) <= 0).sum())} of 12",
             *(f"{error:.2f}" for error in errors), f"{2 ** after.max():.1f}"]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", nargs="+", default=["an oil painting", "a watercolour painting", "a comic"])
    parser.add_argument("--model", default="embedded", help="(default: %(default)s)")
    parser.add_argument("--strength", type=float, help="(default: the model's own)")
    options = parser.parse_args()
    print("| plate | look | energy | falling | error 1-4 | 4-16 | >16 | brightest |\n|---|---|--:|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for space in SPACES:
            for prompt in options.prompts:
                print(row(Path(folder), space, prompt, options), flush=True)


if __name__ == "__main__":
    main()
