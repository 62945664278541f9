# SPDX-License-Identifier: Apache-2.0
"""Messages as nobody should send them: bytes changed, cut, doubled and swapped, with and without a good signature."""
from __future__ import annotations

import random
from collections.abc import Sequence

from verbs import EXAMPLES

from fresco_protocol.messages import Message, Request, Stop, fresh_key
from fresco_protocol.seal import Stamp, sign
from fresco_protocol.wire import encode

TOKEN = "0123456789abcdef" * 4
HARMLESS = tuple(message for message in EXAMPLES if not isinstance(message, Stop))  # a server obeys a good Stop
INTERESTING = (b"", b"\0", b"\xff", b"{}", b"[]", b"null", b"NaN", b"1e999", b"-0", b"9" * 400, b"[" * 40, b'"\\ud800"',
               b'{"a":1,"a":2}', b"\xed\xa0\x80", b"../../etc/passwd", b'"' * 3, b"true", b"\x00\x01", b"{" * 8)


def signed(message: Message | Sequence[bytes], token: str = TOKEN) -> list[bytes]:
    """The parts of a message with a good signature and a fresh stamp; of parts that were changed, too."""
    if isinstance(message, Message):
        return encode(message, token, id=fresh_key() if isinstance(message, Request) else None)
    parts = list(message)
    parts[1] = Stamp.fresh().to_bytes()
    parts[2] = sign(token, [*parts[:2], *parts[3:]])
    return parts


def mutated(parts: Sequence[bytes], choice: random.Random) -> list[bytes]:
    """Parts with one to three changes, the number of the parts included."""
    found = list(parts)
    for _ in range(choice.randint(1, 3)):
        place = choice.randrange(len(found)) if found else 0
        kind = choice.randrange(5)
        if kind == 0 and found:
            del found[place]
        elif kind == 1:
            found.insert(place, choice.choice([*INTERESTING, *parts]))
        elif kind == 2 and found:
            other = choice.randrange(len(found))
            found[place], found[other] = found[other], found[place]
        elif found:
            found[place] = mutated_bytes(found[place], choice)
    return found


def mutated_bytes(data: bytes, choice: random.Random) -> bytes:
    """Bytes with one to four changes."""
    found = bytearray(data)
    for _ in range(choice.randint(1, 4)):
        place = choice.randrange(len(found) + 1)
        end = min(len(found), place + choice.choice([1, 1, 2, 8, 64]))
        kind = choice.randrange(5)
        if kind == 0:
            found[place:end] = b""
        elif kind == 1:
            found[place:place] = choice.choice(INTERESTING)
        elif kind == 2:
            found[place:end] = choice.choice(INTERESTING)
        elif kind == 3 and found:
            found[place % len(found)] ^= 1 << choice.randrange(8)
        else:
            found[place:place] = found[place:end] * choice.choice([1, 2, 50])
    return bytes(found)
