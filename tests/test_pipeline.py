# SPDX-License-Identifier: Apache-2.0
"""Whole renders of small shots: what is delivered, what is done again, and what is left when one is interrupted."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shots import (
    FRAMES,
    bits,
    delivered,
    rendered,
    small_shot,
    with_delivery,
    with_look,
    with_plate,
    write_plate,
)

import tiny
from fresco_backend import pipeline
from fresco_backend.engine import fused
from fresco_backend.events import Advanced, Delivered, Event, Finished, Planned, Stage, Warned
from fresco_backend.files.frames import read_channels, read_frame
from fresco_backend.models import weights
from fresco_backend.models.weights import Models, load
from fresco_backend.render import record, scratch, windows
from fresco_backend.render.denoising import Denoising
from fresco_backend.render.job import open_job
from fresco_backend.render.remarks import remarks_on_device
from fresco_backend.render.still import still
from fresco_protocol.errors import DiskFull, FrameUnreadable, RangeOutside, WeightsMissing
from fresco_protocol.shot import (
    Control,
    ControlKind,
    Cue,
    Editing,
    FreeU,
    Keyframing,
    Matte,
    Missing,
    Prediction,
    Sampler,
    Shot,
    Task,
    parse_frames,
)

Make = Callable[[str], Shot]
Whole = tuple[list[Event], dict[str, str]]  # the events and the pictures of a render


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plate(tmp_path_factory.mktemp("plate"))


@pytest.fixture
def make(plate: Path, tiny_model: Path, tmp_path: Path) -> Make:
    """A small shot that delivers into a folder of this name."""
    return lambda name: small_shot(plate, tiny_model, tmp_path / name / "look.####.png")


@pytest.fixture(scope="module")
def whole(plate: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The events and the pictures of the small shot, rendered in one go."""
    folder = tmp_path_factory.mktemp("whole")
    return rendered(small_shot(plate, tiny_model, folder / "look.####.png")), bits(folder)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on a render that loads a model fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(pipeline, "load", refuse)


def steps_of(events: list[Event]) -> list[tuple[int, int, int | None]]:
    """Done, total and window of every denoising step."""
    return [(e.done, e.total, e.window) for e in events if isinstance(e, Advanced) and e.stage is Stage.KEYFRAMES]


def warnings_of(events: list[Event]) -> list[str]:
    return [event.code for event in events if isinstance(event, Warned)]


def interrupted(shot: Shot, stop: Callable[[Event], bool], **options: Any) -> list[Event]:
    """The events of a render that is closed at the first one for which `stop` holds."""
    events, seen = pipeline.render(shot, **options), []
    for event in events:
        seen.append(event)
        if stop(event):
            events.close()
            return seen
    raise AssertionError("the render was not interrupted")


def in_window(number: int) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Advanced) and event.window == number


def test_a_shot_is_delivered_whole_and_in_order(whole: Whole) -> None:
    events, pictures = whole
    assert list(pictures) == [f"look.{frame}.png" for frame in FRAMES]
    assert delivered(events) == list(FRAMES)
    assert [event.frame for event in events if isinstance(event, Delivered) and event.keyframe] == list(FRAMES)[::2]
    assert isinstance(events[0], Planned)
    assert events[0].windows == ((1001, 1003, 1005), (1001, 1005, 1007), (1001, 1007, 1009))
    assert steps_of(events) == [(1, 6, 1), (2, 6, 1), (3, 6, 2), (4, 6, 2), (5, 6, 3), (6, 6, 3)]
    assert isinstance(events[-1], Finished)
    assert (events[-1].rendered, events[-1].reused) == (9, 0)
    assert not (Path(events[-1].sidecar).parent / ".fresco").exists()


