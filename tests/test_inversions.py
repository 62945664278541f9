# SPDX-License-Identifier: Apache-2.0
"""Edits of whole shots: the plate is inverted once for all prompts, and every way to make the frames delivers them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from shots import bits, delivered, rendered, small_shot, with_delivery, with_look, write_plate

import tiny
from fresco_backend import pipeline
from fresco_backend.engine import denoise
from fresco_backend.engine.invert import PlateFeatures, SeenFeatures, inversion_timesteps
from fresco_backend.engine.keyframes import split_windows
from fresco_backend.engine.schedule import NoiseSchedule
from fresco_backend.events import Advanced, Event, Stage
from fresco_backend.files.frames import Size, Window, read_frame
from fresco_backend.models import weights
from fresco_backend.pixels.resolution import fit
from fresco_backend.render import inversions, record
from fresco_backend.render.inversions import inversion_text, needs_inversion
from fresco_backend.render.job import Job, open_job
from fresco_backend.render.plate_features import KeptFeatures
from fresco_backend.render.still import still
from fresco_protocol.errors import WeightsUnsupported
from fresco_protocol.shot import (
    Coherence,
    Compat,
    Control,
    ControlKind,
    Delivery,
    Editing,
    FreeU,
    Grain,
    Highlights,
    Keyframing,
    Look,
    Plate,
    Sampler,
    Shot,
    Synthesis,
    Task,
    parse_frames,
)

DEMO_PLATE = Path(__file__).parents[1] / "demo" / "plate" / "boat.####.exr"
STEPS = 4
SCHEDULE = NoiseSchedule.of(tiny.tiny_scheduler())


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plate(tmp_path_factory.mktemp("plate"), 5)


@pytest.fixture
def shot(plate: Path, tiny_model: Path, tmp_path: Path) -> Shot:
    """An edit of five frames, three of them keyframes in one window."""
    shot = with_look(small_shot(plate, tiny_model, tmp_path / "out" / "look.####.png"), strength=None, steps=STEPS)
    return replace(shot, task=Task.EDIT, editing=Editing(caption="a photo", inversion_steps=6))


def inverted(events: list[Event]) -> list[tuple[int, int]]:
    """Done and total of every step of inversion."""
    steps = (event for event in events if isinstance(event, Advanced) and event.stage is Stage.INVERT)
    return [(step.done, step.total) for step in steps]


def kept(folder: Path) -> list[Path]:
    """The inverted frames beside a delivery."""
    return sorted((folder / ".fresco").glob("inversion.*/*.npy"))


@pytest.fixture
def no_inversion(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on an inversion fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the plate was inverted again")

    monkeypatch.setattr(denoise, "invert_window", refuse)


def test_a_second_prompt_pays_no_inversion(shot: Shot, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    first = rendered(shot)
    assert delivered(first) == list(range(1001, 1006))
    steps = len(inversion_timesteps(SCHEDULE, 6, SCHEDULE.timesteps(STEPS)))
    assert inverted(first) == [(3 * count, 3 * steps) for count in range(1, steps + 1)], "of the keyframes alone"
    before = {path: path.stat().st_mtime_ns for path in kept(tmp_path / "out")}
    request.getfixturevalue("no_inversion")
    night = with_look(with_delivery(shot, sequence=str(tmp_path / "out" / "night.####.png")), prompt="night")
    second = rendered(night)
    assert delivered(second) == list(range(1001, 1006))
    assert inverted(second) == []
    assert {path: path.stat().st_mtime_ns for path in kept(tmp_path / "out")} == before
    pictures = bits(tmp_path / "out")
    assert len(pictures) == len(set(pictures.values())) == 10


def test_a_second_prompt_computes_nothing_of_the_plates_branch(
    shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered(with_look(shot, prompt="a drawing"))
    files = sorted((tmp_path / "out" / ".fresco").glob("inversion.*/features/*/*.safetensors"))
    assert len(files) == int(0.8 * STEPS), "one for each step at which something is injected"
    for path in files[1:]:
        path.unlink()
    rendered(with_delivery(shot, sequence=str(tmp_path / "out" / "part.####.png")))

    def refused(*_: object) -> None:
        raise AssertionError("the plate's branch was computed again")

    monkeypatch.setattr(SeenFeatures, "taken", refused)
    rendered(with_delivery(shot, sequence=str(tmp_path / "out" / "kept.####.png")))
    monkeypatch.undo()
    monkeypatch.setattr(KeptFeatures, "load", lambda *_: None)
    rendered(with_delivery(shot, sequence=str(tmp_path / "out" / "anew.####.png")))
    pixels = {name: [path.read_bytes() for path in sorted((tmp_path / "out").glob(f"{name}.*.png"))]
              for name in ("part", "kept", "anew")}
    assert len(pixels["kept"]) == 5
    assert pixels["kept"] == pixels["part"] == pixels["anew"], "what is kept decides no pixel"


def test_features_are_kept_as_far_as_there_is_room(tmp_path: Path) -> None:
    features = PlateFeatures(tokens=(torch.rand(2, 8, 4).half(),), convolution=torch.rand(2, 4, 2, 2).half())
    kept = KeptFeatures(folder=tmp_path / "window", limit=1000)
    for timestep in (1, 51, 101, 151):
        kept.save(timestep, features)
    assert sorted(path.stem for path in tmp_path.glob("*/*")) == ["1", "101", "51"], "192 bytes and a header each"
    found = kept.load(1, torch.device("cpu"))
    assert found is not None
    assert found.tokens is not None
    assert torch.equal(found.tokens[0], features.tokens[0])  # type: ignore[index]
    assert kept.load(151, torch.device("cpu")) is None


@pytest.mark.parametrize("compat", Compat)
def test_features_of_another_caption_are_others(compat: Compat, shot: Shot) -> None:
    def folder(caption: str) -> Path:
        job = opened(replace(shot, editing=replace(shot.editing, caption=caption), coherence=Coherence(compat=compat)))
        found = KeptFeatures.of(job, inversions_of(job), (1001, 1003), torch.float32)
        assert found is not None
        return found.folder

    assert folder("a photo") == folder("a photo") != folder("a man")


def test_an_inversion_is_kept_at_the_sampled_steps_in_half_precision(shot: Shot, tmp_path: Path) -> None:
    rendered(shot)
    states = [np.load(path, mmap_mode="r") for path in kept(tmp_path / "out")]
    assert [(state.shape, state.dtype) for state in states] == [((STEPS, 4, 8, 8), np.float16)] * 3
    spread = states[0].std(axis=(1, 2, 3))
    assert list(spread) == sorted(spread), "from the picture to noise"


@pytest.mark.parametrize("change", [
    "prompt", "negative", "guidance", "seed", "caption", "inversion_steps", "steps", "control", "size", "grain",
    "highlights"])
def test_an_inversion_is_kept_for_all_that_it_does_not_depend_on(change: str, shot: Shot) -> None:
    changed = {
        "prompt": with_look(shot, prompt="ink"),
        "negative": with_look(shot, negative_prompt="blurred"),
        "guidance": with_look(shot, guidance=3.0),
        "seed": with_look(shot, seed=3),
        "caption": replace(shot, editing=replace(shot.editing, caption="a man")),
        "inversion_steps": replace(shot, editing=replace(shot.editing, inversion_steps=9)),
        "steps": with_look(shot, steps=5),
        "control": with_look(shot, controls=(Control(kind=ControlKind.CANNY),)),
        "size": with_delivery(shot, working_size=128),
        "grain": with_delivery(shot, grain=Grain.KEEP),
        "highlights": with_delivery(shot, highlights=Highlights.MODEL),
    }[change]
    same = _folder(shot) == _folder(changed)
    assert same == (change in ("prompt", "negative", "guidance", "seed"))


def test_an_inversion_is_of_the_part_of_the_plate_that_it_was_made_of(shot: Shot) -> None:
    left, right = (
        replace(opened(shot), working=fit(Size(64, 64), 64, region=Window(x, 0, 32, 64))) for x in (0, 32)
    )
    assert left.working.padded == right.working.padded
    folders = {inversions_of(job).folder for job in (left, right)}
    assert len(folders) == 2


def opened(shot: Shot) -> Job:
    job = open_job(shot)
    job.close()
    return job


def inversions_of(job: Job, precision: str = "float32 on cpu") -> inversions.Inversions:
    """Those of a job whose frames are all keyframes, at most three in a window."""
    split = split_windows(job.frames, 3)
    return inversions.Inversions(job, SCHEDULE, SCHEDULE.timesteps(job.shot.look.steps), split, precision)


def _folder(shot: Shot) -> Path:
    return inversions_of(opened(shot)).folder


def test_an_inversion_in_another_precision_is_another_one(shot: Shot) -> None:
    job = opened(shot)
    assert inversions_of(job).folder == inversions_of(job).folder != inversions_of(job, "float16 on cuda").folder


def test_a_shot_has_the_same_pixels_whatever_was_rendered_before_it(
    shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other code computes another number of frames at once, and its last bits are others: here made plain to see."""
    invert = denoise.invert_window

    def by_how_many(models: Any, window: denoise.WindowInput, *rest: Any) -> Iterator[tuple[int, torch.Tensor]]:
        for timestep, latents in invert(models, window, *rest):
            yield timestep, latents + 0.01 * len(window.frames)

    monkeypatch.setattr(denoise, "invert_window", by_how_many)
    rendered(shot)
    expected = bits(tmp_path / "out")
    later = with_delivery(shot, sequence=str(tmp_path / "later" / "look.####.png"))
    rendered(still(later, 1003))
    rendered(replace(later, keyframing=replace(shot.keyframing, minimum_gap=4, maximum_gap=4)))
    rendered(with_delivery(later, overwrite=True))
    assert bits(tmp_path / "later").items() >= expected.items()


