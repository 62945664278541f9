# SPDX-License-Identifier: Apache-2.0
"""A shot made ready: its files found and checked, its open choices filled in, its identity known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from fresco_backend import __version__, settings
from fresco_backend.engine.sampler import executed
from fresco_backend.engine.tiles import Tiling
from fresco_backend.files.deliveries import DeliveryWriter, Encoding
from fresco_backend.files.frame_pattern import file_type, is_movie_delivery
from fresco_backend.files.frames import FloatArray, Frame, Size, pixel_aspect
from fresco_backend.files.movie_delivery import check_movie
from fresco_backend.files.movies import MovieReader, is_movie
from fresco_backend.files.plate import PlateReader, open_plate
from fresco_backend.files.sequences import FramePattern, frames_text
from fresco_backend.models.model_files import sha256
from fresco_backend.models.model_store import Changes, Inventory, check
from fresco_backend.models.prompt_weights import check_weights
from fresco_backend.pixels import upscaler
from fresco_backend.pixels.color import SRGB, default_space, plate_space, showing_of, to_engine
from fresco_backend.pixels.color_config import ColorSpace, color_space, configuration_facts, nearly_equal
from fresco_backend.pixels.framing import inside_letterbox, neighbourhood, sampled
from fresco_backend.pixels.highlights import Showing
from fresco_backend.pixels.resolution import PIXELS_PER_LATENT, WorkingSize, fit, tile_side, tiling
from fresco_backend.render.recommendation import recommendation
from fresco_backend.render.scratch import Scratch
from fresco_backend.render.shot_matte import ShotMatte, open_matte
from fresco_protocol.errors import (
    ColorError,
    FrameSize,
    FrameUnreadable,
    OutputPattern,
    PlateMissing,
    RangeOutside,
    UsageError,
)
from fresco_protocol.frame_range import FrameRange, as_ranges
from fresco_protocol.shot import BitDepth, Control, ControlKind, Missing, Plate, Sampler, Shot, Task, with_handles

if TYPE_CHECKING:
    from fresco_backend.render.pins import Pins

HASH_DIGITS = 16  # of SHA-256, enough to name a folder
ASPECT_TOLERANCE = 0.02  # relative; a smaller control image has its size rounded


@dataclass(frozen=True, kw_only=True)
class Job:
    """A shot with everything that it reads open.

    shot: without open choices: the model's controls, strength, guidance and tiles where it named none; its paths are
    absolute.
    inventory: the model's files. plate, matte, controls: open readers; controls by the control that asked for them.
    frames: what the whole shot delivers, handles included, ascending. selected: those that are wanted now. like: the
    first frame. pins: what tells of the model where a stage needs none of it, and its files may be elsewhere.
    """

    shot: Shot
    inventory: Inventory
    plate: PlateReader
    matte: ShotMatte | None
    controls: Mapping[Control, PlateReader]
    frames: tuple[int, ...]
    selected: tuple[int, ...]
    like: Frame
    working: WorkingSize
    pins: Pins | None = None

    @property
    def strength(self) -> float:
        """How far the look goes, in [0, 1]; 0 keeps the plate. One that executes no step of the run is 0."""
        look = self.shot.look
        if look.strength is None:
            raise ValueError("the look's strength is still open; `open_job` fills it in")
        return look.strength if executed(look.steps, look.strength) else 0.0

    @property
    def space(self) -> ColorSpace:
        """The colour space of the plate: the shot's word, else the files', else that of its kind of file."""
        named = self.shot.plate.color_space
        return color_space(named) if named else plate_space(self.like)

    @property
    def showing(self) -> Showing:
        """How the plate's light is shown to the model, and what becomes of what that cannot see."""
        return showing_of(self.space, self.shot.delivery.highlights, self.shot.plate.rendering)

    @property
    def delivered_space(self) -> ColorSpace:
        """The colour space of the delivery: the shot's word, else the plate's; a file of another type has its own.

        A movie holds sRGB. Raises ColorError for a name that is unknown or does not suit a movie.
        """
        named = self.shot.delivery.color_space
        if named and self.is_movie and not nearly_equal(color_space(named), color_space(SRGB)):
            raise ColorError(f"a movie is written in sRGB, not in {named}", where=self.shot.delivery.sequence,
                             remedy="Leave the colour space of the delivery out, or deliver an image sequence.")
        if named:
            return color_space(named)
        if self.is_movie:
            return color_space(SRGB)
        written = file_type(self.shot.delivery.sequence)
        return self.space if written == self.like.file_type else default_space(written)

    @property
    def tiling(self) -> Tiling | None:
        """How the engine's picture is divided; None where it is denoised as a whole."""
        side = self.shot.delivery.tile_size
        return None if side is None else tiling(self.working, side)

    @property
    def tiles(self) -> tuple[Size, ...]:
        """The sizes in pixels of the parts of the picture that are denoised one after the other, the whole or tiles."""
        width, height = self.working.padded
        if self.tiling is None:
            return (self.working.padded,)
        whole = (height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT)
        scaled = (tile.scaled(PIXELS_PER_LATENT, PIXELS_PER_LATENT) for tile in self.tiling.tiles(whole))
        return tuple(Size(tile.width, tile.height) for tile in scaled)

    @property
    def rate(self) -> Fraction | None:
        """Frames per second: the shot's word, else the plate's, else None."""
        named = self.shot.plate.rate
        return named.fraction if named else self.plate.rate

    @property
    def sources(self) -> tuple[Path, ...]:
        """Every file of the plate, the matte and the controls, so that none is written."""
        return tuple(path for reader in self.readers for path in reader.files)

    @property
    def readers(self) -> tuple[PlateReader, ...]:
        """The plate, the matte and the controls, as far as there are any."""
        return (self.plate, *([self.matte.reader] if self.matte else []), *self.controls.values())

    @property
    def is_movie(self) -> bool:
        """Whether the delivery is a movie file."""
        return is_movie_delivery(self.shot.delivery.sequence)

    @cached_property
    def identity(self) -> str:
        """Hexadecimal hash of all that the pixels depend on; a frame that carries another one is rendered again."""
        document = _without_folders(json.loads(self.shot.to_json()))
        del document["name"], document["delivery"]["overwrite"], document["delivery"]["sequence"]
        facts = {
            "shot": document, "color": configuration_facts(), "frames": self.frames, "files": _file_facts(self),
            "weights": self.weights, "configurations": self.configurations, "upscaler": self.upscaler,
        }  # fmt: skip
        text = json.dumps({"version": __version__, **facts}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]

    @cached_property
    def weights(self) -> dict[str, str]:
        """SHA-256 in hexadecimal of each weight file, by "component/file name"."""
        if self.pins is not None:
            return dict(self.pins.weights)
        return {name: digest for part in self.inventory.all_components for name, digest in part.hashes().items()}

    @cached_property
    def upscaler(self) -> str | None:
        """SHA-256 in hexadecimal of the file of the learned upsampler; None where there is none."""
        named = self.shot.delivery.upscaler
        return None if named is None else sha256(Path(named))

    @cached_property
    def configurations(self) -> dict[str, str]:
        """SHA-256 of the files beside the weights that decide what these mean: schedule, tokenizer, shapes."""
        return dict(self.pins.configurations) if self.pins is not None else _configurations(self.inventory)

    @cached_property
    def scratch(self) -> Scratch:
        """Where unfinished work lies; see `settings.shot_scratch`."""
        return Scratch(settings.shot_scratch(Path(self.shot.delivery.sequence).parent) / self.identity)

    def matte_at(self, number: int) -> FloatArray:
        """The matte of a frame, (H, W) float32, 1 = stylise; ones when the shot has none. Raises MatteError."""
        if self.matte is None:
            return np.ones((self.plate.size.height, self.plate.size.width), np.float32)
        if number in self.matte.missing:
            self.matte.propagate(self._picture, self.scratch.folder)
        return self.matte.at(number)

    def _picture(self, number: int) -> Tensor:
        """All of a frame as the engine would see it, (3, H, W) in [-1, 1] at the plate's size."""
        return to_engine(self.plate.read(number), self.space, self.showing)

    def writer(self) -> DeliveryWriter:
        """The writer of single frames, checked: the delivery itself, or the pictures that a movie is made of.

        Raises OutputError when the delivery cannot be written as asked, UsageError for a movie whose rate is unknown.
        """
        path, delivery = self.shot.delivery.sequence, self.shot.delivery
        if not self.is_movie:
            encoding = Encoding(bit_depth=delivery.bit_depth, compression=delivery.compression)
            return DeliveryWriter(path, self.frames, like=self.like, sources=self.sources, encoding=encoding)
        if self.rate is None:
            raise UsageError("the plate does not state its frame rate, and a movie needs one", where="plate.rate",
                             remedy="Give it, for example --rate 24")
        if delivery.compression or delivery.bit_depth not in (None, BitDepth.UINT8):
            raise OutputPattern("a movie is written as H.264 of 8 bits, and takes no bit depth and no compression",
                                where=path, remedy="Leave both out, or deliver an image sequence.")
        check_movie(Path(path), self.sources)
        pictures = self.scratch.folder / "picture.######.png"
        return DeliveryWriter(pictures, self.frames, like=opaque(self.like), sources=self.sources)

    def close(self) -> None:
        """Close all readers."""
        for reader in self.readers:
            reader.close()


