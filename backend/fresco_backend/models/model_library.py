# SPDX-License-Identifier: Apache-2.0
"""The models of this machine: the embedded one, the models folder, the hub's cache; put in, looked at, taken out.

What is put in is judged first and has its name only when it is whole. Nothing outside of the models folder and the
hub's cache is ever removed.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants

from fresco_backend import settings
from fresco_backend.models.model_files import (
    PICKLED,
    Component,
    read_json,
    refuse_pickle,
    tensor_names,
    weights_component,
)
from fresco_backend.models.model_hub import LORA_FILE, fetch, is_hub_name
from fresco_backend.models.model_store import EMBEDDED, EMBEDDED_FOLDER, check, check_autoencoder
from fresco_protocol.errors import (
    InputError,
    OutputDenied,
    UsageError,
    WeightsError,
    WeightsMissing,
    WeightsUnsupported,
)


class Kind(Enum):
    """What something in the library is for; its value is the word that people read."""

    MODEL = "model"
    LORA = "LoRA"
    AUTOENCODER = "autoencoder"
    CONTROLNET = "ControlNet"
    DETECTOR = "depth detector"


_CLASSES = {"ControlNetModel": Kind.CONTROLNET, "AutoencoderKL": Kind.AUTOENCODER, "AutoencoderTiny": Kind.AUTOENCODER}
_DETECTORS = ("depth_anything", "dpt")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Something of the library. name: as options take it. descent: its family, where that is known."""

    name: str
    place: Path
    kind: Kind
    descent: str | None
    components: tuple[Component, ...]

    @property
    def problem(self) -> WeightsError | None:
        """Why it cannot be used; None if it can."""
        return next((part.problem for part in self.components if part.problem is not None), None)

    @property
    def size(self) -> int:
        """Bytes of all its weights, each file once."""
        return sum({path: path.stat().st_size for part in self.components for path in part.files}.values())


def inspect(name: str, place: Path) -> Entry:
    """What lies at a place, with each of its components. Raises a WeightsError for what is nothing that Fresco uses."""
    if place.suffix.lower() in PICKLED:
        raise refuse_pickle(place)
    kind = _kind_of_file(place) if place.is_file() else _kind_of_folder(place)
    if kind is Kind.MODEL:
        inventory = check(EMBEDDED if name == EMBEDDED else str(place))
        return Entry(name=name, place=place, kind=kind, descent=inventory.family.value,
                     components=inventory.all_components)
    return Entry(name=name, place=place, kind=kind, descent=None, components=(_component(kind, place),))


