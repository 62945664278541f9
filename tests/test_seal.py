# SPDX-License-Identifier: Apache-2.0
"""Signatures, stamps and the memory that refuses replays."""
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fresco_protocol.errors import MessageMalformed, MessageRefused
from fresco_protocol.seal import STAMP_SIZE, ReplayGuard, Stamp, sign, verify

NOW = 1_800_000_000.0


class Clock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def stamp(seconds: float = 0, nonce: int = 0) -> Stamp:
    """A stamp of some seconds after NOW."""
    return Stamp(nonce.to_bytes(16, "big"), round((NOW + seconds) * 1000))


def test_a_stamp_comes_back_and_no_two_are_alike() -> None:
    fresh = Stamp.fresh()
    assert Stamp.from_bytes(fresh.to_bytes()) == fresh
    assert len(fresh.to_bytes()) == STAMP_SIZE
    assert fresh.nonce != Stamp.fresh().nonce
    for size in (0, STAMP_SIZE - 1, STAMP_SIZE + 1):
        with pytest.raises(MessageMalformed):
            Stamp.from_bytes(bytes(size))


def test_a_signature_holds_for_its_parts_and_its_token_alone() -> None:
    signature = sign("token", [b"ab", b"c"])
    verify("token", [b"ab", b"c"], signature)
    for token, parts, found in [("other", [b"ab", b"c"], signature), ("token", [b"a", b"bc"], signature),
                                ("token", [b"abc"], signature), ("token", [b"ab", b"c"], signature[:-1]),
                                ("token", [b"ab", b"c"], b"")]:
        with pytest.raises(MessageRefused):
            verify(token, parts, found)


@pytest.mark.parametrize(("seconds", "admitted"), [(-301, False), (-299, True), (299, True), (301, False)])
def test_stamps_far_from_the_clock_are_refused(seconds: float, admitted: bool) -> None:
    guard = ReplayGuard(clock=Clock())
    if admitted:
        guard.admit(stamp(seconds))
    else:
        side = "behind" if seconds < 0 else "ahead of"
        with pytest.raises(MessageRefused, match=f"{abs(seconds)} s {side} this clock"):
            guard.admit(stamp(seconds))


def test_memory_is_bounded_and_what_is_forgotten_stays_refused() -> None:
    clock = Clock()
    guard = ReplayGuard(capacity=10, clock=clock)
    for index in range(100):
        guard.admit(stamp(index / 100, index))
        assert len(guard._nonces) <= 10
    for index in range(100):
        with pytest.raises(MessageRefused, match="sent before"):
            guard.admit(stamp(index / 100, index))


def test_a_busy_client_whose_clock_is_fast_shuts_nobody_out() -> None:
    """400 chunks a second, 200 MB, from a machine that is 200 seconds ahead; and now and then another client."""
    clock = Clock()
    guard = ReplayGuard(clock=clock)
    for second in range(510):
        for index in range(400):
            guard.admit(stamp(200 + second, 400 * second + index))
        guard.admit(stamp(second, 10**9 + second))
        clock.now += 1


def test_old_stamps_are_forgotten_and_a_clock_set_back_lets_none_in_again() -> None:
    clock = Clock()
    guard = ReplayGuard(clock=clock)
    guard.admit(stamp(0, 1))
    clock.now += 1000
    guard.admit(stamp(1000, 2))
    assert len(guard._nonces) == 1
    clock.now = NOW
    with pytest.raises(MessageRefused):
        guard.admit(stamp(0, 1))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-400, 400), st.integers(0, 20), st.integers(0, 50)), max_size=60))
def test_no_stamp_is_admitted_twice(steps: list[tuple[int, int, int]]) -> None:
    clock = Clock()
    guard = ReplayGuard(capacity=7, clock=clock)
    admitted: list[Stamp] = []
    for seconds, nonce, passed in steps:
        clock.now += passed
        try:
            guard.admit(stamp(seconds, nonce))
        except MessageRefused:
            continue
        assert stamp(seconds, nonce) not in admitted
        admitted.append(stamp(seconds, nonce))
        assert len(guard._nonces) <= 7
