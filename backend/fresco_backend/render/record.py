# SPDX-License-Identifier: Apache-2.0
"""The record beside a delivery: the shot as it was rendered, with what, and what was measured."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fresco_backend.engine.tones import Drift
from fresco_backend.files.deliveries import refused
from fresco_backend.files.frame_pattern import frames_text, record_path
from fresco_backend.models.model_files import sha256
from fresco_backend.render import drift, pins
from fresco_backend.render.job import Job
from fresco_backend.render.scratch import write_atomically

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What a render knows when it is done.

    seconds: by stage. warp_error: mean over neighbouring frames that this run wrote, in [0, 1] squared; see `metrics`.
    drift: of the look from the first window to the last, see `drift`. device, precision: None when nothing had to be
    denoised. parts: the windows as they were denoised, halves where memory was short; those that are known.
    peak_memory_bytes: of the process; None where the system does not tell. warnings: all that was said, by any run.
    """

    keyframes: tuple[int, ...]
    windows: tuple[tuple[int, ...], ...]
    seconds: dict[str, float]
    warp_error: float | None
    rendered: int
    reused: int
    device: str | None
    precision: str | None
    drift: Drift | None = None
    parts: tuple[tuple[int, ...], ...] = ()
    peak_memory_bytes: int | None = None
    warnings: tuple[str, ...] = ()


def peak_memory() -> int | None:
    """Bytes of memory that this process has held at most; None on Windows, which has no such figure for Python."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def kept(job: Job, windows: int) -> dict[str, Any]:
    """What scratch tells of all runs of a job: parts, drift, warnings. windows: how many there are.

    Nothing when another process, whose record has it, clears scratch meanwhile.
    """
    scratch = job.scratch
    try:
        parts = tuple(part for place in range(windows) for part in scratch.load_parts(place))
        return {"parts": parts, "drift": drift.measured(job, windows), "warnings": scratch.warnings}
    except FileNotFoundError:
        return {}


def path_of(delivery: str) -> Path:
    """The record of a delivery."""
    return record_path(delivery)


def read(job: Job) -> dict[str, Any] | None:
    """The record beside the delivery; None when there is none, or when it tells of another job."""
    try:
        document = json.loads(path_of(job.shot.delivery.sequence).read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and document.get("job") == job.identity else None


def precision_text(device: object, dtype: object) -> str:
    """In what a window is denoised, such as "bfloat16 on cpu"; nodes that differ in it give slightly other pixels."""
    return f"{str(dtype).removeprefix('torch.')} on {str(device).partition(':')[0]}"


def precisions(job: Job) -> frozenset[str]:
    """In what windows of this very job were denoised so far, as scratch and its record tell."""
    measures = (read(job) or {}).get("measures", {})
    finished = measures.get("precision") and precision_text(measures["device"], measures["precision"])
    return job.scratch.precisions | ({finished} if finished else set())


def has_movie(job: Job) -> bool:
    """Whether the movie of the delivery is there as this very job wrote it."""
    document, path = read(job), Path(job.shot.delivery.sequence)
    return document is not None and path.is_file() and document.get("movie") == sha256(path)


def chosen(job: Job) -> tuple[tuple[int, ...] | None, tuple[tuple[int, ...], ...] | None]:
    """Keyframes and windows of a finished job, as its record tells; None for what it does not tell."""
    measures = (read(job) or {}).get("measures", {})
    keyframes, split = measures.get("keyframes"), measures.get("windows")
    return None if keyframes is None else tuple(keyframes), None if split is None else tuple(map(tuple, split))


def write(job: Job, measures: Measures) -> Path:
    """Write the record of a finished job and give its path. Raises OutputError.

    What this run could not know, since another one of the job made it, stays as the record before had it.
    """
    movie = Path(job.shot.delivery.sequence)
    document = {
        "schema": SCHEMA,
        "shot": json.loads(job.shot.to_json()),
        "job": job.identity,
        "frames": frames_text(job.frames),
        "rendered_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {**pins.versions(), "python": platform.python_version()},
        "color": pins.color(),
        "weights": job.weights,
        "plate": {
            "size": list(job.plate.size), "working_size": list(job.working.padded),
            "tiles": len(job.tiles), "upscaler": job.upscaler,
            "rate": None if job.rate is None else str(job.rate), "color_space": str(job.space),
            "color_config": job.space.config, "rendering": job.showing.rendering.value,
            "highlights": job.showing.method.value, "region": list(job.working.region),
        },
        "movie": sha256(movie) if job.is_movie and movie.is_file() else None,
        "measures": {**asdict(measures), **_of_others(job, measures)},
    }  # fmt: skip
    path = path_of(job.shot.delivery.sequence)
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    try:
        write_atomically(path, lambda file: file.write(text.encode("utf-8", "surrogateescape")))
    except OSError as error:
        raise refused(path, error) from error
    return path


def _of_others(job: Job, measures: Measures) -> dict[str, Any]:
    """What an earlier record of the very job tells of it, and scratch no more; all that any run has warned of."""
    before = {} if job.shot.delivery.overwrite else (read(job) or {}).get("measures", {})
    found = {name: before[name] for name in ("drift", "parts", "device", "precision")
             if before.get(name) and not getattr(measures, name)}
    return {**found, "warnings": list(dict.fromkeys((*before.get("warnings", ()), *measures.warnings)))}