def test_the_time_that_is_left_is_that_of_the_windows_too(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of the first of three windows are delivered in no time; the other windows are not."""
    usual = Denoising.window

    def slow(*arguments: Any) -> Iterator[Event]:
        time.sleep(2)
        yield from usual(*arguments)

    monkeypatch.setattr(Denoising, "window", slow)
    events = [event for event in rendered(make("slow")) if isinstance(event, Advanced)]
    left = [event.seconds_left or 0.0 for event in events if event.stage is Stage.DELIVER]
    assert left[0] > 4
    assert left[-1] == 0


def test_the_same_shot_gives_the_same_bits(make: Make, whole: Whole, tmp_path: Path) -> None:
    rendered(make("again"))
    assert bits(tmp_path / "again") == whole[1]


def test_the_model_is_seen(make: Make, whole: Whole, tmp_path: Path) -> None:
    rendered(with_look(make("other"), seed=1))
    assert not set(bits(tmp_path / "other").values()) & set(whole[1].values())


def test_a_second_run_renders_nothing_and_touches_nothing(
    make: Make, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    rendered(make("out"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    request.getfixturevalue("no_model")
    events = rendered(make("out"))
    assert [type(event) for event in events] == [Planned, Finished]
    assert isinstance(events[-1], Finished)
    assert (events[-1].rendered, events[-1].reused) == (0, 9)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize(("lost", "windows_again"), [(1001, [1]), (1002, [1]), (1006, [1, 2]), (1009, [1, 2, 3])])
def test_a_lost_frame_alone_is_rendered_again_with_the_windows_that_it_needs(
    lost: int, windows_again: list[int], make: Make, whole: Whole, tmp_path: Path
) -> None:
    rendered(make("out"))
    (tmp_path / "out" / f"look.{lost}.png").unlink()
    events = rendered(make("out"))
    assert delivered(events) == [lost]
    assert [window for *_, window in steps_of(events)] == [window for window in windows_again for _ in range(2)]
    assert steps_of(events)[-1][:2] == (2 * len(windows_again), 2 * len(windows_again))
    assert bits(tmp_path / "out") == whole[1]


def test_a_run_killed_within_a_window_goes_on_with_that_window(
    make: Make, whole: Whole, tmp_path: Path
) -> None:
    first = interrupted(make("out"), in_window(2))
    assert delivered(first) == [1001, 1002, 1003, 1004, 1005]
    assert list(bits(tmp_path / "out")) == [f"look.{frame}.png" for frame in delivered(first)]
    second = rendered(make("out"))
    assert delivered(second) == [1006, 1007, 1008, 1009]
    assert steps_of(second) == [(1, 4, 2), (2, 4, 2), (3, 4, 3), (4, 4, 3)]
    assert bits(tmp_path / "out") == whole[1]


def test_a_run_killed_between_keyframes_and_delivery_denoises_nothing_twice(
    make: Make, whole: Whole, tmp_path: Path
) -> None:
    interrupted(make("out"), lambda event: isinstance(event, Delivered) and event.frame == 1008)
    second = rendered(make("out"))
    assert delivered(second) == [1009]
    assert steps_of(second) == []
    assert bits(tmp_path / "out") == whole[1]


def test_cancelling_leaves_the_models_as_they_were(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Models] = []

    def remember(*arguments: Any, **options: Any) -> Models:
        loaded.append(load(*arguments, **options))
        return loaded[-1]

    monkeypatch.setattr(pipeline, "load", remember)
    interrupted(make("out"), in_window(1))
    (models,) = loaded
    kinds = {type(processor).__name__ for processor in models.unet.attn_processors.values()}
    assert kinds == {"AttnProcessor2_0"}
    assert not any(module._forward_pre_hooks for module in models.unet.modules())


def test_the_pixels_of_a_frame_do_not_depend_on_the_chunk(
    make: Make, whole: Whole, tmp_path: Path
) -> None:
    shot = make("chunks")
    assert delivered(rendered(shot, selection=[1007, 1008, 1009])) == [1007, 1008, 1009]
    assert (tmp_path / "chunks" / ".fresco").is_dir()  # for the other chunks
    assert delivered(rendered(shot, selection=[1004])) == [1004]
    middle = rendered(shot, selection=[1003, 1004, 1005, 1006])
    assert delivered(middle) == [1003, 1005, 1006]
    assert steps_of(middle) == []
    assert delivered(rendered(shot)) == [1001, 1002]
    assert bits(tmp_path / "chunks") == whole[1]
    assert not (tmp_path / "chunks" / ".fresco").exists()


def test_a_selection_outside_the_shot_is_refused(make: Make) -> None:
    with pytest.raises(RangeOutside, match=r"no frames 1010.*1001-1009"):
        rendered(make("out"), selection=[1009, 1010])


@pytest.mark.parametrize("change", [
    lambda shot: with_look(shot, prompt="a drawing"),
    lambda shot: with_look(shot, seed=3),
    lambda shot: with_plate(shot, frames=parse_frames("1001-1008")),
    lambda shot: replace(shot, coherence=None),
])  # fmt: skip
def test_a_changed_shot_reuses_nothing(change: Callable[[Shot], Shot], make: Make) -> None:
    interrupted(make("out"), in_window(2))
    events = rendered(change(make("out")))
    assert delivered(events) in (list(FRAMES), list(FRAMES)[:-1])
    assert isinstance(events[-1], Finished)
    assert events[-1].reused == 0


def test_a_changed_plate_is_rendered_again_and_a_longer_one_is_not(tiny_model: Path, tmp_path: Path) -> None:
    pattern = write_plate(tmp_path / "plate", 6)
    shot = with_plate(small_shot(pattern, tiny_model, tmp_path / "out" / "look.####.png"),
                      frames=parse_frames("1001-1003"))
    rendered(shot)
    (tmp_path / "plate" / "plate.1006.png").unlink()  # outside the range
    assert delivered(rendered(shot)) == []
    os.utime(tmp_path / "plate" / "plate.1002.png", ns=(1, 1))
    assert delivered(rendered(shot)) == [1001, 1002, 1003]


def test_overwriting_renders_everything_again(make: Make, whole: Whole, tmp_path: Path) -> None:
    rendered(make("out"), keep_scratch=True)
    events = rendered(with_delivery(make("out"), overwrite=True))
    assert delivered(events) == list(FRAMES)
    assert len(steps_of(events)) == 6
    assert bits(tmp_path / "out") == whole[1]


def until_delivered(events: Iterator[Event]) -> None:
    """Let a render go on to the first frame that it writes."""
    next(event for event in events if isinstance(event, Delivered))


def test_a_shot_that_is_finished_leaves_scratch_to_the_run_that_overwrites_it(
    make: Make, whole: Whole, tmp_path: Path
) -> None:
    rendered(make("out"))
    with closing(pipeline.render(with_delivery(make("out"), overwrite=True))) as again:
        until_delivered(again)
        assert delivered(rendered(make("out"))) == []
        assert isinstance(list(again)[-1], Finished)
    assert bits(tmp_path / "out") == whole[1]
    assert not (tmp_path / "out" / ".fresco").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_that_overwrites_leaves_scratch_to_those_that_are_at_work(
    overwrite: bool, make: Make, whole: Whole, tmp_path: Path
) -> None:
    shot = with_delivery(make("out"), overwrite=overwrite)
    with closing(pipeline.render(shot)) as first, closing(
            pipeline.render(with_delivery(make("out"), overwrite=True))) as second:  # fmt: skip
        until_delivered(first)
        next(second)
        assert isinstance(list(first)[-1], Finished)
        assert delivered(second) == list(FRAMES)
    assert bits(tmp_path / "out") == whole[1]
    assert not (tmp_path / "out" / ".fresco").exists()


@pytest.mark.usefixtures("no_model")
def test_strength_zero_is_the_plate_without_a_model(make: Make, plate: Path, tmp_path: Path) -> None:
    events = rendered(with_look(make("out"), strength=0.0))
    assert delivered(events) == list(FRAMES)
    for frame in FRAMES:
        there = read_frame(tmp_path / "out" / f"look.{frame}.png").pixels
        assert np.array_equal(there, read_frame(plate.parent / f"plate.{frame}.png").pixels)
    assert delivered(rendered(with_look(make("out"), strength=0.0))) == []


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("task", Task)
def test_a_strength_of_less_than_half_a_step_is_zero_and_says_so(
    task: Task, make: Make, plate: Path, tmp_path: Path
) -> None:
    events = rendered(replace(with_look(make("out"), strength=0.01), task=task, editing=Editing(caption="a photo")))
    assert delivered(events) == list(FRAMES)
    for frame in FRAMES:
        there = read_frame(tmp_path / "out" / f"look.{frame}.png").pixels
        assert np.array_equal(there, read_frame(plate.parent / f"plate.{frame}.png").pixels)
    assert [event.code for event in events if isinstance(event, Warned)] == ["no-step"]


@pytest.mark.parametrize(("keyframes", "windows_of"), [
    ("1003,1006", ((1003, 1006),)),  # frames before the first and after the last one
    ("1005", ((1005,),)),
    ("1001-1009", ((1001, 1002, 1003), (1001, 1003, 1004), (1001, 1004, 1005), (1001, 1005, 1006), (1001, 1006, 1007),
                   (1001, 1007, 1008), (1001, 1008, 1009))),
])  # fmt: skip
def test_the_artists_keyframes_are_taken(
    keyframes: str, windows_of: tuple[tuple[int, ...], ...], make: Make
) -> None:
    shot = replace(make("out"), keyframing=Keyframing(frames=parse_frames(keyframes), window=3))
    events = rendered(shot)
    planned = events[0]
    assert isinstance(planned, Planned)
    assert planned.windows == windows_of
    assert delivered(events) == list(FRAMES)


def test_an_artists_keyframe_outside_the_shot_is_refused(make: Make) -> None:
    with pytest.raises(RangeOutside, match="keyframe 1010"):
        rendered(replace(make("out"), keyframing=Keyframing(frames=parse_frames("1001,1010"))))
    with pytest.raises(RangeOutside, match=r"keyframe 1002 .*1001-1009x2"):
        rendered(replace(with_plate(make("out"), frames=parse_frames("1001-1009x2")),
                         keyframing=Keyframing(frames=parse_frames("1001,1002"))))


def test_keyframes_are_chosen_by_what_changes_and_the_choice_is_kept(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    shot = replace(make("out"), keyframing=Keyframing(minimum_gap=2, maximum_gap=4, window=3))
    first = interrupted(shot, in_window(1))
    analysed = [event.done for event in first if isinstance(event, Advanced) and event.stage is Stage.ANALYSE]
    assert analysed == [*range(1, 10)]

    def refuse(_: object) -> None:
        raise AssertionError("the plate was analysed again")

    monkeypatch.setattr(windows, "error_curve", refuse)
    second = rendered(shot)
    planned = [next(event for event in events if isinstance(event, Planned)) for events in (first, second)]
    assert planned[0].keyframes == planned[1].keyframes
    assert delivered(second) == list(FRAMES)
    assert delivered(rendered(shot)) == []


@pytest.mark.parametrize("change", [
    lambda shot: replace(shot, coherence=None),
    lambda shot: with_look(shot, guidance=1.0),
    lambda shot: with_look(shot, controls=()),
    lambda shot: with_look(shot, controls=(Control(kind=ControlKind.CANNY, strength=0.4),
                                           Control(kind=ControlKind.SOFT_EDGE, end=0.5))),
    lambda shot: with_look(shot, controls=(Control(kind=ControlKind.SEQUENCE, sequence=shot.plate.sequence),)),
    lambda shot: with_look(shot, cues=(Cue(frames=parse_frames("1003-1005"), prompt="winter"),)),
    lambda shot: with_look(shot, negative_prompt="night"),
    lambda shot: with_look(shot, sampler=Sampler.DDIM),
    lambda shot: with_look(shot, sampler=Sampler.DPM),
    lambda shot: with_look(shot, sampler=Sampler.LCM),
    lambda shot: with_look(shot, cues=(Cue(frames=parse_frames("1001-1005"), prompt="winter", to="night"),)),
    lambda shot: with_look(shot, prompt="a (photo:1.5)"),
    lambda shot: with_look(shot, free_u=FreeU()),
    lambda shot: with_look(shot, prediction=Prediction.VELOCITY),
], ids=["per-frame", "guidance-1", "no-control", "two-controls", "sequence", "cue", "negative", "ddim", "dpm++", "lcm",
        "words that change", "weights", "free-u", "prediction"])  # fmt: skip
def test_every_choice_of_the_look_changes_the_picture(
    change: Callable[[Shot], Shot], make: Make, whole: Whole, tmp_path: Path
) -> None:
    events = rendered(change(make("out")), selection=[1003])
    assert delivered(events) == [1003]
    changed = read_frame(tmp_path / "out" / "look.1003.png").pixels
    rendered(make("plain"), selection=[1003])
    assert not np.array_equal(changed, read_frame(tmp_path / "plain" / "look.1003.png").pixels)


def test_frame_by_frame_no_frame_depends_on_another(make: Make, tmp_path: Path) -> None:
    alone = replace(make("a"), coherence=None, keyframing=Keyframing(frames=parse_frames("1004")))
    among = replace(make("b"), coherence=None, keyframing=Keyframing(frames=parse_frames("1001-1009"), window=4))
    rendered(alone, selection=[1004])
    events = rendered(among, selection=[1004])
    assert isinstance(events[0], Planned)
    assert events[0].windows == ((1001, 1002, 1003, 1004), (1005, 1006, 1007, 1008), (1009,))
    pictures = [read_frame(tmp_path / name / "look.1004.png").pixels for name in "ab"]
    assert np.abs(pictures[0] - pictures[1]).max() <= 3 / 255  # batches of another size round differently


def test_handles_are_rendered_as_far_as_the_plate_goes(make: Make) -> None:
    shot = with_delivery(with_plate(make("out"), frames=parse_frames("1002-1004")), handles=3)
    assert delivered(rendered(shot)) == [*range(1001, 1008)]


@pytest.mark.parametrize(("policy", "frames"), [
    (Missing.SKIP, [1001, 1002, 1003, 1005, 1006, 1009]), (Missing.HOLD, list(FRAMES)),
])  # fmt: skip
def test_gaps_are_skipped_or_held(policy: Missing, frames: list[int], tiny_model: Path, tmp_path: Path) -> None:
    pattern = write_plate(tmp_path / "plate")
    for number in (1004, 1007, 1008):
        (tmp_path / "plate" / f"plate.{number}.png").unlink()
    shot = with_plate(small_shot(pattern, tiny_model, tmp_path / "out" / "look.####.png"), missing=policy)
    events = rendered(shot)
    assert delivered(events) == frames
    assert isinstance(events[0], Planned)
    assert events[0].keyframes == tuple(dict.fromkeys([*frames[::2], frames[-1]]))
    assert delivered(rendered(shot)) == []


def test_outside_the_matte_every_sample_is_the_plates(make: Make, plate: Path, tmp_path: Path) -> None:
    matte = tiny.write_sequence(tmp_path / "matte", tiny.moving_plate(9, 64).matte)
    rendered(replace(make("out"), matte=Matte(sequence=str(matte))))
    for frame in FRAMES:
        inside = read_channels(tmp_path / "matte" / f"plate.{frame}.png").by_name["Y"] > 0
        result = read_frame(tmp_path / "out" / f"look.{frame}.png").pixels
        original = read_frame(plate.parent / f"plate.{frame}.png").pixels
        assert np.array_equal(result[~inside], original[~inside])
        assert np.abs(result[inside] - original[inside]).mean() > 0.02


def test_broken_samples_are_counted_and_never_delivered(tiny_model: Path, tmp_path: Path) -> None:
    frames = tiny.moving_plate(3, 64).frames
    frames[1, 5, 6] = np.nan, np.inf, 0.5
    pattern = tiny.write_sequence(tmp_path / "plate", frames, suffix="exr", bits="half")
    events = rendered(small_shot(pattern, tiny_model, tmp_path / "out" / "look.####.exr"))
    warned = [event for event in events if isinstance(event, Warned)]
    assert [(event.code, event.frame) for event in warned] == [("non-finite", 1002)]
    assert warned[0].text.startswith("2 NaN")
    assert all(np.isfinite(read_frame(tmp_path / "out" / f"look.{n}.exr").pixels).all() for n in (1001, 1002, 1003))


def test_words_that_the_model_never_saw_are_named(plate: Path, tmp_path: Path) -> None:
    model = tiny.save_pipeline(tmp_path / "model", tiny.tiny_word_tokenizer())
    shot = with_look(small_shot(plate, model, tmp_path / "out" / "look.####.png"), prompt="a photo of Godzilla",
                     cues=(Cue(frames=parse_frames("1001"), prompt="winter unicorn"),))
    events = rendered(shot, selection=[1001])
    (warned,) = [event for event in events if isinstance(event, Warned)]
    assert warned.code == "unknown-words"
    assert '"godzilla", "unicorn",' in warned.text
    assert "watercolour" not in warned.text, "the list is where it says"
    assert f"fresco models show {model}" in warned.text
    near = with_look(shot, prompt="a watercolor paintin of 1 2 3 4 5 6", cues=())
    (planned,) = pipeline.plan(near).warnings
    assert '"watercolor" (nearest: watercolour), "paintin" (nearest: painting), "1"' in planned.text
    assert " and 2 more, and goes on" in planned.text
    assert pipeline.plan(with_look(shot, prompt="a photo", cues=())).warnings == ()
    rendered(shot)
    assert pipeline.plan(shot).warnings == (), "nothing will be said where nothing is left to do"


def test_a_cue_that_no_keyframe_reads_is_named(make: Make) -> None:
    """Frame 1004 is between two keyframes: nothing would show the cue, and nothing would say so."""
    cues = (Cue(frames=parse_frames("1004"), prompt="winter"), Cue(frames=parse_frames("1004-1005"), prompt="night"))
    shot = with_look(make("out"), cues=cues)
    (warned,) = pipeline.plan(shot).warnings
    assert warned.code == "cue-unseen"
    assert '"winter" (1004)' in warned.text
    assert "1001-1009x2" in warned.text
    (outside,) = pipeline.plan(with_look(shot, cues=(Cue(frames=parse_frames("2001-2004"), prompt="rain"),))).warnings
    assert outside.text.endswith("the shot has frames 1001-1009 only. Give it frames of the shot"), outside.text
    assert warnings_of(rendered(shot, selection=[1001])) == ["cue-unseen"]
    assert pipeline.plan(still(shot, 1001)).warnings == ()


def test_a_gpu_that_takes_the_plain_way_says_so(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one on a node without a compiler: the pixels differ a little from those of its neighbours."""
    monkeypatch.setattr(fused, "problem", lambda _device, _dtype: "Triton failed: no C compiler")
    cuda = torch.device("cuda:0")
    with closing(open_job(make("out"))) as job:
        (warned,) = remarks_on_device(job, cuda, torch.float16)
        assert not [*remarks_on_device(job, torch.device("cpu"), torch.float16)]
    assert warned.code == "not-fused"
    assert "cuda:0" in warned.text
    assert "no C compiler" in warned.text
    with closing(open_job(replace(make("out"), coherence=None))) as job:
        assert not [*remarks_on_device(job, cuda, torch.float16)]
    monkeypatch.setattr(pipeline, "remarks_on_device", lambda *_: iter([warned]))
    assert warnings_of(rendered(make("out"), selection=[1001])) == ["not-fused"]


@pytest.mark.parametrize("finished", [False, True])
def test_windows_that_were_denoised_in_another_precision_are_told_of(
    finished: bool, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As when a farm moves a shot from a node whose CPU knows bfloat16 to one that does not."""
    monkeypatch.setattr(weights, "choose_dtype", lambda _device: torch.float32)
    if finished:
        rendered(make("out"))
        (tmp_path / "out" / "look.1009.png").unlink()
    else:
        interrupted(make("out"), in_window(2))
    monkeypatch.setattr(weights, "choose_dtype", lambda _device: torch.bfloat16)
    events = rendered(make("out"))
    assert warnings_of(events) == ["mixed-precision"]
    (text,) = [event.text for event in events if isinstance(event, Warned)]
    assert "bfloat16 on cpu" in text
    assert "float32 on cpu" in text


def test_the_end_of_a_long_prompt_is_named(make: Make) -> None:
    events = rendered(with_look(make("out"), prompt="x" * 90), selection=[1001])
    assert warnings_of(events) == ["prompt-too-long"]


def test_weights_are_checked_before_any_frame_is_read(make: Make) -> None:
    shot = with_plate(with_look(make("out"), model="/no/such/model"), sequence="/no/such/plate.####.png")
    with pytest.raises(WeightsMissing):
        rendered(shot)


def test_a_frame_that_cannot_be_read_ends_the_render_and_costs_no_other(tiny_model: Path, tmp_path: Path) -> None:
    pattern = write_plate(tmp_path / "plate")
    (tmp_path / "plate" / "plate.1008.png").write_bytes(b"no picture")
    shot = small_shot(pattern, tiny_model, tmp_path / "out" / "look.####.png")
    seen: list[Event] = []
    with pytest.raises(FrameUnreadable, match="1008"):
        for event in pipeline.render(shot):
            seen.append(event)
    assert delivered(seen) == [*range(1001, 1008)]
    assert list(bits(tmp_path / "out")) == [f"look.{frame}.png" for frame in delivered(seen)]


def test_a_full_disk_in_scratch_is_named_and_leaves_whole_frames(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whole: Whole
) -> None:
    real = scratch.write_atomically

    def full(path: Path, write: Any) -> None:
        if path.name.startswith("keyframe.1007"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, write)

    monkeypatch.setattr(scratch, "write_atomically", full)
    with pytest.raises(DiskFull, match=r"keyframe\.1007"):
        rendered(make("out"))
    assert list(bits(tmp_path / "out")) == [f"look.{frame}.png" for frame in range(1001, 1006)]
    monkeypatch.undo()
    assert delivered(rendered(make("out"))) == [1006, 1007, 1008, 1009]
    assert bits(tmp_path / "out") == whole[1]


def test_a_shot_of_the_record_gives_the_same_bits(
    make: Make, whole: Whole, tmp_path: Path
) -> None:
    rendered(make("out"))
    document = json.loads((tmp_path / "out" / "look.png.fresco.json").read_text())
    shot = Shot.from_json(json.dumps(document["shot"]))
    assert (shot.look.guidance, shot.look.controls) == (7.5, (Control(kind=ControlKind.CANNY),))
    rendered(with_delivery(shot, sequence=str(tmp_path / "again" / "look.####.png")))
    assert bits(tmp_path / "again") == whole[1] == bits(tmp_path / "out")


def test_paths_of_the_current_folder_become_absolute_in_the_record(
    make: Make, plate: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(plate.parent)
    shot = with_look(with_plate(make("out"), sequence=plate.name), strength=0.0)
    rendered(shot)
    document = json.loads((tmp_path / "out" / "look.png.fresco.json").read_text())
    assert document["shot"]["plate"]["sequence"] == str(plate)


def test_the_plan_is_what_a_render_does_and_leaves_nothing(make: Make, tmp_path: Path) -> None:
    planned = pipeline.plan(make("out"))
    assert not (tmp_path / "out").exists()
    interrupted(make("out"), in_window(2))
    later = pipeline.plan(make("out"))
    assert later.delivered == (1001, 1002, 1003, 1004, 1005)
    assert later.seconds is not None
    assert planned.seconds is not None
    assert later.seconds > 0
    events = rendered(make("out"))
    assert isinstance(events[0], Planned)
    assert replace(events[0], seconds=0.0) == replace(later, seconds=0.0)  # they measure the device anew


def test_the_background_of_the_matte_reaches_the_engine(make: Make, tmp_path: Path) -> None:
    frames = tiny.moving_plate(9, 64)
    matte = tiny.write_sequence(tmp_path / "matte", frames.matte)
    job = open_job(replace(make("out"), matte=Matte(sequence=str(matte))))
    models = load(job.shot.look.model, controls=job.shot.look.controls or (), device=torch.device("cpu"))
    given = windows.window_input(job, models, windows.split(job, (1001, 1003))[0])
    assert given.guidance is not None
    assert given.guidance.background is not None
    truth = 1 - torch.from_numpy(frames.matte[[0, 2]])[:, None]
    assert torch.equal(given.guidance.background, truth)
    assert given.guidance.coherence.pixels is not None
    job.close()


def test_measures_of_the_record(make: Make, tmp_path: Path) -> None:
    rendered(make("out"))
    document = json.loads(record.path_of(str(tmp_path / "out" / "look.####.png")).read_text())
    assert document["measures"]["keyframes"] == [1001, 1003, 1005, 1007, 1009]
    assert document["measures"]["warp_error"] > 0
    assert document["measures"]["device"] == "cpu"
    assert set(document["measures"]["seconds"]) == {"keyframes", "deliver"}
    assert {name.partition("/")[0] for name in document["weights"]} == {"unet", "vae", "text_encoder", "controlnet"}
