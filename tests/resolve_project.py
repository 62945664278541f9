# SPDX-License-Identifier: Apache-2.0
"""The double's project: settings, the Deliver page, and a render queue that writes real files as time passes."""
# ruff: noqa: N802, the methods have Resolve's names
from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import burnt
from resolve_bridge import Remote
from resolve_timeline import Timeline, fresh_id

if TYPE_CHECKING:
    from resolve_double import World
    from resolve_pool import MediaPool

SETTINGS: dict[str, tuple[type, ...]] = {
    "SelectAllFrames": (bool,), "MarkIn": (int,), "MarkOut": (int,), "TargetDir": (str,), "CustomName": (str,),
    "UniqueFilenameStyle": (int,), "ExportVideo": (bool,), "ExportAudio": (bool,), "FormatWidth": (int,),
    "FormatHeight": (int,), "FrameRate": (int, float), "VideoQuality": (int, str), "ColorSpaceTag": (str,),
    "GammaTag": (str,), "ExportAlpha": (bool,), "EncodingProfile": (str,), "AlphaMode": (int,),
    "ClipStartFrame": (int,),
    "ReplaceExistingFilesInPlace": (bool,), "UseFullExtents": (bool,), "AddFrameHandles": (int,), "DataBurnIn": (str,)}
FORMATS = {
    "EXR": ("exr", {"RGB half (No Compression)": "RGBHalf", "RGB half (ZIP)": "RGBHalfZIP"}),
    "TIFF": ("tif", {"RGB 8 bits": "RGB8", "RGB 16 bits": "RGB16"}),
    "QuickTime": ("mov", {"Apple ProRes 4444": "ProRes4444", "H.264": "H264"})}
WORDS = {"en": {}, "de": {"Ready": "Bereit", "Rendering": "Wird gerendert", "Complete": "Abgeschlossen",
                          "Failed": "Fehlgeschlagen", "Cancelled": "Abgebrochen"}}


@dataclass
class Preset:
    """A render preset: settings, format and codec, mode. video: False is "Audio Only", whatever settings say later."""

    settings: dict[str, Any]
    form: tuple[str, str]
    mode: int = 1
    video: bool = True


@dataclass
class RenderJob:
    """A job of the render queue; `own` is the client's."""

    first: int
    last: int
    preset: Preset
    timeline: Timeline
    own: bool
    state: str = "Ready"
    done: int = 0
    error: str = ""

    @property
    def count(self) -> int:
        return self.last - self.first + 1


