# SPDX-License-Identifier: Apache-2.0
"""The documentation says what is so: reference pages, commands, error codes, links."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from test_readme import fresco_commands

from fresco_backend.cli import parser
from fresco_protocol import errors

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("*/README.md"),
                *ROOT.glob("host_plugins/*/README.md")])  # fmt: skip
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse lays out its help in another way")
@pytest.mark.parametrize("name", ["shot.md", "cli.md"])
def test_reference_pages_are_those_of_the_code(reference: ModuleType, name: str) -> None:
    found = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert found == reference.PAGES[name](), "run: python docs/make_reference.py"


def kinds(top: type[errors.FrescoError]) -> Iterator[type[errors.FrescoError]]:
    for kind in top.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_every_error_code_has_its_paragraph_with_its_exit_code() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    paragraphs = dict(re.findall(r"^### (\S+)\n\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    wanted = {kind.code: kind.exit_code for kind in kinds(errors.FrescoError)}
    assert set(paragraphs) == set(wanted)
    for code, paragraph in paragraphs.items():
        assert paragraph.startswith(f"Exit code {wanted[code]}"), code
        assert len(paragraph.split()) > 8, f"{code} says too little"


def test_every_warning_is_explained() -> None:
    said = set()
    for path in (ROOT / "backend" / "fresco_backend").rglob("*.py"):
        said |= set(re.findall(r'Warned\(\s*code="([a-z-]+)"', path.read_text(encoding="utf-8")))
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert said == set(re.findall(r"^- \*\*([a-z-]+)\*\*:", text, re.MULTILINE))


def test_the_site_lists_every_page_for_users() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = [ROOT / re.sub(r"^(?!project/)", "docs/", name).removeprefix("project/")
              for name in re.findall(r"^ +- (?:.*: )?(\S+\.md)$", text, re.MULTILINE)]
    assert not [str(path) for path in listed if not path.is_file()]
    assert set((ROOT / "docs").rglob("*.md")) <= set(listed)


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(found), f"{target} has no such heading"


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands() -> list[tuple[str, str]]:
    """Every call of `fresco` in a code block, with its page; the reference quotes help texts, not calls."""
    return [
        (name, shlex.join(words)) for path, name in zip(PAGES, NAMES, strict=True) if "reference/" not in name
        for words in fresco_commands(path.read_text(encoding="utf-8"))
    ]  # fmt: skip


@pytest.mark.parametrize(("page", "words"), commands())
def test_every_command_is_understood(page: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    filled = re.sub(r"<\w+>", "1", words)  # what a farm's own template puts in
    try:
        parser().parse_args(shlex.split(filled))
    except SystemExit as ended:
        assert ended.code == 0, f"{page}: fresco {words}\n{capsys.readouterr().err}"
