# SPDX-License-Identifier: Apache-2.0
"""The transfer function of sRGB, both ways."""
from __future__ import annotations

import numpy as np

from fresco_backend.files.frames import FloatArray


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
