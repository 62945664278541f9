# SPDX-License-Identifier: Apache-2.0
"""FCPXML, whose adapter reckons in floats and whole rates: it is shown frames in place of seconds, and given the rate.

Every time of the file is a whole number of frames of its sequence. The adapter sees them as frames at 24 a second, for
which its floats are exact; what it makes gets the sequence's own rate, and what it writes gets the timeline's.
Source: Apple, FCPXML Reference (times are rational seconds; offsets count in the parent, that of a sequence begins at
its tcStart).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import opentimelineio as otio

from fresco_protocol.errors import InputError, UsageError

ADAPTER = "fcpx_xml"
SHOWN = 24  # frames a second, to the adapter
TIMES = ("offset", "start", "duration")
PLACED = ("clip", "asset-clip", "ref-clip", "gap")  # what the adapter places on tracks, and between
UNKNOWN = ("title", "sync-clip", "mc-clip", "audition")  # what it does not know becomes a gap of the same length
KEPT = "fcpxml"  # metadata of a timeline: {"tcFormat": "DF"}
# Names of formats end in the rate as Apple writes it.
NAMES = {Fraction(24000, 1001): "2398", Fraction(24): "24", Fraction(25): "25", Fraction(30000, 1001): "2997",
         Fraction(30): "30", Fraction(50): "50", Fraction(60000, 1001): "5994", Fraction(60): "60"}

Timeline = Any  # opentimelineio.schema.Timeline; the library carries no types


def read(path: Path) -> Any:
    """What the adapter makes of a file, at the rate of its sequence. Raises InputError; and what the adapter raises."""
    root = ElementTree.parse(path).getroot()
    sequence = _sequence(root)
    rate = _rate(root, sequence)
    start = round(_seconds(sequence.get("tcStart")) * rate)
    for one in root.iter("sequence"):
        _begin_at(one, -_seconds(one.get("tcStart")))
    _flatten(root)
    _show(root, sequence, rate)
    shown = ElementTree.tostring(root, encoding="unicode")
    made = _with_times(otio.adapters.read_from_string(shown, ADAPTER), lambda time: (time["value"], float(rate)))
    for timeline in [made] if isinstance(made, otio.schema.Timeline) else made:
        if isinstance(timeline, otio.schema.Timeline):
            timeline.global_start_time = otio.opentime.RationalTime(start, float(rate))
            timeline.metadata[KEPT] = {"tcFormat": sequence.get("tcFormat", "NDF")}
    return made


def write(timeline: Timeline, path: Path, rate: Fraction) -> None:
    """Write a timeline with all of its times at one rate. Raises UsageError for a time between two frames of it."""
    made = timeline.deepcopy()
    for clip in made.find_clips():
        clip.source_range = clip.trimmed_range()  # the adapter wants one
    shown = _with_times(made, lambda time: (_whole(time, rate), float(SHOWN)))
    root = ElementTree.fromstring(otio.adapters.write_to_string(shown, ADAPTER))
    _give(root, rate)
    if timeline.global_start_time is not None:
        begins = round(timeline.global_start_time.value) / rate
        for sequence in root.iterfind("project/sequence"):
            kept = timeline.metadata.get(KEPT, {})
            sequence.attrib |= {"tcStart": _text(begins), "tcFormat": kept.get("tcFormat", "NDF")}
            _begin_at(sequence, begins)
    text = ElementTree.tostring(root, encoding="unicode")
    path.write_text(f'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n{text}\n', encoding="utf-8")


def of_other_rates(path: Path) -> frozenset[str]:
    """Names of clips whose media runs at another rate than the sequence."""
    root = ElementTree.parse(path).getroot()
    rate = _rate(root, _sequence(root))
    other = {asset.get("id") for asset in root.iter("asset")
             if asset.get("hasVideo") == "1" and _rate_of(_format(root, asset.get("format"))) not in (None, rate)}
    named = ((clip.get("name", ""), (clip, *clip.findall("video"))) for clip in root.iter() if clip.tag in PLACED)
    return frozenset(name for name, elements in named if any(element.get("ref") in other for element in elements))


def _sequence(root: Element) -> Element:
    """The sequence of the project. (Those of compound clips stand before it.) Raises InputError."""
    found = root.find(".//project/sequence")
    if found is None:
        raise InputError("it holds no sequence", remedy="Export a project, not an event or clips.")
    return found


def _rate(root: Element, sequence: Element) -> Fraction:
    rate = _rate_of(_format(root, sequence.get("format")))
    if rate is None:
        raise InputError("its sequence has no frame rate", remedy="Export it again, or as .otio")
    return rate


def _format(root: Element, name: str | None) -> Element | None:
    return next((found for found in root.iter("format") if found.get("id") == name), None)


def _rate_of(form: Element | None) -> Fraction | None:
    """Frames per second of a format: by its frame duration, else by its name; None for stills and sound."""
    if form is None:
        return None
    if duration := _seconds(form.get("frameDuration")):
        return 1 / duration
    ending = form.get("name", "").rpartition("p")[2]
    return next((rate for rate, name in NAMES.items() if name == ending), None)


def _begin_at(sequence: Element, seconds: Fraction) -> None:
    """Shift what lies in the primary storyline; all else counts in what it is connected to."""
    for element in sequence.iterfind("spine/*"):
        element.set("offset", _text(_seconds(element.get("offset")) + seconds))


def _flatten(root: Element) -> None:
    """Clips of a connected storyline as connected clips, because the adapter forgets where the storyline lies."""
    for parent in list(root.iter()):
        if parent.tag in UNKNOWN:
            parent.tag = "gap"
            parent[:] = [child for child in parent if child.get("lane")]
            parent.attrib.pop("ref", None)
        for spine in [child for child in parent if child.tag == "spine" and child.get("lane")]:
            for child in [child for child in spine if child.tag not in ("gap", "transition")]:
                child.set("lane", str(spine.get("lane")))
                child.set("offset", _text(_seconds(spine.get("offset")) + _seconds(child.get("offset"))))
                parent.append(child)
            parent.remove(spine)


def _show(root: Element, sequence: Element, rate: Fraction) -> None:
    """All times as frames at SHOWN a second."""
    sounds = {asset.get("id") for asset in root.iter("asset") if asset.get("hasVideo") != "1"}
    phases = {element: _phase(root, element, rate) for element in root.iter()}
    parents = {child: parent for parent in root.iter() for child in parent}
    for element in root.iter():
        between = element.get("ref") in sounds or element.tag not in PLACED  # sound is cut between frames
        own = {"start": phases[element], "offset": phases[parents[element]] if element in parents else Fraction(0)}
        for name in TIMES:
            if name in element.attrib:
                frames = _seconds(element.get(name)) * rate + own.get(name, 0)
                if frames.denominator != 1 and not between:
                    raise InputError(f"the {name} of {element.tag} {element.get('name', '')} lies between two frames, "
                                     f"at {float(frames):.3f}", remedy="Export it as .otio")
                element.set(name, f"{round(frames)}/{SHOWN}s")
    for form in root.iter("format"):
        form.set("frameDuration", f"1/{SHOWN}s")
    for asset in root.iter("asset"):
        if _format(root, asset.get("format")) is None:
            asset.set("format", str(sequence.get("format")))
        media = asset.find("media-rep")  # where FCPXML 1.9 and later have the file
        if media is None:
            media = ElementTree.SubElement(asset, "media-rep")  # one without a child is false to the adapter
        asset.set("src", asset.get("src") or media.get("src") or "")


def _give(root: Element, rate: Fraction) -> None:
    """What the adapter wrote at SHOWN frames a second, at a rate."""
    for element in root.iter():
        for name in TIMES:
            if name in element.attrib:
                element.set(name, _text(_seconds(element.get(name)) * SHOWN / rate))
    starts = {asset.get("id"): asset.get("start", "0s") for asset in root.iter("asset")}
    for video in root.iter("video"):  # the adapter lays it at 0, where media with a time code has no picture
        start = starts[video.get("ref")]
        video.attrib |= {"offset": start, "start": start}
    for form in root.iter("format"):
        form.set("frameDuration", f"{rate.denominator}/{rate.numerator}s")
        name = form.attrib.pop("name", "").removesuffix(f"p{float(SHOWN)}").removesuffix(f"p{SHOWN}")
        if name and rate in NAMES:
            form.set("name", f"{name}p{NAMES[rate]}")


def _phase(root: Element, element: Element, rate: Fraction) -> Fraction:
    """Frames to add to an element's own time, in which it starts and its children lie, so that its media begins on one.

    A media of 23.976 whose time code is written as whole seconds does not.
    """
    referring = element.find("video") if element.tag == "clip" else element
    ref = referring.get("ref") if referring is not None else None
    if element.tag == "ref-clip":  # what it refers to was shifted to begin at 0
        inner = root.find(f"./resources/media[@id='{ref}']/sequence")
        return Fraction(0) if inner is None else -_seconds(inner.get("tcStart")) * rate
    media = root.find(f"./resources/asset[@id='{ref}']") if element.tag in ("clip", "asset-clip") else None
    start = media if media is not None else element if element.tag in ("gap", "asset") else None
    begins = Fraction(0) if start is None else _seconds(start.get("start")) * rate
    return round(begins) - begins


def _with_times(thing: Any, changed: Callable[[dict[str, Any]], tuple[float, float]]) -> Any:
    """A copy of an object of OpenTimelineIO with every time in it changed. changed: gives a time's value and rate."""
    document = json.loads(otio.adapters.write_to_string(thing, "otio_json"))
    for found in _times(document):
        found["value"], found["rate"] = changed(found)
    return otio.adapters.read_from_string(json.dumps(document), "otio_json")


def _times(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, dict) and str(document.get("OTIO_SCHEMA", "")).startswith("RationalTime."):
        yield document
    elif isinstance(document, (dict, list)):
        for child in document.values() if isinstance(document, dict) else document:
            yield from _times(child)


def _whole(time: dict[str, Any], rate: Fraction) -> float:
    frames = float(time["value"]) / float(time["rate"]) * float(rate)
    if abs(frames - round(frames)) > 0.01:
        raise UsageError(f"a time lies between two frames, at {frames:.3f} of {float(rate):g} a second",
                         remedy="FCPXML holds one rate here: write .otio, or conform the media first.")
    return float(round(frames))


def _seconds(time: str | None) -> Fraction:
    return Fraction((time or "0s").removesuffix("s"))


def _text(seconds: Fraction) -> str:
    return f"{seconds}s"
