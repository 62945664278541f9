# SPDX-License-Identifier: Apache-2.0
"""What a job was planned with: versions, weights, colour configuration, identity. A node that differs refuses it.

Two nodes that differ would each deliver frames that are whole and do not match; a farm finds that out in dailies.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fresco_backend import __version__
from fresco_backend.models.model_family import Family
from fresco_backend.models.model_files import sha256
from fresco_backend.models.model_store import Inventory
from fresco_backend.pixels.color_config import configuration
from fresco_backend.render.scratch import write_atomically
from fresco_protocol.errors import InputError, NodeDiffers

if TYPE_CHECKING:
    from fresco_backend.render.job import Job

SCHEMA = 1
LIBRARIES = ("torch", "diffusers", "transformers", "OpenImageIO", "opencv-python-headless", "av", "numpy")


@dataclass(frozen=True, kw_only=True)
class Pins:
    """The facts that every node of one job shares.

    job: identity of the job. versions: of Fresco and the libraries that make pixels. color: the colour
    configuration, a built-in one by its name, a file by its hash. weights, configurations: SHA-256 of the model's
    files, by name. family: the model's.
    """

    job: str
    family: str
    versions: Mapping[str, str]
    color: str
    weights: Mapping[str, str]
    configurations: Mapping[str, str]

    @classmethod
    def of(cls, job: Job) -> Pins:
        """The pins of a job that this machine opened."""
        return cls(job=job.identity, family=job.inventory.family.value, versions=versions(), color=color(),
                   weights=job.weights, configurations=job.configurations)

    @classmethod
    def read(cls, path: Path) -> Pins:
        """The pins in a file that `write` made. Raises InputError."""
        try:
            document = json.loads(path.read_bytes())
            if document.pop("schema") != SCHEMA:
                raise ValueError("another schema")
            return cls(**document)
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise InputError(f"the pins cannot be read: {error}", where=path,
                             remedy="Make them again with: fresco farm bundle") from error

    def write(self, path: Path) -> None:
        """Write the pins, whole or not at all. Raises OSError."""
        text = json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2) + "\n"
        write_atomically(path, lambda file: file.write(text.encode()))

    def inventory(self, name: str) -> Inventory:
        """The model of this name as a node sees it that needs none: no file of it has to be here."""
        return Inventory(name=name, place=Path(), family=Family(self.family), components=(), controls={})

    def require_node(self) -> None:
        """Raise NodeDiffers unless versions and colour configuration here are those of the plan."""
        here = {**_released(versions()), "colour configuration": color()}
        planned = {**_released(self.versions), "colour configuration": self.color}
        _require("this node differs from the one that planned the job", here, planned,
                 "Install the same versions everywhere, or make the bundle again on a machine like this one")

    def require_job(self, job: Job) -> None:
        """Raise NodeDiffers unless the model, the plate and the document are those of the plan."""
        facts = {**job.weights, **job.configurations}
        _require("the model on this node is not the one of the plan", facts, {**self.weights, **self.configurations},
                 "Copy the same files of the model to every node")
        _require("the plate or the document is not as it was planned", {"job": job.identity}, {"job": self.job},
                 "Were frames of the plate rendered again, or copied without their times? Make the bundle again")


def versions() -> dict[str, str]:
    """The versions of all that makes pixels on this machine."""
    return {"fresco": __version__, **{name: importlib.metadata.version(name) for name in LIBRARIES}}


def _released(versions: Mapping[str, str]) -> dict[str, str]:
    """Without what a build is for ("2.9.0+cu128"), which goes with the device: that may differ from node to node."""
    return {name: version.partition("+")[0] for name, version in versions.items()}


def color() -> str:
    """The colour configuration of this machine: its built-in name, or the hash of its file. Raises ColorError."""
    name = configuration()
    return sha256(Path(name)) if Path(name).is_file() else name


def _require(what: str, here: Mapping[str, str], planned: Mapping[str, str], remedy: str) -> None:
    differing = list(_differences(here, planned))
    if differing:
        raise NodeDiffers(f"{what}: {'; '.join(differing)}", where=platform.node(), remedy=remedy)


def _differences(here: Mapping[str, str], planned: Mapping[str, str]) -> Iterator[str]:
    for name in dict.fromkeys((*planned, *here)):
        found, wanted = here.get(name, "nothing"), planned.get(name, "nothing")
        if found != wanted:
            yield f"{name} is {found[:16]}, planned {wanted[:16]}"