def opaque(frame: Frame) -> Frame:
    """The frame over black and without extra channels, as a movie holds it."""
    pixels = frame.pixels if frame.alpha is None or frame.associated else frame.pixels * frame.alpha[..., None]
    return replace(frame, pixels=pixels, alpha=None, associated=True, extra=(), parts=())


def open_job(
    shot: Shot, *, selection: Sequence[int] | None = None, allow_download: bool = False, pins: Pins | None = None
) -> Job:
    """Make a shot ready. selection: the frames wanted now; None is all. pins: of a shot without open choices, in place
    of its model, which is then not looked for.

    The model is checked before any frame is read. Raises the WeightsError, InputError, OutputError, ColorError or
    UsageError that stands in the way.
    """
    shot = shot.located(str(Path.cwd()))
    if pins is None:
        shot, inventory = _decided(shot, offline=not allow_download)
    else:
        inventory = pins.inventory(shot.look.model)
    inventory.require()
    if shot.delivery.upscaler is not None:
        upscaler.require(shot.delivery.upscaler)
    with ExitStack() as opened:
        plate = opened.enter_context(closing(open_plate(
            shot.plate.sequence, _wanted(shot), shot.plate.missing, shot.plate.layer)))
        matte = None if shot.matte is None else open_matte(shot.matte, plate)
        if matte is not None:
            opened.enter_context(closing(matte.reader))
        controls = _controls(shot, plate, opened)
        short_side = shot.delivery.working_size or recommendation(inventory).working_size
        working = _working(shot, plate, matte, short_side)
        if pins is None and shot.delivery.tile_size is None:
            tile_size = tile_side(working, recommendation(inventory).working_size)
            shot = replace(shot, delivery=replace(shot.delivery, tile_size=tile_size))
        job = Job(
            shot=shot, inventory=inventory, plate=plate, matte=matte, controls=controls,
            frames=plate.numbers, selected=_selected(plate.numbers, selection), like=plate.read(plate.numbers[0]),
            working=working, pins=pins,
        )  # fmt: skip
        _ = job.space, job.delivered_space  # an unknown name shall stop the job here
        opened.pop_all()
    return job


