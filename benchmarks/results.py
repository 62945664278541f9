# SPDX-License-Identifier: Apache-2.0
"""The rows that were measured: kept in a JSON file while a benchmark runs, and laid out as tables at its end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean

NOTHING = "–"
HEADINGS = ("warp error × 1000", "flicker", "edges kept", "look, %", "s / frame", "× plain")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant on one clip; see `steadiness.Measures`. seconds: of wall time for a frame; None: nothing was run.

    look: how sure a judge is of the look that the prompt names, in percent; None when it names none.
    """

    clip: str
    variant: str
    warp_error: float
    flicker: float
    edges: float
    seconds: float | None = None
    look: float | None = None

    def __str__(self) -> str:
        spent = "" if self.seconds is None else f", {self.seconds:.2f} s a frame"
        return f"{self.clip}: {self.caption}, edges {self.edges:.2f}{spent}"

    @property
    def caption(self) -> str:
        """What stands above the row's pictures."""
        return f"{self.variant}: warp error {self.warp_error:.2f}, flicker {self.flicker:.2f}"


@dataclass(kw_only=True)
class Store:
    """Finished rows by what they depend on, in a JSON file that is whole at any time and that processes may share."""

    path: Path
    rows: dict[str, Row] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Store:
        """Give the store of a file, empty when there is none yet."""
        if not path.exists():
            return cls(path=path)
        found = json.loads(path.read_text(encoding="utf-8"))
        return cls(path=path, rows={key: Row(**row) for key, row in found.items()})

    def add(self, key: str, row: Row) -> None:
        """Keep a row, beside those that other processes have kept meanwhile. Not on Windows, which has no `fcntl`."""
        import fcntl

        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(self.path.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.rows = {**self.rows, **Store.open(self.path).rows, key: row}
            part = self.path.with_name(self.path.name + ".part")
            text = json.dumps({key: asdict(row) for key, row in self.rows.items()}, indent=1, ensure_ascii=False)
            part.write_text(text + "\n", encoding="utf-8")
            part.replace(self.path)


def means(rows: Sequence[Row], plain: str) -> list[list[str]]:
    """The table of means over clips, headings first. plain: the variant whose time is 1."""
    unit = _seconds(_of(rows, plain))
    variants = dict.fromkeys(row.variant for row in rows)
    return [["variant", *HEADINGS], *([name, *_means(_of(rows, name), unit)] for name in variants)]


def by_clip(rows: Sequence[Row]) -> list[list[str]]:
    """The table of warp errors × 1000, a column for each clip, headings first."""
    clips = list(dict.fromkeys(row.clip for row in rows))
    errors = {(row.variant, row.clip): f"{row.warp_error:.2f}" for row in rows}
    variants = dict.fromkeys(row.variant for row in rows)
    return [["variant", *clips], *([name, *(errors[name, clip] for clip in clips)] for name in variants)]


def laid_out(table: Sequence[Sequence[str]], *, markdown: bool = False) -> str:
    """The text of a table whose first line has the headings; columns of numbers are flush right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [[first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])] for first, *rest in table]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in lines)
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])


def _of(rows: Sequence[Row], variant: str) -> list[Row]:
    return [row for row in rows if row.variant == variant]


def _seconds(rows: Sequence[Row]) -> float | None:
    measured = [row.seconds for row in rows if row.seconds is not None]
    return mean(measured) if measured else None


def _means(rows: Sequence[Row], unit: float | None) -> list[str]:
    seconds = _seconds(rows)
    return [
        f"{mean(row.warp_error for row in rows):.2f}",
        f"{mean(row.flicker for row in rows):.2f}",
        f"{mean(row.edges for row in rows):.3f}",
        NOTHING if any(row.look is None for row in rows) else f"{mean(row.look or 0 for row in rows):.0f}",
        NOTHING if seconds is None else f"{seconds:.2f}",
        NOTHING if seconds is None or unit is None else f"{seconds / unit:.1f}",
    ]
