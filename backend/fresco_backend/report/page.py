# SPDX-License-Identifier: Apache-2.0
"""One self-contained HTML page about one delivery, or about two of them side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from fresco_backend.engine.flow import Flow
from fresco_backend.files.frames import Size
from fresco_backend.files.movies import is_movie
from fresco_backend.files.sequences import frames_text
from fresco_backend.report import plots
from fresco_backend.report.delivered import DeliveredShot
from fresco_backend.report.figures import Figures, Moment, measured, measuring_size
from fresco_backend.report.pictures import (
    Pixels,
    Still,
    contact_sheet,
    data_url,
    flow_pixels,
    pixels,
    plane_pixels,
    spread,
)

PICTURES = 40  # frames that are shown; all are measured
SHEET_PICTURES = 24
WIDTH = 640  # pixels of a still in the viewer
SHEET_WIDTH = 200
PLAYED = 24  # frames per second, where nobody states the rate
BUDGET = 7_000_000  # bytes of pictures, so that a page stays below 10 MB


@dataclass(kw_only=True)
class Looked:
    """A delivery as a report has seen it. shown: the frames whose pictures it keeps. views: URLs by frame, by view."""

    delivered: DeliveredShot
    shown: tuple[int, ...]
    figures: list[Figures] = field(default_factory=list)
    views: dict[int, dict[str, str]] = field(default_factory=dict)
    stills: list[Still] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """The size of all its pictures, as they stand in the page."""
        return sum(len(url) for views in self.views.values() for url in views.values())


def look(delivered: DeliveredShot, pictures: int = PICTURES) -> Looked:
    """Read, measure and picture a delivery, frame by frame. Raises what its files raise."""
    looked = Looked(delivered=delivered, shown=spread(delivered.numbers, pictures, delivered.keyframes))
    sheet = frozenset(spread(delivered.numbers, SHEET_PICTURES, delivered.keyframes))
    flows: dict[int, Flow] = {}
    for moment in measured(delivered):
        looked.figures.append(moment.figures)
        number = moment.figures.frame
        if number in looked.shown:
            looked.views[number] = _views(delivered, number)
            if moment.flow is not None:
                flows[number] = moment.flow
        if number in sheet:
            looked.stills.append(_still(delivered, moment))
    _add_motion(looked, flows)
    return looked


def page(looked: Sequence[Looked]) -> str:
    """The HTML of one delivery, or of two with the same frames."""
    looked = _within_budget(looked)
    versions = _named(looked)
    environment = jinja2.Environment(autoescape=True, loader=jinja2.PackageLoader("fresco_backend.report", "."),
                                     trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    frames = {name: one.figures for name, one in versions.items()}
    return environment.get_template("page.html.jinja").render(
        title=" / ".join(versions), versions=versions, first=looked[0], shown=looked[0].shown,
        dates={name: _date(one.delivered) for name, one in versions.items()},
        facts={name: facts(one.delivered) for name, one in versions.items()},
        warnings={name: remarks(one.delivered) for name, one in versions.items()},
        plots=[(plot, Markup(plots.drawn(plot, frames))) for plot in plots.PLOTS],  # our own SVG
        seconds={name: one.delivered.document["measures"]["seconds"] for name, one in versions.items()},
        style=Markup(_part("page.css")), script=Markup(_part("page.js")),  # our own files
        data=Markup(_data(versions)),  # escaped there
    )  # fmt: skip


def sheet(looked: Looked, path: Path) -> None:
    """Write the contact sheet as a picture, of the type that the extension names."""
    delivered = looked.delivered
    title = f"{delivered.name} · {delivered.shot.look.prompt} · {delivered.document['frames']}"
    contact_sheet(title, looked.stills).save(path)


def facts(delivered: DeliveredShot) -> list[tuple[str, str]]:
    """What a supervisor asks first, and what it takes to make the shot again: names and values."""
    document, shot, measures = delivered.document, delivered.shot, delivered.document["measures"]
    chosen = shot.look
    return [
        ("prompt", chosen.prompt), ("negative prompt", chosen.negative_prompt or "none"),
        ("model", chosen.model), ("seed", str(chosen.seed)),
        ("strength", str(chosen.strength)), ("guidance", str(chosen.guidance)),
        ("steps", f"{chosen.steps}, {chosen.sampler.value}"),
        ("controls", ", ".join(f"{control.kind.value} {control.strength:g}" for control in chosen.controls or ())
         or "none"),
        ("frames", f"{document['frames']} ({len(delivered.numbers)}, keyframes {len(delivered.keyframes)})"),
        ("rate", str(document["plate"]["rate"] or "not stated")),
        ("size", f"{delivered.size}, worked at {'x'.join(map(str, document['plate']['working_size']))}"),
        ("colour space", str(document["plate"]["color_space"])),
        ("device", f"{measures['device'] or 'none'}, {measures['precision'] or 'nothing denoised'}"),
        ("rendered", f"{_date(delivered)}; frames of this run {measures['rendered']}, "
                     f"kept from before {measures['reused']}"),
        ("plate", shot.plate.sequence), ("matte", shot.matte.sequence if shot.matte else "none"),
        ("delivery", shot.delivery.sequence), ("job", document["job"]),
        *((f"version of {name}", str(version)) for name, version in document["versions"].items()),
        *((f"SHA-256 of {name}", digest) for name, digest in document["weights"].items()),
    ]  # fmt: skip


def remarks(delivered: DeliveredShot) -> list[str]:
    """What somebody who judges the shot must know: warnings of the render, repeated frames, parts of other runs."""
    measures, plate = delivered.document["measures"], delivered.plate
    said = list(measures.get("warnings", []))
    held = [number for before, number in pairwise(delivered.numbers) if plate.source(before) == plate.source(number)]
    if held and not is_movie(delivered.shot.plate.sequence):
        said.append(f"missing in the plate, and held from the frame before: {frames_text(held)}")
    if measures["reused"]:
        said.append(f"{measures['reused']} frames were kept from an earlier run, and {measures['rendered']} rendered")
    return said


def _within_budget(looked: Sequence[Looked]) -> list[Looked]:
    """The deliveries with as many pictures as a page of this size can have."""
    while sum(one.bytes for one in looked) > BUDGET and len(looked[0].shown) > 2:
        looked = [_thinned(one, 3 * len(one.shown) // 4) for one in looked]
    return list(looked)


def _thinned(looked: Looked, count: int) -> Looked:
    shown = spread(looked.shown, count, looked.delivered.keyframes)
    return replace(looked, shown=shown, views={number: looked.views[number] for number in shown})


def _named(looked: Sequence[Looked]) -> dict[str, Looked]:
    names = [one.delivered.name for one in looked]
    if len(set(names)) < len(names):
        names = [f"{letter}: {name}" for letter, name in zip("AB", names, strict=False)]
    return dict(zip(names, looked, strict=True))


def _add_motion(looked: Looked, flows: Mapping[int, Flow]) -> None:
    """The flow back to the frame before, and what that one does not show; one scale of colours for all frames."""
    longest = max((float(flow.backward[0].norm(dim=0).quantile(0.99)) for flow in flows.values()), default=0.0)
    for number, flow in flows.items():
        looked.views[number]["flow"] = data_url(flow_pixels(flow.backward[0], longest))
        looked.views[number]["occlusion"] = data_url(plane_pixels(flow.backward_occlusion[:1]))


def _views(delivered: DeliveredShot, number: int) -> dict[str, str]:
    size = _fitting(delivered.shape, WIDTH)
    images = {"plate": delivered.plate_image(number, size), "result": delivered.result_image(number, size)}
    views = {name: pixels(image) for name, image in images.items()}
    matte = delivered.matte_image(number, measuring_size(delivered.shape))
    if matte is not None:
        views["matte"] = plane_pixels(matte)
    return {name: data_url(picture) for name, picture in views.items()}


def _still(delivered: DeliveredShot, moment: Moment) -> Still:
    size, number = _fitting(delivered.shape, SHEET_WIDTH), moment.figures.frame
    rows: list[Pixels] = [
        pixels(delivered.plate_image(number, size)), pixels(delivered.result_image(number, size))]  # fmt: skip
    matte = delivered.matte_image(number, size)
    if matte is not None:
        rows.append(plane_pixels(matte))
    return Still(frame=number, keyframe=moment.figures.keyframe, rows=tuple(rows))


def _fitting(plate: Size, width: int) -> Size:
    scale = min(1.0, width / plate.width)
    return Size(max(1, round(plate.width * scale)), max(1, round(plate.height * scale)))


def _date(delivered: DeliveredShot) -> str:
    """When it was rendered, for people."""
    return f"{datetime.fromisoformat(delivered.document['rendered_at']).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _rate(delivered: DeliveredShot) -> float:
    """Frames per second at which the page plays."""
    return float(Fraction(delivered.document["plate"]["rate"] or PLAYED))


def _part(name: str) -> str:
    return files("fresco_backend.report").joinpath(name).read_text(encoding="utf-8")


def _data(versions: dict[str, Looked]) -> str:
    """What the page's script reads, as JSON that cannot end the element that holds it."""
    first, last = plots.first_and_last({name: one.figures for name, one in versions.items()})
    document: dict[str, Any] = {
        "rate": _rate(next(iter(versions.values())).delivered),
        "axis": {"left": plots.LEFT, "right": plots.RIGHT, "first": first, "last": last},
        "versions": [
            {"name": name, "shown": one.shown, "views": one.views,
             "figures": [_json_of(figures) for figures in one.figures]}
            for name, one in versions.items()
        ],
    }  # fmt: skip
    return json.dumps(document).replace("<", "\\u003c")


def _json_of(figures: Figures) -> dict[str, Any]:
    """One frame's figures as JSON, rounded to what a reader can use."""
    return {name: _rounded(value) for name, value in vars(figures).items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value
