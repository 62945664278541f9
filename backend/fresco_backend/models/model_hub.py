# SPDX-License-Identifier: Apache-2.0
"""Models of the hub: what of them lies in its cache, which files are fetched, and the command that fetches them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from fresco_backend import settings
from fresco_backend.models.model_files import STEM, STEMS, VARIANTS, read_json, weight_name
from fresco_protocol.errors import WeightsMissing, WeightsRefused

Patterns = Callable[[str | None], list[str]]
"""Gives, for a variant, the files to fetch; a pattern with a star is fetched where it is there."""

LORA_FILE = "pytorch_lora_weights.safetensors"  # diffusers' name
_NAME = r"[\w-][\w.-]*"
_HUB_ID = re.compile(rf"{_NAME}/{_NAME}", re.ASCII)
_HUB_FILE = re.compile(rf"({_NAME}/{_NAME})/((?:{_NAME}/)*{_NAME}\.safetensors)", re.ASCII)
_PARTS = ("unet", "vae", "text_encoder")
_SECOND = "text_encoder_2"
_LOST: tuple[type[Exception], ...] = (HfHubHTTPError.__bases__[0], EntryNotFoundError, OSError)
"""What a download dies of. A dead network is an error of the library's HTTP client, which was requests, then httpx: its
base class is the first base of the library's own."""


def is_hub_name(name: str) -> bool:
    """Whether a name may be the hub's: "owner/name", or a file "owner/name/path.safetensors" of it."""
    return _HUB_ID.fullmatch(name) is not None or _HUB_FILE.fullmatch(name) is not None


def pipeline_files(variant: str | None) -> list[str]:
    """The files of a whole pipeline on the hub: configurations, tokenizers, and one set of weights."""
    weights = [f"{part}/{weight_name(STEMS.get(part, STEM), variant)}" for part in _PARTS]
    # Only Stable Diffusion XL has it; the star makes it optional.
    return ["*.json", "*.txt", *weights, f"{_SECOND}/{weight_name(STEMS[_SECOND], variant)}*"]


def component_files(variant: str | None) -> list[str]:
    """The files of a single ControlNet or autoencoder on the hub."""
    return ["config.json", weight_name(STEM, variant)]


def detector_files(variant: str | None) -> list[str]:
    """The files of a detector of transformers' classes on the hub."""
    return ["config.json", weight_name(STEMS["detector"], variant)]


def lora_files(_variant: str | None) -> list[str]:
    """The file of a LoRA on the hub."""
    return [LORA_FILE]


def from_hub(name: str, patterns: Patterns, *, offline: bool, known: Sequence[Path] = ()) -> Path:
    """The folder or file in the hub's cache. It is complete, unless it is there in part and nothing may be downloaded.

    known: where else the name was looked for, for the error. Raises WeightsMissing and WeightsRefused.
    """
    file = _HUB_FILE.fullmatch(name)
    if file is not None:
        return _one_file(file[1], file[2], offline=offline)
    cached = _cached(name)
    if cached is not None and (offline or any(_complete(cached, patterns(variant)) for variant in VARIANTS)):
        return cached
    if not offline:
        return _download(name, patterns)
    places = ", ".join(map(str, (*known, constants.HF_HUB_CACHE)))
    raise WeightsMissing(
        f'"{name}" is not on this machine, and nothing may be downloaded',
        where=f"looked in {places}",
        remedy=f"Get it with: {pull_command(name)}",
    )


def fetch(name: str, *, offline: bool) -> Path:
    """The folder or file of anything of the hub that Fresco uses, found out from the names of its files.

    Raises WeightsMissing and WeightsRefused.
    """
    if offline or _HUB_FILE.fullmatch(name):
        return from_hub(name, pipeline_files, offline=offline)
    return _download(name, None)


def pull_command(name: str) -> str:
    """The command that fetches a model of the hub, or a file of it; where FRESCO_OFFLINE forbids that, it says so."""
    return f"fresco models pull {name}" + (", without FRESCO_OFFLINE=1" if settings.offline() else "")


def hub_command(name: str, patterns: Patterns) -> str:
    """The command that fetches these files of a model on a machine that has a network and no Fresco."""
    return " ".join([f"hf download {name}", *(f'--include "{pattern}"' for pattern in patterns(None))])


def _one_file(repository: str, file: str, *, offline: bool) -> Path:
    try:
        return Path(huggingface_hub.hf_hub_download(repository, file, local_files_only=offline))
    except _LOST as error:
        raise WeightsMissing(
            f'"{repository}/{file}" is not here' + ("" if offline else f" and could not be downloaded: {error}"),
            where=constants.HF_HUB_CACHE,
            remedy=f"Get it with: {pull_command(f'{repository}/{file}')}" if offline
            else f"Try again, or on a machine with a network: hf download {repository} {file}",
        ) from error


def _cached(name: str) -> Path | None:
    try:
        return Path(huggingface_hub.snapshot_download(name, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _complete(folder: Path, patterns: Sequence[str]) -> bool:
    return all((folder / pattern).is_file() for pattern in [*_needed(patterns), *_second(folder, patterns)])


def _needed(patterns: Sequence[str]) -> list[str]:
    return [pattern for pattern in patterns if "*" not in pattern]


def _second(folder: Path, patterns: Sequence[str]) -> list[str]:
    """The second text encoder of a pipeline whose index states one."""
    index = folder / "model_index.json"
    if not index.is_file() or not read_json(index).get(_SECOND):
        return []
    return [pattern.removesuffix("*") for pattern in patterns if pattern.startswith(_SECOND)]


def _usual(files: Collection[str]) -> Patterns:
    """What to fetch of a repository with these files."""
    if "model_index.json" in files:
        return pipeline_files
    if LORA_FILE in files:
        return lora_files
    return detector_files if any(file.startswith("model.") for file in files) else component_files


def _download(name: str, patterns: Patterns | None) -> Path:
    """Fetches the weights in full precision, or the half-precision ones where the hub has no others.

    patterns: None finds out what the repository is.
    """
    try:
        files = set(huggingface_hub.HfApi().list_repo_files(name))
        patterns = patterns or _usual(files)
        for wanted in map(patterns, VARIANTS):
            if set(_needed(wanted)) <= files:
                return Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
    except RepositoryNotFoundError as error:
        raise WeightsMissing(
            f'the hub has no model "{name}", or it needs a login', where=name, remedy="Check the id, or: hf auth login"
        ) from error
    except _LOST as error:
        raise WeightsMissing(
            f'"{name}" could not be downloaded: {error}',
            where=name,
            remedy=f"Try again, or on a machine with a network: {hub_command(name, patterns or pipeline_files)}",
        ) from error
    raise WeightsRefused(
        f'the hub\'s "{name}" lacks one of: {", ".join(_needed(patterns(None)))}',
        where=name,
        remedy="Fresco reads .safetensors in diffusers' layout only: choose another release of the model.",
    )
