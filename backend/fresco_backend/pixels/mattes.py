# SPDX-License-Identifier: Apache-2.0
"""Mattes: which channel of a file is meant, how its edge is shaped, and the composite over the plate by it."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches

import cv2
import numpy as np

from fresco_backend.files.frames import Channels, FloatArray, Frame, as_rgb, cleaned
from fresco_backend.pixels import cryptomatte
from fresco_protocol.errors import MatteError
from fresco_protocol.shot import Matte

REACH = 3  # standard deviations of a feather that are not nothing


def channel_samples(image: Channels, matte: Matte) -> FloatArray:
    """The matte (H, W) in [0, 1] as the file has it, inverted if asked: 1 takes the stylised frame, 0 keeps the plate.

    Raises MatteError when the file has neither a channel, a layer nor an object of that name.
    """
    samples = np.clip(cleaned(_channel(image, matte.channel)).samples, 0, 1)
    return 1 - samples if matte.invert else samples


def overlooked(images: Iterable[Channels], matte: Matte) -> str | None:
    """The channel that was probably meant where nobody named one, and the alpha of all images is opaque everywhere.

    So are black and white pictures written that have an alpha for no reason. None: there is nothing to wonder at.
    """
    first = None
    for image in images:
        names = {name.lower(): name for name in image.by_name}
        if matte.channel is not None or "a" not in names or not np.all(image.by_name[names["a"]] == 1):
            return None
        others = (name for name in image.by_name if name != names["a"] and np.ptp(image.by_name[name]))
        first = first or next(others, None)
    return first


def shaped(samples: FloatArray, matte: Matte) -> FloatArray:
    """The matte widened by `grow` pixels (narrowed below 0) on a disc, then softened over `feather` pixels.

    The feather is a Gaussian whose edge goes from 0 to 1 over that many pixels, half of it outside.
    """
    if matte.grow:
        size = 2 * abs(matte.grow) + 1
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
        change = cv2.dilate if matte.grow > 0 else cv2.erode
        samples = np.asarray(change(samples, disc), np.float32)
    if matte.feather:
        sigma = matte.feather / (2 * REACH)
        samples = np.asarray(cv2.GaussianBlur(samples, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)
        samples = np.where(samples < 1e-4, np.float32(0), samples)  # the far tail is outside: the plate's own bits
    return np.clip(samples, 0, 1)


def composite(stylised: Frame, frame: Frame, matte: FloatArray) -> Frame:
    """The stylised frame over the plate by a matte, in the plate's colour space.

    matte: (H, W), 1 takes the stylised frame, 0 keeps the plate; clipped to [0, 1]. Where it is 0 every sample is
    bit-equal to the plate, non-finite ones included (the delivery replaces those). Raises MatteError.
    """
    if matte.shape != frame.pixels.shape[:2]:
        raise MatteError(f"the matte is {matte.shape[1]}x{matte.shape[0]}, and the plate is {frame.size}",
                         remedy="Render the matte in the size of the plate.")
    share = np.clip(cleaned(matte).samples, 0, 1)[..., None]
    plate = as_rgb(frame.pixels)
    mixed = cleaned(plate).samples * (1 - share) + stylised.pixels * share
    pixels = np.where(share == 0, plate, np.where(share == 1, stylised.pixels, mixed))
    return replace(stylised, pixels=pixels.astype(np.float32))


def _channel(image: Channels, channel: str | None) -> FloatArray:
    """A channel of this name, the first of a layer of this name, or an object of a Cryptomatte."""
    names = {name.lower(): name for name in image.by_name}
    if channel is None:
        return image.by_name[names["a"] if "a" in names else next(iter(image.by_name))]
    wanted = channel.lower()
    layer = next((name for lower, name in names.items() if lower.startswith(f"{wanted}.")), None)
    found = names.get(wanted) or layer
    return image.by_name[found] if found else _object(image, channel)


def _object(image: Channels, name: str) -> FloatArray:
    coverage = cryptomatte.coverage(image.by_name, image.metadata, name)
    if coverage is not None:
        return coverage
    objects = cryptomatte.objects(image.metadata)
    nearest = get_close_matches(name, objects, n=5, cutoff=0.4) or objects[:5]
    known = f"Choose one of {', '.join(image.by_name)}" + (f"; or an object: {', '.join(nearest)}" if objects else "")
    raise MatteError(f"the matte has no channel '{name}'", remedy=known)
