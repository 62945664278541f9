# SPDX-License-Identifier: Apache-2.0
"""Training pairs: square crops of photographs at several scales, each with the same crop in a few looks.

Written as shards of latents in float16, so that a shard is computed once and training may begin while others are made.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ..guides.controls import soft_edges
from .dct import DctAutoencoder
from .looks import GRADES, MEDIA, LookName, render_combination

SUFFIXES = {".webp", ".jpg", ".jpeg", ".png"}
SIDE = 256
LOOKS_PER_CROP = 3
HELD_OUT_SHARE = 25  # one photograph in 25 is never trained on

Image = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Crop:
    """One square of one photograph. `noun` is the class name of its folder, when it has one."""

    path: Path
    noun: str | None
    seed: int


def is_held_out(path: Path) -> bool:
    """Whether a photograph belongs to the held-out share; depends on its folder's and file's names alone."""
    return zlib.crc32(f"{path.parent.name}/{path.name}".encode()) % HELD_OUT_SHARE == 0


def list_photos(folders: Sequence[Path]) -> list[Path]:
    """All pictures below the folders, sorted by name."""
    return sorted(path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def noun_of(path: Path) -> str | None:
    """The words of a class folder ("wild_cat" -> "wild cat"); None for folders that name no class."""
    name = path.parent.name.lower()
    if "background" in name or name in ("images", "nature"):
        return None
    plurals = {"faces": "face", "faces_easy": "face", "airplanes": "airplane", "leopards": "leopard"}
    return {**plurals, "motorbikes": "motorbike"}.get(name, name.replace("_", " "))


def crops_of(path: Path) -> Iterator[Crop]:
    """One crop of a small photograph; up to 40 of a large one."""
    picture = cv2.imread(str(path), cv2.IMREAD_REDUCED_GRAYSCALE_8)
    if picture is None or min(picture.shape) < 8:
        return
    count = min(40, max(1, picture.size * 64 // (4 * SIDE * SIDE)))
    for index in range(count):
        yield Crop(path=path, noun=noun_of(path), seed=zlib.crc32(f"{path.name}{index}".encode()))


def training_crops(folders: Sequence[Path]) -> list[Crop]:
    """The crops of all photographs below the folders but the held-out ones. Raises ValueError where there are none."""
    crops = [crop for path in list_photos(folders) if not is_held_out(path) for crop in crops_of(path)]
    if not crops:
        found = ", ".join(map(str, folders)) or "no folder"
        raise ValueError(f"no photograph to train on in {found}: give folders of them with --photos")
    return crops


def read_crop(crop: Crop, side: int = SIDE) -> Image:
    """The crop (side, side, 3), float32 in [0, 1], display-referred sRGB; same crop for the same seed."""
    rng = np.random.default_rng(crop.seed)
    bgr = cv2.imread(str(crop.path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError(f"{crop.path} cannot be decoded; remove it from the training folders")
    height, width = bgr.shape[:2]
    short = min(height, width)
    extent = int(short * rng.uniform(0.75, 1.0)) if short < 3 * side else int(rng.uniform(side, short))
    top, left = rng.integers(height - extent + 1), rng.integers(width - extent + 1)
    square = bgr[top : top + extent, left : left + extent]
    method = cv2.INTER_AREA if extent > side else cv2.INTER_CUBIC
    resized = cv2.resize(square, (side, side), interpolation=method)[..., ::-1]
    picture: Image = np.clip(resized / np.float32(255), 0, 1)
    return picture


def draw_looks(rng: np.random.Generator) -> tuple[LookName, ...]:
    """The look(s) of one target: mostly one, sometimes a medium over a grade, sometimes none (the photograph)."""
    kind = rng.choice(3, p=[0.7, 0.22, 0.08])
    if kind == 0:
        return (_pick(rng, MEDIA + GRADES),)
    return (_pick(rng, MEDIA), _pick(rng, GRADES)) if kind == 1 else (LookName.PHOTO,)


def _pick(rng: np.random.Generator, choices: Sequence[LookName]) -> LookName:
    return choices[int(rng.integers(len(choices)))]


def stylise(names: Sequence[LookName], image: Image, rng: np.random.Generator) -> Image:
    """A training target: the picture in its look(s), more or less of it."""
    return render_combination(names, image, float(rng.uniform(0.8, 1.2)), rng)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The pairs of one shard of M crops.

    edges: (M, 3, 256, 256) uint8, soft edges of the plates. plate_latents: (M, C, 32, 32) float16.
    targets: (M, looks, C, 32, 32) float16, as many of every crop. names: the looks of each target.
    nouns: what each crop shows.
    """

    edges: NDArray[np.uint8]
    plate_latents: NDArray[np.float16]
    targets: NDArray[np.float16]
    names: list[list[tuple[LookName, ...]]]
    nouns: list[str | None]


