# SPDX-License-Identifier: Apache-2.0
"""Colour spaces by the names of OpenColorIO, and what their numbers are in ACES2065-1 (through OpenImageIO).

The configuration is that of $OCIO, else a built-in studio configuration of a pinned version. A name that the one does
not know is looked up in the other, so that a file's own word ("lin_ap1_scene") is understood beside any configuration:
both meet in ACES2065-1 (SMPTE ST 2065-1), the role `aces_interchange` of each.
"""
from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813, the name in its own manual
from numpy.typing import NDArray

from fresco_backend import settings
from fresco_backend.files.frames import HALF_MAX, FloatArray
from fresco_protocol.errors import ColorError

BUILT_IN = "ocio://studio-config-v4.0.0_aces-v2.0_ocio-v2.5"
RENDERING = str(Path(__file__).with_name("rendering.ocio"))
HUB = "ACES2065-1"
PROBE = (0.0, 0.001, 0.05, 0.18, 0.46, 0.75, 1.0)
NEAREST = 5

# Words of file headers and of older documents that no configuration knows.
_ALSO = {
    "g22_rec709_scene": "srgb_rec709_scene",  # what PNG writers note for sRGB when they know only gamma 1/2.2
    "g24_rec709_scene": "g24_rec709",  # of a PNG that states this gamma
    "srgb_rec709_display": "srgb_rec709_scene", "linear-rec709": "lin_rec709_scene", "linear": "lin_rec709_scene",
}


@dataclass(frozen=True)
class ColorSpace:
    """A colour space of one configuration, by its whole name there."""

    config: str
    name: str

    def __str__(self) -> str:
        return self.name


def color_space(name: str) -> ColorSpace:
    """The colour space of this name, alias or role, in any case. Raises ColorError, which lists the nearest names."""
    for wanted in (name, _ALSO.get(name.lower(), "")):
        for config in dict.fromkeys((configuration(), BUILT_IN, RENDERING)):
            found = _names(config).get(wanted.lower())
            if found is not None:
                return _colour(ColorSpace(config, found))
    known = {**_names(RENDERING), **_names(BUILT_IN), **_names(configuration())}
    nearest = get_close_matches(name.lower(), known, n=NEAREST, cutoff=0.4)
    shown = ", ".join(dict.fromkeys(f"'{known[word]}'" for word in nearest))
    raise ColorError(f"the colour space '{name}' is unknown", where=configuration(),
                     remedy=f"The nearest are {shown}" if shown else "Name one of the configuration's colour spaces.")


def configuration() -> str:
    """The configuration that names are looked up in first. Raises ColorError when $OCIO cannot be loaded."""
    named = settings.color_configuration()
    if named is not None:
        _loaded(named)
    return named or BUILT_IN


def configuration_facts() -> str:
    """What tells one configuration from another: its name, or of a file, wherever it lies, its content."""
    config = configuration()
    path = Path(config)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else config


def to_aces(colour: FloatArray, space: ColorSpace) -> FloatArray:
    """Colour (H, W, 3) of a space as ACES2065-1, scene-linear; not multiplied by alpha. Raises ColorError."""
    matrix = _matrix(space, False)
    return _converted(colour, space, False) if matrix is None else _multiplied(colour, matrix)


def from_aces(light: FloatArray, space: ColorSpace) -> FloatArray:
    """Colour (H, W, 3) of a space for light of ACES2065-1; inverse of `to_aces`. Raises ColorError."""
    matrix = _matrix(space, True)
    return _converted(light, space, True) if matrix is None else _multiplied(light, matrix)


def is_linear(space: ColorSpace) -> bool:
    """Whether a space holds light as it is: its numbers are those of ACES2065-1 times a matrix."""
    return _matrix(space, False) is not None


@lru_cache
def is_picture(space: ColorSpace) -> bool:
    """Whether a space is display-referred like sRGB: a curve whose code 1 is white, where a log curve has stops above.
    """
    return not is_linear(space) and float(to_aces(np.ones((1, 1, 3), np.float32), space).max()) < 1.1


def interop_name(space: ColorSpace) -> str:
    """What a file says of a space: its id of the Color Interop Forum where it has one, else its own name."""
    return str(_loaded(space.config).get_color_interop_id(space.name)) or space.name


