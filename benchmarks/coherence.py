# SPDX-License-Identifier: Apache-2.0
"""How steady each part of FRESCO makes a clip, and each way of making frames: on the demo shot and on your own clips.

    python benchmarks/coherence.py [--clips CLIP ...] [--part 1/2] [--pictures DIR] [--markdown]

CLIP is a movie or an image pattern, and may name frames: "street.mp4", "street.mp4=25-32", "plate.####.exr=1001-1008".
All frames of a stretch are denoised as one window, once for each variant of the paper's ablation; then the shot is made
by each mode of synthesis, translated and edited, in-betweens and inversion included. Finished rows are kept in a JSON
file, so that a stopped run goes on; a row is computed again when its shot, its files or its variant change, not when
the code does: then say --fresh. Several processes may share the work: each measures a part of the clips (--part 1/2,
--part 2/2); then the command without a part prints the tables of all. The clock holds denoising and decoding, of a mode
all but the loading of the model.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from diffusers import DDPMScheduler
from judge import PLATES, Judge, look_of
from modes import MODES, Mode, stylised
from results import Row, Store, by_clip, laid_out, means
from steadiness import Ruler
from strips import write_sheet, write_strip
from torch import Tensor
from variants import PLAIN, VARIANTS, Part, Variant

from fresco_backend.engine import denoise
from fresco_backend.engine.coherence import WindowGuidance
from fresco_backend.engine.correspondence import Correspondence
from fresco_backend.engine.keyframes import Window
from fresco_backend.engine.latents import decode
from fresco_backend.engine.schedule import NoiseSchedule
from fresco_backend.files.plate import open_plate
from fresco_backend.files.sequences import frames_text
from fresco_backend.guides import motion
from fresco_backend.models.weights import Models, load
from fresco_backend.render import windows
from fresco_backend.render.job import open_job
from fresco_protocol.errors import FrescoError
from fresco_protocol.shot import Delivery, FrameRange, Look, Matte, Plate, Shot, parse_frames

ROOT = Path(__file__).parents[1]
STORE = ROOT / "out" / "benchmarks" / "coherence.json"
PROMPT = "an oil painting with visible brush strokes"
CAPTION = "a photo"
AMPLIFIED = 4  # differences in pictures
THE_PLATE = "the plate itself"
ENTRIES: tuple[Variant | Mode, ...] = (*VARIANTS, *MODES)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A plate to measure on. frames: written as in a shot; None takes the first ones."""

    plate: str
    frames: str | None = None
    matte: str | None = None

    @classmethod
    def parse(cls, text: str) -> Clip:
        """The clip of "PLATE" or "PLATE=FRAMES"."""
        plate, _, frames = text.partition("=")
        return cls(plate=plate, frames=frames or None)

    def ranges(self, count: int) -> tuple[FrameRange, ...]:
        """The frames; the first `count` of the plate when none are named."""
        if self.frames is not None:
            return parse_frames(self.frames)
        with closing(open_plate(self.plate)) as reader:
            return tuple(FrameRange(first=number, last=number) for number in reader.numbers[:count])


DEMO = Clip(plate=str(ROOT / "demo" / "plate" / "boat.####.exr"), matte=str(ROOT / "demo" / "matte" / "boat.####.png"))


