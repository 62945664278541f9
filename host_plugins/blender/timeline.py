# SPDX-License-Identifier: GPL-3.0-or-later
"""The sequencer, in four verbs: collect what is selected, validate it, extract its pictures, integrate the result.

`compat` knows the versions, `media` what a strip is made of, `animation` its keyframes, `isolation` how it is rendered
alone, `results` which strips are ours. Timeline ranges are [start, end) as Blender has them; frame ranges of a shot are
INCLUSIVE.
"""
from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Optional

import bpy

from fresco_protocol.errors import FrameGap, InputError, MatteError, OutputDenied, PlateMissing, RangeOutside
from fresco_protocol.shot import FrameRange

from . import compat, spaces
from .animation import copy_opacity
from .folders import portable
from .isolation import Export, Picture
from .media import Media, files_of, handles_of, media_of, picture_size, rate_of, why_exported, why_other_frames
from .results import RECORD, strip_of_job, strips_of_job

FIRST_EXPORTED = 1001  # number of an export's first file
HIGHEST_CHANNEL = 128
TAG = "COLOR_05"
MARKER = "fresco"
PICTURELESS = {"SOUND": "it is sound", "ADJUSTMENT": "an adjustment layer has no pictures of its own",
               "MULTICAM": "a multicam selector shows other strips' pictures"}


class Extent(Enum):
    """Which part of a strip is stylised."""

    STRIP = "STRIP"
    IN_OUT = "IN_OUT"  # the preview range if it is on, else the scene's
    PLAYHEAD = "PLAYHEAD"  # one test frame


@dataclass(frozen=True)
class MatteSource:
    """Where the look applies: a Mask data-block, or a strip whose brightness tells. One of both.

    frame: the one timeline frame that is taken, to be carried on along the motion; None takes all.
    """

    mask: Optional[str] = None
    strip: Optional[str] = None
    frame: Optional[int] = None


@dataclass(frozen=True)
class Clip:
    """A strip, or a part of it, that will be stylised.

    start, end: timeline frames [start, end) that the result shows. head, tail: handles, frames beyond both.
    first: number in the plate of timeline frame `start - head`. media: the strip's files, None when it is exported;
    exported: why, as the end of a sentence. rate: text of the frames per second. shift: from the first frame of the
    strip's media to the first handle. speed: how long its media last if its speed is changed, else None.
    """

    scene: str
    strip: str
    start: int
    end: int
    head: int
    tail: int
    first: int
    rate: str
    media: Optional[Media]
    exported: Optional[str]
    matte: Optional[MatteSource]
    shift: int
    speed: Optional[int]

    @property
    def frames(self) -> FrameRange:
        """The numbers in the plate, handles included."""
        return FrameRange(first=self.first, last=self.first + self.count - 1)

    @property
    def count(self) -> int:
        """How many frames, handles included."""
        return self.head + self.end - self.start + self.tail

    @property
    def outer_start(self) -> int:
        """The timeline frame of the first handle."""
        return self.start - self.head

    @property
    def outer_end(self) -> int:
        """The timeline frame after the last handle."""
        return self.outer_start + self.count

    def number(self, frame: int) -> int:
        """The number in the plate of a timeline frame."""
        return self.first + frame - self.outer_start


@dataclass(frozen=True)
class Extraction:
    """What the server reads: path patterns of plate and matte, and the exports that must be there first."""

    plate: str
    color_space: str
    matte: Optional[str]
    exports: tuple[Export, ...]


def collect(context: Any, extent: Extent, *, handles: int, matte: Optional[MatteSource]) -> list[Clip]:
    """The clips of the selected strips, one each; strips that are results of ours too, since a look can go on a look.

    The strip that serves as matte, sound, and strips outside the extent are left out.
    """
    scene = compat.sequencer_scene(context)
    if scene is None:
        return []
    chosen = [strip for strip in compat.selected_strips(context, scene)
              if strip.type != "SOUND" and (matte is None or strip.name != matte.strip)]
    spans = [(strip, _part(scene, strip, extent)) for strip in chosen]
    return [_clip(scene, strip, part, handles if extent is not Extent.PLAYHEAD else 0, matte)
            for strip, part in spans if part[0] < part[1]]


