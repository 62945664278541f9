# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from largest import Held, Largest
from torch import Tensor

from fresco_backend.engine.flow import Flow, warp
from fresco_backend.engine.losses import TILE, Loss, SpatialLoss, SquaredSpatialLoss, TemporalLoss, unit_rows
from fresco_backend.engine.similarity import BLOCK

FRAMES = 3


def random_flow(height: int, width: int, frames: int = FRAMES) -> Flow:
    generator = torch.Generator().manual_seed(1)
    forward, backward = 2 * torch.randn(2, frames, 2, height, width, generator=generator)
    hidden = (torch.rand(2, frames, height, width, generator=generator) > 0.7).float()
    return Flow(forward=forward, backward=backward, forward_occlusion=hidden[0], backward_occlusion=hidden[1])


def random_features(batch: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


def plain_temporal(features: Tensor, flow: Flow, weight: float) -> Tensor:
    """The loss as its definition reads, for automatic differentiation."""
    total = torch.zeros(())
    for window in features.split(flow.frames):
        following = window.roll(-1, 0)
        forward = (window - warp(following, flow.forward)) * (1 - flow.forward_occlusion[:, None])
        backward = (following - warp(window, flow.backward)) * (1 - flow.backward_occlusion[:, None])
        total = total + forward.abs().sum() + backward.abs().sum()
    return total * (weight / features.numel())


def plain_spatial(features: Tensor, target: Tensor, weight: float) -> Tensor:
    """The same for the spatial loss, with its whole matrices."""
    rows = features.flatten(2).mT
    unit: Tensor = rows / rows.norm(dim=2, keepdim=True)
    return (unit @ unit.mT - target @ target.mT).abs().mean() * weight


def loss_and_gradient(loss: Loss, features: Tensor) -> tuple[Tensor, Tensor]:
    rows = features.flatten(2).mT.contiguous()
    gradient = torch.zeros_like(rows)
    value = loss.add_gradient(rows, gradient)
    return value, gradient.mT.reshape(features.shape)


def assert_same_slope(found: Tensor, expected: Tensor, quantum: float) -> None:
    """Equal but for entries whose sign rounding decides: each is worth `quantum`, and they are few."""
    off = (found - expected).abs() > 1e-4 * quantum
    assert off.float().mean() < 2e-3
    assert torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.9999


@pytest.mark.parametrize("branches", [1, 2])
def test_temporal_loss_equals_automatic_differentiation(branches: int) -> None:
    flow = random_flow(6, 8)
    features = random_features(branches * FRAMES, 5, 6, 8).requires_grad_()
    expected = plain_temporal(features, flow, 2.0)
    (slope,) = torch.autograd.grad(expected, features)
    found, gradient = loss_and_gradient(TemporalLoss(flow, 2.0), features.detach())
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=0)
    assert_same_slope(gradient, slope, 2.0 / features.numel())


@pytest.mark.parametrize(("height", "width"), [(6, 8), (16, 40), (32, 40)])
def test_spatial_loss_equals_automatic_differentiation(height: int, width: int) -> None:
    target = unit_rows(random_features(3, 8, height, width, seed=3))
    features = random_features(3, 8, height, width).requires_grad_()
    expected = plain_spatial(features, target, 100.0)
    (slope,) = torch.autograd.grad(expected, features)
    found, gradient = loss_and_gradient(SpatialLoss(target, 100.0), features.detach())
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, slope, rtol=1e-3, atol=2e-3 * slope.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_squared_spatial_loss_equals_automatic_differentiation(dtype: torch.dtype) -> None:
    target = unit_rows(random_features(3, 8, 12, 20, seed=3).to(dtype))
    features = random_features(3, 8, 12, 20).requires_grad_()
    rows, wanted = features.flatten(2).mT, target.float()
    unit = rows / rows.norm(dim=2, keepdim=True)
    expected = (unit @ unit.mT - wanted @ wanted.mT).square().mean() * 50
    (slope,) = torch.autograd.grad(expected, features)
    loss = SquaredSpatialLoss(target, 50.0)
    found, gradient = loss_and_gradient(loss, features.detach())
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=0)
    torch.testing.assert_close(gradient, slope, rtol=1e-3, atol=1e-4 * slope.abs().max().item())
    alone = torch.zeros(rows.shape)
    assert loss.add_gradient(rows.detach().contiguous(), alone, measured=False) == 0
    assert torch.equal(alone.mT.reshape(features.shape), gradient)


def test_losses_of_many_channels_are_summed_exactly() -> None:
    features, flow = random_features(2, 640, 32, 32), random_flow(32, 32, frames=2)
    found, _ = loss_and_gradient(TemporalLoss(flow, 2.0), features)
    torch.testing.assert_close(found, plain_temporal(features, flow, 2.0), rtol=2e-5, atol=0)