def test_the_keyframes_of_a_window_are_inverted_together_without_its_anchors(
    shot: Shot, monkeypatch: pytest.MonkeyPatch
) -> None:
    invert, together = denoise.invert_window, []

    def watched(models: Any, window: denoise.WindowInput, *rest: Any) -> Iterator[tuple[int, torch.Tensor]]:
        together.append(window.frames)
        yield from invert(models, window, *rest)

    monkeypatch.setattr(denoise, "invert_window", watched)
    rendered(replace(shot, keyframing=Keyframing(minimum_gap=1, maximum_gap=1, window=3)))
    assert together == [(1001, 1002, 1003), (1004,), (1005,)]


def test_an_inversion_that_overflows_is_not_kept(
    tiny_model: Path, shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the same shot would fail where the precision is enough, too."""
    model = shutil.copytree(tiny_model, tmp_path / "loud")
    file = model / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.weight"] *= 1e6
    save_file(tensors, file, metadata={"format": "pt"})
    loud = with_look(shot, model=str(model))
    with monkeypatch.context() as half:
        half.setattr(weights, "choose_dtype", lambda _: torch.float16)
        with pytest.raises(WeightsUnsupported, match="overflow in float16"):
            rendered(loud)
    assert not kept(tmp_path / "out")
    assert delivered(rendered(loud)) == list(range(1001, 1006))


def test_a_frame_that_was_written_again_is_inverted_again(shot: Shot, tmp_path: Path) -> None:
    plate = write_plate(tmp_path / "plate", 5)
    shot = replace(shot, plate=replace(shot.plate, sequence=str(plate)))
    rendered(shot)
    os.utime(str(plate) % 1003)
    again = rendered(shot)
    steps = inverted(again)[-1][1]
    assert inverted(again) == [(3 * count, steps) for count in range(1, steps // 3 + 1)], "with those of its window"
    assert len(kept(tmp_path / "out")) == 4


def test_a_control_image_that_was_written_again_is_another_way(shot: Shot, tmp_path: Path) -> None:
    drawn = write_plate(tmp_path / "drawn", 5)
    controlled = with_look(shot, controls=(Control(kind=ControlKind.SEQUENCE, sequence=str(drawn)),))

    def files() -> tuple[Path, ...]:
        return inversions_of(opened(controlled)).files((1001, 1002))

    before = files()
    os.utime(str(drawn) % 1002)
    assert [path == other for path, other in zip(before, files(), strict=True)] == [True, False]


@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("synthesis", list(Synthesis))
def test_every_way_to_make_the_frames_delivers_them(
    synthesis: Synthesis, task: Task, shot: Shot, tmp_path: Path
) -> None:
    keyframing = replace(shot.keyframing, synthesis=synthesis, rotation=2)
    events = rendered(replace(shot, task=task, keyframing=keyframing))
    assert delivered(events) == list(range(1001, 1006))
    planned: Any = events[0]
    assert planned.keyframes == (tuple(range(1001, 1006)) if synthesis.denoises_all else (1001, 1003, 1005))
    assert bool(inverted(events)) == (task is Task.EDIT or synthesis.propagates)
    assert len(set(bits(tmp_path / "out").values())) == 5


def test_an_interrupted_propagation_goes_on_with_the_same_bits(shot: Shot, tmp_path: Path) -> None:
    shot = replace(shot, keyframing=Keyframing(window=3, synthesis=Synthesis.FEATURES, rotation=2))
    rendered(shot)
    expected = bits(tmp_path / "out")
    other = with_delivery(shot, sequence=str(tmp_path / "other" / "look.####.png"))
    for event in _until(pipeline.render(other), window=2):
        assert event
    events = rendered(other)
    assert bits(tmp_path / "other") == expected
    assert {event.window for event in events if isinstance(event, Advanced) and event.stage is Stage.KEYFRAMES} == {2}


def _until(events: Any, window: int) -> Iterator[Event]:
    for event in events:
        yield event
        if isinstance(event, Advanced) and event.window == window:
            events.close()
            return


def test_an_edit_decides_what_the_shot_leaves_open(shot: Shot) -> None:
    job = open_job(shot)
    job.close()
    assert (job.shot.look.sampler, job.strength, job.shot.look.controls) == (Sampler.DDIM, 1, ())
    less = open_job(with_look(shot, strength=0.5))
    less.close()
    assert less.strength == 0.5


def test_an_edit_that_asks_for_what_is_there_gives_the_plate_back(tmp_path: Path) -> None:
    """With the embedded model, its control and its guidance; from pure noise on as well. Other words change it."""
    shot = Shot(
        task=Task.EDIT, plate=Plate(sequence=str(DEMO_PLATE), frames=parse_frames("1011")),
        look=Look(prompt="a photo", steps=20), editing=Editing(caption="a photo"),
        delivery=Delivery(sequence=str(tmp_path / "own.####.png"), working_size=128),
    )  # fmt: skip
    asked = {"own": shot, "whole": with_look(shot, strength=1.0), "plate": with_look(shot, strength=0),
             "strengthened": with_look(shot, free_u=FreeU(backbone_1=1.4, backbone_2=1.6, skip_1=0.9, skip_2=0.2)),
             "other": with_look(shot, prompt="a watercolour painting")}
    for name, each in asked.items():
        rendered(with_delivery(each, sequence=str(tmp_path / f"{name}.####.png")))
    pictures = {name: read_frame(tmp_path / f"{name}.1011.png").pixels[..., :3] for name in asked}
    changes = {name: float(np.abs(picture - pictures["plate"]).mean()) for name, picture in pictures.items()}
    assert changes["own"] < 0.04
    assert changes["whole"] < 0.04
    assert changes["strengthened"] < 0.04, "the U-Net is the same on both ways"
    assert changes["other"] > 2 * changes["own"]


def test_who_needs_an_inversion_and_with_which_words(shot: Shot) -> None:
    assert needs_inversion(shot) and not needs_inversion(replace(shot, task=Task.TRANSLATE))
    mixed = replace(shot.keyframing, synthesis=Synthesis.MIXED)
    assert needs_inversion(replace(shot, task=Task.TRANSLATE, keyframing=mixed))
    assert inversion_text(shot) == "a photo"
    assert inversion_text(replace(shot, coherence=Coherence(compat=Compat.REFERENCE))) == ""
    assert inversion_text(replace(shot, coherence=None)) == "a photo"


def test_an_edit_starts_where_its_first_step_was_or_as_the_reference_from_the_noise_of_the_last(
    shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[tuple[denoise.WindowInput, torch.Tensor]] = []
    start = denoise._Run.start

    def watched(run: Any) -> torch.Tensor:
        began.append((run._window, start(run)))
        return began[-1][1].clone()

    monkeypatch.setattr(denoise._Run, "start", watched)
    half = with_look(shot, strength=0.5)
    rendered(half)
    rendered(with_delivery(replace(half, coherence=Coherence(compat=Compat.REFERENCE)),
                           sequence=str(tmp_path / "as" / "look.####.png")))
    (ours, inverted_there), (theirs, noised) = began
    first, last = SCHEDULE.timesteps(STEPS)[STEPS // 2], max(SCHEDULE.timesteps(6))
    assert ours.source is not None and torch.equal(inverted_there, ours.source.latents(first))
    assert theirs.source is not None and theirs.source.noise_at == last > first
    noise, signal = theirs.source.latents(last), SCHEDULE.signal
    plate = (noised - (signal_noise := ((1 - signal[first]) / (1 - signal[last])) ** 0.5) * noise) / (
        signal[first] ** 0.5 - signal_noise * signal[last] ** 0.5)
    assert (plate - ours.source.latents(min(SCHEDULE.timesteps(STEPS)))).abs().max() < 0.2, "next to the plate"
    assert (noised - inverted_there).abs().max() > 1e-3


def test_the_record_tells_time_and_drift(shot: Shot) -> None:
    shot = replace(shot, keyframing=replace(shot.keyframing, synthesis=Synthesis.EVERY_FRAME))
    rendered(shot)
    job = open_job(shot)
    job.close()
    found = record.read(job)
    assert found is not None
    assert {"invert", "keyframes", "deliver"} <= found["measures"]["seconds"].keys()
    assert set(found["measures"]["drift"]) == {"colour", "contrast", "covered"}
