# SPDX-License-Identifier: Apache-2.0
"""The verbs: what they hold, how they are named, and that they tell all that a render tells."""
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verbs import EXAMPLES, JOB, RECORD

from fresco_backend import events as render
from fresco_protocol import errors, events
from fresco_protocol.document import Written
from fresco_protocol.errors import FrescoError, Interrupted, ShotError
from fresco_protocol.events import Alive
from fresco_protocol.frame_range import as_ranges
from fresco_protocol.job import Problem, Stage
from fresco_protocol.messages import Failed, Message, PreviewImage, SetPriority, Submit, Submitted, Watch, fresh_key
from fresco_protocol.shot import frame_numbers
from fresco_protocol.wire import EVENTS, NAMES, REPLIES, REQUESTS, TYPES

PAGE = (Path(__file__).parents[1] / "protocol" / "README.md").read_text(encoding="utf-8")


def concrete(kind: type[Message]) -> set[type[Message]]:
    """The classes below `kind` that have none below them."""
    below = kind.__subclasses__()
    return {kind} if not below else set().union(*map(concrete, below))


def test_every_message_has_a_name_an_example_and_a_place_in_the_page() -> None:
    assert set(TYPES.values()) == concrete(Message) == {type(example) for example in EXAMPLES}
    assert len(TYPES) == len(REQUESTS) + len(REPLIES) + len(EVENTS)
    assert (NAMES[SetPriority], NAMES[PreviewImage], NAMES[Alive]) == (
        "request.set-priority", "reply.preview-image", "event.alive")
    for name in TYPES:
        assert f"`{name.split('.')[1]}`" in PAGE, f"protocol/README.md does not know {name}"


def test_the_page_names_the_fields_of_every_request_and_the_reply_to_it() -> None:
    for kind in REQUESTS:
        name = NAMES[kind].split(".")[1]
        _, asked, reply, _ = next(row for row in map(cells, PAGE.splitlines()) if f"`{name}`" in row[0])
        assert names(kind) <= set(re.findall(r"\w+", asked)), name
        assert reply.startswith(f"`{NAMES[kind.answer()].split('.')[1]}`"), name
        assert names(kind.answer()) <= set(re.findall(r"\w+", reply)), name


def names(kind: Any) -> set[str]:
    """The fields of a message."""
    return {field.name for field in dataclasses.fields(kind)}


def cells(line: str) -> list[str]:
    """The cells of one line of a table; empty ones if it is no table."""
    return [cell.strip() for cell in line.split("|")[1:]] or [""]


def test_a_request_knows_its_reply() -> None:
    assert Submit.answer() is Submitted
    assert {kind.answer() for kind in REQUESTS} | {Failed} == set(REPLIES)


@pytest.mark.parametrize("name", ["Planned", "Advanced", "Delivered", "Warned", "Finished"])
def test_events_tell_all_that_a_render_tells(name: str) -> None:
    in_a_dry_run = {"warnings"} if name == "Planned" else set()  # a render says them as events
    told = names(getattr(render, name)) - in_a_dry_run
    assert names(getattr(events, name)) == told | {"number", "time", "job"}
    assert {stage.value for stage in Stage} == {stage.value for stage in render.Stage}
    assert {kind.__name__ for kind in render.Event.__subclasses__()} <= {kind.__name__ for kind in EVENTS}


@pytest.mark.parametrize(("make", "path"), [
    (lambda: SetPriority(job=JOB, priority=101), "priority"),
    (lambda: SetPriority(job="../../etc", priority=1), "job"),
    (lambda: Watch(since=-1), "since"),
    (lambda: dataclasses.replace(RECORD, submitted=float("nan")), "submitted"),
    (lambda: PreviewImage(job=JOB, frame=1, step=1, steps=1, width=1, height=1, jpeg=b"GIF89a"), "jpeg"),
    (lambda: Problem(code="bug", what="x", exit_code=0), "exit_code"),
])
def test_python_is_held_to_the_rules(make: Callable[[], object], path: str) -> None:
    with pytest.raises(ShotError) as caught:
        make()
    assert caught.value.path == path


def test_messages_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        EXAMPLES[0].software = "other"  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [kind for kind in vars(errors).values()
                                  if isinstance(kind, type) and issubclass(kind, FrescoError)])
def test_every_error_is_raised_again_as_its_class(kind: type[FrescoError]) -> None:
    error = kind.told("found it broken", "a", "Allowed: b")
    again = Problem.of(error).error()
    assert type(again) is kind
    assert (str(again), again.code, again.exit_code) == (str(error), error.code, error.exit_code)


def test_what_is_particular_to_an_error_survives() -> None:
    again = Problem.of(ShotError("look.seed", "-1", "0 and above")).error()
    assert isinstance(again, ShotError)
    assert (again.path, again.found, again.allowed) == ("look.seed", "-1", "0 and above")
    assert Problem.of(Interrupted("ended", terminated=True)).error().exit_code == 143


def test_the_error_of_a_later_server_keeps_its_code() -> None:
    error = Problem(code="coffee-missing", what="no coffee", exit_code=99).error()
    assert (type(error), error.code, error.exit_code, str(error)) == (FrescoError, "coffee-missing", 99, "no coffee")


def test_keys_differ() -> None:
    assert fresh_key() != fresh_key()
    assert re.fullmatch("[0-9a-f]{32}", fresh_key())


def written(numbers: list[int]) -> str:
    return ",".join(map(str, as_ranges(numbers)))


def test_frame_numbers_in_few_ranges() -> None:
    assert written([1001, 1002, 1003, 1005, 1007, 1009, 1020]) == "1001-1003,1005-1009x2,1020"
    assert written([1, 9]) == "1,9"
    assert written([3, 2, 1]) == "3,2,1"
    assert as_ranges([]) == ()
    assert all(isinstance(frames, Written) for frames in as_ranges([1]))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-99_999, 99_999), unique=True))
def test_ranges_give_back_the_frame_numbers(numbers: list[int]) -> None:
    assert list(frame_numbers(as_ranges(numbers))) == numbers
    assert list(frame_numbers(as_ranges(sorted(numbers)))) == sorted(numbers)
