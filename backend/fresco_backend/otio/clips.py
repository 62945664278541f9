# SPDX-License-Identifier: Apache-2.0
"""The clips of a timeline that shall be done, and the frames of their plates that this takes."""

from __future__ import annotations

import fnmatch
import math
import os
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import opentimelineio as otio

from fresco_backend.files.movies import MovieReader, is_movie
from fresco_protocol.errors import InputError, RangeOutside, UsageError

MARK = "fresco"  # of a marker's name or a key of metadata, in any case
_BRACKETS = re.compile(r"\[(\d+)-(\d+)\]")  # Resolve's sequences: name.[1001-1048].exr

Clip = Any  # opentimelineio.schema.Clip; the library carries no types


@dataclass(frozen=True, kw_only=True)
class Media:
    """The plate of a clip. sequence: as a shot names it. first: number of the frame at the time `start`.

    start: of the media in source time, in frames at `rate`. length: frames that there are.
    """

    sequence: str
    first: int
    start: int
    length: int
    rate: float

    @property
    def is_movie(self) -> bool:
        """Whether it is a movie; its frames count from 1."""
        return is_movie(self.sequence)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """A clip that shall be done. name: unlike all others. start, count: what to render, in frames of source time."""

    name: str
    clip: Clip
    media: Media
    start: int
    count: int

    @property
    def numbers(self) -> tuple[int, int]:
        """The first and the last frame of the plate to render."""
        first = self.media.first + self.start - self.media.start
        return first, first + self.count - 1


def wanted_clips(timeline: Any, patterns: Sequence[str]) -> list[Clip]:
    """The clips whose names match, else those with a marker or metadata named "fresco". Raises UsageError for none."""
    clips = [clip for track in timeline.video_tracks() for clip in track.find_clips()]
    if patterns:
        found = [clip for clip in clips if any(fnmatch.fnmatchcase(clip.name, pattern) for pattern in patterns)]
    else:
        found = [clip for clip in clips if is_marked(clip)]
    if not found:
        names = ", ".join(dict.fromkeys(clip.name for clip in clips)) or "none"
        if patterns:
            raise UsageError(f"no clip is called {' or '.join(patterns)}", remedy=f"It has: {names}.")
        raise UsageError("no clip is named or marked", remedy=f'Give --clips, or a marker "fresco". It has: {names}.')
    return found


def is_marked(clip: Clip) -> bool:
    """Whether a clip has a marker or metadata named "fresco"."""
    return any(key.lower() == MARK for key in clip.metadata) or any(
        marker.name.strip().lower() == MARK for marker in clip.markers)


def usages(clips: Sequence[Clip], folder: Path, handles: int) -> list[Usage]:
    """What each clip takes of its plate, with handles and what its transitions show, as far as there is media.

    folder: of the timeline, for relative paths. Raises InputError and RangeOutside, which name the clip, and UsageError
    for handles that would take frames away.
    """
    if handles < 0:
        raise UsageError(f"handles of {handles} frames", where="--handles", remedy="Give 0 or more.")
    found: list[Usage] = []
    for clip in clips:
        name = _unlike(_plain(clip.name), {usage.name.casefold() for usage in found})
        found.append(_usage(name, clip, media_of(clip, folder), handles))
    return found


def media_of(clip: Clip, folder: Path) -> Media:
    """The plate of a clip. Raises InputError when its reference leads to none."""
    reference = clip.media_reference
    if isinstance(reference, otio.schema.ImageSequenceReference):
        return _sequence(clip, reference, folder)
    if not isinstance(reference, otio.schema.ExternalReference):
        raise InputError("the clip has no media", where=clip.name, remedy="Relink it in the editing program.")
    path = local_path(reference.target_url, folder)
    brackets = _BRACKETS.search(path.name)
    if brackets:
        return _resolves_sequence(clip, path, int(brackets[1]), int(brackets[2]), len(brackets[1]))
    if is_movie(path):
        return _movie(clip, path)
    raise InputError("its media is neither a movie nor a sequence", where=f"{clip.name}: {path}",
                     remedy="Stills take no look in time; give it a sequence or a movie.")


def local_path(url: str, folder: Path) -> Path:
    """The file of a URL, or of a bare path as Resolve writes it; a relative one lies below the timeline's folder."""
    return folder / (path_in(url, windows=os.name == "nt") if urlparse(url).scheme == "file" else url)


def path_in(url: str, *, windows: bool) -> str:
    """The path in a file's URL, with slashes.

    windows: "/D:/media" is a drive, also as Premiere writes it ("file://localhost/D%3a/media"), and a host has shares.
    """
    parsed = urlparse(url)
    path = unquote(parsed.path)
    if not windows:
        return path
    if parsed.netloc.lower() not in ("", "localhost"):
        return f"//{parsed.netloc}{path}"
    return re.sub("^/(?=[A-Za-z]:)", "", path)


