# SPDX-License-Identifier: GPL-3.0-or-later
"""What every scenario needs inside Blender: the installed add-on, strips of numbered footage, and eyes.

Runs in Blender's Python: bpy, numpy and the standard library. Footage comes from `footage.py`: each frame has its
number burnt in as bars, so that a frame in the wrong place is another picture.
"""
from __future__ import annotations

import importlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.float32]

ADDON = "bl_ext.user_default.fresco"
SIZE = (96, 64)
ALIKE = 0.01  # largest difference of a picture that went through the server unchanged
ALIKE_FILM = 0.01  # mean difference: two decoders of one film place its coarse colour a little differently
OTHER = 0.3  # least difference of two frames with other numbers
PATIENCE = 180.0  # seconds
HELD = ("strips", "sequences")  # what a meta strip holds: results come into it


class Stage:
    """The open scene with the add-on in it."""

    def __init__(self, archive: str, connection: str, footage: str, work: str) -> None:
        """archive: the built extension. connection: file of the running server. work: an empty folder."""
        self.footage, self.work = Path(footage), Path(work)
        bpy.ops.extensions.package_install_files(filepath=archive, repo="user_default", enable_on_install=True)
        self.preferences = bpy.context.preferences.addons[ADDON].preferences
        self.preferences.connection_file, self.preferences.autostart = connection, False
        self.begin()

    def begin(self) -> None:
        """A scene as a user has it when the strips come in."""
        scene = self.scene
        self.module("compat").show_in_sequencer(bpy.context, scene)
        scene.render.resolution_x, scene.render.resolution_y = SIZE
        scene.sequence_editor_create()
        scene.frame_end = 250
        self.settings.prompt, self.settings.folder = "a watercolour painting", str(self.work / "shots")
        self.settings.own_strength, self.settings.strength = True, 0  # the plate comes back, which can be compared

    @property
    def scene(self) -> Any:
        """The user's scene."""
        return bpy.context.scene

    @property
    def settings(self) -> Any:
        """The panel."""
        return self.scene.fresco

    @property
    def queue(self) -> Any:
        """The add-on's queue."""
        return self.module("jobs").queue

    def module(self, name: str) -> ModuleType:
        """A module of the installed add-on."""
        return importlib.import_module(f"{ADDON}.{name}")

    @property
    def strips(self) -> Any:
        """The strips at the top level."""
        return self.module("compat").strips_of(self.scene.sequence_editor)

    def span(self, strip: Any) -> tuple[int, int]:
        """Its timeline frames, the end exclusive."""
        found: tuple[int, int] = self.module("compat").span(strip)
        return found

    def sequence(self, kind: str, *, channel: int = 2, at: int = 1, trim: tuple[int, int] = (0, 0)) -> Any:
        """A strip of all frames of an image sequence of the footage: "png", "exr" or "hdr"."""
        files = sorted((self.footage / kind).iterdir())
        strip = self.strips.new_image(name=kind, filepath=str(files[0]), channel=channel, frame_start=at)
        for path in files[1:]:
            strip.elements.append(path.name)
        self.module("compat").trim(strip, *trim)
        return strip

    def movie(self, name: str = "movie.mp4", *, channel: int = 2, at: int = 1, trim: tuple[int, int] = (0, 0)) -> Any:
        """A strip of a movie of the footage."""
        strip = self.strips.new_movie(name=Path(name).stem, filepath=str(self.footage / name), channel=channel,
                                      frame_start=at)
        self.module("compat").trim(strip, *trim)
        return strip

    def effect(self, kind: str, below: Any, above: Any) -> Any:
        """An effect strip over two others; each release names the arguments in its own way."""
        start, end = self.span(below)
        places = {"name": "effect", "type": kind, "channel": 5, "frame_start": start}
        if bpy.app.version >= (5, 0, 0):
            return self.strips.new_effect(**places, length=end - start, input1=below, input2=above)
        names = ("input1", "input2") if bpy.app.version >= (4, 5, 0) else ("seq1", "seq2")
        return self.strips.new_effect(**places, frame_end=end, **dict(zip(names, (below, above), strict=True)))

    def set_speed(self, strip: Any, percent: float) -> None:
        """By the operator: the data API crashes Blender before 5.2 when a strip has no keys yet."""
        self.select(strip)
        self.scene.sequence_editor.active_strip = strip
        with sequencer_shown(self):
            bpy.ops.sequencer.retiming_segment_speed_set(speed=percent)

    def select(self, *strips: Any) -> None:
        """Only these are selected."""
        for strip in self.module("compat").all_strips_of(self.scene.sequence_editor):
            strip.select = strip in strips

    def stylise(self, **options: Any) -> list[Any]:
        """The rows of a blocking Stylise."""
        before = list(self.queue.rows)
        bpy.ops.fresco.stylise(**options)
        return [row for row in self.queue.rows if row not in before]

    def result(self, row: Any) -> Any:
        """The result strip of a row."""
        return self.module("results").strip_of_job(row.key)[1]

    def until(self, holds: Callable[[], bool]) -> None:
        """Ticks until something holds; fails after a while."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, [(row.state, row.problem) for row in self.queue.rows]
            self.module("ticker").step()
            time.sleep(0.05)

    def seen(self, first: int, last: int, *, muted: tuple[Any, ...] = ()) -> list[Picture]:
        """What the timeline shows from first to last, INCLUSIVE, scene-linear RGB, with these strips muted."""
        folder = self.work / "seen"
        shutil.rmtree(folder, ignore_errors=True)
        was = [(strip, strip.mute) for strip in muted]
        for strip in muted:
            strip.mute = True
        copy = self.scene.copy()
        try:
            self._render(copy, first, last, folder)
        finally:
            bpy.data.scenes.remove(copy)
            for strip, mute in was:
                strip.mute = mute
        return [read_picture(path) for path in sorted(folder.iterdir())]

    def _render(self, scene: Any, first: int, last: int, folder: Path) -> None:
        scene.frame_start, scene.frame_end = first, last
        scene.render.filepath = str(folder / "f_")
        self.module("compat").still_format(scene.render.image_settings, "OPEN_EXR")
        scene.render.image_settings.color_depth = "32"
        bpy.ops.render.render(animation=True, scene=scene.name)

    def check_result(self, row: Any, source: Any, *, muted: tuple[Any, ...] = (), film: bool = False,
                     moves: bool = True) -> None:
        """Each frame of the result shows what the source shows there, and no frame shows what its neighbour does.

        film: two decoders or scalers may differ a little. moves: the footage is known to move from frame to frame.
        """
        assert row.state == "delivered", (row.state, row.problem)
        result = self.result(row)
        start, end = self.span(source)
        assert self.span(result) == (start, end), (self.span(result), start, end)
        plain = self.seen(start, end - 1, muted=(result, *muted))
        styled = self.seen(start, end - 1, muted=(source, *muted))
        assert len(plain) == len(styled) == end - start
        for index, (before, after) in enumerate(zip(plain, styled, strict=True)):
            difference = np.abs(before - after)
            alike = difference.mean() < ALIKE_FILM if film else difference.max() < ALIKE
            assert alike, f"timeline frame {start + index} differs by {difference.max()}, mean {difference.mean()}"
        moving = [np.abs(one - other).max() > OTHER for one, other in zip(plain, plain[4:], strict=False)]
        assert not moves or all(moving), "the footage stands still: this would prove nothing"

    def snapshot(self) -> dict[str, Any]:
        """What a user has set in the scene, results left out."""
        scene = self.scene
        strips = {strip.name: _facts(strip) for strip in self.module("compat").all_strips_of(scene.sequence_editor)
                  if "fresco" not in strip}
        return {"scenes": sorted(scene.name for scene in bpy.data.scenes), "frame": scene.frame_current,
                "range": (scene.frame_start, scene.frame_end), "render": _facts(scene.render),
                "view": _facts(scene.view_settings), "strips": strips}


def _facts(thing: Any) -> dict[str, Any]:
    """All properties of a thing of Blender's."""
    return {known.identifier: _plain(getattr(thing, known.identifier)) for known in thing.bl_rna.properties
            if known.identifier not in HELD}


