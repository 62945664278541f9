# SPDX-License-Identifier: Apache-2.0
"""The nouns of Fresco: a Shot is all that one render needs, and one JSON document.

Shot
├── plate       Plate ── frames: FrameRange…, rate: Rate, rendering: Rendering | None, missing: Missing
├── matte       Matte | None
├── look        Look ─── cues: Cue…, loras: Lora…, controls: Control…, free_u: FreeU | None, sampler: Sampler
├── keyframing  Keyframing ── synthesis: Synthesis
├── editing     Editing
├── coherence   Coherence | None ── spatial, temporal, optimisation, background: each one or None, compat: Compat
└── delivery    Delivery ── bit_depth: BitDepth, highlights: Highlights, upsampling: Upsampling, grain: Grain | None

"Off" is None (null in the document). A key that the document leaves out has the default that stands here; `schema` may
not be left out. Timesteps are those of training, 999 (noise) down to 0 (picture).
"""
from __future__ import annotations

import json
import math
import os
import re
from dataclasses import replace
from enum import Enum
from fractions import Fraction
from typing import Annotated, Optional

from fresco_protocol.delivery import BitDepth as BitDepth
from fresco_protocol.delivery import Delivery as Delivery
from fresco_protocol.delivery import Grain as Grain
from fresco_protocol.delivery import Highlights as Highlights
from fresco_protocol.delivery import Matte as Matte
from fresco_protocol.delivery import Rendering as Rendering
from fresco_protocol.delivery import Upsampling as Upsampling
from fresco_protocol.document import Written, noun, parse_json, read, within, write
from fresco_protocol.errors import ShotError
from fresco_protocol.frame_range import LONGEST_RANGE as LONGEST_RANGE
from fresco_protocol.frame_range import FrameRange as FrameRange
from fresco_protocol.frame_range import Frames
from fresco_protocol.frame_range import frame_numbers as frame_numbers
from fresco_protocol.frame_range import parse_frames as parse_frames
from fresco_protocol.frame_range import with_handles as with_handles
from fresco_protocol.look import Control as Control
from fresco_protocol.look import ControlKind as ControlKind
from fresco_protocol.look import Cue as Cue
from fresco_protocol.look import FreeU as FreeU
from fresco_protocol.look import Look as Look
from fresco_protocol.look import Lora as Lora
from fresco_protocol.look import Prediction as Prediction
from fresco_protocol.look import Sampler as Sampler
from fresco_protocol.look import Text

SCHEMA = 1

Timestep = Annotated[int, within(0, 1000)]
Temperature = Annotated[float, within(0.01, 100)]


class Task(Enum):
    """What becomes of the plate."""

    TRANSLATE = "translate"  # the whole picture takes on the look
    EDIT = "edit"  # the prompt changes what it names, by inversion of the plate


class Missing(Enum):
    """What happens at a frame that the plate lacks."""

    ERROR = "error"
    HOLD = "hold"  # the frame before it stands in
    SKIP = "skip"  # the delivery lacks it too


class Compat(Enum):
    """Whose arithmetic the coherence follows where the paper's authors' program departs from the paper."""

    DEFAULT = "default"
    REFERENCE = "reference"


