# SPDX-License-Identifier: Apache-2.0
"""Work on the next item while the caller is busy with the last: frames are read and made while others are written."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterator[Item]) -> Generator[Item, None, None]:
    """The items, each made in a thread while the caller holds the one before; no more than two exist at a time.

    Errors come where the item would have come. `close()` waits for the item in progress, and no other is begun.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as thread:
        coming: Future[tuple[Item] | None] = thread.submit(_next, items)
        while (found := coming.result()) is not None:
            coming = thread.submit(_next, items)
            yield found[0]


def _next(items: Iterator[Item]) -> tuple[Item] | None:
    """The next item in a tuple, since it may be None itself; None at the end."""
    return next(((item,) for item in items), None)
