# SPDX-License-Identifier: Apache-2.0
"""Patterns, ranges, gaps and sizes of image sequences."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest
from plates import frame, header, write_sequence

from fresco_backend.files.deliveries import DeliveryWriter
from fresco_backend.files.sequences import FramePattern, SequenceReader, frames_text
from fresco_protocol.errors import (
    FrameGap,
    FrameSize,
    FrameUnreadable,
    InputError,
    PlateMissing,
    RangeOutside,
    UsageError,
)
from fresco_protocol.shot import Missing, parse_frames


def opened(pattern: Path | str, numbers: list[int] | None = None, missing: Missing = Missing.ERROR) -> SequenceReader:
    return SequenceReader(FramePattern.parse(pattern), numbers, missing)


@pytest.mark.parametrize("field", ["%04d", "####", "@@@@", "$F4"])
def test_every_spelling_of_the_frame_field(tmp_path: Path, field: str) -> None:
    folder = tmp_path / "a shot #3 100%_of"
    write_sequence(folder, [-5, 0, 1001, 12345])
    pattern = FramePattern.parse(folder / f"plate.{field}.exr")
    assert list(pattern.on_disk()) == [-5, 0, 1001, 12345]
    assert [pattern.path(number).name for number in (-5, 7, 12345)] == [
        "plate.-005.exr",
        "plate.0007.exr",
        "plate.12345.exr",
    ]


def test_a_pattern_may_name_its_range(tmp_path: Path) -> None:
    write_sequence(tmp_path, range(1001, 1009))
    assert opened(tmp_path / "plate.1001-1007x3####.exr").numbers == (1001, 1004, 1007)


def test_a_pattern_that_cannot_be_understood_says_so() -> None:
    with pytest.raises(UsageError, match="before the extension"):
        FramePattern.parse("shot_%04d_v2.png")


@pytest.mark.parametrize(("name", "file"), [
    ("look.####_v2.exr", "look.0007_v2.exr"), ("look_####.beauty.exr", "look_0007.beauty.exr"),
    ("a#1.####.exr", "a#1.0007.exr"), ("shot@home.@@@.exr", "shot@home.007.exr")])  # fmt: skip
def test_a_field_may_stand_amid_a_name_and_other_marks(name: str, file: str) -> None:
    assert FramePattern.parse(name).path(7) == Path(file)


def test_one_file_of_a_sequence_is_one_frame(tmp_path: Path) -> None:
    write_sequence(tmp_path, [1001, 1002])
    assert opened(tmp_path / "plate.1001.exr").numbers == (1001,)
    with pytest.raises(RangeOutside, match="frame field"):
        opened(tmp_path / "plate.1001.exr", [1001, 1002])
    write_sequence(tmp_path, [1], "still.exr")
    assert opened(tmp_path / "still.exr").numbers == (1,)


def test_frames_are_read_in_order_and_unfinished_files_do_not_count(tmp_path: Path) -> None:
    pattern = write_sequence(tmp_path, [1001, 1002, 1003])
    (tmp_path / ".plate.1004.exr.77.part").write_bytes(b"half a frame")
    (tmp_path / "plate.1005.exr.part").write_bytes(b"half a frame")
    plate = opened(pattern)
    assert plate.numbers == (1001, 1002, 1003)
    assert plate.size == (24, 16)
    assert np.array_equal(plate.read(1002).pixels, frame(seed=1002).pixels)
    assert len(plate.files) == 3


def test_a_missing_plate_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlateMissing, match="folder"):
        opened(tmp_path / "nowhere" / "plate.%04d.exr")
    for name in ("plate.%04d.exr", "plate.####.exr", "plate.1001-1004@@@@.exr", "a#1.####_v2.exr"):
        with pytest.raises(PlateMissing, match=re.escape(f"({tmp_path / name})")):  # as it was written
            opened(tmp_path / name)
    with pytest.raises(PlateMissing):
        opened(tmp_path / "plate.exr")


def test_the_name_that_was_probably_meant_is_named(tmp_path: Path) -> None:
    write_sequence(tmp_path, [1001, 1002])
    (tmp_path / "clip.mov").write_bytes(b"a movie")
    for name, meant in (("plat.####.exr", "plate.####.exr"), ("plate.####.exx", "plate.####.exr"),
                        ("clip.mvo", "clip.mov")):
        with pytest.raises(PlateMissing) as caught:
            opened(tmp_path / name)
        assert f"Did you mean {meant}?" in str(caught.value)
    with pytest.raises(PlateMissing) as caught:
        opened(tmp_path / "harbour_v002.####.exr")
    assert "Did you mean" not in str(caught.value)
    with pytest.raises(PlateMissing, match="is a folder"):
        opened(tmp_path)


def test_a_gap_is_an_error_that_lists_it_compactly(tmp_path: Path) -> None:
    pattern = write_sequence(tmp_path, [1001, 1002, 1006, 1007, 1008, 1009, 1011])
    with pytest.raises(FrameGap, match=r"1003-1005,1010"):
        opened(pattern)
    assert opened(pattern, [1001, 1002, 1006]).numbers == (1001, 1002, 1006)


def test_a_gap_can_be_held_or_skipped(tmp_path: Path) -> None:
    pattern = write_sequence(tmp_path, [1001, 1002, 1005])
    held = opened(pattern, missing=Missing.HOLD)
    assert held.numbers == (1001, 1002, 1003, 1004, 1005)
    assert held.held == (1003, 1004)
    assert np.array_equal(held.read(1004).pixels, frame(seed=1002).pixels)
    skipped = opened(pattern, missing=Missing.SKIP)
    assert skipped.numbers == (1001, 1002, 1005)
    assert skipped.skipped == (1003, 1004)
    with pytest.raises(FrameGap):
        opened(pattern, [1003, 1004], Missing.SKIP)


@pytest.mark.parametrize("missing", Missing)
def test_a_range_outside_the_plate_says_what_exists(tmp_path: Path, missing: Missing) -> None:
    pattern = write_sequence(tmp_path, [1001, 1002, 1003])
    with pytest.raises(RangeOutside, match=r"999-1000,1004.*1001-1003"):
        opened(pattern, [999, 1000, 1001, 1002, 1003, 1004], missing)


def test_zero_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no frame"):
        opened(write_sequence(tmp_path, [1001]), [])


def test_another_padding_is_pointed_out(tmp_path: Path) -> None:
    write_sequence(tmp_path, [8, 9])
    write_sequence(tmp_path, [10, 11], "plate.%06d.exr")
    assert opened(tmp_path / "plate.%04d.exr").numbers == (8, 9)
    with pytest.raises(PlateMissing, match=r"plate\.######\.exr \(10-11\)"):
        opened(tmp_path / "plate.%03d.exr")
    (tmp_path / "plate.0012.exr").write_bytes((tmp_path / "plate.0009.exr").read_bytes())
    with pytest.raises(FrameGap, match=r"10-11 are missing.*plate\.######\.exr"):
        opened(tmp_path / "plate.%04d.exr")


def test_a_frame_of_another_size_names_both_sizes(tmp_path: Path) -> None:
    pattern = write_sequence(tmp_path, [1, 2, 3])
    write_sequence(tmp_path, [3], width=32)
    with pytest.raises(FrameSize, match="frame 3 is 32x16, and frame 1 is 24x16"):
        opened(pattern)
    assert SequenceReader(FramePattern.parse(pattern), [1, 2], Missing.ERROR).read(2).size == (24, 16)


def test_an_unreadable_frame_is_found_when_it_is_read_and_costs_no_other(tmp_path: Path) -> None:
    pattern = write_sequence(tmp_path, [1, 2, 3])
    (tmp_path / "plate.0002.exr").write_bytes(b"")
    plate = opened(pattern)
    assert plate.read(3).size == (24, 16)
    with pytest.raises(FrameUnreadable, match=r"plate\.0002\.exr"):
        plate.read(2)


def test_the_rate_is_the_rational_of_the_header(tmp_path: Path) -> None:
    assert opened(write_sequence(tmp_path, [1])).rate is None
    source = header(frame())
    source.metadata.attribute("FramesPerSecond", oiio.TypeDesc("rational"), (24000, 1001))
    DeliveryWriter(tmp_path / "timed.exr", [1], like=source).write(1, source, "0")
    assert opened(tmp_path / "timed.exr").rate == Fraction(24000, 1001)


def test_any_frame_of_a_range_is_enough_to_know_that_a_plate_is_there(tmp_path: Path) -> None:
    pattern = FramePattern.parse(tmp_path / "p.####.exr")
    assert pattern.any_on_disk() is None
    for name in ("p.1005.exr", "p.01001.exr", "p.1002.exr.part", "q.1003.exr"):
        (tmp_path / name).touch()
    assert pattern.any_on_disk() == 1005, "other paddings, other names and unfinished files are no frames"
    assert pattern.any_on_disk(parse_frames("1001-1009x2")) == 1005
    assert pattern.any_on_disk(parse_frames("1001-1004,1006")) is None
    assert FramePattern.parse(tmp_path / "away" / "p.####.exr").any_on_disk() is None


def test_a_single_file_is_there_or_not(tmp_path: Path) -> None:
    still = FramePattern.parse(tmp_path / "still.1001.exr")
    assert still.any_on_disk(parse_frames("5")) is None
    (tmp_path / "still.1001.exr").touch()
    assert still.any_on_disk(parse_frames("5")) == 1001, "whichever frame it is rendered as"


def test_frames_are_known_by_their_names(tmp_path: Path) -> None:
    pattern, single = FramePattern.parse(tmp_path / "p.####.exr"), FramePattern.parse(tmp_path / "still.exr")
    assert [name for name in ("p.1001.exr", "p.-5.exr", "p.exr", "q.1001.exr", "p.1001.exr.part")
            if pattern.has(name)] == ["p.1001.exr", "p.-5.exr"]
    assert single.has("still.exr")
    assert not single.has("still.1001.exr")


def test_frames_are_written_compactly() -> None:
    assert frames_text([1010, 1003, 1004, 1005]) == "1003-1005,1010"
