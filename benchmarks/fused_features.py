# SPDX-License-Identifier: Apache-2.0
"""The feature optimisation on a GPU: fused against plain, layer by layer of Stable Diffusion 1.5, and part by part.

python benchmarks/fused_features.py [--keyframes 8] [--size 512] [--iterations 20]

Needs CUDA and Triton. One branch of guidance in half precision; milliseconds by the median of five calls. The loss is
measured in float32 afterwards; a way that goes wrong ends at another one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from fresco_backend.commands.bench import moving_plate
from fresco_backend.engine import fused, losses
from fresco_backend.engine.correspondence import Correspondence
from fresco_backend.engine.features import FeatureOptimisation, as_rows, descend
from fresco_backend.guides import motion

LAYERS = ((640, 8), (1280, 16), (1280, 32), (1280, 64))  # channels, pixels a position: the up-blocks' inputs
TEMPORAL, SPATIAL, RATE = 2.0, 100.0, 0.2


def milliseconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median of some calls after one that warms up."""
    work()
    spent = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        spent.append(time.perf_counter() - began)
    return 1000 * statistics.median(spent)


def layer(correspondence: Correspondence, channels: int, side: int, iterations: int, device: torch.device) -> None:
    """Compare both ways at one layer."""
    chance = torch.Generator(device).manual_seed(0)
    shape = (correspondence.frames, channels, side, side)
    features = torch.randn(shape, generator=chance, device=device).half()
    target = losses.unit_rows(features + torch.randn(shape, generator=chance, device=device).half())
    flow, first = correspondence.flow(side, side), as_rows(features)
    temporal = fused.Temporal.of(flow, TEMPORAL)
    spatial = fused.Spatial(target=target, weight=SPATIAL)

    def plain() -> Tensor:
        rows = first.clone()
        terms = (losses.TemporalLoss(flow, TEMPORAL), losses.SpatialLoss(target, SPATIAL))
        for _ in descend(rows, terms, FeatureOptimisation(iterations=iterations, learning_rate=RATE), measured=False):
            pass
        return rows

    def ours() -> Tensor:
        rows = first.clone()
        fused.descend(rows, temporal, spatial, iterations, RATE)
        return rows

    exact = (losses.TemporalLoss(flow, TEMPORAL), losses.SpatialLoss(target.float(), SPATIAL))
    ends = [sum(float(term.add_gradient(rows, torch.zeros_like(rows))) for term in exact)
            for rows in (first.clone(), plain(), ours())]  # fmt: skip
    apart = float((plain() - ours()).abs().mean() / (plain() - first).abs().mean())
    spent = [milliseconds(way) for way in (plain, ours)]
    print(f"{channels:5} at {side}x{side}  plain {spent[0]:7.2f} ms  fused {spent[1]:7.2f} ms  "
          f"loss {ends[0]:.4f} -> {ends[1]:.4f} plain, {ends[2]:.4f} fused, {apart:.1%} apart", flush=True)  # fmt: skip


def parts(correspondence: Correspondence, channels: int, side: int, device: torch.device) -> None:
    """What each kernel takes at the finest layer, all frames together."""
    from fresco_backend.engine import kernels

    frames, length = correspondence.frames, side * side
    rows = torch.randn(frames, length, channels, device=device)
    target = torch.nn.functional.normalize(torch.randn_like(rows), dim=2).half()
    flat, unit = rows.view(-1, channels), torch.nn.functional.normalize(rows, dim=2).half()
    temporal = fused.Temporal.of(correspondence.flow(side, side), 1.0)
    spatial = fused.Spatial(target=target, weight=1.0)
    signs = torch.empty(2, *flat.shape, dtype=torch.int8, device=device)
    tapped = (signs, temporal.starts, temporal.entries, temporal.shares)
    moments, together, band = (torch.zeros_like(flat), torch.zeros_like(flat)), spatial.together(), spatial.bands[0]
    matrix, sums = unit.new_empty(together, length, length), unit.view(-1, channels)
    some, ways = unit[:together], [("kept", each[:together]) for each in spatial.kept()[:1]]  # none where too large
    share = frames / together
    step = {"weights": (1e-3, 1e-3), "step_size": 1e-6, "correction": 1.0}
    warped = milliseconds(lambda: kernels.warp_signs(flat, temporal.taps, temporal.weights, temporal.valid, signs))
    print(f"signs along the flow {warped:.3f} ms")
    for name, other in [*ways, ("anew", target[:together])]:
        spent = milliseconds(lambda other=other, name=name: kernels.similarity_signs(  # type: ignore[misc]
            some, other, band.tiles, matrix, 0, kept=name == "kept"))  # fmt: skip
        print(f"signs of the difference, target {name} {share * spent:.3f} ms")
    print(f"product with the signs {share * milliseconds(lambda: torch.bmm(matrix, some)):.3f} ms")
    whole = milliseconds(lambda: kernels.update(
        flat, moments, unit.view(-1, channels), sums, tapped, 0, len(flat), **step))  # type: ignore[arg-type] # fmt: skip
    print(f"update {whole:.3f} ms")


def main() -> None:
    """Measure this machine's GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keyframes", type=int, default=8)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--iterations", type=int, default=20)
    options = parser.parse_args()
    device = torch.device("cuda")
    problem = fused.problem(device, torch.float16) if torch.cuda.is_available() else "there is no CUDA device here"
    if problem is not None:
        sys.exit(problem)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    plate = moving_plate(options.keyframes, options.size, options.size)
    correspondence = Correspondence(frames=plate.to(device), flow=motion.window_flow(plate).to(device))
    for channels, pixels in LAYERS:
        layer(correspondence, channels, options.size // pixels, options.iterations, device)
    parts(correspondence, LAYERS[0][0], options.size // LAYERS[0][1], device)


if __name__ == "__main__":
    with torch.no_grad():
        main()
