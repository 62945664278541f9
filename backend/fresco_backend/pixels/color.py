# SPDX-License-Identifier: Apache-2.0
"""Between the plate's colour and what a model sees, there and back.

A model sees display-referred sRGB in [-1, 1]. A display-referred plate is that already, or becomes it by its curve; a
scene-referred one is rendered (`highlights`). What the model cannot see comes back around it: a frame that it leaves
alone comes back as the plate, to the rounding of float32, highlights, negative samples and wide colours included.
"""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fresco_backend.files.frames import CHROMATICITIES, FloatArray, Frame, as_rgb, cleaned
from fresco_backend.pixels import highlights
from fresco_backend.pixels.color_config import (
    ColorSpace,
    color_space,
    from_aces,
    interop_name,
    is_linear,
    is_picture,
    nearly_equal,
    to_aces,
)
from fresco_backend.pixels.highlights import Showing
from fresco_backend.pixels.profile import space_of
from fresco_backend.pixels.transfer import srgb_decode as srgb_decode
from fresco_backend.pixels.transfer import srgb_encode as srgb_encode
from fresco_protocol.errors import ColorError
from fresco_protocol.shot import Highlights, Rendering

LINEAR, SRGB = "lin_rec709_scene", "srgb_rec709_scene"  # names of the Color Interop Forum
_CLEAR = 2.0**-24  # the smallest half: alpha up to here is none, and to divide by it could overflow
_ROUNDING = 2.0**-20  # of the display, by which the way through [-1, 1] may change a code
_DESCRIPTION = "ICCProfile:profile_description"
# Descriptions of ICC profiles that are no sRGB: what Apple's programs and photographers' write. Beside them OpenImageIO
# names sRGB, as of every PNG and JPEG.
_PROFILES = {"display p3": "srgb_p3d65_scene", "adobe rgb": "g22_adobergb_scene"}
# Primaries and curve in the numbers of ITU-T H.273 that are Rec. 2020 without HDR, whose codes are shown as sRGB's are.
_WIDE = frozenset((9, curve) for curve in (1, 2, 6, 13, 14, 15))
# Primaries in the numbers of ITU-T H.273 that are taken as Rec. 709's, as players do: of old television, and none.
_USUAL_PRIMARIES = (0, 1, 2, 4, 5, 6, 7)


def plate_space(frame: Frame) -> ColorSpace:
    """The colour space that a frame declares, by profile, name or chromaticities, else that of its kind of file.

    Raises ColorError when it declares a space that is unknown, because to guess would be to shift its colours.
    """
    codes = frame.metadata.getattribute("CICP")
    if codes is not None and tuple(codes[:2]) in _WIDE:  # of which OpenImageIO makes sRGB
        return color_space("srgb_rec2020_scene")
    profiled = _profiled(frame)
    declared = profiled if profiled != SRGB else None
    declared = declared or frame.metadata.get_string_attribute("oiio:ColorSpace")
    if declared:
        return _declared(declared)
    found = frame.metadata.getattribute("chromaticities")
    if not found:
        return default_space(frame.file_type)
    for name, chromaticities in CHROMATICITIES.items():
        if np.allclose(found, chromaticities, atol=0.002):
            return color_space(name)
    stated = " ".join(f"{number:.4g}" for number in found)
    raise ColorError(f"no colour space is known by the chromaticities {stated}", where="plate.color_space",
                     remedy="Name the space of the file: --color-space NAME")


def unknown_colours(frame: Frame) -> str | None:
    """What a frame says of its colours that has no name here, so that they are taken as sRGB; None: nothing does."""
    if frame.file_type == "openexr" or plate_space(frame) != color_space(SRGB):
        return None
    codes = frame.metadata.getattribute("CICP")
    if codes is not None and codes[0] not in _USUAL_PRIMARIES:
        return f"primaries {codes[0]} and curve {codes[1]} of ITU-T H.273"
    if frame.metadata.getattribute("ICCProfile") is None or _profiled(frame):
        return None
    return f"the ICC profile '{frame.metadata.get_string_attribute(_DESCRIPTION) or 'without a name'}'"


