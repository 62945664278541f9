# SPDX-License-Identifier: Apache-2.0
"""Which clips are meant, and all that must be known of them."""
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Optional

from fresco_davinci.clip import Clip, Media, Record, frames_of, rate_of, sequence_pattern
from fresco_davinci.timeline.host import Host, Item
from fresco_protocol.errors import InputError
from fresco_protocol.shot import Rate

TRACK = "FRESCO"  # begins the names of tracks that hold results
MANAGED = "davinciYRGBColorManaged"  # begins the modes of Resolve's own colour management
MARK = "fresco:"  # begins the custom data of our markers; the path of the record follows
LOST_DECIMALS = (23, 29, 47, 59, 95, 119)  # no timeline runs at these rates


def collect(host: Host) -> tuple[Clip, ...]:
    """The selected clips (21.0.4 and later), else the clip under the playhead; results of Fresco are looked through.

    Raises InputError when there is none.
    """
    timeline = host.timeline
    found = [pair for pair in _chosen(timeline) if not is_ours(timeline, pair[0])] or _beneath(host, timeline)
    if not found:
        raise InputError("no video clip lies under the playhead", where=timeline.GetName(),
                         remedy="Put the playhead onto a clip, or select clips (21.0.4 and later).")
    return tuple(_clip(host, timeline, track, item) for track, item in found)


def records(host: Host) -> tuple[str, ...]:
    """Paths of the records of the results that are selected or under the playhead, for redo. Raises InputError."""
    timeline = host.timeline
    found = [path for _, item in _chosen(timeline) for path in _marked(item)]
    if not found:
        raise InputError("the clip under the playhead is no result of Fresco", where=timeline.GetName(),
                         remedy="Put the playhead onto a clip that Fresco placed.")
    return tuple(dict.fromkeys(found))


def _marked(item: Item) -> list[str]:
    """The records that a clip's markers name, the newest last."""
    texts = [str(mark.get("customData", "")) for _, mark in sorted((item.GetMarkers() or {}).items())]
    return [text[len(MARK):] for text in texts if text.startswith(MARK)][-1:]


def _chosen(timeline: Item) -> list[tuple[int, Item]]:
    places = {item.GetUniqueId(): (track, item) for track, item in items(timeline)}
    selected = (timeline.GetSelectedClips() or []) if "GetSelectedClips" in dir(timeline) else []
    current = timeline.GetCurrentVideoItem()
    wanted = [item.GetUniqueId() for item in selected] or ([current.GetUniqueId()] if current else [])
    return [places[id] for id in wanted if id in places]


def items(timeline: Item) -> Iterator[tuple[int, Item]]:
    """Every clip with the number of its video track; "None" for an empty track is no clip."""
    for track in range(1, timeline.GetTrackCount("video") + 1):
        yield from ((track, item) for item in timeline.GetItemListInTrack("video", track) or ())


def is_ours(timeline: Item, track: int) -> bool:
    return str(timeline.GetTrackName("video", track)).startswith(TRACK)


def _beneath(host: Host, timeline: Item) -> list[tuple[int, Item]]:
    """The highest clip at the playhead that is switched on, on an enabled track that is not ours."""
    frame = playhead(timeline)
    if frame is None:
        raise InputError("this page of Resolve does not tell where the playhead is", where=timeline.GetName(),
                         remedy="Go to the Edit or the Color page, and do it again.")
    under = [(track, item) for track, item in items(timeline)
             if item.GetStart() <= frame < item.GetStart() + item.GetDuration()
             and not is_ours(timeline, track) and timeline.GetIsTrackEnabled("video", track)
             and item.GetClipEnabled() is not False]
    return under[-1:]


def playhead(timeline: Item) -> Optional[int]:
    """Its absolute frame: the distance of two timecodes, so that no convention of counting matters, nor midnight.

    None on the Media and Fusion pages, which do not tell it.
    """
    rate, drop = timing(timeline)
    shown = timeline.GetCurrentTimecode()
    if not shown:
        return None
    current, start, day = (frames_of(str(text), rate, drop_frame=drop) for text in (
        shown, timeline.GetStartTimecode(), "24:00:00:00"))
    return int(timeline.GetStartFrame()) + (current - start) % day


def timing(timeline: Item) -> tuple[Rate, bool]:
    """Its rate, and whether its timecode drops frames: a setting of its own, or "DF" behind the rate.

    Resolve on Windows in a region with a decimal comma has been seen to lose the decimals: 29 is 29.97 then.
    """
    rate, drop = rate_of(str(timeline.GetSetting("timelineFrameRate")))
    if rate.fraction in LOST_DECIMALS:
        rate = Rate(numerator=1000 * (rate.numerator + 1), denominator=1001)
    return rate, (drop or str(timeline.GetSetting("timelineDropFrameTimecode")) == "1"
                  or re.search("[;,]", str(timeline.GetStartTimecode())) is not None)  # a comma with fields