def places() -> Iterator[tuple[str, Path]]:
    """Everything that may be an entry, by the name that options take: the embedded model, the folder, the cache."""
    yield EMBEDDED, EMBEDDED_FOLDER
    folder = settings.models_folder()
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not place.name.startswith(".") and (place.is_dir() or place.suffix == ".safetensors"):
            yield place.name, place
    for snapshot in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*/snapshots/*")):
        yield "/".join(snapshot.parents[1].name.split("--")[1:]), snapshot


def named() -> dict[Kind, tuple[str, ...]]:
    """The names of all entries by their kind; what lies at the top of each tells, and no weights are looked at."""
    found: dict[Kind, list[str]] = {kind: [] for kind in Kind}
    for name, place in places():
        with contextlib.suppress(WeightsError):  # nothing that Fresco uses
            found[_kind_of_file(place) if place.is_file() else _kind_of_folder(place)].append(name)
    return {kind: tuple(dict.fromkeys(names)) for kind, names in found.items()}


def find(name: str) -> Path:
    """Where an entry of this name, a path or a hub id lies on this machine. Raises WeightsMissing."""
    known = dict(places())
    for place in (known.get(name), known.get(f"{name}.safetensors"), Path(name).expanduser().absolute()):
        if place is not None and place.exists():
            return place
    if is_hub_name(name):
        return fetch(name, offline=True)
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"Did you mean {near[0]}? " if near else ""
    raise WeightsMissing(f'no model "{name}"', where=f"this machine has {', '.join(known)}",
                         remedy=f"{meant}See: fresco models list")


def add(source: Path, name: str | None = None, *, link: bool = False) -> Entry:
    """Put a folder or a file into the models folder, as a copy or as a link, and give its entry.

    Raises a WeightsError for what is not whole or not to be used, UsageError for a name that is taken or no name,
    InputError for a source that is not there, OutputDenied where nothing can be written.
    """
    source = source.expanduser().absolute()
    if not source.exists():
        raise InputError("there is no such model", where=source, remedy="Check the path.")
    found = inspect(source.name, source)
    if found.problem is not None:
        raise found.problem
    target = _free_place(name or source.name, source)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _put(source, part, link=link)
        part.rename(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            _delete(part)
        raise OutputDenied(f"the model cannot be put there: {_reason(error)}", where=target,
                           remedy="Free some space, or set FRESCO_MODELS to a folder that you may write.") from error
    return inspect(target.name, target)


def remove(name: str) -> int:
    """Take a model out of the models folder or the hub's cache; gives the bytes that are free then.

    A link is removed, never what it leads to. Raises UsageError for the embedded model, and WeightsMissing.
    """
    if name == EMBEDDED:
        raise UsageError("the embedded model is part of Fresco", remedy="It takes no more than its few megabytes.")
    if is_hub_name(name):
        return _remove_cached(name)
    folder = settings.models_folder()
    if name in ("", ".", "..") or Path(name).name != name:
        raise UsageError(f'"{name}" is no name of a model', remedy="Models elsewhere are not Fresco's to remove.")
    place = next((path for path in (folder / name, folder / f"{name}.safetensors") if os.path.lexists(path)), None)
    if place is None:
        raise WeightsMissing(f'no model "{name}"', where=folder, remedy="See: fresco models list")
    size = 0 if place.is_symlink() else _bytes(place)
    try:
        _delete(place)
    except OSError as error:
        raise OutputDenied(f"the model cannot be removed: {error.strerror}", where=place,
                           remedy="Remove it as a user who may write there.") from error
    return size


def pull(name: str, *, offline: bool) -> Entry:
    """Fetch a model, LoRA, ControlNet, autoencoder or detector of the hub into its cache, and give its entry.

    Raises UsageError for what is no hub id, WeightsMissing, and WeightsRefused for what has no safe files.
    """
    if not is_hub_name(name):
        raise UsageError(f'"{name}" is no hub id', remedy='Give "owner/name", or "owner/name/file.safetensors".')
    return inspect(name, fetch(name, offline=offline))


def _kind_of_file(path: Path) -> Kind:
    if path.suffix != ".safetensors":
        raise WeightsUnsupported("no file of weights", where=path, remedy="Give a .safetensors file or a folder.")
    names = tensor_names(path)
    if any(name.startswith("model.diffusion_model.") for name in names):
        return Kind.MODEL
    if any("lora" in name for name in names):
        return Kind.LORA
    if any(name.endswith("decoder.conv_in.weight") for name in names):
        return Kind.AUTOENCODER
    raise WeightsUnsupported("no model, LoRA or autoencoder", where=path,
                             remedy="Give ControlNets and detectors as folders; LoHa and LoKr are not read.")


def _kind_of_folder(folder: Path) -> Kind:
    if (folder / "model_index.json").is_file():
        return Kind.MODEL
    if (folder / LORA_FILE).is_file():
        return Kind.LORA
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    kind = _CLASSES.get(str(config.get("_class_name")))
    if kind is None and config.get("model_type") in _DETECTORS:
        kind = Kind.DETECTOR
    if kind is None:
        raise WeightsUnsupported("no model, LoRA, ControlNet, autoencoder or depth detector", where=folder,
                                 remedy="Give the folder that holds model_index.json or config.json.")
    return kind


def _component(kind: Kind, place: Path) -> Component:
    if kind is Kind.LORA:
        return _lora(place if place.is_file() else place / LORA_FILE)
    if kind is Kind.AUTOENCODER:
        return check_autoencoder(str(place))
    return weights_component("detector" if kind is Kind.DETECTOR else "controlnet", place)


def _lora(file: Path) -> Component:
    from fresco_backend.models import lora  # with torch, which a list without LoRAs does not need

    try:
        lora.read_changes(file)
    except WeightsError as problem:
        return Component(name="lora", place=file, problem=problem)
    return Component(name="lora", place=file, files=(file,))


def _free_place(name: str, source: Path) -> Path:
    """Where a new entry goes. A file keeps its ending."""
    if name.startswith(".") or name == EMBEDDED or Path(name).name != name:
        raise UsageError(f'"{name}" is no name for a model', remedy="Give a plain word, such as --name ink.")
    if source.is_file() and not name.endswith(".safetensors"):
        name = f"{name}.safetensors"
    target = settings.models_folder() / name
    if os.path.lexists(target):
        raise UsageError(f'there is a model "{name}" already', where=target,
                         remedy=f'Choose another with --name, or first: fresco models remove "{name}"')
    return target


def _put(source: Path, target: Path, *, link: bool) -> None:
    if link:
        target.symlink_to(source, target_is_directory=source.is_dir())
    elif source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _reason(error: OSError) -> str:
    """Why a copy failed: that of a folder goes on, and gathers what failed in it."""
    if not isinstance(error, shutil.Error):
        return str(error.strerror)
    source, _, first = error.args[0][0]
    more = f", and {len(error.args[0]) - 1} more" if len(error.args[0]) > 1 else ""
    return f"{source}: {first}{more}"


def _delete(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    elif os.path.lexists(place):
        place.unlink()


def _bytes(place: Path) -> int:
    return sum(path.stat().st_size for path in (place, *place.rglob("*")) if path.is_file())


def _remove_cached(name: str) -> int:
    repository, cache = "/".join(name.split("/")[:2]), Path(constants.HF_HUB_CACHE)
    found = huggingface_hub.scan_cache_dir(cache) if cache.is_dir() else None
    commits = [revision.commit_hash for repo in (found.repos if found else ()) if repo.repo_id == repository
               for revision in repo.revisions]
    if found is None or not commits:
        raise WeightsMissing(f'"{repository}" is not in the hub\'s cache', where=cache,
                             remedy="See: fresco models list")
    plan = found.delete_revisions(*commits)
    plan.execute()
    return int(plan.expected_freed_size)
