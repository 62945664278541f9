# SPDX-License-Identifier: Apache-2.0
"""The nouns: ranges and rates in text, the strict reader, and the exact way there and back."""
import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fresco_protocol import errors
from fresco_protocol.errors import FrescoError, Interrupted, PlateMissing, ShotError
from fresco_protocol.shot import (
    BackgroundSmoothing,
    BitDepth,
    Coherence,
    Compat,
    Control,
    ControlKind,
    Cue,
    Delivery,
    Editing,
    FeatureOptimisation,
    FrameRange,
    FreeU,
    Grain,
    Highlights,
    Keyframing,
    Look,
    Lora,
    Matte,
    Missing,
    Plate,
    Prediction,
    Rate,
    Rendering,
    Sampler,
    Shot,
    SpatialGuidance,
    Synthesis,
    Task,
    TemporalGuidance,
    Upsampling,
    frame_numbers,
    parse_frames,
    with_handles,
)

SMALL = Shot(plate=Plate(sequence="plate.####.exr"), look=Look(prompt="an ink drawing"),
             delivery=Delivery(sequence="out.####.exr"))

FULL = Shot(  # every field differs from its default
    name="sh010",
    task=Task.EDIT,
    plate=Plate(sequence="/show/sh010/plate.%04d.exr", frames=parse_frames("1001-1048x2,-5--1,1100"),
                rate=Rate.parse("23.976"), color_space="ACEScg", rendering=Rendering.SRGB, missing=Missing.HOLD,
                layer="right"),
    matte=Matte(sequence="matte.####.exr", channel="R", invert=True, grow=-2, feather=4.5, propagate=True,
                crop=False),
    look=Look(prompt="ein Gemälde, 水彩画", negative_prompt="blur", model="runwayml/some-model", strength=0.1 + 0.2,
              guidance=3, steps=50, sampler=Sampler.DDIM, seed=2**63 - 1,
              cues=(Cue(frames=parse_frames("1010-1020"), prompt="dusk", to="night"),),
              prediction=Prediction.VELOCITY, vae="owner/vae", loras=(Lora(model="ink.safetensors", weight=0.5),),
              free_u=FreeU(backbone_1=1.1, backbone_2=1.2, skip_1=0.9, skip_2=0.2),
              controls=(Control(kind=ControlKind.SEQUENCE, sequence="lines.####.png", model="m", strength=0.7,
                                start=0.1, end=0.9),
                        Control(kind=ControlKind.DEPTH, detector="owner/depth"))),
    keyframing=Keyframing(minimum_gap=2, maximum_gap=2, frames=parse_frames("1001,1009"), window=3,
                          synthesis=Synthesis.MIXED, rotation=3),
    editing=Editing(caption="ein Foto", inversion_steps=20, attention=0.25, convolution=0.75),
    coherence=Coherence(cross_frame=False, spatial=SpatialGuidance(temperature=2, steps=3),
                        temporal=TemporalGuidance(temperature=1, until_timestep=0), optimisation=None,
                        background=BackgroundSmoothing(until_timestep=300), tone=False,
                        compat=Compat.REFERENCE),
    delivery=Delivery(sequence="out.mov", color_space="ACEScct", bit_depth=BitDepth.HALF, compression="dwaa:45",
                      handles=8, working_size=768, highlights=Highlights.MODEL,
                      upsampling=Upsampling.BICUBIC, grain=Grain.MATCH, tile_size=512, overwrite=True))
LEARNED = dataclasses.replace(FULL, delivery=Delivery(sequence="out.mov", upscaler="4x.safetensors"))


def changed(path: str, value: object) -> str:
    """The document of FULL with `value` at a path such as "look.controls.0.strength"."""
    document = json.loads(FULL.to_json())
    *outer, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = document
    for part in outer:
        place = place[part]
    place[last] = value
    return json.dumps(document)


@pytest.mark.parametrize("noun", [
    SMALL, FULL, LEARNED, dataclasses.replace(FULL, coherence=None, matte=None)])
def test_the_document_gives_back_an_equal_shot(noun: Shot) -> None:
    again = Shot.from_json(noun.to_json())
    assert again == noun
    assert hash(again) == hash(noun)
    assert again.to_json() == noun.to_json()


