# SPDX-License-Identifier: Apache-2.0
"""How near in-betweens are to the truth: every frame of a clip is stylised by a filter, and few of them are kept.

    python benchmarks/in_betweens.py [--clips CLIP ...] [--filter ink|cel] [--markdown] [--pictures DIR]

CLIP is a movie or an image pattern, and may name frames: "street.mp4=31-49". One stylised frame in nine is kept, the
others are rebuilt from them and the plate, by Fresco and by plain warping along the same estimates of flow: of the
nearer keyframe, and of both with a cross-fade. Square crops; one thread; CPU seconds are those of one frame.
PSNR in decibels and SSIM against the truth; warp error: mean absolute difference of neighbours along the plate's flow
in per cent of the range, which the truth has too. scikit-image measures SSIM.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import cv2
import numpy as np
import torch
from skimage.metrics import structural_similarity
from strips import write_strip
from torch import Tensor

from fresco_backend.embedded import draw
from fresco_backend.engine.flow import warp
from fresco_backend.engine.long_flow import FlowBetween, FlowPair, LongFlow
from fresco_backend.engine.propagate import StyledKey, propagate
from fresco_backend.files.plate import open_plate
from fresco_backend.guides import motion
from fresco_backend.pixels.color import plate_space, to_engine
from fresco_protocol.shot import frame_numbers, parse_frames

DEMO = str(Path(__file__).parents[1] / "demo" / "plate" / "boat.####.exr")
GAP = 9
HEADINGS = ("clip", "keyframe warped", "both cross-faded", "Fresco", "truth", "CPU-s", "with flow")

Picture = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def ink(picture: Picture) -> Picture:
    """Flat colours with ink lines: OpenCV's `stylization` (Gastal and Oliveira, SIGGRAPH 2011)."""
    return np.asarray(cv2.stylization(picture, sigma_s=60, sigma_r=0.45), np.uint8)


def cel(picture: Picture) -> Picture:
    """Steps of flat colour: the target of the embedded model's look of this name."""
    drawn = draw.cel(np.asarray(picture / 255, np.float32), 1.0, np.random.default_rng(0))
    return np.asarray(np.round(drawn * 255), np.uint8)


