# SPDX-License-Identifier: Apache-2.0
"""Measure an exported model on what it was not trained on: the last stage of `train`, all figures of the model card.

Its autoencoder on photographs and clips; whether the look of a translated photograph is recognised; whether the plate's
structure is kept. `--card` writes the figures into the card, so that none is typed by hand.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from fresco_backend.embedded import looks_classifier, photos, sheet
from fresco_backend.embedded.figures import Fidelity, Figures, LookFigures, write_card
from fresco_backend.embedded.looks import LOOKS, LookName
from fresco_backend.embedded.looks_classifier import LooksClassifier
from fresco_backend.engine import denoise
from fresco_backend.engine.latents import decode, encode
from fresco_backend.engine.sampler import Sampler
from fresco_backend.engine.schedule import NoiseSchedule
from fresco_backend.files.frames import Frame, Size, read_frame
from fresco_backend.files.plate import open_plate
from fresco_backend.guides import controls
from fresco_backend.models import model_files, model_store, weights
from fresco_backend.pixels.color import plate_space, to_engine
from fresco_backend.pixels.resolution import resized
from fresco_backend.render.metrics import edge_agreement
from fresco_backend.render.recommendation import recommendation
from fresco_protocol.errors import UsageError
from fresco_protocol.shot import Control, Look

BATCH = 5
CELL = 96  # pixels of a picture in the sheet
FIGURES = "evaluation.json"

Naming = Callable[[Tensor], list[LookName]]


# Pictures -------------------------------------------------------------------------------------------------------------


def held_out_photos(folders: Sequence[Path], count: int) -> list[Path]:
    """`count` photographs that training never sees, evenly over the folders' classes. Raises UsageError if too few."""
    found = [path for path in photos.list_photos(folders) if photos.is_held_out(path)]
    if len(found) < count:
        raise UsageError(
            f"{len(found)} held-out photographs, not {count}",
            where=", ".join(map(str, folders)) or "no --photos",
            remedy="Give the folders of the training with --photos, or fewer --images.",
        )
    return [found[index] for index in np.linspace(0, len(found) - 1, count).round().astype(int)]


def square(frame: Frame, side: int) -> Tensor:
    """The middle of a picture, as the engine sees it: (3, side, side) in [-1, 1]."""
    image = to_engine(frame, plate_space(frame))
    short = min(image.shape[-2:])
    top, left = (image.shape[-2] - short) // 2, (image.shape[-1] - short) // 2
    return resized(image[None, :, top : top + short, left : left + short], Size(side, side))[0]


def photo_squares(paths: Sequence[Path], side: int) -> Tensor:
    """The photographs (N, 3, side, side) in [-1, 1]. Raises FrameUnreadable."""
    return torch.stack([square(read_frame(path), side) for path in paths])


def clip_squares(path: Path, side: int, count: int) -> Tensor:
    """`count` frames, evenly over a plate: (count, 3, side, side) in [-1, 1]. Raises as `open_plate` and its `read`."""
    plate = open_plate(path)
    places = np.linspace(0, len(plate.numbers) - 1, count).round().astype(int)
    squares = torch.stack([square(plate.read(plate.numbers[place]), side) for place in places])
    plate.close()
    return squares


# Measures -------------------------------------------------------------------------------------------------------------


def fidelity(source: str, vae: object, images: Tensor) -> Fidelity:
    """PSNR and SSIM of pictures (N, 3, H, W) in [-1, 1] that went through an autoencoder of diffusers and back.

    Source: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 2004, with its Gaussian window, over RGB.
    """
    restored = decode(vae, encode(vae, images, chunk=1), chunk=1)
    pairs = list(zip(_arrays(images), _arrays(restored), strict=True))
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    psnr = [peak_signal_noise_ratio(*pair, data_range=1) for pair in pairs]
    ssim = [structural_similarity(*pair, data_range=1, channel_axis=2, **window) for pair in pairs]
    return Fidelity(source=source, pictures=len(pairs), psnr=float(np.mean(psnr)), ssim=float(np.mean(ssim)))


