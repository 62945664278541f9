# SPDX-License-Identifier: Apache-2.0
"""Items made one ahead of the caller, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from fresco_backend.render.ahead import Expected, ahead


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
