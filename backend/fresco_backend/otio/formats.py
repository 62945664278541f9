# SPDX-License-Identifier: Apache-2.0
"""Files of timelines: which adapter of OpenTimelineIO reads and writes each, and what it loses on the way."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree
from zipfile import ZipFile

import opentimelineio as otio

from fresco_backend.files.deliveries import make_writable, refused
from fresco_backend.otio import edl, fcpxml
from fresco_backend.otio.clips import exact
from fresco_protocol.errors import InputError, OutputDenied, UsageError

Timeline = Any  # opentimelineio.schema.Timeline; the library carries no types


@dataclass(frozen=True, kw_only=True)
class Format:
    """What a kind of file can hold. package: of the adapter on the package index; None comes with OpenTimelineIO.

    sequences: references to image sequences. tracks: more than one of pictures. retimes: changed speeds.
    """

    name: str
    package: str | None = None
    module: str = "opentimelineio"
    sequences: bool = False
    tracks: bool = True
    retimes: bool = False


_OTIO = Format(name="OpenTimelineIO", sequences=True, retimes=True)
_ARCHIVE = Format(name="OpenTimelineIO with its media", retimes=True)
FORMATS = {
    ".otio": _OTIO, ".otiod": _ARCHIVE, ".otioz": _ARCHIVE,
    ".xml": Format(name="Final Cut Pro 7 XML", package="otio-fcp-adapter", module="otio_fcp_adapter"),
    ".fcpxml": Format(name="FCPXML", package="otio-fcpx-xml-adapter", module="otio_fcpx_xml_adapter"),
    ".aaf": Format(name="AAF", package="otio-aaf-adapter", module="otio_aaf_adapter"),
    ".edl": Format(name="EDL", package="otio-cmx3600-adapter", module="otio_cmx3600_adapter", tracks=False),
}  # fmt: skip


_CONTENT = "content.otio"  # the timeline in an archive


def format_of(path: Path) -> Format:
    """The format of a file by its extension. Raises UsageError for one that is unknown or whose adapter is not here."""
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise UsageError(f'"{path.suffix}" is no timeline that Fresco reads', where=path,
                         remedy=f"It reads {', '.join(FORMATS)}.")
    if importlib.util.find_spec(found.module) is None:
        raise UsageError(f"the adapter for {found.name} is not installed", where=path,
                         remedy='Install it: pip install "fresco-post[otio]"')
    return found


def read_timeline(path: Path, rate: Fraction | None = None) -> Timeline:
    """The timeline in a file. rate: frames per second, which an EDL does not say.

    Raises InputError, and UsageError for an EDL without a rate or a file with several timelines.
    """
    format_of(path)
    reads = _reader(path, rate)
    try:
        found = reads()
    except InputError as error:
        raise InputError(error.what, where=path, remedy=error.remedy) from None
    except Exception as error:  # adapters raise whatever their libraries do
        raise InputError(f"the timeline cannot be read: {_words(error)}", where=path,
                         remedy="Export it again, or as another format.") from error
    timelines = [found] if isinstance(found, otio.schema.Timeline) else [
        child for child in found if isinstance(child, otio.schema.Timeline)]
    if len(timelines) != 1:
        raise UsageError(f"the file holds {len(timelines)} timelines", where=path, remedy="Export one timeline alone.")
    if path.suffix.lower() == ".otioz":
        _refer_to(_unpacked(path), timelines[0])
    return timelines[0]


def _unpacked(path: Path) -> Path:
    return path.absolute().with_suffix(".media")


def _read_archive(path: Path) -> Any:
    """What an archive holds. It is unpacked beside itself, except files that are whole from an earlier run: by their
    times a shot that was interrupted knows its plate."""
    made = path.stat().st_mtime
    with ZipFile(path) as archive:
        for member in archive.infolist():
            there = _unpacked(path) / member.filename
            known = there.stat() if there.is_file() else None
            if known is None or known.st_size != member.file_size or known.st_mtime < made:
                archive.extract(member, _unpacked(path))
    return otio.adapters.read_from_file(str(_unpacked(path) / _CONTENT))


def _refer_to(folder: Path, timeline: Timeline) -> None:
    """Let the references of an archive, which are relative, lead to where it is unpacked."""
    for clip in timeline.find_clips():
        for reference in clip.media_references().values():
            if isinstance(reference, otio.schema.ExternalReference) and "://" not in reference.target_url:
                reference.target_url = (folder / reference.target_url).as_uri()


def _reader(path: Path, rate: Fraction | None) -> Callable[[], Any]:
    """What reads a file."""
    suffix = path.suffix.lower()
    options: dict[str, Any] = {}
    if suffix == ".fcpxml":
        return partial(fcpxml.read, path)
    if suffix == ".edl":
        if rate is None:
            raise UsageError("an EDL does not say its frame rate", where=path, remedy="Give it, for example --rate 24")
        return partial(edl.read, path, rate)
    if suffix == ".otiod":
        options = {"absolute_media_reference_paths": True}
    if suffix == ".otioz":
        return partial(_read_archive, path)
    return partial(otio.adapters.read_from_file, str(path), **options)


def check_timeline(timeline: Timeline, path: Path) -> None:
    """Write a timeline, without media, and take it away again. Raises as `write_timeline` would."""
    _write(timeline, path, keep=False)


def write_timeline(timeline: Timeline, path: Path) -> None:
    """Write a timeline, whole or not at all, in place of what had its name.

    Raises OutputDenied when it cannot be written there, or as this format; DiskFull.
    """
    _write(timeline, path, keep=True)


def _write(timeline: Timeline, path: Path, *, keep: bool) -> None:
    make_writable(path.parent)
    try:
        with TemporaryDirectory(prefix=".fresco-", dir=path.absolute().parent) as folder:
            made = Path(folder, path.name)
            _encode(timeline, made, with_media=keep)
            if keep and path.is_dir() and made.is_dir():
                path.rename(Path(folder, "before"))
            if keep:
                made.replace(path)
    except UsageError:
        raise
    except OSError as error:
        raise refused(path, error) from error
    except Exception as error:  # adapters raise whatever their libraries do
        raise OutputDenied(f"the timeline cannot be written as {format_of(path).name}: {_words(error)}", where=path,
                           remedy="Write an .otio, which holds everything, or another format.") from error


def _encode(timeline: Timeline, path: Path, *, with_media: bool) -> None:
    suffix = path.suffix.lower()
    options: dict[str, Any] = {"use_empty_mob_ids": True} if suffix == ".aaf" else {}
    if suffix in (".otiod", ".otioz"):
        policy = otio.adapters.file_bundle_utils.MediaReferencePolicy
        options["media_policy"] = policy.MissingIfNotFile if with_media else policy.AllMissing
    if suffix == ".fcpxml":
        fcpxml.write(timeline, path, exact(rate_of(timeline)))
    elif suffix == ".edl":
        edl.write(timeline, path, rate_of(timeline))
    else:  # some adapters change what they write
        otio.adapters.write_to_file(timeline.deepcopy(), str(path), **options)


def rate_of(timeline: Timeline) -> float:
    """Frames per second of a timeline: its own, else that of its pictures."""
    if timeline.global_start_time is not None:
        return float(timeline.global_start_time.rate)
    return float(next((track.duration().rate for track in timeline.video_tracks()), 24.0))


def of_other_rates(path: Path) -> frozenset[str]:
    """Names of clips whose media runs at a rate of its own, where the format's adapter has one rate for all."""
    return fcpxml.of_other_rates(path) if path.suffix.lower() == ".fcpxml" else frozenset()


def is_retimed(clip: Any) -> bool:
    """Whether the file of a clip says a changed speed of which its adapter does not tell."""
    return edl.KEPT in clip.metadata


def retimed_in_file(path: Path) -> frozenset[str]:
    """Names of clips whose changed speed the adapter of the format does not tell of."""
    if path.suffix.lower() not in (".fcpxml", ".xml"):
        return frozenset()
    root = ElementTree.parse(path).getroot()  # the adapter has parsed the same file
    if path.suffix.lower() == ".fcpxml":
        return frozenset(clip.get("name", "") for clip in root.iter() if clip.find("timeMap") is not None)
    clips = (clip for clip in root.iter("clipitem") for effect in clip.iter("effectid") if effect.text == "timeremap")
    return frozenset(clip.findtext("name", "") for clip in clips)


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