def test_the_full_shot_leaves_no_field_at_its_default() -> None:
    assert FULL.look.controls is not None
    for kind, noun in [(Cue, FULL.look.cues[0]), (Lora, FULL.look.loras[0]), (FreeU, FULL.look.free_u)]:
        assert all(getattr(noun, field.name) != field.default for field in dataclasses.fields(kind))
    assert FULL.look.controls[1].detector is not None  # a sequence has none
    assert LEARNED.delivery.upscaler is not None  # which is in place of an upsampling
    for kind, noun in [(Shot, FULL), (Plate, FULL.plate), (Look, FULL.look), (Control, FULL.look.controls[0]),
                       (Keyframing, FULL.keyframing), (Editing, FULL.editing), (Coherence, FULL.coherence),
                       (Delivery, FULL.delivery)]:
        same = {field.name for field in dataclasses.fields(kind) if getattr(noun, field.name) == field.default}
        known = {"schema", "detector", "upscaler"}
        assert same <= known, f"{kind.__name__}.{same} would pass even if the document forgot it"


def test_the_document_is_readable_json_that_begins_with_its_schema() -> None:
    text = FULL.to_json()
    document = json.loads(text)
    assert next(iter(document)) == "schema"
    assert document["plate"]["frames"] == "1001-1048x2,-5--1,1100"
    assert document["plate"]["rate"] == "24000/1001"
    assert document["look"]["controls"][0]["kind"] == "sequence"
    assert document["coherence"]["optimisation"] is None
    assert "水彩画" in text


def test_a_path_that_is_not_utf8_survives_in_a_utf8_file() -> None:
    odd = dataclasses.replace(SMALL, plate=Plate(sequence=b"pl\xe4te.####.exr".decode("utf-8", "surrogateescape")))
    assert Shot.from_json(odd.to_json().encode().decode()) == odd


def test_a_short_document_takes_the_defaults() -> None:
    text = '{"schema": 1, "plate": {"sequence": "plate.####.exr"}, "look": {"prompt": "an ink drawing"},' \
           ' "delivery": {"sequence": "out.####.exr"}}'
    assert Shot.from_json(text) == SMALL
    assert SMALL.coherence == Coherence(spatial=SpatialGuidance(), temporal=TemporalGuidance(),
                                        optimisation=FeatureOptimisation(), background=BackgroundSmoothing())


@pytest.mark.parametrize(("path", "value", "found", "allowed"), [
    ("schema", 2, "2", "1"),
    ("schema", True, "true", "a whole number"),
    ("look", None, "null", "an object with prompt"),
    ("look", [], "a list", "an object with prompt"),
    ("look.prompt", " ", '" "', "a text that is not empty"),
    ("look.promt", "x", "an unknown key", '"prompt"?'),
    ("look.zzz", "x", "an unknown key", "prompt, negative_prompt, cues"),
    ("look.sampler", "euler", '"euler"', '"ddpm" or "ddim"'),
    ("look.sampler", ["ddim"], "a list", '"ddpm" or "ddim" or "dpm++" or "lcm"'),
    ("look.prediction", "v", '"v"', '"epsilon" or "v_prediction" or null'),
    ("look.vae", "", '""', "a text that is not empty"),
    ("look.loras.0.weight", 5, "5.0", "a number from -4 to 4"),
    ("look.loras", "ink", '"ink"', "a list of: an object with model, weight"),
    ("look.free_u.backbone_1", -1, "-1.0", "a number from 0 to 3"),
    ("look.cues.0.to", "", '""', "a text that is not empty"),
    ("look.cues.0.prompt", "dusk -> night", '"dusk -> night"', 'stands in "to"'),
    ("look.controls.0.detector", "owner/depth", '"owner/depth"', 'kind is "sequence"'),
    ("look.steps", 20.0, "20.0", "a whole number from 1 to 1000"),
    ("look.steps", True, "true", "a whole number from 1 to 1000"),
    ("look.steps", 0, "0", "a whole number from 1 to 1000"),
    ("look.seed", 2**63, str(2**63), "a whole number"),
    ("look.strength", float("nan"), "NaN", "a number from 0 to 1"),
    ("look.strength", float("inf"), "Infinity", "a number from 0 to 1"),
    ("look.strength", True, "true", "a number from 0 to 1"),
    ("look.strength", "0.5", '"0.5"', "a number from 0 to 1"),
    ("look.strength", -0.1, "-0.1", "a number from 0 to 1"),
    ("look.guidance", 10**400, "10000", "a number from 0 to 100"),
    ("look.controls.0.strength", 7, "7.0", "a number from 0 to 2"),
    ("look.controls.0.sequence", None, "null", 'kind is "sequence"'),
    ("look.controls.1.sequence", "a.####.png", '"a.####.png"', 'kind is "depth"'),
    ("look.controls.0.end", 0.1, "0.1", "above start"),
    ("look.controls", {}, "an object", "a list of: an object with kind"),
    ("look.cues.0.frames", "", '""', '"1001-1048"'),
    ("plate.rate", 24, "24", "frames per second"),
    ("plate.rate", "24/0", '"24/0"', "frames per second"),
    ("plate.frames", "1048-1001", 'where last is 1001', "a frame from 1048"),
    ("plate.frames", [1001], "a list", '"1001-1048"'),
    ("plate.missing", "black", '"black"', '"error" or "hold" or "skip"'),
    ("matte.invert", 1, "1", "true or false"),
    ("keyframing.maximum_gap", 1, "1", "at least minimum_gap, which is 2"),
    ("delivery.upscaler", "4x.pth", '"4x.pth"', 'null, because upsampling is "bicubic"'),
    ("keyframing.window", 2, "2", "a whole number from 3 to 64"),
    ("delivery.bit_depth", "int12", '"int12"', '"half" or "float"'),
    ("delivery.working_size", 12, "12", "a whole number from 64 to 8192 or null"),
])
def test_an_error_names_the_place_what_was_found_and_what_is_allowed(
        path: str, value: object, found: str, allowed: str) -> None:
    with pytest.raises(ShotError) as caught:
        Shot.from_json(changed(path, value))
    place = path.replace(".0.", "[0].").replace(".1.", "[1].")
    assert caught.value.path == place
    assert found in caught.value.found
    assert allowed in caught.value.allowed
    assert str(caught.value).startswith(f"{place}: found ")