def _decided(shot: Shot, *, offline: bool) -> tuple[Shot, Inventory]:
    """The shot with the model's recommendations in place of None, and the inventory of what it then needs."""
    look = shot.look
    check_weights(look)
    advice = recommendation(check(look.model, offline=offline))
    controls, edits = look.controls, shot.task is Task.EDIT
    if controls is None:
        kind = advice.edit_control if edits else advice.control
        controls = () if kind is None else (Control(kind=kind),)
    guidance = look.guidance
    if guidance is None:
        guidance = advice.edit_guidance if edits else advice.guidance_of(look.sampler)
    if guidance == 0:  # so the cards of distilled models say that there is none; by its formula it would be no prompt
        guidance = 1.0
    strength = (advice.edit_strength if edits else advice.strength) if look.strength is None else look.strength
    # An edit goes the way back that its inversion came.
    sampler = Sampler.DDIM if edits else look.sampler
    shot = replace(shot, look=replace(
        look, controls=controls, guidance=guidance, strength=strength, sampler=sampler))
    return shot, check(look.model, controls=controls, changes=Changes.of(look), offline=offline)


def _wanted(shot: Shot) -> tuple[int, ...] | None:
    """The frame numbers with handles, as far as the plate goes; None is the whole plate.

    A hole before the last handle that is there is one of the plate, and treated as that.
    """
    ranges = shot.plate.frames or (_own_ranges(shot.plate) if shot.delivery.handles else None)
    if not ranges:
        return None
    head, wanted, tail = with_handles(ranges, shot.delivery.handles)
    there = set(_existing(shot.plate)) if shot.delivery.handles else set()
    while head and head[0] not in there:
        head = head[1:]
    while tail and tail[-1] not in there:
        tail = tail[:-1]
    return (*head, *wanted, *tail)


