# SPDX-License-Identifier: Apache-2.0
"""The table of Resolve's calls: code, table, README and documentation agree; and the law of the plug-in's room."""
from __future__ import annotations

import ast
import re
import shlex
import sys
from pathlib import Path

import pytest
from resolve_bridge import API, release

from fresco_backend.cli import parser
from fresco_backend.pixels.color_config import color_space
from fresco_davinci import api
from fresco_davinci.edition import Edition
from fresco_davinci.space import SPACES, space_of
from fresco_protocol.errors import ColorError

ROOT = Path(__file__).parents[1]
ROOM = ROOT / "host_plugins" / "davinci"
PACKAGE = ROOM / "fresco_davinci"
README = (ROOM / "README.md").read_text(encoding="utf-8")
DOCUMENTED = {name for methods in API["classes"].values() for name in methods}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def names_in(path: Path) -> set[str]:
    """Resolve's methods that a file names: as attributes, or as texts that `dir` is asked for."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    texts = {node.left.value for node in ast.walk(tree) if isinstance(node, ast.Compare)
             and isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)}
    return (attributes | texts) & DOCUMENTED


def test_every_call_of_the_code_stands_in_the_table_and_every_row_is_called() -> None:
    called = set().union(*(names_in(path) for path in SOURCES))
    tabled = {call.name for call in api.CALLS}
    assert called - tabled == set()
    assert tabled - called == set()


def test_one_room_calls_resolve() -> None:
    outside = {path.name: names_in(path) for path in SOURCES if path.parent.name != "timeline"}
    assert {name: found for name, found in outside.items() if found} == {}


@pytest.mark.parametrize("call", api.CALLS, ids=lambda call: f"{call.owner}.{call.name}")
def test_every_row_is_documented_for_that_release(call: api.Call) -> None:
    assert API["classes"][call.owner][call.name][0]["since"] == call.since
    assert call.name not in API["deprecated"].get(call.owner, ())


def test_a_call_that_not_every_release_has_is_asked_for_first() -> None:
    newer = {call.name for call in api.CALLS if release(call.since) > (18, 6)}
    guarded = {node.left.value for path in SOURCES for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
               if isinstance(node, ast.Compare) and isinstance(node.left, ast.Constant)
               and isinstance(node.comparators[0], ast.Call) and ast.unparse(node.comparators[0].func) == "dir"}
    # came with GetSourceEndFrame and GetMarkInOut
    assert newer - guarded == {"GetSourceStartFrame", "SetMarkInOut", "ClearMarkInOut"}


def test_the_readme_has_the_table() -> None:
    assert api.markdown() in README


def test_nothing_is_said_to_be_seen_that_was_not() -> None:
    assert "Nothing on this page was seen on a real Resolve" in README
    assert not any(call.seen for call in api.CALLS)


@pytest.mark.parametrize("path", [*SOURCES], ids=lambda path: path.name)
def test_the_plug_in_is_written_for_python_3_9_and_the_standard_library(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    nodes = list(ast.walk(tree))
    roots = {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    roots |= {str(node.module).split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    assert roots <= sys.stdlib_module_names | {"fresco_davinci", "fresco_protocol"}


def test_the_menu_entry_can_be_read_by_python_3_6() -> None:
    ast.parse((PACKAGE / "scripts" / "Fresco.py").read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize(("resolve", "ours"), SPACES.items())
def test_colour_spaces_are_known_on_both_sides(resolve: str, ours: str) -> None:
    assert str(color_space(ours))
    assert space_of(resolve.title(), None) == ours


def test_a_colour_space_that_nobody_knows_is_refused_unless_it_is_stated() -> None:
    with pytest.raises(ColorError, match="Canon Cinema Gamut"):
        space_of("Canon Cinema Gamut", None)
    assert space_of("Canon Cinema Gamut", "canonlog2_cinemagamut_d55") == "canonlog2_cinemagamut_d55"


@pytest.mark.parametrize(("studio", "version", "limits"), [
    (True, (21, 0, 4), 0), (True, (20, 2, 0), 1), (True, (18, 6, 0), 3), (False, (21, 0, 4), 2), (False, (21, 1, 0), 2),
    (False, (18, 6, 0), 4)])
def test_what_an_edition_cannot_do_is_one_sentence_each(studio: bool, version: tuple[int, ...], limits: int) -> None:
    found = Edition(studio=studio, version=version).limits
    assert len(found) == limits
    assert all(sentence.endswith(".") for sentence in found)


def test_the_readme_names_commands_that_exist() -> None:
    lines = re.findall(r"^fresco resolve .*$", README, re.MULTILINE)
    assert len(lines) > 3
    for line in lines:
        parser().parse_args(shlex.split(line)[1:])
