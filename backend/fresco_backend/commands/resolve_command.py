# SPDX-License-Identifier: Apache-2.0
"""`fresco resolve`: DaVinci Resolve from a terminal. The host plug-in does the work, and is imported when it runs."""
from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fresco_backend import __version__
from fresco_backend.arguments.look_arguments import add_look, look_overrides
from fresco_backend.arguments.option import values
from fresco_protocol.document import read, write
from fresco_protocol.errors import ShotError, UsageError
from fresco_protocol.shot import FrameRange, Look, Task

if TYPE_CHECKING:
    from fresco_davinci.clip import MatteChoice, Progress, Record, Wish
    from fresco_davinci.stylisation import Line

Commands = Any  # argparse's action of sub-commands, whose class is private

STYLIZE = """\
Stylises the selected clips of Resolve's timeline (21.0.4 and later), or the clip under the playhead, and places the
result on a track named FRESCO. Resolve Studio must run; where no server runs, one is started in the background."""


def add_resolve(commands: Commands) -> None:
    """Adds the command and its verbs."""
    command = commands.add_parser("resolve", help="stylise clips in DaVinci Resolve; install its menu script",
                                  description="DaVinci Resolve: the same functions as its menu script's.")
    verbs = command.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_stylize(verbs)
    redo = _add(verbs, "redo", _redo, "make another version of the result under the playhead")
    add_look(redo)
    place = _add(verbs, "place", _place, "place a result that Resolve has missed")
    place.add_argument("record", metavar="FILE", help="fresco.json in the folder of the result")
    for name, run, sentence in (("install", _install, "put the menu script where Resolve looks for it"),
                                ("uninstall", _uninstall, "take the menu script away")):
        verb = _add(verbs, name, run, sentence)
        verb.add_argument("--everybody", action="store_true", help="for every user of this machine")
        verb.add_argument("--fusion", metavar="DIR", type=Path, help='Resolve\'s folder "Fusion" (default: by system)')
    doctor = _add(verbs, "doctor", _doctor, "write a report of what this machine's Resolve can do")
    doctor.add_argument("-o", "--output", metavar="FILE", type=Path, default=Path("fresco-resolve.json"),
                        help="the report (default: fresco-resolve.json)")
    doctor.add_argument("--probe", action="store_true",
                        help="ask a scratch timeline how frames are counted; it is deleted again")


def _add(verbs: Commands, name: str, run: Callable[[argparse.Namespace], int],
         sentence: str) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=sentence,
                                                     description=f"{sentence[0].upper()}{sentence[1:]}.")
    verb.add_argument("--json", action="store_true", help="JSON lines on stdout")
    verb.set_defaults(run=run)
    return verb


def _add_stylize(verbs: Commands) -> None:
    verb = _add(verbs, "stylize", _stylize, "stylise the selected clips, or the one under the playhead")
    verb.description = STYLIZE
    add_look(verb)
    verb.add_argument("--task", choices=values(Task), default=Task.TRANSLATE.value, help="(default: translate)")
    group = verb.add_argument_group("clip and result")
    group.add_argument("--input", choices=["graded", "source"], default="graded",
                       help="graded: Resolve renders the clip, retime and grade included; source: the media itself, "
                            "and the look lies under the grade (default: graded)")
    group.add_argument("--place", choices=["track", "take", "pool"], default="track",
                       help="a clip on track FRESCO, a take of the clip, or the media pool only (default: track)")
    group.add_argument("--frames", metavar="A-B", help="frames of the clip, counted from 1 (default: all)")
    group.add_argument("--still", action="store_true", help="only the frame under the playhead, placed nowhere")
    group.add_argument("--handles", metavar="N", type=int, default=0, help="extra frames at both ends (--input source)")
    group.add_argument("--matte", metavar="SOURCE", type=_matte,
                       help='"clip" (attached to it), "alpha" (its own), or "track:N" (a video track, white stylises)')
    group.add_argument("--matte-invert", action="store_true", help="black stylises, white keeps the plate")
    group.add_argument("--color-space", metavar="NAME", help="of the plate, where Resolve's own word is not understood")
    group.add_argument("--folder", metavar="DIR", type=Path, help="of results (default: Fresco in the home folder)")


def _matte(text: str) -> tuple[str, int | None]:
    name, _, track = text.partition(":")
    if name not in ("clip", "alpha", "track") or (name == "track") is not track.isdecimal():
        raise argparse.ArgumentTypeError(f'found "{text}"; allowed: clip, alpha or track:N, as in track:2')
    return name, int(track) if track else None


def _stylize(arguments: argparse.Namespace) -> int:
    from fresco_davinci.commands import stylise_clips

    wish = _wish(arguments)
    return _tell(arguments, stylise_clips(wish, _line(), _say(arguments), _note(arguments), still=arguments.still))


