# SPDX-License-Identifier: Apache-2.0
"""What an evaluation measured, as a document and as the tables of a model card."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fresco_protocol.errors import UsageError

OPENING, CLOSING = "<!-- figures -->", "<!-- end of figures -->"


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """How well the autoencoder gives pictures back: means over `pictures`. psnr in dB; ssim at most 1."""

    source: str
    pictures: int
    psnr: float
    ssim: float


@dataclass(frozen=True, kw_only=True)
class LookFigures:
    """What became of one look.

    named: how many translated photographs the classifier named by each look. teacher_named: how many of the styliser's
    own pictures of them it named rightly. edges, teacher_edges: F-score of their edges against the photographs';
    chance_edges: of the translated ones against another photograph's, which is what mere busyness reaches.
    """

    look: str
    named: Mapping[str, int]
    teacher_named: int
    edges: float
    teacher_edges: float
    chance_edges: float

    @property
    def count(self) -> int:
        """Photographs that were translated."""
        return sum(self.named.values())

    @property
    def right(self) -> int:
        """How many of them show the look that was asked for."""
        return self.named.get(self.look, 0)

    @property
    def mistaken(self) -> str:
        """For which looks the others were taken, most often first."""
        others = [(name, count) for name, count in Counter(self.named).most_common() if name != self.look]
        return ", ".join(f"{name} {count}" for name, count in others)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """All figures of one model. weights: SHA-256 of its SHA256SUMS; samples: that its diffusion was trained with."""

    weights: str
    samples: int
    side: int
    fidelity_side: int
    strength: float
    guidance: float
    fidelity: tuple[Fidelity, ...]
    looks: tuple[LookFigures, ...]

    @property
    def accuracy(self) -> float:
        """Share of all translated photographs whose look was named rightly."""
        return sum(look.right for look in self.looks) / sum(look.count for look in self.looks)

    @property
    def teacher_accuracy(self) -> float:
        """Share of the stylisers' own pictures whose look was named rightly: the best that the classifier can do."""
        return sum(look.teacher_named for look in self.looks) / sum(look.count for look in self.looks)

    @property
    def edges(self) -> float:
        """Mean edge F-score over the looks."""
        return sum(look.edges for look in self.looks) / len(self.looks)

    def to_json(self) -> str:
        """A document that `from_json` reads."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Figures:
        """The figures of a document that `to_json` wrote."""
        fields = json.loads(text)
        fidelity = tuple(Fidelity(**entry) for entry in fields.pop("fidelity"))
        return cls(fidelity=fidelity, looks=tuple(LookFigures(**entry) for entry in fields.pop("looks")), **fields)

    def to_markdown(self) -> str:
        """Two tables for the model card."""
        return "\n".join([*self._fidelity_table(), "", *self._looks_table()])

    def _fidelity_table(self) -> Iterator[str]:
        yield f"| autoencoder at {self.fidelity_side} px | pictures | PSNR | SSIM |"
        yield "|---|---|---|---|"
        for entry in self.fidelity:
            yield f"| {entry.source} | {entry.pictures} | {entry.psnr:.1f} dB | {entry.ssim:.3f} |"

    def _looks_table(self) -> Iterator[str]:
        yield (
            f"Trained with {self.samples:,} samples. Held-out photographs translated at {self.side} px, strength "
            f"{self.strength:g}, guidance {self.guidance:g}, control 1; in brackets the stylisers' pictures of them. "
            "By chance: the F-score against the edges of another photograph."
        )
        yield ""
        yield "| look | named rightly | taken for | edge F-score | by chance |"
        yield "|---|---|---|---|---|"
        for look in self.looks:
            named = f"{look.right} of {look.count} ({look.teacher_named})"
            edges = f"{look.edges:.2f} ({look.teacher_edges:.2f}) | {look.chance_edges:.2f}"
            yield f"| {look.look} | {named} | {look.mistaken} | {edges} |"
        yield f"| **all** | **{self.accuracy:.0%}** ({self.teacher_accuracy:.0%}) | | **{self.edges:.2f}** | |"


def write_card(card: Path, figures: Figures) -> None:
    """Replace what stands between the card's two marks by the figures. Raises UsageError when a mark is missing."""
    head, opening, rest = card.read_text(encoding="utf-8").partition(OPENING)
    _, closing, tail = rest.partition(CLOSING)
    if not opening or not closing:
        raise UsageError(f"the card lacks the marks {OPENING} and {CLOSING}", where=card, remedy="Put them in.")
    card.write_text(f"{head}{OPENING}\n{figures.to_markdown()}\n{CLOSING}{tail}", encoding="utf-8")
