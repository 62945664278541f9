# SPDX-License-Identifier: Apache-2.0
"""Who sent a message and when: a signature with the server's token, a fresh nonce, and replay refused.

Source: HMAC, RFC 2104, with SHA-256 of FIPS 180-4.
"""
from __future__ import annotations

import hashlib
import heapq
import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fresco_protocol.errors import MessageMalformed, MessageRefused

NONCE_SIZE = 16  # bytes: two messages alike would need 2**64 of them
STAMP_SIZE = NONCE_SIZE + 8  # bytes
LONGEST_TRANSIT = 300.0  # seconds that clocks may differ, a tunnel's two machines included
MOST_NONCES = 300_000  # remembered at once, sixty megabytes: the chunks of ten minutes over a fast network. With fewer,
# a client that sends them, and whose clock is fast, would have the guard forget beyond the clocks of all others.

_PURPOSE = b"fresco"


class Stamp(NamedTuple):
    """What makes a message unlike every other. milliseconds: since 1970 UTC."""

    nonce: bytes
    milliseconds: int

    @classmethod
    def fresh(cls) -> Stamp:
        """A stamp of now."""
        return cls(secrets.token_bytes(NONCE_SIZE), time.time_ns() // 1_000_000)

    def to_bytes(self) -> bytes:
        """The STAMP_SIZE bytes on the wire."""
        return self.nonce + self.milliseconds.to_bytes(STAMP_SIZE - NONCE_SIZE, "big")

    @classmethod
    def from_bytes(cls, data: bytes) -> Stamp:
        """The stamp of its bytes; raises MessageMalformed if there are more or fewer."""
        if len(data) != STAMP_SIZE:
            raise MessageMalformed(f"a stamp of {len(data)} bytes in place of {STAMP_SIZE}")
        return cls(data[:NONCE_SIZE], int.from_bytes(data[NONCE_SIZE:], "big"))


def sign(token: str, parts: Sequence[bytes]) -> bytes:
    """The signature of the parts, each after its length, so that no byte can move from one to the next."""
    signature = hmac.new(token.encode(), _PURPOSE, hashlib.sha256)
    for part in parts:
        signature.update(len(part).to_bytes(8, "big"))
        signature.update(part)
    return signature.digest()


def verify(token: str, parts: Sequence[bytes], signature: bytes) -> None:
    """Raises MessageRefused unless the signature is that of the parts; takes the same time wherever it differs."""
    if not hmac.compare_digest(sign(token, parts), signature):
        raise MessageRefused("the signature is not made with this server's token",
                             remedy="Read the connection file again: each start of the server makes a new token.")


class ReplayGuard:
    """What a server remembers so that no message counts twice; its memory is bounded.

    When it is full, the oldest stamp is forgotten, and everything as old is refused from then on.
    """

    def __init__(self, *, seconds: float = LONGEST_TRANSIT, capacity: int = MOST_NONCES,
                 clock: Callable[[], float] = time.time) -> None:
        """clock: seconds since 1970 UTC."""
        self._span = round(seconds * 1000)
        self._capacity = capacity
        self._clock = clock
        self._nonces: set[bytes] = set()
        self._oldest_first: list[tuple[int, bytes]] = []
        self._floor = 0  # stamps up to here may have been forgotten

    def admit(self, stamp: Stamp) -> None:
        """Remembers a stamp whose signature was right; raises MessageRefused if it is old or was seen before."""
        now = round(self._clock() * 1000)
        if abs(stamp.milliseconds - now) > self._span:
            seconds, side = abs(stamp.milliseconds - now) / 1000, "behind" if stamp.milliseconds < now else "ahead of"
            raise MessageRefused(f"its stamp is {seconds:.0f} s {side} this clock",
                                 remedy=f"Set the clocks of both machines: {self._span // 1000} s apart is the most.")
        if stamp.milliseconds <= self._floor:
            raise MessageRefused("the message may have been sent before: it is older than those that are remembered",
                                 remedy="Where this machine's clock was set back, start the server again.")
        if stamp.nonce in self._nonces:
            raise MessageRefused("the message was sent before", remedy="Give each message a fresh nonce.")
        self._forget(now - self._span)
        self._nonces.add(stamp.nonce)
        heapq.heappush(self._oldest_first, (stamp.milliseconds, stamp.nonce))

    def _forget(self, before: int) -> None:
        while self._oldest_first and (self._oldest_first[0][0] < before or len(self._nonces) >= self._capacity):
            milliseconds, nonce = heapq.heappop(self._oldest_first)
            self._nonces.discard(nonce)
            self._floor = max(self._floor, milliseconds)
