# SPDX-License-Identifier: Apache-2.0
"""A whole training of the embedded model in seconds: synthetic photographs, a narrow U-Net, a handful of steps."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pytest

from fresco_backend.embedded import (
    architecture,
    diffusion_training,
    export,
    photos,
    train,
    training_files,
)
from fresco_backend.embedded.autoencoder_training import load_autoencoder, train_autoencoder

NOUNS = ("wild cat", "pagoda")
PHASES = "64:2:8"  # 64 pixels, batches of 2, 8 samples: four steps
STEPS = 4


def write_photos(folder: Path, *, trained: int = 3, held_out: int = 2) -> Path:
    """Blobs and bars on a gradient, of both kinds as many as asked for, in each of two class folders."""
    for noun in NOUNS:
        wanted = {False: trained, True: held_out}
        for number in count():
            path = folder / noun.replace(" ", "_") / f"image_{number:04d}.png"
            if wanted[photos.is_held_out(path)]:
                wanted[photos.is_held_out(path)] -= 1
                write_photo(path, seed=number)
            if not any(wanted.values()):
                break
    return folder


def write_photo(path: Path, seed: int = 0, size: tuple[int, int] = (120, 150)) -> Path:
    """One synthetic photograph of this height and width."""
    rng = np.random.default_rng(seed)
    height, width = size
    picture = np.linspace(rng.uniform(40, 90, 3), rng.uniform(150, 250, 3), height)[:, None].repeat(width, axis=1)
    picture = picture.astype(np.uint8)
    for _ in range(4):
        x, y = (int(value) for value in rng.integers((width, height)))
        cv2.circle(picture, (x, y), int(rng.integers(6, 30)), rng.uniform(0, 255, 3).tolist(), -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)
    return path


@contextmanager
def narrow() -> Iterator[None]:
    """Networks of few channels, a checkpoint and a record after each step, shards made in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(architecture, "CHANNELS", (32, 32, 64, 64))
        patch.setattr(training_files, "CHECKPOINT_SECONDS", -1)
        patch.setattr(diffusion_training, "LOG_STEPS", 1)
        patch.setattr(photos, "ProcessPoolExecutor", lambda _processes, mp_context: ThreadPoolExecutor(1))
        yield


def options(stage: str, work: Path, *more: str | Path) -> argparse.Namespace:
    """The options of one stage; folders of photographs lie beside `work`."""
    known = ["--work", work, "--photos", work.parent / "photos", "--steps", STEPS, "--phases", PHASES]
    return train.parser().parse_args([stage, *map(str, known), *map(str, more)])


def prepare(folder: Path) -> Path:
    """The work folder, inside `folder`, of a training whose diffusion has not begun."""
    write_photos(folder / "photos")
    work = folder / "work"
    work.mkdir()
    with narrow():
        chosen = options("autoencoder", work)
        train_autoencoder(chosen)
        photos.make_shards(chosen.photos, load_autoencoder(work), work)
    return work


def train_and_export(folder: Path) -> tuple[Path, Path]:
    """The work folder and the exported model, both inside `folder`, of a finished training."""
    work, model = prepare(folder), folder / "model"
    model.mkdir()
    with narrow():
        diffusion_training.train_diffusion(options("diffusion", work))
        export.export(options("export", work, "--output", model))
    return work, model
