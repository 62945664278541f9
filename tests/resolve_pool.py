# SPDX-License-Identifier: Apache-2.0
"""The double's media pool: imports land in the current bin, appends on the current timeline."""
# ruff: noqa: N802, the methods have Resolve's names
from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resolve_bridge import Remote
from resolve_timeline import Ghost, MediaPoolItem, Take, Timeline, TimelineItem

if TYPE_CHECKING:
    from resolve_double import World

CLIP_INFO = {"mediaPoolItem", "startFrame", "endFrame", "mediaType", "trackIndex", "recordFrame"}


class Folder(Remote):
    """A bin."""

    kind = "Folder"

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world.ledger)
        self.world = world
        self.name = name
        self.clips: list[MediaPoolItem] = []
        self.folders: list[Folder] = []

    def do_GetName(self) -> str:
        return self.name

    def do_GetClipList(self) -> list[MediaPoolItem]:
        return list(self.clips)

    def do_GetSubFolderList(self) -> list[Folder]:
        return list(self.folders)


class MediaPool(Remote):
    """The media pool: imports land in the current bin, appends on the current timeline."""

    kind = "MediaPool"

    def __init__(self, world: World) -> None:
        super().__init__(world.ledger)
        self.world = world
        self.root = self.current = Folder(world, "Master")

    def do_GetRootFolder(self) -> Folder:
        return self.root

    def do_GetCurrentFolder(self) -> Folder:
        return self.current

    def do_SetCurrentFolder(self, folder: Folder) -> bool:
        if not isinstance(folder, Folder):
            return False
        self.current = folder
        return True

    def do_AddSubFolder(self, folder: Folder, name: str) -> Folder:
        folder.folders.append(Folder(self.world, name))
        return folder.folders[-1]

    def do_GetClipMatteList(self, media: MediaPoolItem) -> list[str]:
        return list(media.mattes)

    def do_DeleteClips(self, clips: list[MediaPoolItem]) -> bool:
        for folder in (self.root, *self.root.folders):
            folder.clips = [clip for clip in folder.clips if clip not in clips]
        for timeline in self.world.project.timelines:
            for track in timeline.tracks["video"]:
                track.items = [item for item in track.items if item.shown.media not in clips]
        return True

    def do_CreateEmptyTimeline(self, name: str) -> Timeline | None:
        project = self.world.project
        if any(timeline.name == name for timeline in project.timelines):
            return None
        project.current = Timeline(self.world, name, "01:00:00:00", project.settings["timelineFrameRate"])
        project.timelines.append(project.current)
        return project.current

    def do_DeleteTimelines(self, timelines: list[Timeline]) -> bool:
        project = self.world.project
        if project.current in timelines:
            self.ledger.violate("DeleteTimelines of the current timeline")
        project.timelines = [timeline for timeline in project.timelines if timeline not in timelines]
        return True

    def do_ImportMedia(self, items: Sequence[Any]) -> list[MediaPoolItem]:
        found = []
        for item in items:
            if not isinstance(item, dict) or set(item) - {"FilePath", "StartIndex", "EndIndex"}:
                self.ledger.violate(f"ImportMedia of {item!r}")
                continue
            first, last, path = item["StartIndex"], item["EndIndex"], item["FilePath"]
            if re.search(r"%0\d+d", path) and all(Path(path % number).is_file() for number in range(first, last + 1)):
                found.append(self.world.imported(path, first=first, count=last - first + 1))
        return found

    def do_AppendToTimeline(self, *values: Any) -> list[Any]:
        infos = values[0] if isinstance(values[0], (list, tuple)) else values
        return [self._appended(info) for info in infos]

    def _appended(self, info: Any) -> Any:
        info = info if isinstance(info, dict) else {"mediaPoolItem": info}
        if set(info) - CLIP_INFO or not isinstance(info.get("mediaPoolItem"), MediaPoolItem):
            self.ledger.violate(f"AppendToTimeline of {sorted(info)}")
            return None
        timeline, media, index = self.world.project.current, info["mediaPoolItem"], info.get("trackIndex", 1)
        assert timeline is not None
        if not 1 <= index <= len(timeline.tracks["video"]):
            self.ledger.violate(f"AppendToTimeline on track {index} of {len(timeline.tracks['video'])}")
            return None
        track = timeline.tracks["video"][index - 1]
        first, end = info.get("startFrame", media.first), info.get("endFrame", media.first + media.count)
        duration = end - first + (0 if self.world.end_exclusive else 1)
        start = info.get("recordFrame", timeline.do_GetEndFrame())
        if start < timeline.start:
            self.ledger.violate(f"recordFrame {start} lies before the timeline's start {timeline.start}, absolute")
        if not media.first <= first < first + duration <= media.first + media.count + (not self.world.end_exclusive):
            self.ledger.violate(f"AppendToTimeline of frames {first} to {end} of media that has {media.count}")
            return None
        if track.locked or any(item.start < start + duration and start < item.start + item.duration
                               for item in track.items):
            return Ghost(self.ledger)  # the earlier item wins, silently
        item = TimelineItem(self.world, Take(media, first), start, duration, index)
        track.items.append(item)
        track.items.sort(key=lambda item: item.start)
        return item
