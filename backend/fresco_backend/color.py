# SPDX-License-Identifier: Apache-2.0
"""Between the plate's colour and what a model sees, there and back, and the composite over the plate.

A model sees display-referred sRGB in [-1, 1]. A scene-linear plate is brighter than that in its highlights; what is
clipped there is remembered as the plate's own gain and put back on the stylised frame. A frame that the model leaves
alone comes back as the plate, to the rounding of float32, highlights and negative samples included.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum

import numpy as np
import OpenImageIO as oiio  # noqa: N813, the name in its own manual
import torch
from torch import Tensor

from fresco_backend.frames import FloatArray, Frame, cleaned
from fresco_protocol.errors import ColorError, MatteError

# Rec. ITU-R BT.709-6, item 3.2.
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
_CLEAR = 2.0**-24  # the smallest half: alpha up to here is none, and to divide by it could overflow


class ColorSpace(Enum):
    """What the numbers of a plate mean."""

    SRGB = "srgb"  # display-referred, IEC 61966-2-1
    LINEAR = "linear-rec709"  # scene-linear, Rec. 709 primaries


_NAMES = {
    "g22_rec709_scene": ColorSpace.SRGB,  # what PNG writers note for sRGB when they know only gamma 1/2.2
    "srgb": ColorSpace.SRGB, "srgb_rec709_scene": ColorSpace.SRGB, "srgb_rec709_display": ColorSpace.SRGB,
    "linear-rec709": ColorSpace.LINEAR, "lin_rec709": ColorSpace.LINEAR, "lin_rec709_scene": ColorSpace.LINEAR,
    "linear": ColorSpace.LINEAR, "scene_linear": ColorSpace.LINEAR, "lin_srgb": ColorSpace.LINEAR,
    "linear rec.709 (srgb)": ColorSpace.LINEAR, "linear rec.709": ColorSpace.LINEAR,
}
_WRITTEN = {ColorSpace.SRGB: "srgb_rec709_scene", ColorSpace.LINEAR: "lin_rec709_scene"}


def color_space(name: str) -> ColorSpace:
    """The colour space of this name. Raises ColorError."""
    try:
        return _NAMES[name.lower()]
    except KeyError as error:
        raise ColorError(f"the colour space '{name}' is unknown",
                         remedy=f"Choose one of {', '.join(_NAMES)}") from error


def plate_space(frame: Frame) -> ColorSpace:
    """The colour space that a frame declares, else that of its kind of file: linear Rec. 709 for EXR, sRGB otherwise.

    Raises ColorError when it declares a space that is not supported, because to guess would be to shift its colours.
    """
    declared = frame.metadata.get_string_attribute("oiio:ColorSpace")
    return color_space(declared) if declared else default_space(frame.file_type)


def default_space(file_type: str) -> ColorSpace:
    """The colour space of a kind of file that declares none."""
    return ColorSpace.LINEAR if file_type == "openexr" else ColorSpace.SRGB


def srgb_encode(linear: FloatArray) -> FloatArray:
    """Display-referred sRGB of linear light (IEC 61966-2-1); odd about zero, so that negative samples survive.

    Golden: 0.0031308 -> 0.04045, 0.18 -> 0.46135613, 0.5 -> 0.73535698, 1.0 -> 1.0.
    """
    size = np.abs(linear)
    curve = np.float32(1.055) * np.power(size, np.float32(1 / 2.4)) - np.float32(0.055)
    return np.copysign(np.where(size <= 0.0031308, size * np.float32(12.92), curve), linear).astype(np.float32)


def srgb_decode(encoded: FloatArray) -> FloatArray:
    """Linear light of display-referred sRGB (IEC 61966-2-1); odd about zero. Inverse of `srgb_encode`.

    Golden: 0.04045 -> 0.0031308, 0.46135613 -> 0.18, 0.5 -> 0.21404114, 1.0 -> 1.0.
    """
    size = np.abs(encoded)
    curve = np.power((size + np.float32(0.055)) / np.float32(1.055), np.float32(2.4))
    return np.copysign(np.where(size <= 0.04045, size / np.float32(12.92), curve), encoded).astype(np.float32)


def to_engine(frame: Frame, space: ColorSpace) -> Tensor:
    """What a model sees of a frame: (3, H, W) float32 in [-1, 1], display-referred sRGB.

    Colour that is multiplied by alpha is divided first; where alpha is none the model sees middle grey. NaN and
    infinities are replaced as `frames.cleaned` says.
    """
    display = np.clip(_display(_straight(frame), space), 0, 1)
    if frame.alpha is not None:
        display = np.where(frame.alpha[..., None] > _CLEAR, display, np.float32(0.5))
    return torch.from_numpy(np.ascontiguousarray(display.transpose(2, 0, 1))) * 2 - 1


def from_engine(stylised: Tensor, frame: Frame, space: ColorSpace) -> Frame:
    """The plate's frame with stylised colour, in the plate's own colour space; all other channels are the plate's.

    stylised: (3, H, W) in [-1, 1], display-referred sRGB, of the frame's size. Highlights: per channel, out = base *
    gain^w with base = the stylised light in [0, 1], gain = the plate's light over its clipped light (1 below white),
    w = smoothstep of (Y' - 0.35 Y) / (0.4 Y) with the luma of the stylised and of the clipped plate, so that a
    highlight which the style has painted dark stays dark. Negative light of the plate fades in where the stylised
    channel is black. A grey plate becomes RGB.
    """
    plate = _straight(frame)
    display = np.clip(_display(plate, space), 0, 1)
    painted: FloatArray = ((stylised.detach().float().cpu() + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy()
    if painted.shape != plate.shape:
        raise ValueError(f"stylised frame of shape {painted.shape} for a plate of shape {plate.shape}")
    linear = plate if space is ColorSpace.LINEAR else srgb_decode(plate)
    gain: FloatArray = np.power(np.maximum(linear, np.float32(1)), _kept_share(painted, display)[..., None])
    negative = np.minimum(linear, np.float32(0))
    light = np.asarray(srgb_decode(painted) * gain + negative * (1 - painted), np.float32)
    pixels = light if space is ColorSpace.LINEAR else _exact_where_plain(painted, srgb_encode(light), linear)
    return replace(frame, pixels=_reassociated(pixels, frame), channels=_rgb_names(frame))


def matte_samples(channels: Mapping[str, FloatArray], channel: str | None, *, invert: bool = False) -> FloatArray:
    """The matte (H, W) in [0, 1] among the channels of its file: 1 takes the stylised frame, 0 keeps the plate.

    channel: its name, in any case; None is the alpha if there is one, else the first. Raises MatteError.
    """
    names = {name.lower(): name for name in channels}
    wanted = channel.lower() if channel is not None else "a" if "a" in names else next(iter(names))
    if wanted not in names:
        raise MatteError(f"the matte has no channel '{channel}'", remedy=f"Choose one of {', '.join(channels)}")
    samples = np.clip(cleaned(channels[names[wanted]]).samples, 0, 1)
    return 1 - samples if invert else samples


def composite(stylised: Frame, frame: Frame, matte: FloatArray) -> Frame:
    """The stylised frame over the plate by a matte, in the plate's colour space.

    matte: (H, W), 1 takes the stylised frame, 0 keeps the plate; clipped to [0, 1]. Where it is 0 every sample is
    bit-equal to the plate, non-finite ones included (the delivery replaces those). Raises MatteError.
    """
    if matte.shape != frame.pixels.shape[:2]:
        raise MatteError(f"the matte is {matte.shape[1]}x{matte.shape[0]}, and the plate is {frame.size}",
                         remedy="Render the matte in the size of the plate")
    share = np.clip(cleaned(matte).samples, 0, 1)[..., None]
    plate = _as_rgb(frame.pixels)
    mixed = cleaned(plate).samples * (1 - share) + stylised.pixels * share
    pixels = np.where(share == 0, plate, np.where(share == 1, stylised.pixels, mixed))
    return replace(stylised, pixels=pixels.astype(np.float32))


def for_file(frame: Frame, space: ColorSpace, delivered: ColorSpace, file_type: str) -> Frame:
    """The frame as another kind of file holds it: in its colour space, and multiplied by alpha where EXR wants that.

    The same frame, bit for bit, when nothing of this differs from the plate.
    """
    associated = True if file_type == "openexr" else frame.associated
    if space is delivered and associated == frame.associated:
        return frame
    colour = _straight(frame)
    header = frame.metadata
    if space is not delivered:
        colour = srgb_encode(colour) if delivered is ColorSpace.SRGB else srgb_decode(colour)
        header = oiio.ImageSpec(header)
        header.attribute("oiio:ColorSpace", _WRITTEN[delivered])
    converted = replace(frame, associated=associated, channels=_rgb_names(frame), metadata=header)
    if associated and frame.alpha is not None:
        colour = colour * frame.alpha[..., None]
    return replace(converted, pixels=colour)


def _display(colour: FloatArray, space: ColorSpace) -> FloatArray:
    return srgb_encode(colour) if space is ColorSpace.LINEAR else colour


def _as_rgb(pixels: FloatArray) -> FloatArray:
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _rgb_names(frame: Frame) -> tuple[str, ...]:
    return frame.channels if len(frame.channels) == 3 else ("R", "G", "B")


def _straight(frame: Frame) -> FloatArray:
    """Finite RGB that is not multiplied by alpha; where alpha is none there is nothing to divide by, and it stays."""
    colour = _as_rgb(cleaned(frame.pixels).samples)
    if frame.alpha is None or not frame.associated:
        return colour
    alpha = frame.alpha[..., None]
    return np.divide(colour, alpha, out=colour.copy(), where=alpha > _CLEAR)


def _reassociated(colour: FloatArray, frame: Frame) -> FloatArray:
    """Multiplied by the plate's alpha where the plate is; samples under no alpha are the plate's own (fire, glows)."""
    if frame.alpha is None:
        return colour
    alpha = frame.alpha[..., None]
    multiplied = colour * alpha if frame.associated else colour
    return np.where(alpha > _CLEAR, multiplied, _as_rgb(cleaned(frame.pixels).samples))


def _kept_share(painted: FloatArray, display: FloatArray) -> FloatArray:
    """How much of the plate's gain a stylised pixel takes, (H, W) in [0, 1]: all of it unless the style went dark."""
    before, after = display @ _LUMINANCE, painted @ _LUMINANCE
    ramp = np.clip((after - 0.35 * before) / np.maximum(0.4 * before, 1e-6), 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), np.float32)


def _exact_where_plain(painted: FloatArray, encoded: FloatArray, linear: FloatArray) -> FloatArray:
    """A display-referred plate within [0, 1] needs no highlights: there the stylised codes pass without rounding."""
    return np.where((linear < 0) | (linear > 1), encoded, painted)