FILTERS: dict[str, Callable[[Picture], Picture]] = {"ink": ink, "cel": cel}


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A clip, its frames (N, 3, S, S) in [-1, 1], and the same stylised one by one; N - 1 is a multiple of GAP."""

    name: str
    plates: Tensor
    styles: Tensor

    @property
    def rebuilt(self) -> list[int]:
        """The frames that are not kept."""
        return [frame for frame in range(len(self.plates)) if frame % GAP]


@dataclass(kw_only=True)
class Clock:
    """CPU seconds of what runs within."""

    seconds: float = 0.0
    began: float = field(default=0.0)

    def __enter__(self) -> None:
        self.began = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.process_time() - self.began


@dataclass(frozen=True, kw_only=True)
class Score:
    """psnr: decibels. ssim: in [0, 1]. warp_error: per cent of the range. See the head of this file."""

    psnr: float
    ssim: float
    warp_error: float

    def __str__(self) -> str:
        return f"{self.psnr:.2f} / {self.ssim:.3f} / {self.warp_error:.2f}"


def read(clip: str, options: argparse.Namespace) -> Truth:
    """Read a clip, cut out its middle square, and stylise every frame."""
    path, _, frames = clip.partition("=")
    with closing(open_plate(path)) as plate:
        numbers = frame_numbers(parse_frames(frames)) if frames else plate.numbers
        kept = numbers[: options.intervals * GAP + 1]
        read_frames = [plate.read(number) for number in kept[: (len(kept) - 1) // GAP * GAP + 1]]
    squares = [square(to_engine(frame, plate_space(frame)), options.size) for frame in read_frames]
    if len(squares) <= GAP:
        raise SystemExit(f"{clip} has fewer than {GAP + 1} frames")
    name = f"{Path(path).name.split('.')[0]} {kept[0]}-{kept[len(squares) - 1]}"
    return Truth(name=name, plates=tensor(squares), styles=tensor([FILTERS[options.filter](code) for code in squares]))


def square(image: Tensor, size: int) -> Picture:
    """The middle square of a frame (3, H, W) in [-1, 1] as 8-bit codes (size, size, 3)."""
    whole = codes(image)
    side = min(whole.shape[:2])
    top, left = ((length - side) // 2 for length in whole.shape[:2])
    resampling = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(whole[top : top + side, left : left + side], (size, size), interpolation=resampling))


def codes(image: Tensor) -> Picture:
    """A frame (3, H, W) in [-1, 1] as 8-bit codes (H, W, 3)."""
    return np.asarray(((image / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


def tensor(pictures: Sequence[Picture]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


class Estimates:
    """Flow between any frames of a clip, estimated once for all methods; the clock tells what that took."""

    def __init__(self, plates: Tensor) -> None:
        self._plates = plates
        self._found: dict[tuple[int, int], FlowPair] = {}
        self.clock = Clock()

    def __call__(self, first: int, second: int) -> FlowPair:
        pair = min(first, second), max(first, second)
        if pair not in self._found:
            with self.clock:
                there, back = motion.estimate_finely(*(self._plates[k : k + 1] for k in pair))
            self._found[pair] = there[0], back[0]
        return self._found[pair] if first < second else self._found[pair][::-1]


def intervals(truth: Truth) -> Iterator[range]:
    return (range(first, first + GAP + 1) for first in range(0, len(truth.plates) - 1, GAP))


def fresco(truth: Truth, estimates: Estimates, flow_clock: Clock) -> Tensor:
    """The clip rebuilt by the engine. flow_clock: gets what composing and choosing flow takes, without estimates."""
    rebuilt = truth.styles.clone()
    for frames in intervals(truth):
        keys = [StyledKey(frame=key, image=truth.styles[key]) for key in (frames[0], frames[-1])]
        flow = timed(LongFlow(frames, truth.plates.__getitem__, estimates), flow_clock)
        for frame, image in zip(frames, propagate(frames, keys, truth.plates.__getitem__, flow), strict=True):
            rebuilt[frame] = image
    return rebuilt


def timed(flow: FlowBetween, clock: Clock) -> FlowBetween:
    def within(first: int, second: int) -> FlowPair:
        with clock:
            return flow(first, second)

    return within


def warped(truth: Truth, flow: FlowBetween, *, fade: bool) -> Tensor:
    """The clip rebuilt by plain warping: of the nearer keyframe, or of both with a cross-fade."""
    rebuilt = truth.styles.clone()
    for frames in intervals(truth):
        for frame in frames[1:-1]:
            late = (frame - frames[0]) / GAP
            late = late if fade else round(late)
            first, last = (warp(truth.styles[key][None], flow(frame, key)[0][None])[0] for key in frames[::GAP])
            rebuilt[frame] = first.lerp(last, late)
    return rebuilt


def score(result: Tensor, truth: Truth, flow: FlowBetween) -> Score:
    psnr, ssim = nearness(result, truth, truth.rebuilt)
    return Score(psnr=psnr, ssim=ssim, warp_error=unsteadiness(result, flow))


def nearness(result: Tensor, truth: Truth, frames: Sequence[int]) -> tuple[float, float]:
    """PSNR and SSIM of some frames, the means."""
    errors = [((result[frame] - truth.styles[frame]) / 2).square().mean().item() for frame in frames]
    alike = [
        structural_similarity(result[frame].numpy(), truth.styles[frame].numpy(), channel_axis=0, data_range=2)
        for frame in frames
    ]
    # A frame that is given exactly, as in a still clip, would have an infinite PSNR.
    return mean(-10 * np.log10(max(error, 1e-10)) for error in errors), float(mean(alike))


def unsteadiness(result: Tensor, flow: FlowBetween) -> float:
    """The warp error of all frames, the mean."""
    return mean(100 * misalignment(result, flow(frame, frame - 1)[0], frame) for frame in range(1, len(result)))


def misalignment(result: Tensor, flow: Tensor, frame: int) -> float:
    """Mean absolute difference of a frame and the one before along the flow, where that stays inside."""
    inside = warp(torch.ones_like(flow[None, :1]), flow[None])[0] > 0.99
    difference = (warp(result[frame - 1][None], flow[None])[0] - result[frame]).abs() / 2 * inside
    return float(difference.sum() / inside.sum() / len(difference))


def measure(clip: str, options: argparse.Namespace) -> tuple[list[str], bool]:
    """A row of the table, and whether Fresco is nearer to the truth than both plain ways by PSNR and by SSIM."""
    truth = read(clip, options)
    estimates, whole, flow_clock = Estimates(truth.plates), Clock(), Clock()
    with whole:
        rebuilt = fresco(truth, estimates, flow_clock)
    without = (whole.seconds - flow_clock.seconds) / len(truth.rebuilt)
    plain = [score(warped(truth, estimates, fade=fade), truth, estimates) for fade in (False, True)]
    ours, itself = score(rebuilt, truth, estimates), score(truth.styles, truth, estimates)
    if options.pictures:
        rows = torch.cat([truth.plates, truth.styles, rebuilt])[:, :, ::2, ::2] / 2 + 0.5
        chosen = [place * len(truth.plates) + frame for place in range(3) for frame in (1, 3, 5, 7)]
        write_strip(options.pictures / f"{truth.name.replace(' ', '.')}.png", rows[chosen])
    better = all(ours.psnr > other.psnr and ours.ssim > other.ssim for other in plain)
    spent = f"{without:.2f}", f"{whole.seconds / len(truth.rebuilt):.2f}"
    return [truth.name, *map(str, plain), str(ours), f"{itself.warp_error:.2f}", *spent], better


def line(cells: Sequence[str], *, markdown: bool) -> str:
    if markdown:
        return "| " + " | ".join(cells) + " |"
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, (24, 20, 20, 20, 5, 5, 9), strict=True))


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """The options that `read` takes, and how results are shown."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--clips", nargs="+", default=[], metavar="CLIP", help="clips beside the demo plate")
    add("--filter", choices=FILTERS, default="ink", help="what stylises the truth (default: %(default)s)")
    add("--size", type=int, default=512, help="side of the square in pixels (default: %(default)s)")
    add("--intervals", type=int, default=2, help="intervals of a clip (default: %(default)s)")
    add("--pictures", type=Path, metavar="DIR", help="write plate, truth and result side by side")
    add("--markdown", action="store_true", help="the table in Markdown")
    return parser


def main() -> None:
    """Print a row for each clip as it is finished, and which clips plain warping serves better."""
    options = parser_of(__doc__).parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(line(HEADINGS, markdown=options.markdown), flush=True)
    if options.markdown:
        print("|---" * len(HEADINGS) + "|")
    worse = []
    for clip in (DEMO, *options.clips):
        row, better = measure(clip, options)
        print(line(row, markdown=options.markdown), flush=True)
        worse += [] if better else [row[0]]
    print(f"\nplain warping is nearer to the truth on: {', '.join(worse)}" if worse else "\nbetter on every clip")


if __name__ == "__main__":
    main()