def _plain(value: Any) -> Any:
    """A value that can be compared; what Blender makes anew at each look is its text."""
    if isinstance(value, (bool, int, float, str)):
        return value
    return str(value).split(" at 0x")[0]


def read_picture(path: Path, *, raw: bool = False) -> Picture:
    """(H, W, 3) scene-linear, the first row at the top. raw: the values of the file as they stand, like an EXR's."""
    image = bpy.data.images.load(str(path))
    image.colorspace_settings.is_data = raw or path.suffix == ".exr" or image.colorspace_settings.is_data
    width, height = image.size
    pixels = np.empty(width * height * image.channels, np.float32)
    image.pixels.foreach_get(pixels)
    picture = pixels.reshape(height, width, -1)[::-1, :, :3].copy()
    bpy.data.images.remove(image)
    return picture


def burnt_number(picture: Picture) -> int:
    """The number in the bars of a picture, see `footage.py`."""
    bars = picture[8:20].mean(axis=(0, 2))
    return sum(1 << bit for bit in range(12) if bars[bit * 8 + 2:bit * 8 + 6].mean() > 0.3)


def files_below(folder: str) -> int:
    """How many files a folder has, at any depth."""
    return sum(len(names) for _, _, names in os.walk(folder))


def refused(call: Any, sentence: str) -> None:
    try:
        call()
    except RuntimeError as error:
        assert sentence in str(error), error
    else:
        raise AssertionError(f"not refused: {sentence}")


def take_time(stage: Stage, *, steps: int) -> None:
    """A real render, as small as can be."""
    settings = stage.settings
    settings.strength, settings.steps, settings.steadiness = 0.5, steps, "QUICK"
    settings.own_working_size, settings.working_size = True, 64


@contextmanager
def sequencer_shown(stage: Stage) -> Iterator[None]:
    """A sequencer on the screen, for operators that want one."""
    window = bpy.context.window_manager.windows[0]
    window.scene = stage.scene
    stage.module("compat").show_in_sequencer(bpy.context, stage.scene)
    area = window.screen.areas[0]
    area.type = "SEQUENCE_EDITOR"
    region = next(region for region in area.regions if region.type == "WINDOW")
    with bpy.context.temp_override(window=window, area=area, region=region):
        yield
