# SPDX-License-Identifier: Apache-2.0
"""A bundle, run on this machine by `openjd` (`pip install openjd-cli`), one task after the other."""

from __future__ import annotations

from pathlib import Path

from fresco_backend.farm.bundle import TEMPLATE


def run_words(folder: Path) -> tuple[str, ...]:
    """The command that runs every step of a bundle. It exits with 1 for any failure, and prints what the tasks say."""
    return ("openjd", "run", str(folder / TEMPLATE), "--timestamp-format", "utc")
