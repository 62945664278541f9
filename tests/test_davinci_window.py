# SPDX-License-Identifier: Apache-2.0
"""The window inside Resolve, on doubles of Resolve and of its windows, with a small server that answers from memory."""
from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import burnt
import pytest
from davinci import Cut, edited, state
from resolve_double import World
from resolve_windows import Dispatcher, UIManager
from router import Router

from fresco_davinci import menu, presets, window
from fresco_davinci.clip import Destination, Input, MatteSource
from fresco_davinci.stylisation import Line
from fresco_davinci.timeline import Host
from fresco_protocol.events import Advanced, JobChanged, Previewed
from fresco_protocol.job import JobState, Stage
from fresco_protocol.messages import Cancel, Submit

JPEG = b"\xff\xd8\xff\xe0 a picture"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FRESCO_LOOKS", str(tmp_path / "looks"))


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as router:
        yield router


class Desk:
    """A window on the doubles, and a user in front of it."""

    def __init__(self, world: World, router: Router, folder: Path) -> None:
        self.world, self.router = world, router
        self.ui = UIManager(world.ledger)
        self.dispatcher = Dispatcher(self.ui, lambda _: None)
        line = Line(connection=router.write_connection(folder))
        self.window = window.Window(Host(world.resolve), line, self.ui, self.dispatcher)
        shown = self.dispatcher.window
        assert shown is not None
        self.shown, self.items = shown, shown.items

    def until(self, holds: Callable[[], Any]) -> None:
        """Ticks until something is so."""
        deadline = time.monotonic() + 120
        while not holds():
            self.dispatcher.tick()
            assert time.monotonic() < deadline, [row.text for row in self.window.rows]

    def states(self) -> list[str]:
        """What the queue shows."""
        return [row.Text[2] for row in self.items["queue"].rows]

    def deliver(self, submit: Submit) -> None:
        """What a server does: writes the frames, and says so."""
        shot = submit.shot
        frames = shot.plate.frames
        assert frames is not None
        suffix = Path(shot.delivery.sequence).suffix
        burnt.write_sequence(Path(shot.delivery.sequence).parent, frames[0].numbers(), f"look.%08d{suffix}")
        job = next(job for job in self.router.memory.jobs.values() if job.output == shot.delivery.sequence)
        ended = replace(job, state=JobState.DELIVERED)
        self.router.emit(lambda number: JobChanged(number=number, time=time.time(), job=job.id, record=ended))

    def submitted(self) -> Submit:
        """The newest shot at the server."""
        return [message for message in self.router.received if isinstance(message, Submit)][-1]


@pytest.fixture
def desk(tmp_path: Path, router: Router) -> Iterator[Desk]:
    world = World((21, 0, 4))
    edited(world, tmp_path)
    desk = Desk(world, router, tmp_path)
    desk.items["prompt"].Text = "a watercolour painting"
    yield desk
    assert world.violations == []


def test_a_clip_goes_from_the_button_to_the_timeline(desk: Desk) -> None:
    desk.shown.click("stylise")
    desk.until(lambda: desk.router.memory.jobs)
    job = next(iter(desk.router.memory.jobs))
    desk.router.emit(lambda number: Advanced(number=number, time=0.0, job=job, stage=Stage.KEYFRAMES, done=3, total=4,
                                             seconds_left=7.0))
    desk.until(lambda: "rendering 75 %  keyframes, step 3 of 4, 7 s left" in desk.states())
    desk.router.tell(Previewed(number=1, time=0.0, job=job, frame=1, step=1, steps=4, width=8, height=8, jpeg=JPEG))
    desk.until(lambda: desk.items["preview"].Text)
    assert Path(desk.items["preview"].Text.split('"')[1]).read_bytes() == JPEG
    desk.deliver(desk.submitted())
    desk.until(lambda: desk.states() == ["done"])
    assert [track.name for track in desk.world.timeline.tracks["video"]] == ["Video 1", "FRESCO"]
    assert desk.submitted().shot.look.prompt == "a watercolour painting"


