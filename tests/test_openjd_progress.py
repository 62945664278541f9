# SPDX-License-Identifier: Apache-2.0
"""What a session of Open Job Description reads: lines at column 0, percentages that only grow, words of a failure."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from fresco_backend import failure
from fresco_backend.events import Advanced, Finished, Stage, Waited, Warned
from fresco_backend.farm.openjd_progress import OpenJDProgress, ServedProgress
from fresco_backend.render.farm_stage import FarmStage
from fresco_backend.terminal.progress import LONGEST_SILENCE
from fresco_protocol import events as e
from fresco_protocol import job
from fresco_protocol.errors import DiskFull


class Clock:
    now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


def advanced(stage: Stage, done: int, total: int) -> Advanced:
    return Advanced(stage=stage, done=done, total=total)


DONE = Finished(rendered=4, reused=0, seconds=3.0, sidecar="/out/look.fresco.json", outputs=("/out/look.1.png",))
WHOLE = [advanced(Stage.ANALYSE, 4, 4), advanced(Stage.KEYFRAMES, 5, 10), advanced(Stage.DELIVER, 2, 4),
         advanced(Stage.KEYFRAMES, 10, 10), advanced(Stage.DELIVER, 4, 4), DONE]


def percentages(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"^openjd_progress: (.*)$", text, re.MULTILINE)]


@pytest.mark.parametrize(("stage", "events", "expected"), [
    (None, WHOLE, [0, 40, 50, 90, 100]),
    (FarmStage.KEYFRAMES, [advanced(Stage.KEYFRAMES, 1, 4), DONE], [0, 25, 100]),
    (FarmStage.IN_BETWEENS, [advanced(Stage.DELIVER, 1, 4), advanced(Stage.DELIVER, 4, 4), DONE], [0, 25, 100]),
    (FarmStage.VERIFY, [DONE], [0, 100]),
])
def test_percentages_grow_to_a_hundred(stage: FarmStage | None, events: list[Advanced | Finished],
                                       expected: list[float]) -> None:
    stream = io.StringIO()
    with OpenJDProgress(stream, stage, Clock()) as progress:
        for event in events:
            progress.show(event)
    assert percentages(stream.getvalue()) == expected


def test_every_line_is_one_that_a_session_knows() -> None:
    stream = io.StringIO()
    with OpenJDProgress(stream, None, Clock()) as progress:
        for event in (*WHOLE, Warned(code="clamped", text="2 samples"), Waited(product="window.2", owner="node 7")):
            progress.show(event)
    lines = stream.getvalue().splitlines()
    assert all(line.startswith(("openjd_status: ", "openjd_progress: ")) for line in lines)
    assert "\r" not in stream.getvalue()
    assert "openjd_status: waiting for window 3, which node 7 makes" in lines


def test_waiting_is_said_once_for_each_product_and_silence_is_broken() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = OpenJDProgress(stream, None, clock)
    for _ in range(3):
        progress.show(Waited(product="window.2", owner="node 7"))
    assert stream.getvalue().count("waiting") == 1
    clock.now += LONGEST_SILENCE
    progress.tick()
    assert "still waiting for window 3" in stream.getvalue()


def test_a_failure_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    error = DiskFull("the disk is full:\nno room", where="/out/look.1001.exr")
    assert failure.report(error, as_json=False, as_openjd=True, command=[]) == 4
    assert capsys.readouterr().out == "openjd_fail: the disk is full: no room (/out/look.1001.exr) [disk-full]\n"


def test_a_job_that_a_server_renders_is_told_the_same_way() -> None:
    stream = io.StringIO()
    served = ServedProgress(stream)
    times: dict[str, Any] = {"number": 1, "time": 0.0, "job": "job-00000001"}
    for stage, made, total in ((job.Stage.KEYFRAMES, 2, 4), (job.Stage.DELIVER, 1, 4), (job.Stage.KEYFRAMES, 4, 4)):
        served.tell(e.Advanced(**times, stage=stage, done=made, total=total), f"{stage.value} {made}/{total}")
    served.tell(e.ServerStopping(number=2, time=0.0), None)
    done = e.Finished(**times, rendered=4, reused=0, seconds=1.0, sidecar="/a.json", outputs=("/a.1.png",))
    served.tell(done, "done")
    assert percentages(stream.getvalue()) == [40.0, 45.0, 85.0, 100.0]
    assert stream.getvalue().startswith("openjd_status: keyframes 2/4\nopenjd_progress: 40.0\n")