class Stretch:
    """The frames of one clip, ready to be denoised as one window."""

    def __init__(self, clip: Clip, options: argparse.Namespace) -> None:
        self._asked, self._caption = _shot(clip, options), options.caption
        self.job = open_job(self._asked)
        name = Path(clip.plate).name.split(".")[0]
        self.name = f"{name} {frames_text(self.job.frames)}"

    def key(self, variant: Variant | Mode | None) -> str:
        """What a row depends on; None is the plate itself."""
        text = f"{self.job.identity} {variant.identity if variant else 'plate'}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def plate(self) -> Tensor:
        """The plate's frames at working size, without padding: (N, 3, H, W) in [-1, 1]."""
        return self._measured(windows.working_images(self.job, self.job.frames))

    @cached_property
    def ruler(self) -> Ruler:
        """The measures of results against the plate."""
        return Ruler(self.plate)

    def result(self, entry: Variant | Mode | None) -> tuple[Tensor, float | None]:
        """The frames of a row; None is the plate, which takes no time."""
        if entry is None:
            return self.plate, None
        return self.made(entry) if isinstance(entry, Mode) else self.render(entry)

    def made(self, mode: Mode) -> tuple[Tensor, float]:
        """The frames by a mode of synthesis, and the seconds of wall time that each one took; as `render`."""
        self._models  # noqa: B018, loading is not on the clock
        began = time.perf_counter()
        images = stylised(mode.applied(self._asked, self._caption), models_of)
        return self._measured(images), (time.perf_counter() - began) / len(images)

    def render(self, variant: Variant) -> tuple[Tensor, float]:
        """The stylised frames as `plate`, and the seconds of wall time that each one took."""
        window = replace(self._window, guidance=self._guidance(variant))
        sampling = replace(windows.sampling(self.job.shot.look), sharing=variant.sharing)
        began = time.perf_counter()
        images = self._denoised(window, sampling)
        return self._measured(images), (time.perf_counter() - began) / len(images)

    def _denoised(self, window: denoise.WindowInput, sampling: denoise.Sampling) -> Tensor:
        models = denoise.DiffusionModels(unet=self._models.unet, vae=self._models.vae, schedule=self._schedule)
        return decode(models.vae, denoise.result_of(denoise.denoise_window(models, window, sampling)).latents).cpu()

    def _guidance(self, variant: Variant) -> WindowGuidance | None:
        whole = self._window.guidance
        if whole is None or not variant.parts:
            return None
        if variant.cyclic:
            images = self._window.images
            whole = replace(whole, correspondence=Correspondence(frames=images, flow=motion.window_flow(images)))
        background = whole.background if Part.BACKGROUND in variant.parts else None
        return replace(whole, coherence=variant.coherence(whole.coherence), background=background)

    def _measured(self, images: Tensor) -> Tensor:
        return self.job.working.without_padding(images)

    @cached_property
    def _models(self) -> Models:
        return models_of(self.job.shot.look)

    @cached_property
    def _schedule(self) -> NoiseSchedule:
        return NoiseSchedule.of(DDPMScheduler.from_config(dict(self._models.scheduler_config)))

    @cached_property
    def _window(self) -> denoise.WindowInput:
        window = windows.window_input(self.job, self._models, Window(anchors=(), keys=self.job.frames))
        # The first call of a network is slow, and would count against the first variant.
        self._denoised(replace(window, guidance=None), denoise.Sampling(steps=1, strength=1))
        return window


@cache
def models_of(look: Look) -> Models:
    """The models of a look, loaded once for all clips."""
    return load(look.model, controls=look.controls or ())


def _shot(clip: Clip, options: argparse.Namespace) -> Shot:
    return Shot(
        plate=Plate(sequence=clip.plate, frames=clip.ranges(options.frames)),
        matte=Matte(sequence=clip.matte) if clip.matte else None,
        look=Look(
            prompt=options.prompt, model=options.model, strength=options.strength, steps=options.steps,
            seed=options.seed,
        ),
        delivery=Delivery(sequence=str(STORE.with_suffix(".####.png")), working_size=options.working_size),
    )  # fmt: skip


class Pictures:
    """The strips of one clip in a folder."""

    def __init__(self, folder: Path, stretch: Stretch) -> None:
        self._folder = folder / stretch.name.replace(" ", ".")
        self._stretch = stretch

    def has(self, key: str) -> bool:
        """Whether both strips of a row are there."""
        return all(path.exists() for path in self._paths(key))

    def write(self, key: str, result: Tensor) -> None:
        """Write the frames of a row, and their amplified aligned differences."""
        frames, differences = self._paths(key)
        write_strip(frames, result / 2 + 0.5)
        write_strip(differences, self._stretch.ruler.differences(result) * AMPLIFIED)

    def write_sheets(self, captions: dict[str, str]) -> None:
        """Write the two sheets of a clip. captions: by the keys of its rows."""
        for place, name in enumerate(("frames", f"differences-x{AMPLIFIED}")):
            strips = [(caption, self._paths(key)[place]) for key, caption in captions.items()]
            write_sheet(self._folder / f"{name}.png", strips)

    def _paths(self, key: str) -> tuple[Path, Path]:
        return self._folder / "strips" / f"{key}.png", self._folder / "strips" / f"{key}.differences.png"


