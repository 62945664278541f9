# SPDX-License-Identifier: Apache-2.0
"""A node that is to serve a shot: whether it is like the one that planned the job, and the folders that it needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from fresco_backend.arguments.shot_arguments import shot_of_file
from fresco_backend.files.deliveries import make_writable
from fresco_backend.render.job import open_job
from fresco_backend.render.pins import Pins
from fresco_protocol.errors import UsageError
from fresco_protocol.shot import Shot


def prepared_node(document: Path, pins: Pins, rules: Path | None) -> tuple[Path, ...]:
    """The folders of this machine in which a server renders the shot of a document; that of its delivery is made.

    rules: of the session, from paths of the machine that submitted to those of this one. Raises NodeDiffers for
    another model, colour configuration or version than planned; what stands in the way of the shot; UsageError for
    folders that FRESCO_ROOTS cannot name.
    """
    pins.require_node()
    shot = shot_of_file(document, rules)
    with closing(open_job(shot)) as job:
        pins.require_job(job)
    folders = (*plates_of(shot), output_of(shot), *_models(shot))
    for folder in folders:
        if os.pathsep in str(folder):
            raise UsageError(f'a folder with "{os.pathsep}" in its name', where=folder,
                             remedy="Rename it, or make the bundle without --server.")
    make_writable(output_of(shot))
    return tuple(dict.fromkeys(folders))


def plates_of(shot: Shot) -> tuple[Path, ...]:
    """The folders of the plate, the matte and the artist's control images."""
    controls = shot.look.controls or ()
    sequences = [shot.plate.sequence, *([shot.matte.sequence] if shot.matte else []),
                 *(control.sequence for control in controls if control.sequence)]
    return tuple(dict.fromkeys(Path(sequence).parent for sequence in sequences))


def output_of(shot: Shot) -> Path:
    """The folder of the delivery, which every node sees; keyframes lie in `.fresco` in it."""
    return Path(shot.delivery.sequence).parent


def _models(shot: Shot) -> Iterator[Path]:
    """The folders of the models that the shot names by their paths; those by name lie where every server looks."""
    look = shot.look
    named = [look.model, look.vae, *(lora.model for lora in look.loras),
             *(name for control in look.controls or () for name in (control.model, control.detector))]
    paths = [Path(name) for name in named if name and Path(name).is_absolute()]
    yield from (path if path.is_dir() else path.parent for path in paths)
