# SPDX-License-Identifier: Apache-2.0
"""A shot made ready: its choices, its colour spaces, and the identity that decides what may be reused."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import lora_files
import numpy as np
import plates
import pytest
from shots import small_shot, with_delivery, with_look, with_plate, write_plate

import tiny
from fresco_backend.files.sequences import SequenceReader
from fresco_backend.pixels.color import LINEAR, SRGB
from fresco_backend.pixels.color_config import RENDERING, color_space
from fresco_backend.render.job import Job, opaque, open_job
from fresco_backend.roots import Roots
from fresco_protocol.errors import ColorError, FrameGap, FrameSize, MatteError, PathRefused
from fresco_protocol.shot import Control, ControlKind, Cue, Lora, Matte, Missing, Rate, Shot, parse_frames


@pytest.fixture
def shot(tiny_model: Path, tmp_path: Path) -> Shot:
    return small_shot(write_plate(tmp_path / "plate", 4), tiny_model, tmp_path / "out" / "look.####.png")


def opened(shot: Shot) -> Job:
    job = open_job(shot)
    job.close()
    return job


def test_open_choices_are_the_models(shot: Shot) -> None:
    job = opened(shot)
    assert (job.shot.look.guidance, job.shot.look.controls) == (7.5, (Control(kind=ControlKind.CANNY),))
    assert job.frames == job.selected == (1001, 1002, 1003, 1004)
    named = opened(with_look(shot, guidance=2.0, controls=()))
    assert (named.shot.look.guidance, named.shot.look.controls) == (2.0, ())


def test_paths_become_absolute(shot: Shot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    job = opened(with_plate(shot, sequence="plate/plate.####.png"))
    assert job.shot.plate.sequence == str(tmp_path / "plate" / "plate.####.png")


@pytest.mark.parametrize("change", [
    lambda shot: with_look(shot, prompt="a drawing"),
    lambda shot: with_look(shot, cues=(Cue(frames=parse_frames("1001"), prompt="night"),)),
    lambda shot: with_look(shot, seed=1),
    lambda shot: with_look(shot, guidance=7.0),
    lambda shot: with_look(shot, controls=()),
    lambda shot: with_plate(shot, frames=parse_frames("1001-1003")),
    lambda shot: with_plate(shot, color_space="linear"),
    lambda shot: with_delivery(shot, working_size=128),
    lambda shot: replace(shot, coherence=None),
])  # fmt: skip
def test_whatever_the_pixels_depend_on_changes_the_identity(change: Callable[[Shot], Shot], shot: Shot) -> None:
    assert opened(change(shot)).identity != opened(shot).identity


@pytest.mark.parametrize("change", [
    lambda shot: replace(shot, name="a name"),
    lambda shot: with_delivery(shot, overwrite=True),
    lambda shot: with_delivery(shot, sequence=shot.delivery.sequence.replace("look", "another")),
    lambda shot: with_look(shot, guidance=7.5),  # the model's own
])  # fmt: skip
def test_what_they_do_not_depend_on_leaves_it(change: Callable[[Shot], Shot], shot: Shot) -> None:
    assert opened(change(shot)).identity == opened(shot).identity


def test_files_of_the_shot_change_the_identity_and_others_do_not(shot: Shot, tmp_path: Path) -> None:
    shot = with_plate(shot, frames=parse_frames("1001-1003"))
    before = opened(shot).identity
    os.utime(tmp_path / "plate" / "plate.1004.png", ns=(1, 1))
    assert opened(shot).identity == before
    os.utime(tmp_path / "plate" / "plate.1003.png", ns=(1, 1))
    assert opened(shot).identity != before


def test_the_file_that_is_held_for_a_frame_changes_the_identity(shot: Shot, tmp_path: Path) -> None:
    (tmp_path / "plate" / "plate.1002.png").unlink()
    shot = with_plate(shot, frames=parse_frames("1002-1003"), missing=Missing.HOLD)
    before = opened(shot).identity
    os.utime(tmp_path / "plate" / "plate.1001.png", ns=(1, 1))
    assert opened(shot).identity != before


def test_files_of_the_model_count_by_their_content_wherever_they_lie(shot: Shot, tmp_path: Path) -> None:
    """Nodes of a farm see one disk under several paths."""
    found = set()
    for folder in (tmp_path / "here", tmp_path / "there"):
        lora = folder / "lora.safetensors"
        net, vae = (str(shutil.copytree(Path(shot.look.model) / part, folder / part)) for part in ("controlnet", "vae"))
        lora_files.save(lora, [("unet", tiny.tiny_unet())])
        found.add(opened(with_look(shot, loras=(Lora(model=str(lora)),), vae=vae,
                                   controls=(Control(kind=ControlKind.CANNY, model=net),))).identity)
    assert len(found) == 1


def test_a_colour_configuration_counts_by_its_content_wherever_it_lies(
        shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name, comment in (("here", ""), ("there", ""), ("there", "# of another day\n")):
        (tmp_path / name).mkdir(exist_ok=True)
        config = tmp_path / name / "config.ocio"
        config.write_text(Path(RENDERING).read_text(encoding="utf-8") + comment, encoding="utf-8")
        monkeypatch.setenv("OCIO", str(config))
        found.append(opened(shot).identity)
    assert found[0] == found[1] != found[2]


def test_times_count_as_the_coarsest_view_of_a_disk_tells_them(shot: Shot, tmp_path: Path) -> None:
    """A share of Windows' counts in tenths of a microsecond."""
    path = tmp_path / "plate" / "plate.1003.png"
    found = []
    for time in (1_700_000_000_123_456_789, 1_700_000_000_123_456_700, 1_700_000_000_123_457_000):
        os.utime(path, ns=(time, time))
        found.append(opened(shot).identity)
    assert found[0] == found[1] != found[2]


