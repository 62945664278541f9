# SPDX-License-Identifier: Apache-2.0
"""The command `fresco`. People read stderr, machines read stdout; `main` is the one place where errors become words.

Nothing heavy is imported before a command needs it, so that `fresco --help` answers at once.
"""
from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import itertools
import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from fresco_backend import failure
from fresco_backend.arguments.shot_arguments import add_shot_options, shot_of
from fresco_backend.commands.bench_command import add_bench
from fresco_backend.commands.farm_commands import add_farm
from fresco_backend.commands.job_commands import add_job_commands
from fresco_backend.commands.models_command import add_models
from fresco_backend.commands.otio_command import add_otio
from fresco_backend.commands.report_command import add_report
from fresco_backend.commands.resolve_command import add_resolve
from fresco_backend.commands.serve_command import add_serve
from fresco_backend.events import Event
from fresco_backend.interruption import Terminated, interruptible
from fresco_backend.render.farm_stage import FarmStage
from fresco_protocol.errors import InputError, Interrupted, UsageError
from fresco_protocol.shot import Shot

if TYPE_CHECKING:
    from fresco_backend.terminal.progress import Progress

DEMO = Path(__file__).parents[2] / "demo" / "shot.json"
BROKEN_PIPE = 141  # as a shell reports SIGPIPE
ENVIRONMENT = """\
environment:
  FRESCO_DEVICE     auto, cpu, cuda, cuda:1 or mps    FRESCO_SCRATCH    folder for what can be made again
  FRESCO_MODELS     folder of models known by name    FRESCO_OFFLINE    1: never download
  FRESCO_QUEUE      file of the server's jobs         FRESCO_ROOTS      folders in which the server works
  FRESCO_CONNECTION the server's connection file      FRESCO_CLIENT_KEY this client's key, for a server elsewhere
  FRESCO_TRACEBACK  1: show where an error arose      NO_COLOR          no colours"""
RENDER = """\
Renders a plate, or a shot document (a file that ends in .json); options override what the document says.
An interrupted render goes on when the same command runs again; delivered frames of the same shot are kept."""
RENDER_EXAMPLES = """\
examples:
  fresco render plate.####.exr --frames=1001-1048 -o out/look.####.exr --prompt "a watercolour"
  fresco render clip.mov -o out/look.mov --prompt "an ink drawing" --matte matte.####.png
  fresco render shot.json --still 1012                one frame, to judge the look
  fresco render shot.json --frames=1001-1024          one chunk of a shot, on a farm
  fresco render shot.json --strength 0.5 --dry-run    what would be done"""
EDIT = """\
Changes what the prompt names and leaves the rest of the plate as it is: the plate is followed back to noise, and the
edit comes back from there with the plate's own features. That way is kept, so that the next prompt begins at once."""
EDIT_EXAMPLES = """\
examples:
  fresco edit plate.####.exr --frames=1001-1048 -o out/ink.####.exr --caption "a photo of a boat" \\
      --prompt "an ink drawing of a boat"
  fresco edit plate.####.exr --frames=1001-1048 -o out/night.####.exr --caption "a photo of a boat" \\
      --prompt "a boat at night" --synthesis features"""