def encode(autoencoder: DctAutoencoder, images: Sequence[Image]) -> NDArray[np.float16]:
    """Latents (N, C, 32, 32) of pictures in [0, 1]."""
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) * 2 - 1
    with torch.no_grad():
        latents: NDArray[np.float16] = autoencoder.encode(batch, return_dict=False)[0].mode().half().numpy()
    return latents


def edges_of(image: Image) -> NDArray[np.uint8]:
    """The control image (3, H, W) of a picture in [0, 1], in 8 bits."""
    planes = torch.from_numpy(image).permute(2, 0, 1)[None] * 2 - 1
    codes: NDArray[np.uint8] = (soft_edges(planes)[0] * 255).round().byte().numpy()
    return codes


def make_shard(crops: Sequence[Crop], config: dict[str, object], target: Path, looks: int = LOOKS_PER_CROP) -> Path:
    """Render and encode one shard and write it to `target` (a folder of .npy files), atomically."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    autoencoder = DctAutoencoder.from_config(config)
    edges, plate_latents, targets, names = [], [], [], []
    for crop in crops:
        image, rng = read_crop(crop), np.random.default_rng(crop.seed + 1)
        drawn = [draw_looks(rng) for _ in range(looks)]
        styled = [stylise(each, image, rng) for each in drawn]
        latents = encode(autoencoder, [image, *styled])
        edges.append(edges_of(image))
        plate_latents.append(latents[0])
        targets.append(latents[1:])
        names.append([[name.value for name in each] for each in drawn])
    partial = target.with_name(target.name + ".part")
    partial.mkdir(parents=True, exist_ok=True)
    np.save(partial / "edges.npy", np.stack(edges))
    np.save(partial / "plate_latents.npy", np.stack(plate_latents))
    np.save(partial / "targets.npy", np.stack(targets))
    (partial / "labels.json").write_text(json.dumps({"names": names, "nouns": [crop.noun for crop in crops]}))
    partial.rename(target)
    return target


def make_shards(
    folders: Sequence[Path],
    autoencoder: DctAutoencoder,
    work: Path,
    *,
    size: int = 250,
    looks: int = LOOKS_PER_CROP,
    processes: int = 2,
) -> None:
    """Write all shards that `work` does not hold yet, in a seeded order. looks: targets of each crop.

    Raises ValueError where the folders hold no photographs.
    """
    crops = training_crops(folders)
    order = np.random.default_rng(0).permutation(len(crops))
    chunks = [[crops[i] for i in order[start : start + size]] for start in range(0, len(crops), size)]
    config = dict(autoencoder.config)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        pending = [
            pool.submit(make_shard, chunk, config, work / f"shard_{index:04d}", looks)
            for index, chunk in enumerate(chunks)
            if not (work / f"shard_{index:04d}").exists()
        ]
        for done, future in enumerate(pending, 1):
            print(f"data: {future.result().name} ({done}/{len(pending)})", flush=True)


def list_shards(work: Path) -> list[Path]:
    """The folders of all finished shards."""
    return sorted(work.glob("shard_????"))


def load_shards(work: Path) -> list[Pairs]:
    """All finished shards of a folder, memory-mapped."""
    shards = []
    for folder in list_shards(work):
        labels = json.loads((folder / "labels.json").read_text())
        stored = ("edges", "plate_latents", "targets")
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in stored}
        names = [[tuple(map(LookName, target)) for target in crop] for crop in labels["names"]]
        shards.append(Pairs(**arrays, names=names, nouns=labels["nouns"]))
    return shards
