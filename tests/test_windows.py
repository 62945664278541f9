# SPDX-License-Identifier: Apache-2.0
"""What the engine is given of a shot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shots import small_shot, with_delivery, with_look, write_plate

import tiny
from fresco_backend.engine.features import REFERENCE_ADAIN_EPSILON
from fresco_backend.engine.latents import NoiseSharing
from fresco_backend.guides.background import moving_background
from fresco_backend.guides.motion import window_flow
from fresco_backend.models.weights import load
from fresco_backend.render import windows
from fresco_backend.render.job import Job, open_job
from fresco_protocol.shot import (
    Coherence,
    Compat,
    Control,
    ControlKind,
    Cue,
    FeatureOptimisation,
    FreeU,
    Keyframing,
    Look,
    Shot,
    SpatialGuidance,
    TemporalGuidance,
    parse_frames,
)


@pytest.fixture
def shot(tiny_model: Path, tmp_path: Path) -> Shot:
    return small_shot(write_plate(tmp_path / "plate", 5), tiny_model, tmp_path / "out" / "look.####.png")


@pytest.fixture
def job(shot: Shot) -> Iterator[Job]:
    job = open_job(shot)
    yield job
    job.close()


def test_the_engine_sees_the_plate(job: Job) -> None:
    seen, truth = windows.working_images(job, [1002, 1004]), tiny.moving_plate(5, 64).images()[[1, 3]]
    assert (seen - truth).abs().max() <= 1.01 / 255


def test_keyframes_come_from_gaps_motion_or_the_artist(job: Job) -> None:
    assert not windows.needs_analysis(job)
    assert windows.choose_keyframes(job, None) == (1001, 1003, 1005)
    free = replace(job, shot=replace(job.shot, keyframing=Keyframing(minimum_gap=1, maximum_gap=3)))
    assert windows.needs_analysis(free)
    assert windows.choose_keyframes(free, [0, 0, 0.03, 0, 0]) == (1001, 1003, 1005)
    cut = [0, 0, 0.3, 0, 0]
    assert windows.choose_keyframes(free, cut) == (1001, 1002, 1003, 1005)
    reference = replace(free, shot=replace(free.shot, coherence=Coherence(compat=Compat.REFERENCE)))
    assert windows.choose_keyframes(reference, cut) == (1001, 1003, 1005)
    chosen = replace(job, shot=replace(job.shot, keyframing=Keyframing(frames=parse_frames("1004,1002"))))
    assert windows.choose_keyframes(chosen, None) == (1002, 1004)
    still = replace(free, shot=with_look(free.shot, strength=0.0))
    assert not windows.needs_analysis(still)
    assert windows.choose_keyframes(still, None) == ()
    assert windows.split(still, ()) == ()


def test_a_window_holds_all_that_denoising_needs(shot: Shot, tmp_path: Path) -> None:
    lines = tiny.write_sequence(tmp_path / "lines", tiny.moving_plate(5, 128, seed=3).frames)
    controls = (Control(kind=ControlKind.SEQUENCE, sequence=str(lines), strength=0.3, start=0.1, end=0.7),
                Control(kind=ControlKind.CANNY))
    job = open_job(with_look(shot, controls=controls, cues=(Cue(frames=parse_frames("1004"), prompt="night"),)))
    models = load(job.shot.look.model, controls=controls, device=torch.device("cpu"))
    window = windows.split(job, (1001, 1002, 1003, 1004))[1]
    given = windows.window_input(job, models, window)
    assert given.frames == (1001, 1003, 1004)
    assert given.anchored == 2
    assert torch.equal(given.images, windows.working_images(job, given.frames))
    assert torch.equal(given.prompt[0], given.prompt[1])
    assert not torch.equal(given.prompt[0], given.prompt[2])
    drawn, edges = given.controls
    assert (drawn.strength, drawn.start, drawn.end) == (0.3, 0.1, 0.7)
    assert drawn.network is models.controlnets[controls[0]]
    truth = torch.nn.functional.avg_pool2d(tiny.moving_plate(5, 128, seed=3).images()[[0, 2, 3]] / 2 + 0.5, 2)
    assert (drawn.images - truth).abs().mean() < 0.02
    assert set(edges.images.unique().tolist()) <= {0.0, 1.0}
    assert given.guidance is not None
    assert given.guidance.coherence.pixels is not None
    assert given.guidance.background is not None
    motion = window_flow(given.images)
    assert torch.equal(given.guidance.background, moving_background(motion)), "without a matte motion tells it"
    job.close()


def test_frame_by_frame_is_no_guidance(shot: Shot) -> None:
    job = open_job(replace(shot, coherence=None))
    models = load(job.shot.look.model, controls=job.shot.look.controls or (), device=torch.device("cpu"))
    split = windows.split(job, (1001, 1002, 1003, 1004, 1005))
    assert [(window.anchors, window.keys) for window in split] == [((), (1001, 1002, 1003)), ((), (1004, 1005))]
    assert windows.window_input(job, models, split[1]).guidance is None
    job.close()


def test_every_constraint_reaches_the_engine() -> None:
    shot = Coherence(
        cross_frame=False, spatial=SpatialGuidance(temperature=3.0, steps=2),
        temporal=TemporalGuidance(temperature=4.0, until_timestep=500),
        optimisation=FeatureOptimisation(
            iterations=7, learning_rate=0.1, spatial_weight=25.0, spatial_squared=True, until_timestep=600
        ),
    )  # fmt: skip
    found = windows.engine_coherence(shot)
    assert found.spatial is not None
    assert found.temporal is not None
    assert found.features is not None
    assert not found.cross_frame
    assert (found.spatial.temperature, found.spatial.steps) == (3.0, 2)
    assert (found.temporal.temperature, found.temporal.until_timestep) == (4.0, 500)
    settings = found.features.optimisation
    assert (settings.iterations, settings.learning_rate, found.features.until_timestep) == (7, 0.1, 600)
    assert (settings.temporal_weight, settings.spatial_weight, settings.spatial_squared) == (2.0, 50.0, True)
    assert found.pixels is not None


def test_what_is_off_is_absent() -> None:
    off = Coherence(spatial=None, temporal=None, optimisation=None, background=None)
    found = windows.engine_coherence(off)
    assert (found.spatial, found.temporal, found.features, found.pixels) == (None, None, None, None)
    unweighted = windows.engine_coherence(Coherence(optimisation=FeatureOptimisation(spatial_weight=0)))
    assert unweighted.features is not None
    assert unweighted.features.optimisation.spatial_weight is None


def test_the_references_arithmetic_is_taken_on_request() -> None:
    found = windows.engine_coherence(Coherence(compat=Compat.REFERENCE))
    assert found.features is not None
    assert found.features.optimisation.adain_epsilon == REFERENCE_ADAIN_EPSILON


def test_a_look_whose_guidance_is_open_cannot_be_sampled(job: Job) -> None:
    assert windows.sampling(job.shot.look).guidance == 7.5
    assert windows.sampling(job.shot.look, Coherence()).sharing is NoiseSharing.ALL
    assert windows.sampling(job.shot.look, Coherence(compat=Compat.REFERENCE)).sharing is NoiseSharing.INITIAL
    with pytest.raises(ValueError, match="still open"):
        windows.sampling(Look(prompt="a photo"))


def test_the_working_size_is_the_shots(shot: Shot) -> None:
    job = open_job(with_delivery(shot, working_size=128))
    assert windows.working_image(job, 1001).shape == (3, 128, 128)
    job.close()


@pytest.mark.parametrize("own", [True, False])
def test_soft_edges_are_drawn_as_the_controlnet_knows_them(own: bool, shot: Shot, tmp_path: Path) -> None:
    """A channel for each scale for ours, which its index tells; one grey drawing for those of other authors."""
    model = Path(shutil.copytree(shot.look.model, tmp_path / "model"))
    if own:
        index = json.loads((model / "model_index.json").read_text())
        (model / "model_index.json").write_text(json.dumps({**index, "_fresco_controls": ["soft-edge"]}))
    job = open_job(with_look(shot, model=str(model), controls=(Control(kind=ControlKind.SOFT_EDGE),)))
    models = load(str(model), controls=job.shot.look.controls or (), device=torch.device("cpu"))
    images = windows.window_input(job, models, windows.split(job, (1001, 1002, 1003))[0]).controls[0].images
    assert torch.equal(images[:, 0], images[:, 2]) is not own
    job.close()


def test_free_u_is_held_while_its_context_is_open(job: Job) -> None:
    unet = tiny.tiny_unet()
    with windows.strengthened(job.shot.look, unet):
        assert not any(module._forward_pre_hooks for module in unet.modules())
    with windows.strengthened(replace(job.shot.look, free_u=FreeU()), unet):
        assert any(module._forward_pre_hooks for module in unet.modules())
    assert not any(module._forward_pre_hooks for module in unet.modules())
