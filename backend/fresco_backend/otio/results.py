# SPDX-License-Identifier: Apache-2.0
"""What is rendered for a clip, and its way back into the timeline: on a track on top, or as the clip's second media."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import opentimelineio as otio

from fresco_backend.otio.clips import Usage, exact
from fresco_protocol.errors import UsageError
from fresco_protocol.shot import Delivery, FrameRange, Look, Plate, Rate, Shot

NAME = "FRESCO"  # of the track, and of the media reference
PADDING = 4

Timeline = Any  # opentimelineio.schema.Timeline; the library carries no types


class Return(Enum):
    """How a result comes back."""

    TRACK = "track"  # a new track above the others; nothing else is changed
    REFERENCE = "reference"  # the clip's own media becomes the result; the first one stays beside it where it can


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a usage becomes. path: of the movie, or the pattern of the sequence."""

    usage: Usage
    path: Path
    is_movie: bool

    def shot(self, look: Look) -> Shot:
        """The shot that makes it."""
        first, last = self.usage.numbers
        rate = exact(self.usage.media.rate)
        return Shot(name=self.usage.name, look=look, delivery=Delivery(sequence=str(self.path)),
                    plate=Plate(sequence=self.usage.media.sequence, frames=(FrameRange(first=first, last=last),),
                                rate=Rate(numerator=rate.numerator, denominator=rate.denominator)))

    def reference(self, *, bare: bool) -> Any:
        """The media reference, in the source time of the plate, so that ranges of clips stay as they are.

        bare: paths in place of URLs, as Resolve's importer wants them.
        """
        available = _range(self.usage)
        if self.is_movie:
            return otio.schema.ExternalReference(_target(self.path, bare=bare), available)
        prefix, suffix = self.path.name.split("#" * PADDING)
        return otio.schema.ImageSequenceReference(
            target_url_base=_target(self.path.parent, bare=bare) + "/", name_prefix=prefix, name_suffix=suffix,
            start_frame=self.usage.numbers[0], rate=self.usage.media.rate, frame_zero_padding=PADDING,
            available_range=available)


def result(usage: Usage, folder: Path, *, as_movie: bool) -> Result:
    """The result of a usage, below `folder`; a movie when asked, or when the plate is one.

    Its name is unlike that of its plate, because editing programs and archives tell media by their names.
    """
    stem = f"{usage.name}_fresco"
    if as_movie or usage.media.is_movie:
        return Result(usage=usage, path=folder / f"{stem}.mov", is_movie=True)
    name = f"{stem}.{'#' * PADDING}{Path(usage.media.sequence).suffix}"
    return Result(usage=usage, path=folder / stem / name, is_movie=False)


def require_way(timeline: Timeline, clips: Sequence[Any], way: Return) -> None:
    """Raises UsageError for a clip inside a nested timeline, which a new track above cannot cover."""
    outer = [item for track in timeline.video_tracks() for item in track]
    inner = [clip.name for clip in clips if not any(clip is item for item in outer)]
    if way is Return.TRACK and inner:
        raise UsageError(f"clip {inner[0]} lies inside a nested timeline", where="--return",
                         remedy="Take --return reference, or export the nested timeline by itself.")


def returned(timeline: Timeline, results: Sequence[Result], way: Return) -> Timeline:
    """The timeline with the results in it; its first clips are those of `timeline`, which is changed."""
    references = [made.reference(bare=_is_bare(made.usage.clip)) for made in results]
    if way is Return.REFERENCE:
        for made, reference in zip(results, references, strict=True):
            clip = made.usage.clip
            clip.set_media_references({**clip.media_references(), NAME: reference}, NAME)
        return timeline
    by_clip = {id(made.usage.clip): reference for made, reference in zip(results, references, strict=True)}
    tracks = [track for track in timeline.video_tracks() if any(id(clip) in by_clip for clip in track.find_clips())]
    copies = [_track(track, by_clip) for track in tracks]
    top = max(place for place, track in enumerate(timeline.tracks) if track.kind == otio.schema.TrackKind.Video) + 1
    for place, track in enumerate(copies, top):
        timeline.tracks.insert(place, track)
    return timeline


def _track(track: Any, by_clip: dict[int, Any]) -> Any:
    """A track with the results where their clips are, gaps elsewhere, and the transitions beside results."""
    made = otio.schema.Track(NAME, kind=otio.schema.TrackKind.Video)
    items = list(track)
    for before, item, after in zip([None, *items[:-1]], items, [*items[1:], None], strict=True):
        if isinstance(item, otio.schema.Transition):
            if any(id(beside) in by_clip for beside in (before, after)):
                made.append(item.deepcopy())
        elif id(item) in by_clip:
            made.append(_clip(item, by_clip[id(item)]))
        else:
            made.append(otio.schema.Gap(source_range=otio.opentime.TimeRange(
                otio.opentime.RationalTime(0, item.duration().rate), item.duration())))
    return made


def _clip(clip: Any, reference: Any) -> Any:
    """The clip's name, range and speed on other media."""
    made = otio.schema.Clip(clip.name, reference, clip.trimmed_range())
    made.effects.extend(effect.deepcopy() for effect in clip.effects if isinstance(effect, otio.schema.TimeEffect))
    return made


def _range(usage: Usage) -> Any:
    rate = usage.media.rate
    return otio.opentime.TimeRange(otio.opentime.RationalTime(usage.start, rate),
                                   otio.opentime.RationalTime(usage.count, rate))


def _is_bare(clip: Any) -> bool:
    reference = clip.media_reference
    url = getattr(reference, "target_url", None) or getattr(reference, "target_url_base", None)
    return "://" not in str(url)


def _target(path: Path, *, bare: bool) -> str:
    return str(path) if bare else path.as_uri()

