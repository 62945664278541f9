# SPDX-License-Identifier: Apache-2.0
"""The nouns of pixels: a Matte says where the look applies, a Delivery where and how the result is written."""
from __future__ import annotations

from enum import Enum
from typing import Annotated, Optional

from fresco_protocol.document import noun, within
from fresco_protocol.errors import ShotError
from fresco_protocol.look import Text


class BitDepth(Enum):
    """Number format of delivered pixels."""

    HALF = "half"
    FLOAT = "float"
    UINT8 = "uint8"
    UINT16 = "uint16"


class Rendering(Enum):
    """By which curve scene light becomes the picture that a model sees."""

    ACES = "aces-2.0"  # for SDR, on an sRGB display
    SRGB = "srgb"  # IEC 61966-2-1, light above 1 clipped


class Highlights(Enum):
    """What becomes of light that is brighter than a display."""

    PRESERVE = "preserve"  # the plate's own is carried around the model
    MODEL = "model"  # the model sees and paints it, on a log curve
    DISPLAY = "display"  # what the model painted, as a display shows it; nothing of the plate's


class Grain(Enum):
    """What becomes of the plate's grain, which the model never sees."""

    KEEP = "keep"  # the very grain of the plate is put back
    MATCH = "match"  # new grain of the plate's size and level
    NONE = "none"  # the result has none


class Upsampling(Enum):
    """How the model's picture comes to the plate's resolution."""

    GUIDED = "guided"  # with edges as sharp as the plate's
    BICUBIC = "bicubic"


@noun
class Matte:
    """Where the look applies: 1 stylises, 0 keeps the plate.

    channel: a channel, a layer, or an object of a Cryptomatte; None is alpha if there is one, else the first.
    grow: pixels by which it is widened, below 0 narrowed. feather: pixels over which its edge is softened.
    propagate: frames that it lacks are made from those that it has, along the motion of the plate.
    crop: what lies far outside of a small matte is not rendered.
    """

    sequence: Text
    channel: Optional[Text] = None
    invert: bool = False
    grow: Annotated[int, within(-1000, 1000)] = 0
    feather: Annotated[float, within(0, 1000)] = 0.0
    propagate: bool = False
    crop: bool = True


@noun
class Delivery:
    """Where and how the result is written.

    sequence: path pattern or movie file. color_space, bit_depth, compression: None follows the plate.
    handles: extra frames at head and tail, at the step of the plate's frames and as far as there are any; rendered here
    and trimmed on import.
    working_size: short side in pixels at which the engine works; None is the model's own.
    tile_size: side in pixels of the overlapping tiles in which a larger picture is denoised; one that holds the picture
    leaves it whole. None is the model's own size where the picture is 1.5 times that or more, else the whole picture.
    upsampling: None is guided, unless there is an `upscaler`: a .safetensors file of an upsampling network.
    grain: None leaves the plate's grain to the model. overwrite: render frames again that were delivered already.
    """

    sequence: Text
    color_space: Optional[Text] = None
    bit_depth: Optional[BitDepth] = None
    compression: Optional[Text] = None
    handles: Annotated[int, within(0, 1000)] = 0
    working_size: Optional[Annotated[int, within(64, 8192)]] = None
    tile_size: Optional[Annotated[int, within(64, 8192)]] = None
    highlights: Highlights = Highlights.PRESERVE
    upsampling: Optional[Upsampling] = None
    upscaler: Optional[Text] = None
    grain: Optional[Grain] = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.upscaler is not None and self.upsampling is not None:
            raise ShotError("upscaler", f'"{self.upscaler}"',
                            f'null, because upsampling is "{self.upsampling.value}"; leave one of the two out')
