# SPDX-License-Identifier: Apache-2.0
"""The look of a shot: what the result shall show, which model draws it, and what holds the structure."""
from __future__ import annotations

from enum import Enum
from typing import Annotated, Optional

from fresco_protocol.document import FILLED, noun, within
from fresco_protocol.errors import ShotError
from fresco_protocol.frame_range import Frames

Text = Annotated[str, FILLED]
LCM_STEPS = 50  # as many as latent consistency models are distilled at
Fraction01 = Annotated[float, within(0, 1)]


class ControlKind(Enum):
    """What a control image shows."""

    SOFT_EDGE = "soft-edge"
    CANNY = "canny"
    DEPTH = "depth"
    SEQUENCE = "sequence"  # the artist's own images


class Sampler(Enum):
    """How a denoising step is taken."""

    DDPM = "ddpm"  # ancestral: adds fresh noise at each step
    DDIM = "ddim"  # deterministic
    DPM = "dpm++"  # deterministic, of second order: more exact in as many steps
    LCM = "lcm"  # for models or LoRAs distilled to two to eight steps


class Prediction(Enum):
    """What a model was trained to predict."""

    EPSILON = "epsilon"
    VELOCITY = "v_prediction"


@noun
class Cue:
    """Words that are added to the prompt on some frames.

    to: the words that these have become at the last of the frames; between, the model's reading of both is mixed.
    """

    frames: Frames
    prompt: Text
    to: Optional[Text] = None

    def __post_init__(self) -> None:
        for name, words in (("prompt", self.prompt), ("to", self.to or "")):
            if "->" in words:
                raise ShotError(name, f'"{words}"', 'words without an arrow; what they become stands in "to"')


@noun
class Control:
    """An image per frame that holds the structure (ControlNet).

    model: None is the one that belongs to the look's model. sequence: the artist's images, for ControlKind.SEQUENCE
    only. detector: network that draws the images from the plate; None is the one of the kind. strength: scale of the
    residuals. start, end: when it acts, as parts of all steps.
    """

    kind: ControlKind
    model: Optional[Text] = None
    sequence: Optional[Text] = None
    detector: Optional[Text] = None
    strength: Annotated[float, within(0, 2)] = 1.0
    start: Fraction01 = 0.0
    end: Fraction01 = 1.0

    def __post_init__(self) -> None:
        if self.kind is ControlKind.SEQUENCE and self.sequence is None:
            raise ShotError("sequence", "null", 'a path pattern, because kind is "sequence"')
        if self.kind is not ControlKind.SEQUENCE and self.sequence is not None:
            raise ShotError("sequence", f'"{self.sequence}"', f'null, because kind is "{self.kind.value}"')
        if self.kind is not ControlKind.DEPTH and self.detector is not None:
            raise ShotError("detector", f'"{self.detector}"', f'null, because kind is "{self.kind.value}"')
        if self.start >= self.end:
            raise ShotError("end", str(self.end), f"a number above start, which is {self.start}")


@noun
class Lora:
    """A file of low-rank changes to a model's weights. weight: 1 is as it was trained, below 0 is away from it."""

    model: Text
    weight: Annotated[float, within(-4, 4)] = 1.0


@noun
class FreeU:
    """The decoder's own features against those of its skips (Si et al., CVPR 2024): no training, no extra time.

    backbone_1, backbone_2: scale of the coarsest features and of those half as wide. skip_1, skip_2: scale of the
    lowest frequencies of the skips there. The defaults are those of FRESCO's released program, 1 changes nothing.
    """

    backbone_1: Annotated[float, within(0, 3)] = 1.2
    backbone_2: Annotated[float, within(0, 3)] = 1.5
    skip_1: Annotated[float, within(0, 3)] = 1.0
    skip_2: Annotated[float, within(0, 3)] = 1.0


@noun
class Look:
    """What the result shall look like.

    prompt, negative_prompt: "(words:1.2)" weighs words. model: "embedded", a diffusers folder, a hub id or a
    .safetensors file. prediction: None is what the model states. vae: an autoencoder in place of the model's own.
    controls, strength, guidance: None is what the model recommends; an empty list of controls is none. strength: 0
    keeps the plate, 1 leaves a trace of it. guidance: scale of classifier-free guidance; 0 and 1 are none. seed: with
    it, a frame's number decides its noise.
    """

    prompt: Text
    negative_prompt: str = ""
    cues: tuple[Cue, ...] = ()
    model: Text = "embedded"
    prediction: Optional[Prediction] = None
    vae: Optional[Text] = None
    loras: tuple[Lora, ...] = ()
    free_u: Optional[FreeU] = None
    controls: Optional[tuple[Control, ...]] = None
    strength: Optional[Fraction01] = None
    guidance: Optional[Annotated[float, within(0, 100)]] = None
    steps: Annotated[int, within(1, 1000)] = 20
    sampler: Sampler = Sampler.DDPM
    seed: Annotated[int, within(0, 2**63 - 1)] = 0

    def __post_init__(self) -> None:
        if self.sampler is Sampler.LCM and self.steps > LCM_STEPS:
            raise ShotError("steps", str(self.steps), f'from 1 to {LCM_STEPS}, because sampler is "lcm"')