@lru_cache
def luminance_weights(space: ColorSpace) -> tuple[float, float, float]:
    """What the channels of a linear space add to luminance (the second row of ACES2065-1 to CIE XYZ, ST 2065-1)."""
    matrix = _matrix(space, False)
    if matrix is None:
        raise ValueError(f"{space} is not linear")
    red, green, blue = np.array([0.3439664498, 0.7281660966, -0.0721325464]) @ matrix
    return float(red), float(green), float(blue)


@lru_cache
def nearly_equal(first: ColorSpace, second: ColorSpace) -> bool:
    """Whether the same numbers mean the same colour in both spaces, as far as 16-bit codes can tell."""
    if first == second:
        return True
    codes = np.stack(np.meshgrid(PROBE, PROBE, PROBE), axis=-1).reshape(1, -1, 3).astype(np.float32)
    return bool(np.allclose(to_aces(codes, first), to_aces(codes, second), rtol=2e-5, atol=2e-6))


def applied(result: oiio.ImageBuf) -> FloatArray:
    """The pixels (H, W, 3) of a colour transform. Raises ColorError with the library's words."""
    if result.has_error:
        raise ColorError(" ".join(result.geterror().split()), remedy="Check the colour configuration.")
    return np.asarray(result.get_pixels(oiio.FLOAT), np.float32)


def buffer(colour: FloatArray) -> oiio.ImageBuf:
    """Colour (H, W, 3) as OpenImageIO's algorithms take it."""
    return oiio.ImageBuf(np.ascontiguousarray(colour, np.float32))


@lru_cache
def _loaded(config: str) -> oiio.ColorConfig:
    """OpenImageIO replaces a configuration that it cannot load by one of its own, and only the error tells."""
    loaded = oiio.ColorConfig(config)
    reason = loaded.geterror()
    if reason:
        raise ColorError(f"the colour configuration cannot be loaded: {' '.join(reason.split())}", where=config,
                         remedy="Correct the variable OCIO, or unset it to take the built-in configuration.")
    return loaded


@lru_cache
def _names(config: str) -> dict[str, str]:
    """Names, aliases and roles in lower case -> the whole name."""
    loaded = _loaded(config)
    found = {role.lower(): loaded.getColorSpaceNameByRole(role) for role in loaded.getRoles()}
    for name in loaded.getColorSpaceNames():
        found.update({alias.lower(): name for alias in loaded.getAliases(name)})
    found.update({name.lower(): name for name in loaded.getColorSpaceNames()})
    resolved = loaded.resolve("sRGB")  # no alias anywhere: the library knows what is meant
    return {"srgb": resolved, **found} if resolved in found.values() else found


@lru_cache
def _hub(config: str) -> str:
    names = _names(config)
    for word in ("aces_interchange", "lin_ap0_scene", HUB.lower(), "aces - aces2065-1"):
        if word in names:
            return names[word]
    raise ColorError("the colour configuration does not say which of its spaces is ACES2065-1", where=config,
                     remedy="Give it the role aces_interchange")


def _colour(space: ColorSpace) -> ColorSpace:
    if _loaded(space.config).isData(space.name):
        raise ColorError(f"'{space}' holds data, no colour", where=space.config, remedy="Name a colour space.")
    return space


@lru_cache
def _matrix(space: ColorSpace, inverse: bool) -> NDArray[np.float64] | None:
    """The matrix of a linear space, columns by channel, or None. Asked of the transform: no name tells it for sure."""
    units = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [4, 4, 4], [-0.5, -0.5, -0.5]]], np.float32)
    zero, red, green, blue, bright, below = _converted(units, space, inverse)[0].astype(np.float64)
    white = red + green + blue
    straight = np.allclose(zero, 0, atol=1e-7) and np.allclose(bright, 4 * white, rtol=1e-5, atol=1e-6)
    return np.stack([red, green, blue], axis=1) if straight and np.allclose(below, -white / 2, atol=1e-6) else None


def _multiplied(colour: FloatArray, matrix: NDArray[np.float64]) -> FloatArray:
    return colour @ matrix.T.astype(np.float32)


def _converted(colour: FloatArray, space: ColorSpace, inverse: bool) -> FloatArray:
    ends = (space.name, _hub(space.config))
    source, target = ends[::-1] if inverse else ends
    convert: Callable[..., oiio.ImageBuf] = oiio.ImageBufAlgo.colorconvert
    found = applied(convert(buffer(colour), source, target, colorconfig=space.config))
    return np.clip(np.nan_to_num(found, nan=0, posinf=HALF_MAX, neginf=-HALF_MAX), -HALF_MAX, HALF_MAX)
