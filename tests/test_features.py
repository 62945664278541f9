# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from reference import assert_close_but_for_few, flow_window, golden
from test_losses import plain_spatial, plain_temporal
from torch import Tensor, nn

import tiny
from fresco_backend.engine import fused
from fresco_backend.engine.correspondence import Correspondence
from fresco_backend.engine.features import (
    REFERENCE_ADAIN_EPSILON,
    FeatureOptimisation,
    OptimisedFeatures,
    adain,
    as_rows,
    descend,
    optimise,
    optimised_features,
)
from fresco_backend.engine.flow import Flow
from fresco_backend.engine.losses import Loss, SpatialLoss, TemporalLoss, unit_rows
from fresco_backend.engine.smoothing import smooth_background

FRAMES = 3


@pytest.fixture(scope="module")
def numbers() -> dict[str, Tensor]:
    return golden("feature_optimisation")


def losses_of(name: str, numbers: dict[str, Tensor]) -> list[Loss]:
    temporal = TemporalLoss(flow_window(numbers).flow(8, 12), 2.0)
    return [temporal] if name == "temporal" else [temporal, SpatialLoss(unit_rows(numbers["ref_feature"]), 100.0)]


def settings_of(iterations: int) -> FeatureOptimisation:
    return FeatureOptimisation(iterations=iterations, adain_epsilon=REFERENCE_ADAIN_EPSILON)


@pytest.mark.parametrize(
    ("name", "iterations", "loss_tolerance", "mean", "nearly_all"),
    [
        ("full", 20, 2e-5, 1e-4, 1e-2),
        ("full_iter1", 1, 2e-5, 1e-4, 1e-2),
        ("full_iter5", 5, 2e-5, 1e-4, 1e-2),
        ("temporal", 20, 1e-3, 1e-3, 5e-2),
    ],
)
def test_optimisation_agrees_with_the_reference(
    name: str, iterations: int, loss_tolerance: float, mean: float, nearly_all: float, numbers: dict[str, Tensor]
) -> None:
    losses, settings = losses_of(name, numbers), settings_of(iterations)
    rows = as_rows(numbers["sample"])
    values = torch.stack(list(descend(rows, losses, settings))).double()
    torch.testing.assert_close(values, numbers[f"{name}_loss"], rtol=loss_tolerance, atol=0)
    assert_close_but_for_few(rows.mT.reshape(6, 16, 8, 12), numbers[f"{name}_raw"], mean, nearly_all)
    assert_close_but_for_few(optimise(numbers["sample"], losses, settings), numbers[f"{name}_out"], mean, nearly_all)


