# SPDX-License-Identifier: Apache-2.0
"""A shot in stages and in several processes: the same pixels as in one go, each made once, and nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from shots import FRAMES, bits, delivered, rendered, small_shot, with_delivery, with_look, with_plate, write_plate

import tiny
from fresco_backend import pipeline
from fresco_backend.events import Advanced, Delivered, Event, Finished, Stage, Waited
from fresco_backend.render import claims, record
from fresco_backend.render.farm_stage import FarmStage
from fresco_protocol.errors import Busy, PartialDelivery
from fresco_protocol.shot import Rate, Shot

Make = Callable[[str], Shot]
CHUNKS = (range(1001, 1004), range(1004, 1008), range(1008, 1010))


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plate(tmp_path_factory.mktemp("plate"))


@pytest.fixture
def make(plate: Path, tiny_model: Path, tmp_path: Path) -> Make:
    """A small shot that delivers into a folder of this name."""
    return lambda name: small_shot(plate, tiny_model, tmp_path / name / "look.####.png")


@pytest.fixture(scope="module")
def whole(plate: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pictures of the small shot, rendered in one go."""
    folder = tmp_path_factory.mktemp("whole")
    rendered(small_shot(plate, tiny_model, folder / "look.####.png"))
    return bits(folder)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "POLL", 0.0)
    monkeypatch.setattr(pipeline, "POLL", 0.0)