@pytest.mark.parametrize(("text", "path", "found"), [
    ("", "", "no JSON"),
    ("[1]", "", "a list"),
    ("{", "", "no JSON"),
    ("[" * 100_000, "", "no JSON"),
    ('{"plate": {}}', "schema", "nothing"),
    ('{"schema": 1}', "plate", "nothing"),
    ('{"schema": 1, "plate": {"sequence": "a"}, "look": {}}', "look.prompt", "nothing"),
    ('{"schema": 1, "schema": 1}', "schema", "twice"),
])
def test_text_that_is_no_shot_is_refused(text: str, path: str, found: str) -> None:
    with pytest.raises(ShotError) as caught:
        Shot.from_json(text)
    assert caught.value.path == path
    assert found in caught.value.found
    assert caught.value.found != '"nothing"', "what is missing is no text that was found"


@pytest.mark.parametrize("make", [
    lambda: Look(prompt=""),
    lambda: Look(prompt="x", strength=float("nan")),
    lambda: Look(prompt="x", steps=True),
    lambda: Look(prompt="x", sampler=Sampler.LCM, steps=51),
    lambda: Plate(sequence="a", frames=()),
    lambda: Plate(sequence="a", frames="1001-1010"),  # type: ignore[arg-type]
    lambda: Look(prompt="x", controls=[Control(kind=ControlKind.CANNY)]),  # type: ignore[arg-type]
    lambda: Control(kind="canny"),  # type: ignore[arg-type]
    lambda: dataclasses.replace(SMALL, schema=2),
])
def test_python_is_held_to_the_rules_of_the_document(make: Callable[[], object]) -> None:
    with pytest.raises(ShotError):
        make()


def test_nouns_are_frozen_and_take_keywords_only() -> None:
    with pytest.raises(TypeError):
        Look("an ink drawing")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Look(prompt="x", promt="y")  # type: ignore[call-arg]
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(("text", "numbers", "written"), [
    ("1001", [1001], "1001"),
    ("1001-1004", [1001, 1002, 1003, 1004], "1001-1004"),
    ("1-8x3", [1, 4, 7], "1-8x3"),
    ("1-8:3", [1, 4, 7], "1-8x3"),
    ("-5--3", [-5, -4, -3], "-5--3"),
    ("-2-1", [-2, -1, 0, 1], "-2-1"),
    ("-5", [-5], "-5"),
    ("5-5", [5], "5"),
    ("5-5x2", [5], "5-5x2"),
    ("10, 1-3 ,2-4", [10, 1, 2, 3, 4], "10,1-3,2-4"),
])
def test_frames_in_text(text: str, numbers: list[int], written: str) -> None:
    ranges = parse_frames(text)
    assert list(frame_numbers(ranges)) == numbers
    assert ",".join(map(str, ranges)) == written
    assert parse_frames(written) == ranges


