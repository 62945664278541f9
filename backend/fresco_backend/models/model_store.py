# SPDX-License-Identifier: Apache-2.0
"""Models on disk: where a name leads, which components it has, and whether they are whole. Nothing is loaded here.

A name is "embedded", a folder in diffusers' layout, a `.safetensors` file of Stable Diffusion, the name of an entry in
`settings.models_folder()`, a hub id "owner/name", or a file of the hub "owner/name/file.safetensors".
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fresco_backend import settings
from fresco_backend.models.model_family import (
    DEFAULT_CONTROLNETS,
    SINGLE_FILE_PREFIXES,
    VELOCITY_MARK,
    Family,
    family_of_file,
    family_of_folder,
    has_two_text_encoders,
)
from fresco_backend.models.model_files import (
    PICKLED,
    Component,
    described_component,
    has_part,
    missing,
    read_index,
    refuse_pickle,
    tensor_names,
    weights_component,
)
from fresco_backend.models.model_hub import (
    Patterns,
    component_files,
    detector_files,
    from_hub,
    is_hub_name,
    lora_files,
    pipeline_files,
    pull_command,
)
from fresco_protocol.errors import WeightsError, WeightsMissing, WeightsUnsupported
from fresco_protocol.shot import Control, ControlKind, Look, Lora, Prediction

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parents[1] / "embedded" / "model"
DEPTH_DETECTOR = "depth-anything/Depth-Anything-V2-Small-hf"


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a look puts in place of parts of its model; see `Look`."""

    vae: str | None = None
    loras: tuple[Lora, ...] = ()
    prediction: Prediction | None = None

    @classmethod
    def of(cls, look: Look) -> Changes:
        """The changes that a look asks for."""
        return cls(vae=look.vae, loras=look.loras, prediction=look.prediction)


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What a model consists of. place: its folder, or its single file. controls: the ControlNets by control.

    loras: the files of the LoRAs, in their order. detectors: networks that draw control images, by their name.
    """

    name: str
    place: Path
    family: Family
    components: tuple[Component, ...]
    controls: Mapping[Control, Component]
    loras: tuple[Component, ...] = ()
    detectors: Mapping[str, Component] = field(default_factory=dict)

    @property
    def all_components(self) -> tuple[Component, ...]:
        """The model's own components, then every ControlNet and detector once, then the LoRAs."""
        nets = {part.place: part for part in (*self.controls.values(), *self.detectors.values())}
        return (*self.components, *nets.values(), *self.loras)

    @property
    def size(self) -> int:
        """Bytes of all weight files, each once."""
        return sum(path.stat().st_size for path in {path for part in self.all_components for path in part.files})

    def require(self) -> None:
        """Raises the WeightsError of the first component that is missing, damaged or refused, if there is one."""
        for component in self.all_components:
            if component.problem is not None:
                raise component.problem

    def component(self, name: str) -> Component:
        """The model's own component of that name."""
        return next(part for part in self.components if part.name == name)


def check(
    name: str, *, controls: Sequence[Control] = (), changes: Changes | None = None, offline: bool = True
) -> Inventory:
    """What `name` consists of with what a look adds and changes, and what is wrong with each component; loads nothing.

    Raises a WeightsError only when `name` itself leads nowhere: a component that lacks keeps its error in `problem`.
    Downloads from the hub unless `offline`.
    """
    changes = changes or Changes()
    place = locate(name, pipeline_files, offline=offline)
    if place.is_file():
        family = family_of_file(place, tensor_names(place))
        components, own = _file_components(place, family, changes.prediction), None
    else:
        family = family_of_folder(place)
        components, own = _folder_components(name, place), place
    if changes.vae is not None:
        other = check_autoencoder(changes.vae, offline=offline)
        components = tuple(other if part.name == "vae" else part for part in components)
    detectors = list(filter(None, map(detector_name, controls)))
    return Inventory(
        name=name, place=place, family=family, components=components,
        controls={control: _controlnet(control, name, own, family, offline) for control in controls},
        loras=tuple(_lora(number, lora, offline) for number, lora in enumerate(changes.loras)),
        detectors={wanted: check_detector(wanted, offline=offline) for wanted in detectors},
    )  # fmt: skip


def check_autoencoder(name: str, *, offline: bool = True) -> Component:
    """The autoencoder that replaces a model's own, such as "stabilityai/sd-vae-ft-mse", or one of a single file."""
    try:
        place = locate(name, component_files, offline=offline, kind="autoencoder")
        if not place.is_file():
            return weights_component("vae", place, command=_command(name))
        names = tensor_names(place)
        if not any(key.endswith("decoder.conv_in.weight") for key in names):
            raise WeightsUnsupported("the file holds no autoencoder", where=place, remedy="Give one to --vae.")
        whole = SINGLE_FILE_PREFIXES[Family.SD1]["vae"]  # of a whole checkpoint, the same in every family
        prefix = whole if any(key.startswith(whole) for key in names) else ""
        return Component(name="vae", place=place, files=(place,), prefix=prefix)
    except WeightsError as problem:
        return Component(name="vae", place=Path(name), problem=problem)


def detector_name(control: Control) -> str | None:
    """The network that draws the images of a control; None where they are drawn without one."""
    if control.kind is not ControlKind.DEPTH:
        return None
    return control.detector or DEPTH_DETECTOR