def _profiled(frame: Frame) -> str | None:
    """The colour space that the ICC profile of a frame means, sRGB included; None where it has none, or another."""
    description = frame.metadata.get_string_attribute(_DESCRIPTION).lower()
    profile = frame.metadata.getattribute("ICCProfile")
    named = next((space for name, space in _PROFILES.items() if description.startswith(name)), None)
    return named or (None if profile is None else space_of(bytes(profile)))


def _declared(name: str) -> ColorSpace:
    try:
        return color_space(name)
    except ColorError as error:
        raise ColorError(f"the file says that its colour space is '{name}', which is unknown", where=error.where,
                         remedy=f"Name it: --color-space NAME. {error.remedy}") from error


def default_space(file_type: str) -> ColorSpace:
    """The colour space of a kind of file that declares none: linear Rec. 709 for EXR, sRGB otherwise."""
    return color_space(LINEAR if file_type == "openexr" else SRGB)


def showing_of(space: ColorSpace, method: Highlights, rendering: Rendering | None) -> Showing:
    """How the light of a plate is shown. rendering: None is the one that plates of this space are looked at with.

    That is the sRGB curve for linear Rec. 709, which is how pictures of that space are made, and ACES 2.0 for others.
    """
    usual = Rendering.SRGB if space == color_space(LINEAR) else Rendering.ACES
    return Showing(method=method, rendering=rendering or usual)


def to_engine(frame: Frame, space: ColorSpace, showing: Showing | None = None) -> Tensor:
    """What a model sees of a frame: (3, H, W) float32 in [-1, 1], display-referred sRGB.

    Colour that is multiplied by alpha is divided first; where alpha is none the model sees middle grey. NaN and
    infinities are replaced as `frames.cleaned` says. showing: of scene light; None is usual for the space. Raises
    ColorError.
    """
    display = _shown(_straight(frame), space, showing or _usual(space))
    if frame.alpha is not None:
        display = np.where(frame.alpha[..., None] > _CLEAR, display, np.float32(0.5))
    return torch.from_numpy(np.ascontiguousarray(display.transpose(2, 0, 1))) * 2 - 1


def from_engine(stylised: Tensor, frame: Frame, space: ColorSpace,
                showing: Showing | None = None, seen: Tensor | None = None) -> Frame:
    """The plate's frame with stylised colour, in the plate's own colour space; all other channels are the plate's.

    stylised: (3, H, W) in [-1, 1], display-referred sRGB, of the frame's size. A grey plate becomes RGB.
    showing: as in `to_engine`; it says what becomes of light that the display does not hold, see `highlights.restored`.
    seen: what `to_engine` gave for this frame, where it is at hand. Raises ColorError.
    """
    showing = showing or _usual(space)
    plate = _straight(frame)
    painted = _as_display(stylised)
    if painted.shape != plate.shape:
        raise ValueError(f"stylised frame of shape {painted.shape} for a plate of shape {plate.shape}")
    display = _shown(plate, space, showing) if seen is None else _as_display(seen)
    painted = np.where(np.abs(painted - display) < _ROUNDING, display, painted)
    restore = _restored_picture if is_picture(space) else _restored_scene
    pixels = restore(painted, display, plate, space, showing)
    return replace(frame, pixels=_reassociated(pixels, frame), channels=_rgb_names(frame))


def converted(colour: FloatArray, space: ColorSpace, target: ColorSpace) -> FloatArray:
    """Colour (H, W, 3) of one space in another, not multiplied by alpha; the same array where both mean the same."""
    if nearly_equal(space, target):
        return colour
    linear = color_space(LINEAR)
    if space == linear and _is_srgb(target):
        return srgb_encode(colour)
    if _is_srgb(space) and target == linear:
        return srgb_decode(colour)
    return from_aces(to_aces(colour, space), target)


def for_file(frame: Frame, space: ColorSpace, delivered: ColorSpace, file_type: str,
             showing: Showing | None = None) -> Frame:
    """The frame as another kind of file holds it: in its colour space, and multiplied by alpha where EXR wants that.

    Scene light becomes a picture by the rendering that it is shown with. The same frame, bit for bit, when nothing of
    this differs from the plate. Raises ColorError.
    """
    associated = True if file_type == "openexr" else frame.associated
    if space != delivered or (file_type != frame.file_type and delivered != default_space(file_type)):
        frame = replace(frame, declared=interop_name(delivered))
    if space == delivered and associated == frame.associated:
        return frame
    colour = _straight(frame)
    if space != delivered:
        colour = _delivered(colour, space, delivered, showing or _usual(space))
    changed = replace(frame, associated=associated, channels=_rgb_names(frame))
    return replace(changed, pixels=_multiplied(colour, frame) if associated else colour)