def _arrays(images: Tensor) -> list[NDArray[np.float32]]:
    """Pictures (N, 3, H, W) in [-1, 1] as N arrays (H, W, 3) in [0, 1]."""
    return list((images / 2 + 0.5).permute(0, 2, 3, 1).contiguous().numpy())


class Translator:
    """An exported model at work as a plain shot has it: by the defaults of `Look` and the model's recommendation.

    Raises WeightsError when the folder holds no whole model.
    """

    def __init__(self, folder: Path) -> None:
        advised = recommendation(model_store.check(str(folder)))
        if advised.control is None:
            raise UsageError("this model has no ControlNet", where=folder, remedy="Evaluate the embedded model.")
        look = Look(prompt="a photo")
        self.kind, control = advised.control, Control(kind=advised.control)
        self.models = weights.load(str(folder), controls=(control,))
        self.network = self.models.controlnets[control]
        self.sampling = denoise.Sampling(
            steps=look.steps,
            strength=advised.strength,
            guidance=advised.guidance,
            sampler=Sampler(look.sampler.value),
        )
        schedule = NoiseSchedule.of(DDPMScheduler.from_config(dict(self.models.scheduler_config)))
        self.parts = denoise.DiffusionModels(unet=self.models.unet, vae=self.models.vae, schedule=schedule)

    def translate(self, plates: Tensor, prompt: str) -> Tensor:
        """Plates (N, 3, H, W) in [-1, 1] in the look of a prompt, each by itself."""
        batches = zip(plates.split(BATCH), torch.arange(len(plates)).split(BATCH), strict=True)
        return torch.cat([self._batch(batch, tuple(numbers.tolist()), prompt) for batch, numbers in batches])

    def _batch(self, plates: Tensor, numbers: tuple[int, ...], prompt: str) -> Tensor:
        count = len(plates)
        window = denoise.WindowInput(
            frames=numbers,
            images=plates,
            prompt=self.models.encode_prompts([prompt] * count),
            negative=self.models.encode_prompts([""] * count),
            controls=(denoise.Control(network=self.network, images=controls.detect(self.kind, plates)),),
        )
        result = denoise.result_of(denoise.denoise_window(self.parts, window, self.sampling))
        return decode(self.models.vae, result.latents)


def teacher_pictures(look: LookName, plates: Tensor) -> Tensor:
    """The styliser's own pictures of plates (N, 3, H, W) in [-1, 1]."""
    render = LOOKS[look].render
    rendered = [render(plate, 1.0, np.random.default_rng(seed)) for seed, plate in enumerate(_arrays(plates))]
    return torch.from_numpy(np.stack(rendered)).permute(0, 3, 1, 2) * 2 - 1


def measure_look(look: LookName, plates: Tensor, results: Tensor, naming: Naming) -> LookFigures:
    """The figures of results (N, 3, H, W) in [-1, 1] that a model made of plates; `naming` names looks."""
    teacher = teacher_pictures(look, plates)
    return LookFigures(
        look=look.value,
        named=dict(Counter(name.value for name in naming(results))),
        teacher_named=naming(teacher).count(look),
        edges=edge_agreement(results, plates),
        teacher_edges=edge_agreement(teacher, plates),
        chance_edges=edge_agreement(results, plates.roll(1, dims=0)),
    )


# The stage ------------------------------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the stage `evaluate`."""
    group = parser.add_argument_group("evaluate (of the model in --output)")
    group.add_argument("--clips", type=Path, nargs="+", default=[], help="movies and sequences, for the autoencoder")
    group.add_argument("--images", type=int, default=20, help="held-out photographs for each look")
    group.add_argument("--side", type=int, default=256, help="pixels of a translated photograph; training's")
    group.add_argument("--fidelity-side", type=int, default=512, help="pixels of a picture for the autoencoder")
    group.add_argument("--targets", type=int, default=9000, help="stylised pictures that the classifier learns from")
    group.add_argument("--looks", nargs="+", choices=[look.value for look in LOOKS], help="only these looks")
    group.add_argument("--card", action="store_true", help="put figures and pictures into the model's card")