def locate(name: str, patterns: Patterns, *, offline: bool, kind: str = "model") -> Path:
    """The folder or file that `name` leads to. kind: what is looked for, in words.

    `patterns` gives, for a variant, the files to fetch from the hub when they are not in its cache and downloading is
    allowed. Raises WeightsMissing, which lists where it looked, and WeightsRefused for files of pickles.
    """
    if name == EMBEDDED:
        return EMBEDDED_FOLDER
    path = Path(name).expanduser()
    if path.suffix.lower() in PICKLED:
        raise refuse_pickle(path)
    known = [path.absolute(), settings.models_folder() / name]
    for place in (*known, known[1].with_name(f"{known[1].name}.safetensors")):
        if place.is_dir() or (place.is_file() and place.suffix == ".safetensors"):
            return place.absolute()
    if is_hub_name(name):
        return from_hub(name, patterns, offline=offline, known=known)
    meant = 'Did you mean "embedded"? ' if difflib.get_close_matches(name, [EMBEDDED]) else ""
    model = '"embedded", a diffusers folder, a .safetensors file or a hub id such as ' \
            '"stable-diffusion-v1-5/stable-diffusion-v1-5"'
    added = 'a .safetensors file, a folder, a hub id, or a name that "fresco models list" knows'
    raise WeightsMissing(
        f'no {kind} "{name}"',
        where="looked for " + ", ".join(map(str, known)),
        remedy=f"{meant}Give {model}." if kind == "model" else f"Give {added}.",
    )


def _folder_components(name: str, folder: Path) -> tuple[Component, ...]:
    index = read_index(folder)
    if has_part(index, "transformer") or not has_part(index, "text_encoder"):
        raise WeightsUnsupported(
            f"{index.get('_class_name')} is no Stable Diffusion 1, 2 or XL",
            where=folder,
            remedy="Fresco drives these families and models of their structure; of XL the base, not the refiner.",
        )
    second = ("_2",) if has_two_text_encoders(folder) else ()
    weighed = ("unet", "vae", "text_encoder", *(f"text_encoder{end}" for end in second))
    described = ("tokenizer", *(f"tokenizer{end}" for end in second), "scheduler")
    command = _command(name)
    return (
        *(weights_component(part, folder / part, command=command) for part in weighed),
        *(described_component(part, folder) for part in described),
    )


def _file_components(path: Path, family: Family, prediction: Prediction | None) -> tuple[Component, ...]:
    names = tensor_names(path)
    parts = tuple(
        Component(name=part, place=path, files=(path,), prefix=prefix)
        if any(name.startswith(prefix) for name in names)
        else Component(name=part, place=path, problem=missing(part, path))
        for part, prefix in SINGLE_FILE_PREFIXES[family].items()
    )
    if family is not Family.SD2 or prediction is not None or VELOCITY_MARK in names:
        return parts
    unsaid = WeightsUnsupported(
        "a single file of Stable Diffusion 2 does not say whether it predicts noise or velocity", where=path,
        remedy='Give --prediction v_prediction for models of 768 pixels, --prediction epsilon for "base" ones of 512.',
    )  # fmt: skip
    return (*parts, Component(name="scheduler", place=path, problem=unsaid))


def _controlnet(control: Control, model: str, folder: Path | None, family: Family, offline: bool) -> Component:
    """The ControlNet that the control names, else the model's own, else one of its family of that kind."""
    part = f"controlnet/{control.kind.value}"
    try:
        if control.model is not None:
            return _component_of(part, control.model, offline)
        if folder is not None and (folder / "controlnet").is_dir():
            _require_kind(control.kind, folder)
            return weights_component(part, folder / "controlnet", command=_command(model))
        default = DEFAULT_CONTROLNETS.get(family, {}).get(control.kind)
        if default is None:
            raise WeightsMissing(
                f'"{model}" has no ControlNet for {control.kind.value}',
                where=folder,
                remedy=f"Name one: --control-model {control.kind.value}=MODEL, a folder or a hub id; or --control none",
            )
        return _component_of(part, default, offline)
    except WeightsError as problem:
        return Component(name=part, place=folder or Path(model), problem=problem)


def _component_of(part: str, name: str, offline: bool) -> Component:
    place = locate(name, component_files, offline=offline)
    if place.is_file():
        raise WeightsUnsupported(
            "a ControlNet of a single file", where=place, remedy="Give it as a diffusers folder or a hub id."
        )
    return weights_component(part, place, command=_command(name))


def check_detector(name: str, *, offline: bool = True) -> Component:
    """The network that draws control images, such as "depth-anything/Depth-Anything-V2-Small-hf"."""
    try:
        place = locate(name, detector_files, offline=offline, kind="detector")
        return weights_component("detector", place, command=_command(name))
    except WeightsError as problem:
        return Component(name="detector", place=Path(name), problem=problem)


def _lora(number: int, lora: Lora, offline: bool) -> Component:
    part = f"lora/{number}"
    try:
        place = locate(lora.model, lora_files, offline=offline, kind="LoRA")
        file = place if place.is_file() else place / lora_files(None)[0]
        if not file.is_file():
            raise missing("LoRA", file, _command(lora.model))
        tensor_names(file)
        return Component(name=part, place=file, files=(file,))
    except WeightsError as problem:
        return Component(name=part, place=Path(lora.model), problem=problem)


def _require_kind(kind: ControlKind, folder: Path) -> None:
    """A model whose index lists `_fresco_controls` has a ControlNet for those kinds alone."""
    kinds = read_index(folder).get("_fresco_controls")
    if kinds is not None and kind is not ControlKind.SEQUENCE and kind.value not in kinds:
        raise WeightsUnsupported(
            f"its ControlNet knows {', '.join(kinds)}, not {kind.value}",
            where=folder / "controlnet",
            remedy=f"Use that control, or name another ControlNet that was trained for this model: --control-model "
                   f"{kind.value}=MODEL, in a document the control's `model`.",
        )


def _command(name: str) -> str | None:
    """The command that fetches what is missing of a model of the hub."""
    return pull_command(name) if is_hub_name(name) and not Path(name).exists() else None
