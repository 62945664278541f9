# SPDX-License-Identifier: Apache-2.0
"""Depth as a control: one scale for a whole shot, whatever the window; and nets that are not there or not depth's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from shots import bits, rendered, small_shot, with_look, write_plate
from torch import Tensor, nn
from transformers import DPTConfig, DPTForDepthEstimation

import tiny
from fresco_backend.models import depth, model_store
from fresco_backend.models.depth import DepthDetector, sampled_frames
from fresco_backend.models.weights import Models, load
from fresco_backend.render import windows
from fresco_backend.render.control_images import control_images
from fresco_backend.render.job import Job, open_job
from fresco_protocol.errors import WeightsMissing, WeightsRefused, WeightsUnsupported
from fresco_protocol.shot import Control, ControlKind

CPU = torch.device("cpu")


class Bright(nn.Module):
    """Says that what is bright is near."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(5.0), requires_grad=False)
        self.calls = 0

    def forward(self, images: Tensor) -> object:
        self.calls += 1
        return type("Output", (), {"predicted_depth": images.mean(dim=1) * self.scale + 7})


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random DPT in a folder."""
    folder = tmp_path_factory.mktemp("depth") / "dpt"
    with tiny._seeded(0):
        DPTForDepthEstimation(DPTConfig(
            hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=32,
            patch_size=16, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[16, 16, 16, 16], fusion_hidden_size=16,
        )).save_pretrained(folder)
    return folder


@pytest.fixture
def job(network: Path, tiny_model: Path, tmp_path: Path) -> Iterator[Job]:
    shot = small_shot(write_plate(tmp_path / "plate", 5), tiny_model, tmp_path / "out" / "look.####.png")
    named = Control(kind=ControlKind.DEPTH, detector=str(network), model=str(tiny_model / "controlnet"))
    opened = open_job(with_look(shot, controls=(named,)))
    yield opened
    opened.close()


def drawn(job: Job, models: Models, frames: tuple[int, ...]) -> Tensor:
    control = (job.shot.look.controls or ())[0]
    images = windows.working_images(job, frames)
    return control_images(job, models, control, images, frames, lambda: windows.working_images(
        job, sampled_frames(job.frames)))


def test_the_scale_is_the_shots_and_not_the_frames() -> None:
    detector, grey = DepthDetector(Bright(), 16), torch.linspace(-1, 1, 11).view(11, 1, 1, 1).expand(11, 3, 64, 64)
    found = detector.draw(grey[2:5], "shot", lambda: grey)
    assert torch.allclose(found[:, 0, 32, 32], torch.tensor([0.2, 0.3, 0.4]), atol=0.02)
    assert torch.equal(detector.draw(grey[3:4], "shot", lambda: grey[:2])[0], found[1])
    assert found.min() >= 0
    assert found.max() <= 1


def test_the_scale_is_measured_once_a_shot() -> None:
    network = Bright()
    detector, grey = DepthDetector(network, 16), torch.rand(8, 3, 32, 32) * 2 - 1
    for _ in range(3):
        detector.draw(grey[:1], "shot", lambda: grey)
    assert network.calls == 2 + 3  # eight frames are two batches
    detector.draw(grey[:1], "another", lambda: grey)
    assert network.calls == 5 + 3


def test_frames_are_batched_and_keep_their_size() -> None:
    images = torch.rand(3, 3, 48, 80, generator=torch.Generator().manual_seed(1)) * 2 - 1
    detector = DepthDetector(Bright(), 14)
    assert detector.depth(images).shape == (3, 1, 48, 80)
    assert torch.allclose(detector.depth(images)[1:2], detector.depth(images[1:2]), atol=1e-5)


@pytest.mark.parametrize(("frames", "count"), [((7,), 1), (tuple(range(5)), 5), (tuple(range(1001, 1301)), 16)])
def test_frames_that_decide_the_scale_are_spread(frames: tuple[int, ...], count: int) -> None:
    found = sampled_frames(frames)
    assert len(set(found)) == count
    assert (found[0], found[-1]) == (frames[0], frames[-1])


def test_a_window_of_a_job_gets_the_same_images_alone_and_in_company(job: Job) -> None:
    models = load(job.shot.look.model, controls=job.shot.look.controls or (), device=CPU, dtype=torch.float32)
    together, alone = drawn(job, models, (1001, 1003, 1005)), drawn(job, models, (1003,))
    assert together.shape == (3, 3, 64, 64)
    assert torch.allclose(together[1], alone[0], atol=1e-4)
    assert together.std() > 0.001


def test_a_shot_is_rendered_with_depth(job: Job, tmp_path: Path) -> None:
    rendered(job.shot)
    assert len(bits(tmp_path / "out")) == 5
    assert any(name.startswith("detector/") for name in job.weights)


def test_depth_without_a_network_says_how_to_get_it(tiny_model: Path) -> None:
    asked = Control(kind=ControlKind.DEPTH, model=str(tiny_model / "controlnet"))
    with pytest.raises(WeightsMissing, match=r"fresco models pull depth-anything/Depth-Anything-V2-Small-hf"):
        model_store.check(str(tiny_model), controls=(asked,)).require()


@pytest.mark.parametrize(("change", "error", "words"), [
    ({"model_type": "bert"}, WeightsUnsupported, '"bert" estimates no depth'),
    ({"hidden_size": 64}, WeightsRefused, "depth network"),
    ({"num_hidden_layers": 5}, WeightsRefused, "lacks"),
])
def test_a_network_that_is_none_is_refused(
    change: dict[str, object], error: type[Exception], words: str, network: Path, tmp_path: Path
) -> None:
    for file in network.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    component = model_store.check_detector(str(tmp_path))
    with pytest.raises(error, match=words):
        depth.read_detector(component, CPU)
