# SPDX-License-Identifier: Apache-2.0
"""The double's export of a timeline as OTIO, in the shape of files that Resolve wrote (among the tests of AYON)."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resolve_timeline import Timeline, TimelineItem, Track

Document = dict[str, Any]


def written(timeline: Timeline) -> Document:
    """The document of a timeline; its rate is rounded as Resolve's settings show it."""
    rate = float(timeline.rate.split()[0])
    tracks = [track(timeline, one, rate) for one in timeline.tracks["video"]]
    return {"OTIO_SCHEMA": "Timeline.1", "name": timeline.name, "global_start_time": time(timeline.start, rate),
            "metadata": {"Resolve_OTIO": {"Resolve OTIO Meta Version": "1.0"}},
            "tracks": {"OTIO_SCHEMA": "Stack.1", "name": "", "children": tracks}}


def track(timeline: Timeline, one: Track, rate: float) -> Document:
    """A track, with gaps between its clips."""
    children: list[Document] = []
    at = timeline.start
    for item in sorted(one.items, key=lambda item: item.start):
        if item.start > at:
            children.append({"OTIO_SCHEMA": "Gap.1", "source_range": span(0, item.start - at, rate)})
        children.append(clip(item, rate))
        at = item.start + item.duration
    return {"OTIO_SCHEMA": "Track.1", "kind": "Video", "name": one.name, "children": children}


def clip(item: TimelineItem, rate: float) -> Document:
    """A clip: its source range is as long as it lies on the timeline; a warp of its time tells speed and direction."""
    media = item.shown.media
    start = item.lowest - media.first if media else 0
    warp = [{"OTIO_SCHEMA": "LinearTimeWarp.1", "metadata": {}, "name": "", "effect_name": "",
             "time_scalar": item.speed / 100}] if item.speed != 100 else []
    transform = {"OTIO_SCHEMA": "Effect.1", "effect_name": "Resolve Effect", "name": "", "metadata": {"Resolve_OTIO": {
        "Effect Name": "Transform", "Enabled": True, "Name": "Transform", "Parameters": [], "Type": 2}}}
    return {"OTIO_SCHEMA": "Clip.2", "metadata": {"Resolve_OTIO": {}}, "name": item.name, "effects": [*warp, transform],
            "source_range": span(start, item.duration, rate), "active_media_reference_key": "DEFAULT_MEDIA"}


def span(start: int, duration: int, rate: float) -> Document:
    """A TimeRange."""
    return {"OTIO_SCHEMA": "TimeRange.1", "start_time": time(start, rate), "duration": time(duration, rate)}


def time(value: float, rate: float) -> Document:
    """A RationalTime."""
    return {"OTIO_SCHEMA": "RationalTime.1", "rate": rate, "value": float(value)}
