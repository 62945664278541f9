# SPDX-License-Identifier: Apache-2.0
"""What this release really does: asked on a scratch timeline, which is deleted again. For `fresco resolve doctor`."""
from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from fresco_davinci.timeline.collect import timing
from fresco_davinci.timeline.host import Host, Item
from fresco_davinci.timeline.speed import speed_at

SCRATCH = "Fresco probe"
ASKED = 4  # frames, from the third on, of a sequence of eight


def probe(host: Host, pattern: str, *, first: int, last: int) -> dict[str, Any]:
    """How a scratch timeline counts: what endFrame, trackIndex, markers and takes mean here.

    pattern: a sequence of at least eight frames, first to last. Raises HostRefused; the project is then as it was.
    """
    project, pool, current = host.project, host.pool, host.project.GetCurrentTimeline()
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        scratch = host.granted(pool.CreateEmptyTimeline(SCRATCH), "make a scratch timeline")
        if current:
            stack.callback(project.SetCurrentTimeline, current)
        stack.callback(pool.DeleteTimelines, [scratch])
        if current:
            stack.callback(project.SetCurrentTimeline, current)  # before its deletion: a current one cannot be deleted
        media = host.granted(pool.ImportMedia([{"FilePath": pattern, "StartIndex": first, "EndIndex": last}]),
                             "import the probe's frames")[0]
        stack.callback(pool.DeleteClips, [media])
        project.SetCurrentTimeline(scratch)
        found["media"] = {key: media.GetClipProperty(key) for key in ("Start", "End", "Frames", "FPS", "File Path")}
        found["timeline"] = {"start": scratch.GetStartFrame(), "timecode": scratch.GetStartTimecode()}
        found["append"] = _appended(host, scratch, media, first + 2)
    return found


def _appended(host: Host, timeline: Item, media: Item, begin: int) -> dict[str, Any]:
    """What becomes of an item that is asked for as `begin` to `begin` + ASKED."""
    record = timeline.GetStartFrame() + 10
    host.pool.AppendToTimeline([{"mediaPoolItem": media, "startFrame": begin, "endFrame": begin + ASKED, "mediaType": 1,
                                 "trackIndex": 1, "recordFrame": record}])
    item = host.granted(timeline.GetItemListInTrack("video", 1), "append a clip to the scratch timeline")[0]
    marked = item.AddMarker(0, "Sky", "Fresco", "probe", 1, "fresco-probe")
    source = (item.GetSourceStartFrame(), item.GetSourceEndFrame()) if "GetSourceEndFrame" in dir(item) else None
    rate = timing(timeline)[0].fraction
    speed = speed_at(host, track=1, first=record, count=int(item.GetDuration()), rate=rate)
    return {"asked": ASKED, "duration": item.GetDuration(), "endFrame": _meaning(item.GetDuration()),
            "start": item.GetStart() - record, "end": item.GetEnd() - record, "left": item.GetLeftOffset(),
            "right": item.GetRightOffset(), "source": source, "marker at 0": bool(marked),
            "take": _took(item, media, begin), "speed in OTIO": None if speed is None else float(speed)}


def _took(item: Item, media: Item, begin: int) -> dict[str, Any]:
    """What becomes of a take with the same range."""
    added, count = item.AddTake(media, begin, begin + ASKED), item.GetTakesCount()
    selected = item.SelectTakeByIndex(count)
    return {"added": bool(added), "count": count, "selected": bool(selected), "duration": item.GetDuration(),
            "left": item.GetLeftOffset()}


def _meaning(duration: int) -> str:
    return {ASKED: "exclusive", ASKED + 1: "inclusive"}.get(duration, "unknown")


def objects(host: Host) -> dict[str, Item]:
    """One object of each kind that can be reached now, by the name of its kind."""
    project, timeline = host.project, host.project.GetCurrentTimeline()
    item = timeline.GetCurrentVideoItem() if timeline else None
    found = {"Resolve": host.resolve, "ProjectManager": host.resolve.GetProjectManager(), "Project": project,
             "MediaPool": host.pool, "Folder": host.pool.GetRootFolder(), "Timeline": timeline, "TimelineItem": item,
             "MediaPoolItem": item.GetMediaPoolItem() if item else None}
    return {kind: thing for kind, thing in found.items() if thing}
