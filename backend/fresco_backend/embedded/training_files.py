# SPDX-License-Identifier: Apache-2.0
"""What a training leaves in its work folder beside the shards: the log of each stage, and checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import torch

CHECKPOINT_SECONDS = 180


def log(work: Path, stage: str, **figures: float) -> None:
    """One JSON line of figures, to the work folder and to the terminal."""
    line = json.dumps({"stage": stage, **{name: round(value, 5) for name, value in figures.items()}})
    with (work / f"{stage}.jsonl").open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def save_atomically(state: object, path: Path) -> None:
    partial = path.with_suffix(".part")
    torch.save(state, partial)
    partial.rename(path)