Command = Callable[[argparse.Namespace], int]


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line `words` (default: the process's own) and gives the exit code."""
    words = list(sys.argv[1:] if words is None else words)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # what libraries say to programmers; Fresco's own warnings are events
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files that its encoding lacks are no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with interruptible():
            arguments = parser().parse_args(words, argparse.Namespace(words=words))
            code = cast(Command, arguments.run)(arguments)
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # the reader has what it wanted, as in `fresco models list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001, the one place where every error ends
        return failure.report(error, as_json=_wants_json(words), as_openjd=_wants(words, "openjd"), command=words)


def _wants_json(words: Sequence[str]) -> bool:
    """Asked of the bare words, because the command line may be what is wrong."""
    return "--json" in words or _wants(words, "json")


def _wants(words: Sequence[str], progress: str) -> bool:
    return f"--progress={progress}" in words or ("--progress", progress) in itertools.pairwise(words)


_ADVICE = {  # to words in argparse's own messages
    "expected one argument": "A value that begins with a minus is joined to its option, as in --frames=-5-0. ",
    "invalid float value": "Give a number with a point, as in 0.5. ",
    "invalid int value": "Give a whole number. ",
}


class _Parser(argparse.ArgumentParser):
    """A parser whose errors leave by the same exit as all others, and whose options are never abbreviated."""

    def __init__(self, **rest: object) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **rest)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        advice = next((advice for words, advice in _ADVICE.items() if words in message), "")
        raise UsageError(message, remedy=f"{advice}See: {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Names what a wrong command may have meant; the choices of an option are few, and all named."""
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            raise UsageError(f'"{value}" is no command of {self.prog}',
                             remedy=f"{_meant(value, action.choices)}See: {self.prog} --help")
        super()._check_value(action, value)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses here what this parser does not know, because the one above could not say what was meant.

        Without a word where a command is due it shows the help, on stderr and with 2: nothing was done, and a script
        that lost its words must not take that for success.
        """
        if not args and self._subparsers is not None:
            self.print_help(sys.stderr)
            self.exit(UsageError.exit_code)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            option = unknown[0].partition("=")[0]
            advice = (_meant(option, self._option_string_actions) if option.startswith("-") else
                      "Words and names with spaces stand in quotes; frames are plate.####.exr, not plate.*.exr. ")
            raise UsageError(f'"{unknown[0]}" is not understood', remedy=f"{advice}See: {self.prog} --help")
        return found, []


def _meant(word: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean {nearest[0]}? " if nearest else ""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help as it was written, with room for long options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; its namespace has `run`, which takes it and gives the exit code."""
    top = _Parser(prog="fresco", epilog=f"{failure.EXIT_CODES}\n\n{ENVIRONMENT}",
                  description="Gives a real shot a new look, and keeps it steady from frame to frame.")
    top.add_argument("--version", action=_Version)
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_render(commands)
    _add_edit(commands)
    _add_demo(commands)
    add_report(commands)
    add_farm(commands)
    add_otio(commands)
    add_models(commands)
    add_serve(commands)
    add_job_commands(commands)
    add_resolve(commands)
    add_bench(commands)
    doctor = commands.add_parser("doctor", help="check this machine: libraries, device, memory, folders",
                                 description="Checks what a render needs; each line says ok, warn or fail.")
    _add_json(doctor)
    doctor.set_defaults(run=_doctor)
    return top


class _Version(argparse.Action):
    """Prints the version; looked up only when asked for, because that takes a while."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        sys.stdout.write(f"fresco {_version()}\n")
        parser.exit()


def _version() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("fresco-post")
    except importlib.metadata.PackageNotFoundError:
        return "of a source tree that is not installed"


def _add_render(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser("render", help="render a plate, or a shot document", description=RENDER,
                                  epilog=f"{RENDER_EXAMPLES}\n\n{failure.EXIT_CODES}\n\n{ENVIRONMENT}",
                                  usage="fresco render PLATE -o OUT --prompt TEXT [--frames=SPEC] [options]\n"
                                        "       fresco render SHOT.json [--frames=SUBSET] [options]")
    command.add_argument("source", metavar="PLATE",
                         help='"name.####.exr", "name.%%04d.exr", a movie (frames count from 1), or a shot document')
    _add_run_options(command)
    command.set_defaults(run=_render)


def _add_edit(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser("edit", help="change what a prompt names, and nothing else", description=EDIT,
                                  epilog=f"{EDIT_EXAMPLES}\n\n{failure.EXIT_CODES}\n\n{ENVIRONMENT}",
                                  usage="fresco edit PLATE -o OUT --prompt TEXT [--caption TEXT] [--frames=SPEC] "
                                        "[options]")
    command.add_argument("source", metavar="PLATE", help="as of fresco render")
    _add_run_options(command)
    command.set_defaults(run=_render, task="edit")


def _add_demo(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser("demo", help="render the demo shot", epilog=failure.EXIT_CODES,
                                  usage="fresco demo [-o OUT] [options of fresco render]",
                                  description="Renders the demo shot of the source tree with the embedded model.")
    _add_run_options(command)
    command.set_defaults(run=_demo)


def _add_run_options(command: argparse.ArgumentParser) -> None:
    add_shot_options(command)
    group = command.add_argument_group("how it runs")
    group.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    _add_json(group, "events (or the plan, or the error) as JSON lines on stdout")
    group.add_argument("--progress", choices=["auto", "tty", "plain", "json", "openjd", "none"],
                       default="auto", help="auto: a bar on a terminal, plain lines elsewhere; json: as --json, and "
                       "nothing on stderr; openjd: lines on stdout for Open Job Description")
    group.add_argument("--stage", type=FarmStage, choices=list(FarmStage), metavar="STAGE", default=None,
                       help=f"run one stage only: {', '.join(stage.value for stage in FarmStage)} (docs/farm.md)")
    group.add_argument("--path-mapping", metavar="FILE", type=Path, default=argparse.SUPPRESS,
                       help="a farm's rules for the paths in the shot document (Open Job Description's JSON)")
    group.add_argument("--pins", metavar="FILE", type=Path,
                       help="refuse to render when this machine differs from what `fresco farm bundle` wrote there")
    group.add_argument("--save-shot", metavar="FILE", type=Path, help="write the shot document (a .json), and go on")
    group.add_argument("--report", action="store_true", help="write the report of the delivery at the end")
    group.add_argument("--keep-scratch", action="store_true", help="keep finished windows after the delivery")
    group.add_argument("--allow-download", action="store_true", help="fetch missing weights from the hub")


def _add_json(group: argparse._ActionsContainer, sentence: str = "JSON on stdout") -> None:
    group.add_argument("--json", action="store_true", help=sentence)


def _demo(arguments: argparse.Namespace) -> int:
    if not DEMO.is_file():
        raise InputError("the demo shot is not here: it comes with Fresco's source, not with the installed package",
                         where=DEMO, remedy="Get the source tree, and there run: fresco render demo/shot.json")
    arguments.source = str(DEMO)
    return _render(arguments)


def _render(arguments: argparse.Namespace) -> int:
    from fresco_backend.render import preflight

    shot, selection = shot_of(arguments)
    if arguments.report and (selection is not None or arguments.stage is not None):
        raise UsageError("a report is of a whole shot", where="--report",
                         remedy="Leave it out here, and run fresco report when all parts are done.")
    if arguments.save_shot is not None:
        _save(shot, arguments.save_shot)
    if arguments.still is not None:
        shot = _still(shot, selection, arguments)
    preflight.require_sources(shot, model=not (arguments.allow_download or arguments.pins))
    as_json = arguments.json or arguments.progress == "json"
    if arguments.dry_run:
        return _plan(shot, selection, as_json=as_json, allow_download=arguments.allow_download)
    progress = _progress(arguments, alone=not (as_json and sys.stdout.isatty()))
    stdout = sys.stdout
    with progress, contextlib.redirect_stdout(sys.stderr):  # stdout is for events, whatever a library prints
        try:
            for event in _events(shot, selection, arguments):
                if as_json:
                    stdout.write(json.dumps(event.to_json()) + "\n")
                    stdout.flush()
                progress.show(event)
        except KeyboardInterrupt as stop:
            raise _interrupted(progress, arguments.words, isinstance(stop, Terminated)) from None
    _conclude(shot, arguments, quiet=as_json or arguments.progress == "none")
    return 0


def _conclude(shot: Shot, arguments: argparse.Namespace, *, quiet: bool) -> None:
    """What is said and written after a render."""
    if arguments.still is not None and not quiet:
        from fresco_backend.render.still import NOTE

        sys.stderr.write(f"{NOTE}\n")
    if arguments.report:
        from fresco_backend.commands.report_command import report

        sys.stderr.writelines(f"report: {path}\n" for path in report([shot.delivery.sequence]))


def _still(shot: Shot, selection: tuple[int, ...] | None, arguments: argparse.Namespace) -> Shot:
    from fresco_backend.render.still import still

    if selection is not None or arguments.stage is not None:
        raise UsageError("a still is one frame, made in one go", where="--still",
                         remedy="Leave out --frames and --stage.")
    return still(shot, arguments.still)


def _progress(arguments: argparse.Namespace, *, alone: bool) -> Progress:
    from fresco_backend.terminal.progress import ProgressKind, choose_progress

    kind = ProgressKind(arguments.progress)
    if kind is not ProgressKind.OPENJD:
        return choose_progress(kind, sys.stderr, alone=alone)
    from fresco_backend.farm.openjd_progress import OpenJDProgress

    return OpenJDProgress(sys.stdout, arguments.stage)


def _events(shot: Shot, selection: tuple[int, ...] | None, arguments: argparse.Namespace) -> Iterator[Event]:
    """The events of the render, which is closed whatever happens."""
    from fresco_backend import pipeline
    from fresco_backend.render.pins import Pins

    pins = Pins.read(arguments.pins) if arguments.pins else None
    events = pipeline.render(shot, selection=selection, stage=arguments.stage, pins=pins,
                             allow_download=arguments.allow_download, keep_scratch=arguments.keep_scratch)
    with contextlib.closing(events):
        yield from events


def _plan(shot: Shot, selection: tuple[int, ...] | None, *, as_json: bool, allow_download: bool) -> int:
    from fresco_backend import pipeline
    from fresco_backend.terminal.plan_text import plan_lines

    with contextlib.redirect_stdout(sys.stderr):
        plan = pipeline.plan(shot, selection=selection, allow_download=allow_download)
    lines = [json.dumps(plan.to_json())] if as_json else plan_lines(plan)
    sys.stdout.write("\n".join(lines) + "\n")
    if not as_json:
        sys.stderr.writelines(f"warning: {warning.text} [{warning.code}]\n" for warning in plan.warnings)
    return 0


def _save(shot: Shot, path: Path) -> None:
    from fresco_backend.render.scratch import write_document

    if path.suffix != ".json":  # by which a document is told from a plate; and no plate is written over
        raise UsageError(f'"{path.name}" is no name of a shot document', where="--save-shot",
                         remedy=f"Give it one that ends in .json, as in {path.stem or 'shot'}.json")
    write_document(path, shot.to_json() + "\n", "the shot document")


def _interrupted(progress: Progress, words: Sequence[str], terminated: bool) -> Interrupted:
    """The error that says what is there, and the command that goes on."""
    again = ["fresco", *(word for word in words if word != "--overwrite")]  # which would begin from the start
    # PowerShell and cmd know no single quotes.
    quoted = (f'"{word}"' if " " in word else word for word in again)
    command = " ".join(quoted) if sys.platform == "win32" else shlex.join(again)
    done = "frame" if progress.delivered == 1 else "frames"
    return Interrupted(f"interrupted; this run has finished {progress.delivered} {done}, and every file is whole",
                       remedy=f"To go on: {command}", terminated=terminated)


def _doctor(arguments: argparse.Namespace) -> int:
    from fresco_backend.commands.doctor import diagnose

    return diagnose(as_json=arguments.json)


if __name__ == "__main__":
    sys.exit(main())
