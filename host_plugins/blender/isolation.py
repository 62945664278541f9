# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures of strips alone: a copy of the scene without all other strips, rendered to files.

The user's scene, render settings, selection and undo stay as they are. In a window a child Blender renders, so that
the interface goes on; in the background the render runs here and blocks.
"""
from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Optional

import bpy

from fresco_protocol.errors import InputError

from . import compat, spaces
from .animation import drop_opacity, own_action
from .folders import erase
from .server import NO_WINDOW

LAST_WORDS = 600  # characters of a child's log that an error quotes
ENDS_WITH_PARENT = ("import os, threading; "  # its input ends when this Blender does, whatever way: after a crash too
                    "threading.Thread(target=lambda: os.read(0, 1) or os._exit(1), daemon=True).start()")


class Picture(Enum):
    """What is exported."""

    PLATE = "plate"  # scene-linear, with alpha: EXR half
    MATTE = "matte"  # grey, as its values stand: PNG of 16 bits


@dataclass(frozen=True)
class Export:
    """Timeline frames first to last, INCLUSIVE, of one strip of a scene, alone.

    number: that the first file gets. head, tail: handles, which the strip's trims may hide.
    mask: name of a Mask data-block to render in place of the strip. content: the timeline frame of the first frame of
    the strip's media when it was collected.
    """

    scene: str
    strip: str
    first: int
    last: int
    number: int
    folder: str
    head: int = 0
    tail: int = 0
    picture: Picture = Picture.PLATE
    mask: Optional[str] = None
    content: Optional[int] = None

    @property
    def sequence(self) -> str:
        """The path pattern of the files."""
        return os.path.join(self.folder, f"{self.picture.value}.####{self._extension}")

    @property
    def _extension(self) -> str:
        return ".exr" if self.picture is Picture.PLATE else ".png"

    @property
    def total(self) -> int:
        """How many files there will be."""
        return self.last - self.first + 1

    def done(self) -> int:
        """How many files are there, renumbered or not."""
        return len([name for name in os.listdir(self._raw) if name.endswith(self._extension)]) \
            if os.path.isdir(self._raw) else self.total

    @property
    def _raw(self) -> str:
        return os.path.join(self.folder, "raw")

    def prepare(self) -> None:
        """Empties the place of the files."""
        shutil.rmtree(self._raw, ignore_errors=True)
        os.makedirs(self._raw)

    def finish(self) -> None:
        """Gives the rendered files the plate's numbers. Raises InputError when some are missing."""
        missing = [frame for frame in range(self.first, self.last + 1) if not os.path.isfile(self._rendered(frame))]
        if missing:
            raise InputError(f"{len(missing)} of {self.total} frames were not exported", where=self.strip,
                             remedy=f"The first is frame {missing[0]}: render it in Blender to see why.")
        for frame in range(self.first, self.last + 1):
            name = f"{self.picture.value}.{self.number + frame - self.first:04d}{self._extension}"
            os.replace(self._rendered(frame), os.path.join(self.folder, name))
        shutil.rmtree(self._raw)

    def _rendered(self, frame: int) -> str:
        return f"{self.raw_path}{frame:04d}{self._extension}"  # -1 is -001, as Blender writes it

    @property
    def raw_path(self) -> str:
        """What Blender puts its frame numbers and the extension behind."""
        return os.path.join(self._raw, "f_")


@contextmanager
def isolated(export: Export) -> Iterator[Any]:
    """A copy of the scene that shows the strip, or the mask, alone; gone afterwards. Raises InputError."""
    _require(export)
    copy = bpy.data.scenes[export.scene].copy()
    action = None
    try:
        action = own_action(copy)
        for channel in copy.sequence_editor.channels:
            channel.mute = False  # hidden there, it would be rendered black
        if export.mask is None:
            _keep_only(copy, export)
        else:
            _show_mask(copy.sequence_editor, export)
        _set_render(copy, export)
        yield copy
    finally:
        bpy.data.scenes.remove(copy)
        if action is not None:
            bpy.data.actions.remove(action)


def _require(export: Export) -> None:
    """An export may wait for others, and the artist edits on. Raises InputError when it would show something else."""
    scene = bpy.data.scenes.get(export.scene)
    editor = scene.sequence_editor if scene is not None else None
    if export.mask is not None:
        if editor is None or export.mask not in bpy.data.masks:
            raise InputError("the mask was deleted or renamed before it was exported", where=export.mask,
                             remedy="Choose it again, and stylise the strip again.")
        return
    strips = {strip.name: strip for strip in compat.all_strips_of(editor)} if editor is not None else {}
    if export.strip not in strips:
        raise InputError("the strip was deleted or renamed before it was exported", where=export.strip,
                         remedy="Stylise it again.")
    strip = strips[export.strip]
    start, end = compat.span(strip)
    is_shown = start <= export.first + export.head and export.last - export.tail < end
    if compat.content_start(strip) != export.content or not (is_shown or export.picture is Picture.MATTE):
        raise InputError("the strip was moved or trimmed before it was exported", where=export.strip,
                         remedy="Stylise it again, as it is now.")