def _part(scene: Any, strip: Any, extent: Extent) -> tuple[int, int]:
    start, end = compat.span(strip)
    if extent is Extent.PLAYHEAD:
        return max(start, scene.frame_current), min(end, scene.frame_current + 1)
    if extent is Extent.IN_OUT:
        preview = scene.use_preview_range
        first = scene.frame_preview_start if preview else scene.frame_start
        last = scene.frame_preview_end if preview else scene.frame_end
        return max(start, first), min(end, last + 1)
    return start, end


def _clip(scene: Any, strip: Any, part: tuple[int, int], handles: int, matte: Optional[MatteSource]) -> Clip:
    (start, end), reason = part, why_exported(scene, strip)
    if reason is None and matte is not None and not _fills_picture(scene, strip):
        reason = "its files and the matte have different sizes"
    head, tail = handles_of(strip, start, end, handles)
    reason = reason or why_other_frames(strip, start - head, end + tail)
    media = media_of(strip, start - head, end + tail) if reason is None else None
    if reason is None and media is None:
        reason = "its files are no numbered sequence"
    return Clip(scene=scene.name, strip=strip.name, start=start, end=end, head=head, tail=tail,
                first=FIRST_EXPORTED if media is None else media.first, rate=str(rate_of(scene)), media=media,
                exported=reason, matte=matte, shift=start - head - compat.content_start(strip), speed=speed_of(strip))


def speed_of(strip: Any) -> Optional[int]:
    """How many timeline frames its media last where its speed is changed; None where it is not."""
    start, end = compat.span(strip)
    return end - start + sum(compat.hidden(strip)) if compat.is_retimed(strip) else None


def _fills_picture(scene: Any, strip: Any) -> bool:
    element, transform = strip.elements[0], strip.transform
    return (element.orig_width, element.orig_height) == picture_size(scene) and transform.scale_x == 1


def validate(clip: Clip) -> None:
    """Checks what can be checked before anything is rendered. Raises the InputError that stands in the way."""
    scene, strip = _located(clip)
    if (reason := _why_black(strip)) is not None:
        raise InputError(f"the strip cannot be stylised: {reason}", where=clip.strip,
                         remedy="Select a movie, an image sequence, or a meta strip around both.")
    _require_files(strip, clip.outer_start, clip.outer_end)
    if clip.outer_start < 0 and (clip.media is None or clip.matte is not None):
        raise RangeOutside("Blender renders no frames before 0, and the strip has to be rendered first",
                           where=f"{clip.strip}, frame {clip.outer_start}",
                           remedy="Move it, with its handles, to frame 0 or later.")
    if clip.matte is not None:
        _require_matte(scene, clip, clip.matte)
    free_channel(scene, strip, clip.start, clip.end)


def _why_black(strip: Any) -> Optional[str]:
    """Why a strip is black when it is shown alone, as the end of a sentence; None if it is not."""
    if strip.type == "META":
        reasons = [_why_black(inner) for inner in compat.strips_of(strip)]
        return reasons[0] if reasons and None not in reasons else None
    found = PICTURELESS.get(strip.type)
    return found or next((reason for source in compat.inputs_of(strip) if (reason := _why_black(source))), None)


def _located(clip: Clip) -> tuple[Any, Any]:
    scene = bpy.data.scenes.get(clip.scene)
    editor = scene.sequence_editor if scene is not None else None
    strips = compat.all_strips_of(editor) if editor else ()
    strip = next((found for found in strips if found.name == clip.strip), None)
    if strip is None:
        raise InputError("the strip is gone", where=clip.strip, remedy="Select it again.")
    return scene, strip


def _require_files(strip: Any, start: int, end: int) -> None:
    """Raises PlateMissing or FrameGap unless all files are there that a strip shows: Blender draws others in colour."""
    files = dict.fromkeys(files_of(strip, start, end))
    lacking = [path for path in files if not os.path.isfile(path)]
    if lacking and strip.type == "MOVIE":
        raise PlateMissing("the movie is not on the disk", where=lacking[0], remedy="Relink the strip.")
    if lacking and len(lacking) == len(files):
        raise PlateMissing("no frame of the strip is on the disk", where=lacking[0], remedy="Relink the strip.")
    if lacking:
        raise FrameGap(f"{len(lacking)} frames are missing on the disk", where=lacking[0],
                       remedy="Render them, or trim the strip to what is there.")


