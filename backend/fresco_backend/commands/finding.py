# SPDX-License-Identifier: Apache-2.0
"""What a check of `fresco doctor` finds."""
from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Verdict(Enum):
    """Whether a render can rely on what was found."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found. remedy: what to do about it. exit_code: of the error that a render would end with."""

    name: str
    verdict: Verdict
    text: str
    remedy: str | None = None
    exit_code: int = 0

    def to_json(self) -> dict[str, Any]:
        """The finding as a JSON object."""
        return {"name": self.name, "verdict": self.verdict.value, "text": self.text, "remedy": self.remedy}


@dataclass(frozen=True, kw_only=True)
class Concern:
    """Something that works and deserves a look."""

    text: str
    remedy: str
