# SPDX-License-Identifier: Apache-2.0
"""docs/farm.md says what the commands do: every command is accepted, every exit code is listed, every option exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from snippets import fenced

from fresco_backend import failure, settings
from fresco_backend.cli import ENVIRONMENT, parser

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "farm.md").read_text(encoding="utf-8")
_TOKEN = {"<STARTFRAME>": "1001", "<ENDFRAME>": "1016", "<SeqStart>": "1001", "<SeqEnd>": "1016", "<SeqStep>": "2"}


def commands() -> list[str]:
    """Every call of fresco in a block of code or in running text, the tokens of farms replaced by frames."""
    found = [*fenced(PAGE), *re.findall(r"`(fresco (?:render|farm) [^`]*)`", PAGE)]
    lines = [line for line in found if line.startswith("fresco ")]
    return [re.sub(r"<\w+>", lambda token: _TOKEN[token[0]], line) for line in lines]


@pytest.mark.parametrize("command", commands())
def test_every_command_is_accepted(command: str) -> None:
    parser().parse_args(shlex.split(command)[1:])


def test_the_page_has_commands_of_every_engine() -> None:
    engines = set(re.findall(r"--engine (\S+)", "\n".join(commands())))
    assert engines == {"openjd", "slurm", "opencue", "deadline-cloud", "command"}


def test_every_exit_code_is_listed_with_its_meaning() -> None:
    listed = dict(re.findall(r"^\| (\d+) \| (.*?) \|", PAGE, re.MULTILINE))
    assert listed == dict(re.findall(r"^  (\d+) +(.*)$", failure.EXIT_CODES, re.MULTILINE))
    assert not {"33", "137", "139"} & set(listed)


def test_every_variable_exists() -> None:
    named = set(re.findall(r"`(FRESCO_[A-Z]+)`", PAGE))
    assert named
    assert named <= set(re.findall(r"FRESCO_[A-Z]+", ENVIRONMENT + str(settings.__doc__)))


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
