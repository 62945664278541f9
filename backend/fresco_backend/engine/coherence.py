# SPDX-License-Identifier: Apache-2.0
"""Which FRESCO constraint acts at which denoising step, and their hold on a U-Net while a window is denoised.

Limits are training time steps, not step numbers, so that they mean the same in a run of 4 steps and in one of 50.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from fresco_backend.engine.attention import AttentionGuides, GuidedAttention, guided_attention
from fresco_backend.engine.correspondence import Correspondence
from fresco_backend.engine.features import FeatureOptimisation, OptimisedFeatures, optimised_features
from fresco_backend.engine.schedule import Step

STRIDE = 50
"""Training time steps from one step to the next in a run of 20, for which the method's numbers were chosen."""


@dataclass(frozen=True, kw_only=True)
class SpatialGuidance:
    """Attention kept to the plate's self-similarity for as long as the first `steps` steps of a run of 20 take."""

    temperature: float = 5.0
    steps: int = 1


@dataclass(frozen=True, kw_only=True)
class TemporalGuidance:
    """Attention along the paths of the flow, at time steps of `until_timestep` and above."""

    temperature: float = 5.0
    until_timestep: int = 350


@dataclass(frozen=True, kw_only=True)
class FeatureGuidance:
    """Features optimised, and smoothed where there is a background, at time steps of `until_timestep` and above."""

    optimisation: FeatureOptimisation = field(default_factory=FeatureOptimisation)
    until_timestep: int = 251


@dataclass(frozen=True, kw_only=True)
class PixelSmoothing:
    """Background smoothed in the decoded picture at time steps from `from_timestep` down to `until_timestep`.

    The defaults hold the two steps, 151 and 101, at which the reference does it in a run of 20. sharp: look every pixel
    up once (`carry_background`), and take the unsmoothed picture out of the noisy latents as well; False does as the
    reference, whose strokes grow softer with each frame.
    """

    from_timestep: int = 175
    until_timestep: int = 75
    sharp: bool = True


@dataclass(frozen=True, kw_only=True)
class Coherence:
    """The constraints of a run; None leaves one out. cross_frame: the frames of a window see each other.

    Source: FRESCO, CVPR 2024, section 4; the defaults are its released program's.
    """

    cross_frame: bool = True
    spatial: SpatialGuidance | None = SpatialGuidance()
    temporal: TemporalGuidance | None = TemporalGuidance()
    features: FeatureGuidance | None = field(default_factory=FeatureGuidance)
    pixels: PixelSmoothing | None = PixelSmoothing()

    def attention(self, step: Step) -> AttentionGuides:
        """Give what guides attention at a step."""
        spatial, temporal = self.spatial, self.temporal
        return AttentionGuides(
            cross_frame=self.cross_frame,
            spatial=spatial.temperature if spatial and _begins(step, spatial.steps) else None,
            temporal=temporal.temperature if temporal and step.timestep >= temporal.until_timestep else None,
        )

    def optimises(self, step: Step) -> bool:
        """Whether features are optimised at a step."""
        return self.features is not None and step.timestep >= self.features.until_timestep

    def smooths_pixels(self, step: Step) -> bool:
        """Whether the decoded picture's background is smoothed at a step."""
        pixels = self.pixels
        return pixels is not None and pixels.until_timestep <= step.timestep <= pixels.from_timestep

    def compares(self, step: Step) -> bool:
        """Whether a constraint compares with the plate's own features at a step."""
        return self.attention(step).spatial is not None or (self._compares_features and self.optimises(step))

    def between_pivots(self) -> "Coherence":
        """Give what holds frames whose self-attention is taken from pivots: the temporal loss on their features."""
        features = self.features
        if features is not None:
            alone = replace(features.optimisation, spatial_weight=None)
            features = replace(features, optimisation=alone) if alone.temporal_weight is not None else None
        return Coherence(cross_frame=False, spatial=None, temporal=None, features=features, pixels=self.pixels)

    @property
    def _compares_features(self) -> bool:
        return self.features is not None and self.features.optimisation.spatial_weight is not None


def _begins(step: Step, steps: int) -> bool:
    """Whether a step falls into the stretch of noise of the first `steps` steps of a run of 20."""
    return step.beginning - step.timestep < steps * STRIDE


@dataclass(frozen=True, kw_only=True)
class WindowGuidance:
    """What holds the frames of one window together.

    background: (N, 1, H', W') in [0, 1], 1 = background, of any size; None smooths nothing.
    """

    coherence: Coherence
    correspondence: Correspondence
    background: Tensor | None = None

    def between_pivots(self) -> "WindowGuidance":
        """Give what holds frames whose self-attention is taken from pivots."""
        return replace(self, coherence=self.coherence.between_pivots(), background=None)


class Guide:
    """The hold of one window's constraints on a U-Net."""

    def __init__(self, coherence: Coherence, attention: GuidedAttention, features: OptimisedFeatures | None) -> None:
        self.coherence = coherence
        self._attention = attention
        self._features = features

    def at(
        self,
        step: Step,
        *,
        injected: bool = False,
        tokens: tuple[Tensor, ...] | None = None,
        untouched: int = 0,
        optimised: bool = True,
    ) -> None:
        """Switch to the constraints of a step, for the U-Net calls that follow.

        injected: queries and keys are the plate's, whose branch comes first. tokens: they are made of these, see
        `invert.PlateFeatures`. untouched: rows of that branch, whose features are left as they are. optimised: False
        leaves those of all rows.
        """
        guides = self.coherence.attention(step)
        if guides.spatial is None:
            self._attention.forget()  # it acts at the beginning alone
        self._attention.guides = replace(guides, injected=injected or tokens is not None)
        self._attention.tokens = tokens
        if self._features is not None:
            self._features.enabled = optimised and self.coherence.optimises(step)
            self._features.untouched = untouched

    @contextmanager
    def recording(self) -> Iterator[None]:
        """The one U-Net call within stores the plate's features, and is not guided itself."""
        with ExitStack() as stack:
            stack.enter_context(self._attention.recording())
            if self._features is not None:
                stack.enter_context(self._features.recording())
            yield


@contextmanager
def guided(unet: Any, guidance: WindowGuidance) -> Iterator[Guide]:
    """Hold a U-Net by a window's constraints while the context is open; leaves no trace."""
    coherence = guidance.coherence
    with ExitStack() as stack:
        attention = stack.enter_context(guided_attention(unet, guidance.correspondence, AttentionGuides()))
        features = None
        if coherence.features is not None:
            settings = coherence.features.optimisation
            context = optimised_features(unet, guidance.correspondence, settings, guidance.background)
            features = stack.enter_context(context)
        yield Guide(coherence, attention, features)