def evaluate(options: argparse.Namespace) -> Figures:
    """Measure the model in `--output`; leave figures, sheet and curves in `--work`, with `--card` beside it."""
    folder: Path = options.output if options.card else options.work
    samples, curves = _samples(options.work), _curves(options.work)
    translator = Translator(options.output)
    classifier = looks_classifier.train_classifier(*looks_classifier.single_looks(options.work, options.targets))
    paths = held_out_photos(options.photos, options.images)
    plates = photo_squares(paths, options.side)
    looks, rows = _measure_looks(options, translator, classifier, plates)
    figures = Figures(
        weights=model_files.sha256(options.output / model_files.CHECKSUMS),
        samples=samples,
        side=options.side,
        fidelity_side=options.fidelity_side,
        strength=translator.sampling.strength,
        guidance=translator.sampling.guidance,
        fidelity=tuple(_measure_autoencoder(options, translator.models.vae, paths)),
        looks=looks,
    )
    (folder / FIGURES).write_text(figures.to_json())
    sheet.write_small(sheet.results_sheet(rows, CELL), folder / "sheet.webp")
    sheet.write_small(curves, folder / "losses.webp")
    if options.card:
        write_card(folder / "README.md", figures)
    print(figures.to_markdown(), flush=True)
    return figures


def _measure_looks(
    options: argparse.Namespace, translator: Translator, classifier: LooksClassifier, plates: Tensor
) -> tuple[tuple[LookFigures, ...], list[tuple[str, Tensor]]]:
    """The figures of each look, and the rows of the sheet: eight plates, then each look of them."""
    shown = np.linspace(0, len(plates) - 1, min(8, len(plates))).round().astype(int)
    vae = translator.models.vae

    def naming(pictures: Tensor) -> list[LookName]:
        return classifier.name(encode(vae, pictures))

    figures, rows = [], [("plate", plates[shown])]
    for look in map(LookName, options.looks or [name.value for name in LOOKS]):
        results = translator.translate(plates, LOOKS[look].phrases[0])
        figures.append(measure_look(look, plates, results, naming))
        rows.append((look.value, results[shown]))
        print(json.dumps(asdict(figures[-1])), flush=True)
    return tuple(figures), rows


def _measure_autoencoder(options: argparse.Namespace, vae: object, paths: Sequence[Path]) -> Iterator[Fidelity]:
    side: int = options.fidelity_side
    yield fidelity("held-out photographs", vae, photo_squares(paths, side))
    for clip in options.clips:
        yield fidelity(clip.name, vae, clip_squares(clip, side, 8))


def _samples(work: Path) -> int:
    """How many samples the diffusion was trained with."""
    return int(torch.load(work / "diffusion.pt", weights_only=True, mmap=True, map_location="cpu")["samples"])


def _curves(work: Path) -> sheet.Image:
    """The training logs side by side; a training that started from another model has none of the autoencoder."""
    losses = sheet.read_curves(work / "diffusion.jsonl", "samples", [f"loss_{250 * quarter}" for quarter in range(4)])
    named = {f"t from {name.removeprefix('loss_')}": curve for name, curve in losses.items()}
    plots = [sheet.plot("diffusion: weighted loss over samples, by time step", named)]
    log = work / "autoencoder.jsonl"
    if log.exists():
        before, after = sheet.read_curves(log, "step", ["psnr_before", "psnr_after"]).values()
        gain = [(step, restored - plain) for (step, plain), (_, restored) in zip(before, after, strict=True)]
        plots.append(sheet.plot("autoencoder: what restoration adds, dB over steps", {"PSNR gain": gain}))
    return np.concatenate(plots, axis=1)
