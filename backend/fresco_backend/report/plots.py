# SPDX-License-Identifier: Apache-2.0
"""Plots along the frames of one or two deliveries, as SVG."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fresco_backend.report.figures import Figures

LEFT, RIGHT = 0.095, 0.96  # of the plotting area, in parts of the picture's width: the page draws its cursor there, and
# beyond it the half of the last frame's number has room
SIZE = (7.0, 2.3)  # inches
PAPER, INK, GRID = "#1c1c1c", "#e6e6e6", "#444444"
VERSIONS = ("#f2a65a", "#5ab4f2")  # orange and blue: told apart by most colour-blind people
PLANES = ("#ff8080", "#80d080", "#90a8ff")
DASHES = ("-", "--")


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One plot. title: for people, with the unit. note: what it tells. lines: name -> value of a frame, or None.

    holds: the values between which the axis shows all, so that a small difference looks small.
    """

    title: str
    note: str
    lines: Mapping[str, Callable[[Figures], float | None]]
    holds: tuple[float, float]


PLOTS = (
    Plot(title="Warp error × 1000", note="Difference to the frame before, aligned by the plate's motion. Lower is "
         "steadier; a cut or a flash of the plate shows as a peak.",
         lines={"warp error": lambda f: f.warp_error}, holds=(0, 1)),
    Plot(title="Luminance flicker, codes", note="Jump of brightness from the frame before that the plate does not "
         "have. Level at 0 is steady.", lines={"flicker": lambda f: f.flicker}, holds=(-2, 2)),
    Plot(title="Colour against the plate, codes", note="Mean of red, green and blue, result less plate. A slope is "
         "drift.", lines={"red": lambda f: f.colour[0], "green": lambda f: f.colour[1], "blue": lambda f: f.colour[2]},
         holds=(-5, 5)),
    Plot(title="Contrast against the plate", note="Deviation of luma, result over plate. A slope is drift.",
         lines={"contrast": lambda f: f.contrast}, holds=(0.9, 1.1)),
    Plot(title="Occluded share", note="Part of the picture that the frame before does not show: there nothing can be "
         "carried on.", lines={"occluded": lambda f: f.occlusion}, holds=(0, 0.05)),
)  # fmt: skip


def drawn(plot: Plot, versions: Mapping[str, Sequence[Figures]]) -> str:
    """The SVG element of a plot. versions: figures by the name of their delivery; keyframes are marked by dots."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fresco", "font.family": "sans-serif"}):
        figure = Figure(figsize=SIZE, facecolor=PAPER)
        axes = figure.add_axes((LEFT, 0.16, RIGHT - LEFT, 0.76), facecolor=PAPER)
        for place, (name, frames) in enumerate(versions.items()):
            for number, (line, value) in enumerate(plot.lines.items()):
                single = len(plot.lines) == 1
                colour = VERSIONS[place] if single else PLANES[number]
                label = ", ".join(([name] if len(versions) > 1 else []) + ([] if single else [line]))
                _line(axes, frames, value, colour=colour, dash=DASHES[0 if single else place], label=label)
        axes.set_xlim(*first_and_last(versions))
        axes.update_datalim([(axes.get_xlim()[0], height) for height in plot.holds])
        axes.autoscale_view(scalex=False)
        _dressed(axes, legend=len(versions) * len(plot.lines) > 1)
        return _svg(figure)


def first_and_last(versions: Mapping[str, Sequence[Figures]]) -> tuple[int, int]:
    """The frames at the left and at the right end of every plot's axis."""
    numbers = [figures.frame for frames in versions.values() for figures in frames]
    first, last = min(numbers), max(numbers)
    return (first, last) if last > first else (first, first + 1)


def _line(axes: mpl.axes.Axes, frames: Sequence[Figures], value: Callable[[Figures], float | None], *, colour: str,
          dash: str, label: str) -> None:  # fmt: skip
    numbers = [figures.frame for figures in frames]
    heights = [math.nan if (height := value(figures)) is None else height for figures in frames]
    marks = [place for place, figures in enumerate(frames) if figures.keyframe]
    axes.plot(numbers, heights, color=colour, linestyle=dash, linewidth=1.4, label=label, marker="o", markersize=3.5,
              markevery=marks, clip_on=False, zorder=3)  # the first and the last frame's dots are whole


def _dressed(axes: mpl.axes.Axes, *, legend: bool) -> None:
    axes.grid(color=GRID, linewidth=0.5)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.ticklabel_format(axis="x", useOffset=False, style="plain")
    for spine in axes.spines.values():
        spine.set_color(GRID)
    if legend:
        axes.legend(loc="best", fontsize=9, facecolor=PAPER, edgecolor=GRID, labelcolor=INK, framealpha=0.8)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, facecolor=PAPER)
    return text.getvalue()[text.getvalue().index("<svg"):]
