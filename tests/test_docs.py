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
from servers import serving, shot_in
from snippets import blocks, fresco_commands, make_targets, python_commands, spoken
from test_readme import makefile_targets, sub_commands

from fresco_backend.cli import parser
from fresco_backend.path_mapping import PathMapping
from fresco_protocol import errors
from fresco_protocol.job import JobState
from fresco_protocol.messages import ListJobs
from fresco_protocol.shot import Delivery, Look, Plate, Shot

ROOT = Path(__file__).parents[1]
ROOMS = ("backend", "benchmarks", "demo", "docs", "host_plugins", "protocol", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(page for room in ROOMS for page in (ROOT / room).rglob("*.md"))])
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


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_what_belongs_to_a_step_is_indented_for_the_site_too(page: Path) -> None:
    shallow = re.findall(r"\n\n {1,3}(\S.*)", page.read_text(encoding="utf-8"))
    assert not shallow, "the site's Markdown ends a list here, and numbers it anew: indent by four"


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
    filled = re.sub(r"\bJOB\b", "0123456789", filled)  # an id, which the reader puts in
    try:
        parser().parse_args(shlex.split(filled))
    except SystemExit as ended:
        assert ended.code == 0, f"{page}: fresco {words}\n{capsys.readouterr().err}"


def all_spoken() -> list[tuple[str, str]]:
    """Every call of `fresco` in the running text, with its page."""
    return [(name, code) for path, name in zip(PAGES, NAMES, strict=True)
            for code in spoken(path.read_text(encoding="utf-8")) if re.match(r"fresco( [a-z]|$)", code)]


def test_every_command_in_the_running_text_exists() -> None:
    known = {name: set(command._option_string_actions) for name, command in sub_commands().items()}
    for page, code in all_spoken():
        for call in code.removeprefix("fresco").split("fresco "):
            names = re.match(r" ?([a-z |]*[a-z])?", call)
            assert names is not None
            for name in (names[1] or "").split(" | "):
                command = name.split(" ")[0]
                assert not command or command in known, f"{page}: `{code}`"
                options = set(re.findall(r"(?<!\S)--[a-z-]+", call))
                assert options <= known.get(command, options) | _nested(command), f"{page}: `{code}`"


def _nested(command: str) -> set[str]:
    """The options of the sub-commands of a command, as of `fresco farm bundle`."""
    parsers = [sub_commands()[command]] if command else []
    nested = [inner for parser in parsers for action in parser._actions
              for inner in getattr(action, "_name_parser_map", {}).values()]
    return {option for inner in nested for option in inner._option_string_actions}


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_every_script_and_its_options_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert make_targets(text) <= makefile_targets()
    for script, *arguments in python_commands(text):
        if script.startswith("-") and script != "-m":
            continue  # of Python or Blender itself, which takes no script there
        place = ROOT / "backend" / arguments[0].replace(".", "/") if script == "-m" else ROOT / script
        if script == "-m" and not arguments[0].startswith("fresco"):
            continue  # a module of others
        module = place.with_suffix(".py")
        assert module.is_file() or (place / "__main__.py").is_file(), f"python {script} {arguments}"
        sources = "".join(near.read_text(encoding="utf-8") for near in module.parent.glob("*.py"))
        for option in [word.partition("=")[0] for word in arguments if word.startswith("--")]:
            assert f'"{option}"' in sources or f'"{option[2:]}"' in sources, f"{script} knows no {option}"


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_every_snippet_of_json_is_what_it_says(path: Path, tmp_path: Path) -> None:
    for number, text in enumerate(blocks(path.read_text(encoding="utf-8"), "json")):
        written = tmp_path / f"{number}.json"
        written.write_text(text, encoding="utf-8")
        if "path_mapping_rules" in text:
            assert PathMapping.of_file(written).rules
        else:
            assert Shot.from_json(text)


def test_the_snippet_of_the_protocol_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = blocks((ROOT / "protocol" / "README.md").read_text(encoding="utf-8"), "python")
    with serving(tmp_path) as server:
        monkeypatch.setenv("FRESCO_CONNECTION", server.file)
        names: dict[str, object] = {"shot": shot_in(tmp_path)}
        exec(compile(snippet, "protocol/README.md", "exec"), names)
        with server.client() as client:
            assert len(client.request(ListJobs()).records) == 1
    assert "events" in names


def test_the_snippet_of_a_box_that_shares_no_disk_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = blocks((ROOT / "docs" / "server.md").read_text(encoding="utf-8"), "python")
    for number in (1001, 1002):
        (tmp_path / f"p.{number}.exr").write_bytes(b"a frame")
    shot = Shot(plate=Plate(sequence="staged:plate/p.####.exr"), look=Look(prompt="ink"),
                delivery=Delivery(sequence="staged:delivery/look.####.exr"))
    (tmp_path / "box").mkdir()
    with serving(tmp_path / "box") as server:
        monkeypatch.setenv("FRESCO_CONNECTION", server.file)
        names: dict[str, object] = {"shot": shot}
        exec(compile(snippet.replace("/show", tmp_path.as_posix()), "docs/server.md", "exec"), names)
        with server.client() as client:
            assert [record.state for record in client.request(ListJobs()).records] == [JobState.QUEUED]
    assert sorted(path.read_bytes() for path in (tmp_path / "box").rglob("p.*.exr")) == [b"a frame"] * 2


def test_the_snippet_for_blender_names_what_the_add_on_has() -> None:
    """It takes Blender to run one; tests/blender calls the same operators in the same way."""
    add_on = ROOT / "host_plugins" / "blender"
    (snippet,) = blocks((add_on / "README.md").read_text(encoding="utf-8"), "python")
    operators = (add_on / "operators.py").read_text(encoding="utf-8")
    properties = (add_on / "properties.py").read_text(encoding="utf-8")
    compile(snippet, "README.md", "exec")
    assert all(f'bl_idname = "fresco.{name}"' in operators for name in re.findall(r"bpy\.ops\.fresco\.(\w+)", snippet))
    assert all(f"    {name}: " in operators for name in re.findall(r"(\w+)=", snippet))
    assert all(f"    {name}: " in properties for name in re.findall(r"scene\.fresco\.(\w+)", snippet))


def test_no_other_snippet_of_python_is_shown() -> None:
    shown = {name for path, name in zip(PAGES, NAMES, strict=True)
             if blocks(path.read_text(encoding="utf-8"), "python")}
    assert shown == {"docs/server.md", "protocol/README.md", "host_plugins/blender/README.md"}, "run it here, too"
