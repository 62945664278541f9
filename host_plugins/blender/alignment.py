# SPDX-License-Identifier: GPL-3.0-or-later
"""Results and the strips they were made of: where a result belongs now that its source was moved, slipped or trimmed.

A result is a strip of its own, free to be cut and moved. It carries where its first frame lies against the first frame
of its source's media, which neither moving nor slipping nor trimming changes.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import bpy

from fresco_protocol.errors import InputError, RangeOutside

from . import compat, results, timeline
from .timeline import Clip


class Place(NamedTuple):
    """Where a strip lies: the timeline frame of the first frame of its media, and the frames [start, end) it shows."""

    content: int
    start: int
    end: int


def place_of(strip: Any) -> Place:
    """Where a strip lies now."""
    return Place(compat.content_start(strip), *compat.span(strip))


def strips_by_name(scene: Any) -> dict[str, Any]:
    """All strips of a scene, those inside metas too."""
    return {strip.name: strip for strip in compat.all_strips_of(scene.sequence_editor)}


def due(strip: Any, record: dict[str, Any], strips: Mapping[str, Any]) -> tuple[Place, int]:
    """Where a result belongs, and how many frames of its source it does not have. strips: of its scene, by name.

    Raises InputError when that cannot be known, RangeOutside when the source shows none of its frames.
    """
    follows = record.get("follows") or {}
    source = strips.get(follows.get("strip", ""))
    if source is None:
        raise InputError("the strip that it was made of is gone", where=follows.get("strip", strip.name),
                         remedy="Give it its name again, or move the result by hand.")
    if timeline.speed_of(source) != follows["speed"]:
        raise InputError("the speed of its strip was changed since", where=source.name,
                         remedy="Stylise the strip again.")
    content = compat.content_start(source) + follows["shift"]
    shown = compat.span(source)
    start, end = max(content, shown[0]), min(content + compat.content_duration(strip), shown[1])
    if start >= end:
        raise RangeOutside("the strip shows none of the frames that were stylised", where=source.name,
                           remedy="Stylise it again.")
    return Place(content, start, end), shown[1] - shown[0] - (end - start)


def moved(clip: Clip, key: str) -> Clip:
    """A clip where its job's result lies now, else where its strip does; as it was when both are gone."""
    scene, result = results.strip_of_job(key)
    home = scene or bpy.data.scenes.get(clip.scene)
    source = strips_by_name(home).get(clip.strip) if home is not None and home.sequence_editor else None
    if result is None and source is None:
        return clip
    outer = compat.content_start(result) if result is not None else compat.content_start(source) + clip.shift
    by = outer - clip.outer_start
    return replace(clip, scene=home.name, start=clip.start + by, end=clip.end + by)


def misplaced() -> frozenset[str]:
    """The keys of the results that are not where their sources would have them; a result that is cut shorter is."""
    found, strips = set(), {scene: strips_by_name(scene) for scene in bpy.data.scenes if scene.sequence_editor}
    for scene, strip, record in results.every():
        try:
            place, _ = due(strip, record, strips[scene])
        except InputError:
            continue
        now = place_of(strip)
        if now.content != place.content or now.start < place.start or now.end > place.end:
            found.add(record["key"])
    return frozenset(found)


def selected_groups(context: Any) -> list[str]:
    """The groups of versions of which a result is selected."""
    scene = compat.sequencer_scene(context)
    chosen = compat.selected_strips(context, scene) if scene is not None else []
    return list(dict.fromkeys(record["group"] for _, strip, record in results.every() if strip in chosen))


def snap(group: str) -> int:
    """Puts all versions of a result where their source has them; how many frames of the source have no result.

    Raises InputError when that cannot be known; then nothing is moved.
    """
    versions = [(scene, strip, record["key"], *due(strip, record, strips_by_name(scene)))
                for scene, strip, record in results.every() if record.get("group") == group]
    pieces: dict[Any, list[Any]] = {}
    for scene, strip, key, *_ in versions:
        pieces.setdefault((scene, key), []).append(strip)
    places = [_of_piece(strip, place, pieces[scene, key]) for scene, strip, key, place, _ in versions]
    moves = [(scene, strip, place) for (scene, strip, *_), place in zip(versions, places)]
    for move in sorted(moves, key=_turn):
        _move(*move)
    return min((missing for *_, missing in versions), default=0)


def _turn(move: tuple[Any, Any, Place]) -> int:
    """The order of moves: a piece goes first whose neighbour would move onto it, which keeps them on one channel."""
    _, strip, place = move
    start: int = compat.span(strip)[0]
    return -start if place.content > compat.content_start(strip) else start


def _of_piece(strip: Any, place: Place, pieces: list[Any]) -> Place:
    """Where a piece of a result belongs that is due at `place`: its cuts stay at their frames, its outer ends do not.

    pieces: all of the result. One of which the source shows nothing keeps its length, beside the source.
    """
    by = place.content - compat.content_start(strip)
    start, end = (frame + by for frame in compat.span(strip))
    inner = [tuple(frame - compat.content_start(piece) for frame in compat.span(piece)) for piece in pieces]
    first, last = min(begin for begin, _ in inner), max(stop for _, stop in inner)
    cut = Place(place.content, place.start if start - place.content == first else max(start, place.start),
                place.end if end - place.content == last else min(end, place.end))
    return cut if cut.start < cut.end else Place(place.content, start, end)


def _move(scene: Any, strip: Any, place: Place) -> None:
    """On its channel where that is free, else on the next above that is."""
    level = strip.parent_meta() or scene.sequence_editor
    others = [other for other in compat.strips_of(level) if other != strip and other.channel == strip.channel]
    if any(compat.span(other)[0] < place.end and place.start < compat.span(other)[1] for other in others):
        strip.channel = timeline.free_channel(scene, strip, place.start, place.end, moving=strip)
    compat.place(strip, *place)
