# SPDX-License-Identifier: Apache-2.0
"""What Markdown pages show: their code blocks, the commands in these, and the code in the running text."""
from __future__ import annotations

import re
import shlex

FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
# What may stand before a command: values of the environment, sudo, a stop watch.
BEFORE = r"(?:[A-Z_]+=\S+ |sudo |/usr/bin/time -v )*"


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of one language."""
    return [body for found, body in FENCED.findall(text) if found == language]


def fenced(text: str) -> list[str]:
    """The command lines in all code blocks: no prompt, no comment, continued lines joined."""
    lines = re.sub(r"[\\`]\n\s*", " ", "\n".join(body for _, body in FENCED.findall(text))).splitlines()
    return [re.sub(r"(^|\s)(#\s.*|&)$", "", line).strip().removeprefix("$ ").strip() for line in lines]


def fresco_commands(text: str) -> list[list[str]]:
    """The arguments of every call of `fresco` in the code blocks, Windows' spelling included."""
    calls = [re.fullmatch(BEFORE + r"(?:\S*[\\/])?fresco(?:\.exe)? (.*)", line) for line in fenced(text)]
    return [shlex.split(call[1].replace("\\", "/")) for call in calls if call]


def python_commands(text: str) -> list[list[str]]:
    """The words after `python` in the code blocks and in the running text: a script or -m MODULE, and its arguments."""
    calls = [re.fullmatch(BEFORE + r"(?:\S*[\\/])?(?:python|blender)(?:\.exe)? (.*)", line)
             for line in [*fenced(text), *spoken(text)]]
    return [shlex.split(call[1].replace("\\", "/")) for call in calls if call]


def spoken(text: str) -> list[str]:
    """The code in the running text."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", FENCED.sub("", text))]


def make_targets(text: str) -> set[str]:
    """The targets of every call of `make` in the code blocks and in the running text."""
    called = re.findall(r"(?:^ *|`)make ([a-z][a-z-]*)", text, re.MULTILINE)
    return set(called)
