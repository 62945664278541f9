# SPDX-License-Identifier: Apache-2.0
"""The commands that speak with the server, against a real one."""
from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from servers import PACKAGES, Running, serving, shot_in
from verbs import EXAMPLES

from fresco_backend import cli
from fresco_backend.commands import job_commands
from fresco_backend.commands.job_commands import _watched
from fresco_backend.interruption import Terminated
from fresco_backend.roots import Roots
from fresco_backend.server import server_start
from fresco_backend.server.transfers import Transfers
from fresco_backend.terminal.job_text import event_json, event_line
from fresco_protocol.client import Client
from fresco_protocol.connection import Connection
from fresco_protocol.errors import Busy
from fresco_protocol.events import Advanced, Finished, Warned
from fresco_protocol.job import JobState, Stage
from fresco_protocol.messages import Cancel, ListJobs, ShowJob, Stop, Submit, Submitted
from fresco_protocol.shot import Control, ControlKind, Delivery, Look, Lora, Matte, Plate, Shot, parse_frames


@pytest.fixture(autouse=True)
def _places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FRESCO_CONNECTION", str(tmp_path / "state" / "connection.json"))
    monkeypatch.setenv("FRESCO_QUEUE", str(tmp_path / "state" / "queue.sqlite"))
    monkeypatch.setenv("FRESCO_ROOTS", str(tmp_path))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with serving(tmp_path, heartbeat=0.2) as server:
        yield server


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with running.client() as client:
        yield client


