# SPDX-License-Identifier: Apache-2.0
"""The canvas of a plate: one rectangle of the pixel plane for all its frames, whose data windows may differ.

Renderers crop the data window of each frame to what they filled, and add overscan around the display window. Frames are
laid on the canvas to be worked on, and cut to their own windows again to be delivered.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import OpenImageIO as oiio  # noqa: N813, the name in its own manual

from fresco_backend.files.frames import Channels, FloatArray, Frame, Window, as_rgb, data_window, display_window
from fresco_protocol.errors import MatteError

_ONE_WINDOW = ("png", "jpeg", "dpx")  # file types without windows: what they hold is the picture to be seen


def union(windows: Iterable[Window]) -> Window:
    """The smallest window that holds all of them."""
    found = list(windows)
    x, y = min(window.x for window in found), min(window.y for window in found)
    right, bottom = max(window.x + window.width for window in found), max(window.y + window.height for window in found)
    return Window(x, y, right - x, bottom - y)


def laid_on(frame: Frame, canvas: Window) -> Frame:
    """The frame with its pixels on the canvas, black and clear where its file has none; the same if that is its window.

    canvas: must hold the frame's own window, which it remembers.
    """
    own = data_window(frame.metadata)
    return frame if own == canvas else replace(_moved(frame, own, canvas), own=own)


def cut(frame: Frame, file_type: str) -> Frame:
    """The frame with the window that its file shall have: its own, or where a file type has none, the display's."""
    canvas, own = data_window(frame.metadata), frame.own
    # TIFF's tags for windows have no sign, and few programs read them: only a plate that came with them keeps them.
    if file_type in _ONE_WINDOW or (file_type == "tiff" and frame.file_type != "tiff"):
        own = display_window(frame.metadata)
    return frame if own is None or own == canvas else replace(_moved(frame, canvas, own), own=None)


def part(frame: Frame, region: Window) -> Frame:
    """Colour and alpha of a region that is counted from the corner of the canvas; no other channel."""
    rows, columns = _slices(region)
    alpha = None if frame.alpha is None else frame.alpha[rows, columns]
    return replace(frame, pixels=frame.pixels[rows, columns], alpha=alpha, extra=(), parts=())


def with_part(frame: Frame, changed: Frame, region: Window) -> Frame:
    """The frame with the colour of a region from another one; outside of it its own, bit for bit."""
    pixels = as_rgb(frame.pixels).copy()
    pixels[_slices(region)] = changed.pixels
    return replace(frame, pixels=pixels, channels=changed.channels)


def matte_on(matte: Channels, canvas: Window, display: Window) -> dict[str, FloatArray]:
    """The channels of a matte on the canvas of its plate, 0 where its file has none. Raises MatteError.

    A matte of the plate's display window belongs into it; one of the canvas' size covers the canvas.
    """
    own, seen = data_window(matte.metadata), display_window(matte.metadata)
    if seen.size == display.size:
        own = own._replace(x=own.x - seen.x + display.x, y=own.y - seen.y + display.y)
    elif own.size == canvas.size:
        own = canvas
    else:
        raise MatteError(f"the matte is {own.size}, and the plate is {canvas.size}",
                         remedy="Render the matte in the size of the plate.")
    return {name: placed(samples, own, canvas) for name, samples in matte.by_name.items()}


def placed(samples: FloatArray, source: Window, target: Window) -> FloatArray:
    """(H, W, ...) of one window in another: what lies outside is dropped, what is missing is 0."""
    if source == target:
        return samples
    found = np.zeros((target.height, target.width, *samples.shape[2:]), np.float32)
    left, top = max(source.x, target.x), max(source.y, target.y)
    right = min(source.x + source.width, target.x + target.width)
    bottom = min(source.y + source.height, target.y + target.height)
    if left < right and top < bottom:
        inside = samples[top - source.y : bottom - source.y, left - source.x : right - source.x]
        found[top - target.y : bottom - target.y, left - target.x : right - target.x] = inside
    return found


def _slices(region: Window) -> tuple[slice, slice]:
    return slice(region.y, region.y + region.height), slice(region.x, region.x + region.width)


def _moved(frame: Frame, source: Window, target: Window) -> Frame:
    spec = oiio.ImageSpec(frame.metadata)
    spec.x, spec.y, spec.width, spec.height = target
    extra = tuple(replace(channel, samples=placed(channel.samples, source, target)) for channel in frame.extra)
    alpha = None if frame.alpha is None else placed(frame.alpha, source, target)
    return replace(frame, pixels=placed(frame.pixels, source, target), alpha=alpha, extra=extra, metadata=spec)
