# SPDX-License-Identifier: Apache-2.0
"""What the README promises exists, and what exists stands in the README."""
import argparse
import re
import shlex
from pathlib import Path

import pytest
from snippets import fresco_commands, make_targets

from fresco_backend.cli import parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def sub_commands() -> dict[str, argparse.ArgumentParser]:
    """The sub-commands of `fresco`, by name."""
    actions = [action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(actions[0].choices)


def makefile_targets() -> set[str]:
    rules = re.findall(r"^\.PHONY:(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return set(" ".join(rules).split())


def test_the_readme_is_read_as_a_shell_reads_it() -> None:
    text = "```\nfresco render a.exr \\\n   -o b.exr  # comment\n" \
           ".venv\\Scripts\\fresco render demo\\shot.json\nmake demo\n```\n`make test`"
    assert fresco_commands(text) == [["render", "a.exr", "-o", "b.exr"], ["render", "demo/shot.json"]]
    in_a_list = "1. So:\n\n   ```\n   FRESCO_OFFLINE=1 .venv/bin/fresco bench &\n   ```\n"
    assert fresco_commands(in_a_list) == [["bench"]]
    assert make_targets(text) == {"demo", "test"}


def test_the_readme_shows_commands() -> None:
    assert fresco_commands(README)
    assert {"demo", "test"} <= make_targets(README)


@pytest.mark.parametrize("arguments", fresco_commands(README), ids=shlex.join)
def test_every_command_of_the_readme_is_accepted(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        parser().parse_args(arguments)
    except SystemExit as ended:
        assert ended.code == 0, f"README.md shows `fresco {shlex.join(arguments)}`: {capsys.readouterr().err}"


@pytest.mark.parametrize("arguments", fresco_commands(README), ids=shlex.join)
def test_every_shot_document_of_the_readme_exists(arguments: list[str]) -> None:
    for document in [argument for argument in arguments if argument.startswith("demo/")]:
        assert (ROOT / document).exists(), f"README.md names {document}, which does not exist"


def test_every_command_named_in_running_text_exists() -> None:
    unknown = set(re.findall(r"`fresco ([a-z]+)", README)) - set(sub_commands())
    assert not unknown, f"README.md names fresco {sorted(unknown)}: no such command"


def test_every_sub_command_stands_in_the_readme() -> None:
    shown = set(re.findall(r"fresco ([a-z]+)", README))
    assert not set(sub_commands()) - shown, f"not in README.md: fresco {sorted(set(sub_commands()) - shown)}"


def test_every_option_named_in_running_text_exists() -> None:
    known = {option for command in sub_commands().values() for action in command._actions
             for option in action.option_strings}
    named = set(re.findall(r"`(--[a-z][a-z-]*)", README))
    assert named <= known, f"README.md names {sorted(named - known)}: no such option"


def test_every_make_target_of_the_readme_exists() -> None:
    assert make_targets(README) <= makefile_targets()


def test_every_link_to_a_file_of_the_project_leads_somewhere() -> None:
    for page in ("README.md", "CONTRIBUTING.md", "backend/README.md", "protocol/README.md"):
        folder = (ROOT / page).parent
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / page).read_text(encoding="utf-8")):
            assert (folder / target).exists(), f"{page} links to {target}, which does not exist"
