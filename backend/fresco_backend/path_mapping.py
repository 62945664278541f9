# SPDX-License-Identifier: Apache-2.0
"""Paths of one machine as another one has them: rules such as Z:\\show -> /mnt/show, as Open Job Description has them.

Source: Open Job Description, "How jobs are run", path mapping rules ("pathmapping-1.0"): the longest source wins, and
Windows paths are compared without regard to case.
"""
from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from fresco_protocol.errors import UsageError
from fresco_protocol.shot import Shot

VERSION = "pathmapping-1.0"


class PathFormat(Enum):
    """How the paths of the source machine are written."""

    POSIX = "POSIX"
    WINDOWS = "WINDOWS"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What lies below `source` on the machine that submits lies below `destination` here."""

    format: PathFormat
    source: str
    destination: str

    def apply(self, path: str) -> str | None:
        """The path here; None when the rule says nothing of it."""
        kind: type[PurePath] = PureWindowsPath if self.format is PathFormat.WINDOWS else PurePosixPath
        found = kind(path)
        if not found.is_relative_to(kind(self.source)):
            return None
        return str(PurePath(self.destination, *found.relative_to(kind(self.source)).parts))


@dataclass(frozen=True, kw_only=True)
class PathMapping:
    """Rules, of which the one with the longest source that fits is applied."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def of_file(cls, path: Path) -> PathMapping:
        """The rules of a file. Raises UsageError, which says what is wrong with it."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document == {}:  # of a session that maps nothing
                return cls()
            if document["version"] != VERSION:
                raise UsageError(f"path mapping of version {document['version']}", where=path,
                                 remedy=f"This Fresco reads {VERSION}.")
            rules = tuple(Rule(format=PathFormat(rule["source_path_format"].upper()), source=str(rule["source_path"]),
                               destination=str(rule["destination_path"])) for rule in document["path_mapping_rules"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"no path mapping: {type(error).__name__}: {error}", where=path,
                             remedy='It looks like {"version": "pathmapping-1.0", "path_mapping_rules": [{'
                                    '"source_path_format": "WINDOWS", "source_path": "Z:\\\\show", '
                                    '"destination_path": "/mnt/show"}]}') from error
        return cls(rules=tuple(sorted(rules, key=lambda rule: len(rule.source), reverse=True)))

    def path(self, path: str) -> str:
        """The path here; itself when no rule says anything of it."""
        return next((found for rule in self.rules if (found := rule.apply(path)) is not None), path)

    def shot(self, shot: Shot) -> Shot:
        """The shot with every path of plates, mattes, controls, models and the delivery as it is here."""
        look = shot.look
        controls = look.controls and tuple(
            replace(control, sequence=control.sequence and self.path(control.sequence),
                    model=control.model and self.path(control.model),
                    detector=control.detector and self.path(control.detector)) for control in look.controls)
        loras = tuple(replace(lora, model=self.path(lora.model)) for lora in look.loras)
        return replace(
            shot, plate=replace(shot.plate, sequence=self.path(shot.plate.sequence)),
            matte=shot.matte and replace(shot.matte, sequence=self.path(shot.matte.sequence)),
            look=replace(look, controls=controls, loras=loras, model=self.path(look.model),
                         vae=look.vae and self.path(look.vae)),
            delivery=replace(shot.delivery, sequence=self.path(shot.delivery.sequence),
                             upscaler=shot.delivery.upscaler and self.path(shot.delivery.upscaler)))
