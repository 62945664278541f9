# SPDX-License-Identifier: Apache-2.0
"""Clip -> plate and matte on the disk: the media itself, or a render of the clip alone through Resolve's queue."""
from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fresco_davinci.clip import Clip, Extraction, Input, MatteSource, Phase, Progress, Wish, sequence_pattern
from fresco_davinci.rendered import numbered, one_movie, prepared, rendered_frames
from fresco_davinci.space import space_of
from fresco_davinci.timeline.collect import find
from fresco_davinci.timeline.host import Host, Item
from fresco_protocol.document import noun
from fresco_protocol.errors import HostRefused, InputError, OutputError
from fresco_protocol.shot import FrameRange, Matte, Plate

KEPT = "Before Fresco"  # render preset that holds the user's Deliver page meanwhile
BASE_PRESETS = ("H.264 Master", "H.265 Master", "ProRes 422 HQ", "YouTube - 1080p")
HALF_CODECS = ("RGBHalfZIP", "RGBHalfPIZ", "RGBHalf")
START_PATIENCE = 15.0  # seconds until a render that has not begun counts as refused


@noun
class Render:
    """One job of Resolve's queue. track: the only video track that is seen. alpha: ProRes 4444 with it, else EXR."""

    folder: str
    track: int
    first: int
    last: int
    size: tuple[int, ...]
    alpha: bool = False


def extract(host: Host, clip: Clip, wish: Wish, folder: Path) -> Generator[Progress, None, Extraction]:
    """The plate and the matte of a clip; a generator that renders where it must, and may be closed at any time.

    Rendered frames count from 1. The user's timeline, page, playhead, tracks and Deliver page come back as they were.
    """
    item = find(host, clip)
    if wish.input is Input.SOURCE:
        return _source(host, item, clip, wish)
    part = wish.range_in(clip)
    whole = Render(folder=str(folder / "plate"), track=clip.track, first=clip.first + part.first - 1,
                   last=clip.first + part.last - 1, size=clip.size)
    renders = [whole, *_matte_renders(whole, folder / "matte", wish)]
    with _kept(host, clip):
        for render in renders:
            find(host, clip)  # between two renders an editor may open another timeline
            yield from _rendered(host, render)
    count = part.last - part.first + 1
    paths = [one_movie(Path(render.folder)) if render.alpha else
             numbered(Path(render.folder), ".exr", count=count, first=1) for render in renders]
    plate = Plate(sequence=paths[0], frames=(FrameRange(first=1, last=count),), rate=clip.rate,
                  color_space=space_of(clip.space, wish.color_space))
    matte = None
    if wish.matte is not None:
        channel = "A" if wish.matte.source is MatteSource.ALPHA else "R"
        matte = Matte(sequence=paths[1], channel=channel, invert=wish.matte.invert)
    return Extraction(plate=plate, matte=matte)


def _matte_renders(whole: Render, folder: Path, wish: Wish) -> list[Render]:
    if wish.matte is None:
        return []
    return [Render(folder=str(folder), track=wish.matte.track or whole.track, first=whole.first, last=whole.last,
                   size=whole.size, alpha=wish.matte.source is MatteSource.ALPHA)]


def _source(host: Host, item: Item, clip: Clip, wish: Wish) -> Extraction:
    """The media itself: nothing is rendered."""
    if clip.media is None:
        raise InputError("the clip has no source media", where=clip.name, remedy="Take the graded picture.")
    part = wish.range_in(clip)
    frames = FrameRange(first=clip.media.frame(clip.head + part.first - 1),
                        last=clip.media.frame(clip.head + part.last - 1))
    paths = host.pool.GetClipMatteList(item.GetMediaPoolItem()) if wish.matte else None
    matte = Matte(sequence=sequence_pattern(str(paths[0])) or str(paths[0]), invert=wish.matte.invert) \
        if wish.matte and paths else None
    return Extraction(plate=Plate(sequence=clip.media.path, frames=(frames,), rate=clip.rate,
                                  color_space=wish.color_space), matte=matte)


