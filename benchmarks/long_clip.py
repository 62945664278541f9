# SPDX-License-Identifier: Apache-2.0
"""A long clip from end to end: memory while it renders, and how far its look drifts.

    python benchmarks/long_clip.py CLIP [--frames 1-300] [--out DIR] [further options of fresco render]

The clip is rendered by `fresco render` in a process of its own, whose resident memory is read once a second (Linux).
Then the first and the last frames are compared with the plate. Left in DIR: the frames, memory.png (memory over time,
with a mark where each window begins), strip.png to look at, and figures.json. A stopped run goes on, with a plot of the
rest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np
import torch
from processes import memory
from strips import write_strip
from torch import Tensor

from fresco_backend.engine.tones import HUES, LEVELS, Tones
from fresco_backend.files.plate import PlateReader, open_plate
from fresco_backend.pixels.color import plate_space, to_engine
from fresco_backend.render import record
from fresco_protocol.shot import frame_numbers, parse_frames

PROMPT = "a watercolour painting"
COMPARED = 24  # frames at the head and at the tail
SHOWN = 8
PLOT = (300, 900)  # height and width in pixels
MARGIN = 40
MIB = 2**20


@dataclass(kw_only=True)
class Memory:
    """Resident memory of a process: samples of (seconds, bytes), and when each window began to be denoised."""

    samples: list[tuple[float, int]] = field(default_factory=list)
    windows: dict[int, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def watch(self, process: int, stop: threading.Event) -> None:
        """Take samples until told to stop or until the process ends."""
        while not stop.wait(1.0) and (held := memory(process)):
            if "VmRSS" in held:
                self.samples.append((time.monotonic() - self.began, held["VmRSS"]))

    @property
    def peaks(self) -> list[int]:
        """The peak of each window, from its first step to the first one of the next; of all where none began."""
        begins = sorted(self.windows.values())
        found: list[list[int]] = [[] for _ in begins or [0.0]]
        for at, size in self.samples:
            if not begins or at >= begins[0]:
                found[max(bisect_right(begins, at), 1) - 1].append(size)
        return [max(sizes) for sizes in found if sizes]

    @property
    def growth(self) -> float:
        """How much higher the mean peak of the later half of the windows is than that of the others, relative."""
        peaks = self.peaks
        half = (len(peaks) + 1) // 2
        return fmean(peaks[half:] or peaks) / fmean(peaks[:half]) - 1


def main(words: Sequence[str] | None = None) -> None:
    """Render, measure, and print the figures on stdout."""
    options, rest = _parser().parse_known_args(words)
    options.out.mkdir(parents=True, exist_ok=True)
    delivery = options.out / "frame.####.png"
    memory = _rendered(options, delivery, rest)
    figures = {**_measured(options, delivery), "peak_mib": max(size for _, size in memory.samples) / MIB,
               "window_peaks_mib": [round(size / MIB) for size in memory.peaks],
               "growth": memory.growth, "seconds": memory.samples[-1][0], "windows": len(memory.windows)}
    cv2.imwrite(str(options.out / "memory.png"), _plot(memory))
    (options.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))


def _rendered(options: argparse.Namespace, delivery: Path, rest: Sequence[str]) -> Memory:
    command = [sys.executable, "-m", "fresco_backend.cli", "render", options.clip, f"--frames={options.frames}",
               "-o", str(delivery), "--prompt", options.prompt, "--progress", "json", *rest]
    memory, stop = Memory(), threading.Event()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watcher = threading.Thread(target=memory.watch, args=(process.pid, stop))
        watcher.start()
        for line in process.stdout or ():
            event = json.loads(line)
            if event["event"] == "advanced" and event["stage"] == "keyframes":
                memory.windows.setdefault(event["window"], time.monotonic() - memory.began)
                print(f"\rwindow {event['window']} of {event['windows']}", end="", file=sys.stderr, flush=True)
        stop.set()
        watcher.join()
    if process.returncode or not memory.samples:
        raise SystemExit(f"long_clip.py: fresco render ended with {process.returncode}")
    return memory


def _measured(options: argparse.Namespace, delivery: Path) -> dict[str, float]:
    """Drift of the look by the plate's colours, and of its plain mean and contrast against the plate's.

    Parts of the range: from the first window's frames to the last one's, at most to any window's, and from the first
    COMPARED frames to as many at the end.
    """
    numbers = sorted(frame_numbers(parse_frames(options.frames)))
    with closing(open_plate(options.clip, numbers)) as plate, closing(open_plate(delivery, numbers)) as result:
        (before, made_before), (after, made_after) = (
            (_images(plate, part), _images(result, part)) for part in (numbers[:COMPARED], numbers[-COMPARED:])
        )
        first, *later = [_tones(plate, result, part) for part in _windows(delivery, numbers)]
        drifts = [tones.drift(first) for tones in later] or [first.drift(first)]
        shown = [numbers[place] for place in np.linspace(0, len(numbers) - 1, SHOWN).round().astype(int)]
        write_strip(options.out / "strip.png", _images(result, shown) / 2 + 0.5)
    ends = Tones.of(after, made_after).drift(Tones.of(before, made_before))
    colour = (_mean(made_after) - _mean(after)) - (_mean(made_before) - _mean(before))
    contrast = _contrast(made_after, after) / _contrast(made_before, before) - 1
    return {**{f"drift_{name}": value for name, value in asdict(drifts[-1]).items()},
            "most_colour": max(drift.colour for drift in drifts),
            "most_contrast": max(drift.contrast for drift in drifts),
            "ends_colour": ends.colour, "ends_contrast": ends.contrast,
            "plain_colour": float(colour.abs().max() / 2), "plain_contrast": float(contrast.abs().max())}


def _windows(delivery: Path, numbers: Sequence[int]) -> list[list[int]]:
    """The frames of each window: up to its last keyframe, as the record beside the delivery tells, the rest last."""
    windows = json.loads(record.path_of(str(delivery)).read_bytes())["measures"]["windows"]
    ends = [window[-1] for window in windows[:-1]]
    found: list[list[int]] = [[] for _ in windows]
    for number in numbers:
        found[bisect_left(ends, number)].append(number)
    return found


def _tones(plate: PlateReader, result: PlateReader, numbers: Sequence[int]) -> Tones:
    """What became of the plate's tones over some frames, which are read one by one."""
    return Tones(table=sum(
        (Tones.of(_images(plate, [number]), _images(result, [number])).table for number in numbers),
        start=torch.zeros(LEVELS * HUES**2, 4, dtype=torch.float64)))


