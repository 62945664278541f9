# SPDX-License-Identifier: Apache-2.0
"""The fused feature optimisation against the plain one, on the CPU through Triton's interpreter (`conftest`)."""

import math
from math import isnan, nan
from typing import Any

import pytest

pytest.importorskip("triton", minversion="3.9", reason="older ones cannot interpret with NumPy 2.4")

import torch
from torch import Tensor

from fresco_backend.engine import fused, kernels, losses
from fresco_backend.engine.correspondence import Correspondence
from fresco_backend.engine.features import FeatureOptimisation, OptimisedFeatures, as_rows, descend
from fresco_backend.engine.flow import Flow

SIZES = [(8, 8, 24), (12, 12, 72)]  # height, width, channels: below a tile, and more than one with a ragged edge


def moving(frames: int, height: int, width: int) -> Flow:
    """A flow that leaves the frame here and there, with places that are not valid."""
    chance = torch.Generator().manual_seed(3)
    motion = [torch.randn(frames, 2, height, width, generator=chance) * 2 for _ in range(2)]
    holes = [(torch.rand(frames, height, width, generator=chance) < 0.2).float() for _ in range(2)]
    return Flow(forward=motion[0], backward=motion[1], forward_occlusion=holes[0], backward_occlusion=holes[1])


def features(frames: int, size: tuple[int, int, int], seed: int) -> Tensor:
    height, width, channels = size
    chance = torch.Generator().manual_seed(seed)
    shared = torch.randn(frames, channels, 1, 1, generator=chance)
    return (shared + torch.randn(frames, channels, height, width, generator=chance)).half()


