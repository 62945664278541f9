# SPDX-License-Identifier: Apache-2.0
"""FRESCO-aware feature optimisation: the decoder's features made consistent in time and space while a U-Net runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fresco_backend.engine import fused
from fresco_backend.engine.correspondence import Correspondence
from fresco_backend.engine.losses import Loss, SpatialLoss, SquaredSpatialLoss, TemporalLoss, unit_rows
from fresco_backend.engine.smoothing import smooth_background

REFERENCE_ADAIN_EPSILON = 1.0
"""What the reference adds to the variance that features are returned to; it lifts quiet channels by far."""

_VARIANCE_EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class FeatureOptimisation:
    """How features are optimised (FRESCO, section 4.3; numbers of the released method).

    iterations: steps of Adam (0.9, 0.999, 1e-8) with `learning_rate`, in the features' own unit.
    temporal_weight: of the mean L1 difference along the flow; None leaves that loss out.
    spatial_weight: of the mean L1 difference of self-similarity; None leaves that loss out.
    spatial_squared: of the mean squared one instead, as in the paper.
    adain_epsilon: added to the variance that each channel is returned to afterwards; the reference's is
    `REFERENCE_ADAIN_EPSILON`. conditional_only: of the branches of guidance the last one only. Raises ValueError for
    numbers out of range.
    """

    iterations: int = 20
    learning_rate: float = 0.2
    temporal_weight: float | None = 2.0
    spatial_weight: float | None = 100.0
    spatial_squared: bool = False
    adain_epsilon: float = _VARIANCE_EPSILON
    conditional_only: bool = False

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, found {self.iterations}")
        for name in ("learning_rate", "temporal_weight", "spatial_weight"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a number above 0, found {value}")
        if not (math.isfinite(self.adain_epsilon) and self.adain_epsilon >= 0):
            raise ValueError(f"adain_epsilon must be 0 or more, found {self.adain_epsilon}")


class OptimisedFeatures:
    """The handle that `optimised_features` gives: records the reference, and switches the optimisation.

    enabled: whether U-Net calls optimise (and smooth) features; may change between calls. untouched: how many rows at
    the head of a batch are left as they are, the plate's own branch.
    """

    def __init__(
        self, correspondence: Correspondence, settings: FeatureOptimisation, background: Tensor | None = None
    ) -> None:
        self.enabled = True
        self.untouched = 0
        self._correspondence = correspondence
        self._settings = settings
        self._background = background
        self._recording = False
        self._targets: dict[int, Tensor] = {}
        self._temporal: dict[tuple[int, int, int], TemporalLoss] = {}
        self._fused: dict[tuple[int, int, int, int], fused.Temporal] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """U-Net calls within store the features of each up-block's input as reference, and run unchanged."""
        self._recording = True
        try:
            yield
        finally:
            self._recording = False

    @torch.no_grad()
    def at(self, block: int, features: Tensor) -> Tensor:
        """What up-block number `block` gets in place of `features` (branches * N, C, h, w).

        Raises ValueError when the batch is not whole windows or not that of the reference, and RuntimeError when the
        spatial loss is on and no reference was recorded.
        """
        if not (self._recording or self.enabled) or self.untouched >= len(features):
            return features
        if self.untouched:
            kept, rest = features[: self.untouched], features[self.untouched :]
            return torch.cat([kept, self._changed(block, rest)])
        return self._changed(block, features)

    def _changed(self, block: int, features: Tensor) -> Tensor:
        if self._recording:
            if self._settings.spatial_weight is not None:
                self._targets[block] = unit_rows(features)
            return features
        features = self._optimised(block, features)
        if self._background is None:
            return features
        return smooth_background(features, self._correspondence, self._background)

    def _optimised(self, block: int, features: Tensor) -> Tensor:
        """Each branch of guidance by itself, which is the same and takes a part of the memory; small ones together."""
        frames, settings = self._correspondence.frames, self._settings
        if features.shape[0] % frames:
            expected = f"a multiple of the window's {frames} frames"
            raise ValueError(f"the U-Net's batch must be {expected}, found {features.shape[0]}")
        if settings.spatial_weight is None and (settings.temporal_weight is None or frames == 1):
            return features
        branches = features.shape[0] // frames
        first = branches - 1 if settings.conditional_only else 0
        optimised = torch.empty_like(features)
        optimised[: first * frames] = features[: first * frames]
        by_fused = not settings.spatial_squared and fused.usable(features)
        small = by_fused and 4 * features[first * frames :].numel() <= fused.SMALL_BYTES
        together = branches - first if small else 1
        for branch in range(first, branches, together):
            some = slice(branch * frames, (branch + together) * frames)
            if by_fused:
                self._by_fused_losses(block, features[some], branch, branches, optimised[some])
            else:
                losses = self._losses(block, features[some], branch, branches)
                optimised[some] = optimise(features[some], losses, settings)
        return optimised

    def _by_fused_losses(self, block: int, features: Tensor, branch: int, branches: int, result: Tensor) -> None:
        """Optimise some branches by the fused kernels, into `result`: what `optimise` with `_losses` does."""
        frames, settings, temporal, spatial = self._correspondence.frames, self._settings, None, None
        windows = features.shape[0] // frames
        share = windows / branches
        if settings.temporal_weight is not None and frames > 1:
            height, width = features.shape[2:]
            key = (height, width, windows, branches)
            if key not in self._fused:
                flow = self._correspondence.flow(height, width)
                self._fused[key] = fused.Temporal.of(flow, settings.temporal_weight * share, windows)
            temporal = self._fused[key]
        if settings.spatial_weight is not None:
            target = self._target(block, features, windows, branches)[branch * frames : (branch + windows) * frames]
            spatial = fused.Spatial(target=target, weight=settings.spatial_weight * share)
        rows = as_rows(features)
        mean, deviation = _of_rows(rows, settings.adain_epsilon)
        fused.descend(rows, temporal, spatial, settings.iterations, settings.learning_rate)
        new_mean, new_deviation = _of_rows(rows, _VARIANCE_EPSILON)
        scale = deviation / new_deviation
        returned = torch.addcmul(mean - new_mean * scale, rows, scale)
        result.copy_(returned.mT.unflatten(2, features.shape[2:]))

    def _losses(self, block: int, features: Tensor, branch: int, branches: int) -> list[Loss]:
        """The losses of one branch, each a mean over all of them."""
        frames, settings = self._correspondence.frames, self._settings
        losses: list[Loss] = []
        if settings.temporal_weight is not None and frames > 1:
            losses.append(self._temporal_loss(features, settings.temporal_weight, branches))
        if settings.spatial_weight is not None:
            target = self._target(block, features, 1, branches)[branch * frames : (branch + 1) * frames]
            loss = SquaredSpatialLoss if settings.spatial_squared else SpatialLoss
            losses.append(loss(target, settings.spatial_weight / branches))
        return losses

    def _temporal_loss(self, features: Tensor, weight: float, branches: int) -> TemporalLoss:
        height, width = features.shape[2:]
        key = (height, width, branches)
        if key not in self._temporal:
            self._temporal[key] = TemporalLoss(self._correspondence.flow(height, width), weight / branches)
        return self._temporal[key]

    def _target(self, block: int, features: Tensor, windows: int, branches: int) -> Tensor:
        """The reference of all branches, of which `features` are those of some windows."""
        if block not in self._targets:
            raise RuntimeError(
                "the spatial loss needs reference features: call the U-Net once within `features.recording()`"
            )
        target = self._targets[block]
        rows = features.shape[0] // windows * branches
        expected = (rows, features.shape[2] * features.shape[3], features.shape[1])
        if target.shape != expected:
            raise ValueError(
                f"reference features of up-block {block} are {tuple(target.shape)} but {expected} (rows, positions, "
                "channels) are denoised: record them with the same window, guidance and size"
            )
        return target


