# SPDX-License-Identifier: Apache-2.0
"""What people and programs see of the models: a list, what one says of itself, whether it is whole."""
from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from fresco_backend import settings
from fresco_backend.models import model_library
from fresco_backend.models.model_files import Component
from fresco_backend.models.model_hub import is_hub_name
from fresco_backend.models.model_library import Entry, Kind
from fresco_backend.terminal.plan_text import bytes_text
from fresco_protocol.errors import WeightsError

TAGS = ("modelspec.title", "modelspec.trigger_phrase", "modelspec.license", "ss_output_name", "ss_base_model_version",
        "ss_network_dim", "ss_network_alpha")
WIDTH = 100  # columns of a card at most


def list_models(*, as_json: bool) -> int:
    """Lists the embedded model, those of the models folder, and those of the hub's cache."""
    found = [_facts(name, place) for name, place in model_library.places()]
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    width = max(len(model["name"]) for model in found)
    for model in found:
        state = bytes_text(model["bytes"]) if model["problem"] is None else f"not usable: {model['problem']}"
        sort = model["family"] or model["kind"] or "unknown"
        sys.stdout.write(f"{model['name']:<{width}}  {sort:<24}  {state:<9}  {model['place']}\n")
    sys.stderr.write(f"Models put into {settings.models_folder()} are found by their name.\n")
    return 0


def show_model(name: str, *, as_json: bool) -> int:
    """Prints a model's card, its words, and its files with their hashes; of a LoRA what its file says of itself."""
    from fresco_backend.models.weights import describe

    place = model_library.find(name)
    entry = model_library.inspect(name, place)
    shown = str if as_json else _laid_out
    text = describe(name, shown=shown) if entry.kind is Kind.MODEL else _described(entry)
    sys.stdout.write((json.dumps({"name": name, "text": text}) if as_json else text) + "\n")
    return 0


def check_model(name: str, *, as_json: bool, allow_download: bool) -> int:
    """Checks every component of a model; raises its first WeightsError when one is missing or damaged."""
    if allow_download and is_hub_name(name) and not settings.offline():
        return pull_model(name, as_json=as_json)
    return _report(model_library.inspect(name, model_library.find(name)), as_json=as_json)


def pull_model(name: str, *, as_json: bool) -> int:
    """Fetches a model from the hub, and checks it."""
    return _report(model_library.pull(name, offline=settings.offline()), as_json=as_json)


def add_model(source: str, name: str | None, *, link: bool, as_json: bool) -> int:
    """Puts a model into the models folder, and checks it there."""
    return _report(model_library.add(Path(source), name, link=link), as_json=as_json)


def remove_model(name: str, *, as_json: bool) -> int:
    """Takes a model out of the models folder or the hub's cache."""
    size = model_library.remove(name)
    found = {"name": name, "bytes": size}
    sys.stdout.write(json.dumps(found) + "\n" if as_json else f"removed {name}, {bytes_text(size)}\n")
    return 0


def _report(entry: Entry, *, as_json: bool) -> int:
    """Prints every component of an entry; raises the first problem."""
    rows = [_row(part) for part in entry.components]
    if as_json:
        found = {"name": entry.name, "kind": entry.kind.value, "family": entry.descent, "place": str(entry.place)}
        sys.stdout.write(json.dumps({**found, "components": rows}) + "\n")
    else:
        sys.stdout.write("".join(f"{_row_text(row)}\n" for row in rows))
    if entry.problem is not None:
        raise entry.problem
    return 0


def _row(part: Component) -> dict[str, Any]:
    return {"component": part.name, "place": str(part.place), "bytes": part.size, "hashes": part.hashes(),
            "problem": None if part.problem is None else str(part.problem)}


def _row_text(row: dict[str, Any]) -> str:
    if row["problem"] is not None:
        return f"fail  {row['component']}: {row['problem']}"
    size = f", {bytes_text(row['bytes'])}" if row["bytes"] else ""
    files = "".join(f"\n        {digest}  {file}" for file, digest in row["hashes"].items())
    return f"ok    {row['component']}{size}: {row['place']}{files}"


def _facts(name: str, place: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": name, "kind": None, "family": None, "place": str(place), "bytes": 0}
    try:
        entry = model_library.inspect(name, place)
    except WeightsError as error:
        return {**facts, "problem": error.what}
    problem = None if entry.problem is None else entry.problem.what
    return {**facts, "kind": entry.kind.value, "family": entry.descent, "bytes": entry.size, "problem": problem}


def _laid_out(card: str) -> str:
    """A card's Markdown as a terminal shows it, without what hubs put before it for their own programs."""
    text = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    console = Console(width=min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDTH))
    with console.capture() as written:
        console.print(Markdown(text, hyperlinks=False))
    return "\n".join(map(str.rstrip, written.get().splitlines())).strip("\n")


def _described(entry: Entry) -> str:
    """A LoRA, autoencoder, ControlNet or detector in words."""
    lines = [f"{entry.name}: {entry.kind.value}"]
    for part in entry.components:
        if entry.kind is Kind.LORA and part.files:
            lines += [f"{tag}: {value}" for tag, value in _tags(part.files[0]).items()]
        lines.append(_row_text(_row(part)))
    return "\n".join(lines)


def _tags(file: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(file, framework="np") as opened:
        metadata = opened.metadata() or {}
    return {tag: metadata[tag] for tag in TAGS if metadata.get(tag)}
