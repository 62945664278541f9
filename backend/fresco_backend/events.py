# SPDX-License-Identifier: Apache-2.0
"""What a render tells while it runs: plain facts, one frozen dataclass each, for a terminal, a log or a host."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class Stage(Enum):
    """The stages of a render, in order; the unit that each one counts is given."""

    ANALYSE = "analyse"  # frames read for the choice of keyframes
    INVERT = "invert"  # steps of inversion, over all frames
    KEYFRAMES = "keyframes"  # denoising steps, over all windows
    DELIVER = "deliver"  # frames written, keyframes and in-betweens
    MOVIE = "movie"  # frames encoded into the movie


@dataclass(frozen=True, kw_only=True)
class Event:
    """Anything that a render says."""

    def to_json(self) -> dict[str, Any]:
        """The event as a JSON object; "event" names its class in lower case."""
        facts = {name: value.value if isinstance(value, Enum) else value for name, value in asdict(self).items()}
        return {"event": type(self).__name__.lower(), **facts}


@dataclass(frozen=True, kw_only=True)
class Planned(Event):
    """What will be done; all that `--dry-run` shows.

    frames: numbers to deliver, delivered: those of them that lie there finished. keyframes: plate numbers; None before
    the analysis has run (adaptive choice). windows: keyframe numbers denoised together, anchors first. plate_size,
    working_size: (width, height), pixels. memory_bytes, seconds: estimates for this device; None where unknown. tiles:
    into how many the picture is divided for the model; 1 is the whole. warnings: what the render would warn of, as far
    as it is known by then; only of a dry run, since a render says them as events.
    """

    frames: tuple[int, ...]
    delivered: tuple[int, ...]
    keyframes: tuple[int, ...] | None
    windows: tuple[tuple[int, ...], ...] | None
    plate_size: tuple[int, int]
    working_size: tuple[int, int]
    rate: str | None
    model: str
    device: str
    precision: str
    seed: int
    job_hash: str
    scratch: str
    memory_bytes: int | None
    seconds: float | None
    tiles: int = 1
    warnings: tuple[Warned, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Advanced(Event):
    """Work done in a stage: `done` of `total` units. frame: the frame concerned. window: 1-based, of `windows`.

    seconds_left: of the whole render, by what was measured so far.
    """

    stage: Stage
    done: int
    total: int
    frame: int | None = None
    window: int | None = None
    windows: int | None = None
    seconds_left: float | None = None


@dataclass(frozen=True, kw_only=True)
class Previewed(Event):
    """A keyframe after `step` of `steps`, small, as JPEG; width, height: pixels. Only where previews are wanted."""

    frame: int
    step: int
    steps: int
    width: int
    height: int
    jpeg: bytes


@dataclass(frozen=True, kw_only=True)
class Delivered(Event):
    """One frame lies at `path`, whole. keyframe: it was denoised itself."""

    frame: int
    path: str
    keyframe: bool


@dataclass(frozen=True, kw_only=True)
class Waited(Event):
    """Another process makes a product that this one needs, such as "window.3", "movie" or, where it is not known yet
    whether that process lives, "shot"; said again while that lasts. seconds: until this one takes it over, should that
    process have died; None where unknown."""

    product: str
    owner: str
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Warned(Event):
    """Something that the user should know; the render goes on. code: stable, for programs."""

    code: str
    text: str
    frame: int | None = None


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """All that was asked for is done. rendered: frames written by this run; reused: found finished.

    sidecar: path of the record, empty where a farm's stage leaves it to the last one. outputs: files of the delivery;
    none of the stage that renders keyframes alone.
    """

    rendered: int
    reused: int
    seconds: float
    sidecar: str
    outputs: tuple[str, ...]
