# SPDX-License-Identifier: Apache-2.0
"""What stands in the way of a wish: a sentence each, before anything is touched."""
from __future__ import annotations

from fresco_davinci.clip import Clip, Destination, Input, MatteSource, Media, Wish, rate_text
from fresco_davinci.space import space_of
from fresco_davinci.timeline.collect import find, items
from fresco_davinci.timeline.host import Host, Item
from fresco_davinci.timeline.speed import speed_of
from fresco_protocol.errors import Busy, InputError, MatteError, UsageError
from fresco_protocol.movie_times import comes_evenly


def validate(host: Host, clip: Clip, wish: Wish) -> None:
    """Raises what stands in the way of a wish, as a sentence; what is only worth knowing becomes a notice."""
    item, part = find(host, clip), wish.range_in(clip)
    if part.last > clip.count or part.first < 1 or part.step != 1:
        raise UsageError(f"the part {part} is no run of frames of the clip, which has {clip.count}", where=clip.name,
                         remedy=f"Choose frames from 1 to {clip.count}.")
    if wish.input is Input.SOURCE:
        _validate_source(host, clip, wish)
    else:
        _validate_render(host, item, clip, wish)
    if wish.destination is Destination.TAKE:
        _validate_take(host, clip, wish)
    if wish.matte is not None:
        _validate_matte(host, item, clip, wish)
    if wish.input is Input.SOURCE and wish.destination is Destination.TRACK and item.GetFusionCompCount():
        host.notice(f'The Fusion composition of "{clip.name}" is not copied onto the result.')


def _validate_source(host: Host, clip: Clip, wish: Wish) -> None:
    graded = "Take the graded picture in place of the source (--input graded)."
    if clip.media is None:
        raise InputError("a title, a generator, a still or a compound clip has no source media", where=clip.name,
                         remedy=graded)
    if clip.media.rate != clip.rate:
        raise InputError(f"the media runs at {rate_text(clip.media.rate)} fps and the timeline at "
                         f"{rate_text(clip.rate)}: frames would not match", where=clip.name, remedy=graded)
    if not clip.media.sequence and clip.media.first != 0:  # as reported, a subclip's first frame in its file
        raise InputError(f"the media is no whole movie: Resolve counts its frames from {clip.media.first}, and Fresco "
                         "would read others", where=clip.name, remedy=graded)
    if clip.media.count == 1 or not clip.steady:
        raise InputError("the clip is a still, or its speed is changed", where=clip.name, remedy=graded)
    if not clip.media.sequence:
        _validate_times(clip, clip.media, graded)
    speed = speed_of(host, clip)
    if speed is None:
        raise InputError("Resolve does not tell whether the clip runs forwards: the clip is not found in an OTIO of "
                         "the timeline", where=clip.name, remedy=graded)
    if speed != 1:
        raise InputError("the clip runs backwards" if speed < 0 else "the speed of the clip is changed",
                         where=clip.name, remedy=graded)


def _validate_times(clip: Clip, media: Media, graded: str) -> None:
    """Resolve shows a movie by time, and the server counts its frames."""
    try:
        evenly = comes_evenly(media.path, float(media.rate.fraction))
    except OSError:  # the server tells it, with the folders in which it reads
        return
    if evenly is None:
        raise InputError("its kind of file does not say whether its frames come evenly, and Fresco may read others",
                         where=media.path, remedy=f"{graded} MP4, QuickTime and MXF do say it.")
    if not evenly:
        raise InputError("the frames of the media do not come evenly, and Fresco would read others", where=media.path,
                         remedy=graded)


def _validate_render(host: Host, item: Item, clip: Clip, wish: Wish) -> None:
    space_of(clip.space, wish.color_space)
    if item.GetClipEnabled() is False:
        raise InputError("the clip is switched off, and Resolve would render it black", where=clip.name,
                         remedy="Switch it on (Enable Clip), or take the source (--input source).")
    if wish.handles:
        raise UsageError("a render of the clip ends at its cuts and has no handles", where=clip.name,
                         remedy="Leave the handles out, or take the source (--input source).")
    if not host.busy and host.project.IsRenderingInProgress():  # busy: it is we who render
        raise Busy("Resolve is rendering", remedy="Wait for the render queue to end, and do it again.")
    if wish.destination is Destination.TRACK and _may_leave_room(item) and _something_below(host, clip):
        host.notice(f'The result of "{clip.name}" is a whole picture: where the clip itself is transparent or smaller, '
                    "it hides the tracks below.")


def _may_leave_room(item: Item) -> bool:
    """Whether what lies below a clip may be seen: it is made in Resolve, as titles are, or shrunk, cut or faded."""
    shape = {key: value for key, value in (item.GetProperty() or {}).items() if isinstance(value, (int, float))}
    return (item.GetMediaPoolItem() is None or any(shape.get(key, 1) < 1 for key in ("ZoomX", "ZoomY"))
            or any(shape.get(f"Crop{side}", 0) > 0 for side in ("Left", "Right", "Top", "Bottom"))
            or shape.get("Opacity", 100) < 100)


def _something_below(host: Host, clip: Clip) -> bool:
    timeline, end = host.timeline, clip.first + clip.count
    return any(other.GetStart() < end and clip.first < other.GetStart() + other.GetDuration()
               for track, other in items(timeline)
               if track < clip.track and timeline.GetIsTrackEnabled("video", track))


def _validate_take(host: Host, clip: Clip, wish: Wish) -> None:
    if wish.input is Input.GRADED:
        raise UsageError("a take is graded with its clip: a graded picture would be graded twice", where=clip.name,
                         remedy="Take the source (--input source), or place it on a track (--place track).")
    if wish.part is not None:
        raise UsageError("a take covers its whole clip", where=clip.name, remedy="Leave the part out.")
    if host.timeline.GetIsTrackLocked("video", clip.track):
        raise InputError(f"video track {clip.track} is locked", where=clip.name,
                         remedy="Unlock it, or place the result on a track of its own (--place track).")


def _validate_matte(host: Host, item: Item, clip: Clip, wish: Wish) -> None:
    source, wanted = wish.matte.source if wish.matte else None, Input.GRADED
    if source is MatteSource.CLIP:
        wanted = Input.SOURCE
        if not host.pool.GetClipMatteList(item.GetMediaPoolItem()):
            raise MatteError("no matte is attached to the clip", where=clip.name,
                             remedy="Attach one in the media pool (Add Clip Matte), or choose another matte.")
    if wish.input is not wanted:
        raise UsageError(f'the matte "{source.value if source else ""}" fits the {wanted.value} picture only',
                         where=clip.name, remedy=f"Add --input {wanted.value}.")
    track = wish.matte.track if wish.matte else None
    if track is not None and (track == clip.track or track > host.timeline.GetTrackCount("video")):
        raise MatteError(f"video track {track} cannot be the matte", where=clip.name,
                         remedy="Name another video track, which shows black and white.")
