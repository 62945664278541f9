# SPDX-License-Identifier: Apache-2.0
"""One frame of a shot, to judge its look before the whole is rendered; what the hosts call a test frame or a still."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePath

from fresco_backend.files.frame_pattern import FRAME_FIELD, digits_of, frames_text
from fresco_backend.files.movies import is_movie
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
                           remedy="Take the still from the shot's own range.")
    delivery = replace(shot.delivery, sequence=still_path(shot.delivery.sequence, number), handles=0)
    if is_movie(shot.delivery.sequence):
        delivery = replace(delivery, bit_depth=None, compression=None)  # a codec's own
    return replace(
        shot, plate=replace(shot.plate, frames=(FrameRange(first=number, last=number),)), delivery=delivery,
        keyframing=replace(shot.keyframing, frames=None, synthesis=Synthesis.IN_BETWEENS),
    )  # fmt: skip


def still_path(delivery: str, number: int) -> str:
    """The file of a still of a delivery: "out/look.####.exr" -> "out/look.still.1012.exr"; of a movie as PNG.

    The number stands in the name itself, so that each still has a record and a report of its own.
    """
    before, digits, after = _name(delivery)
    return str(PurePath(delivery).with_name(f"{before}{str(number).zfill(digits)}{after}"))


def stills_of(delivery: str) -> list[Path]:
    """The stills of a delivery that are there with their records, by name."""
    before, _, after = _name(delivery)
    name = re.compile(f"{re.escape(before)}-?[0-9]+{re.escape(after)}")
    found = Path(delivery).parent.glob("*.fresco.json")
    return sorted(path.with_suffix("").with_suffix("") for path in found
                  if name.fullmatch(path.name.removesuffix(".fresco.json")))


def _name(delivery: str) -> tuple[str, int, str]:
    """The name of a delivery's stills: what stands before the number, how many digits it has, what stands behind."""
    path = PurePath(delivery)
    before, mark, after = path.stem, "####", ""
    for field in FRAME_FIELD.finditer(path.stem):  # the last is meant
        before, mark, after = path.stem[: field.start()], field[1], path.stem[field.end() :]
    before = FRAME_FIELD.sub("", before)  # else a mark that is left would take the number
    suffix = ".png" if is_movie(delivery) else path.suffix
    return f"{before}.still." if before else "still.", digits_of(mark), after + suffix
