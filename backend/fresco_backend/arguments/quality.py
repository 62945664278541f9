# SPDX-License-Identifier: Apache-2.0
"""`--quality`: named choices of what a render spends, as parts of a shot document; other options override them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

Document = dict[str, Any]

_FULL: Document = {"iterations": 20, "learning_rate": 0.2, "conditional_only": False}

# STANDARD is the full method. DRAFT takes half the steps of the optimisation at twice the length, and only on the half
# of guidance that knows the prompt: a quarter of its work. BEST denoises more frames, of which fewer are made between.
PRESETS: dict[str, Document] = {
    "draft": {"coherence": {"optimisation": {"iterations": 10, "learning_rate": 0.4, "conditional_only": True}}},
    "standard": {"coherence": {"optimisation": _FULL}},
    "best": {"coherence": {"optimisation": _FULL}, "keyframing": {"minimum_gap": 2, "maximum_gap": 4}},
}


def add_quality(group: Any) -> None:
    """The option."""
    group.add_argument("--quality", choices=list(PRESETS), default=argparse.SUPPRESS,
                       help="draft: a quarter of the feature optimisation; standard: the full method; best: keyframes "
                       "at most 4 frames apart too (default: what the document says, else standard)")


def with_quality(overrides: Document, given: Mapping[str, Any]) -> Document:
    """The overrides of the other options, over those of the quality that was asked for."""
    merged = dict(overrides)
    for noun, fields in PRESETS[given["quality"]].items() if "quality" in given else ():
        if merged.get(noun, {}) is not None:
            merged[noun] = {**fields, **merged.get(noun, {})}
    return merged