def _redo(arguments: argparse.Namespace) -> int:
    from fresco_davinci.commands import redo

    def changed(look: Look) -> Look:
        return _look(arguments, look)

    return _tell(arguments, redo(changed, _line(), _say(arguments), _note(arguments)))


def _place(arguments: argparse.Namespace) -> int:
    from fresco_davinci.commands import place_again

    return _tell(arguments, place_again(arguments.record, _note(arguments)))


def _wish(arguments: argparse.Namespace) -> Wish:
    from fresco_davinci.clip import Destination, Input, Wish

    return Wish(look=_look(arguments, None), task=Task(arguments.task), input=Input(arguments.input),
                destination=Destination(arguments.place), matte=_matte_choice(arguments),
                part=FrameRange.parse(arguments.frames) if arguments.frames else None, handles=arguments.handles,
                folder=str(arguments.folder.absolute()) if arguments.folder else None,
                color_space=arguments.color_space)


def _matte_choice(arguments: argparse.Namespace) -> MatteChoice | None:
    from fresco_davinci.clip import MatteChoice, MatteSource

    if arguments.matte is None:
        return None
    name, track = arguments.matte
    return MatteChoice(source=MatteSource(name), track=track, invert=arguments.matte_invert)


def _look(arguments: argparse.Namespace, before: Look | None) -> Look:
    """The look of the options, over the one before. Raises ShotError; UsageError without a prompt."""
    given = vars(arguments)
    single = {name.removeprefix("look."): value for name, value in given.items() if name.startswith("look.")}
    document = {**(write(before) if before else {}), **single, **look_overrides(given)}
    if "prompt" not in document:
        raise UsageError("a look needs a prompt", remedy='Give one: --prompt "a watercolour painting"')
    try:
        look: Look = read(document, Look)
    except ShotError as error:
        raise error.inside("look") from None
    return look


def _line() -> Line:
    from fresco_davinci.stylisation import Line

    return Line(software=f"fresco-davinci {__version__}", command=[sys.executable, "-m", "fresco_backend.cli"])


def _say(arguments: argparse.Namespace) -> Callable[[str, Progress], None]:
    """Says each change once: JSON lines for machines, plain lines for people."""
    said: dict[str, str] = {}

    def say(name: str, progress: Progress) -> None:
        text = f"{progress.phase.value} {100 * progress.fraction:.0f} % {progress.text}".rstrip()
        if said.get(name) == text:
            return
        said[name] = text
        if arguments.json:
            _json({"event": "progress", "clip": name, "phase": progress.phase.value, "fraction": progress.fraction,
                   "text": progress.text})
        else:
            sys.stderr.write(f"{name}: {text}\n")

    return say


def _note(arguments: argparse.Namespace) -> Callable[[str], None]:
    def note(text: str) -> None:
        if arguments.json:
            _json({"event": "notice", "text": text})
        else:
            sys.stderr.write(f"note: {text}\n")

    return note


def _tell(arguments: argparse.Namespace, records: list[Record]) -> int:
    for record in records:
        if arguments.json:
            _json({"event": "placed" if record.placed else "delivered", "clip": record.clip.name,
                   "version": record.version, "folder": record.folder, "item": record.placed})
        else:
            sys.stderr.write(f"{record.clip.name}: version {record.version} in {record.folder}\n")
    return 0


def _install(arguments: argparse.Namespace) -> int:
    from fresco_davinci import installation

    fusion = arguments.fusion or installation.fusion_folder(everybody=arguments.everybody)
    files = installation.install(fusion, [sys.executable, "-m", "fresco_backend.cli"])
    if arguments.json:
        _json({"event": "installed", "files": [str(path) for path in files]})
    else:
        sys.stderr.write(f"{len(files)} files below {fusion}\nIn Resolve: Workspace > Scripts > Fresco\n"
                         f"{installation.python_of_resolve()}\n")
    return 0


def _uninstall(arguments: argparse.Namespace) -> int:
    from fresco_davinci import installation

    fusion = arguments.fusion or installation.fusion_folder(everybody=arguments.everybody)
    files = installation.uninstall(fusion)
    if arguments.json:
        _json({"event": "uninstalled", "files": [str(path) for path in files]})
    else:
        sys.stderr.write(f"removed {len(files)} files below {fusion}\n")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    """Writes the report even when no Resolve answers: why it does not is what the report is for."""
    from fresco_davinci import doctor
    from fresco_davinci.commands import running_resolve
    from fresco_protocol.errors import FrescoError

    report = doctor.machine()
    failed: FrescoError | None = None
    try:
        report["resolve"] = doctor.examine(running_resolve(), probing=arguments.probe)
    except FrescoError as error:
        failed, report["resolve"] = error, {"failed": str(error)}
    doctor.write_report(report, arguments.output)
    if arguments.json:
        _json({"event": "report", "file": str(arguments.output), "report": report})
    else:
        sys.stderr.write(f"the report is {arguments.output}\n")
    if failed is not None:
        raise failed
    return 0


def _json(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()
