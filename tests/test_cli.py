# SPDX-License-Identifier: Apache-2.0
"""The command line: what it asks of a render, what it prints where, and how it ends. Renders themselves are faked."""
from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fresco_backend
from fresco_backend import cli, failure, interruption
from fresco_backend.arguments.shot_arguments import shot_of
from fresco_backend.events import Advanced, Delivered, Event, Finished, Planned, Stage, Warned
from fresco_backend.render.farm_stage import FarmStage
from fresco_backend.render.pins import Pins
from fresco_protocol.errors import DiskFull, FrescoError, WeightsMissing
from fresco_protocol.shot import (
    BitDepth,
    Coherence,
    Compat,
    Control,
    ControlKind,
    Delivery,
    Editing,
    FreeU,
    Keyframing,
    Look,
    Lora,
    Matte,
    Missing,
    Plate,
    Prediction,
    Rate,
    Sampler,
    Shot,
    parse_frames,
)

ROOT = Path(__file__).parents[1]
PATHS = [str(ROOT / "protocol"), str(ROOT / "backend")]
LEAST = ["render", "plate.####.exr", "-o", "out/look.####.exr", "--prompt", "a watercolour"]
PLAN = Planned(frames=(1001, 1002, 1003), delivered=(1001,), keyframes=(1001, 1003), windows=((1001, 1003),),
               plate_size=(1920, 1080), working_size=(576, 320), rate="24", model="embedded", device="cpu",
               precision="float32", seed=0, job_hash="a3f0", scratch="/scratch/a3f0", memory_bytes=2**31, seconds=192.0)
EVENTS = (PLAN, Advanced(stage=Stage.KEYFRAMES, done=1, total=2),
          Delivered(frame=1002, path="/out/look.1002.exr", keyframe=False),
          Finished(rendered=2, reused=1, seconds=5.0, sidecar="/out/look.json", outputs=("/out/look.1002.exr",)))


