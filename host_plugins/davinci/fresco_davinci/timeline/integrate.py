# SPDX-License-Identifier: Apache-2.0
"""Delivered frames -> the media pool and the timeline, frame-exact, and proven by reading back."""
from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional

from fresco_davinci.clip import Clip, Destination, Input, Result, Wish, rate_text
from fresco_davinci.timeline.collect import MANAGED, MARK, TRACK, find, items
from fresco_davinci.timeline.host import Host, Item
from fresco_protocol.errors import HostRefused, InputError

BIN = "Fresco"
COPIED = ("Pan", "Tilt", "ZoomX", "ZoomY", "ZoomGang", "RotationAngle", "AnchorPointX", "AnchorPointY", "Pitch", "Yaw",
          "FlipX", "FlipY", "CropLeft", "CropRight", "CropTop", "CropBottom", "CropSoftness", "CropRetain",
          "Distortion", "Scaling", "CompositeMode", "Opacity")


def integrate(host: Host, clip: Clip, wish: Wish, result: Result, placed: Optional[str] = None) -> Optional[str]:
    """Imports a result, puts it where it is wanted and proves that it landed; gives the unique id of its item.

    placed: item that shows an earlier version; the new one becomes a take of it, trimmed as it is, unless it was moved
    off the clip. None comes back when nothing lies on the timeline. Raises HostRefused or InputError, and then no clip
    is on it, nor in the media pool, that was not there before.
    """
    with _at(host, clip), _imported(host, result) as media:
        _describe(host, clip, wish, result, media)
        if wish.destination is not Destination.POOL:
            return _on_timeline(host, clip, wish, result, media, placed)
        return None


@contextmanager
def _at(host: Host, clip: Clip) -> Iterator[None]:
    """Inside, the clip's timeline is current: appends go nowhere else. Then timeline and page are the user's again."""
    project, page, current = host.project, host.resolve.GetCurrentPage(), host.timeline
    if current.GetUniqueId() != clip.timeline:
        timelines = [project.GetTimelineByIndex(number + 1) for number in range(project.GetTimelineCount())]
        found = [timeline for timeline in timelines if timeline and timeline.GetUniqueId() == clip.timeline]
        if not found:
            raise InputError(f'the timeline "{clip.timeline_name}" is gone', where=clip.name,
                             remedy="The frames are delivered: import them by hand.")
        host.granted(project.SetCurrentTimeline(found[0]), "open the clip's timeline")
    try:
        yield
    finally:
        if host.timeline.GetUniqueId() != current.GetUniqueId():
            project.SetCurrentTimeline(current)
        if page and host.resolve.GetCurrentPage() != page:
            host.resolve.OpenPage(page)


def _on_timeline(host: Host, clip: Clip, wish: Wish, result: Result, media: Item, placed: Optional[str]) -> str:
    record, count = _place(clip, wish)
    earlier = [item for _, item in items(host.timeline) if placed and item.GetUniqueId() == placed
               and record <= item.GetStart() and item.GetStart() + item.GetDuration() <= record + count]
    if earlier or wish.destination is Destination.TAKE:
        item = earlier[0] if earlier else find(host, clip)
        _add_take(host, item, media, result, begin=result.first + result.head + item.GetStart() - record)
    else:
        source = find(host, clip)
        item = _append(host, clip, wish, result, media)
        if wish.input is Input.SOURCE:
            _dress(host, source, item)
        item.SetClipColor("Orange")
    _mark(host, item, wish, result)
    return str(item.GetUniqueId())


@contextmanager
def _imported(host: Host, result: Result) -> Iterator[Item]:
    """The result in the bin "Fresco" of the media pool; out of it again when what is done with it fails."""
    pool, current = host.pool, host.pool.GetCurrentFolder()
    root = pool.GetRootFolder()
    bins = [folder for folder in root.GetSubFolderList() or () if folder.GetName() == BIN]
    host.granted(pool.SetCurrentFolder(bins[0] if bins else host.granted(pool.AddSubFolder(root, BIN), "make a bin")),
                 "open the bin")
    try:
        found = pool.ImportMedia([{"FilePath": result.sequence, "StartIndex": result.first, "EndIndex": result.last}])
    finally:
        if current:
            pool.SetCurrentFolder(current)
    media = host.granted(found, "import the result")[0]
    try:
        yield media
    except BaseException:
        if not host.gone and pool.DeleteClips([media]) in (None, False):
            host.notice(f'{result.sequence} is left in the bin "{BIN}" of the media pool: delete it there.')
        raise


