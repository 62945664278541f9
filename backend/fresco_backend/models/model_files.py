# SPDX-License-Identifier: Apache-2.0
"""The files of one component of a model on disk: which are read, and whether they are whole. Nothing is loaded here.

Files that can run code (pickle) are refused, never opened.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fresco_protocol.errors import WeightsError, WeightsMissing, WeightsRefused

CHECKSUMS = "SHA256SUMS"
PICKLED = (".ckpt", ".bin", ".pt", ".pth", ".pkl")
VARIANTS = (None, "fp16")  # full precision first
# transformers' name of a weight file; everything else has diffusers' name
STEMS = {"text_encoder": "model", "text_encoder_2": "model", "detector": "model"}
STEM = "diffusion_pytorch_model"


@dataclass(frozen=True, kw_only=True)
class Component:
    """One part of a model on disk: the weight files that loading reads, or the reason why it cannot be loaded.

    prefix: of its tensors' names, in a file that holds other parts as well.
    """

    name: str
    place: Path
    files: tuple[Path, ...] = ()
    variant: str | None = None
    problem: WeightsError | None = None
    prefix: str = ""

    @property
    def numbers(self) -> int:
        """How many parameters it has, however they are stored; only headers are read."""
        return sum(_numbers(path, self.prefix, path.stat().st_mtime_ns) for path in self.files)

    @property
    def size(self) -> int:
        """Bytes of all weight files together."""
        return sum(path.stat().st_size for path in self.files)

    def types(self) -> frozenset[str]:
        """How the numbers in the weight files are stored: "F16", "BF16", "F32" and such, as safetensors calls them."""
        return frozenset(kind for path in self.files for kind in tensor_types(path).values())

    def hashes(self) -> dict[str, str]:
        """SHA-256 in hexadecimal of each weight file, by "component/file name"."""
        return {f"{self.name}/{path.name}": sha256(path) for path in self.files}


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


def has_part(index: Mapping[str, Any], part: str) -> bool:
    """Whether a model_index.json says that there is a part; of those that a model may lack it names no class."""
    stated = index.get(part)
    return bool(stated[0]) if isinstance(stated, list) and stated else bool(stated)


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


def weight_name(stem: str, variant: str | None) -> str:
    """The name of a weight file of a variant."""
    return f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"


def weights_component(part: str, folder: Path, *, command: str | None = None) -> Component:
    """The component in a folder of diffusers' layout, whole or with its problem. command: gets what is missing."""
    try:
        if not (folder / "config.json").is_file():
            raise missing(part, folder / "config.json", command)
        files, variant = _weight_files(part, folder, command)
        for path in files:
            tensor_names(path)
            _compare_checksum(path, folder)
    except WeightsError as problem:
        return Component(name=part, place=folder, problem=problem)
    return Component(name=part, place=folder, files=files, variant=variant)


def described_component(part: str, folder: Path) -> Component:
    """A component without weights: its configuration is all that it needs."""
    path = folder / part / f"{part.removesuffix('_2')}_config.json"
    return Component(name=part, place=path.parent, problem=None if path.is_file() else missing(part, path))


def _weight_files(part: str, folder: Path, command: str | None) -> tuple[tuple[Path, ...], str | None]:
    """One file, or the shards of one index; full precision before half precision."""
    stem = STEMS.get(part.partition("/")[0], STEM)
    for variant in VARIANTS:
        whole = folder / weight_name(stem, variant)
        if whole.is_file():
            return (whole,), variant
        index = folder / f"{stem}.safetensors.index.{f'{variant}.' if variant else ''}json"
        if index.is_file():
            return _shards(part, index), variant
    pickled = sorted(path for path in folder.iterdir() if path.suffix in PICKLED)
    raise refuse_pickle(pickled[0]) if pickled else missing(part, folder / weight_name(stem, None), command)


def _shards(part: str, index: Path) -> tuple[Path, ...]:
    stated = read_json(index).get("weight_map")
    names = list(stated.values()) if isinstance(stated, dict) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise WeightsRefused("the index names no files of its own folder", where=index, remedy="Fetch the model again.")
    files = tuple(index.parent / name for name in sorted(set(names)))
    for file in files:
        if not file.is_file():
            raise missing(part, file)
    return files


def tensor_names(path: Path) -> frozenset[str]:
    """The names of the tensors in a safetensors file. Raises WeightsRefused when it is damaged or truncated."""
    return frozenset(tensor_types(path))


def tensor_types(path: Path) -> dict[str, str]:
    """How the numbers of each tensor in a safetensors file are stored, by its name; only the header is read.

    Raises WeightsRefused when the file is damaged or truncated.
    """
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118, no dictionary
    except (SafetensorError, OSError) as error:
        raise WeightsRefused(
            f"damaged or not a safetensors file: {error}", where=path, remedy="Fetch or copy the file again."
        ) from error


@lru_cache(maxsize=256)
def _numbers(path: Path, prefix: str, _changed: int) -> int:
    with safe_open(path, framework="np") as file:
        own = (name for name in file.keys() if name.startswith(prefix))  # noqa: SIM118, no dictionary
        return sum(prod(file.get_slice(name).get_shape()) for name in own)


def _compare_checksum(path: Path, folder: Path) -> None:
    """A model may carry sha256sum's file of its weights; then what lies there must be what was released."""
    sums = next((place / CHECKSUMS for place in (folder, folder.parent) if (place / CHECKSUMS).is_file()), None)
    if sums is None:
        return
    try:
        lines = [line.split(maxsplit=1) for line in sums.read_text(encoding="utf-8").splitlines() if line.strip()]
        expected = {(sums.parent / file.lstrip("*")).absolute(): digest for digest, file in lines}
    except (OSError, ValueError) as error:
        raise WeightsRefused(f"unreadable: {error}", where=sums, remedy="Fetch the file again.") from error
    if expected.get(path.absolute(), sha256(path)) != sha256(path):
        raise WeightsRefused(
            f"the file is not the one that {CHECKSUMS} states", where=path, remedy="Fetch or copy the file again."
        )


def missing(part: str, path: Path, command: str | None = None) -> WeightsMissing:
    """The error of a component that is not there. command: how to get it."""
    advice = f"Get it with: {command}" if command else "Copy the whole model again, with every component."
    return WeightsMissing(f"the {part} is missing", where=path, remedy=advice)


def refuse_pickle(path: Path) -> WeightsRefused:
    """The error of a file of pickles, with the command that converts it."""
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
