# SPDX-License-Identifier: Apache-2.0
"""One frame of a shot, to judge its look before the whole is rendered; what the hosts call a test frame or a still."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath

from fresco_backend.frame_pattern import FRAME_FIELD, frames_text
from fresco_backend.movies import is_movie
from fresco_protocol.errors import RangeOutside
from fresco_protocol.shot import FrameRange, Shot, Synthesis, frame_numbers

NOTE = "a still shows the look; in the shot the frame's neighbours have their say, and its detail differs"


def still(shot: Shot, number: int) -> Shot:
    """The shot of this frame alone: its only keyframe, in a window of its own, delivered beside the shot's frames.

    Look, seed and noise of the frame are the shot's. What the shot's other frames contribute is not there: attention
    across frames, the flow, the letterbox and the crop that all frames agree on, the scale of their depth. A matte that
    is propagated comes along the plate from the nearest ones that are drawn. Raises RangeOutside.
    """
    frames = shot.plate.frames
    if frames is not None and number not in frame_numbers(frames):
        has = frames_text(frame_numbers(frames))
        raise RangeOutside(f"the shot has no frame {number}", where=f"it has {has}",
                           remedy="Take the still from the shot's own range")
    delivery = replace(shot.delivery, sequence=still_path(shot.delivery.sequence), handles=0)
    if is_movie(shot.delivery.sequence):
        delivery = replace(delivery, bit_depth=None, compression=None)  # a codec's own
    return replace(
        shot, plate=replace(shot.plate, frames=(FrameRange(first=number, last=number),)), delivery=delivery,
        keyframing=replace(shot.keyframing, frames=None, synthesis=Synthesis.IN_BETWEENS),
    )  # fmt: skip


def still_path(delivery: str) -> str:
    """Where stills of a delivery lie: "out/look.####.exr" -> "out/look.still.####.exr"; of a movie as PNG."""
    path = PurePath(delivery)
    before, number, after = path.stem, "####", ""
    for field in FRAME_FIELD.finditer(path.stem):  # the last is meant
        before, number, after = path.stem[: field.start()], field[1], path.stem[field.end() :]
    name = ".".join(filter(None, [before, "still", number])) + after
    return str(path.with_name(name + (".png" if is_movie(delivery) else path.suffix)))