def test_the_schedule_of_a_model_changes_the_identity(shot: Shot, tmp_path: Path) -> None:
    model = Path(shutil.copytree(shot.look.model, tmp_path / "model"))
    shot = with_look(shot, model=str(model))
    before = opened(shot).identity
    schedule = model / "scheduler" / "scheduler_config.json"
    schedule.write_text(json.dumps({**json.loads(schedule.read_text()), "prediction_type": "v_prediction"}))
    assert opened(shot).identity != before


def test_the_rate_is_the_shots_before_the_plates(shot: Shot) -> None:
    assert opened(shot).rate is None
    assert opened(with_plate(shot, rate=Rate(numerator=24000, denominator=1001))).rate == Fraction(24000, 1001)


@pytest.mark.parametrize(("plate", "delivery", "named", "space"), [
    ("exr", "exr", None, LINEAR),
    ("exr", "png", None, SRGB),  # a picture in linear light would look dark everywhere
    ("exr", "png", "linear", LINEAR),
    ("png", "png", None, SRGB),
    ("png", "exr", None, LINEAR),
    ("exr", "mov", None, SRGB),
])  # fmt: skip
def test_a_delivery_of_another_type_has_that_types_colour_space(
    plate: str, delivery: str, named: str | None, space: str, tiny_model: Path, tmp_path: Path
) -> None:
    pattern = write_plate(tmp_path / "p", 1, suffix=plate, bits="half" if plate == "exr" else "uint8")
    path = tmp_path / (f"out.####.{delivery}" if delivery != "mov" else "out.mov")
    asked = with_delivery(small_shot(pattern, tiny_model, path), color_space=named)
    assert opened(asked).delivered_space == color_space(space)


def test_an_unknown_colour_space_stops_the_job(shot: Shot) -> None:
    with pytest.raises(ColorError):
        open_job(with_delivery(shot, color_space="LogC7"))


def test_mattes_have_the_plates_size_and_controls_its_aspect(shot: Shot, tmp_path: Path) -> None:
    small = tiny.write_sequence(tmp_path / "small", tiny.moving_plate(4, 32).frames)
    wide = tiny.write_sequence(tmp_path / "wide", tiny.moving_plate(4, (32, 64)).frames)
    with pytest.raises(MatteError, match="32x32"):
        open_job(replace(shot, matte=Matte(sequence=str(small))))
    control = Control(kind=ControlKind.SEQUENCE, sequence=str(small))
    assert opened(with_look(shot, controls=(control,))).controls[control].size == (32, 32)
    with pytest.raises(FrameSize, match="64x32"):
        open_job(with_look(shot, controls=(replace(control, sequence=str(wide)),)))


