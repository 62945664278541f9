# SPDX-License-Identifier: Apache-2.0
"""A shot as a job of a farm: what is decided when it is submitted, and what each engine is asked to run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from shots import FRAMES, small_shot, with_delivery, with_look, with_plate, write_plate

from fresco_backend import cli
from fresco_backend.farm import opencue, slurm
from fresco_backend.farm.bundle import asset_references, template, write_bundle
from fresco_backend.farm.command import command_lines
from fresco_backend.farm.plan import FarmPlan, Site, plan_shot
from fresco_protocol.errors import OutputError, UsageError
from fresco_protocol.shot import Keyframing, Shot, parse_frames


@pytest.fixture(scope="module")
def open_shot(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Shot:
    """A shot of nine frames whose choices are open, in a folder of its own."""
    folder = tmp_path_factory.mktemp("farm")
    shot = small_shot(write_plate(folder / "plate"), tiny_model, folder / "out" / "look.####.png")
    return with_look(shot, strength=None, guidance=None)


@pytest.fixture(scope="module")
def plan(open_shot: Shot) -> FarmPlan:
    return plan_shot(open_shot, Site(command=("/opt/fresco run", "fresco"), chunk=4))


def test_every_choice_is_made_when_a_shot_is_planned(plan: FarmPlan, open_shot: Shot) -> None:
    shot = plan.shot
    assert None not in (shot.look.strength, shot.look.guidance, shot.look.controls, shot.delivery.working_size)
    assert shot.plate.frames == parse_frames("1001-1009")
    assert shot.keyframing.frames == parse_frames("1001-1009x2")
    assert (plan.frames, plan.windows) == (tuple(FRAMES), 3)
    assert plan.chunks == ((1001, 1002, 1003, 1004), (1005, 1006, 1007, 1008), (1009,))
    assert plan.name == "look"
    assert plan.memory > 0
    assert not any(Path(open_shot.delivery.sequence).parent.iterdir()), "planning renders nothing"


def test_keyframes_that_depend_on_the_plate_are_chosen_once(open_shot: Shot) -> None:
    moving = replace(open_shot, keyframing=Keyframing(minimum_gap=2, maximum_gap=4, window=3))
    assert plan_shot(moving, Site()).shot.keyframing.frames is not None


@pytest.mark.parametrize(("name", "expected"), [("sh 010/å", "sh-010"), ("...", "shot"), ("ok_1.2-b", "ok_1.2-b")])
def test_a_job_has_a_name_that_every_engine_takes(open_shot: Shot, name: str, expected: str) -> None:
    assert plan_shot(replace(open_shot, name=name), Site()).name == expected


def test_what_cannot_be_delivered_is_refused_at_once(open_shot: Shot) -> None:
    with pytest.raises(OutputError):
        plan_shot(with_delivery(open_shot, sequence="/proc/no/look.####.png"), Site())
    with pytest.raises(UsageError, match="chunk of 0"):
        Site(chunk=0)


def test_a_bundle_is_whole_and_its_shot_the_planned_one(plan: FarmPlan, tmp_path: Path) -> None:
    folder = write_bundle(plan, tmp_path / "bundle")
    assert sorted(path.name for path in folder.iterdir()) == [
        "asset_references.json", "parameter_values.json", "pins.json", "shot.json", "template.json"]
    assert Shot.from_json((folder / "shot.json").read_text(encoding="utf-8")) == plan.shot
    values = json.loads((folder / "parameter_values.json").read_bytes())["parameterValues"]
    names = {value["name"] for value in values}
    assert names == {parameter["name"] for parameter in template(plan)["parameterDefinitions"]}


def test_assets_are_where_the_job_reads_and_writes(plan: FarmPlan) -> None:
    found = asset_references(plan, Path("/jobs/a"))["assetReferences"]
    assert found["inputs"]["directories"] == [str(Path(plan.shot.plate.sequence).parent)]
    assert found["outputs"]["directories"] == [str(plan.output)]


@pytest.mark.parametrize(("frames", "written", "constraint"), [
    ("1001-1009", "1001-1009", "CONTIGUOUS"), ("1001-1009x2", "1001-1009:2", "NONCONTIGUOUS")])
def test_frames_are_written_as_the_standard_has_them(open_shot: Shot, frames: str, written: str,
                                                     constraint: str) -> None:
    made = template(plan_shot(with_plate(open_shot, frames=parse_frames(frames)), Site()))
    assert made["parameterDefinitions"][2]["default"] == written
    definition = made["steps"][1]["parameterSpace"]["taskParameterDefinitions"][0]
    assert definition["chunks"]["rangeConstraint"] == constraint


def test_every_step_takes_the_frames_that_a_submitter_chose(plan: FarmPlan) -> None:
    steps = {step["name"]: step["script"]["actions"]["onRun"]["args"] for step in template(plan)["steps"]}
    assert "--frames={{Param.Frames}}" in steps["Keyframes"]
    assert "--frames={{Task.Param.Frame}}" in steps["InBetweens"]
    assert "--frames={{Param.Frames}}" in steps["Verify"]


def test_only_the_keyframes_ask_for_a_device_and_only_where_there_shall_be_one(open_shot: Shot) -> None:
    with_gpu, without = (template(plan_shot(open_shot, Site(device=device))) for device in (True, False))
    asked = [step.get("hostRequirements") for step in with_gpu["steps"]]
    assert [amount["name"] for amount in asked[0]["amounts"]] == ["amount.worker.gpu", "amount.worker.gpu.memory"]
    assert asked[1:] == [None, None]
    assert not any("hostRequirements" in step for step in without["steps"])


def test_lines_for_a_shell_come_in_order_and_quoted(plan: FarmPlan) -> None:
    lines = [shlex.split(line) for line in command_lines(plan, Path("/jobs/my job")) if not line.startswith("#")]
    assert all(line[:3] == ["/opt/fresco run", "fresco", "render"] for line in lines)
    assert all(line[3] == "/jobs/my job/shot.json" for line in lines)
    assert [line[4] for line in lines] == ["--stage=keyframes", *["--stage=in-betweens"] * 3, "--stage=verify"]
    assert [word for line in lines for word in line if word.startswith("--frames")] == [
        "--frames=1001-1004", "--frames=1005-1008", "--frames=1009"]


def fake_sbatch(folder: Path, answer: str) -> Path:
    """An sbatch that keeps its words, one call a line, and numbers its jobs. answer: what it says behind the number."""
    path = folder / "sbatch"
    path.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\0" "$word"; done >> "$CALLS"\n'
                    'printf "\\n" >> "$CALLS"\n'
                    f'echo "$(wc -l < "$CALLS" | tr -d " "){answer}"\n', encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


def submitted(plan: FarmPlan, tmp_path: Path, *options: str, answer: str = "") -> list[list[str]]:
    """The words of every call of sbatch that a plan's script makes."""
    fake_sbatch(tmp_path, answer)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CALLS": str(tmp_path / "calls")}
    subprocess.run(["sh", "-c", slurm.script(plan, Path("/jobs/my job"), options)], env=environment, check=True,
                   capture_output=True)
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    return [call.rstrip("\0").split("\0") for call in calls]


