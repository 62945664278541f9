# SPDX-License-Identifier: Apache-2.0
"""How far drift of a long clip can be told and taken back: looks whose drift is known, on the first and last frames.

    python benchmarks/known_drift.py CLIP [CLIP ...] [--last 300] [--luma-alone]

No model is needed: a look is a function of the plate, by pixels or by neighbourhoods. A steady look has no drift, so
what is measured of it is the measure's error, and what the grade does to it is damage. The same looks are then given a
drift, and what the grade leaves of it is compared with the steady look on the same frames.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from statistics import median

import torch
import torch.nn.functional as F
from results import laid_out
from torch import Tensor

from fresco_backend.engine import tones
from fresco_backend.engine.tones import LUMA, Tones
from fresco_backend.files.frames import Frame
from fresco_backend.files.plate import open_plate
from fresco_backend.pixels.color import plate_space, to_engine

Change = Callable[[Tensor], Tensor]
_Found = list[tuple[float, float]]

COMPARED, EVERY = 24, 3  # frames at the head and at the tail, and of them each third
SIDE = 192  # pixels

HEADER = ["clip", "in common", "steady: said to drift", "steady: after the grade", "drifting", "after the grade"]


def around(image: Tensor, radius: int) -> Tensor:
    """The mean around each pixel."""
    return F.avg_pool2d(F.pad(image, (radius,) * 4, mode="replicate"), 2 * radius + 1, stride=1)


def saturated(image: Tensor, by: float) -> Tensor:
    """Colours further from grey."""
    grey = (image * image.new_tensor(LUMA)[:, None, None]).sum(-3, keepdim=True)
    return grey + (image - grey) * by


LOOKS: dict[str, Change] = {
    "the plate": lambda plate: plate,
    "softer tones": lambda plate: torch.tanh(plate * 1.3) * 0.8,
    "other hues": lambda plate: plate.roll(1, -3) * 0.5 + plate.square() * 0.3 - 0.1,
    "washes": lambda plate: saturated(around(plate, 4), 1.5).clamp(-1, 1),
    "washes and lines": lambda plate: (
        saturated(around(plate, 2), 1.3) - 1.5 * (plate - around(plate, 3)).abs().mean(-3, keepdim=True)
    ).clamp(-1, 1),
    "poster": lambda plate: ((saturated(around(plate, 2), 1.4) * 3).round() / 3).clamp(-1, 1),
}

DRIFTS: dict[str, Change] = {
    "flatter and warmer": lambda image: image * 0.9 + image.new_tensor([0.06, 0.0, -0.06])[:, None, None],
    "paler": lambda image: saturated(image, 0.8),
}


def main(words: Sequence[str] | None = None) -> None:
    """Print the table."""
    options = _parser().parse_args(words)
    if options.luma_alone:
        tones.HUES = 1
    rows = []
    for clip in options.clips:
        print(f"\r{clip}", end="", file=sys.stderr, flush=True)
        rows.append(_row(clip, *_frames(clip, options.last)))
    print(file=sys.stderr)
    print("In common: colours of the plate. Then colour / contrast in percent: median of the looks, and worst.\n")
    print(laid_out([HEADER, *rows], markdown=True))


def _row(clip: str, first: Tensor, later: Tensor) -> list[str]:
    said, damage, given, left = _Found(), _Found(), _Found(), _Found()
    for look in LOOKS.values():
        reference, steady = Tones.of(first, look(first)), look(later)
        drift = Tones.of(later, steady).drift(reference)
        said.append((drift.colour, drift.contrast))
        damage.append(difference(graded(later, steady, reference), steady))
        for change in DRIFTS.values():
            given.append(difference(change(steady), steady))
            left.append(difference(graded(later, change(steady), reference), steady))
    name = clip.replace("\\", "/").rsplit("/", 1)[-1]
    return [name, f"{100 * drift.covered:.0f} %", *map(_summary, (said, damage, given, left))]


def graded(plate: Tensor, result: Tensor, reference: Tones) -> Tensor:
    """The result as a later window is graded."""
    return Tones.of(plate, result).grade(reference).apply(result)


def difference(result: Tensor, wanted: Tensor) -> tuple[float, float]:
    """Largest difference of a channel's mean, part of the range, and of its contrast, relative: of the same frames."""
    colour = (result.mean((0, 2, 3)) - wanted.mean((0, 2, 3))).abs().max() / 2
    return float(colour), float((result.std((0, 2, 3)) / wanted.std((0, 2, 3)) - 1).abs().max())


def _summary(found: Sequence[tuple[float, float]]) -> str:
    colour, contrast = ([100 * value for value in values] for values in zip(*found, strict=True))
    return f"{median(colour):.1f} / {median(contrast):.1f}, {max(colour):.1f} / {max(contrast):.1f}"


def _frames(clip: str, last: int) -> tuple[Tensor, Tensor]:
    """The first frames of a clip and those before `last` or its end, (N, 3, H, W) each, with a short side of SIDE."""
    with closing(open_plate(clip)) as plate:
        numbers = plate.numbers[:last]
        parts = [[_small(plate.read(number)) for number in part[::EVERY]]
                 for part in (numbers[:COMPARED], numbers[-COMPARED:])]  # fmt: skip
    return torch.stack(parts[0]), torch.stack(parts[1])


def _small(frame: Frame) -> Tensor:
    image = to_engine(frame, plate_space(frame))
    scale = SIDE / min(image.shape[1:])
    size = [max(1, round(side * scale)) for side in image.shape[1:]]
    return F.interpolate(image[None], size=size, mode="area")[0] if scale < 1 else image


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("clips", nargs="+", metavar="CLIP", help="a movie or an image pattern")
    parser.add_argument("--last", type=int, default=300, metavar="N", help="frames of a clip at most (default: 300)")
    parser.add_argument("--luma-alone", action="store_true", help="compare by the plate's luma, not by its colours")
    return parser


if __name__ == "__main__":
    main()