@contextmanager
def _kept(host: Host, clip: Clip) -> Iterator[None]:
    """Whatever is done inside, the user's page, playhead, tracks and Deliver page come back as they were."""
    timeline, page = host.timeline, host.resolve.GetCurrentPage()
    tracks = [(kind, track, bool(timeline.GetIsTrackEnabled(kind, track))) for kind in ("video", "subtitle")
              for track in range(1, (timeline.GetTrackCount(kind) or 0) + 1)]
    if not host.answers:  # a dialog says False to every question, and False must not become the state to restore
        raise host.refusal("tell its state")
    host.busy = True
    with ExitStack() as stack:
        stack.callback(setattr, host, "busy", False)
        if page:  # none without a window (-nogui)
            _restored(host, stack, "the page", host.resolve.OpenPage, page)
        playhead = timeline.GetCurrentTimecode()
        if playhead:  # none on the Media and Fusion pages
            _restored(host, stack, "the playhead", timeline.SetCurrentTimecode, playhead)
        if "GetMarkInOut" in dir(timeline):  # before 19.1 scripts cannot read them
            _keep_marks(host, stack, timeline)
        _keep_deliver_page(host, stack)
        for kind, track, enabled in tracks:
            _restored(host, stack, f"{kind} track {track}", timeline.SetTrackEnable, kind, track, enabled)
        yield


def _keep_marks(host: Host, stack: ExitStack, timeline: Item) -> None:
    """The In and Out marks of the timeline, which the range of a render takes the place of (M, pull request 200)."""
    for kind, marks in (timeline.GetMarkInOut() or {}).items():
        if {"in", "out"} <= set(marks):
            _restored(host, stack, f"the In and Out marks ({kind})", timeline.SetMarkInOut, marks["in"], marks["out"],
                      kind)
        elif marks:  # both or none can be set
            stack.callback(host.notice, f"Resolve did not put back the {' '.join(marks).title()} mark ({kind}): "
                                        f"set it at frame {next(iter(marks.values()))} of the timeline.")
    _restored(host, stack, "the In and Out marks", timeline.ClearMarkInOut, "all")


def _restored(host: Host, stack: ExitStack, what: str, call: Callable[..., Any], *values: Any) -> None:
    """Calls at the end; a "no" becomes a notice, because what else went wrong matters more."""
    def restore() -> None:
        if not host.gone and call(*values) in (None, False):
            host.notice(f"Resolve did not put back {what}: look at it.")

    stack.callback(restore)


def _keep_deliver_page(host: Host, stack: ExitStack) -> None:
    """Render settings cannot be read, but saved as a preset of the user's own and loaded again."""
    project = host.project
    form, mode = project.GetCurrentRenderFormatAndCodec() or {}, project.GetCurrentRenderMode()
    presets = project.GetRenderPresetList() or []
    name = next(name for name in (KEPT, *(f"{KEPT} {n}" for n in range(2, 10_000))) if name not in presets)
    if isinstance(mode, int):
        _restored(host, stack, "the render mode", project.SetCurrentRenderMode, mode)
    if form.get("format") and form.get("codec"):
        _restored(host, stack, "the render format", project.SetCurrentRenderFormatAndCodec, form["format"],
                  form["codec"])
    host.granted(project.SaveAsNewRenderPreset(name), "save the settings of the Deliver page")
    if "DeleteRenderPreset" in dir(project):
        _restored(host, stack, "the list of render presets", project.DeleteRenderPreset, name)
    else:
        host.notice(f'The render preset "{name}" holds your Deliver page as it was: delete it when you like.')
    _restored(host, stack, "the render settings", project.LoadRenderPreset, name)
    base = next((preset for preset in BASE_PRESETS if preset in presets), None)
    if base is not None:  # else a preset such as "Audio Only" would shine through; the files are checked anyway
        host.granted(project.LoadRenderPreset(base), "load a render preset")


