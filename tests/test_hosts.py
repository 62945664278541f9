# SPDX-License-Identifier: Apache-2.0
"""The contract of the hosts: both speak of a timeline in the same four verbs and the same nouns."""
from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "host_plugins"
VERBS = ("collect", "validate", "extract", "integrate")
NOUNS = ("Clip", "Extraction", "Result")
HOSTS = {"blender": [ROOT / "blender" / "timeline.py"],
         "davinci": [*sorted((ROOT / "davinci" / "fresco_davinci" / "timeline").glob("*.py")),
                     ROOT / "davinci" / "fresco_davinci" / "clip.py"]}


def definitions(host: str) -> dict[str, ast.FunctionDef | ast.ClassDef]:
    """Functions and classes of a host's timeline, by name."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in HOSTS[host]]
    nodes = [node for tree in trees for node in tree.body]
    return {node.name: node for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("verb", VERBS)
def test_every_host_has_the_four_verbs(host: str, verb: str) -> None:
    found = definitions(host)[verb]
    assert isinstance(found, ast.FunctionDef)
    assert ast.get_docstring(found)
    assert found.returns is not None


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("noun", NOUNS)
def test_every_host_speaks_of_the_same_nouns(host: str, noun: str) -> None:
    found = definitions(host)[noun]
    assert isinstance(found, ast.ClassDef)
    assert ast.get_docstring(found)


@pytest.mark.parametrize("host", HOSTS)
def test_what_a_clip_is_becomes_an_extraction_and_a_result_is_integrated(host: str) -> None:
    found = definitions(host)

    def hints(verb: str) -> str:
        function = found[verb]
        assert isinstance(function, ast.FunctionDef)
        assert function.returns is not None
        return ast.unparse(function.args) + " -> " + ast.unparse(function.returns)

    assert "Clip]" in hints("collect") or "Clip, ...]" in hints("collect")
    assert "Clip" in hints("extract")
    assert "Extraction" in hints("extract").split("->")[1]
    assert "Result" in hints("integrate")
