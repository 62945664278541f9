# SPDX-License-Identifier: Apache-2.0
"""Textures and cells that are locked to the pixel grid.

Halftone, hatching and the smallest cells repeat every 8 pixels, the pitch of the model's latents: a convolution sees
the same phase at every latent and can learn them from the picture alone. Grain, snow and leaves are fixed tiles.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.float32]  # (H, W, 3), display-referred sRGB in [0, 1]
Plane = npt.NDArray[np.float32]  # (H, W)

PERIOD = 8
TILE = 64
SKY = 256


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A partition of a picture: `labels` (H, W) from 0 to `count` - 1; `depth` (H, W), pixels to the nearest border."""

    labels: npt.NDArray[np.int64]
    depth: Plane
    count: int


def blur(array: Picture | Plane, sigma: float) -> npt.NDArray[np.float32]:
    """Gaussian blur of `sigma` pixels, same shape."""
    return np.asarray(cv2.GaussianBlur(array, (0, 0), sigma), np.float32)


def smoothstep(low: float, high: float, values: Plane) -> Plane:
    """0 below `low`, 1 above `high`, a smooth cubic between them."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


@functools.cache
def _tile(softness: float) -> Plane:
    noise = np.random.default_rng(7).standard_normal((TILE, TILE)).astype(np.float32)
    wrapped = np.tile(noise, (3, 3))
    tile = (blur(wrapped, softness) if softness > 0 else wrapped)[TILE : 2 * TILE, TILE : 2 * TILE]
    return np.asarray((tile - tile.mean()) / tile.std(), np.float32)


def _tiled(tile: Plane, shape: Sequence[int]) -> Plane:
    height, width = shape[:2]
    repeats = (-(-height // tile.shape[0]), -(-width // tile.shape[1]))
    return np.asarray(np.tile(tile, repeats)[:height, :width], np.float32)


def grain(shape: Sequence[int], softness: float) -> Plane:
    """A fixed noise (H, W) for a picture of `shape`, mean 0 and deviation 1, grains of about `softness` pixels."""
    return _tiled(_tile(softness), shape)


def _scatter(pitch: int, seed: int) -> tuple[np.random.Generator, list[list[int]]]:
    """Places x, y in a square of SKY pixels, one at random in each lattice cell of `pitch`, clear of the border."""
    place = np.random.default_rng(seed)
    corners = np.stack(np.meshgrid(*2 * [np.arange(0, SKY, pitch)]), -1).reshape(-1, 2)
    spots = np.clip(corners + place.integers(0, pitch, corners.shape), 6, SKY - 6)
    return place, spots.tolist()


@functools.cache
def _flakes() -> Plane:
    place, spots = _scatter(20, 11)
    tile = np.zeros((SKY, SKY), np.float32)
    for x, y in spots:
        radius = int(place.choice([7, 9, 12, 16, 22]))  # in eighths of a pixel
        cv2.circle(tile, (8 * x + 3, 8 * y + 3), radius, (float(place.uniform(0.6, 1)),), -1, cv2.LINE_AA, 3)
    return np.asarray(np.clip(1.3 * blur(tile, 0.7), 0, 1), np.float32)


def snowfall(shape: Sequence[int]) -> Plane:
    """Coverage (H, W) in [0, 1] of falling snow: round flakes of two to five pixels across at fixed places."""
    return _tiled(_flakes(), shape)


@functools.cache
def _leaves() -> Plane:
    place, spots = _scatter(40, 5)
    tile = np.zeros((SKY, SKY), np.float32)
    for x, y in spots:
        length = int(place.integers(24, 40))  # half of it, in eighths of a pixel
        value, turn = float(place.choice([0.4, 0.7, 1.0])), float(place.uniform(0, 180))
        cv2.ellipse(tile, (8 * x, 8 * y), (length, length // 2), turn, 0, 360, (value,), -1, cv2.LINE_AA, 3)
    return tile


def leaf_fall(shape: Sequence[int]) -> Plane:
    """Falling leaves (H, W), six to ten pixels long, at fixed places: 0 is air, a leaf has one value from 0.4 to 1."""
    return _tiled(_leaves(), shape)


def _phases(height: int, width: int) -> tuple[Plane, Plane]:
    step = np.float32(2 * np.pi / PERIOD)
    return step * np.arange(height, dtype=np.float32)[:, None], step * np.arange(width, dtype=np.float32)[None, :]


def dots(coverage: Plane) -> Plane:
    """Halftone of `coverage` (H, W) in [0, 1] at 45 degrees: 1 inside the dots, pitch 5.7 pixels."""
    y, x = _phases(*coverage.shape)
    screen = np.cos(x) * np.cos(y)
    return smoothstep(-0.25, 0.25, np.asarray(screen - np.cos(np.pi * np.clip(coverage, 0, 1)), np.float32))


def hatching(coverage: Plane, *, rising: bool, wobble: Plane | float = 0.0) -> Plane:
    """Diagonal strokes, 1 inside, that widen with `coverage` (H, W) in [0, 1]; pitch 5.7 pixels, wobble in radians."""
    y, x = _phases(*coverage.shape)
    wave = np.cos((x + y if rising else x - y) + wobble)
    return smoothstep(-0.35, 0.35, np.asarray(wave - np.cos(np.pi * np.clip(coverage, 0, 1)), np.float32))


def cells(picture: Picture, pitch: int, *, compactness: float, staggered: bool) -> Cells:
    """Superpixels of about `pitch` pixels that follow edges.

    Two rounds of k-means seeded on a lattice in which a pixel may join only the nine nearest seeds (Achanta et al.,
    "SLIC Superpixels", 2012). A greater `compactness` keeps cells nearer to the lattice; `staggered` offsets every
    second row by half a pitch.
    """
    height, width = picture.shape[:2]
    seeds = _Seeds(height, width, pitch, staggered)
    position = np.stack(np.broadcast_arrays(*np.ogrid[:height, :width]), -1).astype(np.float32)
    lab = np.asarray(cv2.cvtColor(blur(picture, 1.0), cv2.COLOR_RGB2Lab), np.float32)
    points = np.dstack([lab, position * (compactness / pitch)]).reshape(-1, 5)
    nearest = seeds.home.ravel()
    for _ in range(2):
        nearest = _assign(points, means(points, nearest, seeds.count), seeds)
    labels = nearest.reshape(height, width)
    return Cells(labels=labels, depth=_depth(labels), count=seeds.count)


class _Seeds:
    """Lattice of seeds: `home` (H, W) the seed of a pixel's own lattice cell, `near` (seeds, 9) its neighbours."""

    def __init__(self, height: int, width: int, pitch: int, staggered: bool) -> None:
        row = np.arange(height) // pitch
        shift = (row % 2) * (pitch // 2 if staggered else 0)
        column = (np.arange(width)[None, :] + shift[:, None]) // pitch
        rows, columns = int(row[-1]) + 1, int(column.max()) + 1
        self.count = rows * columns
        self.home = row[:, None] * columns + column
        r, c = np.divmod(np.arange(self.count), columns)
        steps = [(dr, dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1)]
        self.near = np.stack(
            [np.clip(r + dr, 0, rows - 1) * columns + np.clip(c + dc, 0, columns - 1) for dr, dc in steps], -1
        )


def means(points: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.float32]:
    """Mean of `points` (P, C) for each of `count` labels, (count, C); a label that no point has gets 0."""
    size = np.maximum(np.bincount(labels, minlength=count), 1)
    sums = [np.bincount(labels, weights=points[:, c], minlength=count) for c in range(points.shape[1])]
    return np.asarray(np.stack(sums, -1) / size[:, None], np.float32)


def _assign(points: npt.NDArray[np.float32], centres: npt.NDArray[np.float32], seeds: _Seeds) -> npt.NDArray[np.int64]:
    home = seeds.home.ravel()
    best = np.full(len(points), np.inf, np.float32)
    labels = home.copy()
    for k in range(seeds.near.shape[1]):
        candidate = seeds.near[:, k]
        difference = points - centres[candidate][home]
        distance = np.einsum("pc,pc->p", difference, difference)
        closer = distance < best
        best = np.where(closer, distance, best)
        labels = np.where(closer, candidate[home], labels)
    return labels


def _depth(labels: npt.NDArray[np.int64]) -> Plane:
    inside = np.ones(labels.shape, np.uint8)
    inside[:, 1:][labels[:, 1:] != labels[:, :-1]] = 0
    inside[1:][labels[1:] != labels[:-1]] = 0
    return np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, 3), np.float32)
