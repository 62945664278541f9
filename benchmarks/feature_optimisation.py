# SPDX-License-Identifier: Apache-2.0
"""What feature optimisation costs at one layer, against the same losses by automatic differentiation.

python benchmarks/feature_optimisation.py [--size 64] [--channels 640] [--frames 2] [--iterations 5]

One thread, CPU seconds. The first two lines must reach the same loss; the third takes its products in bfloat16. The
closed form is timed as a render calls it, which does not ask for the loss; that comes from a second descent.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fresco_backend.engine.features import FeatureOptimisation, as_rows, descend
from fresco_backend.engine.flow import Flow, warp
from fresco_backend.engine.losses import Loss, SpatialLoss, TemporalLoss, unit_rows

TEMPORAL, SPATIAL = 2.0, 100.0


def smooth(shape: Sequence[int], size: int, generator: torch.Generator) -> Tensor:
    """Random features with structure, (N, C, size, size)."""
    coarse = F.interpolate(torch.randn(*shape, 8, 8, generator=generator), size=(size, size), mode="bilinear")
    return 2 * coarse + 0.5 * torch.randn(*shape, size, size, generator=generator)


def automatic(features: Tensor, flow: Flow, target: Tensor, settings: FeatureOptimisation) -> float:
    """Loss before the last step, by dense matrices and automatic differentiation."""
    features, similarity = features.clone().requires_grad_(), target @ target.mT
    forward_valid, backward_valid = 1 - flow.forward_occlusion[:, None], 1 - flow.backward_occlusion[:, None]
    adam = torch.optim.Adam([features], lr=settings.learning_rate)
    for _ in range(settings.iterations):
        following = features.roll(-1, 0)
        backward = ((following - warp(features, flow.backward)) * backward_valid).abs()
        forward = ((features - warp(following, flow.forward)) * forward_valid).abs()
        unit = F.normalize(features.flatten(2).mT, dim=2)
        loss = TEMPORAL * (backward + forward).mean() + SPATIAL * (unit @ unit.mT - similarity).abs().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return loss.item()


def report(name: str, run: Callable[[], float | None], loss: Callable[[], float] | None = None) -> None:
    """Print what a run takes, and the loss that it gives or that `loss` finds."""
    start = time.process_time()
    found = run()
    seconds = time.process_time() - start
    print(f"{name:<34} {seconds:8.2f} CPU-s   loss {found if loss is None else loss():.4f}")


def report_closed(
    name: str, features: Tensor, losses: Callable[[], Sequence[Loss]], settings: FeatureOptimisation
) -> None:
    """Print what the engine's descent takes, making its `losses` included, and the loss at its end."""

    def descended() -> None:
        for _ in descend(as_rows(features), losses(), settings, measured=False):
            pass

    report(name, descended, lambda: [loss.item() for loss in descend(as_rows(features), losses(), settings)][-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("size", 64), ("channels", 640), ("frames", 2), ("iterations", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    frames, size = options.frames, options.size
    features, reference = (smooth((frames, options.channels), size, generator) for _ in range(2))
    motion = smooth((frames, 2), size, generator)
    hidden = (torch.rand(frames, size, size, generator=generator) > 0.8).float()
    flow = Flow(forward=motion, backward=-motion, forward_occlusion=hidden, backward_occlusion=hidden)
    settings = FeatureOptimisation(iterations=options.iterations)
    target, half = unit_rows(reference), unit_rows(reference.bfloat16())

    def both(target: Tensor) -> Callable[[], Sequence[Loss]]:
        return lambda: [TemporalLoss(flow, TEMPORAL), SpatialLoss(target, SPATIAL)]

    report("automatic differentiation, dense", lambda: automatic(features, flow, target, settings))
    report_closed("closed form, tiles", features, both(target), settings)
    report_closed("closed form, tiles, bfloat16", features, both(half), settings)
    report_closed("temporal loss alone", features, lambda: [TemporalLoss(flow, TEMPORAL)], settings)


if __name__ == "__main__":
    main()
