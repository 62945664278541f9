# SPDX-License-Identifier: Apache-2.0
"""Declared roots: the folders in which the server reads plates and writes deliveries, and nowhere else.

A path is judged as the system will follow it, every symbolic link resolved: when a shot is submitted, and again by the
worker when the files are known that the job will open.
"""
from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from fresco_protocol.errors import InputError, PathRefused
from fresco_protocol.shot import Shot

if TYPE_CHECKING:
    from fresco_backend.render.job import Job


_OTHER_SYSTEM = PurePosixPath if os.name == "nt" else PureWindowsPath
_FOREIGN = "It is a path of another system than the server's: set FRESCO_PATH_MAPPING there (docs/server.md), or " \
           "send the files with --upload."


@dataclass(frozen=True, kw_only=True)
class Roots:
    """folders: where shots may read and write; models: where weights may lie besides. All exist and are resolved."""

    folders: tuple[Path, ...]
    models: tuple[Path, ...] = ()

    @classmethod
    def declared(cls, folders: Iterable[Path], models: Iterable[Path] = ()) -> Roots:
        """The roots of these folders. Raises InputError for one that does not exist."""
        found = []
        for folder in folders:
            if not folder.is_dir():
                raise InputError("a root that is no folder", where=folder, remedy="Declare folders that exist.")
            found.append(_resolved(str(folder)))
        outermost = [folder for folder in dict.fromkeys(found)
                     if not any(folder != other and folder.is_relative_to(other) for other in found)]
        return cls(folders=tuple(outermost), models=tuple(_resolved(str(folder)) for folder in models))

    def check_shot(self, shot: Shot) -> None:
        """Raises PathRefused for the first path of a shot that leads out of the roots, and names its place."""
        for place, path in _paths(shot):
            self._check(path, place, self.folders)
        for place, model in _models(shot):
            self._check_model(model, place)

    def check_job(self, job: Job) -> None:
        """Raises PathRefused for the first file of an opened job that leads out of the roots, scratch included."""
        self.check_shot(job.shot)
        beside = Path(job.shot.delivery.sequence).parent
        if job.scratch.folder.is_relative_to(beside):  # else the owner of the server has named another place
            self._check(str(job.scratch.folder), "the folder of unfinished work", self.folders)
        for path in job.sources:
            self._check(str(path), "a file of the plate, the matte or a control", self.folders)

    def check_file(self, path: Path) -> None:
        """Raises PathRefused for a file that leads out of the roots."""
        self._check(str(path), "this file", self.folders)

    def _check(self, path: str, place: str, folders: tuple[Path, ...]) -> None:
        if not Path(path).is_absolute():
            foreign = _OTHER_SYSTEM(path).is_absolute()
            raise PathRefused(f"{place} is no absolute path", where=path[:300],
                              remedy=_FOREIGN if foreign else "Give the whole path.")
        try:
            found = _resolved(path)
        except (ValueError, OSError) as error:  # a zero byte; a loop of links
            raise PathRefused(f"{place} is no path: {error}", where=path[:300], remedy="Give another path.") from None
        if not any(found.is_relative_to(folder) for folder in folders):
            inside = ", ".join(map(str, self.folders)) or "none"
            raise PathRefused(f"{place} leads outside of the server's roots ({inside})", where=path[:300],
                              remedy="Start the server with --root FOLDER, or set FRESCO_ROOTS, and submit again.")

    def _check_model(self, model: str, place: str) -> None:
        if _is_path(model):
            self._check(str(Path(model).expanduser()), place, self.folders + self.models)
        elif ".." in Path(model).parts:
            raise PathRefused(f"{place} is no name of a model", where=model[:300], remedy="Give the whole path.")


def folders_of(shot: Shot) -> tuple[Path, ...]:
    """The folders, of those that are there, of all that a shot names by its path."""
    folders = [Path(path).parent for _, path in _paths(shot)]
    for _, model in _models(shot):
        if _is_path(model):
            place = Path(model).expanduser()
            folders.append(place if place.is_dir() else place.parent)
    return tuple(folder for folder in dict.fromkeys(folders) if folder.is_dir())


def _is_path(model: str) -> bool:
    return Path(model).is_absolute() or "~" in model


def _paths(shot: Shot) -> Iterator[tuple[str, str]]:
    yield "plate.sequence", shot.plate.sequence
    if shot.matte is not None:
        yield "matte.sequence", shot.matte.sequence
    for number, control in enumerate(shot.look.controls or ()):
        if control.sequence is not None:
            yield f"look.controls[{number}].sequence", control.sequence
    yield "delivery.sequence", shot.delivery.sequence


def _models(shot: Shot) -> Iterator[tuple[str, str]]:
    look = shot.look
    yield "look.model", look.model
    if look.vae is not None:
        yield "look.vae", look.vae
    if shot.delivery.upscaler is not None:
        yield "delivery.upscaler", shot.delivery.upscaler
    for number, lora in enumerate(look.loras):
        yield f"look.loras[{number}].model", lora.model
    for number, control in enumerate(look.controls or ()):
        for name in ("model", "detector"):
            if (model := getattr(control, name)) is not None:
                yield f"look.controls[{number}].{name}", model


def _resolved(path: str) -> Path:
    return Path(os.path.realpath(path))