def _images(reader: PlateReader, numbers: Sequence[int]) -> Tensor:
    frames = [reader.read(number) for number in numbers]
    return torch.stack([to_engine(frame, plate_space(frame)) for frame in frames])


def _mean(images: Tensor) -> Tensor:
    return images.mean((0, 2, 3))


def _contrast(images: Tensor, plate: Tensor) -> Tensor:
    return images.std((0, 2, 3)) / plate.std((0, 2, 3))


def _plot(memory: Memory) -> np.ndarray:
    height, width = PLOT
    picture = np.full((height, width, 3), 255, np.uint8)
    longest, peak = memory.samples[-1][0], max(size for _, size in memory.samples)

    def place(at: float, size: float) -> tuple[int, int]:
        across, up = (width - 2 * MARGIN) * at / longest, (height - 2 * MARGIN) * size / peak
        return round(MARGIN + across), round(height - MARGIN - up)

    for at in memory.windows.values():
        cv2.line(picture, place(at, 0), place(at, peak), (225, 225, 225), 1)
    for (at, size), (later, grown) in zip(memory.samples, memory.samples[1:], strict=False):
        cv2.line(picture, place(at, size), place(later, grown), (160, 80, 0), 1, cv2.LINE_AA)
    cv2.line(picture, place(0, 0), place(longest, 0), (0, 0, 0), 1)
    text = f"resident memory, peak {peak / MIB:.0f} MiB, over {longest:.0f} s; grey: a window begins"
    cv2.putText(picture, text, (MARGIN, MARGIN - 15), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return picture


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("clip", metavar="CLIP", help="a movie or an image pattern, as of fresco render")
    add("--frames", default="1-300", metavar="SPEC", help="(default: %(default)s)")
    add("--prompt", default=PROMPT, help="(default: %(default)s)")
    add("--out", type=Path, default=Path("out/benchmarks/long_clip"), metavar="DIR", help="(default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
