# SPDX-License-Identifier: Apache-2.0
"""Which colour space an ICC profile means: one of three primaries and a curve, as cameras and displays have them.

Names of profiles tell little: a display's is called by the display. So their numbers are compared.
"""
from __future__ import annotations

import struct

import numpy as np

_NEAR = 0.008  # of XYZ: writers adapt the white and round each in their own way
_NEAR_CURVE = 0.02  # of light: sRGB and gamma 2.2 are one, gamma 2.0 and 2.4 are others
_MIDDLE = 0.214  # light of the code 0.5, of sRGB
# Red, green and blue in XYZ under D50, as ICC.1:2022 wants primaries.
_PRIMARIES = {
    "srgb_rec709_scene": ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)),
    "srgb_p3d65_scene": ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)),
    "srgb_rec2020_scene": ((0.6734, 0.2790, -0.0019), (0.1657, 0.6754, 0.0300), (0.1250, 0.0456, 0.7969)),
    "g22_adobergb_scene": ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446)),
}


def space_of(profile: bytes) -> str | None:
    """The colour space that a profile means, by the name of the Color Interop Forum; None: another one, or damage.

    Of a grey profile the curve decides alone. Source: ICC.1:2022, clauses 7.3 and 10.
    """
    try:
        tags = _tags(profile)
        if profile[16:20] == b"GRAY":
            return "srgb_rec709_scene" if _is_usual(tags[b"kTRC"]) else None
        if not all(_is_usual(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")):
            return None
        stated = [_numbers(tags[name], 8, 3) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    except (KeyError, struct.error, ArithmeticError):
        return None
    return next((space for space, known in _PRIMARIES.items() if np.allclose(stated, known, atol=_NEAR)), None)


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """The content of a profile by the names of its tags."""
    (count,) = struct.unpack_from(">I", profile, 128)
    entries = (struct.unpack_from(">4sII", profile, 132 + 12 * place) for place in range(min(count, 100)))
    return {name: profile[start : start + size] for name, start, size in entries}


def _numbers(tag: bytes, offset: int, count: int) -> list[float]:
    """Numbers of 16 bits before the point and 16 behind it."""
    return [number / 65536 for number in struct.unpack_from(f">{count}i", tag, offset)]


def _is_usual(curve: bytes) -> bool:
    """Whether a curve is about that of sRGB, by the light of its middle."""
    return abs(_middle(curve) - _MIDDLE) < _NEAR_CURVE


def _middle(curve: bytes) -> float:
    """The light in [0, 1] of the code 0.5; nan of a curve of an unknown kind."""
    if curve[:4] == b"para":
        (kind,) = struct.unpack_from(">H", curve, 8)
        gamma, scale, offset = (*_numbers(curve, 12, 3),) if kind else (*_numbers(curve, 12, 1), 1.0, 0.0)
        return float(max(0.5 * scale + offset, 0.0) ** gamma)
    if curve[:4] != b"curv":
        return float("nan")
    (count,) = struct.unpack_from(">I", curve, 8)
    if count < 2:
        return float(0.5 ** (struct.unpack_from(">H", curve, 12)[0] / 256 if count else 1.0))
    table = struct.unpack_from(f">{count}H", curve, 12)
    return float(np.interp(0.5, np.linspace(0, 1, count), table)) / 65535
