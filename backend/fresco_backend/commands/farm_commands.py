# SPDX-License-Identifier: Apache-2.0
"""`fresco farm bundle`, `submit` and `node`: a shot for a render farm that is there already."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fresco_protocol.errors import ServerError, UsageError

if TYPE_CHECKING:
    from fresco_backend.farm.plan import FarmPlan, Site

Commands = Any  # argparse's action of sub-commands, whose class is private
ENGINES = ("openjd", "slurm", "opencue", "deadline-cloud", "command")
BUNDLE = """\
Plans a shot on this machine and writes it as a job bundle of Open Job Description: keyframes, then chunks of
in-betweens, then a verification. Every node must see the paths of the shot. Several shots make one bundle each, in
folders of DIR."""
NODE = """\
What the environment of a bundle made with --server asks a node before it starts a server there: is it like the machine
that planned the job, and which folders does the shot need? Prints them as FRESCO_ROOTS has them."""
SUBMIT = """\
Makes the bundle, and hands it to a farm: openjd runs it here; slurm and deadline-cloud call their own commands; opencue
prints the XML for Cuebot; command prints lines for a shell, for every other farm. See docs/farm.md."""


def add_farm(commands: Commands) -> None:
    """Adds the command and its verbs."""
    command = commands.add_parser("farm", help="make a shot a job of a render farm",
                                  description="Shots for a render farm that is there already; see docs/farm.md.")
    verbs = command.add_subparsers(title="commands", metavar="COMMAND", required=True)
    bundle = verbs.add_parser("bundle", help="write a job bundle of Open Job Description", description=BUNDLE)
    _add_site(bundle)
    bundle.add_argument("--json", action="store_true", help="JSON on stdout")
    bundle.set_defaults(run=_bundle)
    submit = verbs.add_parser("submit", help="hand a shot to a farm", description=SUBMIT)
    _add_site(submit)
    submit.add_argument("--engine", choices=ENGINES, required=True, help="whose job it becomes")
    submit.add_argument("--option", metavar="WORD", action="append", default=[],
                        help='for slurm: an option of sbatch for every job, such as "--option=--partition=gpu"')
    submit.add_argument("--show", default="testing", help="for opencue: the show of the job (default: testing)")
    submit.add_argument("--print", dest="only_print", action="store_true",
                        help="print what would be run, and run nothing")
    submit.set_defaults(run=_submit)
    node = verbs.add_parser("node", help="check a node against a bundle, and print the folders that its server needs",
                            description=NODE)
    node.add_argument("shot", metavar="SHOT.json", type=Path, help="the bundle's shot document")
    node.add_argument("--pins", metavar="FILE", type=Path, required=True, help="the bundle's pins")
    node.add_argument("--path-mapping", metavar="FILE", type=Path, help="the session's rules for paths")
    node.set_defaults(run=_node)


def _add_site(command: argparse.ArgumentParser) -> None:
    command.add_argument("shots", metavar="SHOT.json", nargs="+", type=Path, help="shot documents")
    command.add_argument("-o", "--output", metavar="DIR", type=Path, required=True,
                         help="folder of the bundle, which every node sees under the same path")
    command.add_argument("--chunk", metavar="N", type=int, default=48, help="frames of one task (default: 48)")
    command.add_argument("--device", choices=["gpu", "cpu"], default=None,
                         help="what the keyframes ask the farm for (default: cpu for the embedded model, else gpu)")
    command.add_argument("--command", dest="program", metavar="WORDS", default="fresco",
                         help='how a node calls Fresco, such as "/opt/fresco/bin/fresco" (default: fresco)')
    command.add_argument("--server", action="store_true",
                         help="a server keeps the model loaded for all tasks of a session, and renders whole shots "
                              "(Open Job Description, on POSIX)")
    command.add_argument("--name", help="of the job (default: the shot's)")


def _bundle(arguments: argparse.Namespace) -> int:
    from fresco_backend.terminal.plan_text import counted

    for plan, folder in _bundles(arguments):
        if arguments.json:
            sys.stdout.write(json.dumps({"bundle": str(folder), "name": plan.name, "frames": len(plan.frames),
                                         "windows": plan.windows, "chunks": len(plan.chunks), "job": plan.pins.job}))
            sys.stdout.write("\n")
        else:
            sys.stdout.write(f"{folder}\n")
            sys.stderr.write(f"{plan.name}: {counted(len(plan.frames), 'frame')}, {counted(plan.windows, 'window')}, "
                             f"{counted(len(plan.chunks), 'chunk')}\n")
    return 0


def _submit(arguments: argparse.Namespace) -> int:
    hand_over = {"openjd": _openjd, "slurm": _slurm, "opencue": _opencue, "deadline-cloud": _deadline_cloud,
                 "command": _command}[arguments.engine]
    for plan, folder in _bundles(arguments):
        hand_over(plan, folder, arguments)
    return 0


def _node(arguments: argparse.Namespace) -> int:
    from fresco_backend.farm.node import prepared_node
    from fresco_backend.render.pins import Pins

    folders = prepared_node(arguments.shot, Pins.read(arguments.pins), arguments.path_mapping)
    sys.stdout.write(os.pathsep.join(map(str, folders)) + "\n")
    return 0


def _bundles(arguments: argparse.Namespace) -> list[tuple[FarmPlan, Path]]:
    """The bundles of all shots, written. One shot has DIR for itself, several have a folder each in it."""
    from fresco_backend.arguments.shot_arguments import shot_of_file
    from fresco_backend.farm.bundle import write_bundle
    from fresco_backend.farm.plan import plan_shot

    shots = [shot_of_file(path) for path in arguments.shots]
    plans = [plan_shot(shot, _site(arguments, shot.look.model)) for shot in shots]
    names = [plan.name for plan in plans]
    if len(set(names)) != len(names):
        raise UsageError(f"two shots have the name {max(names, key=names.count)}",
                         remedy='Set "name" in their documents, which names their jobs.')
    output = arguments.output.absolute()
    return [(plan, write_bundle(plan, output if len(plans) == 1 else output / plan.name)) for plan in plans]


def _site(arguments: argparse.Namespace, model: str) -> Site:
    from fresco_backend.farm.plan import Site

    device = arguments.device or ("cpu" if model == "embedded" else "gpu")
    if arguments.name is not None and len(arguments.shots) > 1:
        raise UsageError("--name names one job, and there are several shots", remedy="Leave it out.")
    return Site(command=tuple(shlex.split(arguments.program)), chunk=arguments.chunk, device=device == "gpu",
                server=arguments.server, name=arguments.name)


def _openjd(_plan: FarmPlan, folder: Path, arguments: argparse.Namespace) -> None:
    from fresco_backend.farm.openjd import run_words

    _run(run_words(folder), arguments)


def _deadline_cloud(plan: FarmPlan, folder: Path, arguments: argparse.Namespace) -> None:
    from fresco_backend.farm.deadline_cloud import submit_words

    _run(submit_words(plan, folder), arguments)


def _slurm(plan: FarmPlan, folder: Path, arguments: argparse.Namespace) -> None:
    from fresco_backend.farm.slurm import script
    from fresco_backend.render.scratch import write_document

    text = script(plan, folder, arguments.option)
    path = folder / "submit.sh"
    write_document(path, text, "the script")
    _run(("sh", str(path)), arguments, shown=text)


def _opencue(plan: FarmPlan, folder: Path, arguments: argparse.Namespace) -> None:
    from fresco_backend.farm.opencue import specification

    sys.stdout.write(specification(plan, folder, show=arguments.show, shot=plan.name))


def _command(plan: FarmPlan, folder: Path, _arguments: argparse.Namespace) -> None:
    from fresco_backend.farm.command import command_lines

    sys.stdout.write("\n".join(command_lines(plan, folder)) + "\n")


def _run(words: Sequence[str], arguments: argparse.Namespace, *, shown: str | None = None) -> None:
    """Run the engine's own command, or show it. Raises ServerError when it fails, UsageError when it is not here."""
    if arguments.only_print:
        sys.stdout.write((shown or shlex.join(words)) + "\n")
        return
    try:
        code = _ended(words)
    except FileNotFoundError as error:
        raise UsageError(f'"{words[0]}" is not installed here', remedy="Install it, or take --print.") from error
    if code:
        raise ServerError(f"{arguments.engine} ended with {code}", where=shlex.join(words),
                          remedy="Its own words stand above.")


def _ended(words: Sequence[str]) -> int:
    """The exit code of a command. Interrupted, it is told so, and ends what it runs before this process does."""
    child = subprocess.Popen(words)
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise
