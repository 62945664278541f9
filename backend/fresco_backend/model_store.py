# SPDX-License-Identifier: Apache-2.0
"""Models on disk: where a name leads, which files make it up, and whether they are whole. Nothing is loaded here.

A name is "embedded", a folder in diffusers' layout, a `.safetensors` file of Stable Diffusion 1.x, the name of an entry
in `settings.models_folder()`, or a hub id "owner/name". Files that can run code (pickle) are refused, never opened.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open

from fresco_backend import settings
from fresco_protocol.errors import WeightsError, WeightsMissing, WeightsRefused, WeightsUnsupported
from fresco_protocol.shot import Control, ControlKind

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded" / "model"
CHECKSUMS = "SHA256SUMS"

Patterns = Callable[[str | None], list[str]]

# ControlNets of Stable Diffusion 1.x that serve a control whose shot names no model.
DEFAULT_CONTROLNETS: Mapping[ControlKind, str] = {
    ControlKind.CANNY: "lllyasviel/sd-controlnet-canny",
    ControlKind.SOFT_EDGE: "lllyasviel/sd-controlnet-hed",
    ControlKind.DEPTH: "lllyasviel/sd-controlnet-depth",
}
_SD1_TEXT_WIDTH = 768

_PICKLED = (".ckpt", ".bin", ".pt", ".pth", ".pkl")
_VARIANTS = (None, "fp16")  # full precision first
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_STEMS = {"text_encoder": "model"}  # transformers' name of a weight file; everything else has diffusers' name
_STEM = "diffusion_pytorch_model"
_WEIGHED = ("unet", "vae", "text_encoder")


@dataclass(frozen=True, kw_only=True)
class Component:
    """One part of a model on disk: the weight files that loading reads, or the reason why it cannot be loaded."""

    name: str
    place: Path
    files: tuple[Path, ...] = ()
    variant: str | None = None
    problem: WeightsError | None = None

    @property
    def size(self) -> int:
        """Bytes of all weight files together."""
        return sum(path.stat().st_size for path in self.files)

    def hashes(self) -> dict[str, str]:
        """SHA-256 in hexadecimal of each weight file, by "component/file name"."""
        return {f"{self.name}/{path.name}": sha256(path) for path in self.files}


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What a model consists of. place: its folder, or its single file. controls: the ControlNets by control."""

    name: str
    place: Path
    components: tuple[Component, ...]
    controls: Mapping[Control, Component]

    @property
    def all_components(self) -> tuple[Component, ...]:
        """The model's own components, then every ControlNet once."""
        return (*self.components, *{part.place: part for part in self.controls.values()}.values())

    def require(self) -> None:
        """Raises the WeightsError of the first component that is missing, damaged or refused, if there is one."""
        for component in self.all_components:
            if component.problem is not None:
                raise component.problem

    def component(self, name: str) -> Component:
        """The model's own component of that name."""
        return next(part for part in self.components if part.name == name)


def check(name: str, *, controls: Sequence[Control] = (), offline: bool = True) -> Inventory:
    """What `name` consists of, and what is wrong with each component; loads nothing.

    Raises a WeightsError only when `name` itself leads nowhere: a component that lacks keeps its error in `problem`.
    Downloads from the hub unless `offline`.
    """
    place = locate(name, pipeline_files, offline=offline)
    components = _single_file_components(place) if place.is_file() else _folder_components(name, place)
    own = place if place.is_dir() else None
    nets = {control: _control_component(control, name, own, offline) for control in controls}
    return Inventory(name=name, place=place, components=components, controls=nets)


def check_autoencoder(name: str, *, offline: bool = True) -> Component:
    """The autoencoder that replaces a model's own, such as "stabilityai/sd-vae-ft-mse". Raises as `locate`."""
    return _weights("vae", locate(name, component_files, offline=offline))


