# SPDX-License-Identifier: Apache-2.0
"""A real bundle of a real clip with the embedded model, run by the real command line of Open Job Description."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from davinci import served
from shots import bits, small_shot, write_plate

from fresco_backend import cli
from fresco_protocol.client import Client
from fresco_protocol.job import JobState
from fresco_protocol.messages import ListJobs
from fresco_protocol.shot import Delivery, Keyframing, Look, Plate, Shot, parse_frames

ROOT = Path(__file__).parents[1]
OPENJD = shutil.which("openjd", path=str(Path(sys.executable).parent)) or shutil.which("openjd")
PROGRAM = f'{sys.executable} -c "from fresco_backend.cli import main; raise SystemExit(main())"'

pytestmark = [pytest.mark.skipif(OPENJD is None, reason="openjd-cli is not installed"),
              pytest.mark.skipif(os.name != "posix", reason="kills process groups")]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of six frames of the demo plate: keyframes 1001, 1004 and 1006, in-betweens in chunks of three."""
    folder = tmp_path_factory.mktemp("job")
    shot = Shot(
        plate=Plate(sequence=str(ROOT / "demo" / "plate" / "boat.####.exr"), frames=parse_frames("1001-1006")),
        look=Look(prompt="a watercolour", steps=4), keyframing=Keyframing(frames=parse_frames("1001,1004,1006")),
        coherence=None, delivery=Delivery(sequence=str(folder / "out" / "look.####.png"), working_size=128))
    (folder / "shot.json").write_text(shot.to_json(), encoding="utf-8")
    options = ["-o", str(folder / "bundle"), "--chunk=3", "--command", PROGRAM]
    assert cli.main(["farm", "bundle", str(folder / "shot.json"), *options]) == 0
    return folder / "bundle"


def environment() -> dict[str, str]:
    rooms = [str(ROOT / room) for room in ("protocol", "backend")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(rooms), "OMP_NUM_THREADS": "1"}


def openjd(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(OPENJD), *words], capture_output=True, text=True, env=environment(), check=False)


def killed_at(bundle: Path, line: str) -> tuple[int, str]:
    """Exit code and output of a run whose task is killed with all its processes when it says this line."""
    run = subprocess.Popen([str(OPENJD), "run", str(bundle / "template.json")], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, env=environment())
    said, task = [], 0
    for text in run.stdout or ():
        said.append(text)
        if started := re.search(r"Command started as pid: (\d+)", text):
            task = int(started[1])
        if line in text:
            os.killpg(task, signal.SIGKILL)
            line = "\0"  # once
    return run.wait(), "".join(said)


def test_the_schema_holds_and_the_job_has_its_tasks(bundle: Path) -> None:
    checked = openjd("check", str(bundle / "template.json"))
    assert checked.returncode == 0, checked.stdout
    values = json.loads((bundle / "parameter_values.json").read_bytes())["parameterValues"]
    parameters = {value["name"]: str(bundle / str(value["value"])) if value["name"] in ("Shot", "Pins")
                  else value["value"] for value in values}
    summary = openjd("summary", str(bundle / "template.json"), "-p", json.dumps(parameters), "--output", "json")
    assert summary.returncode == 0, summary.stdout
    steps = {step["name"]: step for step in json.loads(summary.stdout)["steps"]}
    assert list(steps) == ["Keyframes", "InBetweens", "Verify"]


def test_a_killed_run_goes_on_and_makes_no_finished_frame_again(bundle: Path) -> None:
    out = bundle.parent / "out"
    code, said = killed_at(bundle, "openjd_status: deliver 1/3, frame 1001")
    assert code == 1
    assert "openjd_status: keyframes step 1/" in said
    there = {path.name: path.stat().st_mtime_ns for path in out.glob("look.*.png")}
    assert there
    assert len(there) < 6
    again = openjd("run", str(bundle / "template.json"), "--output", "json")
    assert again.returncode == 0, again.stdout
    assert "openjd_status: keyframes" not in again.stdout, "the model was loaded by the first run alone"
    assert sorted(bits(out)) == [f"look.{frame}.png" for frame in range(1001, 1007)]
    assert {name: (out / name).stat().st_mtime_ns for name in there} == there
    assert not (out / ".fresco").exists()
    assert json.loads((out / "look.png.fresco.json").read_bytes())["frames"] == "1001-1006"


