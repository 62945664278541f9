# SPDX-License-Identifier: Apache-2.0
"""A delivery with its plate, open for looking: found by its record, read as a display shows it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fresco_backend.arguments.shot_arguments import shot_of_file
from fresco_backend.files.canvas import cut, placed
from fresco_backend.files.frame_pattern import FramePattern, file_type, is_movie_delivery
from fresco_backend.files.frames import Frame, Size, Window, data_window, pixel_aspect
from fresco_backend.files.plate import PlateReader, open_plate
from fresco_backend.pixels.color import SRGB, default_space, plate_space, showing_of, to_engine
from fresco_backend.pixels.color_config import ColorSpace, color_space
from fresco_backend.pixels.resolution import resized
from fresco_backend.render import record
from fresco_backend.render.shot_matte import ShotMatte, open_matte
from fresco_backend.render.still import stills_of
from fresco_backend.terminal.plan_text import path_text
from fresco_protocol.errors import FrameGap, InputError, MatteError, PlateMissing
from fresco_protocol.shot import Shot, frame_numbers, parse_frames


@dataclass(frozen=True, kw_only=True)
class DeliveredShot:
    """One delivery. document: its record. numbers: the frames of the plate that were delivered, ascending."""

    document: dict[str, Any]
    shot: Shot
    plate: PlateReader
    result: PlateReader
    matte: ShotMatte | None
    numbers: tuple[int, ...]

    @property
    def name(self) -> str:
        """What people call it."""
        return self.shot.name or Path(self.shot.delivery.sequence).name

    @property
    def keyframes(self) -> frozenset[int]:
        """The frames that were denoised themselves."""
        return frozenset(self.document["measures"]["keyframes"])

    @property
    def size(self) -> Size:
        """The size of what the delivery shows of the plate, in the delivery's pixels."""
        return self._view.size

    @cached_property
    def shape(self) -> Size:
        """The size with square pixels, as people see it: wider than its pixels are many where a lens has squeezed."""
        return Size(round(self.size.width * pixel_aspect(self.plate.read(self.numbers[0]))), self.size.height)

    def plate_image(self, number: int, size: Size) -> Tensor:
        """A frame of the plate as a display shows it: (3, H, W) in [-1, 1]."""
        return _shown(self._viewed(number), self._space, self.shot, size)

    def result_image(self, number: int, size: Size) -> Tensor:
        """The delivered frame as a display shows it: (3, H, W) in [-1, 1]. Raises FrameUnreadable."""
        at = number if self.result.numbers == self.numbers else self.result.numbers[self.numbers.index(number)]
        return _shown(self.result.read(at), self._delivered_space, self.shot, size)

    def matte_image(self, number: int, size: Size) -> Tensor | None:
        """The matte of a frame, (1, H, W) in [0, 1]; None without one."""
        if self.matte is None:
            return None
        if number in self.matte.missing:
            self.matte.propagate(lambda place: _seen(self.plate.read(place), self._space, self.shot))
        matte = placed(self.matte.at(number), self.plate.window, self._view)
        return resized(torch.from_numpy(matte)[None, None], size)[0]

    def close(self) -> None:
        """Let go of open files."""
        for reader in (self.plate, self.result, *([self.matte.reader] if self.matte else [])):
            reader.close()

    def _viewed(self, number: int) -> Frame:
        """The plate as far as the delivery shows it: without overscan where its type of file holds none."""
        path = self.shot.delivery.sequence
        return cut(replace(self.plate.read(number), own=None), "png" if is_movie_delivery(path) else file_type(path))

    @cached_property
    def _view(self) -> Window:
        return data_window(self._viewed(self.numbers[0]).metadata)

    @cached_property
    def _space(self) -> ColorSpace:
        named = self.shot.plate.color_space
        return color_space(named) if named else plate_space(self.plate.read(self.numbers[0]))

    @cached_property
    def _delivered_space(self) -> ColorSpace:
        path, named = self.shot.delivery.sequence, self.shot.delivery.color_space
        if named:
            return color_space(named)
        if is_movie_delivery(path):
            return color_space(SRGB)
        written = file_type(path)
        return self._space if written == self.plate.read(self.numbers[0]).file_type else default_space(written)


