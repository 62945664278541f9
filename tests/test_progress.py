# SPDX-License-Identifier: Apache-2.0
"""What a person sees of a render, on a terminal and in a log."""
from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from shots import FRAMES, rendered, small_shot, write_plate

from fresco_backend import pipeline
from fresco_backend.events import Advanced, Delivered, Event, Finished, Planned, Stage, Waited, Warned
from fresco_backend.terminal.plan_text import bytes_text, duration_text, path_text, plan_lines
from fresco_backend.terminal.progress import (
    LONGEST_SILENCE,
    PlainProgress,
    Progress,
    ProgressKind,
    TerminalProgress,
    choose_progress,
)
from fresco_protocol.shot import Keyframing

PLAN = Planned(frames=tuple(range(1001, 1049)), delivered=(1001, 1002), keyframes=None, windows=None,
               plate_size=(1920, 1080), working_size=(576, 320), rate=None, model="embedded", device="cpu",
               precision="float32", seed=0, job_hash="a3f0", scratch="/scratch", memory_bytes=None, seconds=None)


class Clock:
    """A clock that is set by hand, in seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def finished(**rest: int) -> Finished:
    outputs = tuple(str(Path.cwd() / f"out/look.{number}.exr") for number in range(1001, 1049))
    return Finished(**{"rendered": 46, "reused": 2, **rest}, seconds=192, sidecar="/elsewhere/look.json",
                    outputs=outputs)


def steps(clock: Clock, seconds: float, count: int) -> list[tuple[float, Event]]:
    return [(clock.now + seconds * index, Advanced(stage=Stage.KEYFRAMES, done=index, total=count, window=1, windows=2))
            for index in range(count + 1)]


def plain(clock: Clock, timed: list[tuple[float, Event]]) -> list[str]:
    """The lines of a log of events, each at its time."""
    stream = io.StringIO()
    progress = PlainProgress(stream, clock)
    for clock.now, event in timed:
        progress.show(event)
    return stream.getvalue().splitlines()


def test_a_log_has_the_ends_of_a_stage_and_a_line_every_few_seconds_between() -> None:
    assert plain(Clock(), steps(Clock(), 1, 12)) == [
        "keyframes step 0/12, window 1/2", "keyframes step 5/12, window 1/2, 7 s left",
        "keyframes step 10/12, window 1/2, 2 s left",
        "keyframes step 12/12, window 1/2"]


def test_a_log_has_no_carriage_returns_and_no_colours() -> None:
    stream = io.StringIO()
    with PlainProgress(stream, Clock()) as progress:
        for event in (PLAN, Advanced(stage=Stage.DELIVER, done=1, total=2, frame=1001), finished()):
            progress.show(event)
    assert stream.getvalue().startswith("starting\n48 frames, 1001-1048, 2 of them delivered already\n")
    assert not re.search(r"[\r\x1b]", stream.getvalue())


def test_the_end_of_a_farms_stage_names_no_file_that_is_not_there_yet() -> None:
    keyframes = Finished(rendered=0, reused=0, seconds=17, sidecar="", outputs=())
    assert plain(Clock(), [(0, keyframes)]) == [
        "done in 17 s: keyframes alone; the frames come with --stage in-betweens"]


def test_a_silence_in_a_log_is_broken_within_a_minute() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = PlainProgress(stream, clock)
    progress.show(Advanced(stage=Stage.KEYFRAMES, done=3, total=9, seconds_left=600))
    clock.now = 30.0
    progress.tick()
    assert stream.getvalue() == "keyframes step 3/9, 10 min 00 s left\n"
    clock.now = LONGEST_SILENCE - 1
    progress.tick()
    progress.tick()
    assert stream.getvalue().splitlines()[1:] == ["still at work: keyframes step 3/9, 10 min 00 s left"]


def test_a_render_that_has_told_its_plan_does_not_say_that_it_starts() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = PlainProgress(stream, clock)
    progress.show(PLAN)
    clock.now = LONGEST_SILENCE
    progress.tick()
    assert stream.getvalue().splitlines()[-1] == "still at work: the first step is not finished yet"


def test_who_waits_says_for_whom_and_how_long_that_may_last() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = PlainProgress(stream, clock)
    progress.show(Advanced(stage=Stage.DELIVER, done=3, total=9))
    for left in (180.0, 179.0):
        progress.show(Waited(product="window.1", owner="process 7 on node3", seconds=left))
    progress.show(Waited(product="movie", owner="process 7 on node3"))
    clock.now = LONGEST_SILENCE
    progress.tick()
    assert stream.getvalue().splitlines()[1:] == [
        "waiting for window 2, which process 7 on node3 makes (taken over in 3 min 00 s, if that has died)",
        "waiting for the movie, which process 7 on node3 makes",
        "still waiting for the movie, which process 7 on node3 makes"]


def test_what_was_found_finished_is_no_measure_of_the_pace() -> None:
    lines = plain(Clock(), [(0, Advanced(stage=Stage.DELIVER, done=90, total=100)),
                            (10, Advanced(stage=Stage.DELIVER, done=95, total=100))])
    assert lines[-1] == "deliver 95/100, 10 s left"


def test_a_warning_is_told_once_and_counted_at_the_end() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    again = PlainProgress(stream, Clock())
    for shown in (progress, again):
        stream.truncate(stream.seek(0))
        for number in (1001, 1002, 1003):
            shown.show(Warned(code="not-finite", text="NaN pixels were replaced", frame=number))
        shown.show(Warned(code="prompt-words", text='the model does not know "fjord"'))
        shown.show(finished())
        assert stream.getvalue().splitlines()[:2] == ["warning: frame 1001: NaN pixels were replaced [not-finite]",
                                                      'warning: the model does not know "fjord" [prompt-words]']
    assert stream.getvalue().splitlines()[2:] == [
        "done in 3 min 12 s: 46 frames rendered, 2 kept from before", "  out/look.1001.exr … out/look.1048.exr",
        "  record: /elsewhere/look.json", "warning, 3 times: NaN pixels were replaced (frames 1001-1003)"]


def test_delivered_frames_are_counted() -> None:
    progress = Progress(io.StringIO())
    for number in (1, 2):
        progress.show(Delivered(frame=number, path="/x", keyframe=False))
    assert progress.delivered == 2


def test_a_terminal_shows_stage_window_frame_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with TerminalProgress(stream, Clock()) as progress:
        for event in (PLAN, Advanced(stage=Stage.KEYFRAMES, done=3, total=40, window=1, windows=2, frame=1009,
                                     seconds_left=63)):
            progress.show(event)
        progress._bars.refresh()
        assert "step 3/40  window 1/2  frame 1009  1 min 03 s left" in stream.getvalue()
        progress.show(Advanced(stage=Stage.KEYFRAMES, done=40, total=40))
        progress.show(finished())
    assert stream.getvalue().rindex("40/40") < stream.getvalue().rindex("done in 3 min 12 s")
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l"), "the cursor is back"


def test_a_terminal_without_colours_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    colours = r"\x1b\[[0-9;]*3[0-9;]*m"
    found = []
    for no_color in ("", "1"):
        monkeypatch.setenv("NO_COLOR", no_color)
        monkeypatch.setenv("TERM", "xterm-256color")
        stream = Terminal()
        with TerminalProgress(stream, Clock()) as progress:
            progress.show(Advanced(stage=Stage.KEYFRAMES, done=3, total=40))
            progress._bars.refresh()
        found.append(bool(re.search(colours, stream.getvalue())))
    assert found == [True, False]


def test_words_in_brackets_are_words_and_no_markup() -> None:
    stream = Terminal()
    with TerminalProgress(stream, Clock()) as progress:
        progress.show(Warned(code="x", text="a prompt [red]with[/red] :smile: brackets"))
    assert "a prompt [red]with[/red] :smile: brackets [x]" in stream.getvalue()


@pytest.mark.parametrize(("kind", "stream", "alone", "term", "expected"), [
    (ProgressKind.AUTO, Terminal(), True, "xterm", TerminalProgress),
    (ProgressKind.AUTO, io.StringIO(), True, "xterm", PlainProgress),
    (ProgressKind.AUTO, Terminal(), False, "xterm", PlainProgress),
    (ProgressKind.AUTO, Terminal(), True, "dumb", PlainProgress),
    (ProgressKind.TTY, io.StringIO(), True, "xterm", TerminalProgress),
    (ProgressKind.PLAIN, Terminal(), True, "xterm", PlainProgress),
    (ProgressKind.JSON, Terminal(), True, "xterm", Progress),
    (ProgressKind.NONE, Terminal(), True, "xterm", Progress),
])
def test_the_stream_decides_unless_the_user_does(kind: ProgressKind, stream: io.StringIO, alone: bool, term: str,
                                                 expected: type[Progress], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    assert type(choose_progress(kind, stream, alone=alone)) is expected


def test_an_unknown_rate_memory_and_time_are_said_to_be_unknown() -> None:
    lines = dict(line.split(maxsplit=1) for line in plan_lines(PLAN))
    assert lines["rate"] == "not stated by the plate"
    assert lines["memory"] == lines["time"] == "unknown"
    assert "windows" not in lines


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (192, "3 min 12 s"),
                                               (3599.6, "1 h 00 min"), (7500, "2 h 05 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_sizes_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [bytes_text(count) for count in (12 * 2**10, 640 * 2**20, 9 * 2**28)] == ["12 KiB", "640 MiB", "2.2 GiB"]
    assert path_text(str(tmp_path / "out" / "a.exr")) == str(Path("out/a.exr"))
    assert path_text(str(tmp_path.parent / "a.exr")) == str(tmp_path.parent / "a.exr")


def test_the_plan_of_a_finished_shot_tells_the_keyframes_that_it_has(tiny_model: Path, tmp_path: Path) -> None:
    shot = small_shot(write_plate(tmp_path / "plate"), tiny_model, tmp_path / "out" / "look.####.png")
    shot = replace(shot, keyframing=Keyframing(minimum_gap=2, maximum_gap=8))
    rendered(shot)
    plan = pipeline.plan(shot)
    assert plan.keyframes is not None and plan.windows is not None
    assert {key for window in plan.windows for key in window} == set(plan.keyframes) < set(FRAMES)
    assert f"keyframes  {len(plan.keyframes)}: 1001" in "\n".join(plan_lines(plan))
