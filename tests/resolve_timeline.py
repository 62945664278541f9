# SPDX-License-Identifier: Apache-2.0
"""The double's media, timelines and their items: absolute record frames, exclusive end frames, takes, ghosts."""
# ruff: noqa: N802, the methods have Resolve's names
from __future__ import annotations

import copy
import itertools
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import burnt
from resolve_bridge import Marked, Remote
from resolve_otio import written

if TYPE_CHECKING:
    from resolve_double import World

    from fresco_backend.files.frames import FloatArray

_ids = itertools.count(1)


def fresh_id() -> str:
    """A unique id, as Resolve's look."""
    return f"{next(_ids):08x}-0000-4000-8000-000000000000"


def timecode(frame: int, nominal: int, *, drop: bool) -> str:
    """The timecode of an absolute frame, counted out minute by minute (SMPTE ST 12-1)."""
    separator, minutes = (";" if drop else ":"), 0
    while True:
        skipped = nominal // 15 if drop and minutes % 10 else 0
        length = 60 * nominal - skipped
        if frame < length:
            shown = frame + skipped
            seconds, frames = divmod(shown, nominal)
            return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}{separator}{frames:02}"
        frame, minutes = frame - length, minutes + 1


class MediaPoolItem(Marked):
    """A clip of the media pool. path: a pattern, a movie, or "" for what is made inside Resolve."""

    kind = "MediaPoolItem"

    def __init__(self, world: World, path: str, properties: dict[str, str]) -> None:
        super().__init__(world.ledger, fresh_id())
        self.world = world
        self.path = path
        self.properties = properties
        self.metadata: dict[str, str] = {}
        self.mattes: list[str] = []

    @property
    def first(self) -> int:
        return int(self.properties["Start"])

    @property
    def count(self) -> int:
        return int(self.properties["Frames"])

    def picture(self, number: int) -> FloatArray:
        """The picture of one of its frames, by Resolve's number."""
        return burnt.read(self.path, number if "%" in self.path else number - self.first + 1)

    def do_GetName(self) -> str:
        return self.properties["Clip Name"]

    def do_GetClipProperty(self, key: str | None = None) -> Any:
        return dict(self.properties) if not key else self.properties.get(key, "")

    def do_SetClipProperty(self, key: str, value: str) -> bool:
        managed = self.world.project.settings["colorScienceMode"] == "davinciYRGBColorManagedv2"
        if key not in self.properties or not isinstance(value, str) or (key == "Input Color Space" and not managed):
            return False
        self.properties[key] = value
        return True

    def do_SetThirdPartyMetadata(self, key: Any, value: str | None = None) -> bool:
        self.metadata.update(key if isinstance(key, dict) else {key: value})
        return True

    def do_GetThirdPartyMetadata(self, key: str | None = None) -> Any:
        return dict(self.metadata) if not key else self.metadata.get(key, "")


@dataclass
class Take:
    """What an item shows: frames of a media pool item from `first` on."""

    media: MediaPoolItem | None
    first: int


