# SPDX-License-Identifier: GPL-3.0-or-later
"""What a strip is made of: files that can be sent as they are, or pictures that must be rendered first, and why.

A strip goes as it is when the sequencer shows its files frame by frame and does nothing to them but fit them into the
picture; the result then gets the same fit. Everything else is exported.
"""
from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Optional

import bpy

from fresco_protocol.movie_times import comes_evenly, is_turned
from fresco_protocol.shot import Rate

from . import compat, spaces
from .animation import is_animated

RATE_TOLERANCE = 0.001  # frames per second; 23.976 and 24 differ by 0.024
LARGEST_NUMBER = 99_999_999  # as the language of Fresco allows
PATTERN_SIGNS = frozenset("#@%$")
TRIMMED = ("MOVIE", "IMAGE", "META", "SCENE")  # strips whose trims hide frames


@dataclass(frozen=True)
class Media:
    """Files of a strip. sequence: path pattern or movie. first: number of the first frame that was asked for.

    count: how many files were asked for. color_space, size (pixels): as the strip has them.
    """

    sequence: str
    first: int
    count: int
    color_space: str
    size: tuple[int, int]


def rate_of(scene: Any) -> Rate:
    """The frame rate of a scene as a rational: 24 over 1.001 is 24000/1001."""
    return Rate.parse(f"{scene.render.fps / scene.render.fps_base:.6f}".rstrip("0").rstrip("."))


def picture_size(scene: Any) -> tuple[int, int]:
    """Width and height of a scene's pictures at 100 %, pixels."""
    return scene.render.resolution_x, scene.render.resolution_y


def why_exported(scene: Any, strip: Any) -> Optional[str]:
    """Why a strip cannot go as files, as the end of a sentence; None if it can."""
    return next((reason for found, reason in _reasons(scene, strip) if found), None)


def _reasons(scene: Any, strip: Any) -> Iterator[tuple[bool, str]]:
    yield strip.type not in ("MOVIE", "IMAGE"), f"it is a {strip.type.lower().replace('_', ' ')} strip"
    yield len(strip.modifiers) > 0, "it has modifiers"
    yield compat.is_retimed(strip), "its speed is changed"
    yield strip.use_reverse_frames, "it runs backwards"
    yield strip.strobe > 1, "it strobes"
    yield _is_moved(strip), "it is transformed"
    yield strip.use_flip_x or strip.use_flip_y, "it is mirrored"
    yield strip.color_multiply != 1 or strip.color_saturation != 1, "its colours are changed"
    yield strip.use_deinterlace or strip.use_multiview, "its fields or views are separated"
    yield strip.colorspace_settings.name not in spaces.KNOWN, f"its colour space is {strip.colorspace_settings.name}"
    yield is_animated(scene, strip), "it is animated"
    yield strip.type == "MOVIE" and strip.stream_index > 0, "it shows another stream of its file than the first"
    yield strip.type == "MOVIE" and _is_resampled(scene, strip), "its frame rate is not the scene's"
    yield strip.type == "IMAGE" and len(strip.elements) < 2, "it is a still"


def _is_moved(strip: Any) -> bool:
    """Whether its pictures are cropped, shifted, turned or stretched; an even scale only fits them into the frame."""
    crop, transform = strip.crop, strip.transform
    even = abs(transform.scale_x - transform.scale_y) < 1e-6
    return bool(any((crop.min_x, crop.max_x, crop.min_y, crop.max_y, transform.offset_x, transform.offset_y,
                     transform.rotation)) or not even)


def _is_resampled(scene: Any, strip: Any) -> bool:
    own = strip.elements[0].orig_fps if len(strip.elements) else 0.0
    return bool(own) and abs(own - scene.render.fps / scene.render.fps_base) > RATE_TOLERANCE


def why_other_frames(strip: Any, start: int, end: int) -> Optional[str]:
    """Why a movie shows other frames than those that are counted from start to before end; None if it shows them."""
    if strip.type != "MOVIE":
        return None
    begin = compat.content_start(strip)
    if start < begin or end > begin + compat.content_duration(strip):
        return "it holds its first or last frame"
    path, rate = bpy.path.abspath(strip.filepath), strip.elements[0].orig_fps if len(strip.elements) else 0.0
    try:
        about = os.stat(path)
        return _why_read_otherwise(path, rate, about.st_mtime_ns, about.st_size)
    except OSError:  # a missing file is told elsewhere
        return None


