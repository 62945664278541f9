# SPDX-License-Identifier: Apache-2.0
"""Hooks of mkdocs.yml: pages and pictures that lie outside of docs/ become part of the site, and links lead to them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OUTSIDE = "project"  # the folder of the site that holds what lies outside of docs/
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
FENCED = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add every file that a page links to, and what those link to in turn."""
    left, seen = sorted(DOCS.rglob("*.md")), set()
    while left:
        path = left.pop()
        if path in seen:
            continue
        seen.add(path)
        if DOCS not in path.parents:
            files.append(File.generated(config, _place(path), abs_src_path=str(path)))
        if path.suffix == ".md":
            left += [target for target in _targets(path) if target.is_file()]
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links lead to the places that files have in the site; a folder has none, and its name stays."""
    here, folder = Path(page.file.abs_src_path), os.path.dirname(page.file.src_uri)  # noqa: PTH120, no file of a disk

    def moved(match: re.Match[str]) -> str:
        target = (here.parent / match[0]).resolve()
        return Path(os.path.relpath(_place(target), folder or ".")).as_posix() if target.is_file() else match[0]

    parts = FENCED.split(markdown)
    return "".join(part if place % 2 else LINK.sub(moved, part) for place, part in enumerate(parts))


def _targets(page: Path) -> Iterator[Path]:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    return ((page.parent / target).resolve() for target in LINK.findall(text))


def _place(path: Path) -> str:
    """Where a file stands in the site."""
    inside = DOCS in path.parents
    return (path.relative_to(DOCS) if inside else Path(OUTSIDE) / path.relative_to(ROOT)).as_posix()