def test_what_was_opened_is_closed_where_a_later_file_stops_the_job(
        shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = tiny.write_sequence(tmp_path / "wide", tiny.moving_plate(4, (32, 64)).frames)
    open_now: set[int] = set()
    begin, end = SequenceReader.__init__, SequenceReader.close

    def opens(reader: SequenceReader, *words: Any) -> None:
        begin(reader, *words)
        open_now.add(id(reader))

    def closes(reader: SequenceReader) -> None:
        end(reader)
        open_now.discard(id(reader))

    monkeypatch.setattr(SequenceReader, "__init__", opens)
    monkeypatch.setattr(SequenceReader, "close", closes)
    good = replace(shot, matte=Matte(sequence=shot.plate.sequence))
    with pytest.raises(FrameSize, match="64x32"):
        open_job(with_look(good, controls=(Control(kind=ControlKind.SEQUENCE, sequence=str(wide)),)))
    with pytest.raises(MatteError):
        open_job(replace(shot, matte=Matte(sequence=str(wide))))
    assert open_now == set()
    job = open_job(good)
    assert len(open_now) == 2
    job.close()
    assert open_now == set()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_unfinished_work_stays_within_the_roots(shot: Shot, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FRESCO_SCRATCH", raising=False)
    roots, outside = Roots.declared([tmp_path], [tiny_place(shot)]), tmp_path_factory.mktemp("outside")
    (tmp_path / "out").mkdir()
    roots.check_job(opened(shot))
    (tmp_path / "out" / ".fresco").symlink_to(outside)
    with pytest.raises(PathRefused, match="unfinished work"):
        roots.check_job(opened(shot))


def tiny_place(shot: Shot) -> Path:
    return Path(shot.look.model).parent


def test_no_matte_is_all_of_the_picture(shot: Shot) -> None:
    assert np.array_equal(opened(shot).matte_at(1001), np.ones((64, 64), np.float32))


def test_a_movies_picture_lies_over_black() -> None:
    alpha = np.full((16, 24), 0.25, np.float32)
    straight = plates.frame(alpha=alpha, file_type="png")
    shown = opaque(straight)
    assert np.array_equal(shown.pixels, straight.pixels * np.float32(0.25))
    assert (shown.alpha, shown.extra) == (None, ())
    associated = plates.frame(alpha=alpha)
    assert np.array_equal(opaque(associated).pixels, associated.pixels)


@pytest.mark.parametrize(("asked", "decided"), [(0.0, 1.0), (1.0, 1.0), (0.5, 0.5), (7.5, 7.5)])
def test_no_guidance_is_no_guidance_whatever_it_is_called(asked: float, decided: float, shot: Shot) -> None:
    """Cards of distilled models ask for a guidance of 0, which by its formula would leave the prompt out."""
    assert opened(with_look(shot, guidance=asked)).shot.look.guidance == decided


@pytest.mark.parametrize(("frames", "handles", "all_of_them"), [
    ("1003-1006x2", 4, [1001, 1003, 1005, 1007, 1009]), ("1004-1005,1006", 1, [1003, 1004, 1005, 1006, 1007]),
    ("1005-1006x3", 1, [1002, 1005, 1008]), ("1001-1004x3,1006-1007", 2, [1001, 1004, 1006, 1007, 1008, 1009]),
])  # fmt: skip
def test_handles_go_on_at_the_step_of_the_range(
    frames: str, handles: int, all_of_them: list[int], shot: Shot, tmp_path: Path
) -> None:
    shot = with_plate(shot, sequence=str(write_plate(tmp_path / "long")), frames=parse_frames(frames))
    assert list(opened(with_delivery(shot, handles=handles)).frames) == all_of_them


@pytest.mark.parametrize(("written", "handles", "all_of_them"), [
    ("1003-1006", 1, [1002, 1003, 1004, 1005, 1006, 1007]), ("1003-1006", 0, [1003, 1004, 1005, 1006]),
    ("1003-1006", 5, list(range(1001, 1010))), ("1003-1007x2", 1, [1001, 1003, 1005, 1007, 1009])])
def test_a_range_in_the_name_of_the_plate_has_handles_too(
        written: str, handles: int, all_of_them: list[int], shot: Shot, tmp_path: Path) -> None:
    write_plate(tmp_path / "long")
    shot = with_plate(shot, sequence=str(tmp_path / "long" / f"plate.{written}####.png"))
    assert list(opened(with_delivery(shot, handles=handles)).frames) == all_of_them


@pytest.mark.parametrize(("policy", "frames"), [
    (Missing.SKIP, [1001, 1003, 1004, 1005, 1006]), (Missing.HOLD, [1001, 1002, 1003, 1004, 1005, 1006]),
])  # fmt: skip
def test_a_hole_in_the_handles_is_one_of_the_plate_and_its_end_is_none(
    policy: Missing, frames: list[int], shot: Shot, tmp_path: Path
) -> None:
    pattern = write_plate(tmp_path / "long")
    for number in (1002, 1007, 1008):  # 1009 is out of the handles' reach: for this shot the plate ends at 1006
        (tmp_path / "long" / f"plate.{number}.png").unlink()
    shot = with_plate(with_delivery(shot, handles=3), sequence=str(pattern), frames=parse_frames("1004-1005"))
    with pytest.raises(FrameGap, match="1002"):
        opened(shot)
    assert list(opened(with_plate(shot, missing=policy)).frames) == frames