def test_a_chunk_that_fails_fails_the_job_and_says_why(bundle: Path) -> None:
    in_the_way = bundle.parent / "out" / "look.1005.png"
    in_the_way.unlink(missing_ok=True)
    in_the_way.mkdir(parents=True)
    run = openjd("run", str(bundle / "template.json"), "--step", "InBetweens", "--no-run-dependencies", "--tasks",
                 '[{"Frame": "1004-1006"}]')
    assert run.returncode == 1
    assert "openjd_fail: " in run.stdout


@pytest.fixture(scope="module")
def served_bundle(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a server's environment; the submitter's folder is elsewhere on the worker, `rules.json` says."""
    tmp_path = tmp_path_factory.mktemp("served")
    there, here = tmp_path / "there", tmp_path / "here"
    shutil.copytree(tiny_model, there / "model")
    shot = small_shot(write_plate(there / "plate", 4), there / "model", there / "out" / "look.####.png")
    (tmp_path / "shot.json").write_text(shot.to_json(), encoding="utf-8")
    options = ["-o", str(tmp_path / "bundle"), "--server", "--device=cpu", "--command", PROGRAM]
    assert cli.main(["farm", "bundle", str(tmp_path / "shot.json"), *options]) == 0
    there.rename(here)
    rules = [{"source_path_format": "POSIX", "source_path": str(there), "destination_path": str(here)}]
    (tmp_path / "rules.json").write_text(json.dumps({"version": "pathmapping-1.0", "path_mapping_rules": rules}))
    return tmp_path / "bundle"


def run_mapped(bundle: Path) -> subprocess.CompletedProcess[str]:
    """With all that the session says: as JSON, it leaves out the words of an environment that fails."""
    rules = f"file://{bundle.parent / 'rules.json'}"
    return openjd("run", str(bundle / "template.json"), "--path-mapping-rules", rules)


def test_a_session_with_a_server_renders_with_the_paths_of_the_worker(served_bundle: Path) -> None:
    ran = run_mapped(served_bundle)
    assert ran.returncode == 0, ran.stdout
    folder = served_bundle.parent
    assert sorted(bits(folder / "here" / "out")) == [f"look.{frame}.png" for frame in range(1001, 1005)]
    assert "openjd_status: " in ran.stdout
    assert "openjd_progress: 80.0" in ran.stdout, "the server rendered the keyframes, and the step told so"
    assert not (folder / "there").exists()


def test_a_session_on_a_node_that_differs_ends_before_a_server_starts(served_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(served_bundle, tmp_path / "bundle")
    shutil.copy(served_bundle.parent / "rules.json", tmp_path)
    pins = json.loads((served_bundle / "pins.json").read_bytes())
    pins["versions"]["torch"] = "0.1"
    (tmp_path / "bundle" / "pins.json").write_text(json.dumps(pins), encoding="utf-8")
    ran = run_mapped(tmp_path / "bundle")
    assert ran.returncode == 1
    assert "this node differs from the one that planned the job: torch is" in ran.stdout


def test_a_server_of_the_site_takes_the_tasks_of_every_session(served_bundle: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    (served_bundle.parent / "site").mkdir()  # the server works in the folder above it
    with served(served_bundle.parent / "site") as line:
        monkeypatch.setenv("FRESCO_CONNECTION", str(line.connection))
        for _ in range(2):
            ran = openjd("run", str(served_bundle / "template.json"), "--step", "Keyframes", "--path-mapping-rules",
                         f"file://{served_bundle.parent / 'rules.json'}", "--output", "json")
            assert ran.returncode == 0, ran.stdout
            assert "a server of this node answers" in ran.stdout
        with Client(line.connection, software="tests") as client:
            assert [job.state for job in client.request(ListJobs()).records] == [JobState.DELIVERED] * 2