@pytest.mark.skipif(os.name != "posix", reason="Slurm is a thing of POSIX")
def test_slurm_gets_three_jobs_each_after_the_one_before(plan: FarmPlan, tmp_path: Path) -> None:
    comment = "--comment=costs $id `touch gone`"  # nothing of a word is taken for shell
    keyframes, between, verify = submitted(plan, tmp_path, "--partition=my part", comment)
    always = {"--partition=my part", "--requeue", comment}
    assert all(always <= set(call) for call in (keyframes, between, verify))
    assert "--gres=gpu:1" in keyframes
    assert "--gres=gpu:1" not in between
    assert {"--array=0-2", "--dependency=afterok:1"} <= set(between)
    assert "--dependency=afterok:2" in verify


@pytest.mark.skipif(os.name != "posix", reason="Slurm is a thing of POSIX")
def test_a_federation_of_clusters_names_the_cluster_behind_the_id(plan: FarmPlan, tmp_path: Path) -> None:
    between, verify = submitted(plan, tmp_path, "--clusters=far", answer=";far")[1:]
    assert "--dependency=afterok:1" in between
    assert "--dependency=afterok:2" in verify


@pytest.mark.skipif(os.name != "posix", reason="Slurm is a thing of POSIX")
@pytest.mark.parametrize(("element", "frames"), [(0, "--frames=1001-1004"), (2, "--frames=1009")])
def test_an_element_of_the_array_takes_its_own_frames(plan: FarmPlan, tmp_path: Path, element: int,
                                                      frames: str) -> None:
    command = submitted(plan, tmp_path)[1][-1]
    echo = command.replace("exec '/opt/fresco run' fresco", "printf '%s\\n'")
    assert echo != command
    ran = subprocess.run(["sh", "-c", echo], env={**os.environ, "SLURM_ARRAY_TASK_ID": str(element)},
                         capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["render", "/jobs/my job/shot.json", "--stage=in-betweens",
                                       "--pins=/jobs/my job/pins.json", frames]


def test_more_chunks_than_an_array_holds_become_several(plan: FarmPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "_LARGEST_ARRAY", 2)
    text = slurm.script(plan, Path("/jobs/a"))
    assert re.findall(r"--array=(\S+)", text) == ["0-1", "0-0"]


def test_opencue_gets_layers_in_the_order_of_its_dtd(plan: FarmPlan) -> None:
    spec = ElementTree.fromstring(opencue.specification(plan, Path("/jobs/a"), show="show1", shot="sh010"))
    assert [child.tag for child in spec] == ["facility", "show", "shot", "user", "uid", "job", "depends"]
    order = ["cmd", "range", "chunk", "cores", "threadable", "memory", "gpus", "gpu_memory"]
    layers = {layer.get("name"): layer for layer in spec.iter("layer")}
    for layer in layers.values():
        assert [child.tag for child in layer] == [tag for tag in order if layer.find(tag) is not None]
    assert (layers["in_betweens"].findtext("range"), layers["in_betweens"].findtext("chunk")) == ("1001-1009", "4")
    assert layers["in_betweens"].findtext("cmd", "").endswith(" --frames=#FRAMESPEC#")
    assert layers["keyframes"].findtext("cmd", "").startswith('CUDA_VISIBLE_DEVICES="$CUE_GPU_CORES" ')
    assert layers["keyframes"].findtext("gpus") == "1"
    large = ElementTree.fromstring(opencue.specification(replace(plan, memory=9000), Path("/a"), show="s", shot="s"))
    assert [layer.findtext("memory") for layer in large.iter("layer")] == ["9000m", "4096m", "4096m"]
    after = [(one.findtext("deplayer"), one.findtext("onlayer")) for one in spec.iter("depend")]
    assert after == [("in_betweens", "keyframes"), ("verify", "in_betweens")]


def document(shot: Shot, path: Path) -> str:
    path.write_text(shot.to_json(), encoding="utf-8")
    return str(path)


def test_one_shot_has_the_folder_for_itself_and_several_share_it(open_shot: Shot, tmp_path: Path,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    shots = [document(replace(open_shot, name=name), tmp_path / f"{name}.json") for name in ("sh010", "sh020")]
    assert cli.main(["farm", "bundle", shots[0], "-o", str(tmp_path / "one"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bundle"] == str(tmp_path / "one")
    assert cli.main(["farm", "bundle", *shots, "-o", str(tmp_path / "two")]) == 0
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["sh010", "sh020"]
    assert cli.main(["farm", "bundle", shots[0], shots[0], "-o", str(tmp_path / "twice")]) == 2
    assert "two shots have the name sh010" in capsys.readouterr().err


@pytest.mark.parametrize(("engine", "words"), [
    ("openjd", "openjd run "), ("deadline-cloud", "deadline bundle submit "), ("slurm", "--dependency=afterok:$id"),
    ("command", "--stage=verify"), ("opencue", "<spec>")])
def test_what_an_engine_would_be_asked_can_be_seen(engine: str, words: str, open_shot: Shot, tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    shot = document(open_shot, tmp_path / "shot.json")
    assert cli.main(["farm", "submit", shot, "-o", str(tmp_path / "b"), "--engine", engine, "--print"]) == 0
    assert words in capsys.readouterr().out


def test_an_engine_that_is_not_here_or_fails_is_said(open_shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    shot = document(open_shot, tmp_path / "shot.json")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main(["farm", "submit", shot, "-o", str(tmp_path / "b"), "--engine", "deadline-cloud"]) == 2
    assert '"deadline" is not installed here' in capsys.readouterr().err
    failing = tmp_path / "deadline"
    failing.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    failing.chmod(0o755)
    assert cli.main(["farm", "submit", shot, "-o", str(tmp_path / "b"), "--engine", "deadline-cloud"]) == 69
    assert "deadline-cloud ended with 3" in capsys.readouterr().err


INTERRUPTED = """
import argparse, sys
from fresco_backend.commands.farm_commands import _run
from fresco_backend.interruption import interruptible
with interruptible():
    _run(["sh", "-c", sys.argv[1]], argparse.Namespace(only_print=False, engine="openjd"))
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows knows no SIGTERM")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_engine_that_is_interrupted_ends_its_tasks_first(number: int, tmp_path: Path) -> None:
    """One that is killed leaves them running, and nobody's."""
    engine = (f"trap 'sleep 1; echo > {tmp_path}/ended; exit 1' TERM; echo > {tmp_path}/began; "
              "while :; do sleep 0.1; done")
    rooms = os.pathsep.join(str(Path(__file__).parents[1] / room) for room in ("backend", "protocol"))
    submitting = subprocess.Popen([sys.executable, "-c", INTERRUPTED, engine], env={**os.environ, "PYTHONPATH": rooms},
                                  stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "began")
    submitting.send_signal(number)
    assert submitting.wait(30) != 0
    assert (tmp_path / "ended").exists()


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    pytest.fail(f"no {path}")


def test_a_server_for_the_session_is_started_and_stopped_by_the_job(open_shot: Shot, plan: FarmPlan) -> None:
    assert "jobEnvironments" not in template(plan)
    served = template(plan_shot(open_shot, Site(command=("/opt/my fresco", "-q"), server=True)))
    (found,) = served["jobEnvironments"]
    scripts = {file["name"]: file["data"] for file in found["script"]["embeddedFiles"]}
    assert "roots=$('/opt/my fresco' -q farm node \"$shot\" --pins=\"$pins\"" in scripts["Enter"]
    assert "nohup '/opt/my fresco' -q serve --idle-exit=10 --upload-limit=0 > " in scripts["Enter"]
    assert str(Path(open_shot.plate.sequence).parent) not in json.dumps(found), "paths are those of each worker"
    assert scripts["Exit"].splitlines()[-1] == "exec '/opt/my fresco' -q stop --now"
    assert served["steps"][0]["script"]["actions"]["onRun"]["args"][:2] == ["-q", "submit"]


@pytest.mark.skipif(os.name != "posix", reason="the environment's scripts are for a shell")
def test_a_session_whose_folders_have_any_names_starts_and_stops_its_server(open_shot: Shot, tmp_path: Path) -> None:
    (tmp_path / "o'neil $HOME").mkdir()
    session, shot = tmp_path / "o'neil $HOME", tmp_path / "it's `a` shot.json"
    program = tmp_path / "fresco"
    program.write_text('#!/bin/sh\nprintf "%s|" "$@" >> "$CALLS"; echo >> "$CALLS"\n'
                       '[ "$1" = serve ] && echo there > "$FRESCO_CONNECTION"; exit 0\n', encoding="utf-8")
    program.chmod(0o755)
    (found,) = template(plan_shot(open_shot, Site(command=(str(program),), server=True)))["jobEnvironments"]
    names = {"Param.Shot": shot, "Param.Pins": "p", "Session.PathMappingRulesFile": "r",
             "Session.WorkingDirectory": session}
    for file in found["script"]["embeddedFiles"]:
        (tmp_path / file["name"]).write_text(file["data"], encoding="utf-8")
        names[f"Env.File.{file['name']}"] = tmp_path / file["name"]

    def run(action: str, **more: str) -> str:
        words = [re.sub(r"{{(.*?)}}", lambda match: str(names[match[1]]), word)
                 for word in found["script"]["actions"][action]["args"]]
        environment = {**os.environ, "CALLS": str(tmp_path / "calls"), **more}
        return subprocess.run(["sh", *words], env=environment, check=True, capture_output=True, text=True).stdout

    assert f"openjd_env: FRESCO_CONNECTION={session}/connection.json\n" in run("onEnter")
    run("onExit", FRESCO_CONNECTION=f"{session}/connection.json")
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert calls[0] == f"farm|node|{shot}|--pins=p|--path-mapping=r|"
    assert calls[-1] == "stop|--now|"


def mapped(shot: Shot, folder: Path) -> Path:
    """A bundle of a shot for the machine that submits, and rules for a worker that has its folder elsewhere."""
    write_bundle(plan_shot(shot, Site(server=True)), folder / "bundle")
    rules = [{"source_path_format": "POSIX", "source_path": str(folder / "there"),
              "destination_path": str(folder / "here")}]
    (folder / "there").rename(folder / "here")
    (folder / "rules.json").write_text(json.dumps({"version": "pathmapping-1.0", "path_mapping_rules": rules}))
    return folder / "bundle"


def node(bundle: Path, *options: str) -> int:
    return cli.main(["farm", "node", str(bundle / "shot.json"), f"--pins={bundle / 'pins.json'}",
                     f"--path-mapping={bundle.parent / 'rules.json'}", *options])


def test_a_node_is_asked_for_its_own_folders_and_refuses_another_model(
        tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(tiny_model, tmp_path / "there" / "model")
    shot = small_shot(write_plate(tmp_path / "there" / "plate"), tmp_path / "there" / "model",
                      tmp_path / "there" / "out" / "look.####.png")
    bundle, here = mapped(shot, tmp_path), tmp_path / "here"
    (here / "out").rmdir()
    assert node(bundle) == 0
    assert capsys.readouterr().out.strip().split(os.pathsep) == [str(here / name) for name in ("plate", "out", "model")]
    assert (here / "out").is_dir()
    assert not (tmp_path / "there").exists()
    pins = json.loads((bundle / "pins.json").read_bytes())
    (bundle / "pins.json").write_text(json.dumps({**pins, "color": "ocio://another"}))
    assert node(bundle) == 8
    assert "colour configuration is" in capsys.readouterr().err
    (bundle / "pins.json").write_text(json.dumps(pins))
    weights = next((here / "model" / "unet").glob("*.safetensors"))
    weights.write_bytes(next((here / "model" / "vae").glob("*.safetensors")).read_bytes())
    assert node(bundle) != 0
    assert "model" in capsys.readouterr().err