def test_gradients_add_to_what_is_there() -> None:
    target, rows = unit_rows(random_features(2, 4, 4, 4, seed=1)), random_features(2, 16, 4, 1)[..., 0]
    alone, added = torch.zeros_like(rows), torch.ones_like(rows)
    loss = SpatialLoss(target, 100.0)
    loss.add_gradient(rows, alone)
    loss.add_gradient(rows, added)
    torch.testing.assert_close(added, alone + 1)


def test_nothing_moves_where_frames_agree_or_are_not_valid() -> None:
    flow = random_flow(4, 4)
    valid = torch.zeros(FRAMES, 4, 4)
    still = torch.zeros(FRAMES, 2, 4, 4)
    alike = random_features(1, 3, 4, 4).expand(FRAMES, -1, -1, -1)
    agreed = Flow(forward=still, backward=still, forward_occlusion=valid, backward_occlusion=valid)
    hidden = Flow(
        forward=flow.forward, backward=flow.backward, forward_occlusion=valid + 1, backward_occlusion=valid + 1
    )
    for value, gradient in (
        loss_and_gradient(TemporalLoss(agreed, 2.0), alike),
        loss_and_gradient(TemporalLoss(hidden, 2.0), random_features(FRAMES, 3, 4, 4)),
    ):
        assert value == 0 and not gradient.any()


def test_a_row_of_zeros_stays_finite() -> None:
    features = random_features(1, 4, 4, 4)
    features[:, :, 1, 1] = 0
    assert unit_rows(features).isfinite().all()
    value, gradient = loss_and_gradient(SpatialLoss(unit_rows(random_features(1, 4, 4, 4, seed=1)), 100.0), features)
    assert value.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize(
    ("dtype", "in_bytes", "cosine"),
    [(torch.bfloat16, False, 0.997), (torch.bfloat16, True, 0.995), (torch.float16, True, 0.9995)],
)
def test_products_in_half_precision_point_the_same_way(
    dtype: torch.dtype, in_bytes: bool, cosine: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of noise, where most differences are near nothing: the hardest there is."""
    monkeypatch.setattr("fresco_backend.engine.similarity._multiplies_bytes", lambda: in_bytes)
    reference, features = random_features(2, 64, 24, 24, seed=2), random_features(2, 64, 24, 24)
    exact, slope = loss_and_gradient(SpatialLoss(unit_rows(reference), 100.0), features)
    found, gradient = loss_and_gradient(SpatialLoss(unit_rows(reference.to(dtype)), 100.0), features)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=0)
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), slope.flatten(), dim=0) > cosine


def test_no_self_similarity_of_a_large_layer_is_ever_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fresco_backend.engine.losses.KEPT_BYTES", 0)
    rows, target = torch.randn(2, 4096, 8), unit_rows(random_features(2, 8, 64, 64))
    with Largest() as largest:
        SpatialLoss(target, 100.0).add_gradient(rows, torch.zeros_like(rows))
    assert 0 < largest.numel <= BLOCK * 4096


def test_memory_grows_with_the_pixels_and_not_with_their_square() -> None:
    kept, most = {}, {}
    for side in (64, 96, 112, 128):
        target = unit_rows(random_features(1, 8, side, side).bfloat16())
        rows = torch.randn(1, side**2, 8)
        with Held() as held:
            loss = SpatialLoss(target, 100.0)
            kept[side] = held.bytes
            loss.add_gradient(rows, torch.zeros_like(rows))
            most[side] = held.most
    assert kept[64] == 16 * 17 // 2 * TILE**2 * 2  # a half and its diagonal, in two bytes
    for smaller, larger in ((96, 112), (112, 128)):
        growth = (larger / smaller) ** 2
        assert kept[larger] > kept[smaller]
        assert kept[larger] < 1.03 * growth * kept[smaller]
        assert most[larger] < 1.03 * growth * most[smaller]


def test_the_gradient_does_not_need_the_loss() -> None:
    flow, features = random_flow(4, 4), random_features(FRAMES, 3, 4, 4)
    target = unit_rows(random_features(FRAMES, 3, 4, 4, seed=1))
    rows = features.flatten(2).mT.contiguous()
    for loss in (TemporalLoss(flow, 2.0), SpatialLoss(target, 100.0)):
        _, expected = loss_and_gradient(loss, features)
        gradient = torch.zeros_like(rows)
        assert loss.add_gradient(rows, gradient, measured=False) == 0
        assert torch.equal(gradient.mT.reshape(features.shape), expected)


def test_a_target_that_is_not_kept_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, target = torch.randn(2, 1100, 8), unit_rows(random_features(2, 8, 44, 25).bfloat16())
    kept = torch.zeros_like(rows)
    loss = SpatialLoss(target, 100.0)
    loss.add_gradient(rows, torch.zeros_like(rows))
    loss.add_gradient(rows, kept)
    for number in (0, 300_000):  # none of them, or some
        monkeypatch.setattr("fresco_backend.engine.losses.KEPT_BYTES", number * 2 * 2)
        anew = torch.zeros_like(rows)
        SpatialLoss(target, 100.0).add_gradient(rows, anew)
        assert torch.equal(kept, anew)