def _as_display(image: Tensor) -> FloatArray:
    """(3, H, W) in [-1, 1] -> (H, W, 3) in [0, 1]."""
    display: FloatArray = ((image.detach().float().cpu() + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy()
    return display


def _usual(space: ColorSpace) -> Showing:
    return showing_of(space, Highlights.PRESERVE, None)


def _delivered(colour: FloatArray, space: ColorSpace, delivered: ColorSpace, showing: Showing) -> FloatArray:
    if is_picture(space) or not is_picture(delivered):
        return converted(colour, space, delivered)
    picture = highlights.shown(to_aces(colour, space), replace(showing, method=Highlights.PRESERVE))
    return converted(picture, color_space(SRGB), delivered)


def _shown(colour: FloatArray, space: ColorSpace, showing: Showing) -> FloatArray:
    """The display's picture of a plate's colour, (H, W, 3) in [0, 1]."""
    if is_picture(space):
        return np.clip(converted(colour, space, color_space(SRGB)), 0, 1)
    return highlights.shown(to_aces(colour, space), showing)


def _restored_picture(painted: FloatArray, display: FloatArray, plate: FloatArray, space: ColorSpace,
                      showing: Showing) -> FloatArray:
    """A display-referred plate holds what was painted as it is; only what lay beyond [0, 1] is put back."""
    srgb = color_space(SRGB)
    codes = converted(painted, srgb, space)
    if showing.method is Highlights.DISPLAY:
        return codes
    held = converted(display, srgb, space)
    beyond = plate - held
    kept = np.where(beyond > 0, highlights.kept_share(painted, display), highlights.nearness(painted, display))
    return np.asarray(plate + (codes - held) - (1 - kept) * beyond, np.float32)


def _restored_scene(painted: FloatArray, display: FloatArray, plate: FloatArray, space: ColorSpace,
                    showing: Showing) -> FloatArray:
    """A linear plate is light already; codes of a log plate are moved by the difference that the light makes."""
    if is_linear(space):
        return highlights.restored(painted, display, plate, space, showing)
    linear = color_space("lin_ap1_scene")
    light = converted(plate, space, linear)
    moved = highlights.restored(painted, display, light, linear, showing)
    return plate + (converted(moved, linear, space) - converted(light, linear, space))


def _is_srgb(space: ColorSpace) -> bool:
    return nearly_equal(space, color_space(SRGB))


def _rgb_names(frame: Frame) -> tuple[str, ...]:
    return frame.channels if len(frame.channels) == 3 else ("R", "G", "B")


def _straight(frame: Frame) -> FloatArray:
    """Finite RGB that is not multiplied by alpha; where alpha is none there is nothing to divide by, and it stays."""
    colour = as_rgb(cleaned(frame.pixels).samples)
    if frame.alpha is None or not frame.associated:
        return colour
    alpha = frame.alpha[..., None]
    with np.errstate(over="ignore"):  # of the largest floats
        return cleaned(np.divide(colour, alpha, out=colour.copy(), where=alpha > _CLEAR)).samples


def _multiplied(colour: FloatArray, frame: Frame) -> FloatArray:
    """Multiplied by alpha, but for what `_straight` did not divide: light under no alpha (fire, glows)."""
    if frame.alpha is None:
        return colour
    alpha = frame.alpha[..., None]
    return np.where(alpha > _CLEAR, colour * alpha, colour) if frame.associated else colour * alpha


def _reassociated(colour: FloatArray, frame: Frame) -> FloatArray:
    """Multiplied by the plate's alpha where the plate is; samples under no alpha are the plate's own (fire, glows)."""
    if frame.alpha is None:
        return colour
    alpha = frame.alpha[..., None]
    multiplied = colour * alpha if frame.associated else colour
    return np.where(alpha > _CLEAR, multiplied, as_rgb(cleaned(frame.pixels).samples))
