# SPDX-License-Identifier: Apache-2.0
"""The options of `fresco render` about the matte, and about how true the delivery is to the plate's pixels."""
from __future__ import annotations

from typing import Any

from fresco_backend.arguments.option import add_option, values
from fresco_protocol.shot import Grain, Highlights, Rendering, Upsampling


def add_matte(group: Any) -> None:
    """Gives a command the options of a matte."""
    add_option(group, "--matte", "matte.sequence", "where the look applies: white stylises, black keeps the plate",
               metavar="SEQ")
    add_option(group, "--matte-channel", "matte.channel", "a channel, a layer, or an object of a Cryptomatte (default: "
               "alpha, else the first channel)", metavar="NAME")
    add_option(group, "--matte-invert", "matte.invert", "black stylises, white keeps the plate", action="store_true")
    add_option(group, "--matte-grow", "matte.grow", "pixels by which the matte is widened, below 0 narrowed",
               metavar="PIXELS", type=int)
    add_option(group, "--matte-feather", "matte.feather", "pixels over which the matte's edge is softened",
               metavar="PIXELS", type=float)
    add_option(group, "--matte-propagate", "matte.propagate", "frames without a matte get one from those that have one "
               "along the motion of the plate", action="store_true")
    add_option(group, "--no-matte-crop", "matte.crop", "render the whole picture, however small the matte",
               action="store_const", const=False)


def add_rendering(group: Any) -> None:
    """Gives a command the option of how scene light is looked at."""
    add_option(group, "--rendering", "plate.rendering", "how scene light becomes the picture that a model sees "
               "(default: srgb for linear Rec. 709, aces-2.0 for others)", choices=values(Rendering))


def add_layer(group: Any) -> None:
    """Gives a command the option of which picture of a plate is meant."""
    add_option(group, "--layer", "plate.layer", "of a plate with several pictures the one to stylise: a layer, a part "
               "or a view, by its name (default: R, G and B of no layer, of the first view)", metavar="NAME")


def add_pixels(group: Any) -> None:
    """Gives a command the options of what becomes of the plate's pixels."""
    add_option(group, "--highlights", "delivery.highlights", "light that is brighter than a display: the plate's own, "
               "what the model makes of it on a log curve, or what a display would show", choices=values(Highlights))
    add_option(group, "--grain", "delivery.grain", "take the plate's grain off before the model sees it, and after put "
               "it back, make new grain like it, or leave it out (default: the grain is left to the model)",
               choices=values(Grain))
    add_option(group, "--upsampling", "delivery.upsampling", "how the model's picture comes to the plate's resolution "
               "(default: guided)", choices=values(Upsampling))
    add_option(group, "--upscaler", "delivery.upscaler", "a .safetensors file of an upsampling network (ESRGAN, SwinIR "
               'and others) that does it instead; needs: pip install "fresco-post[upscale]"', metavar="FILE")