@lru_cache(maxsize=64)
def _why_read_otherwise(path: str, rate: float, *_: int) -> Optional[str]:
    """Why the server would read other pictures of a movie than Blender shows, by its file; None if it would not.

    rate: frames a second. Further numbers tell the file's state: the answer is kept while they stay, for a panel asks
    at each redraw.
    """
    evenly = comes_evenly(path, rate)
    if evenly is None:
        return f"a file of the kind {os.path.splitext(path)[1].lower()} does not say whether its frames come evenly"
    if not evenly:
        return "its frames do not come evenly"
    return "its pictures lie on their side here" if not compat.TURNS_MOVIES and is_turned(path) else None


def media_of(strip: Any, start: int, end: int) -> Optional[Media]:
    """The files behind timeline frames from start to before end; None if they are no numbered sequence."""
    space = spaces.KNOWN[strip.colorspace_settings.name]
    size = (strip.elements[0].orig_width, strip.elements[0].orig_height)
    if strip.type == "MOVIE":  # its frames count from 1
        first = start - compat.content_start(strip) + compat.hard_trim(strip) + 1
        return Media(bpy.path.abspath(strip.filepath), first, end - start, space, size)
    names = [strip.strip_elem_from_frame(frame).filename for frame in range(start, end)]
    found = numbered(names)
    if found is None:
        return None
    name, first = found
    return Media(os.path.join(bpy.path.abspath(strip.directory), name), first, end - start, space, size)


def files_of(strip: Any, start: int, end: int) -> Iterator[str]:
    """The files that a strip shows from timeline frame start to before end, those inside metas and effects too."""
    if strip.type == "MOVIE":
        yield str(bpy.path.abspath(strip.filepath))
    elif strip.type == "IMAGE":
        names = dict.fromkeys(_element_of(strip, frame).filename for frame in range(start, end))
        yield from (os.path.join(bpy.path.abspath(strip.directory), name) for name in names)
    within = list(compat.strips_of(strip)) if strip.type == "META" else compat.inputs_of(strip)
    for inner in within:
        first, last = compat.span(inner)
        if not compat.is_retimed(strip):  # else any frame of it may be shown
            first, last = max(first, start), min(last, end)
        if first < last and not (inner.mute and strip.type == "META"):
            yield from files_of(inner, first, last)


def _element_of(strip: Any, frame: int) -> Any:
    """What an image strip shows at a timeline frame. Blender is asked only if it must be: it may set `strobe`."""
    if compat.is_retimed(strip) or strip.use_reverse_frames or strip.strobe > 1:
        return strip.strip_elem_from_frame(frame)
    index = frame - compat.content_start(strip) + compat.hard_trim(strip)
    return strip.elements[min(max(index, 0), len(strip.elements) - 1)]


def numbered(names: Sequence[str]) -> Optional[tuple[str, int]]:
    """("plate.####.exr", 1001) of names whose numbers follow one another; None of any others."""
    match = re.fullmatch(r"(.*?)(\d+)(\.\w+)", names[0])
    if match is None or PATTERN_SIGNS & set(match[1]):
        return None
    prefix, digits, suffix = match.groups()
    first, padding = int(digits), len(digits)
    due = [f"{prefix}{str(first + index).zfill(padding)}{suffix}" for index in range(len(names))]
    if due != list(names) or first + len(names) > LARGEST_NUMBER:
        return None
    return f"{prefix}{'#' * padding}{suffix}", first


def handles_of(strip: Any, start: int, end: int, wanted: int) -> tuple[int, int]:
    """How many frames a strip has before timeline frame `start` and from `end` on, `wanted` at most.

    Those that it shows there, and where it is made of media those that its trims hide, at whatever speed it runs.
    """
    shown = compat.span(strip)
    head, tail = compat.hidden(strip) if strip.type in TRIMMED else (0, 0)
    return min(wanted, start - shown[0] + head), min(wanted, shown[1] - end + tail)
