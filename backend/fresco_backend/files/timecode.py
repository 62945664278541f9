# SPDX-License-Identifier: Apache-2.0
"""The time code of a picture, counted on from that of the first one (SMPTE ST 12-1)."""
from __future__ import annotations

import re
from fractions import Fraction

_TEXT = re.compile(r"(\d\d):(\d\d):(\d\d)([:;,.])(\d\d)")
_COUNTED = (24, 25, 30)  # frames of a second; of more the two digits of a picture file's time code have no room
_DAY = 24 * 60  # minutes
_DROPS = 0x40  # of the first word: the count leaves numbers out


def packed(first: str, passed: int, rate: Fraction) -> tuple[int, int] | None:
    """The time code so many frames after the first one, as the attribute `smpte:TimeCode` of picture files has it.

    first: such as "01:00:00:00"; of "01:00:00;00" frames 0 and 1 of every minute but each tenth are left out. rate:
    frames per second; 23.976 and 29.97 count as 24 and 30. None where the text is no time code of that rate, and at
    rates that have none there.
    """
    base = next((whole for whole in _COUNTED if rate in (whole, Fraction(whole * 1000, 1001))), None)
    found = _TEXT.fullmatch(first)
    if base is None or found is None:
        return None
    hours, minutes, seconds, frames = (int(found[place]) for place in (1, 2, 3, 5))
    drops = found[4] != ":"
    left_out = drops and minutes % 10 and not seconds and frames < 2
    if hours > 23 or minutes > 59 or seconds > 59 or frames >= base or left_out or (drops and base != 30):
        return None
    minutes += 60 * hours
    count = (60 * minutes + seconds) * base + frames - _dropped(minutes, drops) + passed
    shown = _numbers(count % (60 * _DAY * base - _dropped(_DAY, drops)), base, drops)
    word = sum((number // 10 << 4 | number % 10) << 8 * place for place, number in enumerate(shown))
    return word | (_DROPS if drops else 0), 0


def _dropped(minutes: int, drops: bool) -> int:
    """How many numbers were left out after so many minutes."""
    return 2 * (minutes - minutes // 10) if drops else 0


def _numbers(count: int, base: int, drops: bool) -> tuple[int, int, int, int]:
    """Frames, seconds, minutes and hours of a count of frames from 00:00:00:00."""
    if drops:
        tens, rest = divmod(count, 600 * base - 18)
        count += 18 * tens + 2 * max((rest - 2) // (60 * base - 2), 0)
    seconds, frames = divmod(count, base)
    return frames, seconds % 60, seconds // 60 % 60, seconds // 3600
