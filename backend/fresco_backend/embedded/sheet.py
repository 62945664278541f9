# SPDX-License-Identifier: Apache-2.0
"""Pictures for the model card: a sheet of looks by plates, and the curves of a training's log."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Image = NDArray[np.uint8]  # (H, W, 3), BGR as OpenCV writes it

LABEL = 108  # pixels for a row's name
INK, PAPER, RULE = (40, 40, 40), 255, (215, 215, 215)
COLOURS = ((180, 110, 40), (40, 130, 230), (70, 150, 60), (50, 50, 200))  # BGR; they differ in lightness too
QUALITIES = (88, 80, 70, 60, 50, 40)


def results_sheet(rows: Sequence[tuple[str, Tensor]], cell: int) -> Image:
    """A row for each name: its pictures (N, 3, H, W) in [-1, 1], side by side, `cell` pixels wide and high."""
    return np.concatenate([np.concatenate([_label(name, cell), _strip(images, cell)], axis=1) for name, images in rows])


def _strip(images: Tensor, cell: int) -> Image:
    small = F.interpolate(images, (cell, cell), mode="bilinear", antialias=True)
    codes = ((small / 2 + 0.5).clamp(0, 1) * 255).round().byte().flip(1)
    strip: Image = torch.cat(list(codes), dim=2).permute(1, 2, 0).numpy()
    return strip


def _label(name: str, height: int) -> Image:
    label = np.full((height, LABEL, 3), PAPER, np.uint8)
    _write(label, name, (6, height // 2 + 4))
    return label


def _write(image: Image, text: str, corner: tuple[int, int], colour: tuple[int, int, int] = INK) -> None:
    cv2.putText(image, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)


def write_small(image: Image, path: Path, limit: int = 400_000) -> Path:
    """Write a WebP file of at most `limit` bytes at the best quality that fits. Raises ValueError when none does."""
    for quality in QUALITIES:
        done, code = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])
        if done and code.nbytes <= limit:
            path.write_bytes(code.tobytes())
            return path
    raise ValueError(f"{path.name} does not fit into {limit} bytes: show fewer or smaller pictures")


Curve = Sequence[tuple[float, float]]


def read_curves(log: Path, abscissa: str, names: Sequence[str]) -> dict[str, Curve]:
    """The curves of a log of JSON lines by name, sorted by `abscissa`, zeros (nothing measured) left out.

    A training that resumes repeats some steps: their last record counts.
    """
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    records = {line[abscissa]: line for line in lines}
    return {name: [(x, records[x][name]) for x in sorted(records) if records[x].get(name)] for name in names}


def plot(title: str, curves: Mapping[str, Curve], width: int = 460, height: int = 260) -> Image:
    """The curves, each a running mean over a fortieth of its length; the ordinate is linear and labelled at its ends.

    Raises ValueError when there is no point to draw.
    """
    smooth = {name: _smoothed(np.array(curve, float)) for name, curve in curves.items() if len(curve)}
    if not smooth:
        raise ValueError(f"the log has no figures for: {title}")
    points = np.concatenate(list(smooth.values()))
    low, high = points.min(axis=0), points.max(axis=0)
    frame = np.array([[46, height - 34], [width - 12, 30]])  # pixels of the lowest and of the highest values
    image = np.full((height, width, 3), PAPER, np.uint8)
    cv2.rectangle(image, frame[0].tolist(), frame[1].tolist(), RULE)
    _write(image, title, (46, 18))
    _write(image, f"{high[1]:.3g}", (4, 36))
    _write(image, f"{low[1]:.3g}", (4, height - 34))
    _write(image, f"{high[0]:,.0f}", (width - 80, height - 18))
    for index, (name, curve) in enumerate(smooth.items()):
        colour = COLOURS[index % len(COLOURS)]
        pixels = frame[0] + (curve - low) / np.maximum(high - low, 1e-9) * (frame[1] - frame[0])
        cv2.polylines(image, [pixels.round().astype(np.int32)], False, colour, 1, cv2.LINE_AA)
        _write(image, name, (46 + 100 * index, height - 4), colour)
    return image


def _smoothed(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    size = max(1, len(curve) // 40)
    kernel = np.full(size, 1 / size)
    return np.stack([np.convolve(column, kernel, mode="valid") for column in curve.T], axis=1)