class TimelineItem(Marked):
    """A clip of a timeline. gain: its grade. speed: in percent; the item shows frame `first + n * speed / 100`.

    Backwards, its getters look like those of a clip that runs forwards: the source range is in ascending order, and
    offsets count in the media as it is played (AYON's OTIO files of Resolve: of 100 frames, 20 to 60, left offset 39).
    """

    kind = "TimelineItem"

    def __init__(self, world: World, shown: Take, start: int, duration: int, track: int) -> None:
        super().__init__(world.ledger, fresh_id())
        self.world = world
        self.takes = [shown]
        self.has_takes = False
        self.chosen = 0
        self.start, self.duration, self.track = start, duration, track
        self.name = shown.media.do_GetName() if shown.media else "Title"
        self.enabled, self.selected, self.gain, self.speed, self.comps = True, False, 1.0, 100, 0
        self.properties: dict[str, Any] = {"Pan": 0.0, "ZoomX": 1.0, "Opacity": 100.0}
        self.spans: list[int] = [duration]  # of the takes, frames

    def copied(self) -> TimelineItem:
        """The same on a duplicate of its timeline."""
        twin = copy.copy(self)
        twin.id, twin.takes, twin.spans = fresh_id(), [replace(take) for take in self.takes], list(self.spans)
        twin.markers = {frame: dict(marker) for frame, marker in self.markers.items()}
        return twin

    @property
    def shown(self) -> Take:
        return self.takes[self.chosen]

    def source(self, frame: int) -> int:
        """The number of the media's frame that is seen at an absolute timeline frame."""
        return self.shown.first + (frame - self.start) * self.speed // 100

    def picture(self, frame: int) -> FloatArray:
        """What is seen at an absolute timeline frame, graded."""
        if self.shown.media is None:
            return burnt.picture(0) * 0 + 0.5
        return self.shown.media.picture(self.source(frame)) * self.gain

    def do_GetName(self) -> str:
        return self.name

    def do_SetName(self, name: str) -> bool:
        if ":" in name or "/" in name:
            return False
        self.name = name
        return True

    def do_GetStart(self, _subframe: bool = False) -> int:
        return self.start

    def do_GetEnd(self, _subframe: bool = False) -> int:
        return self.start + self.duration

    def do_GetDuration(self, _subframe: bool = False) -> int:
        return self.duration

    @property
    def taken(self) -> int:
        """Frames of the media that it covers."""
        return self.duration * abs(self.speed) // 100

    @property
    def lowest(self) -> int:
        """The lowest number among the frames that it shows."""
        return self.shown.first if self.speed >= 0 else self.shown.first - self.taken + 1

    def do_GetLeftOffset(self, _subframe: bool = False) -> int:
        media = self.shown.media
        if media is None:
            return 0
        return self.shown.first - media.first if self.speed >= 0 else media.first + media.count - 1 - self.shown.first

    def do_GetRightOffset(self, _subframe: bool = False) -> int:
        media = self.shown.media
        return media.count - self.do_GetLeftOffset() - self.taken if media else 0

    def do_GetSourceStartFrame(self) -> int:
        return self.lowest

    def do_GetSourceEndFrame(self) -> int:
        return self.lowest + self.taken - self.world.source_end_short

    def do_GetMediaPoolItem(self) -> MediaPoolItem | None:
        media = self.shown.media
        return media if media and media.path else None

    def do_GetTrackTypeAndIndex(self) -> list[Any]:
        return ["video", self.track]

    def do_GetProperty(self, key: str | None = None) -> Any:
        return dict(self.properties) if not key else self.properties.get(key)

    def do_SetProperty(self, key: str, value: Any) -> bool:
        if key not in self.properties:
            return False
        self.properties[key] = value
        return True

    def do_GetClipEnabled(self) -> bool:
        return self.enabled

    def do_GetFusionCompCount(self) -> int:
        return self.comps

    def do_CopyGrades(self, targets: list[Any]) -> bool:
        if not all(isinstance(target, TimelineItem) for target in targets):
            return False
        for target in targets:
            target.gain = self.gain
        return True

    def do_AddTake(self, media: MediaPoolItem, first: int | None = None, end: int | None = None) -> bool:
        if self.world.timeline.locked(self.track):
            return False
        first = media.first if first is None else first
        end = media.first + media.count if end is None else end
        span = end - first + (0 if self.world.end_exclusive else 1)
        if not media.first <= first < first + span <= media.first + media.count + 1:
            return False
        self.has_takes = True
        self.takes.append(Take(media, first))
        self.spans.append(span)
        return True

    def do_GetTakesCount(self) -> int:
        return len(self.takes) if self.has_takes else 0

    def do_GetSelectedTakeIndex(self) -> int:
        return self.chosen + 1 if self.has_takes else 0

    def do_SelectTakeByIndex(self, index: int) -> bool:
        if not self.has_takes or not 1 <= index <= len(self.takes):
            return False
        self.chosen = index - 1
        self.duration = self.spans[self.chosen]
        return True

    def do_DeleteTakeByIndex(self, index: int) -> bool:
        if not 1 <= index <= len(self.takes) or index - 1 == self.chosen:
            return False
        del self.takes[index - 1], self.spans[index - 1]
        self.chosen -= index - 1 < self.chosen
        return True

    def do_CreateMagicMask(self, _mode: str) -> bool:
        if not self.world.studio:
            self.ledger.modal = True  # the free edition opens a dialog that blocks later calls
        return False


