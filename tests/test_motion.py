# SPDX-License-Identifier: Apache-2.0
"""Flow estimators against plates whose motion is known, and the error curve against the reference's."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

import tiny
from fresco_backend.guides.motion import Estimator, Raft, error_curve, estimate, load_estimator, window_flow
from fresco_protocol.errors import WeightsMissing

CURVE = np.load(Path(__file__).parent / "golden" / "keyframes.npz")


def images_of(codes: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(codes[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_error_curve_is_the_references() -> None:
    curve = list(error_curve(images_of(CURVE["A_frames_bgr"])))
    assert curve == pytest.approx(CURVE["A_err"].tolist(), rel=1e-5, abs=1e-8)


def test_error_curve_reads_one_frame_at_a_time() -> None:
    read = 0

    def frames() -> Iterator[Tensor]:
        nonlocal read
        for frame in images_of(CURVE["A_frames_bgr"][:5]):
            read += 1
            yield frame

    curve = error_curve(frames())
    for expected in range(1, 6):
        next(curve)
        assert read == expected
    assert list(error_curve([])) == []


def test_dis_finds_the_motion_in_both_directions() -> None:
    plate = tiny.moving_plate(4, (96, 128), disc_velocity=(3.0, 1.0), pan=(1.0, -2.0))
    flow = window_flow(plate.images())
    for found, truth, hidden in [(flow.forward, plate.forward, plate.forward_occlusion),
                                 (flow.backward, plate.backward, plate.backward_occlusion)]:
        error = np.linalg.norm(found.numpy() - truth, axis=1)[:3][hidden[:3] == 0]
        assert np.median(error) < 0.15
        assert np.mean(error) < 0.5


def test_occlusion_covers_what_is_hidden_and_little_else() -> None:
    plate = tiny.moving_plate(3, (96, 128), disc_velocity=(5.0, 0.0), pan=(0.0, 0.0))
    flow = window_flow(plate.images())
    found, truth = flow.forward_occlusion[:2].numpy(), plate.forward_occlusion[:2]
    assert found[truth == 1].mean() > 0.6
    assert found[truth == 0].mean() < 0.05


def test_a_wrong_match_of_the_closing_pair_is_rejected() -> None:
    plate = tiny.moving_plate(2, 96).images()
    frames = torch.cat([plate, -plate[:1].flip(2)])
    flow = window_flow(frames)
    assert flow.backward_occlusion[2].mean() > 0.6
    assert flow.forward_occlusion[0].mean() < 0.3


@pytest.mark.parametrize("size", [(8, 8), (24, 72), (64, 64)])
def test_a_window_of_one_small_frame_stands_still(size: tuple[int, int]) -> None:
    flow = window_flow(tiny.moving_plate(1, size).images())
    assert flow.forward.shape == (1, 2, *size)
    assert flow.forward.abs().max() < 1e-3
    assert flow.backward_occlusion.max() == 0


def test_estimators_are_named() -> None:
    assert load_estimator(Estimator.DIS) is estimate


def test_raft_without_torchvision_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models.optical_flow", None)
    with pytest.raises(WeightsMissing, match="Install torchvision"):
        load_estimator(Estimator.RAFT)


class Drift(nn.Module):
    """Stands for RAFT: answers with the size that it was given, and refuses what RAFT refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        assert first.shape == second.shape
        assert all(side % 8 == 0 and side >= 128 for side in first.shape[2:])
        mean = (second - first).mean(dim=(1, 2, 3), keepdim=True)
        return [torch.full_like(first[:, :2], 99.0), mean.expand_as(first[:, :2])]


def torchvision_with_raft() -> ModuleType:
    module = ModuleType("torchvision.models.optical_flow")
    weights = SimpleNamespace(url="https://example.org/models/raft.pth")
    module.Raft_Large_Weights = SimpleNamespace(DEFAULT=weights)  # type: ignore[attr-defined]
    module.raft_large = lambda weights, progress: Drift()  # type: ignore[attr-defined]
    return module


def test_raft_is_never_downloaded_and_runs_when_its_weights_are_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models.optical_flow", torchvision_with_raft())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsMissing, match=r"raft\.pth"):
        load_estimator(Estimator.RAFT)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "raft.pth").touch()
    assert isinstance(load_estimator(Estimator.RAFT), Raft)


@pytest.mark.parametrize("size", [(64, 64), (130, 203)])
def test_raft_gets_sizes_that_it_takes_and_gives_its_last_prediction_at_the_frames_size(size: tuple[int, int]) -> None:
    first, second = torch.zeros(2, 3, *size), torch.ones(2, 3, *size)
    forward, backward = Raft(Drift())(first, second)
    assert torch.equal(forward, torch.ones(2, 2, *size))
    assert torch.equal(backward, -torch.ones(2, 2, *size))
