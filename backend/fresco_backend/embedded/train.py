# SPDX-License-Identifier: Apache-2.0
"""Train the embedded model from scratch: `python -m fresco_backend.embedded.train STAGE --photos DIR ... --work DIR`.

Stages, in order: data, autoencoder, diffusion, export, evaluate. The first three resume from what they find in the work
folder; a stage that is killed loses at most the minutes since its last checkpoint. Seeded; bfloat16 on CPU and CUDA.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch

from . import evaluate, photos
from .autoencoder_training import load_autoencoder, train_autoencoder
from .diffusion_training import train_diffusion
from .export import export
from .looks import LookName


def look_weight(text: str) -> tuple[LookName, float]:
    """A look and how much more often than others it is drawn: "charcoal:2". Raises ValueError."""
    name, weight = text.split(":")
    if not 0 < float(weight) < math.inf:
        raise ValueError(f"{weight} is no weight: a look is drawn at least now and then")
    return LookName(name), float(weight)


def parser() -> argparse.ArgumentParser:
    """The command line of the training."""
    result = argparse.ArgumentParser(prog="python -m fresco_backend.embedded.train", description=__doc__)
    result.add_argument("stage", choices=["data", "autoencoder", "diffusion", "export", "evaluate"])
    result.add_argument("--photos", type=Path, nargs="+", default=[], help="folders of photographs")
    result.add_argument("--work", type=Path, required=True, help="folder of shards and checkpoints")
    result.add_argument("--looks-per-crop", type=int, default=photos.LOOKS_PER_CROP, help="of the data stage")
    result.add_argument("--processes", type=int, default=2, help="of the data stage")
    result.add_argument("--steps", type=int, default=6000, help="steps of the autoencoder")
    result.add_argument("--phases", default="128:32:200000,256:16:100000", help="PIXELS:BATCH:SAMPLES,...")
    result.add_argument("--minutes", type=float, help="of the diffusion stage, cooled down at their end")
    result.add_argument("--unheard", type=float, default=0.0,
                        help="share of the diffusion stage's samples that the U-Net sees without its ControlNet")
    result.add_argument("--rate", type=float, default=5e-4, help="learning rate of the diffusion stage")
    result.add_argument("--emphasise", type=look_weight, nargs="*", default=[], metavar="LOOK:WEIGHT",
                        help="looks that are drawn more often in the diffusion stage")
    result.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    result.add_argument("--output", type=Path, default=Path(__file__).with_name("model"), help="folder for export")
    result.add_argument("--init", type=Path,
                        help="exported model from which a stage without checkpoint starts; its autoencoder, too")
    evaluate.add_options(result)
    return result


def main() -> None:
    """Run one stage."""
    options = parser().parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.stage == "data":
        photos.make_shards(
            options.photos, load_autoencoder(options.work, options.init), options.work,
            looks=options.looks_per_crop, processes=options.processes,
        )  # fmt: skip
    else:
        stages: dict[str, Callable[[argparse.Namespace], object]] = {
            "autoencoder": train_autoencoder, "diffusion": train_diffusion, "export": export,
            "evaluate": evaluate.evaluate,
        }  # fmt: skip
        stages[options.stage](options)


if __name__ == "__main__":
    main()
