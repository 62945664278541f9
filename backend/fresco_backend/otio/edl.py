# SPDX-License-Identifier: Apache-2.0
"""EDL (CMX 3600), whose adapter passes over what decides which frame is meant: FCM, M2, and media that is only named;
and has the time code at which a record begins as a range of its tracks that lies before all that is in them.

FCM says whether the time codes after it drop frames, however they are punctuated. M2 says the speed of the event before
it in frames per second, negative backwards; the adapter looks at it only where the two durations differ. Source: CMX
3600; how Avid, Premiere and Resolve write it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import opentimelineio as otio

from fresco_backend.files.movies import is_movie
from fresco_protocol.errors import InputError, UsageError

ADAPTER = "cmx_3600"
KEPT = "fresco_edl"  # metadata: of a timeline {"drop": True}; of a clip {"m2": its line, "same": lengths are the same}
_NOTE = "FRESCO M2"
_EVENT = re.compile(r"^\d+\s.*\d\d:\d\d:\d\d[:;]\d\d")
_TIMECODE = re.compile(r"\b(\d\d:\d\d:\d\d)[:;](\d\d)\b")
_M2 = re.compile(r"^\s*M2\s+(?:.*?\s)?(-?\d+(?:\.\d+)?)(?:\s+\d\d:\d\d:\d\d[:;]\d\d)?\s*$")

Timeline = Any  # opentimelineio.schema.Timeline; the library carries no types


def read(path: Path, rate: Fraction) -> Timeline:
    """The timeline of an EDL at a rate. Its clips are named by the reel where nothing else names them.

    Raises what the adapter raises.
    """
    lines = list(_plain(path.read_text(encoding="utf-8-sig"), rate))
    timeline = otio.adapters.read_from_string("\n".join(lines) + "\n", ADAPTER, rate=float(rate))
    _begin(timeline)
    timeline.metadata[KEPT] = {"drop": any(_EVENT.match(line) and ";" in line for line in lines)}
    for clip in timeline.find_clips():
        _take_speed(clip, rate)
        reel = clip.metadata.get(ADAPTER, {}).get("reel")
        if reel and clip.name.isdigit():
            clip.name = reel
    return timeline


def write(timeline: Timeline, path: Path, rate: float) -> None:
    """Write a timeline. Time codes drop frames as those did that it came with; by default as usual for the rate.

    Raises UsageError for a changed speed, whose source range the adapter gets wrong.
    """
    made = timeline.deepcopy()
    tracks = sorted(made.tracks, key=lambda track: track.kind != otio.schema.TrackKind.Video)
    made.tracks.clear()
    made.tracks.extend(tracks)  # the adapter writes the first one
    if made.global_start_time is not None:
        for track in made.tracks:
            shown = track.trimmed_range()
            track.source_range = otio.opentime.TimeRange(shown.start_time - made.global_start_time, shown.duration)
    for clip in made.find_clips():
        kept = clip.metadata.get(KEPT, {})
        if kept.get("same"):
            clip.effects[:] = []
            clip.metadata.setdefault(ADAPTER, {}).setdefault("comments", []).append(f"{_NOTE} {kept['m2']}")
        elif any(isinstance(effect, otio.schema.TimeEffect) for effect in clip.effects):
            raise UsageError(f"clip {clip.name} changes its speed, and an EDL loses its range", where=path,
                             remedy="Write .otio, or render that clip in the editing program first.")
    text = otio.adapters.write_to_string(made, ADAPTER, rate=rate).replace(f"* {_NOTE} ", "")
    if timeline.metadata.get(KEPT, {}).get("drop") is False:
        text = "\n".join(_non_drop(line, rate) for line in text.split("\n"))
    path.write_text(text, encoding="utf-8")


def relink(timeline: Timeline, folder: Path, *, below: bool) -> None:
    """Give clips that only have a name the movie of this name, or of their reel's, in a folder; below: or below it.

    Raises InputError when several movies have it; a clip whose movie is not there stays as it is.
    """
    movies: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*") if below else folder.glob("*")):
        if is_movie(path) and path.is_file():
            movies.setdefault(path.stem.lower(), []).append(path)
    for clip in timeline.find_clips():
        if not isinstance(clip.media_reference, otio.schema.MissingReference):
            continue
        names = (clip.name, str(clip.metadata.get(ADAPTER, {}).get("reel", "")))
        found = next((movies[key] for name in names if (key := _stem(name)) in movies), [])
        if len(found) > 1:
            raise InputError(f"{len(found)} movies have the name of its clip", where=f"{clip.name}: {found[0]}",
                             remedy="Name a folder with --plates that has one of them.")
        if found:
            clip.media_reference = otio.schema.ExternalReference(found[0].absolute().as_uri())


def _plain(text: str, rate: Fraction) -> Iterator[str]:
    """The lines, with time codes that drop frames punctuated so, and each change of speed noted as a comment too."""
    drops, nominal = False, round(rate)
    for line in text.splitlines():
        if line.strip().upper().startswith("FCM"):
            drops = "NON" not in line.upper()
        if _EVENT.match(line) and drops and nominal in (30, 60) and rate.denominator != 1:
            yield _TIMECODE.sub(r"\1;\2", line)
        elif (m2 := _M2.match(line)) is not None:
            yield _TIMECODE.sub(r"\1:\2", line)  # its time code is not used, and the adapter stumbles over ";"
            if abs(float(m2[1]) - float(rate)) > 0.1:  # "024.0" is as it is at 23.976
                yield f"* {_NOTE} {line.strip()}"
        else:
            yield line


def _begin(timeline: Timeline) -> None:
    """Give the timeline the time code at which its record begins, and tracks that begin later a gap."""
    begins = [(track, -track.source_range.start_time) for track in timeline.tracks if track.source_range is not None]
    if not begins:
        return
    timeline.global_start_time = first = min(start for _, start in begins)
    for track, start in begins:
        track.source_range = None
        if start > first:
            none = otio.opentime.RationalTime(0, start.rate)
            track.insert(0, otio.schema.Gap(source_range=otio.opentime.TimeRange(none, start - first)))


def _take_speed(clip: Any, rate: Fraction) -> None:
    """Make an effect of the note of a changed speed, also where both lengths are the same."""
    kept = clip.metadata.get(ADAPTER, {})
    notes = [note for note in kept.get("comments", []) if note.startswith(_NOTE)]
    if notes:
        kept["comments"] = [note for note in kept["comments"] if not note.startswith(_NOTE)]
        line = notes[-1].removeprefix(_NOTE).strip()
        clip.metadata[KEPT] = {"m2": line, "same": not clip.effects}
        if not clip.effects and (found := _M2.match(line)):
            clip.effects.append(otio.schema.LinearTimeWarp(time_scalar=float(found[1]) / float(rate)))


def _non_drop(line: str, rate: float) -> str:
    def counted(match: re.Match[str]) -> str:
        return str(otio.opentime.to_timecode(otio.opentime.from_timecode(match[0], rate), rate, drop_frame=False))

    return _TIMECODE.sub(counted, line) if _EVENT.match(line) or line.startswith("M2") else line


def _stem(name: str) -> str:
    return Path(name).stem.lower() if is_movie(name) else name.lower()