class Said:
    """What a command said, and how it ended."""

    def __init__(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        capsys.readouterr()
        self.code = cli.main(words)
        self.out, self.err = capsys.readouterr()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def document(folder: Path, shot: Shot | None = None) -> str:
    path = folder / "shot.json"
    path.write_text((shot or shot_in(folder)).to_json())
    return str(path)


def test_submit_prints_the_job_and_takes_the_options_of_render(
        running: Running, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(["submit", document(tmp_path), "--priority", "7", "--strength", "0.25", "--client-key", "k"], capsys)
    record = client.request(ListJobs()).records[0]
    assert (said.code, said.out) == (0, f"{record.id}\n")
    assert f"fresco watch {record.id}" in said.err
    assert (record.priority, record.client_key) == (7, "k")
    again = Said(["submit", document(tmp_path), "--strength", "0.25", "--client-key", "k", "--json"], capsys)
    assert again.objects[0]["created"] is False
    assert again.objects[0]["job"]["id"] == record.id


def test_a_submit_that_was_not_answered_can_be_sent_again_as_the_same_job(
        running: Running, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    submit = Transfers.submit

    def slow(self: Transfers, request: Submit) -> Submitted:
        time.sleep(1.5)
        return submit(self, request)

    with monkeypatch.context() as patch:
        patch.setattr(Transfers, "submit", slow)
        patch.setattr(job_commands, "connected", running.client)
        patch.setattr(job_commands, "JUDGED", 0.7)
        said = Said(["submit", document(tmp_path), "--no-start"], capsys)
    assert said.code == 69
    again = re.search(r"--client-key \S+", said.err)
    assert again is not None
    assert Said(["submit", document(tmp_path), *again[0].split()], capsys).code == 0
    assert client.request(ListJobs()).total == 1


def test_a_still_is_a_job_of_one_frame(running: Running, client: Client, tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plate.1003.exr").touch()
    job = Said(["submit", document(tmp_path), "--still", "1003"], capsys).out.strip()
    shot = client.request(ShowJob(job=job)).shot
    assert (shot.plate.frames, Path(shot.delivery.sequence).name) == (parse_frames("1003"), "look.still.1003.exr")


def test_a_chunk_of_a_document_is_no_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(["submit", document(tmp_path), "--frames=1001-1004"], capsys)
    assert said.code == 2
    assert f"fresco render {tmp_path / 'shot.json'} --frames=" in said.err and '"plate.frames"' in said.err


def test_what_becomes_of_a_job(running: Running, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    job, other = running.submit(client, "one").id, running.submit(client, "two").id
    for words, state in ((["pause", job], "paused"), (["resume", job], "queued"), (["priority", job, "9"], "queued"),
                         (["cancel", job], "cancelled"), (["retry", job], "queued")):
        assert f"job {job} is {state}" in Said(words, capsys).err
    assert Said(["priority", other, "--before", job, "--json"], capsys).objects[0]["job"]["priority"] == 9
    assert [record.id for record in client.request(ListJobs()).records] == [other, job]
    assert Said(["cancel", job, other, "--json"], capsys).code == 0
    assert {record.state.value for record in client.request(ListJobs()).records} == {"cancelled"}
    assert Said(["pause", job], capsys).code == 2
    assert Said(["cancel", "0123456789"], capsys).code == 2
    assert Said(["priority", job], capsys).code == 2


def test_a_job_that_refuses_keeps_the_others_from_nothing(
        running: Running, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    job, other = running.submit(client, "one").id, running.submit(client, "two").id
    said = Said(["pause", "0123456789", job, "9876543210", other, "--json"], capsys)
    assert (said.code, [found["event"] for found in said.objects]) == (2, ["changed", "changed", "error", "error"])
    assert [said.err.count(unknown) for unknown in ("0123456789", "9876543210")] == [1, 1]
    assert {record.state.value for record in client.request(ListJobs()).records} == {"paused"}


def test_jobs_is_a_table_or_json(running: Running, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert Said(["jobs"], capsys).out == "no jobs\n"
    jobs = [running.submit(client, f"shot-{number}").id for number in range(3)]
    client.request(Cancel(job=jobs[1]))
    lines = Said(["jobs"], capsys).out.splitlines()
    assert [line.split()[0] for line in lines] == ["job", jobs[0], jobs[2], jobs[1]]
    assert lines[3].split()[1] == "cancelled"
    found = Said(["jobs", "--state", "queued", "--limit", "1", "--json"], capsys).objects[0]
    assert ([record["id"] for record in found["jobs"]], found["total"]) == ([jobs[0]], 2)
    assert Said(["jobs", "--limit", "2"], capsys).out.endswith("and 1 more\n")


def test_what_others_wrote_gives_no_orders_to_a_terminal(
        running: Running, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    job = running.submit(client, "a\nb\x1b]0;owned\x07\x1b[31m\udcff").id
    running.server.log.say("one\ttwo\x1b[2Jthree")
    said = Said(["jobs"], capsys)
    assert len(said.out.splitlines()) == 2
    log = Said(["logs"], capsys)
    assert "one\ttwo" in log.out
    warned = event_line(Warned(number=1, time=0, job=job, code="c", text="a\x9bb\udcff"))
    for shown in (said.out, log.out, str(warned)):
        assert shown.replace("\n", "").replace("\t", "").isprintable()


def test_a_name_that_the_output_cannot_show_is_no_failure(running: Running, client: Client) -> None:
    running.submit(client, "水")
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONPATH": os.pathsep.join(PACKAGES)}
    said = subprocess.run([sys.executable, "-m", "fresco_backend.cli", "jobs"], env=environment, capture_output=True,
                          timeout=60)
    assert (said.returncode, said.stderr) == (0, b"")
    assert rb"\u6c34" in said.stdout


def test_watch_tells_a_job_to_its_end(running: Running, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    job = running.submit(client).id
    timer = threading.Timer(0.5, lambda: client.request(Cancel(job=job)))
    timer.start()
    said = Said(["watch", job, "--json"], capsys)
    timer.join()
    states = [event["record"]["state"] for event in said.objects if event["event"] == "job-changed"]
    assert (said.code, states) == (130, ["queued", "cancelled"])
    assert f"fresco retry {job}" in said.err
    assert [line.split()[-1] for line in Said(["watch", job], capsys).out.splitlines()] == ["queued", "cancelled"]
    assert Said(["watch", "0123456789"], capsys).code == 2


def test_watching_all_says_how_many_there_are(running: Running, client: Client, monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("fresco_backend.commands.job_commands._watched", lambda *_, **__: 0)
    assert Said(["watch"], capsys).err.startswith("no job waits or runs; ")
    job = running.submit(client, "one").id
    running.submit(client, "two")
    assert Said(["watch"], capsys).err.startswith("2 jobs waiting or running; ")
    client.request(Cancel(job=job))
    assert Said(["watch"], capsys).err.startswith("1 job waiting or running; ")
    assert Said(["watch", "--json"], capsys).err == ""


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_who_stops_watching_hears_that_the_job_goes_on(
        running: Running, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch, stop: type[BaseException], code: int) -> None:
    def stopped(_client: Client) -> list[Any]:
        raise stop

    monkeypatch.setattr(Client, "poll", stopped)
    said = Said(["submit", document(tmp_path), "--watch"], capsys)
    monkeypatch.undo()
    job = client.request(ListJobs()).records[0]
    assert (said.code, job.state) == (code, JobState.QUEUED)
    assert "the job goes on" in said.err and f"fresco cancel {job.id}" in said.err


def test_a_warning_that_each_attempt_repeats_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    class Heard:
        trouble = None

        def watch(self, **_: Any) -> None:
            """Nothing to ask."""

        def poll(self) -> Iterator[Warned]:
            yield from (Warned(number=number, time=0.0, job="0123456789", code="unknown-words", text=text)
                        for number, text in enumerate(["no zebra", "no fjord", "no zebra"]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _watched(cast(Client, Heard()), None, 0, as_json=False)
    assert [line.split("warning: ")[1] for line in capsys.readouterr().out.splitlines()] == [
        "no zebra [unknown-words]", "no fjord [unknown-words]"]


def test_of_an_uploaded_job_no_path_of_the_other_machine_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    class Heard:
        trouble = None

        def watch(self, **_: Any) -> None:
            """Nothing to ask."""

        def poll(self) -> Iterator[Finished]:
            yield Finished(number=1, time=0.0, job="0123456789", rendered=2, reused=0, seconds=5.0, sidecar="/r.json",
                           outputs=("/box/look.1001.exr", "/box/look.1002.exr"))
            raise KeyboardInterrupt

    for uploaded, told in ((True, "rendered"), (False, "rendered; /box/look.1001.exr … /box/look.1002.exr")):
        with pytest.raises(KeyboardInterrupt):
            _watched(cast(Client, Heard()), None, 0, as_json=False, uploaded=uploaded)
        assert capsys.readouterr().out.rstrip().endswith(f"done in 5 s: 2 frames {told}")


def test_of_a_long_stage_a_line_is_told_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    class Heard:
        trouble = None

        def watch(self, **_: Any) -> None:
            """Nothing to ask."""

        def poll(self) -> Iterator[Advanced]:
            for stage, total in ((Stage.ANALYSE, 100), (Stage.DELIVER, 12)):
                yield from (Advanced(number=done, time=1000.0 + done, job="0123456789", stage=stage, done=done,
                                     total=total) for done in range(1, total + 1) if stage is Stage.DELIVER or
                            done in (1, 2, 3, 99, 100))
            raise KeyboardInterrupt

    for as_json, told in ((False, ["analyse 1/100", "analyse 99/100", "analyse 100/100", "deliver 1/12",
                                   "deliver 6/12", "deliver 11/12", "deliver 12/12"]), (True, 17)):
        with pytest.raises(KeyboardInterrupt):
            _watched(cast(Client, Heard()), None, 0, as_json=as_json)
        lines = capsys.readouterr().out.splitlines()
        assert (len(lines) if as_json else [line.split("  ")[2] for line in lines]) == told


def test_logs_and_status(running: Running, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    job = running.submit(client).id
    assert Said(["logs", job], capsys).out == ""
    assert "listens at" in Said(["logs"], capsys).out
    assert "listens at" in Said(["logs", "--json"], capsys).objects[0]["line"]
    said = Said(["status"], capsys).out
    assert f"process {os.getpid()}" in said
    assert "1 queued" in said
    assert Said(["status", "--json"], capsys).objects[0]["status"]["queued"] == 1


@pytest.mark.parametrize("words", [["jobs"], ["watch"], ["status"], ["stop"], ["logs"], ["cancel", "0123456789"]])
def test_without_a_server_the_commands_say_so(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(words, capsys)
    assert said.code == 69
    assert 'Start it with "fresco serve"' in said.err


def test_submit_starts_a_server_and_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str],
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(["submit", document(tmp_path), "--no-start"]) == 69
    try:
        assert cli.main(["submit", document(tmp_path)]) == 0
        out, err = capfd.readouterr()
        assert "no server ran: started one in the background" in err
        assert str(tmp_path / "state" / "server.log") in err
        assert cli.main(["submit", document(tmp_path)]) == 0
        again = capfd.readouterr()
        assert "started one" not in again.err
        with Client(str(tmp_path / "state" / "connection.json"), software="test") as client:
            assert [record.id for record in client.request(ListJobs()).records] == [out.strip(), again.out.strip()]
            assert os.getsid(client.connect().pid) != os.getsid(0), "it is detached"
    finally:
        with Client(str(tmp_path / "state" / "connection.json"), software="test") as client:
            client.request(Stop(at_once=True))


def test_the_server_that_submit_starts_may_read_all_that_the_shot_names(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plate", "matte", "control", "loras", "model", "out"):
        (tmp_path / name).mkdir()
    lora = Lora(model=str(tmp_path / "loras" / "a.safetensors"))
    look = Look(prompt="ink", model=str(tmp_path / "model"), loras=(lora,),
                controls=(Control(kind=ControlKind.SEQUENCE, sequence=str(tmp_path / "control" / "c.####.png")),))
    shot = Shot(plate=Plate(sequence=str(tmp_path / "plate" / "p.####.png")), look=look,
                matte=Matte(sequence=str(tmp_path / "matte" / "m.####.png")),
                delivery=Delivery(sequence=str(tmp_path / "out" / "look.####.png")))
    started: list[Path] = []

    def start(roots: Sequence[Path]) -> SimpleNamespace:
        started.extend(roots)
        return SimpleNamespace(poll=lambda: 1)

    monkeypatch.setattr(server_start, "start_server", start)
    monkeypatch.setattr(server_start, "_last_words", str)
    assert cli.main(["submit", document(tmp_path, shot)]) == 69
    Roots.declared(started).check_shot(shot)


def test_a_server_that_has_the_queue_and_is_not_found_is_named(
        running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRESCO_CONNECTION", str(tmp_path / "elsewhere" / "connection.json"))
    monkeypatch.setattr(server_start, "PATIENCE", 1)
    monkeypatch.setattr(server_start, "start_server", lambda _roots: SimpleNamespace(poll=lambda: Busy.exit_code))
    said = Said(["submit", document(tmp_path)], capsys)
    assert said.code == 69
    assert "a server has the queue" in said.err and str(tmp_path / "state" / "queue.sqlite") in said.err


def test_no_server_is_started_in_place_of_another_machines(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tunnel:
        endpoint = f"tcp://127.0.0.1:{tunnel.getsockname()[1]}"
    box = tmp_path / "box.json"
    box.touch(mode=0o600)
    box.write_text(Connection(endpoint=endpoint, token="t" * 64, pid=1, version="1").to_json())
    before = box.read_bytes()
    monkeypatch.setenv("FRESCO_CONNECTION", str(box))
    said = Said(["submit", document(tmp_path)], capsys)
    assert said.code == 69
    assert "open the tunnel" in said.err
    assert box.read_bytes() == before


def test_a_server_that_cannot_start_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "queue.sqlite").write_bytes(b"not a database at all" * 100)
    said = Said(["submit", document(tmp_path)], capsys)
    assert said.code == 69
    assert "damaged" in said.err


@pytest.mark.parametrize("event", [message for message in EXAMPLES if hasattr(message, "number")],
                         ids=lambda event: type(event).__name__)
def test_every_event_has_words(event: Any) -> None:
    json.dumps(event_json(event))
    line = event_line(event)
    assert line is None or "\n" not in line or "problem" in line


@pytest.mark.parametrize(("reused", "outputs", "end"), [
    (0, ("/out/a.1.exr", "/out/a.2.exr", "/out/a.3.exr"), "3 frames rendered; /out/a.1.exr … /out/a.3.exr"),
    (2, ("/out/a.mov",), "3 frames rendered, 2 kept from before; /out/a.mov")])
def test_the_end_of_a_job_says_where_its_frames_lie(reused: int, outputs: tuple[str, ...], end: str) -> None:
    event = Finished(number=1, time=0.0, job="0123456789", rendered=3, reused=reused, seconds=4.0,
                     sidecar="/out/a.json", outputs=outputs)
    assert (event_line(event) or "").endswith(f"done in 4 s: {end}")
