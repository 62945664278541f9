# SPDX-License-Identifier: Apache-2.0
"""Stills: one frame of a shot costs one keyframe, lies beside the delivery, and is the shot's own look."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shots import delivered, rendered, small_shot, with_delivery, with_plate, write_plate

import tiny
from fresco_backend import cli, pipeline
from fresco_backend.commands.report_command import report
from fresco_backend.events import Planned
from fresco_backend.files.frames import read_frame
from fresco_backend.render.job import open_job
from fresco_backend.render.still import NOTE, still, still_path
from fresco_protocol.errors import MatteError, RangeOutside
from fresco_protocol.shot import Editing, Keyframing, Matte, Shot, Synthesis, Task, parse_frames


@pytest.fixture
def shot(tmp_path: Path, tiny_model: Path) -> Shot:
    return small_shot(write_plate(tmp_path / "plate"), tiny_model, tmp_path / "out" / "look.####.png")


@pytest.mark.parametrize(("delivery", "path"), [
    ("out/look.####.exr", "out/look.still.0120.exr"),
    ("out/look_%06d.tif", "out/look.still.000120.tif"),
    ("out/####.png", "out/still.0120.png"),
    ("out/look_####.beauty.exr", "out/look.still.0120.beauty.exr"),
    ("out/look.####_v2.exr", "out/look.still.0120_v2.exr"),
    ("out/look.$F4.exr", "out/look.still.0120.exr"),
    ("out/shot@home.####.exr", "out/shothome.still.0120.exr"),
    ("out/look.exr", "out/look.still.0120.exr"),
    ("out/look.mov", "out/look.still.0120.png"),
])  # fmt: skip
def test_a_still_lies_beside_its_delivery(delivery: str, path: str) -> None:
    assert Path(still_path(delivery, 120)) == Path(path)


@pytest.mark.parametrize("name", ["look.####.png", "look.####_v2.png"])
def test_stills_of_several_frames_lie_side_by_side_with_their_records_and_reports(
        shot: Shot, tmp_path: Path, name: str) -> None:
    shot = with_delivery(shot, sequence=str(tmp_path / "out" / name))
    for number in (1003, 1004):
        alone = still(shot, number)
        rendered(alone)
        report([alone.delivery.sequence])
    stems = [name.replace(".####", f".still.{number}") for number in (1003, 1004)]
    wanted = {stem + end for stem in stems for end in ("", ".fresco.json", ".report.html")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == wanted
    told = json.loads((tmp_path / "out" / f"{stems[0]}.fresco.json").read_text())
    assert told["frames"] == "1003", "the second one did not overwrite the first one's record"


def test_a_still_costs_one_keyframe_and_leaves_the_delivery_alone(shot: Shot, tmp_path: Path) -> None:
    events = rendered(still(shot, 1004))
    planned = next(event for event in events if isinstance(event, Planned))
    assert (planned.keyframes, planned.windows) == ((1004,), ((1004,),))
    assert delivered(events) == [1004]
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["look.still.1004.png", "look.still.1004.png.fresco.json"], "no scratch, and no frame of the shot"
    assert delivered(rendered(shot)) == list(range(1001, 1010)), "none of which the still stands for"


def test_a_still_of_a_shot_without_coherence_is_the_shots_frame(shot: Shot, tmp_path: Path) -> None:
    alone = replace(shot, coherence=None)
    rendered(still(alone, 1003))
    rendered(alone)
    pixels = [read_frame(tmp_path / "out" / f"look.{name}1003.png").pixels for name in ("still.", "")]
    assert abs(pixels[0] - pixels[1]).max() <= 1 / 255, "the same noise, prompt and steps"


@pytest.mark.parametrize("keyframing", [
    Keyframing(frames=parse_frames("1001,1009")), Keyframing(synthesis=Synthesis.EVERY_FRAME),
    Keyframing(synthesis=Synthesis.MIXED)])  # fmt: skip
def test_a_still_is_taken_whatever_the_keyframes(shot: Shot, keyframing: Keyframing) -> None:
    assert delivered(rendered(still(replace(shot, keyframing=keyframing), 1005))) == [1005]


def test_an_edit_has_stills_too(shot: Shot) -> None:
    edit = replace(shot, task=Task.EDIT, editing=Editing(caption="a photo", inversion_steps=4))
    assert delivered(rendered(still(edit, 1005))) == [1005]


def test_a_still_has_the_matte_of_its_frame_and_the_report_of_a_shot(shot: Shot, tmp_path: Path) -> None:
    matte = tiny.write_sequence(tmp_path / "matte", tiny.moving_plate(9, 64).matte)
    matted = still(replace(shot, matte=Matte(sequence=str(matte))), 1002)
    rendered(matted)
    assert report([matted.delivery.sequence])[0].name == "look.still.1002.png.report.html"


@pytest.mark.parametrize(("channel", "codes"), [(None, ["matte-opaque"]), ("R", [])])
def test_an_opaque_alpha_that_is_taken_for_the_matte_is_told(
        channel: str | None, codes: list[str], shot: Shot, tmp_path: Path) -> None:
    drawn = np.asarray(tiny.moving_plate(9, 64).matte, np.float32)[..., None]
    pictures = np.concatenate([drawn, drawn, drawn, np.ones_like(drawn)], axis=-1)
    matte = Matte(sequence=str(tiny.write_sequence(tmp_path / "matte", pictures)), channel=channel)
    assert [warning.code for warning in pipeline.plan(replace(shot, matte=matte)).warnings] == codes


def test_a_still_has_the_matte_that_is_propagated_to_it(shot: Shot, tmp_path: Path) -> None:
    drawn = tiny.write_sequence(tmp_path / "matte", tiny.moving_plate(9, 64).matte)
    for number in (1002, 1003, 1004, 1005, 1007, 1008, 1009):
        Path(str(drawn) % number).unlink()
    matte = Matte(sequence=str(drawn), propagate=True, crop=False)
    with closing(open_job(replace(shot, matte=matte))) as whole, closing(
            open_job(still(replace(shot, matte=matte), 1003))) as alone:
        assert np.array_equal(alone.matte_at(1003), whole.matte_at(1003)) and 0.01 < alone.matte_at(1003).mean() < 0.9
        before = alone.identity
    assert delivered(rendered(still(replace(shot, matte=matte), 1003))) == [1003]
    os.utime(str(drawn) % 1006, (0, 0))
    with closing(open_job(still(replace(shot, matte=matte), 1003))) as again:
        assert again.identity != before, "it depends on the mattes that are drawn"
    for number in (1001, 1006):
        Path(str(drawn) % number).rename(str(drawn) % (number + 100))
    with pytest.raises(MatteError, match=r"1101,1106, and the plate has none .* Draw one on a frame of 1001-1009"):
        rendered(still(replace(shot, matte=matte), 1003))


def test_a_still_of_another_range_is_refused(shot: Shot) -> None:
    with pytest.raises(RangeOutside, match="the shot has no frame 1009"):
        still(with_plate(shot, frames=parse_frames("1001-1008")), 1009)


def test_the_still_of_a_movie_is_a_picture_without_handles(shot: Shot) -> None:
    found = still(with_delivery(shot, sequence="look.mp4", compression="crf:18", handles=4), 1005).delivery
    assert (found.sequence, found.compression, found.handles) == ("look.still.1005.png", None, 0)


def test_the_command_takes_stills_of_documents_and_keeps_the_document_whole(
        shot: Shot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document, saved = tmp_path / "shot.json", tmp_path / "saved.json"
    document.write_text(replace(shot, look=replace(shot.look, strength=0.0)).to_json())
    words = ["render", str(document), "--still", "1005", "--progress=plain"]
    assert cli.main([*words, "--save-shot", str(saved)]) == 0
    said = capsys.readouterr().err
    assert NOTE in said and "look.still.1005.png" in said
    assert Shot.from_json(saved.read_text()).delivery.sequence == shot.delivery.sequence
    assert cli.main([*words, "--frames=1001-1004"]) == 2
    assert "a still is one frame" in capsys.readouterr().err