def test_optimisation_agrees_with_the_reference_by_sums_of_eight_bits(
    numbers: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a large layer is optimised on a CPU that multiplies them fast: float32 in three digits."""
    monkeypatch.setattr("fresco_backend.engine.similarity._multiplies_bytes", lambda: True)
    monkeypatch.setattr("fresco_backend.engine.similarity.FEWEST", 0)
    losses, settings = losses_of("full", numbers), settings_of(20)
    rows = as_rows(numbers["sample"])
    values = torch.stack(list(descend(rows, losses, settings))).double()
    torch.testing.assert_close(values, numbers["full_loss"], rtol=2e-5, atol=0)
    assert_close_but_for_few(rows.mT.reshape(6, 16, 8, 12), numbers["full_raw"], 1e-4, 1e-2)


def test_the_golden_target_is_the_self_similarity_of_unit_rows(numbers: dict[str, Tensor]) -> None:
    for name, corr in (("ref_feature", "corr_s8"), ("ref_feature_s16", "corr_s16")):
        unit = unit_rows(numbers[name])
        torch.testing.assert_close(unit @ unit.mT, numbers[corr], rtol=0, atol=1e-6)


def test_recorded_features_are_the_target(numbers: dict[str, Tensor]) -> None:
    features = OptimisedFeatures(flow_window(numbers), settings_of(20))
    with features.recording():
        assert features.at(0, numbers["ref_feature"]) is numbers["ref_feature"]
    assert_close_but_for_few(features.at(0, numbers["sample"]), numbers["full_out"], 1e-4, 1e-2)


def test_without_a_loss_features_stay_what_they_are(numbers: dict[str, Tensor]) -> None:
    features = OptimisedFeatures(flow_window(numbers), FeatureOptimisation(temporal_weight=None, spatial_weight=None))
    assert features.at(0, numbers["sample"]) is numbers["sample"]
    assert torch.equal(numbers["noop_out"], numbers["sample"])


def test_optimisation_equals_automatic_differentiation(numbers: dict[str, Tensor]) -> None:
    flow, target = flow_window(numbers).flow(8, 12), unit_rows(numbers["ref_feature"])
    features = numbers["sample"].clone().requires_grad_()
    adam = torch.optim.Adam([features], lr=0.2)
    for _ in range(5):
        adam.zero_grad()
        (plain_temporal(features, flow, 2.0) + plain_spatial(features, target, 100.0)).backward()
        adam.step()
    rows = as_rows(numbers["sample"])
    assert len(list(descend(rows, losses_of("full", numbers), settings_of(5)))) == 5
    assert_close_but_for_few(rows.mT.reshape(6, 16, 8, 12), features.detach(), 1e-4, 1e-2)


def test_adain_agrees_with_the_reference() -> None:
    geometry = golden("geometry")
    found = adain(geometry["adain_content"], geometry["adain_style"], REFERENCE_ADAIN_EPSILON)
    torch.testing.assert_close(found, geometry["adain_out"], rtol=0, atol=2e-5)


def test_adain_of_its_own_choice_keeps_quiet_channels_quiet() -> None:
    quiet = 0.1 * torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) + 4
    kept, lifted = adain(quiet, quiet), adain(quiet, quiet, REFERENCE_ADAIN_EPSILON)
    torch.testing.assert_close(kept, quiet, rtol=0, atol=1e-4)
    torch.testing.assert_close(lifted.std(dim=(2, 3)), torch.full((2, 3), 1.005), rtol=0, atol=0.01)


def test_a_single_position_has_no_deviation_and_stays() -> None:
    features = torch.randn(3, 4, 1, 1)
    torch.testing.assert_close(adain(features + 1, features), features)


def test_optimisation_keeps_dtype_and_leaves_its_input(numbers: dict[str, Tensor]) -> None:
    sample = numbers["sample"].bfloat16().to(memory_format=torch.channels_last)
    given = sample.clone()
    assert optimise(sample, losses_of("full", numbers), settings_of(1)).dtype == torch.bfloat16
    assert torch.equal(sample, given)


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return tiny.tiny_unet().requires_grad_(False)


def random_window(frames: int = FRAMES) -> Correspondence:
    generator = torch.Generator().manual_seed(5)
    forward, backward = 6 * torch.randn(2, frames, 2, 64, 128, generator=generator)
    hidden = (torch.rand(frames, 64, 128, generator=generator) > 0.9).float()
    flow = Flow(forward=forward, backward=backward, forward_occlusion=hidden, backward_occlusion=hidden)
    return Correspondence(frames=torch.zeros(frames, 3, 64, 128), flow=flow)


def call(unet: UNet2DConditionModel, branches: int = 2, frames: int = FRAMES, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(branches * frames, 4, 8, 16, generator=generator)
    text = torch.randn(branches * frames, 7, tiny.TEXT_WIDTH, generator=generator)
    output: Tensor = unet(latents, 500, text).sample
    return output


@pytest.fixture
def before(unet: UNet2DConditionModel) -> Iterator[Tensor]:
    """The U-Net's output, which it must still give, to the bit, after the test."""
    output = call(unet)
    yield output
    assert not any(module._forward_pre_hooks for module in unet.modules())
    assert torch.equal(call(unet), output)


def test_optimisation_is_switched_between_calls_and_leaves_no_trace(unet: UNet2DConditionModel, before: Tensor) -> None:
    with optimised_features(unet, random_window(), FeatureOptimisation(iterations=2)) as features:
        with features.recording():
            assert torch.equal(call(unet), before)
        first = call(unet)
        features.enabled = False
        assert torch.equal(call(unet), before)
        features.enabled = True
        assert torch.equal(call(unet), first)
        assert not torch.equal(first, before)


def test_an_error_inside_leaves_no_trace(unet: UNet2DConditionModel, before: Tensor) -> None:
    with pytest.raises(KeyError), optimised_features(unet, random_window(), FeatureOptimisation()) as features:
        with features.recording():
            call(unet)
        raise KeyError


def test_each_up_block_is_optimised_towards_its_own_reference(
    unet: UNet2DConditionModel, before: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, list[Tensor]] = {0: [], 1: [], 2: [], 3: []}
    inner = OptimisedFeatures.at

    def watched(self: OptimisedFeatures, block: int, features: Tensor) -> Tensor:
        seen[block].append(features)
        return inner(self, block, features)

    monkeypatch.setattr(OptimisedFeatures, "at", watched)
    with optimised_features(unet, random_window(), FeatureOptimisation(iterations=1)) as features:
        with features.recording():
            call(unet)
        call(unet, seed=1)
    for block, (reference, denoised) in seen.items():
        assert reference.shape == denoised.shape == (2 * FRAMES, *reference.shape[1:])
        torch.testing.assert_close(features._targets[block], unit_rows(reference))


def test_background_is_smoothed_directly_after(numbers: dict[str, Tensor]) -> None:
    window, background = flow_window(numbers), torch.rand(3, 1, 32, 48)
    optimised = optimise(numbers["sample"], losses_of("temporal", numbers), settings_of(2))
    temporal = FeatureOptimisation(iterations=2, spatial_weight=None, adain_epsilon=REFERENCE_ADAIN_EPSILON)
    found = OptimisedFeatures(window, temporal, background).at(0, numbers["sample"])
    assert torch.equal(found, smooth_background(optimised, window, background))


def test_one_frame_has_no_neighbour_to_agree_with() -> None:
    features = OptimisedFeatures(random_window(1), FeatureOptimisation(iterations=2, spatial_weight=None))
    sample = torch.randn(2, 4, 8, 16)
    assert features.at(0, sample) is sample


@pytest.mark.parametrize(("frames", "branches"), [(1, 1), (1, 2), (2, 1), (2, 3)])
def test_any_number_of_frames_and_branches_fits(unet: UNet2DConditionModel, frames: int, branches: int) -> None:
    with optimised_features(unet, random_window(frames), FeatureOptimisation(iterations=1)) as features:
        with features.recording():
            call(unet, branches, frames)
        assert call(unet, branches, frames, seed=1).isfinite().all()


def test_the_squared_spatial_loss_brings_features_to_the_plates_self_similarity() -> None:
    generator = torch.Generator().manual_seed(9)
    plate, features = torch.randn(2, 2, 16, 6, 8, generator=generator)
    settings = FeatureOptimisation(temporal_weight=None, spatial_squared=True, learning_rate=0.05)

    def distance(found: Tensor) -> float:
        rows, wanted = unit_rows(found), unit_rows(plate)
        return (rows @ rows.mT - wanted @ wanted.mT).square().mean().item()

    optimiser = OptimisedFeatures(random_window(2), settings)
    with optimiser.recording():
        optimiser.at(0, plate)
    assert distance(optimiser.at(0, features)) < 0.7 * distance(features)


def test_the_spatial_loss_needs_a_fitting_reference(unet: UNet2DConditionModel) -> None:
    with optimised_features(unet, random_window(), FeatureOptimisation(iterations=1)) as features:
        with pytest.raises(RuntimeError, match=r"features\.recording"):
            call(unet)
        with features.recording():
            call(unet, branches=1)
        with pytest.raises(ValueError, match="record them with the same window"):
            call(unet, branches=2)


def test_a_batch_that_is_not_whole_windows_is_refused(unet: UNet2DConditionModel) -> None:
    with (
        optimised_features(unet, random_window(), FeatureOptimisation()),
        pytest.raises(ValueError, match="multiple of the window's 3 frames"),
    ):
        call(unet, frames=4)


@pytest.mark.parametrize("conditional_only", [False, True])
@pytest.mark.parametrize("by_fused", [False, True])
def test_a_batch_of_the_plates_own_branch_alone_stays(
    conditional_only: bool, by_fused: bool, numbers: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "usable", lambda _: by_fused)
    settings = FeatureOptimisation(conditional_only=conditional_only)
    features = OptimisedFeatures(flow_window(numbers), settings, torch.ones(3, 1, 8, 12))
    features.untouched = 3
    plate = numbers["sample"][:3]
    with features.recording():
        assert features.at(0, plate) is plate
    assert features.at(0, plate) is plate


def test_a_size_that_does_not_divide_is_refused() -> None:
    features = OptimisedFeatures(random_window(), FeatureOptimisation(spatial_weight=None))
    with pytest.raises(ValueError, match="features of 17x8 are not a whole fraction"):
        features.at(0, torch.randn(3, 4, 8, 17))


def test_a_module_without_up_blocks_is_refused() -> None:
    with (
        pytest.raises(TypeError, match="Linear has no list of up-blocks"),
        optimised_features(nn.Linear(1, 1), random_window(), FeatureOptimisation()),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iterations", 0),
        ("learning_rate", 0.0),
        ("temporal_weight", -1.0),
        ("spatial_weight", float("nan")),
        ("adain_epsilon", -1e-5),
        ("adain_epsilon", float("inf")),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        FeatureOptimisation(**{name: value})


def test_of_the_branches_the_last_one_alone_can_be_optimised(numbers: dict[str, Tensor]) -> None:
    window = flow_window(numbers)
    features = torch.cat([numbers["sample"], numbers["sample"]])
    found = OptimisedFeatures(window, FeatureOptimisation(iterations=2, spatial_weight=None, conditional_only=True)).at(
        0, features
    )
    count = window.frames
    assert torch.equal(found[:-count], features[:-count])
    assert not torch.equal(found[-count:], features[-count:])
