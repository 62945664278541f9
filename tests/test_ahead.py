# SPDX-License-Identifier: Apache-2.0
"""Items made one ahead of the caller, in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from fresco_backend.render.ahead import Expected, ahead, side_by_side


def test_items_come_in_order_and_may_be_none() -> None:
    assert list(ahead(iter([1, None, 3]))) == [1, None, 3]
    assert list(ahead(iter([]))) == []


def test_the_next_item_is_made_while_the_caller_holds_the_last() -> None:
    made = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        made.set()
        yield 2

    coming = ahead(items())
    assert next(coming) == 1
    assert made.wait(timeout=10)
    assert list(coming) == [2]


def test_no_more_than_one_item_waits() -> None:
    begun: list[int] = []

    def items() -> Iterator[int]:
        for number in range(5):
            begun.append(number)
            yield number

    coming = ahead(items())
    next(coming)
    coming.close()
    assert begun == [0, 1]


def test_an_error_comes_where_its_item_would_have_come() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    coming = ahead(items())
    assert next(coming) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(coming)


def test_the_expected_item_is_made_in_a_thread_and_any_other_when_it_is_taken() -> None:
    makers: list[tuple[int, str]] = []

    def make(key: int) -> int:
        makers.append((key, threading.current_thread().name))
        return key * 10

    expected = Expected(make)
    assert expected.take(1) == 10
    expected.expect(2)
    assert expected.take(2) == 20
    expected.expect(3)
    assert expected.take(4) == 40, "another process made the third"
    assert expected.take(3) == 30
    expected.close()
    here = threading.current_thread().name
    threads = {key: {name for made, name in makers if made == key} for key in (1, 2, 4)}
    assert threads[1] == threads[4] == {here}
    assert here not in threads[2]


def test_an_error_of_what_was_expected_comes_when_it_is_taken() -> None:
    def make(key: int) -> int:
        raise OSError("the disk is gone")

    expected = Expected(make)
    expected.expect(1)
    with pytest.raises(OSError, match="the disk is gone"):
        expected.take(1)
    expected.close()


def test_sources_side_by_side_come_in_order() -> None:
    sources = [iter(range(10 * number, 10 * number + 7)) for number in range(5)]
    assert list(side_by_side(sources, workers=3, held=2)) == [10 * n + i for n in range(5) for i in range(7)]
    assert list(side_by_side([], workers=3)) == []
    assert list(side_by_side([iter([]), iter([None, 1]), iter([])], workers=2)) == [None, 1]


def test_so_many_sources_are_worked_on_at_a_time_and_so_many_items_wait() -> None:
    begun = [0, 0, 0, 0]
    together = threading.Barrier(2, timeout=10)

    def source(number: int) -> Iterator[int]:
        together.wait()  # two at a time, or this fails
        for item in range(6):
            begun[number] += 1
            yield item

    coming = side_by_side((source(number) for number in range(4)), workers=2, held=3)
    assert next(coming) == 0
    deadline = time.monotonic() + 20
    while begun[1] < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    assert begun[1] == 4, "three wait, one is in hand"
    assert begun[2:] == [0, 0]
    assert list(coming) == [*range(1, 6), *range(6), *range(6), *range(6)]


def test_an_error_of_a_source_comes_in_its_place_and_ends_the_others() -> None:
    endless = iter(lambda: 3, None)

    def failing() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    coming = side_by_side([iter([0]), failing(), endless], workers=3, held=2)
    assert [next(coming), next(coming)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(coming)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("side")]


def test_sources_that_nobody_takes_are_ended() -> None:
    coming = side_by_side([iter(lambda: 3, None), iter(lambda: 4, None)], workers=2, held=2)
    assert next(coming) == 3
    coming.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("side")]
