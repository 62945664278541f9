# SPDX-License-Identifier: Apache-2.0
"""What holds frames of a window together: each pair is looked at once, and whose arithmetic a shot follows."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from reference import assert_close_but_for_few, flow_window, golden
from shots import small_shot
from torch import Tensor

import tiny
from fresco_backend.engine import coherence as engine
from fresco_backend.engine.features import optimise
from fresco_backend.engine.flow import Flow
from fresco_backend.engine.latents import NoiseSharing, Purpose, Seeds, draw
from fresco_backend.engine.losses import Loss, SpatialLoss, TemporalLoss, unit_rows
from fresco_backend.engine.sampler import Sampler, run_steps
from fresco_backend.engine.schedule import NoiseSchedule
from fresco_backend.guides import motion
from fresco_backend.guides.guidances import Guidances
from fresco_backend.render import windows
from fresco_protocol.shot import Coherence, Compat, Look, Shot, Task

REFERENCE = Coherence(compat=Compat.REFERENCE)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return tiny.moving_plate(5, 64).images()


def guidances_of(images: Tensor, *, cyclic: bool = False, background: Tensor | None = None) -> Guidances:
    return Guidances(
        images=images, coherence=engine.Coherence(), background=background, cyclic=cyclic, device=torch.device("cpu")
    )


def flow_of(found: engine.WindowGuidance) -> Flow:
    return found.correspondence.flow(64, 64)


def same(one: Flow, other: Flow) -> bool:
    return all(torch.equal(getattr(one, entry.name), getattr(other, entry.name)) for entry in fields(Flow))


def test_cyclic_guidance_is_that_of_the_whole_window(images: Tensor) -> None:
    assert same(flow_of(guidances_of(images, cyclic=True).of(range(5))), motion.window_flow(images))


def test_the_last_frame_is_not_compared_with_the_first(images: Tensor) -> None:
    flow, whole = flow_of(guidances_of(images).of(range(5))), motion.window_flow(images)
    assert torch.equal(flow.forward[:4], whole.forward[:4])
    assert torch.equal(flow.backward_occlusion[:4], whole.backward_occlusion[:4])
    assert flow.forward_occlusion[4].min() == flow.backward_occlusion[4].min() == 1
    moved = torch.zeros(1, 5 * 64 * 64, 1)
    moved.view(5, -1)[4] = 1  # the last frame alone
    gradient = torch.zeros_like(moved)
    TemporalLoss(flow, 2.0).add_gradient(moved.view(5, -1, 1), gradient.view(5, -1, 1))
    assert gradient.view(5, -1)[0].abs().sum() == 0 and gradient.view(5, -1)[3].abs().sum() > 0


def test_each_pair_is_estimated_once(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(len(first))
        return first[:, :2] * 0, second[:, :2] * 0

    monkeypatch.setattr(motion, "estimate", counted)
    found = guidances_of(images)
    found.of((0, 2, 4))
    assert len(asked) == 2
    found.of((2, 4))
    assert len(asked) == 2
    found.of(range(5))
    assert len(asked) == 6


def test_some_frames_have_their_own_background(images: Tensor) -> None:
    background = torch.arange(5.0).view(5, 1, 1, 1).expand(-1, -1, 64, 64)
    found = guidances_of(images, background=background).of((1, 3))
    assert found.background is not None
    assert found.background[:, 0, 0, 0].tolist() == [1, 3]
    assert found.correspondence.frames == 2
    assert guidances_of(images).of((3,)).correspondence.frames == 1


def test_compat_gives_the_references_features() -> None:
    numbers, settings = golden("feature_optimisation"), windows.engine_coherence(REFERENCE)
    assert settings.features is not None
    optimisation = settings.features.optimisation
    assert optimisation.temporal_weight is not None and optimisation.spatial_weight is not None
    losses: list[Loss] = [
        TemporalLoss(flow_window(numbers).flow(8, 12), optimisation.temporal_weight),
        SpatialLoss(unit_rows(numbers["ref_feature"]), optimisation.spatial_weight),
    ]
    assert_close_but_for_few(optimise(numbers["sample"], losses, optimisation), numbers["full_out"], 1e-4, 1e-2)
    ours = windows.engine_coherence(Coherence()).features
    assert ours is not None
    quiet = numbers["sample"] * 0.1  # where the reference's epsilon lifts what is quiet
    assert optimise(quiet, losses, ours.optimisation).std() < 0.5 * optimise(quiet, losses, optimisation).std()


def test_compat_gives_the_references_guides_at_the_references_steps() -> None:
    settings = windows.engine_coherence(REFERENCE)
    steps = run_steps(NoiseSchedule.of(tiny.tiny_scheduler()), 20, 0.75, Sampler.DDPM)
    assert [settings.attention(step).spatial for step in steps] == [5.0] + [None] * 14
    assert next(step.timestep for step in steps if settings.attention(step).temporal is None) == 301
    assert [step.timestep for step in steps if settings.optimises(step)][-1] == 251


def test_compat_gives_the_references_noise() -> None:
    look = Look(prompt="ink", strength=0.75, guidance=7.5)
    assert windows.sampling(look, REFERENCE).sharing is NoiseSharing.INITIAL
    assert windows.sampling(look, Coherence()).sharing is NoiseSharing.ALL
    seeds = Seeds(seed=0, frames=(1, 2), sharing=NoiseSharing.INITIAL)
    like = torch.zeros(2, 4, 8, 8)
    first, each = draw(seeds.generators(Purpose.INITIAL), like), draw(seeds.generators(Purpose.STEP), like)
    assert torch.equal(first[0], first[1]) and not torch.equal(each[0], each[1])


@pytest.fixture
def shot() -> Shot:
    return small_shot("plate.####.png", Path("model"), Path("out.####.png"))


def test_an_edit_compares_nothing_with_the_plate_but_by_injection(shot: Shot) -> None:
    found = windows.constraints(replace(shot, task=Task.EDIT))
    assert found is not None
    assert found.spatial is None and found.pixels is None
    assert found.cross_frame and found.temporal is not None
    assert found.features is not None and found.features.optimisation.temporal_weight == 2
    assert found.features.optimisation.spatial_weight is None
    alone = windows.constraints(replace(shot, task=Task.EDIT, coherence=None))
    assert alone == engine.Coherence(cross_frame=False, spatial=None, temporal=None, features=None, pixels=None)
    assert windows.constraints(replace(shot, coherence=None)) is None