@noun
class Rate(Written):
    """Frames per second as a rational in lowest terms; written "24" or "24000/1001"."""

    numerator: Annotated[int, within(1, 10**9)]
    denominator: Annotated[int, within(1, 10**9)] = 1

    allowed = 'frames per second such as "24", "23.976" or "24000/1001"'

    def __post_init__(self) -> None:
        divisor = math.gcd(self.numerator, self.denominator)
        object.__setattr__(self, "numerator", self.numerator // divisor)
        object.__setattr__(self, "denominator", self.denominator // divisor)

    @classmethod
    def parse(cls, text: str) -> Rate:
        """The rate of its text; 23.976, 29.97, 59.94 and their like mean n x 1000/1001 (SMPTE ST 12-1)."""
        text = text.strip()
        if re.fullmatch(r"[0-9]{1,9}(/0*[1-9][0-9]{0,8}|\.[0-9]{1,6})?", text) is None or Fraction(text) == 0:
            raise ShotError("", f'"{text[:60]}"', cls.allowed)
        rate = Fraction(text)
        dropped = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
        if "." in text and rate.denominator != 1 and abs(dropped - rate) < Fraction(1, 200):
            rate = dropped
        return cls(numerator=rate.numerator, denominator=rate.denominator)

    def __str__(self) -> str:
        return str(self.numerator) if self.denominator == 1 else f"{self.numerator}/{self.denominator}"

    @property
    def fraction(self) -> Fraction:
        """The rate as a number to compute with."""
        return Fraction(self.numerator, self.denominator)


@noun
class Plate:
    """The clip as exported; it is read and never written.

    sequence: path pattern ("plate.####.exr", "%04d", "@@@@") or movie file, whose frames count from 1.
    frames: None is all that are found. rate: None is the clip's own. color_space: None is what the files declare.
    rendering: how scene light is looked at; None is sRGB for linear Rec. 709, ACES 2.0 for other spaces.
    layer: of files with several pictures the one that is stylised: a layer, a part or a view by its name.
    """

    sequence: Text
    frames: Optional[Frames] = None
    rate: Optional[Rate] = None
    color_space: Optional[Text] = None
    rendering: Optional[Rendering] = None
    missing: Missing = Missing.ERROR
    layer: Optional[Text] = None


class Synthesis(Enum):
    """How the frames come about."""

    IN_BETWEENS = "in-betweens"  # between keyframes along the motion
    FEATURES = "features"  # all by the model, whose features go from keyframes that take turns to the other frames
    MIXED = "mixed"  # keyframes as above, in-betweens between them
    EVERY_FRAME = "every-frame"  # each one is a keyframe

    @property
    def denoises_all(self) -> bool:
        """Whether the model makes every frame."""
        return self in (Synthesis.FEATURES, Synthesis.EVERY_FRAME)

    @property
    def propagates(self) -> bool:
        """Whether features go from some frames to others."""
        return self in (Synthesis.FEATURES, Synthesis.MIXED)


@noun
class Keyframing:
    """Which frames are denoised; the others become in-betweens (FRESCO, algorithm 1).

    minimum_gap, maximum_gap: frames between neighbouring keyframes; equal gaps give a regular interval.
    frames: the artist's own choice, in place of the gaps. window: keyframes denoised together, anchors included.
    rotation: where features are propagated, the groups of keyframes that take turns.
    """

    minimum_gap: Annotated[int, within(1, 1000)] = 4
    maximum_gap: Annotated[int, within(1, 1000)] = 8
    frames: Optional[Frames] = None
    window: Annotated[int, within(3, 64)] = 8
    synthesis: Synthesis = Synthesis.IN_BETWEENS
    rotation: Annotated[int, within(1, 64)] = 4

    def __post_init__(self) -> None:
        if self.frames is not None and self.synthesis.denoises_all:
            raise ShotError("frames", f'"{",".join(map(str, self.frames))}"',
                            f'null, because with "{self.synthesis.value}" the model makes every frame')
        if self.maximum_gap < self.minimum_gap:
            raise ShotError("maximum_gap", str(self.maximum_gap), f"at least minimum_gap, which is {self.minimum_gap}")


@noun
class Editing:
    """How an edit holds on to its plate (Tumanyan et al., CVPR 2023); a translation does not ask.

    caption: what the plate shows, in words; an edit without a negative prompt leads away from it, so that guidance
    strengthens what the prompt changes. inversion_steps: of the way from the plate to noise, which is kept for
    later edits. attention, convolution: parts of the steps in which queries and keys, and residual features, are the
    plate's: less of them lets the shape change.
    """

    caption: str = ""
    inversion_steps: Annotated[int, within(1, 1000)] = 50
    attention: Annotated[float, within(0, 1)] = 0.5
    convolution: Annotated[float, within(0, 1)] = 0.8


@noun
class SpatialGuidance:
    """Attention kept to the plate's self-similarity (FRESCO, equation 7) while the first `steps` of 20 last."""

    temperature: Temperature = 5.0
    steps: Annotated[int, within(1, 1000)] = 1


@noun
class TemporalGuidance:
    """Attention along the paths of the flow (FRESCO, equation 9), at timesteps of `until_timestep` and above."""

    temperature: Temperature = 5.0
    until_timestep: Timestep = 350


@noun
class FeatureOptimisation:
    """U-Net features moved towards temporal and spatial consistency (FRESCO, equations 3 to 6) by Adam.

    spatial_weight: of the spatial loss against the temporal one. spatial_squared: it is the square of the differences,
    as the paper has it, in place of their amount, as its program has. until_timestep: acts at it and above.
    conditional_only: the half of guidance without the prompt keeps its features, which saves half of the work.
    """

    iterations: Annotated[int, within(1, 1000)] = 20
    learning_rate: Annotated[float, within(0.0001, 10)] = 0.2
    spatial_weight: Annotated[float, within(0, 10_000)] = 50.0
    spatial_squared: bool = False
    until_timestep: Timestep = 251
    conditional_only: bool = False


@noun
class BackgroundSmoothing:
    """The background carried along the flow. It is what the matte leaves out; without one, what moves as the camera."""

    until_timestep: Timestep = 251


@noun
class Coherence:
    """Which FRESCO constraints act, when and how strongly.

    cross_frame: keyframes of a window see each other. tone: later windows are graded to the first one's answer to the
    plate's tones, so that a long clip does not drift; with cues, which mean change, they are not.
    """

    cross_frame: bool = True
    spatial: Optional[SpatialGuidance] = SpatialGuidance()
    temporal: Optional[TemporalGuidance] = TemporalGuidance()
    optimisation: Optional[FeatureOptimisation] = FeatureOptimisation()
    background: Optional[BackgroundSmoothing] = BackgroundSmoothing()
    tone: bool = True
    compat: Compat = Compat.DEFAULT


@noun
class Shot:
    """All that one render needs; the unit of work, of the queue and of the farm. coherence: None is frame by frame.

    Relative paths belong to the folder of the document: see `located`.
    """

    plate: Plate
    look: Look
    delivery: Delivery
    schema: int = SCHEMA
    name: Optional[Text] = None
    task: Task = Task.TRANSLATE
    matte: Optional[Matte] = None
    keyframing: Keyframing = Keyframing()
    editing: Editing = Editing()
    coherence: Optional[Coherence] = Coherence()

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ShotError("schema", str(self.schema), f"{SCHEMA}, the schema that this version of Fresco reads")

    def to_json(self) -> str:
        """The document, every key written out; `from_json` gives back an equal Shot."""
        text = json.dumps({"schema": self.schema, **write(self)}, indent=2, ensure_ascii=False, allow_nan=False)
        return re.sub("[\ud800-\udfff]", lambda lone: f"\\u{ord(lone[0]):04x}", text)  # file names that are not UTF-8

    @classmethod
    def from_json(cls, text: str) -> Shot:
        """The shot of a document; ShotError names the path in it, what was found and what is allowed."""
        document = parse_json(text)
        if document.get("schema") != SCHEMA:  # before the keys: a later schema may have others
            found = json.dumps(document["schema"]) if "schema" in document else "nothing"
            raise ShotError("schema", found, str(SCHEMA))
        shot: Shot = read(document, cls)
        return shot

    def located(self, folder: str) -> Shot:
        """The same shot with every relative path of a sequence taken from `folder`."""
        def placed(path: str) -> str:
            return os.path.normpath(os.path.join(folder, path))

        controls = self.look.controls and tuple(
            replace(control, sequence=control.sequence and placed(control.sequence)) for control in self.look.controls)
        return replace(self,
                       plate=replace(self.plate, sequence=placed(self.plate.sequence)),
                       matte=self.matte and replace(self.matte, sequence=placed(self.matte.sequence)),
                       look=replace(self.look, controls=controls),
                       delivery=replace(self.delivery, sequence=placed(self.delivery.sequence),
                                        upscaler=self.delivery.upscaler and placed(self.delivery.upscaler)))
