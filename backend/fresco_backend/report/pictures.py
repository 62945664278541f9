# SPDX-License-Identifier: Apache-2.0
"""Pictures of a report: stills as WebP in data URLs, flow and occlusion made visible, and the contact sheet."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fresco_backend.files.frames import Size

Pixels = NDArray[np.uint8]
QUALITY = 82
GREY, INK, MARK = (43, 43, 43), (230, 230, 230), (242, 166, 90)
COLUMNS, GAP, CAPTION = 6, 6, 16


@dataclass(frozen=True, kw_only=True)
class Still:
    """What a contact sheet shows of one frame. rows: pictures one above the other, (h, w, 3), all of one size."""

    frame: int
    keyframe: bool
    rows: tuple[Pixels, ...]


def pixels(image: Tensor) -> Pixels:
    """8-bit RGB (H, W, 3) of a picture (3, H, W) in [-1, 1]."""
    return np.ascontiguousarray(((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def plane_pixels(plane: Tensor) -> Pixels:
    """8-bit RGB of a plane (1, H, W) in [0, 1]."""
    return pixels(plane.expand(3, -1, -1) * 2 - 1)


def flow_pixels(motion: Tensor, longest: float) -> Pixels:
    """Flow (2, H, W) in pixels as colour: hue tells the direction, saturation the length; white does not move.

    longest: length in pixels of full saturation, so that the pictures of one shot can be compared.
    """
    x, y = motion.numpy()
    length, angle = cv2.cartToPolar(x, y, angleInDegrees=True)
    share = np.clip(length / max(longest, 1e-6), 0, 1)
    hsv = np.stack([angle / 2, share * 255, np.full_like(share, 255)], axis=-1).round().astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def data_url(picture: Pixels) -> str:
    """A picture (H, W, 3) as a data URL."""
    whole, data = cv2.imencode(".webp", picture[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    if not whole:
        raise ValueError(f"OpenCV cannot encode a picture of shape {picture.shape} as WebP")
    return f"data:image/webp;base64,{base64.b64encode(data.tobytes()).decode('ascii')}"


def spread(numbers: Sequence[int], count: int, wanted: Iterable[int] = ()) -> tuple[int, ...]:
    """At most `count` of the ascending numbers, evenly spread, the first and the last among them.

    Each gives way to the nearest of the wanted ones, if one is nearer than half the distance between two.
    """
    if len(numbers) <= count:
        return tuple(numbers)
    step = (len(numbers) - 1) / max(count - 1, 1)
    even = [round(place * step) for place in range(count)]
    wanted = set(wanted)
    places = [place for place, number in enumerate(numbers) if number in wanted]
    inner = [min(places, key=lambda one: abs(one - place), default=place) for place in even[1:-1]]
    chosen = [near if abs(near - place) < step / 2 else place for near, place in zip(inner, even[1:-1], strict=True)]
    return tuple(numbers[place] for place in sorted({even[0], *chosen, even[-1]}))


def contact_sheet(title: str, stills: Sequence[Still]) -> Image.Image:
    """All stills in rows of six under a title, keyframes with a frame around their number."""
    height, width = stills[0].rows[0].shape[:2]
    cell = Size(width + GAP, len(stills[0].rows) * (height + 2) + CAPTION + GAP)
    columns = min(COLUMNS, len(stills))
    top = 28
    sheet = Image.new("RGB", (columns * cell.width + GAP, math.ceil(len(stills) / columns) * cell.height + top), GREY)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    draw.text((GAP, 6), title, fill=INK, font=ImageFont.load_default(15))
    for place, still in enumerate(stills):
        left, upper = GAP + place % columns * cell.width, top + place // columns * cell.height
        text = f"{still.frame} keyframe" if still.keyframe else str(still.frame)
        draw.text((left, upper), text, fill=MARK if still.keyframe else INK, font=font)
        for row, picture in enumerate(still.rows):
            sheet.paste(Image.fromarray(picture), (left, upper + CAPTION + row * (height + 2)))
    return sheet