def test_handles_are_at_the_step_of_the_range_that_they_lie_beside() -> None:
    found = with_handles(parse_frames("1011-1020x4,1001-1003"), 2)
    assert found == ((999, 1000), (1001, 1002, 1003, 1011, 1015, 1019), (1023, 1027))
    assert with_handles(parse_frames("5"), 0) == ((), (5,), ())


@pytest.mark.parametrize("text", ["", ",", "1-", "-", "5-1", "1-5x0", "1-5x", "1-5x-1", "1-5x2,#", "1.5", "a", "1-2-3",
                                  "1-5y2", "+1", "１-２", "1-5,", "0-1000000", "1 - 5", "5x2", "123456789012"])
def test_text_that_is_no_frames_is_refused(text: str) -> None:
    with pytest.raises(ShotError, match="allowed"):
        parse_frames(text)


@pytest.mark.parametrize(("text", "numerator", "denominator"), [
    ("24", 24, 1), ("25.0", 25, 1), ("12.5", 25, 2), ("23.976", 24000, 1001), ("23.98", 24000, 1001),
    ("29.97", 30000, 1001), ("30000/1001", 30000, 1001), ("59.94", 60000, 1001), ("119.88", 120000, 1001),
    ("14.985", 15000, 1001), ("48/2", 24, 1), ("2997/125", 2997, 125), ("1/3", 1, 3),
])
def test_rates_are_exact(text: str, numerator: int, denominator: int) -> None:
    rate = Rate.parse(text)
    assert (rate.numerator, rate.denominator) == (numerator, denominator)
    assert Rate.parse(str(rate)) == rate
    assert rate.fraction * denominator == numerator


@pytest.mark.parametrize("text", ["", "0", "0/1", "24/0", "-24", "nan", "inf", "1e3", "24fps", "24/1.001", "24/ 1"])
def test_text_that_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ShotError, match="frames per second"):
        Rate.parse(text)


def test_relative_paths_belong_to_the_folder_of_the_document(tmp_path: Path) -> None:
    placed = FULL.located(str(tmp_path))
    assert placed.plate.sequence == FULL.plate.sequence  # absolute stays
    assert placed.delivery.sequence == str(tmp_path / "out.mov")
    assert placed.matte is not None
    assert placed.matte.sequence == str(tmp_path / "matte.####.exr")
    assert placed.look.controls is not None
    assert [control.sequence for control in placed.look.controls] == [str(tmp_path / "lines.####.png"), None]


def test_a_frame_range_is_inclusive() -> None:
    assert list(FrameRange(first=1, last=3).numbers()) == [1, 2, 3]


def test_every_error_has_its_own_code_and_stands_in_the_tree() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FrescoError)]
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert {kind.exit_code for kind in kinds} == {1, 2, 3, 4, 5, 6, 7, 8, 12, 69, 70, 71, 75, 76, 130}
    rows = [line.lstrip("│├└─ ").split() for line in str(errors.__doc__).splitlines()]
    for kind in kinds:
        assert [kind.__name__, kind.code, str(kind.exit_code)] in [row[:3] for row in rows]


def test_errors_say_what_where_and_what_next_and_travel_between_processes() -> None:
    error = PlateMissing("no frame found", where=Path("a.####.exr"), remedy="Check the path")
    assert str(error) == "no frame found (a.####.exr). Check the path"
    assert str(FrescoError("broken")) == "broken"
    for kept in [error, Interrupted("stopped", terminated=True), ShotError("look.seed", "-1", "0")]:
        again = pickle.loads(pickle.dumps(kept))
        assert (str(again), again.exit_code, again.code) == (str(kept), kept.exit_code, kept.code)
    assert (Interrupted("stopped").exit_code, Interrupted("stopped", terminated=True).exit_code) == (130, 143)
