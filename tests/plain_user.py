# SPDX-License-Identifier: Apache-2.0
"""Permissions, which do not hold for root."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def plain_user(folder: Path) -> Iterator[None]:
    """A user for whom permissions hold; one who is not root already stays. Meanwhile all may enter `folder`."""
    if os.geteuid() != 0:
        yield
        return
    closed = [(place, mode) for place in (folder, *folder.parents) if not (mode := place.stat().st_mode) & 0o001]
    for place, mode in closed:
        place.chmod(mode | 0o055)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        for place, mode in closed:
            place.chmod(mode)
