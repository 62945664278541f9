# SPDX-License-Identifier: Apache-2.0
"""What becomes of highlights when FRESCO stands between the plate and the delivery: each method on the demo's frames.

    .venv/bin/python benchmarks/fidelity.py --frames 1010-1013 --markdown

The frames are denoised once for each picture that a model can be shown; every method brings the same painted frames
back into the plate's light. Measured in stops of luminance against the plate, by bands of the plate's own luminance.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import OpenImageIO as oiio  # noqa: N813, the name in its own manual
import torch
from numpy.typing import NDArray
from results import laid_out
from torch import Tensor

from fresco_backend import pipeline
from fresco_backend.engine.flow import inconsistent, warp
from fresco_backend.files.frames import FloatArray, Frame
from fresco_backend.guides import motion
from fresco_backend.pixels.color import from_engine, to_engine
from fresco_backend.pixels.detail import with_plate_detail
from fresco_backend.pixels.highlights import Showing
from fresco_backend.render.job import Job, open_job
from fresco_protocol.shot import Highlights, Keyframing, Rendering, Shot, frame_numbers, parse_frames

DEMO = Path(__file__).parents[1] / "demo" / "shot.json"
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
BANDS = ((1, 4), (4, 16), (16, np.inf))  # of the plate's luminance
RING = 9  # pixels around a highlight in which a halo would lie
TOO_BRIGHT = 1.5  # stops
LEAST = 1e-3  # of luminance, below which stops have no meaning
HEADINGS = ("method", "error 1-4", "4-16", ">16", "flicker 1-4", "4-16", ">16", "energy", "halo %")


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way of highlights. shown: what the model saw; brought back by `showing`, and clipped at 1 if `clipped`."""

    name: str
    shown: Showing
    showing: Showing
    clipped: bool = False


def _showing(method: Highlights, rendering: Rendering) -> Showing:
    return Showing(method=method, rendering=rendering)


