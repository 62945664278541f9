# SPDX-License-Identifier: Apache-2.0
"""Lines between the server and its workers."""
from __future__ import annotations

from typing import Any

import pytest
from verbs import EXAMPLES, JOB, SHOT

from fresco_backend.worker.worker_words import (
    Beat,
    Broken,
    Done,
    GoOn,
    Halt,
    Halted,
    Line,
    Ready,
    Render,
    Told,
    line_of,
)
from fresco_protocol.errors import FrescoError
from fresco_protocol.events import JobEvent
from fresco_protocol.job import Problem

PROBLEM = Problem(code="disk-full", what="no space", where="/show", remedy="Free some.", exit_code=4)
LINES: tuple[Any, ...] = (
    Render(job=JOB, shot=SHOT, attempt=2), Halt(), GoOn(), Ready(device="cuda:0", devices=("cuda:0", "cpu")),
    Beat(model="embedded", memory_bytes=2**33, memory_total=None), Halted(), Done(), Broken(problem=PROBLEM))


def test_every_line_is_tried() -> None:
    assert {type(line).__name__ for line in LINES} | {"Told"} == set(Line.kinds)


@pytest.mark.parametrize("line", LINES, ids=lambda line: type(line).__name__)
def test_a_line_comes_as_it_went(line: Line) -> None:
    data = line.to_bytes()
    assert (data.count(b"\n"), data[-1:]) == (1, b"\n")
    assert line_of(data) == line


@pytest.mark.parametrize("event", [message for message in EXAMPLES if isinstance(message, JobEvent)],
                         ids=lambda event: type(event).__name__)
def test_an_event_comes_as_it_went(event: JobEvent) -> None:
    line = line_of(Told.of(event).to_bytes())
    assert isinstance(line, Told)
    assert line.event() == event


@pytest.mark.parametrize("data", [b"\n", b"{}\n", b'{"is": "Ready"}\n', b'{"is": "Line"}\n', b"a library says hello\n"])
def test_what_is_no_line_is_refused(data: bytes) -> None:
    with pytest.raises(FrescoError):
        line_of(data)