class Ghost(Remote):
    """What a refused append comes back as: an item whose getters are all None."""

    kind = "TimelineItem"

    def _call(self, name: str, values: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return None


@dataclass
class Track:
    """One track of a timeline."""

    name: str
    items: list[TimelineItem] = field(default_factory=list)
    enabled: bool = True
    locked: bool = False


class Timeline(Marked):
    """A timeline. playhead: frames from its start. stale: tracks that a count does not show before a page changes.

    marks: frames from its start too, {"video": {"in": 0, "out": 9}}.
    settings: the rate and drop frame as scripts read them, which is not the word "29.97 DF" by which they set them.
    """

    kind = "Timeline"

    def __init__(self, world: World, name: str, start: str, rate: str) -> None:
        super().__init__(world.ledger, fresh_id())
        self.world = world
        self.name, self.rate, self.start_text = name, rate, start
        self.drop = rate.endswith("DF")
        self.settings = {"timelineFrameRate": float(rate.split()[0]), "timelineDropFrameTimecode": str(int(self.drop))}
        self.nominal = round(float(rate.split()[0]))
        self.start = self._frames(start)
        self.playhead = 0
        self.stale = 0
        self.marks: dict[str, dict[str, int]] = {}
        self.tracks = {"video": [Track("Video 1")], "audio": [Track("Audio 1")], "subtitle": []}

    def _frames(self, text: str) -> int:
        hours, minutes, seconds, frames = (int(part) for part in text.replace(";", ":").split(":"))
        total = hours * 60 + minutes
        return (total * 60 + seconds) * self.nominal + frames - (
            self.nominal // 15 * (total - total // 10) if self.drop else 0)

    def locked(self, track: int) -> bool:
        """Whether a video track is locked."""
        return self.tracks["video"][track - 1].locked

    def items(self) -> list[TimelineItem]:
        """Every clip, from the lowest track up."""
        return [item for track in self.tracks["video"] for item in track.items]

    def seen(self, frame: int) -> TimelineItem | None:
        """The topmost enabled clip at an absolute frame."""
        for track in reversed(self.tracks["video"]):
            for item in track.items:
                if track.enabled and item.enabled and item.start <= frame < item.start + item.duration:
                    return item
        return None

    def put(self, media: MediaPoolItem | None, first: int, start: int, duration: int, track: int = 1) -> TimelineItem:
        """What an editor does: a clip on a video track; `start` counts from the timeline's start."""
        while len(self.tracks["video"]) < track:
            self.tracks["video"].append(Track(f"Video {len(self.tracks['video']) + 1}"))
        item = TimelineItem(self.world, Take(media, first), self.start + start, duration, track)
        self.tracks["video"][track - 1].items.append(item)
        return item

    def do_GetName(self) -> str:
        return self.name

    def do_DuplicateTimeline(self, name: str = "") -> Timeline:
        """Markers come along; every item is another one."""
        project = self.world.project
        twin = Timeline(self.world, name or f"{self.name} copy", self.start_text, self.rate)
        twin.playhead = self.playhead
        twin.tracks = {kind: [replace(track, items=[item.copied() for item in track.items]) for track in tracks]
                       for kind, tracks in self.tracks.items()}
        project.timelines.append(twin)
        project.current = twin
        return twin

    def do_GetStartFrame(self) -> int:
        return self.start

    def do_GetStartTimecode(self) -> str:
        return self.start_text

    def do_GetEndFrame(self) -> int:
        return max([item.start + item.duration for item in self.items()] or [self.start])

    def do_GetSetting(self, key: str | None = None) -> Any:
        settings = {**self.world.project.settings, **self.settings}
        return settings if not key else settings.get(key, "")

    def do_GetTrackCount(self, kind: str) -> int:
        return len(self.tracks.get(kind, ())) - (self.stale if kind == "video" else 0)

    def do_AddTrack(self, kind: str, _options: Any = None) -> bool:
        if kind not in self.tracks:
            return False
        self.tracks[kind].append(Track(f"{kind.title()} {len(self.tracks[kind]) + 1}"))
        self.stale += self.world.stale_counts and kind == "video"
        return True

    def do_DeleteTrack(self, kind: str, index: int) -> bool:
        track = self._track(kind, index)
        if track is None:
            return False
        if track.items:
            self.ledger.violate(f"DeleteTrack of {kind} track {index} deletes {len(track.items)} clips")
        self.tracks[kind].remove(track)
        return True

    def do_Export(self, path: str, kind: Any, more: Any = None) -> bool:
        if (kind, more) != ("EXPORT_OTIO", "EXPORT_NONE"):
            self.ledger.violate(f"Export of {kind}, {more}")
            return False
        Path(path).write_text(json.dumps(written(self)), encoding="utf-8")
        return True

    def _track(self, kind: str, index: int) -> Track | None:
        tracks = self.tracks.get(kind, [])
        if not isinstance(index, int) or not 1 <= index <= len(tracks):
            self.ledger.violate(f"Timeline has no {kind} track {index}")
            return None
        return tracks[index - 1]

    def do_GetTrackName(self, kind: str, index: int) -> str | None:
        track = self._track(kind, index)
        return track.name if track else None

    def do_SetTrackName(self, kind: str, index: int, name: str) -> bool:
        track = self._track(kind, index)
        if track:
            track.name = name
        return track is not None

    def do_GetIsTrackEnabled(self, kind: str, index: int) -> bool | None:
        track = self._track(kind, index)
        return track.enabled if track else None

    def do_SetTrackEnable(self, kind: str, index: int, enabled: bool) -> bool:
        track = self._track(kind, index)
        if track:
            track.enabled = enabled
        return track is not None

    def do_GetIsTrackLocked(self, kind: str, index: int) -> bool | None:
        track = self._track(kind, index)
        return track.locked if track else None

    def do_GetItemListInTrack(self, kind: str, index: int) -> list[TimelineItem] | None:
        track = self._track(kind, index)
        return list(track.items) or None if track else None

    @property
    def shown(self) -> bool:
        """Whether the page has a playhead of the timeline: as documented, Media and Fusion have none."""
        return self.world.page not in ("media", "fusion")

    def do_GetCurrentTimecode(self) -> str:
        if not self.shown:
            return ""
        return timecode((self.start + self.playhead) % self._frames("24:00:00:00"), self.nominal, drop=self.drop)

    def do_SetCurrentTimecode(self, text: str) -> bool:
        if not self.shown:
            return False
        self.playhead = (self._frames(text) - self.start) % self._frames("24:00:00:00")
        return True

    def do_GetCurrentVideoItem(self) -> TimelineItem | None:
        return self.seen(self.start + self.playhead)

    def do_GetMarkInOut(self) -> dict[str, dict[str, int]]:
        return copy.deepcopy(self.marks)

    def do_SetMarkInOut(self, first: int, last: int, kind: str = "all") -> bool:
        if kind not in ("video", "audio", "all") or not 0 <= first <= last:
            return False
        self.marks.update({one: {"in": first, "out": last} for one in ("video", "audio") if kind in (one, "all")})
        return True

    def do_ClearMarkInOut(self, kind: str = "all") -> bool:
        for one in ("video", "audio"):
            if kind in (one, "all"):
                self.marks.pop(one, None)
        return kind in ("video", "audio", "all")

    def do_GetSelectedClips(self) -> list[TimelineItem]:
        return [item for item in self.items() if item.selected]

    def do_DeleteClips(self, items: list[TimelineItem], _ripple: bool = False) -> bool:
        if self.world.page != "edit":
            return False
        for track in self.tracks["video"]:
            track.items = [item for item in track.items if item not in items]
        return True
