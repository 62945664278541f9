# SPDX-License-Identifier: Apache-2.0
"""The rows of the ablation: which parts of FRESCO each one has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from fresco_backend.engine.coherence import Coherence, FeatureGuidance
from fresco_backend.engine.latents import NoiseSharing


class Part(Enum):
    """One constraint of FRESCO (CVPR 2024, section 4)."""

    CROSS_FRAME = "cross-frame attention"
    TEMPORAL_ATTENTION = "temporal-guided attention"
    SPATIAL_ATTENTION = "spatial-guided attention"
    TEMPORAL_LOSS = "temporal loss of the optimisation"
    SPATIAL_LOSS = "spatial loss of the optimisation"
    BACKGROUND = "smoothing of the background"


ATTENTION = frozenset({Part.CROSS_FRAME, Part.TEMPORAL_ATTENTION, Part.SPATIAL_ATTENTION})
LOSSES = frozenset({Part.TEMPORAL_LOSS, Part.SPATIAL_LOSS})


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way to denoise a clip. name: for the command line. title: for people. parts: empty is frame by frame.

    cyclic: the last frame is compared with the first one too. squared: the spatial loss as in the paper.
    """

    name: str
    title: str
    parts: frozenset[Part] = frozenset()
    sharing: NoiseSharing = NoiseSharing.ALL
    cyclic: bool = False
    squared: bool = False

    @property
    def identity(self) -> str:
        """A text that is the same in every run, and differs where the variant does."""
        manners = [*["cyclic"] * self.cyclic, *["squared"] * self.squared]
        return "+".join([self.sharing.value, *sorted(part.name for part in self.parts), *manners])

    def coherence(self, full: Coherence) -> Coherence:
        """Give the constraints of `full` that the variant has."""
        return Coherence(
            cross_frame=full.cross_frame and Part.CROSS_FRAME in self.parts,
            spatial=full.spatial if Part.SPATIAL_ATTENTION in self.parts else None,
            temporal=full.temporal if Part.TEMPORAL_ATTENTION in self.parts else None,
            features=self._features(full.features),
            pixels=full.pixels if Part.BACKGROUND in self.parts else None,
        )

    def _features(self, full: FeatureGuidance | None) -> FeatureGuidance | None:
        if full is None or not self.parts & LOSSES:
            return None
        settings = full.optimisation
        return replace(full, optimisation=replace(
            settings,
            temporal_weight=settings.temporal_weight if Part.TEMPORAL_LOSS in self.parts else None,
            spatial_weight=settings.spatial_weight if Part.SPATIAL_LOSS in self.parts else None,
            spatial_squared=self.squared,
        ))  # fmt: skip


def _with(name: str, title: str, *parts: Part) -> Variant:
    return Variant(name=name, title=title, parts=frozenset(parts))


PLAIN = Variant(name="per-frame", title="per-frame img2img", sharing=NoiseSharing.NONE)

# After the first two, all frames share all noise, as a shot does by default.
VARIANTS = (
    PLAIN,
    Variant(name="initial-noise", title="per-frame, initial noise shared", sharing=NoiseSharing.INITIAL),
    _with("shared-noise", "per-frame, all noise shared"),
    _with("cross-frame", "cross-frame attention", Part.CROSS_FRAME),
    _with("temporal-attention", "cross-frame + temporal attention", Part.CROSS_FRAME, Part.TEMPORAL_ATTENTION),
    _with("spatial-attention", "cross-frame + spatial attention", Part.CROSS_FRAME, Part.SPATIAL_ATTENTION),
    _with("attention", "all attention", *ATTENTION),
    _with("temporal-loss", "optimisation, temporal loss alone", Part.TEMPORAL_LOSS),
    _with("spatial-loss", "optimisation, spatial loss alone", Part.SPATIAL_LOSS),
    Variant(name="squared-loss", title="optimisation, squared spatial loss", parts=frozenset({Part.SPATIAL_LOSS}),
            squared=True),
    _with("optimisation", "optimisation, both losses alone", *LOSSES),
    _with("background", "smoothing of the background alone", Part.BACKGROUND),
    _with("attention-optimisation", "all attention and both losses", *ATTENTION, *LOSSES),
    _with("fresco", "full FRESCO", *Part),
    Variant(name="fresco-cyclic", title="full FRESCO, cyclic pairs", parts=frozenset(Part), cyclic=True),
    Variant(name="fresco-squared", title="full FRESCO, squared spatial loss", parts=frozenset(Part), squared=True),
    Variant(name="fresco-initial-noise", title="full FRESCO, the reference's noise", parts=frozenset(Part),
            sharing=NoiseSharing.INITIAL),
)
