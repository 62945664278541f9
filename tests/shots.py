# SPDX-License-Identifier: Apache-2.0
"""Small shots of a tiny model, and what their renders leave on the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import tiny
from fresco_backend import pipeline
from fresco_backend.events import Delivered, Event
from fresco_protocol.shot import Delivery, Keyframing, Look, Plate, Shot

FRAMES = range(1001, 1010)


def write_plate(folder: Path, count: int = len(FRAMES), **options: Any) -> Path:
    """A moving plate of 64 x 64 pixels from frame 1001 on; gives its pattern."""
    return tiny.write_sequence(folder, tiny.moving_plate(count, 64).frames, **options)


def small_shot(plate: Path | str, model: Path, delivery: Path) -> Shot:
    """A shot of three windows and two denoising steps: keyframes on every second frame, three in a window."""
    return Shot(
        plate=Plate(sequence=str(plate)),
        look=Look(prompt="a photo", model=str(model), steps=4, strength=0.5),
        keyframing=Keyframing(minimum_gap=2, maximum_gap=2, window=3),
        delivery=Delivery(sequence=str(delivery)),
    )


def with_look(shot: Shot, **changes: Any) -> Shot:
    """The shot with another look."""
    return replace(shot, look=replace(shot.look, **changes))


def with_plate(shot: Shot, **changes: Any) -> Shot:
    """The shot with another plate."""
    return replace(shot, plate=replace(shot.plate, **changes))


def with_delivery(shot: Shot, **changes: Any) -> Shot:
    """The shot with another delivery."""
    return replace(shot, delivery=replace(shot.delivery, **changes))


def rendered(shot: Shot, **options: Any) -> list[Event]:
    """All events of a render."""
    return list(pipeline.render(shot, **options))


def delivered(events: Iterable[Event]) -> list[int]:
    """The frames that a render wrote, in order."""
    return [event.frame for event in events if isinstance(event, Delivered)]


def bits(folder: Path) -> dict[str, str]:
    """Hashes of all pictures in a folder by name: whatever is not whole or not wanted shows up here."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.endswith(".fresco.json"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
