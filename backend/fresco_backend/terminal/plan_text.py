# SPDX-License-Identifier: Apache-2.0
"""A plan, durations, sizes and paths, as a person reads them."""
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fresco_backend.events import Planned, Stage

_SHOWN_WINDOWS = 6
_IN_STEPS = (Stage.INVERT.value, Stage.KEYFRAMES.value)


def plan_lines(plan: Planned) -> list[str]:
    """The plan of a dry run, one line a fact."""
    from fresco_backend.files.sequences import frames_text  # not above: OpenImageIO, which `--help` shall not wait for

    facts = {
        "frames": _frames(plan),
        "keyframes": "not recorded" if plan.keyframes is None
        else f"{len(plan.keyframes)}: {frames_text(plan.keyframes)}",
        **_windows(plan.windows),
        "size": f"{_size(plan.plate_size)}, rendered at {_size(plan.working_size)}{_tiles(plan)}",
        "rate": "not stated by the plate" if plan.rate is None else f"{plan.rate} frames per second",
        "model": f"{plan.model} on {plan.device}, {plan.precision}",
        "seed": str(plan.seed),
        "memory": "unknown" if plan.memory_bytes is None else f"about {bytes_text(plan.memory_bytes)}",
        "time": "unknown" if plan.seconds is None else f"about {duration_text(plan.seconds)}",
        "scratch": plan.scratch,
        "job": plan.job_hash,
    }
    return [f"{name:<10} {fact}" for name, fact in facts.items()]


def headlines(plan: Planned) -> list[str]:
    """The plan in short, for the beginning of a render."""
    time = "" if plan.seconds is None else f", about {duration_text(plan.seconds)}"
    return [_frames(plan), f"model {plan.model} on {plan.device} ({plan.precision}){time}"]


def duration_text(seconds: float) -> str:
    """A duration as people say it: "8 s", "3 min 12 s", "1 h 04 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def bytes_text(count: int) -> str:
    """A number of bytes as people say it: "12 KiB", "640 MiB", "2.1 GiB"."""
    if count < 2**20:
        return f"{count / 2**10:.0f} KiB"
    return f"{count / 2**20:.0f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"


def path_text(path: str) -> str:
    """A path seen from the current folder when it lies below it, else as it is."""
    below = Path(path).is_relative_to(Path.cwd())
    return os.path.relpath(path) if below else path


def safe_text(text: str) -> str:
    """Text that others wrote, with "?" for what a terminal would obey instead of show; line breaks and tabs stay."""
    return "".join(one if one.isprintable() or one in "\n\t" else "?" for one in text)


def counted(count: int, thing: str) -> str:
    """A thing with how many there are: "1 frame", "2 frames"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def work_text(stage: str, done: int, total: int) -> str:
    """How far a stage is, with its name: "keyframes step 3/40", "deliver 7/24"."""
    return f"{stage} {count_text(stage, done, total)}"


def count_text(stage: str, done: int, total: int) -> str:
    """How far a stage is: "step 3/40" where denoising steps are counted, "7/24" where frames are."""
    return f"{'step ' if stage in _IN_STEPS else ''}{done}/{total}"


def _frames(plan: Planned) -> str:
    from fresco_backend.files.sequences import frames_text

    kept = f", {len(plan.delivered)} of them delivered already" if plan.delivered else ""
    return f"{counted(len(plan.frames), 'frame')}, {frames_text(plan.frames)}{kept}"


def _windows(windows: Sequence[Sequence[int]] | None) -> dict[str, str]:
    if windows is None:
        return {}
    shown = [" ".join(map(str, window)) for window in windows[:_SHOWN_WINDOWS]]
    if len(windows) > len(shown):
        shown.append("…")
    return {"windows": f"{len(windows)}: {' | '.join(shown)}"}


def _tiles(plan: Planned) -> str:
    return "" if plan.tiles == 1 else f" in {plan.tiles} tiles"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def product_text(product: str) -> str:
    """In words, what one process makes and others wait for: "window.0" is "window 1", as people count from one."""
    kind, _, number = product.partition(".")
    if not number:
        return f"the {kind}"
    return f"{kind} {int(number) + 1}" if kind == "window" else f"{kind} {number}"