@dataclass
class FakePipeline:
    """Stands for fresco_backend.pipeline: gives `events`, then raises `error`; remembers what was asked of it."""

    events: tuple[Event, ...] = EVENTS
    error: BaseException | None = None
    asked: dict[str, Any] = field(default_factory=dict)
    closed: bool = False

    def plan(self, shot: Shot, **rest: Any) -> Planned:
        self.asked = {"shot": shot, **rest}
        return PLAN

    def render(self, shot: Shot, **rest: Any) -> Iterator[Event]:
        self.asked = {"shot": shot, **rest}
        try:
            yield from self.events
            print("words of a library")  # noqa: T201
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakePipeline:
    fake, module = FakePipeline(), ModuleType("fresco_backend.pipeline")
    module.plan, module.render = fake.plan, fake.render  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fresco_backend.pipeline", module)
    monkeypatch.setattr("fresco_backend.render.preflight.require_sources", lambda shot, model: None)
    monkeypatch.setattr(fresco_backend, "pipeline", module, raising=False)
    monkeypatch.setenv("FRESCO_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.chdir(tmp_path)
    return fake


def shot(*options: str) -> Shot:
    """The shot of `fresco render plate.####.exr …`, its paths as they were given."""
    described, selection = shot_of(cli.parser().parse_args([*LEAST, *options]))
    assert selection is None
    return described


def failing(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and words on stderr of a command line that fails before anything is rendered."""
    code = cli.main(words)
    return code, capsys.readouterr().err


def test_what_nobody_gives_is_the_default_of_the_nouns() -> None:
    here = str(Path.cwd())
    assert shot() == Shot(plate=Plate(sequence="plate.####.exr"), look=Look(prompt="a watercolour"),
                          delivery=Delivery(sequence="out/look.####.exr")).located(here)


def test_every_option_arrives_in_the_shot() -> None:
    found = shot(
        "--frames=-5-0,7-9x2", "--missing=hold", "--rate=23.976", "--color-space=srgb", "--matte=m.####.png",
        "--matte-channel=R", "--matte-invert", "--negative=blur", "--cue", "1001-1010:2: rain: heavy", "--cue=7:snow",
        "--cue=1-9: dusk -> night", "--model=runwayml/sd", "--prediction=v_prediction", "--vae=owner/vae",
        "--lora=ink.safetensors=-0.5", "--lora=owner/lora", "--free-u=1.1,1.2,0.9,.2", "--control=depth",
        "--control-detector=depth=owner/depth", "--strength=0.5", "--guidance=4", "--steps=30", "--sampler=ddim",
        "--seed=7",
        "--control=canny=0.8:0.1-.6", "--control=sequence", "--control-sequence=c.####.png",
        "--control-model=canny=owner/net", "--min-gap=3", "--max-gap=9", "--window=5", "--no-cross-frame",
        "--no-spatial", "--no-temporal", "--no-optimisation", "--no-background", "--compat=reference",
        "--output-color-space=linear-rec709", "--bit-depth=half", "--compression=dwaa:45", "--handles=8",
        "--working-size=384", "--overwrite")
    here = Path.cwd()
    assert found.plate == Plate(sequence=str(here / "plate.####.exr"), frames=parse_frames("-5-0,7-9x2"),
                                missing=Missing.HOLD, rate=Rate(numerator=24000, denominator=1001),
                                color_space="srgb")
    assert found.matte == Matte(sequence=str(here / "m.####.png"), channel="R", invert=True)
    assert found.look.controls == (
        Control(kind=ControlKind.DEPTH, detector="owner/depth"),
        Control(kind=ControlKind.CANNY, strength=0.8, start=0.1, end=0.6, model="owner/net"),
        Control(kind=ControlKind.SEQUENCE, sequence=str(here / "c.####.png")))
    assert [(str(cue.frames[0]), cue.prompt, cue.to) for cue in found.look.cues] == [
        ("1001-1010x2", "rain: heavy", None), ("7", "snow", None), ("1-9", "dusk", "night")]
    assert found.look.loras == (Lora(model="ink.safetensors", weight=-0.5), Lora(model="owner/lora"))
    assert found.look.free_u == FreeU(backbone_1=1.1, backbone_2=1.2, skip_1=0.9, skip_2=0.2)
    assert dataclasses.replace(found.look, cues=(), controls=None, loras=(), free_u=None) == Look(
        prompt="a watercolour", negative_prompt="blur", model="runwayml/sd", prediction=Prediction.VELOCITY,
        vae="owner/vae", strength=0.5, guidance=4.0, steps=30,
        sampler=Sampler.DDIM, seed=7)
    assert found.keyframing == Keyframing(minimum_gap=3, maximum_gap=9, window=5)
    assert found.coherence == Coherence(cross_frame=False, spatial=None, temporal=None, optimisation=None,
                                        background=None, compat=Compat.REFERENCE)
    assert found.delivery == Delivery(sequence=str(here / "out/look.####.exr"), color_space="linear-rec709",
                                      bit_depth=BitDepth.HALF, compression="dwaa:45", handles=8, working_size=384,
                                      overwrite=True)


def test_no_field_of_a_shot_is_out_of_reach() -> None:
    spoken = set(cli.parser().parse_args(LEAST).flags)
    nouns = {"plate": Plate, "matte": Matte, "look": Look, "keyframing": Keyframing, "coherence": Coherence,
             "delivery": Delivery, "editing": Editing}
    assert {f"{name}.{one.name}" for name, noun in nouns.items() for one in dataclasses.fields(noun)} == spoken


@pytest.mark.parametrize(("option", "keyframing"), [
    ("auto", Keyframing()),
    ("every:6", Keyframing(minimum_gap=6, maximum_gap=6)),
    ("1001,1010-1030x10", Keyframing(frames=parse_frames("1001,1010-1030x10"))),
])
def test_keyframes_are_chosen_in_three_ways(option: str, keyframing: Keyframing) -> None:
    assert shot(f"--keyframes={option}").keyframing == keyframing


def test_controls_that_nobody_names_are_the_models_and_none_is_none() -> None:
    assert shot().look.controls is None
    assert shot("--control=none").look.controls == ()
    assert shot("--control-sequence=a.####.png").look.controls == (
        Control(kind=ControlKind.SEQUENCE, sequence=str(Path.cwd() / "a.####.png")),)


def test_per_frame_is_no_coherence() -> None:
    assert shot("--per-frame").coherence is None


def test_free_u_without_numbers_is_the_nouns_default() -> None:
    assert shot("--free-u").look.free_u == FreeU()


def test_a_farms_three_numbers_are_a_range() -> None:
    assert shot("--frame-start=-5", "--frame-end=10", "--frame-step=5").plate.frames == parse_frames("-5-10x5")
    assert shot("--frame-start=1", "--frame-end=1").plate.frames == parse_frames("1-1")


def test_a_tilde_that_the_shell_left_is_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Bash leaves it in quotes and behind `=`: the delivery would lie in a folder whose name is "~"."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    words = ["render", "~/plate.####.exr", "--output=~/out/look.####.exr", "--prompt", "x", "--matte=~/m.####.png"]
    shot, _ = shot_of(cli.parser().parse_args(words))
    assert shot.matte is not None
    assert [shot.plate.sequence, shot.delivery.sequence, shot.matte.sequence] == [
        str(tmp_path / name) for name in ("plate.####.exr", "out/look.####.exr", "m.####.png")]


@pytest.mark.parametrize(("options", "sentence"), [
    (["--strength=2"], "--strength is 2.0 [usage]\n  Allowed: a number from 0 to 1"),
    (["--strength=nan"], "--strength is NaN"),
    (["--sampler=lcm", "--steps=51"], "--steps is 51"),
    (["--steps=2.5"], "--steps: invalid int value"),
    (["--frames=10-1"], '--frames is "10-1", where last is 1'),
    (["--frames", "-5-0"], "--frames=-5-0"),
    (["--frames=1-2", "--frame-start=1"], "say the same thing"),
    (["--frame-start=1"], "belong together"),
    (["--prompt="], '--prompt is ""'),
    (["--rate=0"], '--rate is "0"'),
    (["--control=canny=3"], "--control (strength) is 3.0"),
    (["--control=cany"], '--control (kind) is "cany"'),
    (["--control=canny:0.5"], "KIND[=STRENGTH][:START-END]"),
    (["--control=none", "--control=canny"], "Give it alone"),
    (["--control=sequence"], "1 controls are of kind sequence, and 0 --control-sequence"),
    (["--control-model=canny=x"], "--control-model for canny"),
    (["--control-model=canny"], "KIND=MODEL"),
    (["--cue=rain"], "frames, a colon and words"),
    (["--control=canny", "--control-detector=canny=x"], "--control (detector) is"),
    (["--control-detector=depth=x"], "--control-detector for depth"),
    (["--control-detector=depth"], "KIND=MODEL"),
    (["--lora="], "FILE[=WEIGHT]"),
    (["--lora=ink.safetensors=7"], "--lora (weight) is 7.0"),
    (["--free-u=1,2"], "four numbers"),
    (["--free-u=1,1,1,9"], "--free-u (skip_2) is 9.0"),
    (["--prediction=v"], "invalid choice: 'v'"),
    (["--vae="], '--vae is ""'),
    (["--cue=1-9: dusk ->"], '--cue (to) is ""'),
    (["--cue=1-9: a -> b -> c"], "--cue (to) is"),
    (["--cue=10-1: rain"], '--cue (frames) is "10-1"'),
    (["--keyframes=every:x"], "every:N with a whole number"),
    (["--keyframes=every:0"], "N of --keyframes every:N is 0"),
    (["--keyframes=every:5", "--min-gap=3"], "--keyframes every:N sets both gaps"),
    (["--min-gap=30"], "--max-gap is 8"),
    (["--matte-invert"], "--matte is missing"),
    (["--per-frame", "--no-spatial"], "--per-frame leaves no coherence for --no-spatial"),
    (["--no-matte", "--matte=m.png"], "--no-matte leaves no matte for --matte"),
    (["--strength=0,4"], "Give a number with a point, as in 0.5."),
    (["--steps=20.0"], "Give a whole number."),
    (["--frames", "-5-0"], "joined to its option, as in --frames=-5-0"),
    (["--frames=1008-1002"], "Allowed: a frame from 1008 on; frames count up"),
    (["--promt=x"], "Did you mean --prompt?"),
    (["--prom=x"], '"--prom=x" is not understood'),
    (["--prompt", "an", "ink", "drawing"], "Words and names with spaces stand in quotes"),
    (["--bit-depth=9"], "invalid choice: '9'"),
])
def test_a_wrong_option_is_named_and_the_way_out_told(options: list[str], sentence: str,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    code, words = failing([*LEAST, *options], capsys)
    assert code == 2
    assert sentence in words
    assert words.startswith("fresco: error: ")


@pytest.mark.parametrize(("words", "sentence"), [
    (["render", "plate.exr", "--prompt", "x"], "-o is missing [usage]\n  Say where the result goes, as in -o "),
    (["render", "plate.exr", "-o", "x.exr"], "--prompt is missing [usage]\n  Say the look in words"),
    (["rendr"], '"rendr" is no command of fresco [usage]\n  Did you mean render? See: fresco --help'),
    (["models", "lst"], "Did you mean list? See: fresco models --help"),
    (["xyzzy"], '"xyzzy" is no command of fresco [usage]\n  See: fresco --help'),
    ([*LEAST, "--strength=1.5"], "Allowed: a number from 0 to 1\n"),
    (["watch", "zzz"], 'there is no job "zzz" [job-unknown]\n  See their ids: fresco jobs'),
    (["download", "zzz", "-o", "out"], "See their ids: fresco jobs"),
])
def test_what_is_missing_is_named(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = failing(words, capsys)
    assert code == 2
    assert sentence in said


@pytest.mark.parametrize("words", [[], ["models"], ["farm"]])
def test_without_a_command_the_help_is_shown_and_the_code_is_that_of_usage(
        words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, ""), "a script that lost its words has not succeeded"
    assert said.err.startswith(f"usage: {' '.join(['fresco', *words])} ") and "commands:" in said.err


def test_a_dry_run_warns_on_stderr(pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    warned = dataclasses.replace(PLAN, warnings=(Warned(code="unknown-words", text="the model does not know"),))
    monkeypatch.setattr(sys.modules["fresco_backend.pipeline"], "plan", lambda *_, **__: warned)
    assert cli.main([*LEAST, "--dry-run"]) == 0
    said = capsys.readouterr()
    assert said.err == "warning: the model does not know [unknown-words]\n" and "warning" not in said.out
    assert cli.main([*LEAST, "--dry-run", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["warnings"][0]["code"] == "unknown-words" and said.err == ""


@pytest.fixture
def document(tmp_path: Path) -> Path:
    folder = tmp_path / "shots"
    folder.mkdir()
    described = Shot(
        plate=Plate(sequence="plate.####.exr", frames=parse_frames("1001-1048")), matte=Matte(sequence="../m.####.png"),
        look=Look(prompt="an ink drawing", seed=3), delivery=Delivery(sequence="out/look.####.exr"), name="harbour")
    (folder / "shot.json").write_text(described.to_json(), encoding="utf-8")
    return folder / "shot.json"


def test_a_documents_paths_belong_to_its_folder_and_options_to_the_current_one(
        document: Path, pipeline: FakePipeline) -> None:
    assert cli.main(["render", str(document), "--frames=1001-1004", "-o", "mine.####.exr", "--steps=5"]) == 0
    found, folder = pipeline.asked["shot"], document.parent
    assert found.plate == Plate(sequence=str(folder / "plate.####.exr"), frames=parse_frames("1001-1048"))
    assert found.matte == Matte(sequence=str(folder.parent / "m.####.png"))
    assert found.delivery.sequence == str(Path.cwd() / "mine.####.exr")
    assert found.look == Look(prompt="an ink drawing", seed=3, steps=5)
    assert found.name == "harbour"
    assert pipeline.asked["selection"] == (1001, 1002, 1003, 1004)


def test_a_document_can_lose_its_matte(document: Path) -> None:
    found, selection = shot_of(cli.parser().parse_args(["render", str(document), "--no-matte"]))
    assert found.matte is None
    assert selection is None


def test_options_do_not_turn_a_documents_coherence_on(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    described = Shot.from_json(document.read_text(encoding="utf-8"))
    document.write_text(dataclasses.replace(described, coherence=None).to_json(), encoding="utf-8")
    assert shot_of(cli.parser().parse_args(["render", str(document), "--per-frame"]))[0].coherence is None
    code, words = failing(["render", str(document), "--no-spatial"], capsys)
    assert code == 2
    assert "no coherence" in words


def test_an_error_in_a_document_names_the_file_and_the_place(document: Path,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    document.write_text(document.read_text(encoding="utf-8").replace('"seed": 3', '"seed": -3'), encoding="utf-8")
    code, words = failing(["render", str(document)], capsys)
    assert code == 2
    assert "shot.json: look.seed" in words


@pytest.mark.parametrize("content", [None, b"\xff\xfe{"])
def test_a_document_that_cannot_be_read_is_bad_input(content: bytes | None, tmp_path: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    if content is not None:
        (tmp_path / "shot.json").write_bytes(content)
    code, words = failing(["render", str(tmp_path / "shot.json")], capsys)
    assert code == 3
    assert "shot.json" in words


@pytest.mark.parametrize(("words", "code"), [
    ([*LEAST, "--frames=1-5"], 3), (["render", "clip.mov", *LEAST[2:]], 3),
    (["render", "demo/shot.json", "--model", "nonsense"], 7), (["render", "demo/shot.json", "--still", "2000"], 3)])
def test_what_is_missing_is_said_before_torch_is_read(words: list[str], code: int) -> None:
    asked = f"import sys; from fresco_backend import cli; print(cli.main({words!r}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, cwd=ROOT,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)})
    assert done.stdout == f"{code} False\n"


def test_a_saved_shot_renders_the_same(pipeline: FakePipeline, tmp_path: Path) -> None:
    assert cli.main([*LEAST, "--seed=9", "--save-shot", "saved.json"]) == 0
    first = pipeline.asked["shot"]
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")
    assert cli.main(["render", "../saved.json"]) == 0
    assert pipeline.asked["shot"] == first


def test_a_shot_that_cannot_be_saved_ends_before_the_render(pipeline: FakePipeline) -> None:
    assert cli.main([*LEAST, "--save-shot", "no/such/folder/shot.json"]) == 4
    assert not pipeline.asked


def test_a_shot_that_is_saved_takes_the_place_of_no_plate_and_of_no_whole_document(
        pipeline: FakePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plate, saved = tmp_path / "plate.1001.exr", tmp_path / "shot.json"
    plate.write_bytes(b"a picture")
    assert cli.main([*LEAST, "--save-shot", str(plate)]) == 2
    assert plate.read_bytes() == b"a picture"
    assert cli.main([*LEAST, "--save-shot", str(saved)]) == 0
    document = saved.read_bytes()
    pipeline.asked.clear()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert cli.main([*LEAST, "--seed=9", "--save-shot", str(saved)]) == 4
    assert saved.read_bytes() == document
    assert not pipeline.asked
    assert not [*tmp_path.glob(".*.part")]


def test_switches_reach_the_render(pipeline: FakePipeline) -> None:
    assert cli.main(LEAST) == 0
    assert pipeline.asked["allow_download"] is False
    assert pipeline.asked["keep_scratch"] is False
    assert cli.main([*LEAST, "--keep-scratch", "--allow-download"]) == 0
    assert pipeline.asked["allow_download"] is True
    assert pipeline.asked["keep_scratch"] is True


def test_a_farms_stage_and_pins_reach_the_render(pipeline: FakePipeline, tmp_path: Path) -> None:
    assert cli.main(LEAST) == 0
    assert (pipeline.asked["stage"], pipeline.asked["pins"]) == (None, None)
    pins = Pins(job="a3f0", family="own architecture", versions={}, color="", weights={}, configurations={})
    pins.write(tmp_path / "pins.json")
    assert cli.main([*LEAST, "--stage=in-betweens", f"--pins={tmp_path / 'pins.json'}"]) == 0
    assert (pipeline.asked["stage"], pipeline.asked["pins"]) == (FarmStage.IN_BETWEENS, pins)
    assert cli.main([*LEAST, "--stage=half"]) == 2
    assert cli.main([*LEAST, "--pins=no.json"]) == 3


def test_a_session_reads_its_lines_on_stdout(pipeline: FakePipeline, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*LEAST, "--progress=openjd"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "openjd_status: starting"
    assert "openjd_progress: 100.0" in said.out
    pipeline.error = DiskFull("the disk is full")
    assert cli.main([*LEAST, "--progress", "openjd"]) == 4
    assert capsys.readouterr().out.splitlines()[-1] == "openjd_fail: the disk is full [disk-full]"


def test_people_read_stderr_and_nothing_stands_on_stdout(pipeline: FakePipeline,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(LEAST) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "done in 5 s: 2 frames rendered, 1 kept from before" in said.err


@pytest.mark.parametrize("option", ["--json", "--progress=json"])
def test_machines_read_one_json_object_a_line(option: str, pipeline: FakePipeline,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*LEAST, option]) == 0
    said = capsys.readouterr()
    assert [json.loads(line) for line in said.out.splitlines()] == [json.loads(json.dumps(event.to_json()))
                                                                    for event in EVENTS]
    assert ("done in" in said.err) == (option == "--json")


def test_a_dry_run_prints_the_plan_and_renders_nothing(pipeline: FakePipeline,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*LEAST, "--dry-run"]) == 0
    assert capsys.readouterr().out == textwrap.dedent("""\
        frames     3 frames, 1001-1003, 1 of them delivered already
        keyframes  2: 1001,1003
        windows    1: 1001 1003
        size       1920x1080, rendered at 576x320
        rate       24 frames per second
        model      embedded on cpu, float32
        seed       0
        memory     about 2.0 GiB
        time       about 3 min 12 s
        scratch    /scratch/a3f0
        job        a3f0
        """)
    assert cli.main([*LEAST, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["event"] == "planned"
    assert not pipeline.closed


@pytest.mark.parametrize(("error", "code", "exit_code"), [
    (DiskFull("the disk is full", where="/out", remedy="Make room."), "disk-full", 4),
    (WeightsMissing("no model", remedy="Get it."), "weights-missing", 7),
    (MemoryError(), "device-memory", 12),
    (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried 2 GiB"), "device-memory", 12),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "device-memory", 12),
    (RuntimeError("[enforce fail] data. DefaultCPUAllocator: not enough memory: you tried"), "device-memory", 12),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "device-memory", 12),
    (RuntimeError("shapes do not fit"), "bug", 1),
    (KeyboardInterrupt(), "interrupted", 130),
    (interruption.Terminated(), "interrupted", 143),
])
def test_every_error_has_one_exit(error: BaseException, code: str, exit_code: int, pipeline: FakePipeline,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    pipeline.error = error
    assert cli.main([*LEAST, "--json"]) == exit_code
    assert pipeline.closed
    said = capsys.readouterr()
    found = json.loads(said.out.splitlines()[-1])
    assert (found["event"], found["code"], found["exit_code"]) == ("error", code, exit_code)
    assert f"{found['what']}" in said.err
    assert f"[{code}]" in said.err
    assert found["remedy"] in said.err


def test_a_bug_leaves_its_traceback_in_a_file(pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    pipeline.error = KeyError("latents")
    assert cli.main(LEAST) == 1
    written, = (tmp_path / "scratch" / "tracebacks").iterdir()
    words = capsys.readouterr().err
    assert str(written) in words
    assert "Traceback (" not in words
    assert "KeyError: 'latents'" in written.read_text(encoding="utf-8")
    monkeypatch.setenv("FRESCO_TRACEBACK", "1")
    assert cli.main(LEAST) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_usage_error_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*LEAST, "--progress", "json", "--strength=7"]) == 2
    assert json.loads(capsys.readouterr().out)["what"] == "--strength is 7.0"


def test_an_interruption_tells_the_command_that_goes_on(pipeline: FakePipeline,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    pipeline.error = KeyboardInterrupt()
    assert cli.main([*LEAST, "--overwrite"]) == 130
    words = capsys.readouterr().err
    assert "this run has finished 1 frame, and every file is whole" in words
    assert "To go on: fresco render 'plate.####.exr' -o 'out/look.####.exr' --prompt 'a watercolour'\n" in words


def test_a_reader_that_goes_away_ends_the_command_quietly(monkeypatch: pytest.MonkeyPatch,
                                                          capfd: pytest.CaptureFixture[str]) -> None:
    class Closed(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    kept = os.dup(1)
    monkeypatch.setattr(sys, "stdout", Closed())
    try:
        assert cli.main(["models", "list"]) == cli.BROKEN_PIPE
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    assert "error" not in capfd.readouterr().err


def test_the_demo_is_the_shot_of_the_source_tree(pipeline: FakePipeline, document: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "DEMO", document)
    assert cli.main(["demo", "-o", "mine.####.png", "--steps=4"]) == 0
    found = pipeline.asked["shot"]
    assert found.delivery.sequence == str(Path.cwd() / "mine.####.png")
    assert (found.name, found.look.steps) == ("harbour", 4)


def test_without_the_source_tree_the_demo_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "DEMO", tmp_path / "demo" / "shot.json")
    code, words = failing(["demo"], capsys)
    assert code == 3
    assert "source tree" in words


def test_the_help_lists_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def kinds(kind: type[FrescoError]) -> set[int]:
        return {kind.exit_code}.union(*map(kinds, kind.__subclasses__()))

    listed = {int(line.split()[0]) for line in failure.EXIT_CODES.splitlines()[1:]}
    assert listed == kinds(FrescoError) | {0, 143}
    for words in (["--help"], ["render", "--help"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert ended.value.code == 0
        assert failure.EXIT_CODES in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.startswith("fresco ")


def test_models_are_listed_shown_and_checked(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny").symlink_to(tiny_model)
    monkeypatch.setenv("FRESCO_MODELS", str(tmp_path))
    assert cli.main(["models", "list", "--json"]) == 0
    listed = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert {"embedded", "tiny"} <= listed.keys()
    assert listed["tiny"]["problem"] is None
    assert cli.main(["models", "check", "tiny"]) == 0
    assert "ok    unet, " in capsys.readouterr().out
    assert cli.main(["models", "show", "tiny"]) == 0
    assert "unet/diffusion_pytorch_model.safetensors" in capsys.readouterr().out
    assert cli.main(["models", "check", "no-such-model"]) == 7


def test_a_card_is_laid_out_for_people_and_stays_markdown_for_programs(
        tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(tiny_model, tmp_path / "tiny")
    card = "# A title\n\n| look | prompt |\n|---|---|\n| **ink** | `an ink drawing` |\n"
    (tmp_path / "tiny" / "README.md").write_text(f"---\nlicense: mit\n---\n{card}")
    assert cli.main(["models", "show", str(tmp_path / "tiny")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "A title" and " ink   an ink drawing" in lines
    assert not any(mark in line for mark in ("|", "**", "license", "\x1b") for line in lines[:8])
    assert cli.main(["models", "show", str(tmp_path / "tiny"), "--json"]) == 0
    assert card.strip() in json.loads(capsys.readouterr().out)["text"]


def test_the_help_brings_in_nothing_heavy() -> None:
    program = f"import sys; sys.path[:0] = {PATHS}; from fresco_backend import cli\n" \
              "try: cli.main(['render', '--help'])\n" \
              "except SystemExit: print(*{'torch', 'diffusers', 'OpenImageIO', 'numpy', 'rich', 'av', " \
              "'huggingface_hub', 'fileseq', 'importlib.metadata'} & set(sys.modules), file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stderr.split() == []


# A render that tells when it is under way, then works; {work} and {close} say how.
SLOW = """
import sys, time
from types import ModuleType
sys.path[:0] = {paths}
import fresco_backend
from fresco_backend import cli, interruption
from fresco_backend.render import preflight
interruption.GRACE = 0.4
preflight.require_sources = lambda shot, model: None
def render(shot, **rest):
    try:
        sys.stderr.write("under way\\n"); sys.stderr.flush()
        {work}
        yield
    finally:
        sys.stderr.write("closed\\n"); sys.stderr.flush()
        {close}
fresco_backend.pipeline = sys.modules["fresco_backend.pipeline"] = ModuleType("fresco_backend.pipeline")
fresco_backend.pipeline.render = render
sys.exit(cli.main(["render", "p.####.exr", "-o", "o.####.exr", "--prompt", "x", "--progress=none"]))
"""
POSIX_ONLY = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def started(work: str, close: str = "pass") -> subprocess.Popen[str]:
    """A slow render in a process of its own, under way."""
    process = subprocess.Popen([sys.executable, "-c", SLOW.format(paths=PATHS, work=work, close=close)],
                               stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "under way\n"
    return process


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, words = process.communicate(timeout=30)
    return process.returncode, words


@POSIX_ONLY
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_closes_the_render(number: signal.Signals, code: int) -> None:
    process = started("time.sleep(60)")
    process.send_signal(number)
    found, words = ended(process)
    assert found == code
    assert words.startswith("closed\nfresco: interrupted; this run has finished 0 frames")


@POSIX_ONLY
def test_a_second_ctrl_c_ends_at_once() -> None:
    process = started("time.sleep(60)", close="time.sleep(60)")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.readline() == "closed\n"
    time.sleep(0.6)  # sooner, it would pass for the echo of the first
    process.send_signal(signal.SIGINT)
    found, words = ended(process)
    assert found == 130
    assert "ended at once" in words


@POSIX_ONLY
def test_sigterm_ends_in_time_whatever_the_render_does() -> None:
    process = started("time.sleep(60)", close="time.sleep(60)")
    process.send_signal(signal.SIGTERM)
    found, words = ended(process)
    assert found == 143
    assert "ended at once" in words


@POSIX_ONLY
def test_a_job_in_the_background_of_a_shell_keeps_ignoring_ctrl_c() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = started("time.sleep(0.5)", close="sys.exit(9)")
    finally:
        signal.signal(signal.SIGINT, before)
    process.send_signal(signal.SIGINT)
    assert ended(process) == (9, "closed\n")


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with interruption.interruptible():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