def _describe(host: Host, clip: Clip, wish: Wish, result: Result, media: Item) -> None:
    """Gives what was imported its rate, its colour space and the shot. Raises HostRefused if its frames are others."""
    first, count = (str(media.GetClipProperty(key)) or "?" for key in ("Start", "Frames"))  # it may not count them
    if [int(text) if re.fullmatch(r"-?\d+", text) else text for text in (first, count)] != [result.first, result.count]:
        raise HostRefused(f"Resolve imported {count} frames from {first} on, in place of {result.count} from "
                          f"{result.first} on", where=result.sequence, remedy="Import the sequence by hand.")
    rate = rate_text(clip.rate)
    if media.GetClipProperty("FPS") != rate:
        host.granted(media.SetClipProperty("FPS", rate), f"set {rate} fps on the result")
    _declare_space(host, clip, wish, media)
    if "SetThirdPartyMetadata" in dir(media):
        host.granted(media.SetThirdPartyMetadata({"fresco.record": result.record, "fresco.prompt": wish.look.prompt}),
                     "keep the shot with the result")


def _declare_space(host: Host, clip: Clip, wish: Wish, media: Item) -> None:
    """The result has the plate's own space: that of the media, or of Resolve's output."""
    mode = str(host.project.GetSetting("colorScienceMode"))
    space = clip.space if wish.input is Input.GRADED else clip.media and clip.media.color_space
    if mode.startswith(MANAGED) and space and not media.SetClipProperty("Input Color Space", space):
        host.notice(f"Set the input colour space of the result to {space} by hand: Resolve did not take it.")
    if mode.startswith("aces"):
        host.notice("Set the ACES input transform of the result by hand: that of its source, or of the output.")


def _place(clip: Clip, wish: Wish) -> tuple[int, int]:
    """Where the wanted frames of a clip lie: the first one, absolute, and how many they are."""
    part = wish.range_in(clip)
    return clip.first + part.first - 1, part.last - part.first + 1


def _append(host: Host, clip: Clip, wish: Wish, result: Result, media: Item) -> Item:
    """The result on a track of ours. Whether `endFrame` is in or out is read back, and the other way is tried."""
    (record, count), begin = _place(clip, wish), result.first + result.head
    with _free_track(host, clip, record, count) as track:
        for end in (begin + count, begin + count - 1):
            host.pool.AppendToTimeline([{"mediaPoolItem": media, "startFrame": begin, "endFrame": end, "mediaType": 1,
                                         "trackIndex": track, "recordFrame": record}])
            landed = [item for item in host.timeline.GetItemListInTrack("video", track) or ()
                      if item.GetMediaPoolItem() and item.GetMediaPoolItem().GetUniqueId() == media.GetUniqueId()]
            shown = [(item.GetStart(), item.GetDuration(), item.GetLeftOffset()) for item in landed]
            if shown == [(record, count, result.head)]:
                return landed[0]
            if landed:
                host.resolve.OpenPage("edit")  # clips are deleted there only
                host.granted(host.timeline.DeleteClips(landed, False), "take back a clip that landed wrong")
        raise HostRefused(f"the result did not land at frame {record} with {count} frames", where=clip.name,
                          remedy=f"Import {result.sequence} by hand, or place it into the media pool only "
                                 "(--place pool).")


