# SPDX-License-Identifier: Apache-2.0
"""Pictures of a benchmark to look at: a strip of frames for each variant, and all strips of a clip on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch.nn.functional as F
from torch import Tensor

HEIGHT = 128  # of a frame, in pixels
GAP = 2  # between frames
CAPTION = 18

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def write_strip(path: Path, frames: Tensor) -> None:
    """Write frames (N, 3, H, W) in [0, 1] side by side as a small PNG."""
    width = round(HEIGHT * frames.shape[3] / frames.shape[2])
    small = F.interpolate(frames.float(), (HEIGHT, width), mode="bilinear", antialias=True)
    codes = (F.pad(small, (0, GAP)).clamp(0, 1) * 255).round().byte().permute(2, 0, 3, 1).flatten(1, 2)  # (h, N * w, 3)
    _write(path, np.ascontiguousarray(codes.flip(-1).cpu().numpy()))


def write_sheet(path: Path, strips: Sequence[tuple[str, Path]]) -> None:
    """Write strips of one clip below each other, each under its caption."""
    pictures = [_captioned(caption, _read(strip)) for caption, strip in strips]
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0))) for picture in pictures]
    _write(path, np.concatenate(padded))


def _captioned(caption: str, picture: Pixels) -> Pixels:
    bar = np.zeros((CAPTION, picture.shape[1], 3), np.uint8)
    cv2.putText(bar, caption, (4, CAPTION - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([bar, picture])


def _read(path: Path) -> Pixels:
    return np.asarray(cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR), np.uint8)


def _write(path: Path, picture: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
