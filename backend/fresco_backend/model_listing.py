# SPDX-License-Identifier: Apache-2.0
"""`fresco models`: the models that are on this machine, what one of them says of itself, and whether it is whole."""
from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fresco_backend import settings
from fresco_backend.plan_text import bytes_text
from fresco_protocol.errors import WeightsError


def list_models(*, as_json: bool) -> int:
    """Lists the embedded model, those of the models folder, and those of the hub's cache."""
    found = []
    for name, place in _places():
        try:
            found.append(_facts(name, place))
        except WeightsError as error:
            found.append({"name": name, "place": str(place), "bytes": 0, "problem": error.what})
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    width = max(len(model["name"]) for model in found)
    for model in found:
        state = bytes_text(model["bytes"]) if model["problem"] is None else f"not usable: {model['problem']}"
        sys.stdout.write(f"{model['name']:<{width}}  {state:<9}  {model['place']}\n")
    sys.stderr.write(f"Models put into {settings.models_folder()} are found by their name.\n")
    return 0


def show_model(name: str, *, as_json: bool) -> int:
    """Prints a model's card, its words, and its files with their hashes."""
    from fresco_backend.weights import describe

    text = describe(name)
    sys.stdout.write((json.dumps({"name": name, "text": text}) if as_json else text) + "\n")
    return 0


def check_model(name: str, *, as_json: bool, allow_download: bool) -> int:
    """Checks every component of a model; raises its first WeightsError when one is missing or damaged."""
    from fresco_backend import model_store

    inventory = model_store.check(name, offline=settings.offline() or not allow_download)
    rows = [{"component": part.name, "place": str(part.place), "bytes": part.size, "hashes": part.hashes(),
             "problem": None if part.problem is None else str(part.problem)} for part in inventory.all_components]
    if as_json:
        sys.stdout.write(json.dumps({"name": name, "place": str(inventory.place), "components": rows}) + "\n")
    else:
        for row in rows:
            sys.stdout.write(_row_text(row) + "\n")
    inventory.require()
    return 0


def _row_text(row: dict[str, Any]) -> str:
    if row["problem"] is not None:
        return f"fail  {row['component']}: {row['problem']}"
    size = f", {bytes_text(row['bytes'])}" if row["bytes"] else ""
    files = "".join(f"\n        {digest}  {file}" for file, digest in row["hashes"].items())
    return f"ok    {row['component']}{size}: {row['place']}{files}"


def _facts(name: str, place: Path) -> dict[str, Any]:
    from fresco_backend import model_store

    inventory = model_store.check(str(place) if name != model_store.EMBEDDED else name)
    problems = [part.problem.what for part in inventory.all_components if part.problem is not None]
    size = sum({path: path.stat().st_size for part in inventory.all_components for path in part.files}.values())
    return {"name": name, "place": str(place), "bytes": size, "problem": problems[0] if problems else None}


def _places() -> Iterator[tuple[str, Path]]:
    """Names, as `--model` takes them, and where they lead."""
    from huggingface_hub import constants

    from fresco_backend import model_store

    yield model_store.EMBEDDED, model_store.EMBEDDED_FOLDER
    folder = settings.models_folder()
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        if place.suffix == ".safetensors" or (place / "model_index.json").is_file():
            yield place.name, place
    for index in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*/snapshots/*/model_index.json")):
        yield "/".join(index.parents[2].name.split("--")[1:]), index.parent
