# SPDX-License-Identifier: Apache-2.0
"""Frames in text: ranges such as "1001-1048x2", and the numbers that they stand for."""
from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from fresco_protocol.document import FILLED, Written, noun, parse_list, within
from fresco_protocol.errors import ShotError

LONGEST_RANGE = 1_000_000  # frames, eleven hours of film: a longer range is a slip of the hand

FrameNumber = Annotated[int, within(-99_999_999, 99_999_999)]


@noun
class FrameRange(Written):
    """Frames first, first + step, … up to last INCLUSIVE; written "1001-1048x2", "-5--1" or "1001"."""

    first: FrameNumber
    last: FrameNumber
    step: Annotated[int, within(1, LONGEST_RANGE)] = 1

    allowed = 'frames such as "1001-1048", "1001-1048x2" or "1001-1010,1020"'

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise ShotError("last", str(self.last), f"a frame from {self.first} on; frames count up")
        if self.last >= self.first + LONGEST_RANGE:
            raise ShotError("last", str(self.last), f"a frame from {self.first} to {self.first + LONGEST_RANGE - 1}")

    @classmethod
    def parse(cls, text: str) -> FrameRange:
        """The range of its text; a colon means step too, as in OpenJD and Slurm (not fileseq's stagger)."""
        match = re.fullmatch(r"(-?[0-9]{1,8})(?:-(-?[0-9]{1,8})(?:[x:]([0-9]{1,8}))?)?", text.strip())
        if match is None:
            raise ShotError("", f'"{text[:60]}"', cls.allowed)
        first, last, step = match.groups()
        try:
            return cls(first=int(first), last=int(last or first), step=int(step or 1))
        except ShotError as error:
            raise ShotError("", f'"{text}", where {error.path} is {error.found}', error.allowed) from None

    def __str__(self) -> str:
        if self.step == 1 and self.first == self.last:
            return str(self.first)
        return f"{self.first}-{self.last}" + (f"x{self.step}" if self.step != 1 else "")

    def numbers(self) -> range:
        """The frame numbers, ascending."""
        return range(self.first, self.last + 1, self.step)


Frames = Annotated[tuple[FrameRange, ...], FILLED]


def parse_frames(text: str) -> tuple[FrameRange, ...]:
    """The ranges of a text such as "1001-1010,1020"; ShotError if it is none."""
    return parse_list(FrameRange, text)


def frame_numbers(ranges: tuple[FrameRange, ...]) -> tuple[int, ...]:
    """The frames of the ranges, in the order written, each once."""
    return tuple(dict.fromkeys(number for frames in ranges for number in frames.numbers()))


class Handled(NamedTuple):
    """Frames between their handles, each ascending."""

    head: tuple[int, ...]
    frames: tuple[int, ...]
    tail: tuple[int, ...]


def with_handles(ranges: tuple[FrameRange, ...], count: int) -> Handled:
    """The frames of the ranges with `count` handles on both sides, at the step of the range that they lie beside."""
    first = min(ranges, key=lambda frames: frames.first)
    last = max(ranges, key=lambda frames: frames.numbers()[-1])
    head = (first.first - place * first.step for place in range(count, 0, -1))
    tail = (last.numbers()[-1] + place * last.step for place in range(1, count + 1))
    return Handled(tuple(head), tuple(sorted(frame_numbers(ranges))), tuple(tail))


def as_ranges(numbers: Sequence[int]) -> tuple[FrameRange, ...]:
    """Distinct frame numbers in few ranges, in the order given; `frame_numbers` gives them back."""
    ranges, begin = [], 0
    while begin < len(numbers):
        length = _run(numbers, begin)
        step = numbers[begin + 1] - numbers[begin] if length > 1 else 1
        ranges.append(FrameRange(first=numbers[begin], last=numbers[begin + length - 1], step=step))
        begin += length
    return tuple(ranges)


def _run(numbers: Sequence[int], begin: int) -> int:
    """How many numbers from `begin` on ascend by one step; two that are no neighbours are no range."""
    if begin + 1 == len(numbers) or numbers[begin + 1] <= numbers[begin]:
        return 1
    step, end = numbers[begin + 1] - numbers[begin], begin + 2
    while end < len(numbers) and numbers[end] - numbers[end - 1] == step:
        end += 1
    return end - begin if end - begin > 2 or step == 1 else 1