ACES, SRGB = (_showing(Highlights.PRESERVE, rendering) for rendering in (Rendering.ACES, Rendering.SRGB))
LOG = _showing(Highlights.MODEL, Rendering.ACES)
METHODS = (
    Method(name="sRGB, clipped", shown=SRGB, showing=_showing(Highlights.DISPLAY, Rendering.SRGB), clipped=True),
    Method(name="preserve, sRGB", shown=SRGB, showing=SRGB),
    Method(name="preserve, ACES 2.0", shown=ACES, showing=ACES),
    Method(name="display, ACES 2.0", shown=ACES, showing=_showing(Highlights.DISPLAY, Rendering.ACES)),
    Method(name="model, ACEScct", shown=LOG, showing=LOG),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Denoise, bring back, print the table."""
    options = _options().parse_args(arguments)
    torch.set_num_threads(options.threads)
    numbers = frame_numbers(parse_frames(options.frames))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for shown in dict.fromkeys(method.shown for method in METHODS):
            place = Path(folder) / f"{shown.method.value}-{shown.rendering.value}"
            job, painted = _painted(options, shown, numbers, place)
            rows += [_row(method, job, painted, options.pictures) for method in METHODS if method.shown == shown]
            job.close()
    print(laid_out([HEADINGS, *rows], markdown=options.markdown))


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shot", type=Path, default=DEMO)
    parser.add_argument("--frames", default="1010-1013", help="neighbouring frames, denoised as one window")
    parser.add_argument("--prompt", default="an oil painting")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--working-size", type=int, default=320)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pictures", type=Path, help="folder for the first frame of each method, as EXR")
    parser.add_argument("--markdown", action="store_true")
    return parser


def _painted(options: argparse.Namespace, shown: Showing, numbers: Sequence[int], folder: Path) -> tuple[
        Job, dict[int, Tensor]]:
    """The stylised frames at working size, (3, h, w) in [-1, 1], and the job that they belong to."""
    document = Shot.from_json(options.shot.read_text(encoding="utf-8")).located(str(options.shot.parent))
    ranges = parse_frames(",".join(map(str, numbers)))
    shot = replace(
        document,
        plate=replace(document.plate, frames=ranges, rendering=shown.rendering),
        look=replace(document.look, prompt=options.prompt, model=options.model, steps=options.steps),
        keyframing=Keyframing(minimum_gap=1, maximum_gap=1, window=max(len(numbers), 3)),
        delivery=replace(document.delivery, sequence=str(folder / "look.####.exr"), highlights=shown.method,
                         working_size=options.working_size),
    )  # fmt: skip
    for _ in pipeline.render(shot, keep_scratch=True):
        pass
    job = open_job(shot)
    return job, {number: job.scratch.load_key(number) for number in numbers}


def _row(method: Method, job: Job, painted: dict[int, Tensor], pictures: Path | None) -> list[str]:
    plates = {number: job.plate.read(number) for number in painted}
    light = {number: _brought_back(method, job, plates[number], image) for number, image in painted.items()}
    truth = {number: plate.pixels @ LUMINANCE for number, plate in plates.items()}
    found = {number: picture @ LUMINANCE for number, picture in light.items()}
    if pictures is not None:
        first = min(light)
        _save(pictures / f"{method.name.replace(', ', '-').replace(' ', '-')}.exr", light[first])
    errors = [_rms([_stops(found[n]) - _stops(truth[n]) for n in truth], [_band(truth[n], band) for n in truth])
              for band in BANDS]  # fmt: skip
    flicker = _flicker(job, truth, found)
    over = [truth[n] > 1 for n in truth]
    energy = sum(float(np.maximum(found[n], 0)[mask].sum()) for n, mask in zip(truth, over, strict=True)) / sum(
        float(truth[n][mask].sum()) for n, mask in zip(truth, over, strict=True))
    halo = 100 * float(np.mean([_halo(truth[n], found[n]) for n in truth]))
    return [method.name, *(f"{value:.2f}" for value in (*errors, *flicker, energy, halo))]


def _brought_back(method: Method, job: Job, plate: Frame, image: Tensor) -> FloatArray:
    seen = to_engine(plate, job.space, method.shown)
    large = with_plate_detail(job.working.without_padding(image[None]), seen[None])[0]
    pixels = from_engine(large, plate, job.space, method.showing, seen).pixels
    return np.clip(pixels, 0, 1) if method.clipped else pixels


def _stops(luminance: FloatArray) -> FloatArray:
    return np.asarray(np.log2(np.maximum(luminance, LEAST)), np.float32)


def _band(truth: FloatArray, band: tuple[float, float]) -> NDArray[np.bool_]:
    return np.asarray((truth >= band[0]) & (truth < band[1]))


def _rms(errors: Sequence[FloatArray], masks: Sequence[NDArray[np.bool_]]) -> float:
    values = np.concatenate([error[mask] for error, mask in zip(errors, masks, strict=True)])
    return float(np.sqrt(np.square(values).mean())) if values.size else float("nan")


def _flicker(job: Job, truth: dict[int, FloatArray], found: dict[int, FloatArray]) -> Iterator[float]:
    """RMS in stops of how the change along the flow differs from the plate's own change, by bands."""
    errors, lit = [], []
    for before, after in zip(sorted(truth), sorted(truth)[1:], strict=False):
        one, two = (to_engine(job.plate.read(number), job.space)[None] for number in (before, after))
        there, back = motion.estimate(two, one)
        lost = inconsistent(there, back)[0][0].numpy() > 0
        change = [_stops(stops[after]) - _warped(_stops(stops[before]), there) for stops in (found, truth)]
        errors.append(change[0] - change[1])
        lit.append(np.where(lost, 0, truth[after]))
    for band in BANDS:
        yield _rms(errors, [_band(luminance, band) for luminance in lit])


def _warped(values: FloatArray, flow: Tensor) -> FloatArray:
    return np.asarray(warp(torch.from_numpy(values)[None, None], flow)[0, 0].numpy())


def _halo(truth: FloatArray, found: FloatArray) -> float:
    """The part of the ring around highlights that is much brighter than the plate."""
    bright = (truth > 4).astype(np.uint8)
    ring = (cv2.dilate(bright, np.ones((2 * RING + 1,) * 2, np.uint8)) > 0) & (truth < 1)
    return float((_stops(found) - _stops(truth) > TOO_BRIGHT)[ring].mean()) if ring.any() else 0.0


def _save(path: Path, light: FloatArray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    oiio.ImageBuf(np.ascontiguousarray(light)).write(str(path), oiio.HALF)


if __name__ == "__main__":
    main()