def forbid_models(patch: pytest.MonkeyPatch) -> None:
    """From here on a render that loads a model fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    patch.setattr(pipeline, "load", refuse)


def folder_of(shot: Shot) -> Path:
    return Path(shot.delivery.sequence).parent


def test_stages_make_the_pixels_of_one_go_and_one_of_them_loads_the_model(
    make: Make, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shot = make("stages")
    events = rendered(shot, stage=FarmStage.KEYFRAMES)
    assert not delivered(events)
    assert isinstance(events[-1], Finished)
    assert (events[-1].outputs, events[-1].sidecar) == ((), ""), "it says of no file that it lies there"
    forbid_models(monkeypatch)
    for chunk in reversed(CHUNKS):
        assert delivered(rendered(shot, stage=FarmStage.IN_BETWEENS, selection=chunk)) == list(chunk)
    assert not record.path_of(shot.delivery.sequence).exists()
    assert isinstance(rendered(shot, stage=FarmStage.VERIFY)[-1], Finished)
    assert bits(folder_of(shot)) == whole
    assert not (folder_of(shot) / ".fresco").exists()
    document = json.loads(record.path_of(shot.delivery.sequence).read_bytes())
    assert document["measures"]["keyframes"] == list(FRAMES)[::2]


def test_the_record_has_what_every_stage_warned_of(tiny_model: Path, tmp_path: Path) -> None:
    frames = tiny.moving_plate(3, 64).frames
    frames[1, 0, 0, 0] = np.nan
    plate = tiny.write_sequence(tmp_path / "plate", frames, suffix="exr", bits="half")
    shot = small_shot(plate, tiny_model, tmp_path / "out" / "look.####.exr")
    shot = with_look(shot, prompt="a photo of " + 80 * "ink ")
    for stage in FarmStage:
        rendered(shot, stage=stage)
    said = json.loads(record.path_of(shot.delivery.sequence).read_bytes())["measures"]["warnings"]
    assert [text.partition(" ")[0] for text in said] == ["the", "frame"]
    assert "does not see the end" in said[0] and len(said[0]) < 250 and "fewer words" in said[0]
    assert said[1].startswith("frame 1002: 1 NaN")


@pytest.mark.parametrize("stage", FarmStage)
def test_every_stage_may_run_again(make: Make, stage: FarmStage, monkeypatch: pytest.MonkeyPatch) -> None:
    shot = make("again")
    for earlier in FarmStage:
        rendered(shot, stage=earlier, keep_scratch=True)
        if earlier is stage:
            break
    before = bits(folder_of(shot))
    forbid_models(monkeypatch)
    assert not delivered(rendered(shot, stage=stage))
    assert bits(folder_of(shot)) == before


@pytest.mark.parametrize("denoised", [0, 1])
def test_in_betweens_without_their_keyframes_come_back_later(make: Make, denoised: int) -> None:
    shot = make("early")
    if denoised:
        rendered(shot, stage=FarmStage.KEYFRAMES, selection=[1001])
        rendered(shot, stage=FarmStage.IN_BETWEENS, selection=[1001, 1002])
    with pytest.raises(Busy, match="not rendered yet"):
        rendered(shot, stage=FarmStage.IN_BETWEENS, selection=[1009])


def test_what_verification_misses_it_names(make: Make) -> None:
    shot = make("torn")
    rendered(shot)
    torn = folder_of(shot) / "look.1004.png"
    torn.write_bytes(torn.read_bytes()[:-20])
    (folder_of(shot) / "look.1006.png").unlink()
    with pytest.raises(PartialDelivery, match="2 of 9 frames are not delivered: 1004,1006"):
        rendered(shot, stage=FarmStage.VERIFY)


def test_a_part_of_a_shot_is_verified_by_itself(make: Make) -> None:
    """A submitter may choose frames of a bundle: the whole of them is a job like any other."""
    shot = make("part")
    for stage in FarmStage:
        rendered(shot, stage=stage, selection=list(FRAMES)[:4])
    assert sorted(bits(folder_of(shot))) == [f"look.{frame}.png" for frame in list(FRAMES)[:4]]
    assert (folder_of(shot) / ".fresco").exists(), "for the other frames"
    for stage in FarmStage:
        rendered(shot, stage=stage, selection=FRAMES)
    assert not (folder_of(shot) / ".fresco").exists(), "nothing is left to do"


def test_verification_of_an_overwriting_shot_looks_at_what_is_there(make: Make) -> None:
    shot = with_delivery(make("overwritten"), overwrite=True)
    rendered(shot, stage=FarmStage.KEYFRAMES)
    assert delivered(rendered(shot, stage=FarmStage.IN_BETWEENS)) == list(FRAMES)
    assert delivered(rendered(shot, stage=FarmStage.IN_BETWEENS)) == list(FRAMES)
    assert isinstance(rendered(shot, stage=FarmStage.VERIFY)[-1], Finished)


def test_a_plate_that_is_kept_needs_no_keyframes(make: Make) -> None:
    shot = with_look(make("kept"), strength=0.0)
    assert delivered(rendered(shot, stage=FarmStage.IN_BETWEENS)) == list(FRAMES)


def test_a_movie_comes_with_the_verification(make: Make, tmp_path: Path) -> None:
    shot = with_delivery(make("movie"), sequence=str(tmp_path / "movie" / "look.mp4"))
    shot = with_plate(shot, rate=Rate(numerator=24))
    rendered(shot, stage=FarmStage.KEYFRAMES)
    rendered(shot, stage=FarmStage.IN_BETWEENS)
    assert not (tmp_path / "movie" / "look.mp4").exists()
    rendered(shot, stage=FarmStage.VERIFY)
    assert (tmp_path / "movie" / "look.mp4").exists()
    assert not (tmp_path / "movie" / ".fresco").exists()


def until(events: Iterator[Event], stop: Callable[[Event], bool]) -> list[Event]:
    """The events of a render up to the first one for which `stop` holds; it stays where it is."""
    seen: list[Event] = []
    for event in events:
        seen.append(event)
        if stop(event):
            return seen
    raise AssertionError("it never came to that")


def is_waiting(event: Event) -> bool:
    return isinstance(event, Waited)


def test_two_renders_of_one_shot_share_it_and_make_nothing_twice(make: Make, whole: dict[str, str]) -> None:
    shot = make("shared")
    first, second = pipeline.render(shot), pipeline.render(shot)
    until(first, lambda event: isinstance(event, Advanced) and event.stage is Stage.KEYFRAMES)
    waiting = until(second, is_waiting)
    assert [event.product for event in waiting if isinstance(event, Waited)] == ["window.0"]
    one = until(first, lambda event: isinstance(event, Delivered) and event.frame == 1002)
    other = until(second, is_waiting)  # it made all that was free, and waits for the frames of the first one
    rest = list(first)
    last = list(second)
    frames = sorted(delivered(one) + delivered(other) + delivered(rest) + delivered(last))
    assert frames == list(FRAMES)
    finished = [events[-1] for events in (rest, last)]
    assert [event.rendered + event.reused for event in finished if isinstance(event, Finished)] == [9, 9]
    assert bits(folder_of(shot)) == whole
    assert not (folder_of(shot) / ".fresco").exists()


def test_what_a_stopped_render_gives_up_another_one_makes(make: Make, whole: dict[str, str]) -> None:
    shot = make("given-up")
    first, second = pipeline.render(shot), pipeline.render(shot)
    until(first, lambda event: isinstance(event, Advanced) and event.window == 2)
    until(second, is_waiting)
    first.close()
    assert isinstance(list(second)[-1], Finished)
    assert bits(folder_of(shot)) == whole


def test_one_that_waits_while_another_delivers_all_and_clears_up_makes_nothing(
        make: Make, whole: dict[str, str]) -> None:
    shot = make("cleared")
    first, second = pipeline.render(shot), pipeline.render(shot)
    until(first, lambda event: isinstance(event, Advanced) and event.stage is Stage.KEYFRAMES)
    until(second, is_waiting)
    assert isinstance(list(first)[-1], Finished)
    assert not (folder_of(shot) / ".fresco").exists()
    rest = list(second)
    assert not any(isinstance(event, Advanced) for event in rest), "a window was denoised once more"
    last = rest[-1]
    assert isinstance(last, Finished)
    assert (last.rendered, last.reused) == (0, len(FRAMES))
    assert bits(folder_of(shot)) == whole
    assert not (folder_of(shot) / ".fresco").exists()


def as_movie(shot: Shot) -> Shot:
    return with_plate(with_delivery(shot, sequence=str(folder_of(shot) / "look.mp4")), rate=Rate(numerator=24))


@pytest.mark.parametrize("waits_for", ["window", "frame"])
def test_one_that_waits_while_another_finishes_the_movie_makes_nothing(make: Make, waits_for: str) -> None:
    shot = as_movie(make("film"))
    first, second = pipeline.render(shot), pipeline.render(shot)
    until(first, lambda event: isinstance(event, Advanced) and event.stage is Stage.KEYFRAMES)
    if waits_for == "frame":
        until(first, lambda event: isinstance(event, Delivered) and event.frame == 1001)
    made = delivered(until(second, lambda event: isinstance(event, Waited) and event.product.startswith(waits_for)))
    assert isinstance(list(first)[-1], Finished)
    assert not (folder_of(shot) / ".fresco").exists()
    rest = list(second)
    assert not delivered(rest) and not any(isinstance(event, Advanced) for event in rest), "it was made once more"
    last = rest[-1]
    assert isinstance(last, Finished)
    assert (last.rendered, last.reused) == (len(made), len(FRAMES) - len(made))
    assert last.outputs == (shot.delivery.sequence,)


def test_what_died_elsewhere_does_not_keep_its_windows_from_being_overwritten(
        make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `kill -9` on another machine: its claims lie there, and nobody touches them."""
    monkeypatch.setattr(pipeline, "Claims", partial(claims.Claims, expiry=0.2))
    shot = with_delivery(make("dead"), overwrite=True)
    first = pipeline.render(shot)
    until(first, lambda event: isinstance(event, Advanced) and event.window == 2)
    scratch = next(folder_of(shot).glob(".fresco/*/claims"))
    left = {path: path.read_text().replace(claims._host(), "another") for path in scratch.iterdir()}
    first.close()
    scratch.mkdir(exist_ok=True)
    for path, text in left.items():
        path.write_text(text)
    events = rendered(shot)
    assert next(event.product for event in events if isinstance(event, Waited)) == "shot"
    assert {event.window for event in events if isinstance(event, Advanced) and event.window} == {1, 2, 3}
    assert not (folder_of(shot) / ".fresco").exists()


def test_a_movie_that_is_to_be_overwritten_is_not_found(make: Make) -> None:
    shot = as_movie(make("again"))
    rendered(shot)
    assert delivered(rendered(with_delivery(shot, overwrite=True))) == list(FRAMES)


def test_chunks_that_are_rendered_at_once_wait_for_each_others_windows(make: Make, whole: dict[str, str]) -> None:
    shot = make("chunks")
    first = pipeline.render(shot, selection=CHUNKS[0])
    second = pipeline.render(shot, selection=CHUNKS[1])
    until(first, lambda event: isinstance(event, Advanced) and event.stage is Stage.KEYFRAMES)
    until(second, is_waiting)
    rest = [*first, *second, *rendered(shot, selection=CHUNKS[2])]
    assert sorted(delivered(rest)) == list(FRAMES)
    assert bits(folder_of(shot)) == whole
