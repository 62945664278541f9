# SPDX-License-Identifier: Apache-2.0
"""The command `fresco report`."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from fresco_protocol.errors import InputError, UsageError

REPORT = """\
Writes one HTML page about a finished delivery: plate and result to wipe and blink, a contact sheet, plots along the
frames, and all that the shot was made with. The page holds everything; it can be mailed and opened anywhere."""
EXAMPLES = """\
examples:
  fresco report shot.json
  fresco report "out/look.####.exr" -o look.html
  fresco report --compare "a/look.####.exr" "b/look.####.exr" -o versions.html
  fresco report "fetched/look.####.exr" --plate "plate/shot.####.exr"
  fresco report shot.json --sheet sheet.png"""


def add_report(commands: Any) -> None:
    """Adds the command."""
    command = commands.add_parser("report", help="one HTML page by which a delivered shot can be judged",
                                  description=REPORT, epilog=EXAMPLES)
    command.add_argument("delivery", metavar="SHOT", nargs="?",
                         help="the shot document, the delivery's path or pattern, or its record (.fresco.json)")
    command.add_argument("--compare", metavar=("A", "B"), nargs=2, help="two deliveries of the same frames")
    command.add_argument("--plate", metavar="PLATE", help="where the plate lies on this machine, of deliveries that "
                         "another one made (default: where record or document say)")
    command.add_argument("-o", "--output", metavar="FILE", type=Path,
                         help="the page (default: beside the delivery, ending in .report.html)")
    command.add_argument("--sheet", metavar="FILE", type=Path, help="also a contact sheet as a picture (PNG, JPEG)")
    command.add_argument("--json", action="store_true", help="the paths that were written as JSON on stdout")
    command.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    targets = arguments.compare or ([arguments.delivery] if arguments.delivery else [])
    if not targets or (arguments.compare and arguments.delivery):
        raise UsageError("a report is of one delivery, or of the two of --compare", remedy="See: fresco report --help")
    written = report(targets, arguments.output, arguments.sheet, arguments.plate)
    for path in written:
        sys.stderr.write(f"{path}\n")
    if arguments.json:
        sys.stdout.write(json.dumps({"written": [str(path) for path in written]}) + "\n")
    return 0


def report(targets: list[str], output: Path | None = None, sheet: Path | None = None,
           plate: str | None = None) -> list[Path]:  # fmt: skip
    """Write the report of one or two deliveries, and the contact sheet of the first; give the paths.

    plate: where their plate lies, if not where their records say. Raises InputError when two deliveries have other
    frames, and what the files raise.
    """
    from fresco_backend.files.deliveries import refused
    from fresco_backend.render import record
    from fresco_backend.render.scratch import write_atomically
    from fresco_backend.report.delivered import open_delivered
    from fresco_backend.report.page import PICTURES, look, page
    from fresco_backend.report.page import sheet as write_sheet

    with ExitStack() as opened:
        delivered = [opened.enter_context(closing(open_delivered(target, plate))) for target in targets]
        if len({one.numbers for one in delivered}) > 1:
            frames = " and ".join(one.document["frames"] for one in delivered)
            raise InputError(f"the two deliveries have different frames: {frames}",
                             remedy="Compare two deliveries of the same frames.")
        looked = [look(one, PICTURES // len(delivered)) for one in delivered]
    beside = record.path_of(delivered[0].shot.delivery.sequence)
    path = output or beside.with_name(beside.name.removesuffix(".fresco.json") + ".report.html")
    written = [path]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(page(looked).encode()))
        if sheet is not None:
            write_sheet(looked[0], sheet)
            written.append(sheet)
    except OSError as error:
        raise refused(path, error) from error
    return written