def _require_matte(scene: Any, clip: Clip, matte: MatteSource) -> None:
    if matte.frame is not None and not clip.start <= matte.frame < clip.end:
        raise MatteError("the playhead is not on the strip, and the matte is taken from there", where=clip.strip,
                         remedy="Put it on the frame on which the matte is painted.")
    if matte.mask is not None and matte.mask not in bpy.data.masks:
        raise MatteError("the mask is gone", where=matte.mask, remedy="Choose another one.")
    if matte.strip is None:
        return
    strip = {found.name: found for found in compat.all_strips_of(scene.sequence_editor)}.get(matte.strip)
    if strip is None:
        raise MatteError("the matte's strip is gone", where=matte.strip, remedy="Choose another one.")
    if (reason := _why_black(strip)) is not None:
        raise MatteError(f"the matte would be black: {reason}", where=matte.strip, remedy="Choose another one.")
    start, end = compat.span(strip)
    first, last = (clip.outer_start, clip.outer_end) if matte.frame is None else (matte.frame, matte.frame + 1)
    _require_files(strip, max(start, first), min(end, last))


def file_of(sequence: str, number: int) -> str:
    """The file of one frame of a path pattern such as plate.####.exr; "#" in a folder is just its name."""
    folder, name = os.path.split(sequence)
    return os.path.join(folder, re.sub("#+", lambda signs: str(number).zfill(len(signs[0])), name))


def extract(clip: Clip, folder: str) -> Extraction:
    """Where plate and matte are, and what must be exported into `folder` before they are."""
    exports = []
    if clip.media is None:
        exports.append(_plate_export(clip, folder))
    if clip.matte is not None:
        exports.append(_matte_export(clip, clip.matte, folder))
    return Extraction(plate=exports[0].sequence if clip.media is None else clip.media.sequence,
                      color_space="linear-rec709" if clip.media is None else clip.media.color_space,
                      matte=exports[-1].sequence if clip.matte is not None else None, exports=tuple(exports))


def _plate_export(clip: Clip, folder: str) -> Export:
    return Export(scene=clip.scene, strip=clip.strip, first=clip.outer_start, last=clip.outer_end - 1,
                  number=clip.first, folder=os.path.join(folder, Picture.PLATE.value), head=clip.head, tail=clip.tail,
                  content=clip.outer_start - clip.shift)


def _matte_export(clip: Clip, matte: MatteSource, folder: str) -> Export:
    first, last = (clip.outer_start, clip.outer_end - 1) if matte.frame is None else (matte.frame, matte.frame)
    return Export(scene=clip.scene, strip=matte.strip or clip.strip, first=first, last=last, number=clip.number(first),
                  folder=os.path.join(folder, Picture.MATTE.value), picture=Picture.MATTE, mask=matte.mask,
                  content=_content(clip.scene, matte.strip))


def _content(scene: str, name: Optional[str]) -> Optional[int]:
    """The timeline frame of the first frame of a strip's media; None where there is no such strip."""
    editor = bpy.data.scenes[scene].sequence_editor if name is not None and scene in bpy.data.scenes else None
    found = [strip for strip in compat.all_strips_of(editor) if strip.name == name] if editor is not None else []
    return compat.content_start(found[0]) if found else None


def markers_of(clip: Clip) -> list[int]:
    """Plate numbers of the frames that the artist marked `fresco`; a test frame is a keyframe without a mark.

    Raises RangeOutside if there are none.
    """
    scene, _ = _located(clip)
    frames = {marker.frame for marker in scene.timeline_markers if marker.name.lower().startswith(MARKER)}
    found = sorted(clip.number(frame) for frame in frames if clip.start <= frame < clip.end)
    if not found and clip.end - clip.start > 1:
        raise RangeOutside(f'no marker named "{MARKER}" lies on the strip', where=clip.strip,
                           remedy="Press M on each keyframe and name the marker, or choose automatic keyframes.")
    return found


