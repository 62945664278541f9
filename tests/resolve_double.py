# SPDX-License-Identifier: Apache-2.0
"""A strict double of a running DaVinci Resolve: a World has a project, a media pool, timelines and a render queue.

Renders write real files in Resolve's naming, and only as time passes: each question whether it renders is one frame.
"""
# ruff: noqa: N802, the methods have Resolve's names
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import burnt
from resolve_bridge import Ledger, Remote
from resolve_pool import MediaPool
from resolve_project import Project
from resolve_timeline import MediaPoolItem, Timeline

PAGES = ("media", "cut", "edit", "fusion", "color", "fairlight", "deliver")


class World:
    """A running Resolve. What an editor or a release may do differently is an attribute.

    end_exclusive: how `endFrame` counts. stale_counts: a new track is not counted before the page changes. fails_after:
    frames until a render fails, and why. source_end_short: by how much GetSourceEndFrame reads low.
    """

    def __init__(self, version: tuple[int, ...] = (20, 2, 0), *, studio: bool = True, rate: str = "24",
                 start: str = "01:00:00:00", language: str = "en") -> None:
        self.ledger = Ledger(version)
        self.studio, self.language, self.page = studio, language, "edit"
        self.end_exclusive, self.stale_counts, self.source_end_short = True, False, 0
        self.fails_after: int | None = None
        self.failure = ""
        self.resolve = Resolve(self)
        self.manager = ProjectManager(self)
        self.pool = MediaPool(self)
        self.project = Project(self)
        self.project.settings["timelineFrameRate"] = rate
        self.project.current = self.timeline = Timeline(self, "Timeline 1", start, rate)
        self.project.timelines = [self.timeline]

    @property
    def violations(self) -> list[str]:
        """What the client should not have done."""
        return self.ledger.violations

    def imported(self, path: str, *, first: int = 0, count: int = 1, rate: str | None = None) -> MediaPoolItem:
        """What an editor does: media in the pool. path: a pattern or a movie."""
        shown = re.sub(r"%0(\d)d", lambda match: f"[{first:0{match[1]}}-{first + count - 1:0{match[1]}}]", path)
        media = MediaPoolItem(self, path, {
            "File Path": shown, "Clip Name": Path(shown).name, "FPS": rate or "24.0", "Frames": str(count),
            "Start": str(first), "End": str(first + count - 1), "Type": "Video",
            "Resolution": f"{burnt.SIZE[0]}x{burnt.SIZE[1]}", "Input Color Space": "Rec.709 Gamma 2.4"})
        self.pool.current.clips.append(media)
        return media


class WorldObject(Remote):
    """An object behind the bridge that knows its world."""

    def __init__(self, world: World) -> None:
        super().__init__(world.ledger)
        self.world = world


class Resolve(WorldObject):
    """The application."""

    kind = "Resolve"

    def do_GetProjectManager(self) -> ProjectManager:
        return self.world.manager

    def do_GetProductName(self) -> str:
        return "DaVinci Resolve Studio" if self.world.studio else "DaVinci Resolve"

    def do_GetVersion(self) -> list[Any]:
        return [*self.ledger.version, *[0] * (3 - len(self.ledger.version)), 1, ""]

    def do_GetCurrentPage(self) -> str:
        return self.world.page

    def do_OpenPage(self, page: str) -> bool:
        if page in PAGES:
            self.world.page, self.world.timeline.stale = page, 0
        return page in PAGES


class ProjectManager(WorldObject):
    """The projects."""

    kind = "ProjectManager"

    def do_GetCurrentProject(self) -> Project:
        return self.world.project

    def do_SaveProject(self) -> bool:
        if self.world.project.name in ("", "Untitled Project"):
            self.ledger.violate("SaveProject on a project without a name hangs for ever")
        return True