def test_all_that_is_chosen_is_in_the_wish(desk: Desk) -> None:
    desk.items["look"].choose("Mosaic")
    desk.shown.click("look", "CurrentIndexChanged")
    desk.items["negative"].Text = "text"
    desk.items["strength"].Text = "0.4"
    desk.items["input"].choose("Source media, under the grade")
    desk.items["place"].choose("Media pool only")
    desk.items["matte"].choose("Video track...")
    desk.items["track"].Value = 3
    desk.items["part"].Text = "2-4"
    desk.items["handles"].Value = 8
    desk.items["space"].Text = " ARRI LogC3 (EI800) "
    wish = desk.window.wish()
    assert (wish.look.prompt, wish.look.negative_prompt, wish.look.strength) == ("a mosaic", "text", 0.4)
    assert (wish.input, wish.destination, str(wish.part), wish.handles) == (Input.SOURCE, Destination.POOL, "2-4", 8)
    assert wish.matte is not None
    assert (wish.matte.source, wish.matte.track) == (MatteSource.TRACK, 3)
    assert wish.color_space == "ARRI LogC3 (EI800)"


@pytest.mark.parametrize(("field", "text", "words"), [
    ("strength", "much", 'the strength "much" is no number'), ("strength", "7", "from 0 to 1"),
    ("prompt", " ", "prompt"), ("part", "ten", "1001-1048")])
def test_what_is_wrong_is_said_in_the_window(desk: Desk, field: str, text: str, words: str) -> None:
    desk.items[field].Text = text
    desk.shown.click("stylise")
    assert words in desk.items["says"].Text
    assert desk.window.rows == []


def test_a_refusal_is_a_row_that_says_why_and_the_others_go_on(desk: Desk) -> None:
    desk.items["handles"].Value = 2
    desk.shown.click("stylise")
    desk.items["handles"].Value = 0
    desk.shown.click("stylise")
    desk.until(lambda: desk.router.memory.jobs)
    assert "has no handles" in desk.states()[0]
    desk.deliver(desk.submitted())
    desk.until(lambda: desk.states()[1] == "done")


def test_two_clips_wait_for_each_other(tmp_path: Path, router: Router) -> None:
    world = World((21, 0, 4))
    first, second = edited(world, tmp_path), edited(world, tmp_path / "second", Cut(start=40, first=2001))
    first.selected = second.selected = True
    desk = Desk(world, router, tmp_path)
    desk.items["prompt"].Text = "a comic"
    desk.shown.click("stylise")
    desk.until(lambda: len(router.memory.jobs) == 2)
    for submit in [message for message in router.received if isinstance(message, Submit)]:
        desk.deliver(submit)
    desk.until(lambda: desk.states() == ["done", "done"])
    placed = [(item.start, item.duration) for item in world.timeline.tracks["video"][1].items]
    assert placed == [(first.start, 4), (second.start, 4)]
    assert world.violations == []


def test_cancel_ends_what_runs(desk: Desk) -> None:
    before = state(desk.world)
    desk.shown.click("stylise")
    desk.until(lambda: desk.router.memory.jobs)
    desk.shown.click("cancel")
    assert desk.states() == ["cancelled"]
    assert [message for message in desk.router.received if isinstance(message, Cancel)]
    assert state(desk.world) == before


@pytest.mark.parametrize("when", ["waiting", "extracting", "queued"])
def test_a_window_that_is_closed_puts_resolve_back_and_lets_the_job_go_on(desk: Desk, when: str,
                                                                           tmp_path: Path) -> None:
    edited(desk.world, tmp_path / "above", Cut(track=2, start=200))
    before = state(desk.world)
    desk.shown.click("stylise")
    if when == "extracting":
        desk.until(lambda: [text for text in desk.states() if text.startswith(when)])
    elif when == "queued":
        desk.until(lambda: desk.router.memory.jobs)
    desk.dispatcher.script = lambda dispatcher: dispatcher.ExitLoop()
    said = desk.window.serve()
    assert (state(desk.world), desk.window.host.busy) == (before, False)
    assert [row.steps for row in desk.window.rows] == [None]
    time.sleep(0.2)
    assert not [message for message in desk.router.received if isinstance(message, Cancel)]
    assert any("fresco resolve place" in text and "v001" in text for text in said) is (when == "queued")


def test_a_still_is_shown_and_placed_nowhere(desk: Desk) -> None:
    desk.shown.click("still")
    desk.until(lambda: desk.router.memory.jobs)
    desk.deliver(desk.submitted())
    desk.until(lambda: desk.states() == ["done"])
    assert desk.items["preview"].Text.split('"')[1].endswith(".png")
    assert len(desk.world.timeline.tracks["video"]) == 1