def _keep_only(scene: Any, export: Export) -> None:
    editor, name = scene.sequence_editor, export.strip
    strips = compat.strips_of(editor)
    _lift(editor, name)
    _drop_others(strips, _with_sources(strips[name]))
    strip = strips[name]
    drop_opacity(scene, strip)
    for other in strips:
        other.mute = other.name != name  # sources are used all the same; one that lies above would cover the strip
    strip.blend_type, strip.blend_alpha = "REPLACE", 1.0
    start, end = compat.span(strip)
    compat.reveal(strip, max(0, start - export.first), max(0, export.last + 1 - end))


def _lift(editor: Any, name: str) -> None:
    """Takes a strip out of the meta strips around it, whose trims and transforms act on its result as on itself."""
    strips = compat.strips_of(editor)
    strip = compat.all_strips_of(editor)[name]
    around: list[str] = []
    while (strip := strip.parent_meta()) is not None:
        around.insert(0, strip.name)
    for meta in around:
        _drop_others(strips, {meta})
        strips[meta].separate()


def _drop_others(strips: Any, kept: set[str]) -> None:
    for other in [strip.name for strip in strips]:
        if other not in kept and other in strips:  # an effect goes with its input
            strips.remove(strips[other])


def _with_sources(strip: Any) -> set[str]:
    """Names of a strip and of all that its pictures are made from."""
    sources = [*compat.inputs_of(strip), *(modifier.input_mask_strip for modifier in strip.modifiers)]
    found = {strip.name}
    for source in sources:
        if source is not None and source.name not in found:
            found |= _with_sources(source)
    return found


def _show_mask(editor: Any, export: Export) -> None:
    strips = compat.strips_of(editor)
    _drop_others(strips, set())
    strip = strips.new_mask(name="matte", mask=bpy.data.masks[str(export.mask)], channel=1, frame_start=export.first)
    if export.total > 1:
        compat.trim(strip, 0, compat.span(strip)[1] - export.last - 1)
    strip.blend_type = "REPLACE"


def _set_render(scene: Any, export: Export) -> None:
    render = scene.render
    scene.frame_start, scene.frame_end, scene.frame_step = export.first, export.last, 1
    render.use_sequencer, render.use_compositing = True, False
    render.resolution_percentage = 100
    for off in ("use_border", "use_multiview", "use_stamp", "use_placeholder", "use_sequencer_override_scene_strip"):
        setattr(render, off, False)
    render.use_file_extension = render.use_overwrite = True
    render.dither_intensity = 0  # noise would be taken for texture
    render.filepath = compat.literal(export.raw_path)
    compat.write_to_disk(render)
    _set_format(render.image_settings, export.picture)


def _set_format(settings: Any, picture: Picture) -> None:
    settings.color_management = "OVERRIDE"
    if picture is Picture.PLATE:
        compat.still_format(settings, "OPEN_EXR")
        settings.color_mode, settings.color_depth, settings.exr_codec = "RGBA", "16", "ZIP"
        spaces.choose(settings.linear_colorspace_settings, "name", spaces.LINEAR)
    else:
        compat.still_format(settings, "PNG")
        settings.color_mode, settings.color_depth, settings.compression = "BW", "16", 15
        spaces.choose(settings.display_settings, "display_device", spaces.DISPLAYS)
        spaces.choose(settings.view_settings, "view_transform", spaces.VIEWS)
        settings.view_settings.look = "None"
        settings.view_settings.exposure, settings.view_settings.gamma = 0, 1
        compat.leave_colors(settings.view_settings)


def export_here(export: Export) -> None:
    """Exports and returns when all files are there. Raises InputError."""
    export.prepare()
    with isolated(export) as scene:
        try:
            bpy.ops.render.render(animation=True, scene=scene.name)
        except RuntimeError as error:
            raise InputError(f"Blender cannot render the strip: {error}", where=export.strip,
                             remedy="Render it in Blender to see why.") from None
    export.finish()


class ChildExport:
    """An export that a child Blender does, beside the interface; it ends with this one. Nothing here waits."""

    def __init__(self, export: Export) -> None:
        """Writes the isolated scene to a file of its own and starts the child on it."""
        self.export = export
        export.prepare()
        self._blend = os.path.join(export.folder, "export.blend")
        self._log = os.path.join(export.folder, "export.log")
        with isolated(export) as scene:
            bpy.data.libraries.write(self._blend, {scene}, path_remap="ABSOLUTE")
            words = [bpy.app.binary_path, "--background", "--factory-startup", self._blend, "--python-expr",
                     ENDS_WITH_PARENT, "--scene", scene.name, "--render-anim"]
        with open(self._log, "wb") as log:
            self._child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                                           creationflags=NO_WINDOW)

    def poll(self) -> bool:
        """True once all files are there. Raises InputError with the child's last words when it failed."""
        code = self._child.poll()
        if code is None:
            return False
        self._child.communicate()
        if code != 0:
            with open(self._log, encoding="utf-8", errors="replace") as log:
                words = log.read()[-LAST_WORDS:]
            raise InputError(f"the export ended with code {code}", where=self._log, remedy=f"Its last words: {words}")
        self.export.finish()
        os.remove(self._blend)
        os.remove(self._log)
        return True

    def cancel(self) -> None:
        """Ends the child; what it wrote goes too."""
        self._child.kill()
        self._child.communicate()
        erase(self.export.folder)
