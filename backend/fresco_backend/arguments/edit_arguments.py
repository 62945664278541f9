# SPDX-License-Identifier: Apache-2.0
"""The options of an edit, and of how frames come about."""
from __future__ import annotations

import argparse
from typing import Any

from fresco_backend.arguments.option import add_option, values
from fresco_protocol.shot import Synthesis


def add_editing(command: argparse.ArgumentParser) -> None:
    """Gives a command the options that say how an edit holds on to its plate."""
    group = command.add_argument_group("editing by inversion (fresco edit, or a document whose task is edit)")
    add_option(group, "--caption", "editing.caption", "what the plate shows: it is inverted with these words, "
               "for propagation of features too; an edit without a negative prompt leads away from them",
               metavar="TEXT")
    add_option(group, "--inversion-steps", "editing.inversion_steps", "of the plate's way to noise, which is kept "
               "beside the delivery in .fresco for every later edit", metavar="N", type=int)
    add_option(group, "--hold-attention", "editing.attention", "part of the steps in which queries and keys are the "
               "plate's: less lets shapes change", metavar="0-1", type=float)
    add_option(group, "--hold-convolution", "editing.convolution", "likewise, residual features", metavar="0-1",
               type=float)


def add_synthesis(group: Any) -> None:
    """Adds the options that say how the frames come about."""
    add_option(group, "--synthesis", "keyframing.synthesis", "in-betweens: along the motion from keyframes. features: "
               "all by the model, from keyframes that take turns. mixed: keyframes so, in-betweens between them. "
               "every-frame: all are keyframes", choices=values(Synthesis))
    add_option(group, "--rotation", "keyframing.rotation", "groups of keyframes that take turns where features are "
               "propagated", metavar="N", type=int)
