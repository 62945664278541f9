# SPDX-License-Identifier: Apache-2.0
"""Work on the next item while the caller is busy with the last: frames are read and made while others are written."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key")


def ahead(items: Iterator[Item]) -> Generator[Item, None, None]:
    """The items, each made in a thread while the caller holds the one before; no more than two exist at a time.

    Errors come where the item would have come. `close()` waits for the item in progress, and no other is begun.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as thread:
        coming: Future[tuple[Item] | None] = thread.submit(_next, items)
        while (found := coming.result()) is not None:
            coming = thread.submit(_next, items)
            yield found[0]


class Expected(Generic[Key, Item]):
    """Items by their keys: that of the key which is expected next is made in a thread, any other when it is taken."""

    def __init__(self, make: Callable[[Key], Item]) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="expected")
        self._coming: tuple[Key, Future[Item]] | None = None

    def expect(self, key: Key) -> None:
        """Begin to make the item of a key; one that was expected and not taken is dropped."""
        self._coming = key, self._thread.submit(self._make, key)

    def take(self, key: Key) -> Item:
        """Give the item of a key, and keep none. Raises what making it raised."""
        coming, self._coming = self._coming, None
        if coming is not None and coming[0] == key:
            return coming[1].result()
        return self._make(key)

    def close(self) -> None:
        """Wait for the item in progress; no other is begun."""
        self._thread.shutdown(cancel_futures=True)
        self._coming = None


def _next(items: Iterator[Item]) -> tuple[Item] | None:
    """The next item in a tuple, since it may be None itself; None at the end."""
    return next(((item,) for item in items), None)
