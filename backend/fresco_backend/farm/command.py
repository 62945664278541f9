# SPDX-License-Identifier: Apache-2.0
"""A plan as lines for a shell, in order: for a farm that has no translation here, and to see what the others do."""

from __future__ import annotations

import shlex
from pathlib import Path

from fresco_backend.farm.plan import FarmPlan
from fresco_backend.files.sequences import frames_text
from fresco_backend.render.farm_stage import FarmStage


def command_lines(plan: FarmPlan, folder: Path) -> list[str]:
    """The commands of the plan whose bundle lies in `folder`. Those of the in-betweens may run at once, anywhere."""
    chunks = [plan.words(FarmStage.IN_BETWEENS, folder, f"--frames={frames_text(chunk)}") for chunk in plan.chunks]
    return ["# first, one task, with the device", shlex.join(plan.words(FarmStage.KEYFRAMES, folder)),
            "# then, in any order, on any number of machines", *map(shlex.join, chunks),
            "# last, one task", shlex.join(plan.words(FarmStage.VERIFY, folder))]