def _own_ranges(plate: Plate) -> tuple[FrameRange, ...]:
    """The frames that the name of a plate asks for, as "plate.1001-1048####.exr" does; none where it names no range."""
    if is_movie(plate.sequence):
        return ()
    pattern = FramePattern.parse(plate.sequence)
    return () if pattern.padding is None else as_ranges(pattern.frames)


def _existing(plate: Plate) -> Iterable[int]:
    if not is_movie(plate.sequence):
        return FramePattern.parse(plate.sequence).on_disk()
    reader = MovieReader(Path(plate.sequence))
    reader.close()
    return reader.numbers


def _selected(frames: tuple[int, ...], selection: Sequence[int] | None) -> tuple[int, ...]:
    if selection is None:
        return frames
    outside = sorted(set(selection) - set(frames))
    if outside:
        raise RangeOutside(f"the shot has no frames {frames_text(outside)}", where=f"it has {frames_text(frames)}",
                           remedy="Select frames of the shot's own range.")
    return tuple(sorted(set(selection)))


def _working(shot: Shot, plate: PlateReader, matte: ShotMatte | None, short_side: int) -> WorkingSize:
    """The part of the plate that is rendered, and the size that it is rendered at."""
    some = list(_readable(plate, sampled(plate.numbers)))
    region = inside_letterbox([frame.pixels for frame in some])
    if matte is not None and matte.matte.crop and not matte.missing:
        region = neighbourhood((matte.at(number) for number in plate.numbers), region)
    return fit(plate.size, short_side, region=region, pixel_aspect=pixel_aspect(some[0]))


def _readable(plate: PlateReader, numbers: Iterable[int]) -> Iterator[Frame]:
    """Those of the frames that can be read; a damaged one stops the render when its turn comes, and costs no other."""
    for number in numbers:
        if number == plate.numbers[0]:
            yield plate.read(number)
        else:
            with suppress(FrameUnreadable):
                yield plate.read(number)


def _control_images(sequence: str, numbers: Sequence[int]) -> PlateReader:
    try:
        return open_plate(sequence, numbers, Missing.ERROR)
    except PlateMissing as error:
        raise PlateMissing("the control images are missing", where=error.where, remedy=error.remedy) from error


def _controls(shot: Shot, plate: PlateReader, opened: ExitStack) -> dict[Control, PlateReader]:
    readers = {
        control: opened.enter_context(closing(_control_images(control.sequence, plate.numbers)))
        for control in shot.look.controls or ()
        if control.kind is ControlKind.SEQUENCE and control.sequence is not None
    }
    for control, reader in readers.items():
        if not _same_aspect(reader.size, plate.size):
            raise FrameSize(f"the control images are {reader.size}, and the plate is {plate.size}",
                            where=control.sequence, remedy="Render them with the aspect of the plate, at any size.")
    return readers


def _same_aspect(size: Size, other: Size) -> bool:
    return abs(size.width * other.height / (size.height * other.width) - 1) <= ASPECT_TOLERANCE


def _without_folders(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the names of its files alone: machines see one disk under several paths."""
    look, matte = document["look"], document["matte"]
    paths = [(document["plate"], "sequence"), (look, "model"), (look, "vae"), (document["delivery"], "upscaler"),
             *((lora, "model") for lora in look["loras"]), *([(matte, "sequence")] if matte else []),
             *((control, key) for control in look["controls"] or () for key in ("sequence", "model", "detector"))]
    for noun, key in paths:
        if noun[key]:
            noun[key] = Path(noun[key]).name
    return document


def _file_facts(job: Job) -> list[tuple[str, int, int]]:
    """Name, size and time of change of every file that is read for the job's frames; others may come and go.

    The time in microseconds: of one disk, a share of Windows' gives tenths of them, and NFS thousandths.
    """
    paths = dict.fromkeys(
        reader.source(number) for reader in job.readers for number in job.frames if number in reader.numbers)
    status = [(path.name, path.stat()) for path in (*paths, *(job.matte.outside if job.matte else ()))]
    return [(name, facts.st_size, facts.st_mtime_ns // 1000) for name, facts in status]


def _configurations(inventory: Inventory) -> dict[str, str]:
    folders = dict.fromkeys(part.place for part in inventory.all_components if part.place.is_dir())
    return {
        f"{folder.name}/{path.name}": sha256(path)
        for folder in folders for path in sorted(folder.iterdir()) if path.suffix in (".json", ".txt")
    }  # fmt: skip