def open_delivered(target: str, plate_sequence: str | None = None) -> DeliveredShot:
    """The delivery of a shot document, of a delivery's own path or pattern, or of a record.

    plate_sequence: where the plate lies on this machine, when the record was written on another one. Raises InputError
    when no record is there or it cannot be read, PlateMissing and FrameGap for missing pictures.
    """
    document = _read(target)
    shot = _here(Shot.from_json(json.dumps(document["shot"])), target)
    if plate_sequence is not None:
        shot = replace(shot, plate=replace(shot.plate, sequence=plate_sequence))
    numbers = frame_numbers(parse_frames(document["frames"]))
    whole = is_movie_delivery(shot.delivery.sequence) or FramePattern.parse(shot.delivery.sequence).padding is None
    with ExitStack() as opened:
        try:
            plate = opened.enter_context(closing(open_plate(
                shot.plate.sequence, numbers, shot.plate.missing, shot.plate.layer)))
        except PlateMissing as error:
            raise PlateMissing(error.what, where=error.where, remedy="Was it rendered on another machine? Then say "
                               "where the plate lies on this one: --plate PLATE") from error
        layer = shot.plate.layer if shot.delivery.sequence.lower().endswith(".exr") else None  # others hold one picture
        try:
            result = opened.enter_context(closing(open_plate(
                shot.delivery.sequence, None if whole else numbers, layer=layer)))
        except (PlateMissing, FrameGap) as error:  # their words are those of a plate
            missing = f": {error.what}" if isinstance(error, FrameGap) else ""
            raise InputError(f"the delivery is not there as its record tells{missing}", where=error.where,
                             remedy="Render the shot again: what is there is kept.") from error
        try:
            matte = None if shot.matte is None else open_matte(shot.matte, plate)
        except MatteError as error:
            raise MatteError(error.what, where=error.where, remedy="Was it rendered on another machine? Then name a "
                             "shot document that says where plate and matte lie on this one.") from error
        if len(result.numbers) != len(numbers):
            raise InputError(f"the movie has {len(result.numbers)} frames, and its record tells of {len(numbers)}",
                             where=shot.delivery.sequence, remedy="Render the shot again.")
        opened.pop_all()
    return DeliveredShot(document=document, shot=shot, plate=plate, result=result, matte=matte, numbers=numbers)


def _here(shot: Shot, target: str) -> Shot:
    """The shot of a record, maybe from elsewhere, with paths of this machine as far as the target names them."""
    if target.endswith(".fresco.json"):
        named = re.split(r"[\\/]", shot.delivery.sequence)[-1]  # of any system; a record lies beside its delivery
        return replace(shot, delivery=replace(shot.delivery, sequence=str(Path(target).absolute().with_name(named))))
    if not target.endswith(".json"):
        return replace(shot, delivery=replace(shot.delivery, sequence=str(Path(target).absolute())))
    named = shot_of_file(Path(target))
    matte = shot.matte if shot.matte is None or named.matte is None else replace(
        shot.matte, sequence=named.matte.sequence)  # fmt: skip
    return replace(shot, plate=replace(shot.plate, sequence=named.plate.sequence), matte=matte,
                   delivery=replace(shot.delivery, sequence=named.delivery.sequence))


def _read(target: str) -> dict[str, Any]:
    """The record that a target leads to."""
    if target.endswith(".fresco.json"):
        path, stills = Path(target), []
    else:
        delivery = shot_of_file(Path(target)).delivery.sequence if target.endswith(".json") else target
        path, stills = record.path_of(delivery), stills_of(delivery)
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise _unrecorded(target, path, stills) from error
    except (OSError, ValueError) as error:
        raise InputError(f"the record cannot be read: {error}", where=path, remedy="Render the shot again.") from error
    if not isinstance(document, dict) or not {"shot", "frames", "measures"} <= document.keys():
        raise InputError("this JSON file is no record of a delivery", where=path,
                         remedy="Name the delivery, its shot document, or its .fresco.json")
    return document


def _unrecorded(target: str, path: Path, stills: list[Path]) -> InputError:
    """What to say where a delivery, or only its record, is not there."""
    name = Path(target).name
    folder = Path(target) if Path(target).is_dir() else Path(target).parent
    for delivery in _deliveries(folder):
        named = f'fresco report "{path_text(str(folder / delivery))}"'
        if Path(target).is_dir():
            return InputError(f"{target} is a folder", where=folder, remedy=f"Name the delivery in it: {named}")
        if FramePattern.parse(folder / delivery).has(name):
            return InputError(f"{target} is one frame of a delivery", where=folder, remedy=f"Name all of it: {named}")
    documents = [] if Path(target).exists() else [found.name for found in folder.glob("*.json")]
    if meant := difflib.get_close_matches(name, documents, n=1):
        return InputError(f"{target} has no record of how it was made", where=path,
                          remedy=f"Did you mean {meant[0]}? Else render the shot to its end: that writes the record.")
    if stills:
        return InputError(f"only stills of {target} were rendered so far", where=path.parent,
                          remedy=f"Render the shot; or look at a still: fresco report {path_text(str(stills[-1]))}")
    return InputError(f"{target} has no record of how it was made", where=path,
                      remedy="Render the shot to its end; the record is written with the last frame.")


def _deliveries(folder: Path) -> Iterator[str]:
    """The names of what was delivered into a folder, by the records there."""
    for path in sorted(folder.glob("*.fresco.json")):
        with suppress(OSError, ValueError, LookupError, TypeError):
            yield re.split(r"[\\/]", json.loads(path.read_bytes())["shot"]["delivery"]["sequence"])[-1]


def _shown(frame: Frame, space: ColorSpace, shot: Shot, size: Size) -> Tensor:
    return resized(_seen(frame, space, shot)[None], size)[0]


def _seen(frame: Frame, space: ColorSpace, shot: Shot) -> Tensor:
    return to_engine(frame, space, showing_of(space, shot.delivery.highlights, shot.plate.rendering))
