# SPDX-License-Identifier: Apache-2.0
"""`fresco bench`: what this machine takes for a keyframe, to paste into a report."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from fresco_protocol.errors import UsageError

if TYPE_CHECKING:
    from fresco_backend.commands.bench import Measured

DESCRIPTION = """\
Measures each stage of a render on a synthetic moving plate, and FRESCO's step against the model's own. Under a minute
on a CPU with the embedded model; --shape sd15 measures the true size of Stable Diffusion 1.5, with random weights."""
SIDE = 64  # sides are multiples of it, for every model


def add_bench(commands: Any) -> None:
    """Adds the command."""
    command = commands.add_parser("bench", help="measure this machine: seconds by stage, memory, FRESCO against plain",
                                  description=DESCRIPTION)
    command.add_argument("--shape", choices=["embedded", "sd15"], default="embedded",
                         help="the embedded model, or random weights of another shape (default: %(default)s)")
    command.add_argument("--keyframes", metavar="N", type=int, default=4, help="in one window (default: %(default)s)")
    command.add_argument("--size", metavar="WxH", default="512x512", help="in pixels (default: %(default)s)")
    command.add_argument("--no-guidance", action="store_true", help="one branch in place of two, half the work")
    command.add_argument("--json", action="store_true", help="JSON on stdout")
    command.set_defaults(run=bench)


def bench(arguments: argparse.Namespace) -> int:
    """Measure, and print a table or an object of JSON. Raises UsageError, WeightsError."""
    width, height = _size(arguments.size)
    if arguments.keyframes < 2:
        raise UsageError(f"--keyframes is {arguments.keyframes}", remedy="A window needs two or more.")
    from fresco_backend.commands.bench import Load, Stage, measure
    from fresco_backend.commands.bench_models import Shape

    def told(stage: Stage) -> None:
        sys.stderr.write(f"measuring: {stage.value.replace('_', ' ')}\n")

    load = Load(shape=Shape(arguments.shape), keyframes=arguments.keyframes, height=height, width=width,
                guidance=not arguments.no_guidance)
    measured = measure(load, told)
    sys.stdout.write(json.dumps(measured.to_json()) + "\n" if arguments.json else table(measured))
    return 0


def table(measured: Measured) -> str:
    """A measurement as lines for people."""
    load = measured.load
    guidance = "with" if load.guidance else "without"
    lines = [
        f"{load.shape.value}, {load.keyframes} keyframes of {load.width}x{load.height} {guidance} guidance, "
        f"{measured.device}, {measured.precision}",
        *(f"{stage.value.replace('_', ' '):<14}{seconds:>10.3f} s a frame"
          for stage, seconds in measured.seconds_per_keyframe.items()),
        f"{'FRESCO step':<14}{measured.ratio_to_plain:>10.2f} x plain",
        f"{'15 steps':<14}{measured.run_ratio:>10.2f} x plain",
    ]  # fmt: skip
    if measured.peak_memory and measured.peak_memory_plain:
        added = measured.peak_memory - measured.peak_memory_plain
        lines.append(f"{'peak memory':<14}{measured.peak_memory / 2**20:>10.0f} MiB, {added / 2**20:.0f} by FRESCO")
    return "\n".join(lines) + "\n"


def _size(text: str) -> tuple[int, int]:
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) and int(side) % SIDE == 0 for side in sides):
        raise UsageError(f'--size is "{text}"', remedy=f"Allowed: width and height, multiples of {SIDE}, as in 512x512")
    return int(sides[0]), int(sides[1])