class _Job:
    """A job of ours in Resolve's queue, known by its id and by what Resolve has called its state so far.

    Those words are in the user's language; their order is not: ready, rendering, and one for how it ended.
    """

    def __init__(self, host: Host, id: str) -> None:
        self.host, self.project, self.id = host, host.project, id
        self._states: list[str] = []

    def percent(self) -> float:
        """How much is rendered. Raises what `Host.refusal` gives when Resolve does not tell."""
        status = self.status()
        if not isinstance(status, dict):
            raise self.host.refusal("tell how far the render is")
        return float(status.get("CompletionPercentage") or 0)

    def status(self) -> Any:
        """What Resolve says of it."""
        status = self.project.GetRenderJobStatus(self.id)
        state = str((status or {}).get("JobStatus"))
        if state not in self._states[-1:]:
            self._states.append(state)
        return status

    @property
    def is_over(self) -> bool:
        """Whether it has ended, as far as was looked: what Resolve renders after that is the user's own."""
        return len(self._states) > 2

    def runs(self) -> bool:
        """Whether Resolve renders it now."""
        rendering, status = self.project.IsRenderingInProgress(), self.status() or {}
        return bool(rendering) and not self.is_over and float(status.get("CompletionPercentage") or 0) < 100


def _rendered(host: Host, render: Render) -> Generator[Progress, None, None]:
    """Renders one job of our own, and takes it from the queue again whatever happens."""
    project, job = host.project, _Job(host, _queued(host, render))
    started = False
    try:
        job.status()
        host.granted(project.StartRendering([job.id], False), "start the render")
        started = True
        yield from _watched(host, job, render)
    finally:
        if not host.gone:
            if started and job.runs():
                project.StopRendering()
            project.DeleteRenderJob(job.id)


def _queued(host: Host, render: Render) -> str:
    project, timeline = host.project, host.timeline
    prepared(Path(render.folder), size=render.size, frames=render.last - render.first + 1)
    for track in range(1, timeline.GetTrackCount("video") + 1):
        host.granted(timeline.SetTrackEnable("video", track, track == render.track), f"switch video track {track}")
    for track in range(1, timeline.GetTrackCount("subtitle") + 1):
        timeline.SetTrackEnable("subtitle", track, False)
    form, wanted = ("mov", ("ProRes4444",)) if render.alpha else ("exr", HALF_CODECS)
    there = (project.GetRenderCodecs(form) or {}).values()
    codec = next((codec for codec in wanted if codec in there), None)
    if codec is None:
        raise HostRefused(f"this Resolve cannot render {form} with {' or '.join(wanted)}", where=str(host.edition),
                          remedy="Take the source in place of the graded picture (--input source).")
    host.granted(project.SetCurrentRenderFormatAndCodec(form, codec), f"choose {form} with {codec}")
    host.granted(project.SetCurrentRenderMode(1), "render one clip")
    host.granted(project.SetRenderSettings({
        "SelectAllFrames": False, "MarkIn": render.first, "MarkOut": render.last, "TargetDir": render.folder,
        "CustomName": Path(render.folder).name, "ExportVideo": True, "ExportAudio": False, "ExportAlpha": render.alpha,
        "FormatWidth": render.size[0], "FormatHeight": render.size[1]}), "take the render settings")
    return str(host.granted(project.AddRenderJob(), "queue the render"))


def _watched(host: Host, job: _Job, render: Render) -> Generator[Progress, None, None]:
    """Waits for a job by percentage and files: Resolve's words about its state are in the user's language."""
    patience = time.monotonic() + START_PATIENCE
    while True:
        if host.gone:
            raise host.refusal("end the render")
        rendering, percent = host.project.IsRenderingInProgress(), job.percent()
        if percent >= 100 and not rendering:
            return
        if not rendering and (percent > 0 or job.is_over or time.monotonic() > patience):
            there = len(rendered_frames(Path(render.folder), ".exr"))
            why = (job.status() or {}).get("Error") or "Look at the Deliver page and at the disk"
            raise OutputError(f"Resolve's render ended at {percent:g} % with {there} frames", where=render.folder,
                              remedy=f"{why}: then do it again.")
        yield Progress(phase=Phase.EXTRACTING, fraction=min(percent, 100) / 100,
                       text="waits until Resolve has ended another render" if job.is_over else "")