def measure(
    clip: Clip, options: argparse.Namespace, store: Store, judge: Callable[[], Judge | None]
) -> Iterator[Row]:
    """Give the rows of a clip as they finish, the plate's own first."""
    stretch = Stretch(clip, options)
    pictures = Pictures(options.pictures, stretch) if options.pictures else None
    captions: dict[str, str] = {}
    with closing(stretch.job):
        for entry in (None, *(entry for entry in ENTRIES if entry.name in options.variants)):
            key = stretch.key(entry)
            lacks_pictures = pictures is not None and not pictures.has(key)
            if options.fresh or key not in store.rows or lacks_pictures:
                result, seconds = stretch.result(entry)
                look = found.confidence(result) if (found := judge()) else None
                title = entry.title if entry else THE_PLATE
                store.add(key, Row(clip=stretch.name, variant=title, seconds=seconds, look=look,
                                   **asdict(stretch.ruler.measure(result))))
                if pictures is not None:
                    pictures.write(key, result)
            captions[key] = store.rows[key].caption
            yield store.rows[key]
    if pictures is not None:
        pictures.write_sheets(captions)


def _judge(clips: Sequence[Clip], options: argparse.Namespace) -> Judge | None:
    """What tells the look of the prompt in results; None when the prompt names none."""
    look = look_of(options.prompt)
    if look is None:
        return None
    plates: list[Tensor] = []
    for clip in clips:
        with closing(Stretch(clip, options).job) as job:
            places = np.linspace(0, len(job.frames) - 1, max(1, PLATES // len(clips))).round().astype(int)
            plates += windows.working_images(job, sorted({job.frames[place] for place in places}))
            models = models_of(job.shot.look)
    return Judge.trained(plates, models.vae, look)


def _part(text: str) -> Callable[[Sequence[Clip]], Sequence[Clip]]:
    """What takes every n-th clip, from "1/2"."""
    first, _, each = text.partition("/")
    if not (first.isdecimal() and each.isdecimal() and 1 <= int(first) <= int(each)):
        raise argparse.ArgumentTypeError(f"a part is written as 1/2, not {text}")
    return lambda clips: clips[int(first) - 1 :: int(each)]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [entry.name for entry in ENTRIES]
    add = parser.add_argument
    add("--clips", nargs="+", type=Clip.parse, default=[], metavar="CLIP", help="clips beside the demo shot")
    add("--variants", nargs="+", choices=names, default=names, metavar="VARIANT", help=f"of {', '.join(names)}")
    add("--frames", type=int, default=8, help="consecutive frames of a clip that names none (default: %(default)s)")
    add("--working-size", type=int, default=256, help="short side in pixels (default: %(default)s)")
    add("--model", default="embedded", help="as of fresco render (default: %(default)s)")
    add("--prompt", default=PROMPT, help="(default: %(default)s)")
    add("--caption", default=CAPTION, help="what the plates show, for edits (default: %(default)s)")
    add("--strength", type=float, help="(default: what the model recommends)")
    add("--steps", type=int, default=20, help="(default: %(default)s)")
    add("--seed", type=int, default=0, help="(default: %(default)s)")
    add("--store", type=Path, default=STORE, metavar="FILE", help="where rows are kept (default: %(default)s)")
    add("--part", type=_part, default="1/1", metavar="I/N", help="measure every N-th clip, from the I-th one")
    add("--fresh", action="store_true", help="compute finished rows again")
    add("--pictures", type=Path, metavar="DIR", help="write strips of frames and of differences")
    add("--markdown", action="store_true", help="tables in Markdown")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, demo: Clip = DEMO) -> None:
    """Measure, then print the tables on stdout; rows appear on stderr as they finish."""
    options = _arguments(argv)
    store = Store.open(options.store)
    clips, rows = (demo, *options.clips), dict[tuple[str, str], Row]()
    judge = cache(lambda: _judge(clips, options))  # trained when a row is measured, not when all are there
    try:
        for clip in options.part(clips):
            for row in measure(clip, options, store, judge):
                if (row.clip, row.variant) in rows:
                    raise SystemExit(f"coherence.py: two clips are called {row.clip}: rename one of their files")
                rows[row.clip, row.variant] = row
                print(row, file=sys.stderr, flush=True)
    except FrescoError as error:
        raise SystemExit(f"coherence.py: {error}") from error
    tables = [means(list(rows.values()), PLAIN.title)]
    if options.clips:
        tables.append(by_clip(list(rows.values())))
    print("\n\n".join(laid_out(table, markdown=options.markdown) for table in tables))


if __name__ == "__main__":
    main()