def locate(name: str, patterns: Patterns, *, offline: bool) -> Path:
    """The folder or file that `name` leads to.

    `patterns` gives, for a variant, the files to fetch from the hub when they are not in its cache and downloading is
    allowed. Raises WeightsMissing, which lists where it looked, and WeightsRefused for files of pickles.
    """
    if name == EMBEDDED:
        return EMBEDDED_FOLDER
    path = Path(name).expanduser()
    if path.suffix.lower() in _PICKLED:
        raise _refuse_pickle(path)
    known = [path, settings.models_folder() / name]
    for place in known:
        if place.is_dir() or (place.is_file() and place.suffix == ".safetensors"):
            return place.absolute()
    if _HUB_ID.fullmatch(name):
        return _from_hub(name, patterns, offline, known)
    raise WeightsMissing(
        f'no model "{name}"',
        where="looked for " + ", ".join(str(place.absolute()) for place in known),
        remedy='Give "embedded", a diffusers folder, a .safetensors file or a hub id such as '
        '"stable-diffusion-v1-5/stable-diffusion-v1-5".',
    )


def pipeline_files(variant: str | None) -> list[str]:
    """The files of a whole pipeline on the hub: configurations, tokenizer, and one set of weights."""
    return ["*.json", "*.txt", *(f"{part}/{_weight_name(_STEMS.get(part, _STEM), variant)}" for part in _WEIGHED)]


def component_files(variant: str | None) -> list[str]:
    """The files of a single ControlNet or autoencoder on the hub."""
    return ["config.json", _weight_name(_STEM, variant)]


