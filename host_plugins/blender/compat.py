# SPDX-License-Identifier: GPL-3.0-or-later
"""The sequencer of Blender 4.2 to 5.2 under one set of names; what a version lacks is decided here and nowhere else.

4.4 renamed sequences to strips, 5.0 gave the sequencer a scene of its own, 5.1 renamed the frames of a strip.
"""
from __future__ import annotations

import ctypes
from typing import Any

import bpy

RENAMED_FRAMES = bpy.app.version >= (5, 1, 0)  # the old names warn from 5.2 on
TURNS_MOVIES = bpy.app.version >= (5, 0, 0)  # as telephones ask for; some releases of 4 do, which does not matter
TEXT_BOX = "textbox" in bpy.types.UILayout.bl_rna.functions  # 5.2: several lines


def sequencer_scene(context: Any) -> Any:
    """The scene that the sequencer of this context shows; 5.0 and later may show another than the active one.

    None where no scene is chosen.
    """
    workspace = context.workspace
    if workspace is not None and "sequencer_scene" in workspace.bl_rna.properties:
        return workspace.sequencer_scene or context.scene
    return context.scene


def show_in_sequencer(context: Any, scene: Any) -> None:
    """Makes the sequencer of this context show a scene."""
    workspace = context.workspace
    if workspace is not None and "sequencer_scene" in workspace.bl_rna.properties:
        workspace.sequencer_scene = scene


def strips_of(owner: Any) -> Any:
    """The strips of an editor or of a meta strip, those inside other metas left out."""
    return owner.strips if hasattr(owner, "strips") else owner.sequences


def all_strips_of(editor: Any) -> Any:
    """All strips of an editor, those inside metas too."""
    return editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all


def selected_strips(context: Any, scene: Any) -> list[Any]:
    """The selected strips of the level that the sequencer shows, in the order of time."""
    editor = scene.sequence_editor
    if editor is None:
        return []
    level = editor.meta_stack[-1] if editor.meta_stack else editor
    return sorted((strip for strip in strips_of(level) if strip.select), key=lambda strip: (span(strip), strip.channel))


def span(strip: Any) -> tuple[int, int]:
    """The timeline frames that a strip shows: first, and the one after the last."""
    if RENAMED_FRAMES:
        return strip.left_handle, strip.right_handle
    return strip.frame_final_start, strip.frame_final_end


def content_start(strip: Any) -> int:
    """The timeline frame of the first frame of its media, trimmed or not."""
    return int(strip.content_start if RENAMED_FRAMES else strip.frame_start)


def content_duration(strip: Any) -> int:
    """How many timeline frames its media last, trimmed or not."""
    return int(strip.content_duration if RENAMED_FRAMES else strip.frame_duration)


def hard_trim(strip: Any) -> int:
    """How many frames of the file come before its media."""
    return int(strip.content_trim_start if RENAMED_FRAMES else strip.animation_offset_start)


def trim(strip: Any, head: int, tail: int) -> None:
    """Hides frames of the media at both ends."""
    if RENAMED_FRAMES:
        strip.left_handle_offset, strip.right_handle_offset = head, tail
    else:
        strip.frame_offset_start, strip.frame_offset_end = head, tail


def hidden(strip: Any) -> tuple[int, int]:
    """How many timeline frames of its media its trims hide at both ends."""
    names = ("left_handle_offset", "right_handle_offset") if RENAMED_FRAMES else \
        ("frame_offset_start", "frame_offset_end")
    head, tail = (max(0, int(getattr(strip, name))) for name in names)
    return head, tail


def place(strip: Any, content: int, start: int, end: int) -> None:
    """Puts the first frame of its media at timeline frame `content`, and shows timeline frames [start, end)."""
    setattr(strip, "content_start" if RENAMED_FRAMES else "frame_start", content)
    trim(strip, start - content, content + content_duration(strip) - end)


def reveal(strip: Any, head: int, tail: int) -> None:
    """Shows frames of the media that trims hide at both ends."""
    if head or tail:
        names = ("left_handle_offset", "right_handle_offset") if RENAMED_FRAMES else \
            ("frame_offset_start", "frame_offset_end")
        trim(strip, getattr(strip, names[0]) - head, getattr(strip, names[1]) - tail)


def is_retimed(strip: Any) -> bool:
    """Whether its speed was changed. 4.2 and 4.3 do not tell for every kind of strip: there its length does."""
    if hasattr(strip, "retiming_keys"):
        return len(strip.retiming_keys) > 0
    start, end = span(strip)
    offsets = strip.frame_offset_start + strip.frame_offset_end
    return bool(round(end - start + offsets) != strip.frame_duration)


def inputs_of(strip: Any) -> list[Any]:
    """The strips that an effect strip takes."""
    return [found for found in (getattr(strip, "input_1", None), getattr(strip, "input_2", None)) if found is not None]


def still_format(image_settings: Any, file_format: str) -> None:
    """Chooses a format of single pictures; 5.0 wants the kind of media first."""
    if "media_type" in image_settings.bl_rna.properties:
        image_settings.media_type = "IMAGE"
    image_settings.file_format = file_format


def leave_colors(view_settings: Any) -> None:
    """No curves, and no white balance, which 4.3 brought."""
    for name in ("use_curve_mapping", "use_white_balance"):
        if name in view_settings.bl_rna.properties:
            setattr(view_settings, name, False)


def write_to_disk(render: Any) -> None:
    """5.2 can render without writing files."""
    if "save_output" in render.bl_rna.properties:
        render.save_output = True


def literal(path: str) -> str:
    """A path as the output of a render: 5.0 takes what stands in braces for a variable."""
    return path.replace("{", "{{").replace("}", "}}") if bpy.app.version >= (5, 0, 0) else path


class _Element(ctypes.Structure):
    """One picture of an image strip, as it lies in Blender's memory (StripElem in its sources)."""

    _fields_ = (("filename", ctypes.c_char * 256), ("width", ctypes.c_int), ("height", ctypes.c_int))


def set_sizes(strip: Any, size: tuple[int, int]) -> None:
    """Gives all pictures of an image strip this size, until their files come.

    `elements.append` leaves it as memory was before, and no property sets it; from 4.5 on a file that is not there yet
    is drawn in that size, and Blender crashes for want of memory. So it is written where it lies, after a look whether
    it does lie there.
    """
    for element in strip.elements:
        found = _Element.from_address(element.as_pointer())
        if (found.filename, found.width, found.height) == (
                element.filename.encode(), element.orig_width, element.orig_height):
            found.width, found.height = size


def show_new_files(strip: Any) -> None:
    """Makes a strip read its files again."""
    strip.invalidate_cache("RAW")
