# SPDX-License-Identifier: Apache-2.0
"""How fast a clip runs, and which way: no call tells it before 21.1, but Resolve's own export of the timeline does.

Resolve writes a clip of changed speed with a LinearTimeWarp, and -1 for one that runs backwards; the getters of such a
clip look like those of one that runs forwards. Source: OTIO files that Resolve wrote, among the tests of AYON.
"""
from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Optional

from fresco_davinci.clip import Clip
from fresco_davinci.timeline.host import Host

TIMED = ("LinearTimeWarp.", "FreezeFrame.", "TimeEffect.")  # schemas of what changes a clip's time

Document = dict[str, Any]


def speed_of(host: Host, clip: Clip) -> Optional[Fraction]:
    """The speed of a clip, as `speed_at` gives it."""
    return speed_at(host, track=clip.track, first=clip.first, count=clip.count, rate=clip.rate.fraction)


def speed_at(host: Host, *, track: int, first: int, count: int, rate: Fraction) -> Optional[Fraction]:
    """Frames of the media for one of the timeline, negative backwards, 0 for what does not run evenly.

    track, first, count: where the clip lies. None when Resolve does not export the timeline, or no clip lies there in
    what it wrote.
    """
    timeline = host.timeline
    place, tracks = (first - int(timeline.GetStartFrame()), count), int(timeline.GetTrackCount("video"))
    try:
        written = _video_tracks(_exported(host))
        asked = [written[track - 1]] if len(written) == tracks else written  # else it leaves some out
        found = {_speed(item) for one in asked for item, *there in _placed(one, rate)
                 if tuple(there) == place and str(item["OTIO_SCHEMA"]).startswith("Clip.")}
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):  # not what an OTIO looks like
        return None
    return found.pop() if len(found) == 1 else None


def _exported(host: Host) -> Document:
    """The timeline as OTIO. Raises OSError when there is none, ValueError when it is no JSON."""
    with tempfile.TemporaryDirectory(prefix="fresco-") as folder:
        path = Path(folder) / "timeline.otio"
        host.timeline.Export(str(path), host.resolve.EXPORT_OTIO, host.resolve.EXPORT_NONE)
        document: Document = json.loads(path.read_text(encoding="utf-8"))
        return document


def _video_tracks(document: Document) -> list[Document]:
    """From the lowest up."""
    return [track for track in document["tracks"]["children"] if track["kind"] == "Video"]


def _placed(track: Document, rate: Fraction) -> Iterator[tuple[Document, int, int]]:
    """What lies on a track, with its first frame, counted from the timeline's start, and its frames."""
    at = Fraction(0)
    for item in track["children"]:
        if str(item["OTIO_SCHEMA"]).startswith("Transition."):
            continue  # lies over its neighbours
        end = at + _frames((item.get("source_range") or _available(item))["duration"], rate)
        yield item, round(at), round(end) - round(at)
        at = end


def _available(item: Document) -> Document:
    reference: Document = item["media_references"][item.get("active_media_reference_key", "DEFAULT_MEDIA")]
    found: Document = reference["available_range"]
    return found


def _frames(time: Document, rate: Fraction) -> Fraction:
    """A time in frames of the timeline; Resolve's rate is rounded (23.976), which must not add up over hours."""
    value, own = Fraction(float(time["value"])), float(time["rate"])
    return value if abs(own - float(rate)) < 0.01 else value / Fraction(own) * rate


def _speed(item: Document) -> Fraction:
    speed = Fraction(1)
    for effect in item.get("effects") or ():
        if str(effect["OTIO_SCHEMA"]).startswith(TIMED):
            speed *= Fraction(float(effect.get("time_scalar", 0)))  # one that varies has none
    return speed