@contextmanager
def _free_track(host: Host, clip: Clip, first: int, count: int) -> Iterator[int]:
    """A track of ours above the clip that is free there, seen and not locked; else a new one.

    A new one is taken away again when what is done on it fails and leaves it empty.
    """
    timeline = host.timeline
    names = [str(timeline.GetTrackName("video", track)) for track in range(1, timeline.GetTrackCount("video") + 1)]
    for track in range(clip.track + 1, len(names) + 1):
        items = timeline.GetItemListInTrack("video", track) or ()
        taken = any(item.GetStart() < first + count and first < item.GetStart() + item.GetDuration() for item in items)
        if names[track - 1].startswith(TRACK) and not taken and not timeline.GetIsTrackLocked("video", track) \
                and timeline.GetIsTrackEnabled("video", track):
            yield track
            return
    host.granted(timeline.AddTrack("video"), "add a video track")
    if timeline.GetTrackCount("video") == len(names):  # stale until the page changes, as reported
        host.resolve.OpenPage("edit")
    track = int(timeline.GetTrackCount("video"))
    if track != len(names) + 1:
        raise host.refusal("add a video track")
    try:
        name = next(name for name in (TRACK, *(f"{TRACK} {n}" for n in range(2, 1000))) if name not in names)
        host.granted(timeline.SetTrackName("video", track, name), "name the track")
        yield track
    except BaseException:
        _take_back(host, track)
        raise


def _take_back(host: Host, track: int) -> None:
    """Deletes a track that we added and that is still the highest one, unless something lies on it."""
    timeline = host.timeline
    if timeline.GetTrackCount("video") != track or timeline.GetItemListInTrack("video", track):
        return
    if timeline.DeleteTrack("video", track) in (None, False):
        host.notice(f"The empty video track {track} is left: delete it.")


def _add_take(host: Host, item: Item, media: Item, result: Result, *, begin: int) -> None:
    """The result from frame `begin` on as a take, selected; the clip stays where it is, or the take is taken back."""
    place, before = (item.GetStart(), item.GetDuration()), item.GetSelectedTakeIndex() or 1
    for end in (begin + place[1], begin + place[1] - 1):
        host.granted(item.AddTake(media, begin, end), "add a take")
        take = item.GetTakesCount()
        selected = item.SelectTakeByIndex(take)
        if selected and (item.GetStart(), item.GetDuration(), item.GetLeftOffset()) == (*place, begin - result.first):
            return
        item.SelectTakeByIndex(before)
        host.granted(item.DeleteTakeByIndex(take), "take back a take")
        host.granted(selected, "select the take")
    raise HostRefused("the take would move the clip", where=result.sequence,
                      remedy="Place the result on a track of its own (--place track).")


def _dress(host: Host, source: Item, item: Item) -> None:
    """Grade and transform of the source, because the result lies under them."""
    if not source.CopyGrades([item]):
        host.notice("The grade was not copied onto the result: copy it on the Color page.")
    there, wanted = item.GetProperty() or {}, source.GetProperty() or {}
    refused = [key for key in COPIED if key in wanted and wanted[key] != there.get(key)
               and not item.SetProperty(key, wanted[key])]
    if refused:
        host.notice(f"Not copied onto the result: {', '.join(refused)}.")


def _mark(host: Host, item: Item, wish: Wish, result: Result) -> None:
    """A marker that names the record of the newest version; its place is inside the clip, however it is counted."""
    markers = dict(item.GetMarkers() or {})
    for frame in [frame for frame, mark in markers.items() if str(mark.get("customData", "")).startswith(MARK)]:
        item.DeleteMarkerAtFrame(frame)
        del markers[frame]
    left, name = int(item.GetLeftOffset()), f"Fresco v{result.version:03d}"
    free = next((frame for frame in range(left, left + int(item.GetDuration())) if frame not in markers), left)
    if not item.AddMarker(free, "Sky", name, wish.look.prompt[:200], 1, MARK + result.record):
        host.notice(f"The result has no marker, and redo will not find it; its record is {result.record}.")
    if wish.destination is Destination.TRACK and "SetName" in dir(item):  # a take belongs to the user's own clip
        item.SetName(f"{name} {wish.look.prompt[:40]}".replace(":", " ").replace("/", " "))