def both_ways(
    size: tuple[int, int, int], *, temporal: bool, spatial: bool, iterations: int = 1, **limits: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows at first, by the plain losses, and fused. limits: of `fused.Spatial`."""
    frames = 2
    first = as_rows(features(frames, size, 0))
    target = losses.unit_rows(features(frames, size, 1).float())
    flow = moving(frames, *size[:2])
    plain, ours = first.clone(), first.clone()
    terms: list[losses.Loss] = [losses.TemporalLoss(flow, 2.0)] if temporal else []
    terms += [losses.SpatialLoss(target, 100.0)] if spatial else []
    for _ in descend(plain, terms, FeatureOptimisation(iterations=iterations, learning_rate=0.2)):
        pass
    fused.descend(
        ours, fused.Temporal.of(flow, 2.0) if temporal else None,
        fused.Spatial(target=target.half(), weight=100.0, **limits) if spatial else None, iterations, 0.2,
    )  # fmt: skip
    return first, plain, ours


def loss_of(rows: Tensor, size: tuple[int, int, int]) -> float:
    """The loss that `both_ways` minimises, of rows."""
    target = losses.unit_rows(features(2, size, 1).float())
    terms = (losses.TemporalLoss(moving(2, *size[:2]), 2.0), losses.SpatialLoss(target, 100.0))
    return sum(float(term.add_gradient(rows, torch.zeros_like(rows))) for term in terms)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("temporal", "spatial"), [(True, False), (False, True), (True, True)])
def test_a_first_step_goes_the_same_way(size: tuple[int, int, int], temporal: bool, spatial: bool) -> None:
    first, plain, ours = both_ways(size, temporal=temporal, spatial=spatial)
    moved = (plain - first).abs() > 1e-4
    assert moved.float().mean() > 0.5
    alike = (plain - ours).abs() < 1e-3
    assert alike.float().mean() > (0.995 if spatial else 0.9999)  # a difference near 0 has its sign by rounding


@pytest.mark.parametrize("size", SIZES)
def test_a_whole_descent_ends_at_the_same_loss(size: tuple[int, int, int]) -> None:
    first, plain, ours = both_ways(size, temporal=True, spatial=True, iterations=4)
    before, by_plain, by_ours = (loss_of(rows, size) for rows in (first, plain, ours))
    assert by_plain < 0.9 * before
    assert by_ours == pytest.approx(by_plain, rel=2e-3)
    assert (plain - ours).abs().mean() < 0.06 * (plain - first).abs().mean()


def test_a_self_similarity_too_large_to_be_kept_or_to_lie_in_one_piece() -> None:
    first, _, whole = both_ways(SIZES[1], temporal=False, spatial=True, iterations=3)
    anew = both_ways(SIZES[1], temporal=False, spatial=True, iterations=3, kept_bytes=0)[2]
    banded = both_ways(SIZES[1], temporal=False, spatial=True, iterations=3, kept_bytes=0, signs_bytes=144 * 128 * 2)[2]
    moved = (whole - first).abs().mean()
    assert (whole - anew).abs().mean() < 0.03 * moved
    assert (whole - banded).abs().mean() < 0.03 * moved
    assert not torch.equal(whole, banded)  # another order of sums: it went another way


@pytest.mark.parametrize("rows_of_tiles", [1, 2, 3])
def test_signs_of_each_band_are_whole(rows_of_tiles: int) -> None:
    """Left of the diagonal as well, where they are mirrored; some tiles are not full."""
    unit, target = (losses.unit_rows(features(1, (20, 15, 64), seed)) for seed in (0, 1))
    whole = unit.float() @ unit.float().mT - target.float() @ target.float().mT
    room = rows_of_tiles * kernels.BLOCK * unit.shape[1] * unit.itemsize
    bands = fused.Spatial(target=target, weight=1.0, signs_bytes=room).bands
    assert [band.height for band in bands] == {1: [128, 128, 44], 2: [256, 44], 3: [300]}[rows_of_tiles]
    for band in bands:
        signs = unit.new_full((1, -(-band.height // kernels.BLOCK) * kernels.BLOCK, 384 - band.first), 7)
        kernels.similarity_signs(unit, target, band.tiles, signs, band.first, kept=False)
        expected = whole[:, band.first : band.first + band.height, band.first :]
        found = signs[:, : band.height, : 300 - band.first].float()
        assert set(found.unique().tolist()) <= {-1.0, 0.0, 1.0}
        clear = expected.abs() > 1e-4  # nearer to 0 the sign is rounding's
        assert torch.equal(found[clear], expected.sign()[clear])


def test_a_proof_that_gives_no_number_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_apart", lambda _device, _dtype, proof: nan if proof.limits else 0.01)
    assert isnan(fused.disagreement(torch.device("cpu"), torch.float16))


def test_it_is_not_for_a_cpu_nor_for_full_precision() -> None:
    assert not fused.usable(torch.zeros(1, dtype=torch.float16))
    assert not fused.usable(torch.zeros(1))
    assert fused.problem(torch.device("cuda"), torch.float32) == "it is for CUDA in half precision"


def test_kernels_are_proved_before_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    signs, update, proved, updated = kernels.similarity_signs, kernels.update, [], set()

    def noted(unit: Tensor, *given: Any, kept: bool) -> None:
        proved.append((unit.shape[2] % kernels.DEPTH == 0, kept))
        signs(unit, *given, kept=kept)

    def updating(rows: Tensor, moments: Any, unit: Any, sums: Any, temporal: Any, *given: Any, **more: Any) -> None:
        updated.add((sums is not None, temporal is not None))
        update(rows, moments, unit, sums, temporal, *given, **more)

    monkeypatch.setattr(kernels, "similarity_signs", noted)
    monkeypatch.setattr(kernels, "update", updating)
    monkeypatch.setattr(fused, "_PROOF_STEPS", 1)  # the interpreter takes its time
    for proof in fused._PROOFS:
        assert proof.channels > kernels.CHUNK
        assert math.prod(proof.size) > kernels.BLOCK or not proof.spatial
    assert fused.disagreement(torch.device("cpu"), torch.float16) < 0.5 * fused.AGREED
    assert set(proved) == {(False, True), (True, True), (True, False)}, "as real networks have them, too"
    assert updated == {(True, True), (True, False), (False, True)}, "a lone frame has no motion, an edit no likeness"
    assert [len(proof.limits) for proof in fused._PROOFS] == [0, 0, 1, 2, 0, 0]
    monkeypatch.setattr(fused, "_PROOFS", fused._PROOFS[:1])
    monkeypatch.setattr(kernels, "update", lambda *given, **more: update(*given, **more | {"weights": (0.0, 1e-9)}))
    assert fused.disagreement(torch.device("cpu"), torch.float16) > 2 * fused.AGREED


@pytest.mark.parametrize(
    ("proof", "said"),
    [(0.01, None), (0.4, "40% apart"), (RuntimeError("no C compiler\nSet CC"), "RuntimeError: no C compiler")],
)
def test_what_cannot_be_proved_is_not_used_and_says_why(
    proof: float | Exception, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def proved(device: torch.device, dtype: torch.dtype) -> float:
        if isinstance(proof, Exception):
            raise proof
        return proof

    monkeypatch.setattr(fused, "disagreement", proved)
    fused.problem.cache_clear()
    problem = fused.problem(torch.device("cuda:7"), torch.float16)
    fused.problem.cache_clear()
    assert problem is None if said is None else problem is not None and said in problem


def test_windows_that_move_alike_do_not_see_each_other() -> None:
    flow = moving(2, 4, 5)
    alone, both = fused.Temporal.of(flow, 2.0), fused.Temporal.of(flow, 2.0, windows=2)
    rows, entries = 2 * 4 * 5, len(alone.entries)
    assert torch.equal(both.taps, torch.cat([alone.taps, alone.taps + rows], dim=1))
    assert torch.equal(both.weights, torch.cat([alone.weights] * 2, dim=1))
    assert torch.equal(both.valid, torch.cat([alone.valid] * 2, dim=1))
    assert torch.equal(both.starts, torch.cat([alone.starts[:-1], alone.starts + entries]))
    # Differences of the second kind come after those of the first in both windows.
    ahead = alone.entries + torch.where(alone.entries < rows, 0, rows)
    assert torch.equal(both.entries, torch.cat([ahead, ahead + rows]))
    assert torch.equal(both.shares, torch.cat([alone.shares] * 2))


@pytest.mark.parametrize(("bytes_", "at_once"), [(fused.SMALL_BYTES, [4]), (0, [2, 2])])
def test_small_features_of_all_branches_are_optimised_at_once(
    bytes_: int, at_once: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And large ones of each by itself, each against its own reference; both ways weigh the losses alike."""
    seen: list[tuple[Tensor, float, float]] = []

    def noted(rows: Tensor, temporal: fused.Temporal, spatial: fused.Spatial, *_: object) -> None:
        seen.append((spatial.target, temporal.weight / rows.numel(), spatial.weight / len(rows)))

    monkeypatch.setattr(fused, "SMALL_BYTES", bytes_)
    monkeypatch.setattr(fused, "usable", lambda _: True)
    monkeypatch.setattr(fused, "descend", noted)
    correspondence = Correspondence(frames=torch.zeros(2, 3, 64, 64), flow=moving(2, 64, 64))
    optimised = OptimisedFeatures(correspondence, FeatureOptimisation())
    reference = torch.cat([features(2, SIZES[0], seed) for seed in (1, 2)])
    with optimised.recording():
        optimised.at(0, reference)
    same = optimised.at(0, reference)
    assert [len(target) for target, _, _ in seen] == at_once
    assert torch.equal(torch.cat([target for target, _, _ in seen]), losses.unit_rows(reference))
    weights = {(round(temporal * 1e9), round(spatial * 1e9)) for _, temporal, spatial in seen}
    assert weights == {(round(1.0 / (2 * 64 * 24) * 1e9), round(50.0 / 2 * 1e9))}
    assert torch.allclose(same.float(), reference.float(), atol=4e-3)  # nothing descended; statistics are its own


def test_a_u_net_gets_the_same_features_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two branches of guidance, of which each has its own target, and their statistics again."""
    flow = moving(2, 64, 64)
    correspondence = Correspondence(frames=torch.zeros(2, 3, 64, 64), flow=flow)
    reference, noisy = (torch.cat([features(2, SIZES[0], seed) for seed in seeds]) for seeds in ((1, 2), (3, 4)))
    results = []
    for used in (False, True):
        monkeypatch.setattr(fused, "usable", lambda _, used=used: used)
        optimised = OptimisedFeatures(correspondence, FeatureOptimisation(iterations=3))
        with optimised.recording():
            optimised.at(0, reference)
        results.append(optimised.at(0, noisy).float())
    plain, ours = results
    assert (plain - ours).abs().mean() < 0.06 * (plain - noisy).abs().mean()
    assert ours.mean(dim=(2, 3)) == pytest.approx(noisy.float().mean(dim=(2, 3)), abs=2e-3)