class Project(Remote):
    """A project with its Deliver page and its render queue."""

    kind = "Project"

    def __init__(self, world: World) -> None:
        super().__init__(world.ledger)
        self.world = world
        self.name = "Harbour"
        self.settings = {"timelineResolutionWidth": str(burnt.SIZE[0]), "timelineResolutionHeight": str(burnt.SIZE[1]),
                         "colorScienceMode": "davinciYRGB", "colorSpaceTimeline": "Rec.709 Gamma 2.4",
                         "colorSpaceOutput": "Rec.709 Gamma 2.4"}
        self.timelines: list[Timeline] = []
        self.current: Timeline | None = None
        self.page = Preset({"TargetDir": "/the/user's/own", "CustomName": "final"}, ("mov", "H264"))
        self.presets = {"H.264 Master": Preset({}, ("mov", "H264")),
                        "Audio Only": Preset({}, ("mov", "H264"), video=False)}
        self.jobs: dict[str, RenderJob] = {}

    def user_job(self) -> str:
        """What a user does: a job in the render queue."""
        id = fresh_id()
        self.jobs[id] = RenderJob(0, 9, Preset({}, ("mov", "H264")), self.world.timeline, own=False)
        return id

    def do_GetName(self) -> str:
        return self.name

    def do_GetMediaPool(self) -> MediaPool:
        return self.world.pool

    def do_GetCurrentTimeline(self) -> Timeline | None:
        return self.current

    def do_SetCurrentTimeline(self, timeline: Timeline) -> bool:
        self.current = timeline
        return timeline in self.timelines

    def do_GetTimelineCount(self) -> int:
        return len(self.timelines)

    def do_GetTimelineByIndex(self, index: int) -> Timeline | None:
        return self.timelines[index - 1] if 1 <= index <= len(self.timelines) else None

    def do_GetSetting(self, key: str | None = None) -> Any:
        return dict(self.settings) if not key else self.settings.get(key, "")

    def do_SetSetting(self, key: str, value: str) -> bool:
        if key not in self.settings or not isinstance(value, str):
            return False
        self.settings[key] = value
        return True

    def do_GetRenderPresetList(self) -> list[str]:
        return list(self.presets)

    def do_SaveAsNewRenderPreset(self, name: str) -> bool:
        if name in self.presets:
            return False
        self.presets[name] = Preset(dict(self.page.settings), self.page.form, self.page.mode, self.page.video)
        return True

    def do_LoadRenderPreset(self, name: str) -> bool:
        if name not in self.presets:
            return False
        kept = self.presets[name]
        self.page = Preset(dict(kept.settings), kept.form, kept.mode, kept.video)
        return True

    def do_DeleteRenderPreset(self, name: str) -> bool:
        return self.presets.pop(name, None) is not None

    def do_GetRenderFormats(self) -> dict[str, str]:
        return {label: form for label, (form, _) in FORMATS.items()}

    def do_GetRenderCodecs(self, wanted: str) -> dict[str, str]:
        return next((dict(codecs) for form, codecs in FORMATS.values() if form == wanted), {})

    def do_GetCurrentRenderFormatAndCodec(self) -> dict[str, str]:
        return dict(zip(("format", "codec"), self.page.form, strict=True))

    def do_SetCurrentRenderFormatAndCodec(self, form: str, codec: str) -> bool:
        if codec not in self.do_GetRenderCodecs(form).values():
            return False
        self.page.form = (form, codec)
        return True

    def do_GetCurrentRenderMode(self) -> int:
        return self.page.mode

    def do_SetCurrentRenderMode(self, mode: int) -> bool:
        self.page.mode = mode
        return mode in (0, 1)

    def do_SetRenderSettings(self, settings: dict[str, Any]) -> bool:
        for key, value in settings.items():
            kinds = SETTINGS.get(key, ())
            if not isinstance(value, kinds) or (bool not in kinds and isinstance(value, bool)):
                self.ledger.violate(f"SetRenderSettings does not take {key}: {value!r}")
                return False
        self.page.settings.update(settings)
        if self.current is not None and "MarkIn" in settings and "MarkOut" in settings:
            first, last = (settings[key] - self.current.start for key in ("MarkIn", "MarkOut"))
            self.current.marks = {kind: {"in": first, "out": last} for kind in ("video", "audio")}  # one range for both
        return True

    def do_AddRenderJob(self) -> str:
        settings, timeline = self.page.settings, self.current
        if timeline is None or not Path(settings.get("TargetDir", "")).is_dir():
            return ""
        first, last = timeline.start, timeline.do_GetEndFrame() - 1
        if not settings.get("SelectAllFrames", True):
            first, last = settings["MarkIn"], settings["MarkOut"]
            if not timeline.start <= first <= last:
                self.ledger.violate(f"MarkIn {first} lies before the timeline's start {timeline.start}: it is absolute")
        id = fresh_id()
        self.jobs[id] = RenderJob(first, last, Preset(dict(settings), self.page.form, self.page.mode, self.page.video),
                                  timeline, own=True)
        return id

    def do_DeleteRenderJob(self, id: str) -> bool:
        if id in self.jobs and not self.jobs[id].own:
            self.ledger.violate("DeleteRenderJob of the user's own job")
        return self.jobs.pop(id, None) is not None

    def do_DeleteAllRenderJobs(self) -> bool:
        self.ledger.violate("DeleteAllRenderJobs wipes the user's own queue")
        self.jobs.clear()
        return True

    def do_StartRendering(self, *values: Any) -> bool:
        named = list(values[0]) if values and isinstance(values[0], (list, tuple)) else \
            [value for value in values if isinstance(value, str)]
        if not named or any(id in self.jobs and not self.jobs[id].own for id in named):
            self.ledger.violate("StartRendering renders the user's own queue")
            return False
        if any(id not in self.jobs for id in named):
            return False
        for id in named:
            self.jobs[id].state = "Rendering"
        return True

    def do_IsRenderingInProgress(self) -> bool:
        for job in self.jobs.values():
            if job.state == "Rendering":
                self._advance(job)
        return any(job.state == "Rendering" for job in self.jobs.values())

    def _advance(self, job: RenderJob) -> None:
        if self.world.fails_after is not None and job.done >= self.world.fails_after:
            job.state, job.error = "Failed", self.world.failure
            return
        if job.own:
            self._write(job, job.first + job.done)
        job.done += 1
        if job.done == job.count:
            job.state = "Complete"

    def _write(self, job: RenderJob, frame: int) -> None:
        folder, name = Path(job.preset.settings["TargetDir"]), job.preset.settings.get("CustomName", "render")
        form = job.preset.form[0]
        if not job.preset.video:
            (folder / f"{name}.wav").write_bytes(b"RIFF")
        elif form == "mov":
            if job.done == job.count - 1:
                numbers = [burnt.number_in(self._picture(job, number)) for number in range(job.first, job.last + 1)]
                alpha = bool(job.preset.settings["ExportAlpha"])
                burnt.write_movie(folder / f"{name}.mov", numbers, Fraction(24), alpha=alpha)
        else:
            separator = "" if self.ledger.version < (20,) else "_"  # differs by release: parsers must not assume
            burnt.write(folder / f"{name}{separator}{frame:08d}.{form}", self._picture(job, frame))

    def _picture(self, job: RenderJob, frame: int) -> Any:
        item = job.timeline.seen(frame)
        return item.picture(frame) if item else burnt.picture(0)

    def do_GetRenderJobStatus(self, id: str) -> dict[str, Any]:
        job = self.jobs.get(id)
        if job is None:
            return {}
        words = WORDS[self.world.language]
        status = {"JobStatus": words.get(job.state, job.state), "CompletionPercentage": 100 * job.done // job.count}
        return {**status, "Error": job.error} if job.error else status

    def do_StopRendering(self) -> None:
        for job in self.jobs.values():
            if job.state == "Rendering" and not job.own:
                self.ledger.violate("StopRendering stops the user's own render")
            job.state = "Cancelled" if job.state == "Rendering" else job.state