def speed(clip: Clip) -> float:
    """Frames of media for one of the timeline; 1 without a change of speed. Raises UsageError for what is no speed."""
    factor = 1.0
    for effect in clip.effects:
        if isinstance(effect, otio.schema.LinearTimeWarp):
            factor *= effect.time_scalar
        elif isinstance(effect, otio.schema.TimeEffect):
            raise UsageError(f"clip {clip.name} changes its speed in a way that Fresco cannot follow",
                             remedy="Render that clip in the editing program first, and use the result.")
    if factor < 0:
        raise UsageError(f"clip {clip.name} runs backwards",
                         remedy="Render that clip in the editing program first, and use the result.")
    return factor


def _usage(name: str, clip: Clip, media: Media, handles: int) -> Usage:
    shown = clip.trimmed_range()
    before, after = _overlaps(clip, media.rate)
    start = _frames(shown.start_time, media.rate, clip)
    count = max(1, math.ceil(_frames(shown.duration, media.rate, clip) * speed(clip) - 1e-6))
    first = max(media.start, start - handles - before)
    last = min(media.start + media.length, start + count + handles + after) - 1
    if start < media.start or start + count > media.start + media.length:
        raise RangeOutside("the clip shows frames that its media does not have", where=clip.name,
                           remedy=f"{media.sequence} has {media.length} frames: relink it, and export again.")
    return Usage(name=name, clip=clip, media=media, start=first, count=last - first + 1)


def _overlaps(clip: Clip, rate: float) -> tuple[int, int]:
    """Frames of the media, at its rate, that the transitions beside a clip show of it beyond its own range."""
    before, after = clip.parent().neighbors_of(clip)
    shown = (before.in_offset if isinstance(before, otio.schema.Transition) else None,
             after.out_offset if isinstance(after, otio.schema.Transition) else None)
    head, tail = (0 if time is None else math.ceil(time.rescaled_to(rate).value * speed(clip) - 1e-6) for time in shown)
    return head, tail


def _sequence(clip: Clip, reference: Any, folder: Path) -> Media:
    if reference.frame_step != 1 or reference.available_range is None:
        raise InputError("its sequence has a step, or no range", where=clip.name, remedy="Reference every frame of it.")
    base = local_path(reference.target_url_base, folder)
    field = "#" * max(1, reference.frame_zero_padding)
    rate = reference.available_range.start_time.rate
    return Media(sequence=str(base / f"{reference.name_prefix}{field}{reference.name_suffix}"),
                 first=reference.start_frame, start=_frames(reference.available_range.start_time, rate, clip),
                 length=_frames(reference.available_range.duration, rate, clip), rate=rate)


def _resolves_sequence(clip: Clip, path: Path, first: int, last: int, digits: int) -> Media:
    available = clip.media_reference.available_range
    if available is None:
        raise InputError("its sequence has no range", where=clip.name, remedy="Export it as .otio")
    rate = available.start_time.rate
    return Media(sequence=str(path.with_name(_BRACKETS.sub("#" * digits, path.name))), first=first,
                 start=_frames(available.start_time, rate, clip), length=last - first + 1, rate=rate)


def _movie(clip: Clip, path: Path) -> Media:
    """A movie; what the timeline does not say of its range (an EDL says nothing) the file says."""
    available = clip.media_reference.available_range
    rate = clip.trimmed_range().start_time.rate
    if available is not None:
        rate = available.start_time.rate
        return Media(sequence=str(path), first=1, start=_frames(available.start_time, rate, clip),
                     length=_frames(available.duration, rate, clip), rate=rate)
    with closing(MovieReader(path)) as reader:
        length, timecode = reader.count, reader.timecode
    begins = _frames(otio.opentime.from_timecode(timecode, rate), rate, clip) if timecode else 0
    return Media(sequence=str(path), first=1, start=begins, length=length, rate=rate)


def _frames(time: Any, rate: float, clip: Clip) -> int:
    """A time as whole frames. Raises InputError when it lies between two."""
    value = float(time.rescaled_to(rate).value)
    if abs(value - round(value)) > 0.01:
        raise InputError(f"a cut lies between two frames of the media, at {value:.3f} of {rate:g} a second",
                         where=clip.name, remedy="Set the timeline to the rate of its media, or move the cut.")
    return round(value)


def exact(rate: float) -> Fraction:
    """A rate of OpenTimelineIO's, a float, as the rational that it stands for (SMPTE ST 12-1: n x 1000/1001).

    Any other, as telephones have it (26.777), is that of so many decimals.
    """
    dropped = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    if abs(float(dropped) - rate) < 0.005 and abs(rate - round(rate)) > 1e-6:
        return dropped
    return Fraction(rate).limit_denominator(1_000_000)


def _plain(name: str) -> str:
    """A name as a folder has it."""
    return re.sub(r"[^\w.-]+", "-", Path(name).stem, flags=re.ASCII).strip("-.") or "clip"


def _unlike(name: str, taken: set[str]) -> str:
    """A clip that is used again has another number; so has one that differs by case, which some disks do not tell."""
    names = (name, *(f"{name}_{count}" for count in range(2, len(taken) + 3)))
    return next(other for other in names if other.casefold() not in taken)
