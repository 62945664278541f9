# SPDX-License-Identifier: Apache-2.0
"""One frame of a plate, and how it is read from an image file (through OpenImageIO).

Pixels keep the meaning that the file gives them: nothing here converts colour, multiplies by alpha or changes
a number. Colour samples are float32, which holds uint8, uint16, half and float exactly, so that a frame that is
read and written again is the same frame. Everything that is not colour (depth, ids, motion, other parts) rides along.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import OpenImageIO as oiio  # noqa: N813, the name in its own manual
from numpy.typing import NDArray

from fresco_backend.files.image_files import guarded, opened, parts, strips, unreadable
from fresco_backend.files.layers import Picture, picture
from fresco_protocol.errors import InputError
from fresco_protocol.shot import BitDepth

FloatArray = NDArray[np.float32]

HALF_MAX = 65504.0
JOB_HASH = "fresco:job_hash"

# Passed on to the same kind of file these do harm: the ACES flag makes OpenEXR refuse every compression, and the
# others describe the layout of one file on disk, which the writer decides for its own.
_NEVER_PASSED_ON = ("acesImageContainerFlag", "openexr:chunkCount", "oiio:subimages", "oiio:RowsPerChunk",
                    "oiio:subimagename", "name", "thumbnail_image", JOB_HASH)
# True only of the kind of file that they were read from.
_ONLY_IN_SAME_FILE_TYPE = ("compression", "planarconfig", "oiio:BitsPerSample", "oiio:UnassociatedAlpha")
# What says the colour space of a file, each type in its own way; true of no other type, and of no other space.
_COLOUR = re.compile(r"oiio:ColorSpace|oiio:Gamma|ICCProfile(:.*)?|chromaticities|colorInteropID|CICP"
                     r"|dpx:(Transfer|Colorimetric)", re.IGNORECASE)

# The EXR attribute `chromaticities` (red, green, blue, white; x, y each) of spaces that are stated by it.
CHROMATICITIES = {
    "lin_rec709_scene": (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290),
    "lin_rec2020_scene": (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290),
    "lin_p3d65_scene": (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.3127, 0.3290),
    "lin_ap1_scene": (0.713, 0.293, 0.165, 0.830, 0.128, 0.044, 0.32168, 0.33767),
    "lin_ap0_scene": (0.7347, 0.2653, 0.0, 1.0, 0.0001, -0.077, 0.32168, 0.33767),
}


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


class Window(NamedTuple):
    """A rectangle of the pixel plane, as EXR has them: its left upper corner and its extent."""

    x: int
    y: int
    width: int
    height: int

    @property
    def size(self) -> Size:
        """Width and height."""
        return Size(self.width, self.height)

    def holds(self, other: Window) -> bool:
        """Whether the other one lies inside."""
        return (self.x <= other.x and other.x + other.width <= self.x + self.width
                and self.y <= other.y and other.y + other.height <= self.y + self.height)


def data_window(spec: oiio.ImageSpec) -> Window:
    """Where the pixels of a file lie."""
    return Window(spec.x, spec.y, spec.width, spec.height)


def display_window(spec: oiio.ImageSpec) -> Window:
    """Where the picture lies that is meant to be seen; overscan lies outside of it."""
    return Window(spec.full_x, spec.full_y, spec.full_width, spec.full_height)


def pixel_aspect(frame: Frame) -> float:
    """The width of a pixel over its height; 1 where the file says nothing, or nothing that a camera could have made."""
    stated = frame.metadata.get_float_attribute("PixelAspectRatio", 1.0)
    return stated if 0.25 <= stated <= 4 else 1.0


def orientation(frame: Frame) -> int:
    """How viewers turn a picture before they show it, by the tag Orientation of TIFF 6.0 and Exif: 1 is not at all.

    Of EXR it is 1: there the tag is a guest that neither viewers nor editing programs look at.
    """
    stated = frame.metadata.get_int_attribute("Orientation", 1)
    return stated if 1 < stated <= 8 and frame.file_type != "openexr" else 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Channels:
    """Everything in an image file by its name, each (H, W), whether it is a picture or not.

    metadata: the header; of a file of several parts with the Cryptomatte attributes of all.
    """

    by_name: Mapping[str, FloatArray]
    metadata: oiio.ImageSpec


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A part of a file that is not the picture; it passes through as it is. samples: (H, W, C) float32 or uint32."""

    metadata: oiio.ImageSpec
    samples: FloatArray | NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True, eq=False)
