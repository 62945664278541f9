# SPDX-License-Identifier: Apache-2.0
"""Writes the reference pages of the documentation from the code: `python docs/make_reference.py`.

tests/test_docs.py fails when a page is not what this writes.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

from fresco_backend.cli import parser
from fresco_protocol.document import Written, describe, write
from fresco_protocol.shot import Shot

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/make_reference.py: change the code, not this page. -->\n"
SHOT = """\
# The shot document

A shot is one JSON document: all that one render needs. `fresco render shot.json` renders it, the hosts send it to the
server, and the record beside a delivery holds it, so that a shot can be rendered again. Reading is strict: what is
unknown, of a wrong type or impossible is refused with its path in the document. Paths are relative to the document's
folder. Everything with a default may be left out.
"""
CLI = """\
# The command line

The help texts of every command, as `fresco COMMAND --help` prints them.
"""


def shot_page() -> str:
    """The reference of the shot document, in Markdown."""
    nouns = list(dict.fromkeys(_nouns(Shot)))
    return "\n".join([NOTE, SHOT, *(_noun(kind) for kind in nouns)])


def cli_page() -> str:
    """The reference of the command line, in Markdown."""
    os.environ["COLUMNS"] = "100"  # argparse breaks its lines at the terminal's width
    helps = {command.prog: command.format_help().rstrip() for command in _commands(parser())}
    return "\n".join([NOTE, CLI, *(f"## {name}\n\n```text\n{text}\n```\n" for name, text in helps.items())])


def _nouns(kind: Any) -> Iterator[Any]:
    """A noun, then those that its fields hold, depth first."""
    yield kind
    for hint in get_type_hints(kind).values():
        for inner in _classes(hint):
            if is_dataclass(inner) and not issubclass(inner, Written):
                yield from _nouns(inner)


def _classes(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and not get_args(hint):
        yield hint
    for inner in get_args(hint):
        yield from _classes(inner)


def _noun(kind: Any) -> str:
    hints = get_type_hints(kind, include_extras=True)
    rows = [_row(one, hints[one.name]) for one in fields(kind)]
    table = "\n".join(["| key | value | default |", "|---|---|---|", *rows])
    return f"## {kind.__name__}\n\n{_paragraphs(inspect.getdoc(kind) or '')}\n\n{table}\n"


def _row(one: Field[Any], hint: Any) -> str:
    linked = [inner.__name__ for inner in _classes(hint) if is_dataclass(inner) and not issubclass(inner, Written)]
    value = " or ".join(f"[{name}](#{name.lower()})" for name in linked) if linked else describe(hint)
    return f"| `{one.name}` | {_cell(value)} | {_cell(_default(one))} |"


def _default(one: Field[Any]) -> str:
    if one.default is MISSING:
        return "required" if one.default_factory is MISSING else "its own defaults"
    if is_dataclass(one.default) and not isinstance(one.default, Written):
        return "its own defaults"
    if one.default is None:
        return "none"
    value = one.default.value if isinstance(one.default, Enum) else write(one.default)
    return f"`{value!r}`".replace("'", '"') if isinstance(value, str) else f"`{str(value).lower()}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _paragraphs(text: str) -> str:
    """A docstring in which "name: what it is" begins a line of its own."""
    first, _, rest = text.partition("\n\n")
    listed = re.sub(r"(?:^|(?<=\. )|(?<=\n))([a-z_]+(?:, [a-z_]+)*): ", r"\n- `\1`: ", rest.replace("\n", " ").strip())
    return "\n".join(line.rstrip() for line in f"{first}\n{listed}".strip().splitlines())


def _commands(top: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and all parsers below it, in their order."""
    yield top
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):
                yield from _commands(command)


PAGES = {"shot.md": shot_page, "cli.md": cli_page}


def main() -> None:
    """Write all pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