def free_channel(scene: Any, strip: Any, start: int, end: int, *, moving: Any = None) -> int:
    """The first channel above a strip that is empty from start to before end and not locked. Raises OutputDenied.

    moving: a strip that leaves its own place.
    """
    level = strip.parent_meta() or scene.sequence_editor
    taken = {other.channel for other in compat.strips_of(level)
             if other != moving and compat.span(other)[0] < end and start < compat.span(other)[1]}
    locked = {number for number, channel in enumerate(level.channels) if channel.lock}
    for channel in range(strip.channel + 1, HIGHEST_CHANNEL + 1):
        if channel not in taken | locked:
            return channel
    raise OutputDenied("every channel above the strip is taken or locked", where=strip.name,
                       remedy="Unlock one, or move strips away.")


@dataclass(frozen=True)
class Result:
    """A result strip to be. record: what it carries of its job, JSON values only."""

    clip: Clip
    name: str
    sequence: str
    record: dict[str, Any]


def integrate(result: Result, *, beside: Optional[str] = None) -> str:
    """Puts the result on the timeline, frame upon frame, and gives its name; its files may come later.

    beside: key of the job whose result this one is another version of; it is muted, all pieces of it that an artist
    cut, and gives the place.
    """
    clip = result.clip
    scene, source = _located(clip) if beside is None else _version(clip, beside)
    content = clip.outer_start if beside is None else compat.content_start(source)
    pieces = [] if beside is None else [piece for home, piece in strips_of_job(beside)
                                        if home == scene and compat.content_start(piece) == content]
    spans = [compat.span(piece) for piece in pieces] or [(clip.start, clip.end)]
    start, end = min(first for first, _ in spans), max(last for _, last in spans)
    level = source.parent_meta() or scene.sequence_editor
    strip = _new_strip(level, result, free_channel(scene, source, start, end), content)
    compat.set_sizes(strip, clip.media.size if clip.media is not None else picture_size(scene))
    compat.place(strip, content, start, end)
    if clip.media is not None or beside is not None:
        _take_fit(strip, source)
    strip.blend_type = source.blend_type
    copy_opacity(scene, source, strip)
    strip.color_tag, strip.select = TAG, False
    follows = {"strip": clip.strip, "shift": clip.shift, "speed": clip.speed}
    strip[RECORD] = json.dumps({**result.record, "follows": follows})
    for piece in pieces:
        piece.mute = True
    return str(strip.name)


def _version(clip: Clip, key: str) -> tuple[Any, Any]:
    scene, strip = strip_of_job(key)
    if strip is None:
        raise InputError("the result strip is gone", where=clip.strip, remedy="Stylise the strip again.")
    return scene, strip


def _new_strip(level: Any, result: Result, channel: int, start: int) -> Any:
    names = [os.path.basename(file_of(result.sequence, number)) for number in result.clip.frames.numbers()]
    path = os.path.join(os.path.dirname(result.sequence), names[0])
    strip = compat.strips_of(level).new_image(name=result.name, filepath=path, channel=channel, frame_start=start,
                                              fit_method="ORIGINAL")
    for name in names[1:]:
        strip.elements.append(name)
    strip.directory = portable(os.path.dirname(path))
    is_exr = path.endswith(".exr")  # said here, because Blender would ask a file that may not be there yet
    spaces.choose(strip.colorspace_settings, "name", spaces.LINEAR if is_exr else spaces.SRGB)
    strip.alpha_mode = "PREMUL" if is_exr else "STRAIGHT"
    return strip


def _take_fit(strip: Any, source: Any) -> None:
    for name in ("scale_x", "scale_y", "offset_x", "offset_y", "rotation", "filter"):
        setattr(strip.transform, name, getattr(source.transform, name))


def clip_to_json(clip: Clip) -> dict[str, Any]:
    """A clip as JSON values, to do its job again after a restart."""
    return asdict(clip)


def clip_of_json(found: dict[str, Any]) -> Clip:
    """The clip of its JSON values."""
    media, matte = found["media"], found["matte"]
    return Clip(**{**found, "media": media and Media(**{**media, "size": tuple(media["size"])}),
                   "matte": matte and MatteSource(**matte)})
