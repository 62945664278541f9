# SPDX-License-Identifier: GPL-3.0-or-later
"""What an artist chose, and the shot that it makes of a clip. Nothing of Blender is here: a preset is this document."""
from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Optional

from fresco_protocol.document import FILLED, noun, within
from fresco_protocol.errors import UsageError
from fresco_protocol.frame_range import as_ranges
from fresco_protocol.shot import (
    BackgroundSmoothing,
    BitDepth,
    Coherence,
    Control,
    ControlKind,
    Delivery,
    Editing,
    FeatureOptimisation,
    FrameRange,
    Keyframing,
    Look,
    Matte,
    Plate,
    Rate,
    Shot,
    SpatialGuidance,
    Task,
    TemporalGuidance,
)


class Controls(Enum):
    """What holds the structure."""

    MODEL = "MODEL"  # what the model recommends
    NONE = "NONE"
    SOFT_EDGE = "SOFT_EDGE"
    CANNY = "CANNY"


class Keyframes(Enum):
    """Which frames are denoised."""

    AUTO = "AUTO"  # by the motion
    INTERVAL = "INTERVAL"
    MARKERS = "MARKERS"  # the artist's own


class Steadiness(Enum):
    """Presets of coherence."""

    FULL = "FULL"
    QUICK = "QUICK"  # without optimisation of features, which takes most of the time
    NONE = "NONE"  # frame by frame
    CUSTOM = "CUSTOM"


class FileFormat(Enum):
    """What the result is written as."""

    EXR = "EXR"  # half, scene-linear
    PNG = "PNG"  # 16 bits, sRGB


@noun
class Choices:
    """Everything of a look that a preset keeps; strength, guidance, working_size: None is the model's own."""

    prompt: str = ""
    negative_prompt: str = ""
    model: Annotated[str, FILLED] = "embedded"
    task: Task = Task.TRANSLATE
    caption: str = ""
    strength: Optional[Annotated[float, within(0, 1)]] = None
    guidance: Optional[Annotated[float, within(0, 100)]] = None
    steps: Annotated[int, within(1, 1000)] = 20
    seed: Annotated[int, within(0, 2**31 - 1)] = 0
    controls: Controls = Controls.MODEL
    control_strength: Annotated[float, within(0, 2)] = 1.0
    keyframes: Keyframes = Keyframes.AUTO
    interval: Annotated[int, within(1, 1000)] = 8
    window: Annotated[int, within(3, 64)] = 8
    steadiness: Steadiness = Steadiness.FULL
    cross_frame: bool = True
    spatial: bool = True
    temporal: bool = True
    optimisation: bool = True
    background: bool = True
    file_format: FileFormat = FileFormat.EXR
    handles: Annotated[int, within(0, 1000)] = 0
    working_size: Optional[Annotated[int, within(64, 8192)]] = None
    matte_invert: bool = False
    matte_grow: Annotated[int, within(-1000, 1000)] = 0
    matte_feather: Annotated[float, within(0, 1000)] = 0.0
    matte_propagate: bool = False


@dataclass(frozen=True)
class Footage:
    """What a shot reads and where it writes. plate, matte, output: absolute path patterns. markers: plate numbers."""

    name: str
    plate: str
    color_space: str
    frames: FrameRange
    rate: Rate
    matte: Optional[str]
    markers: tuple[int, ...]
    output: str


def shot_of(choices: Choices, footage: Footage) -> Shot:
    """The shot. Raises UsageError when there is no prompt, ShotError when a choice is out of its range."""
    if not choices.prompt.strip():
        raise UsageError("there is no prompt", remedy="Say what the result shall look like.")
    return Shot(
        name=footage.name, task=choices.task, editing=Editing(caption=choices.caption),
        plate=Plate(sequence=footage.plate, frames=(footage.frames,), rate=footage.rate,
                    color_space=footage.color_space),
        look=Look(prompt=choices.prompt.strip(), negative_prompt=choices.negative_prompt, model=choices.model,
                  controls=_controls(choices), strength=choices.strength, guidance=choices.guidance,
                  steps=choices.steps, seed=choices.seed),
        keyframing=_keyframing(choices, footage), coherence=_coherence(choices),
        matte=_matte(choices, footage.matte) if footage.matte else None,
        delivery=_delivery(choices, footage.output))


def extension_of(choices: Choices) -> str:
    """The file name extension of the result."""
    return f".{choices.file_format.value.lower()}"


def _matte(choices: Choices, sequence: str) -> Matte:
    return Matte(sequence=sequence, invert=choices.matte_invert, grow=choices.matte_grow,
                 feather=choices.matte_feather, propagate=choices.matte_propagate)


def _controls(choices: Choices) -> Optional[tuple[Control, ...]]:
    kinds = {Controls.SOFT_EDGE: ControlKind.SOFT_EDGE, Controls.CANNY: ControlKind.CANNY}
    if choices.controls is Controls.MODEL:
        return None
    if choices.controls is Controls.NONE:
        return ()
    return (Control(kind=kinds[choices.controls], strength=choices.control_strength),)


def _keyframing(choices: Choices, footage: Footage) -> Keyframing:
    if choices.keyframes is Keyframes.INTERVAL:
        return Keyframing(minimum_gap=choices.interval, maximum_gap=choices.interval, window=choices.window)
    if choices.keyframes is Keyframes.MARKERS and footage.markers:
        return Keyframing(frames=as_ranges(footage.markers), window=choices.window)
    return Keyframing(window=choices.window)


def _coherence(choices: Choices) -> Optional[Coherence]:
    if choices.steadiness is Steadiness.NONE:
        return None
    if choices.steadiness is Steadiness.FULL:
        return Coherence()
    if choices.steadiness is Steadiness.QUICK:
        return Coherence(optimisation=None)
    return Coherence(cross_frame=choices.cross_frame,
                     spatial=SpatialGuidance() if choices.spatial else None,
                     temporal=TemporalGuidance() if choices.temporal else None,
                     optimisation=FeatureOptimisation() if choices.optimisation else None,
                     background=BackgroundSmoothing() if choices.background else None)


def _delivery(choices: Choices, output: str) -> Delivery:
    exr = choices.file_format is FileFormat.EXR
    return Delivery(sequence=output, color_space="linear-rec709" if exr else "srgb",
                    bit_depth=BitDepth.HALF if exr else BitDepth.UINT16, compression="zip" if exr else None,
                    working_size=choices.working_size)