class ExtraChannel:
    """A channel that is neither colour nor alpha; it is never resized and never seen by a model.

    samples: (H, W) float32, which holds half and float bit for bit. format: how the file stores it.
    """

    name: str
    samples: FloatArray
    format: BitDepth


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One picture as its file holds it.

    pixels: (H, W, C) float32 with C 1 (grey) or 3 (red, green, blue), over the data window of the file.
    channels: the C names in the file. alpha: (H, W) float32 or None, stored as `alpha_name`.
    associated: the colour is already multiplied by alpha. extra: every other channel.
    format: how the file stores colour and alpha. file_type: "openexr", "png" and so on (OpenImageIO's names), or
    "movie". metadata: the header of the file: windows, attributes, order of channels.
    parts: the other parts of the file, in their order; the picture stands before the one numbered `place`.
    own: the data window of the file, where the pixels are those of the whole plate's; None: they are the file's.
    declared: the colour space that its file shall state; None: what the header states.
    """

    pixels: FloatArray
    channels: tuple[str, ...]
    alpha: FloatArray | None = None
    alpha_name: str = "A"
    associated: bool = True
    extra: tuple[ExtraChannel, ...] = ()
    format: BitDepth
    file_type: str
    metadata: oiio.ImageSpec
    parts: tuple[Part, ...] = ()
    place: int = 0
    own: Window | None = None
    declared: str | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[2] not in (1, 3) or self.pixels.shape[2] != len(self.channels):
            raise ValueError(f"pixels of shape {self.pixels.shape} for the channels {self.channels}")

    @property
    def size(self) -> Size:
        """Width and height of the pixels."""
        return Size(self.pixels.shape[1], self.pixels.shape[0])


class Cleaned(NamedTuple):
    """Samples without NaN and infinity, and how many were replaced."""

    samples: FloatArray
    replaced: int


def cleaned(samples: FloatArray) -> Cleaned:
    """`samples` with NaN as 0 and infinities as +-65504, and the number of samples that were replaced.

    A NaN has no value to keep; an infinity is brightness beyond the format, so it becomes the largest half. This is
    what a model sees and what is delivered: no colour or alpha that Fresco writes is NaN or infinite, because one such
    sample spreads over the picture in the first blur of a comp, and the lossy codecs of EXR turn it into dark specks.
    Other channels and parts keep every bit: an infinite depth means the sky, and a NaN may be an id.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(samples.sum()):  # one pass for the usual frame: what is not finite makes the sum so
            return Cleaned(samples, 0)
    broken = int(samples.size - np.count_nonzero(np.isfinite(samples)))
    if not broken:
        return Cleaned(samples, 0)
    return Cleaned(np.nan_to_num(samples, nan=0.0, posinf=HALF_MAX, neginf=-HALF_MAX), broken)


def as_rgb(pixels: FloatArray) -> FloatArray:
    """(H, W, 3) of a picture with one channel or three."""
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def read_header(path: Path, layer: str | None = None) -> oiio.ImageSpec:
    """The header of the picture in an image file: size, windows, channels, attributes; of its first part where it
    holds no picture, as a matte. layer: see `layers.picture`. Raises FrameUnreadable.
    """
    image = opened(path)
    try:
        headers = list(parts(image, path))
    finally:
        image.close()
    with suppress(InputError):
        return headers[picture(headers, layer, path).place]
    return headers[0]


def read_frame(path: Path, layer: str | None = None) -> Frame:
    """The frame in an image file, every channel, part and attribute of it. layer: see `layers.picture`.

    Raises FrameUnreadable for a file that is damaged, deep, without colour, or that holds channels which could not be
    written again unharmed; InputError when it lacks the layer, or several layers of it could be meant.
    """
    image = opened(path)
    try:
        headers = list(parts(image, path))
        kinds = [_require_plain(header, path) for header in headers]
        meant = picture(headers, layer, path)
        others: list[Part] = []
        for place, (header, kind) in enumerate(zip(parts(image, path), kinds, strict=True)):
            if place == meant.place:
                frame = _picture(image, header, path, meant)
            else:
                others.append(Part(metadata=header, samples=_all(image, header, kind, path)))
    finally:
        image.close()
    return replace(frame, parts=tuple(others))


def read_channels(path: Path) -> Channels:
    """Every channel of an image file, in the order of the file; it need not hold colour.

    A part whose data window is not that of the first one is left out. A channel of a later part whose name is taken is
    called "part.channel". Raises FrameUnreadable as `read_frame` does.
    """
    image = opened(path)
    try:
        images = [(spec, _all(image, spec, _require_plain(spec, path), path)) for spec in parts(image, path)]
    finally:
        image.close()
    first = oiio.ImageSpec(images[0][0])
    found: dict[str, FloatArray] = {}
    for spec, samples in images:
        if data_window(spec) != data_window(first):
            continue
        for place, name in enumerate(spec.channelnames):
            whole = f"{spec.get_string_attribute('oiio:subimagename')}.{name}"
            found[whole if name in found else name] = samples[:, :, place].view(np.float32)
        for attribute in spec.extra_attribs:
            if attribute.name.startswith("cryptomatte/"):
                first.attribute(attribute.name, attribute.value)
    return Channels(by_name=found, metadata=first)


def embedded_job_hash(spec: oiio.ImageSpec) -> str | None:
    """The hash of the job in a header: an attribute of its own, or the description where a format has no such thing."""
    own = spec.get_string_attribute(JOB_HASH)
    if own:
        return own
    for carrier in ("ImageDescription", "DocumentName"):
        _, mark, rest = spec.get_string_attribute(carrier).rpartition(f"{JOB_HASH}=")
        if mark:
            return rest.strip()
    return None


def passed_on(metadata: oiio.ImageSpec, *, same_file_type: bool, declared: str | None = None) -> oiio.ImageSpec:
    """A copy of a header that is safe to write: its windows and attributes, without what is true of one file only.

    declared: the colour space to state, in place of what the header states.
    """
    spec = oiio.ImageSpec(metadata)
    for name in _NEVER_PASSED_ON + (() if same_file_type else _ONLY_IN_SAME_FILE_TYPE):
        spec.erase_attribute(name)
    for name in [attribute.name for attribute in metadata.extra_attribs]:
        of_colour = _COLOUR.fullmatch(name) is not None
        of_type = of_colour or name.partition(":")[0].lower() in ("openexr", "png", "tiff", "jpeg", "dpx")
        if (of_type and not same_file_type) or (of_colour and declared is not None):
            spec.erase_attribute(name)
    if declared is not None:
        spec["oiio:ColorSpace"] = declared
    if not same_file_type:
        spec.tile_width = spec.tile_height = spec.tile_depth = 0
    return spec


def _require_plain(spec: oiio.ImageSpec, path: Path) -> oiio.BASETYPE:
    """The type to read a part as. Refuses what would be lost in the delivery, instead of losing it."""
    if spec.deep:
        raise unreadable(path, "it holds deep samples; flatten it first")
    if min(spec.width, spec.height) < 1 or spec.depth > 1:
        raise unreadable(path, "it holds no flat picture")
    kinds = [str(spec.channelformat(channel)) for channel in range(spec.nchannels)]
    if set(kinds) == {"uint"}:
        return oiio.UINT
    names = {"uint8", "uint16", "half", "float"}
    for name, kind in zip(spec.channelnames, kinds, strict=True):
        if kind not in names:
            raise unreadable(path, f"channel {name} is of type {kind}, and only {', '.join(sorted(names))} "
                                    "pass through unharmed; write ids of type uint into a part of their own")
    return oiio.FLOAT


def _picture(image: oiio.ImageInput, spec: oiio.ImageSpec, path: Path, meant: Picture) -> Frame:
    """The part where a file stands as a frame without other parts. meant: which of its channels are the picture."""
    names, colour, alpha = tuple(spec.channelnames), meant.colour, meant.alpha
    formats = [BitDepth(str(spec.channelformat(index))) for index in range(len(names))]
    whole = colour if alpha is None else (*colour, alpha)
    rest = [index for index in range(len(names)) if index not in whole]
    single = [(index,) for index in (*whole[len(colour):], *rest)]
    pixels, *others = _read(image, spec, oiio.FLOAT, [colour, *single], path)
    planes = [samples[:, :, 0] for samples in others]
    return Frame(
        pixels=pixels,
        channels=tuple(names[index] for index in colour),
        alpha=None if alpha is None else planes.pop(0),
        alpha_name="A" if alpha is None else names[alpha],
        associated=not spec.get_int_attribute("oiio:UnassociatedAlpha"),
        extra=tuple(ExtraChannel(name=names[index], samples=samples, format=formats[index])
                    for index, samples in zip(rest, planes, strict=True)),
        format=_wider([formats[index] for index in whole]), file_type=image.format_name(), metadata=spec,
        place=meant.place)


def _read(image: oiio.ImageInput, spec: oiio.ImageSpec, kind: oiio.BASETYPE, groups: Sequence[Sequence[int]],
          path: Path) -> list[NDArray[Any]]:
    """Channels of the part where a file stands, each group in an array of its own, (H, W, channels of the group).

    No array of all channels stands between: where memory is fresh, a second one costs as much as half of the decoding.
    """
    shape, number = (spec.height, spec.width), np.uint32 if kind == oiio.UINT else np.float32
    found = guarded(lambda: [np.empty((*shape, len(group)), number) for group in groups], path)
    for rows, samples in strips(image, spec, spec.nchannels, kind, path):
        for target, group in zip(found, groups, strict=True):
            if tuple(group) == tuple(range(spec.nchannels)):
                target[rows] = samples
                continue
            for place, channel in enumerate(group):  # one by one, which is twice as fast as all at once
                target[rows, :, place] = samples[:, :, channel]
    return found


def _all(image: oiio.ImageInput, spec: oiio.ImageSpec, kind: oiio.BASETYPE, path: Path) -> NDArray[Any]:
    return _read(image, spec, kind, [range(spec.nchannels)], path)[0]


def _wider(formats: Sequence[BitDepth]) -> BitDepth:
    """The format that holds colour and alpha where a file stores them unlike, halves and floats."""
    return BitDepth.FLOAT if BitDepth.FLOAT in formats else formats[0]