def _clip(host: Host, timeline: Item, track: int, item: Item) -> Clip:
    rate, drop = timing(timeline)
    first, count, media = int(item.GetStart()), int(item.GetDuration()), _media(item.GetMediaPoolItem())
    head, tail = (int(item.GetLeftOffset()), int(item.GetRightOffset())) if media else (0, 0)
    at = playhead(timeline)
    position = at - first + 1 if at is not None and first <= at < first + count else None
    return Clip(
        timeline=timeline.GetUniqueId(), timeline_name=timeline.GetName(), project=str(host.project.GetName() or ""),
        item=item.GetUniqueId(), name=str(item.GetName()), track=track, first=first, count=count, rate=rate,
        drop_frame=drop, media=media, head=head, tail=tail, playhead=position,
        size=tuple(int(timeline.GetSetting(f"timelineResolution{side}")) for side in ("Width", "Height")),
        space=_space(host, timeline),
        steady=media is not None and _is_steady(item, media, rate, head + count + tail))


def _space(host: Host, timeline: Item) -> Optional[str]:
    """What Resolve renders in, by its own words: "Rec.709 Gamma 2.4", and "ACES" before an output transform of ACES."""
    mode = str(host.project.GetSetting("colorScienceMode"))
    if mode.startswith("aces"):
        return f"ACES {timeline.GetSetting('colorAcesODT') or ''}".strip()
    key = "colorSpaceOutput" if mode.startswith(MANAGED) else "colorSpaceTimeline"
    space, curve = str(timeline.GetSetting(key) or ""), str(timeline.GetSetting(f"{key}Gamma") or "")
    apart = str(timeline.GetSetting("separateColorSpaceAndGamma")) == "1"  # then the curve is a setting of its own
    return (f"{space} {curve}" if apart and not space.endswith(curve) else space) or None


def _media(pool_item: Item) -> Optional[Media]:
    """What lies behind a clip; None when it is made inside Resolve, or when Resolve does not count its frames."""
    path = str(pool_item.GetClipProperty("File Path") or "") if pool_item else ""
    first, last, rate, size, space = (str(pool_item.GetClipProperty(key) or "") if path else "" for key in (
        "Start", "End", "FPS", "Resolution", "Input Color Space"))
    if not (path and re.fullmatch(r"-?\d+", first) and re.fullmatch(r"-?\d+", last) and rate):
        return None
    pattern, sides = sequence_pattern(path), re.fullmatch(r"(\d+)x(\d+)", size)
    return Media(path=pattern or path, sequence=pattern is not None, rate=rate_of(rate)[0], first=int(first),
                 last=int(last), size=(int(sides[1]), int(sides[2])) if sides else None, color_space=space or None)


def _is_steady(item: Item, media: Media, rate: Rate, span: int) -> bool:
    """Whether the media runs at its own speed: by rates, by the room to both sides, by the source range, by speed.

    GetSourceEndFrame is read both ways by different releases, and short by up to two frames; that the speed is changed
    so little is told by the export.
    """
    speed = item.GetProperty("Speed")
    shown = (item.GetSourceEndFrame() - item.GetSourceStartFrame() if "GetSourceEndFrame" in dir(item)
             else item.GetDuration())
    return (media.rate == rate and abs(span - media.count) <= 1 and abs(shown - item.GetDuration()) <= 2
            and not (isinstance(speed, (int, float)) and speed != 100))


def here(host: Host, record: Record, path: str) -> Record:
    """A record, whose file is `path`, as it stands for the current timeline: an editor may have duplicated its own.

    The markers of a duplicate still name it, and its items have other ids. Raises InputError when the clip does not lie
    there as it did.
    """
    timeline, clip = host.timeline, record.clip
    if timeline.GetUniqueId() == clip.timeline:
        return record
    marked = [item for _, item in items(timeline) if path in _marked(item)]
    found = [item for track, item in items(timeline)
             if (track, item.GetStart(), item.GetDuration()) == (clip.track, clip.first, clip.count)
             and (item.GetName() == clip.name or path in _marked(item))]
    if not found:
        raise InputError(f'the clip does not lie here as it did on the timeline "{clip.timeline_name}"',
                         where=clip.name, remedy="Stylise the clip itself, as it is on this timeline.")
    clip = replace(clip, timeline=timeline.GetUniqueId(), timeline_name=timeline.GetName(),
                   item=found[0].GetUniqueId())
    return replace(record, clip=clip, placed=marked[0].GetUniqueId() if marked else None)


def find(host: Host, clip: Clip) -> Item:
    """The clip's item as it is now; current is its timeline. Raises InputError when it is gone or was moved."""
    timeline = host.timeline
    if timeline.GetUniqueId() != clip.timeline:
        raise InputError(f'the timeline "{clip.timeline_name}" is no longer the current one', where=clip.name,
                         remedy="Open it again, and do it again.")
    found = [item for track, item in items(timeline) if item.GetUniqueId() == clip.item]
    if not found or (found[0].GetStart(), found[0].GetDuration()) != (clip.first, clip.count):
        raise InputError("the clip was moved, trimmed or deleted meanwhile", where=clip.name,
                         remedy="Do it again with the clip as it is now.")
    return found[0]
