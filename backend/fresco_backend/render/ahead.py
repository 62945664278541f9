# SPDX-License-Identifier: Apache-2.0
"""Items made in threads while the caller is busy with others: frames are read and made while some are written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, Full, Queue
from threading import Event
from typing import Generic, TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key")

_PATIENCE = 0.05  # seconds until a thread that waits looks whether it still should


def ahead(items: Iterator[Item]) -> Generator[Item, None, None]:
    """The items, each made in a thread while the caller holds the one before; no more than two exist at a time.

    Errors come where the item would have come. `close()` waits for the item in progress, and no other is begun.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as thread:
        coming: Future[tuple[Item] | None] = thread.submit(_next, items)
        while (found := coming.result()) is not None:
            coming = thread.submit(_next, items)
            yield found[0]


def side_by_side(sources: Iterable[Iterator[Item]], workers: int, held: int = 16) -> Generator[Item, None, None]:
    """The items of the sources, one source after the other; so many of them are worked on at a time, each in a thread.

    Sources are asked for in the caller's thread. Of each no more than `held` items wait to be taken. Errors come where
    the item would have come. `close()` waits for the items in progress, and no other is begun.
    """
    remaining, stopped = iter(sources), Event()
    lines: deque[_Line[Item]] = deque()
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="side") as threads:
        try:
            while True:
                while len(lines) < workers and (source := next(remaining, None)) is not None:
                    lines.append(_Line(source, held, stopped))
                    lines[-1].done = threads.submit(lines[-1].fill)
                if not lines:
                    return
                yield from lines.popleft()
        finally:
            stopped.set()


class _Line(Generic[Item]):
    """The items of one source on their way from the thread that makes them to the one that takes them."""

    done: Future[None]

    def __init__(self, source: Iterator[Item], held: int, stopped: Event) -> None:
        self._source, self._stopped = source, stopped
        self._items: Queue[tuple[Item]] = Queue(maxsize=held)

    def fill(self) -> None:
        """Make the items until all are made, or none is wanted any more."""
        while not self._stopped.is_set() and (found := _next(self._source)) is not None:
            while not self._stopped.is_set():
                try:
                    self._items.put(found, timeout=_PATIENCE)
                    break
                except Full:
                    continue

    def __iter__(self) -> Iterator[Item]:
        while True:
            over = self.done.done()  # seen first: nothing is put after it
            try:
                yield self._items.get(timeout=0 if over else _PATIENCE)[0]
            except Empty:
                if over:
                    return self.done.result()


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
