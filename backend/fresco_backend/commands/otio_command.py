# SPDX-License-Identifier: Apache-2.0
"""`fresco otio`: clips of a timeline become shots, and the timeline comes back with them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fresco_backend.interruption import Terminated
from fresco_protocol.errors import Interrupted, OutputIsPlate, ShotError, UsageError
from fresco_protocol.shot import Rate, Shot

if TYPE_CHECKING:
    from fresco_backend.otio.results import Result, Return

Commands = Any  # argparse's action of sub-commands, whose class is private
DESCRIPTION = """\
Reads a timeline (.otio .otiod .otioz, Final Cut Pro 7 .xml, .fcpxml, .aaf, .edl), renders the clips that are named or
marked "fresco", and writes it back with a FRESCO track on top. Formats that cannot reference sequences get movies."""
EXAMPLES = """\
examples:
  fresco otio cut.otio -o cut.fresco.otio --clips "sh0*" --prompt "an ink drawing"
  fresco otio cut.xml -o cut.fresco.xml --looks looks.json --handles 12
  fresco otio cut.edl -o cut.fresco.edl --rate 29.97 --clips sh010 --prompt "a watercolour"
  fresco otio cut.otio -o cut.fresco.otio --bundle /shared/jobs --looks looks.json"""


def add_otio(commands: Commands) -> None:
    """Adds the command."""
    command = commands.add_parser("otio", help="render clips of an editing program's timeline", description=DESCRIPTION,
                                  epilog=EXAMPLES)
    command.add_argument("timeline", metavar="IN", type=Path, help="the timeline, as the editing program exports it")
    command.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="the timeline to import again")
    command.add_argument("--clips", metavar="NAME", nargs="+", action="extend", default=[],
                         help='names or patterns such as "sh0*" (default: clips with a marker or metadata "fresco")')
    command.add_argument("--prompt", metavar="TEXT", help="for clips that say nothing themselves")
    command.add_argument("--looks", metavar="FILE", type=Path,
                         help='JSON: a "look" of a shot document for each name or pattern of clips')
    command.add_argument("--handles", metavar="N", type=int, default=8, help="extra frames at both ends (default: 8)")
    command.add_argument("--media", metavar="DIR", type=Path,
                         help="where results go (default: a folder of OUT's name in fresco, beside OUT)")
    command.add_argument("--movies", action="store_true", help="results are movies, also where sequences are possible")
    command.add_argument("--return", dest="way", choices=["track", "reference"],
                         help="a track on top, or the clips' own media (default: track; for EDL reference)")
    command.add_argument("--rate", metavar="RATE", help="frames per second of an EDL, which does not say it")
    command.add_argument("--plates", metavar="DIR", type=Path, help="folder in or below which lie the movies that an "
                         "EDL only names, by clip or reel (default: beside it)")
    group = command.add_mutually_exclusive_group()
    group.add_argument("--bundle", metavar="DIR", type=Path, help="render nothing: write a farm's job bundle a clip")
    group.add_argument("--shots", metavar="DIR", type=Path, help="render nothing: write a shot document a clip")
    command.add_argument("--json", action="store_true", help="JSON lines on stdout")
    command.set_defaults(run=_otio)


def _otio(arguments: argparse.Namespace) -> int:
    try:
        from fresco_backend.otio import edl, formats, results
        from fresco_backend.otio.clips import usages, wanted_clips
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed",
                         remedy='Install it: pip install "fresco-post[otio]"') from error
    if arguments.output.resolve() == arguments.timeline.resolve():
        raise OutputIsPlate("the timeline would be written over itself", where=arguments.output,
                            remedy=f"Choose another name, as in -o {arguments.timeline.stem}.fresco"
                                   f"{arguments.timeline.suffix}")
    timeline = formats.read_timeline(arguments.timeline, _rate(arguments.rate))
    if arguments.timeline.suffix.lower() == ".edl":
        edl.relink(timeline, arguments.plates or arguments.timeline.absolute().parent,
                   below=arguments.plates is not None)
    clips = wanted_clips(timeline, arguments.clips)
    _require_speeds(clips, arguments.timeline, arguments.output)
    way = _way(arguments)
    results.require_way(timeline, clips, way)
    found = usages(clips, arguments.timeline.absolute().parent, arguments.handles)
    as_movie = arguments.movies or not formats.format_of(arguments.output).sequences
    folder = (arguments.media or _beside(arguments.output)).absolute()
    made = [results.result(usage, folder, as_movie=as_movie) for usage in found]
    shots, back = _shots(arguments, made), results.returned(timeline, made, way)
    formats.check_timeline(back, arguments.output)
    _make(arguments, shots)
    formats.write_timeline(back, arguments.output)
    _tell(arguments, made)
    return 0


def _beside(output: Path) -> Path:
    """Where the results of a timeline go: two of them in one folder, of two looks, share no frame."""
    return output.parent / "fresco" / output.name.replace(".", "-")


def _rate(text: str | None) -> Fraction | None:
    try:
        return None if text is None else Rate.parse(text).fraction
    except ShotError as error:
        raise UsageError(f"--rate is {error.found}", remedy=f"Allowed: {error.allowed}") from None


def _require_speeds(clips: Sequence[Any], source: Path, target: Path) -> None:
    """Raise UsageError for a clip whose speed one of the two formats would lose."""
    from fresco_backend.otio.clips import speed
    from fresco_backend.otio.formats import format_of, is_retimed, of_other_rates, retimed_in_file

    hidden, others = retimed_in_file(source), of_other_rates(source)
    for clip in clips:
        if clip.name in others:
            raise UsageError(f"the media of clip {clip.name} has another frame rate than the timeline", where=source,
                             remedy="Export it as .otio, or conform that media first.")
        untold = clip.name in hidden or is_retimed(clip)
        losing = [kind for kind in map(format_of, (source, target)) if not kind.retimes]
        if untold or (speed(clip) != 1 and losing):
            lost = format_of(source) if untold else losing[0]
            raise UsageError(f"clip {clip.name} changes its speed, and {lost.name} loses that on the way",
                             remedy="Export and import as .otio, or render that clip in the editing program first.")


def _way(arguments: argparse.Namespace) -> Return:
    from fresco_backend.otio.formats import format_of
    from fresco_backend.otio.results import Return

    single = not format_of(arguments.output).tracks
    if single and arguments.way == "track":
        raise UsageError("an EDL holds one track of pictures", where="--return", remedy="Take --return reference.")
    return Return(arguments.way or ("reference" if single else "track"))


def _shots(arguments: argparse.Namespace, made: Sequence[Result]) -> list[Shot]:
    from fresco_backend.otio.looks import look_of, read_looks

    looks = read_looks(arguments.looks) if arguments.looks else {}
    return [one.shot(look_of(one.usage.clip, looks, arguments.prompt)) for one in made]


def _make(arguments: argparse.Namespace, shots: Sequence[Shot]) -> None:
    """Render the shots, or write what renders them elsewhere."""
    if arguments.shots is not None:
        for shot in shots:
            _write(arguments.shots / f"{shot.name}.json", shot.to_json() + "\n")
    elif arguments.bundle is not None:
        from fresco_backend.farm.bundle import write_bundle
        from fresco_backend.farm.plan import Site, plan_shot

        for shot in shots:
            plan = plan_shot(shot, Site(device=shot.look.model != "embedded"))
            write_bundle(plan, (arguments.bundle / plan.name).absolute())
    else:
        for count, shot in enumerate(shots):
            try:
                _render(shot, as_json=arguments.json)
            except KeyboardInterrupt as stop:
                raise Interrupted(
                    f"interrupted; {count} of {len(shots)} clips are finished, and the timeline is not written yet",
                    terminated=isinstance(stop, Terminated),
                    remedy="The same command goes on: finished frames are kept.") from None


def _render(shot: Shot, *, as_json: bool) -> None:
    from fresco_backend import pipeline
    from fresco_backend.terminal.progress import ProgressKind, choose_progress

    sys.stderr.write(f"{shot.name}\n")
    with closing(pipeline.render(shot)) as events, choose_progress(ProgressKind.AUTO, sys.stderr) as progress:
        for event in events:
            progress.show(event)
            if as_json:
                sys.stdout.write(json.dumps({"clip": shot.name, **event.to_json()}) + "\n")


def _write(path: Path, text: str) -> None:
    from fresco_backend.files.deliveries import make_writable
    from fresco_backend.render.scratch import write_document

    make_writable(path.parent)
    write_document(path, text, "the shot document")


def _tell(arguments: argparse.Namespace, made: Sequence[Result]) -> None:
    if arguments.json:
        clips = [{"clip": one.usage.name, "frames": list(one.usage.numbers), "output": str(one.path)} for one in made]
        sys.stdout.write(json.dumps({"timeline": str(arguments.output), "clips": clips}) + "\n")
    else:
        sys.stderr.write("".join(f"{one.usage.name}: {one.path}\n" for one in made))
        sys.stdout.write(f"{arguments.output}\n")
