# SPDX-License-Identifier: Apache-2.0
"""A bundle for AWS Deadline Cloud, which takes it as it is (`pip install deadline`). Its workers must share a disk."""

from __future__ import annotations

from pathlib import Path

from fresco_backend.farm.plan import FarmPlan


def submit_words(plan: FarmPlan, folder: Path) -> tuple[str, ...]:
    """The command that submits a bundle to the farm and queue of the user's own configuration."""
    return ("deadline", "bundle", "submit", str(folder), "--name", plan.name, "--yes")