@contextmanager
def optimised_features(
    unet: nn.Module, correspondence: Correspondence, settings: FeatureOptimisation, background: Tensor | None = None
) -> Iterator[OptimisedFeatures]:
    """Optimise the input of all up-blocks of a `UNet2DConditionModel` while the context is open; leaves no trace.

    background: (N, 1, H', W'), [0, 1], 1 = background, smooths it directly after the optimisation; None does not.
    Batches are branches * N with the branches outermost. Source: FRESCO, section 4.3.
    """
    features = OptimisedFeatures(correspondence, settings, background)
    with ExitStack() as stack:
        for number, block in enumerate(_up_blocks(unet)):
            hook = _before_up_block(features, number)
            stack.callback(block.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield features


@torch.no_grad()
def optimise(features: Tensor, losses: Sequence[Loss], settings: FeatureOptimisation) -> Tensor:
    """Features that minimise the losses, with their own statistics again; the same tensor when there is no loss.

    features: (B, C, h, w). Gives their shape and dtype; the work is done in float32.
    """
    if not losses:
        return features
    rows = as_rows(features)
    for _ in descend(rows, losses, settings, measured=False):
        pass
    optimised = torch.empty_like(features)
    for frame, old, new in zip(rows, features, optimised, strict=True):  # one at a time: half a gigabyte less of eight
        new.copy_(adain(frame.mT.reshape(1, *old.shape), old[None].float(), settings.adain_epsilon)[0])
    return optimised


@torch.no_grad()
def descend(
    rows: Tensor, losses: Sequence[Loss], settings: FeatureOptimisation, *, measured: bool = True
) -> Iterator[Tensor]:
    """Minimise the sum of the losses by Adam: changes `rows` in place and gives the loss before each step.

    rows: (B, L, C), float32, contiguous (`as_rows`). measured: False saves the loss itself, and gives 0.
    """
    gradient = rows.grad = torch.zeros_like(rows)
    adam = torch.optim.Adam([rows], lr=settings.learning_rate, fused=True)
    for _ in range(settings.iterations):
        gradient.zero_()
        loss = torch.stack([term.add_gradient(rows, gradient, measured=measured) for term in losses]).sum()
        adam.step()
        yield loss
    rows.grad = None


def as_rows(features: Tensor) -> Tensor:
    """Features (B, C, h, w) as new rows (B, h * w, C), float32."""
    return features.flatten(2).mT.to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def adain(content: Tensor, style: Tensor, style_epsilon: float = _VARIANCE_EPSILON) -> Tensor:
    """Content with mean and deviation of the style, per sample and channel.

    content, style: (B, C, h, w). style_epsilon: added to the style's variance. Source: Huang and Belongie, ICCV 2017,
    equation 8.
    """
    content_mean, content_deviation = _statistics(content, _VARIANCE_EPSILON)
    style_mean, style_deviation = _statistics(style, style_epsilon)
    return (content - content_mean) / content_deviation * style_deviation + style_mean


def _statistics(features: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel; in two passes, which is several times faster than `torch.var_mean`."""
    positions = features.shape[2] * features.shape[3]
    mean = features.mean(dim=(2, 3), keepdim=True)
    squares = (features - mean).square_().sum(dim=(2, 3), keepdim=True)
    variance = squares / max(positions - 1, 1)  # one position has no unbiased variance
    return mean, (variance + epsilon).sqrt()


def _of_rows(rows: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Mean and deviation (N, 1, C) of each channel of rows (N, L, C), in one pass, which is the faster way here."""
    variance, mean = torch.var_mean(rows, dim=1, keepdim=True, correction=min(1, rows.shape[1] - 1))
    return mean, (variance + epsilon).sqrt()


def _up_blocks(unet: nn.Module) -> nn.ModuleList:
    blocks = getattr(unet, "up_blocks", None)
    if not isinstance(blocks, nn.ModuleList):
        raise TypeError(f"{type(unet).__name__} has no list of up-blocks")
    return blocks


def _before_up_block(features: OptimisedFeatures, number: int) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (features.at(number, args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": features.at(number, kwargs["hidden_states"])}

    return hook