def test_a_still_is_of_the_selected_clip_under_the_playhead(desk: Desk, tmp_path: Path) -> None:
    second = edited(desk.world, tmp_path / "second", Cut(start=40, first=2001))
    for item in desk.world.timeline.items():
        item.selected = True
    desk.shown.click("still")
    assert [row.name for row in desk.window.rows] == [f"{second.name}, frame 3"]
    for item in desk.world.timeline.items():
        item.selected = item is not second
    desk.shown.click("still")
    assert "on the Edit or the Color page" in desk.items["says"].Text


def test_redo_makes_the_next_version_with_the_new_words(desk: Desk) -> None:
    desk.shown.click("stylise")
    desk.until(lambda: desk.router.memory.jobs)
    desk.deliver(desk.submitted())
    desk.until(lambda: desk.states() == ["done"])
    desk.items["prompt"].Text = "an ink drawing"
    desk.shown.click("redo")
    desk.until(lambda: len(desk.router.memory.jobs) == 2)
    desk.deliver(desk.submitted())
    desk.until(lambda: desk.states() == ["done", "done"])
    item = desk.world.timeline.tracks["video"][1].items[0]
    assert (item.do_GetTakesCount(), desk.submitted().shot.look.prompt) == (2, "an ink drawing")


def test_a_look_is_kept_as_a_file_and_found_again(desk: Desk) -> None:
    desk.shown.click("keep")
    assert presets.presets()["a_watercolour_painting"] == replace(desk.window.look())
    (presets.folder() / "later.json").write_text('{"prompt": "x", "unheard": 1}')
    assert "later" not in presets.presets()


def test_a_look_that_was_kept_can_be_chosen_at_once_and_its_strength_emptied(desk: Desk) -> None:
    desk.items["strength"].Text = "0.4"
    desk.shown.click("keep")
    desk.shown.click("keep")
    assert desk.items["look"].choices.count("a_watercolour_painting") == 1
    desk.items["look"].choose("a_watercolour_painting")
    desk.shown.click("look", "CurrentIndexChanged")
    assert desk.window.look().strength == 0.4
    desk.items["strength"].Text = ""
    assert desk.window.look().strength is None  # the model's own, as the empty field says


def test_a_look_that_cannot_be_written_leaves_the_one_before(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.shown.click("keep")
    before = presets.presets()["a_watercolour_painting"]

    def full(path: Path, text: str, **_: Any) -> int:
        path.write_bytes(text[:9].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    desk.items["negative"].Text = "text"
    desk.shown.click("keep")
    assert "No space left on device" in desk.items["says"].Text
    assert presets.presets()["a_watercolour_painting"] == before


def served(world: World, script: Callable[[Dispatcher], None]) -> Any:
    """`fusion` and `bmd` as the menu gives them."""
    ui = UIManager(world.ledger)

    class Fusion:
        UIManager = ui

    class Bmd:
        def UIDispatcher(self, found: UIManager) -> Dispatcher:  # noqa: N802
            assert found is ui
            return Dispatcher(ui, script)

    return Fusion(), Bmd()


def test_the_menu_opens_the_window_until_it_is_closed(tmp_path: Path) -> None:
    world = World((20, 2))
    seen: list[bool] = []

    def script(dispatcher: Dispatcher) -> None:
        assert dispatcher.window is not None
        seen.append(dispatcher.window.shown)
        dispatcher.window.click("Fresco", "Close")

    menu.run(world.resolve, *served(world, script))
    assert (seen, world.violations) == ([True], [])


@pytest.mark.parametrize(("release", "studio", "words"), [
    ((19, 1), False, "opens no windows"), ((21, 0, 4), False, "opens no windows"),
    ((21, 1, 0), False, "runs no Python"), ((18, 1, 4), True, "too old")])
def test_where_there_is_no_window_a_sentence_says_the_way_round(
        release: tuple[int, ...], studio: bool, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(release, studio=studio)
    menu.run(world.resolve, *served(world, lambda _: None))
    said = capsys.readouterr().out
    assert words in said
    assert "fresco otio" in said
    assert world.violations == []


def test_a_console_that_lacks_letters_shows_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows in the West, where it has those of cp1252."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252", newline="\n"))
    menu.say('"日本 é" is delivered')
    assert written.getvalue() == b'Fresco: "\\u65e5\\u672c \xe9" is delivered\n'


def test_the_free_edition_of_before_has_the_window(tmp_path: Path) -> None:
    world = World((18, 6), studio=False)
    menu.run(world.resolve, *served(world, lambda dispatcher: dispatcher.ExitLoop()))
    assert world.violations == []