def read_index(folder: Path) -> dict[str, Any]:
    """The content of a folder's model_index.json. Raises WeightsMissing without one, WeightsRefused when damaged."""
    path = folder / "model_index.json"
    if not path.is_file():
        raise WeightsMissing(
            "no model_index.json: this is not a model in diffusers' layout",
            where=path,
            remedy="Give the folder that holds unet/, vae/, text_encoder/, tokenizer/ and scheduler/.",
        )
    return read_json(path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises WeightsRefused when it holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsRefused(f"unreadable: {error}", where=path, remedy="Fetch the file again.") from error
    if not isinstance(content, dict):
        raise WeightsRefused("not a JSON object", where=path, remedy="Fetch the file again.")
    return content


def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal; computed once a process while size and time of the file stay the same."""
    status = path.stat()
    return _sha256(path.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(path: Path, _size: int, _time: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_hub(name: str, patterns: Patterns, offline: bool, known: list[Path]) -> Path:
    """The folder of the hub's cache; complete, unless nothing may be downloaded and some of it is there."""
    cached = _cached(name)
    if cached is not None and (offline or any(_complete(cached, patterns(variant)) for variant in _VARIANTS)):
        return cached
    if not offline:
        return _download(name, patterns)
    places = ", ".join(str(place) for place in (*(place.absolute() for place in known), constants.HF_HUB_CACHE))
    raise WeightsMissing(
        f'"{name}" is not on this machine, and nothing may be downloaded',
        where=f"looked in {places}",
        remedy=f"Get it with: {_hub_command(name, patterns(None))}",
    )


def _cached(name: str) -> Path | None:
    try:
        return Path(huggingface_hub.snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _complete(folder: Path, patterns: Sequence[str]) -> bool:
    return all((folder / pattern).is_file() for pattern in patterns if "*" not in pattern)


def _download(name: str, patterns: Patterns) -> Path:
    """Fetches the weights in full precision, or the half-precision ones where the hub has no others."""
    try:
        files = set(huggingface_hub.HfApi().list_repo_files(name))
        for wanted in map(patterns, _VARIANTS):
            if {pattern for pattern in wanted if "*" not in pattern} <= files:
                return Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
    except RepositoryNotFoundError as error:
        raise WeightsMissing(
            f'the hub has no model "{name}", or it needs a login', where=name, remedy="Check the id, or: hf auth login"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise WeightsMissing(
            f'"{name}" could not be downloaded: {error}',
            where=name,
            remedy=f"Try again, or on a machine with a network: {_hub_command(name, patterns(None))}",
        ) from error
    raise WeightsRefused(
        f'the hub\'s "{name}" lacks one of: {", ".join(p for p in patterns(None) if "*" not in p)}',
        where=name,
        remedy="Fresco reads .safetensors in diffusers' layout only: choose another release of the model.",
    )


def _hub_command(name: str, patterns: Sequence[str]) -> str:
    return " ".join([f"hf download {name}", *(f'--include "{pattern}"' for pattern in patterns)])


def _weight_name(stem: str, variant: str | None) -> str:
    return f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"


def _folder_components(name: str, folder: Path) -> tuple[Component, ...]:
    index = read_index(folder)
    if any(part and part[0] for part in (index.get("text_encoder_2"), index.get("transformer"))):
        raise WeightsUnsupported(
            f"{index.get('_class_name')} has a second text encoder or a transformer",
            where=folder,
            remedy="Fresco drives Stable Diffusion 1.x and models of its structure.",
        )
    weighed = (_weights(part, folder / part, model=name) for part in _WEIGHED)
    described = (_described(part, folder) for part in ("tokenizer", "scheduler"))
    return (*weighed, *described)


def _described(part: str, folder: Path) -> Component:
    """A component without weights: its configuration is all that it needs."""
    path = folder / part / f"{part}_config.json"
    return Component(name=part, place=path.parent, problem=None if path.is_file() else _missing(part, path))


def _weights(part: str, folder: Path, *, model: str | None = None) -> Component:
    try:
        if not (folder / "config.json").is_file():
            raise _missing(part, folder / "config.json", model)
        files, variant = _weight_files(part, folder, model)
        for path in files:
            tensor_names(path)
            _compare_checksum(path, folder)
    except WeightsError as problem:
        return Component(name=part, place=folder, problem=problem)
    return Component(name=part, place=folder, files=files, variant=variant)


def _weight_files(part: str, folder: Path, model: str | None) -> tuple[tuple[Path, ...], str | None]:
    """One file, or the shards of one index; full precision before half precision."""
    stem = _STEMS.get(part.partition("/")[0], _STEM)
    for variant in _VARIANTS:
        whole = folder / _weight_name(stem, variant)
        if whole.is_file():
            return (whole,), variant
        index = folder / f"{stem}.safetensors.index.{f'{variant}.' if variant else ''}json"
        if index.is_file():
            return _shards(part, index), variant
    pickled = sorted(path for path in folder.iterdir() if path.suffix in _PICKLED)
    raise _refuse_pickle(pickled[0]) if pickled else _missing(part, folder / _weight_name(stem, None), model)


def _shards(part: str, index: Path) -> tuple[Path, ...]:
    names = sorted(set(read_json(index).get("weight_map", {}).values()))
    if not names or any(Path(name).name != name for name in names):
        raise WeightsRefused("the index names no files of its own folder", where=index, remedy="Fetch the model again.")
    for name in names:
        if not (index.parent / name).is_file():
            raise _missing(part, index.parent / name)
    return tuple(index.parent / name for name in names)


def tensor_names(path: Path) -> frozenset[str]:
    """The names of the tensors in a safetensors file. Raises WeightsRefused when it is damaged or truncated."""
    try:
        with safe_open(path, framework="np") as file:
            return frozenset(file.keys())
    except (SafetensorError, OSError) as error:
        raise WeightsRefused(
            f"damaged or not a safetensors file: {error}", where=path, remedy="Fetch or copy the file again."
        ) from error


def _compare_checksum(path: Path, folder: Path) -> None:
    """A model may carry sha256sum's file of its weights; then what lies there must be what was released."""
    sums = next((place / CHECKSUMS for place in (folder, folder.parent) if (place / CHECKSUMS).is_file()), None)
    if sums is None:
        return
    lines = (line.split(maxsplit=1) for line in sums.read_text(encoding="utf-8").splitlines() if line.strip())
    expected = {(sums.parent / file.lstrip("*")).absolute(): digest for digest, file in lines}
    if expected.get(path.absolute(), sha256(path)) != sha256(path):
        raise WeightsRefused(
            f"the file is not the one that {CHECKSUMS} states", where=path, remedy="Fetch or copy the file again."
        )


def _single_file_components(path: Path) -> tuple[Component, ...]:
    names = tensor_names(path)
    if any(name.startswith(("conditioner.", "cond_stage_model.model.")) for name in names):
        raise WeightsUnsupported(
            "a single file of Stable Diffusion 2 or XL", where=path, remedy="Fresco reads single files of 1.x."
        )
    return tuple(
        Component(name=part, place=path, files=(path,))
        if any(name.startswith(prefix) for name in names)
        else Component(name=part, place=path, problem=_missing(part, path))
        for part, prefix in SINGLE_FILE_PREFIXES.items()
    )


SINGLE_FILE_PREFIXES: Mapping[str, str] = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.transformer.text_model.",
}


def _control_component(control: Control, model: str, folder: Path | None, offline: bool) -> Component:
    """The ControlNet that the control names, else the model's own, else Stable Diffusion 1.x's of that kind."""
    part = f"controlnet/{control.kind.value}"
    try:
        if control.model is not None:
            return _weights(part, locate(control.model, component_files, offline=offline), model=control.model)
        if folder is not None and (folder / "controlnet").is_dir():
            _require_kind(control.kind, folder)
            return _weights(part, folder / "controlnet", model=model)
        default = DEFAULT_CONTROLNETS.get(control.kind) if folder is None or _is_sd1(folder) else None
        if default is None:
            raise WeightsMissing(
                f'"{model}" has no ControlNet for {control.kind.value}',
                where=folder,
                remedy="Name one in the control's `model`: a folder or a hub id.",
            )
        return _weights(part, locate(default, component_files, offline=offline), model=default)
    except WeightsError as problem:
        return Component(name=part, place=folder or Path(model), problem=problem)


def _require_kind(kind: ControlKind, folder: Path) -> None:
    """A model whose index lists `_fresco_controls` has a ControlNet for those kinds alone."""
    kinds = read_index(folder).get("_fresco_controls")
    if kinds is not None and kind is not ControlKind.SEQUENCE and kind.value not in kinds:
        raise WeightsUnsupported(
            f"its ControlNet knows {', '.join(kinds)}, not {kind.value}",
            where=folder / "controlnet",
            remedy="Use that control, or name a ControlNet in the control's `model`.",
        )


def _is_sd1(folder: Path) -> bool:
    path = folder / "unet" / "config.json"
    return path.is_file() and read_json(path).get("cross_attention_dim") == _SD1_TEXT_WIDTH


def _missing(part: str, path: Path, model: str | None = None) -> WeightsMissing:
    command = None
    if model is not None and _HUB_ID.fullmatch(model) and not Path(model).exists():
        patterns = component_files if part.startswith("controlnet") else pipeline_files
        command = f"Get it with: {_hub_command(model, patterns(None))}"
    return WeightsMissing(
        f"the {part} is missing", where=path, remedy=command or "Copy the whole model again, with every component."
    )


def _refuse_pickle(path: Path) -> WeightsRefused:
    target = path.with_suffix(".safetensors")
    program = (
        f"import torch; from safetensors.torch import save_file; d = torch.load({str(path)!r}, weights_only=True); "
        f"save_file({{k: v.clone().contiguous() for k, v in d.get('state_dict', d).items()}}, {str(target)!r}, "
        "metadata={'format': 'pt'})"
    )
    return WeightsRefused(
        "a pickle can run code when it is opened, so Fresco reads .safetensors only",
        where=path,
        remedy=f'Convert it with: "{sys.executable}" -c "{program}"',
    )
