# SPDX-License-Identifier: Apache-2.0
"""Loads a model: `load(name)` gives `Models`, whatever the name leads to.

Loading never runs code of a checkpoint: only safetensors are read, only classes of the list below are built, and a
model that lacks a single tensor is refused instead of being completed with random numbers. `model_store` finds files.
Tensors stay in the precision of their files, which are mapped and not read, until each network goes to its device: of a
large model the machine's own memory holds one network at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from fresco_backend.embedded.dct import DctAutoencoder
from fresco_backend.models import lora, single_file
from fresco_backend.models.depth import DepthDetector, read_detector
from fresco_backend.models.device import choose_device, choose_dtype
from fresco_backend.models.model_family import TINY_AUTOENCODERS, Family
from fresco_backend.models.model_files import Component, read_index, read_json
from fresco_backend.models.model_store import Changes, Inventory, check, check_autoencoder
from fresco_backend.models.prompt_weights import weighed
from fresco_backend.models.text_states import TextReader, take_packed_text, text_states
from fresco_backend.models.vocabulary import unknown_words, vocabulary
from fresco_protocol.errors import WeightsRefused, WeightsUnsupported
from fresco_protocol.shot import Control, Prediction

__all__ = ["LOADABLE", "Models", "check", "describe", "load", "tokenizer_of"]

# The only classes that a model may ask for, by component and by what its model_index.json says. Nothing that a file
# names is ever imported.
LOADABLE: Mapping[str, Mapping[tuple[str, str], type[nn.Module]]] = {
    "unet": {("diffusers", "UNet2DConditionModel"): UNet2DConditionModel},
    "vae": {
        ("diffusers", "AutoencoderKL"): AutoencoderKL,
        ("diffusers", "AutoencoderTiny"): AutoencoderTiny,
        ("fresco_backend.embedded.dct", "DctAutoencoder"): DctAutoencoder,
    },
    "text_encoder": {("transformers", "CLIPTextModel"): CLIPTextModel},
    "text_encoder_2": {("transformers", "CLIPTextModelWithProjection"): CLIPTextModelWithProjection},
}
# Parts of U-Nets of Stable Diffusion's relatives that want to be told more than time and text.
_FOREIGN = ("class_embed_type", "num_class_embeds", "encoder_hid_dim", "time_cond_proj_dim")


@dataclass(frozen=True, kw_only=True)
class Models:
    """Everything that a render needs of a model, on one device, in evaluation mode, without gradients.

    unet, text encoders and controlnets are in `dtype`; the autoencoder is in `vae.dtype`, which is float32 where
    `dtype` has too few bits for a picture. controlnets: by the control that asked for it. second: tokenizer and encoder
    of Stable Diffusion XL's second reading. scheduler_config: what diffusers' schedulers take in `from_config`. hashes:
    SHA-256 of each weight file by "component/file". detectors: by name.
    """

    name: str
    unet: UNet2DConditionModel
    vae: Any  # AutoencoderKL, AutoencoderTiny or DctAutoencoder: they share methods and no class
    text_encoder: CLIPTextModel
    tokenizer: PreTrainedTokenizerFast
    controlnets: Mapping[Control, ControlNetModel]
    scheduler_config: Mapping[str, Any]
    device: torch.device
    dtype: torch.dtype
    hashes: Mapping[str, str]
    second: TextReader | None = None
    empty_is_zero: bool = False
    detectors: Mapping[str, DepthDetector] = field(default_factory=dict)
    family: Family = Family.OTHER

    @cached_property
    def preview_vae(self) -> AutoencoderTiny | None:
        """The tiny autoencoder of the family, read when somebody wants to see previews; None where none lies here."""
        return _preview_autoencoder(self.family, self.device)

    @property
    def prompt_length(self) -> int:
        """Tokens of a prompt, start and end included; what goes beyond is not seen by the model."""
        return self._first.length

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """What the model reads of N prompts, (N, T, C), on its device and in its dtype; see `text_states`.

        T is `prompt_length`, and one more for Stable Diffusion XL, for which an empty prompt may be all zeros.
        """
        states = text_states(self._first, self.second, prompts)
        if self.empty_is_zero:
            states[[place for place, prompt in enumerate(prompts) if not prompt]] = 0
        return states

    def unseen_text(self, prompt: str) -> str:
        """The end of a prompt that is too long to be seen; empty for most prompts."""
        tokens = self.tokenizer(weighed(prompt).plain, add_special_tokens=False).input_ids
        return str(self.tokenizer.decode(tokens[self.prompt_length - 2 :])).strip()

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """All the words that a tokenizer of whole words knows, sorted; empty for one that takes any text."""
        return vocabulary(self.tokenizer)

    def unknown_words(self, prompt: str) -> list[str]:
        """The words of a prompt that the model has never seen, in order, each once; empty if it takes any text."""
        return unknown_words(self.tokenizer, prompt)

    @property
    def _first(self) -> TextReader:
        return TextReader(tokenizer=self.tokenizer, encoder=self.text_encoder)


def load(
    name: str,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    controls: Sequence[Control] = (),
    changes: Changes | None = None,
    offline: bool = True,
) -> Models:
    """The model that `name` leads to, changed as asked, with a ControlNet for each control; see `model_store`.

    `device` and `dtype` default to `choose_device()` and `choose_dtype(device)`. Downloads from the hub unless
    `offline`. Raises WeightsMissing, WeightsRefused and WeightsUnsupported.
    """
    _silence_libraries()
    changes = changes or Changes()
    inventory = check(name, controls=controls, changes=changes, offline=offline)
    inventory.require()
    device = device or choose_device()
    dtype = dtype or choose_dtype(device)
    parts = _file_parts(inventory, changes) if inventory.place.is_file() else _folder_parts(inventory)
    if changes.prediction is not None:
        schedule = {**parts.scheduler_config, "prediction_type": changes.prediction.value}
        parts = replace(parts, scheduler_config=schedule)
    _require_schedule(parts.scheduler_config, inventory.place)
    _fuse_loras(inventory, changes, parts)
    nets = _controlnets(inventory, parts.unet)
    for module in (parts.unet, *parts.encoders, *nets.values()):
        _place(module, device, dtype)
    _place(parts.vae, device, _autoencoder_dtype(parts.vae, dtype))
    _pack_text(parts, nets.values())
    hashes = {file: digest for part in inventory.all_components for file, digest in part.hashes().items()}
    detectors = {wanted: read_detector(part, device) for wanted, part in inventory.detectors.items()}
    return Models(
        name=name, controlnets=nets, device=device, dtype=dtype, hashes=hashes, detectors=detectors,
        family=inventory.family, **vars(parts),
    )  # fmt: skip


def tokenizer_of(inventory: Inventory) -> PreTrainedTokenizerFast | None:
    """The tokenizer of a model of a folder; None of a checkpoint of one file, which takes any text."""
    _silence_libraries()
    return None if inventory.place.is_file() else _tokenizer(inventory.component("tokenizer").place)


def describe(name: str, *, offline: bool = True, shown: Callable[[str], str] = str) -> str:
    """A model's card, words and files as text.

    shown: turns the card, which is Markdown, into what a person reads; by default it stays as it is. Raises as `check`.
    """
    inventory = check(name, offline=offline)
    card = next((p for f in ("README.md", "MODEL_CARD.md") if (p := inventory.place / f).is_file()), None)
    parts = [shown(card.read_text(encoding="utf-8").strip()) if card else f"{name}: no model card at {inventory.place}"]
    if (inventory.place / "tokenizer").is_dir() and (words := vocabulary(_tokenizer(inventory.place / "tokenizer"))):
        parts.append(f"Words ({len(words)}): {', '.join(words)}")
    return "\n\n".join([*parts, "\n".join(_line(component) for component in inventory.all_components)])


def _line(component: Component) -> str:
    if component.problem is not None:
        return f"{component.name}: {component.problem}"
    files = "".join(f"\n  {digest}  {file}" for file, digest in component.hashes().items())
    return f"{component.name}: {component.size / 1e6:.1f} MB{files}"


def _silence_libraries() -> None:
    """Progress bars and advice to programmers do not belong on the terminal of an editor or in a farm's log."""
    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def _autoencoder_dtype(vae: nn.Module, dtype: torch.dtype) -> torch.dtype:
    """The precision of an autoencoder in a model of `dtype`.

    It is float32 where bfloat16 would be too coarse for a picture (8 bits), where the autoencoder says that it
    overflows in half precision (Stable Diffusion XL's), and for the embedded model, where it costs little.
    """
    exact = dtype == torch.bfloat16 or isinstance(vae, DctAutoencoder) or cast(Any, vae).config.get("force_upcast")
    return torch.float32 if exact else dtype


def _place(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Move a network to its device, ready to run.

    A mapped tensor that would stay as it is gets copied, because its file may be replaced while a shot renders.
    """
    for tensor in module.parameters():
        if device.type == tensor.device.type == "cpu" and tensor.dtype == dtype:
            tensor.data = tensor.data.clone()
    module.requires_grad_(False).eval().to(device=device, dtype=dtype)


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """The fields of `Models` that a model's own files decide, read and not yet on a device."""

    unet: UNet2DConditionModel
    vae: Any
    text_encoder: CLIPTextModel
    tokenizer: PreTrainedTokenizerFast
    scheduler_config: Mapping[str, Any]
    second: TextReader | None = None
    empty_is_zero: bool = False

    @property
    def encoders(self) -> list[nn.Module]:
        """One text encoder, or two."""
        return [self.text_encoder] if self.second is None else [self.text_encoder, self.second.encoder]


def _fuse_loras(inventory: Inventory, changes: Changes, parts: _Parts) -> None:
    """Add the LoRAs to the weights, one after the other; the layers that they change are in full precision then."""
    for asked, component in zip(changes.loras, inventory.loras, strict=True):
        lora.fuse(lora.targets(parts.unet, *parts.encoders), component.files[0], asked.weight)


def _pack_text(parts: _Parts, nets: Iterable[ControlNetModel]) -> None:
    """Stable Diffusion XL's networks take the pooled text from the prompt's own tensor."""
    if parts.second is None:
        return
    for network in dict.fromkeys((parts.unet, *nets)):
        take_packed_text(network, parts.second.encoder.config.projection_dim)


def _folder_parts(inventory: Inventory) -> _Parts:
    """What a folder in diffusers' layout holds."""
    index = read_index(inventory.place)
    unet, text_encoder = (cast(Any, _module(inventory.component(part), index)) for part in ("unet", "text_encoder"))
    vae = _autoencoder(inventory, index)
    _require_structure(unet, vae, inventory.place)
    second = None
    if "text_encoder_2" in {part.name for part in inventory.components}:
        encoder = cast(CLIPTextModelWithProjection, _module(inventory.component("text_encoder_2"), index))
        second = TextReader(tokenizer=_tokenizer(inventory.component("tokenizer_2").place), encoder=encoder)
    return _Parts(
        unet=unet, vae=vae, text_encoder=text_encoder, second=second,
        scheduler_config=read_json(inventory.component("scheduler").place / "scheduler_config.json"),
        tokenizer=_tokenizer(inventory.component("tokenizer").place),
        empty_is_zero=second is not None and bool(index.get("force_zeros_for_empty_prompt", True)),
    )  # fmt: skip


def _file_parts(inventory: Inventory, changes: Changes) -> _Parts:
    """What a checkpoint of one file holds."""
    whole = single_file.read_single_file(inventory.place, inventory.family, own_vae=changes.vae is None)
    second = None
    if whole.text_encoder_2 is not None:
        second = TextReader(tokenizer=single_file.clip_tokenizer(padding="!"), encoder=whole.text_encoder_2)
    return _Parts(
        unet=whole.unet, text_encoder=whole.text_encoder, second=second, empty_is_zero=second is not None,
        vae=whole.vae if whole.vae is not None else _autoencoder(inventory, {}),
        tokenizer=single_file.clip_tokenizer(padding="!" if inventory.family is Family.SD2 else None),
        scheduler_config=whole.schedule,
    )  # fmt: skip


def _autoencoder(inventory: Inventory, index: Mapping[str, Any]) -> nn.Module:
    component = inventory.component("vae")
    if component.place.is_file():
        return cast(nn.Module, single_file.read_autoencoder(component.place, inventory.family))
    own = component.place == inventory.place / "vae"
    return _module(component, index if own else {})


def _module(component: Component, index: Mapping[str, Any]) -> nn.Module:
    """One component, by the class that the index names; without an entry by the class in its own configuration."""
    allowed = LOADABLE[component.name]
    stated = index.get(component.name) or ["diffusers", read_json(component.place / "config.json").get("_class_name")]
    named = ".".join(map(str, stated)) if isinstance(stated, list) else str(stated)
    kind = next((kind for key, kind in allowed.items() if ".".join(key) == named), None)
    if kind is None:
        raise WeightsUnsupported(
            f"{named} is no {component.name} that Fresco drives",
            where=component.place,
            remedy=f"It drives {', '.join('.'.join(key) for key in allowed)}.",
        )
    return _read(component, kind)


def _read(component: Component, kind: type[nn.Module]) -> nn.Module:
    """The component with every tensor from its files, as they are. Raises WeightsRefused when one lacks or is odd."""
    reader = cast(Any, kind).from_pretrained
    # diffusers' frugal way of building leaves buffers that no file holds without values.
    frugal = {} if kind in (CLIPTextModel, CLIPTextModelWithProjection) else {"low_cpu_mem_usage": False}
    try:
        module, info = reader(
            str(component.place),
            torch_dtype=_precision(component),
            use_safetensors=True,
            local_files_only=True,
            variant=component.variant,
            output_loading_info=True,
            **frugal,
        )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise WeightsRefused(
            f"the {component.name} cannot be read: {error}", where=component.place, remedy="Fetch the model again."
        ) from error
    odd = [*info["missing_keys"], *(str(entry) for entry in info["mismatched_keys"])]
    if odd:
        raise WeightsRefused(
            f"the {component.name} lacks {len(odd)} tensors, {odd[0]} first",
            where=component.place,
            remedy="Its configuration and weights are not of one model: fetch both again.",
        )
    return cast(nn.Module, module)


def _precision(component: Component) -> torch.dtype:
    """The precision of a component's files; where they differ, float32, which holds the numbers of them all."""
    halves = {frozenset({"F16"}): torch.float16, frozenset({"BF16"}): torch.bfloat16}
    return halves.get(component.types(), torch.float32)


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsRefused(
            f"the tokenizer cannot be read: {error}", where=folder, remedy="Fetch the model again."
        ) from error
    return cast(PreTrainedTokenizerFast, tokenizer)


def _controlnets(inventory: Inventory, unet: UNet2DConditionModel) -> dict[Control, ControlNetModel]:
    """A ControlNet for each control; controls that share a folder share the network."""
    nets: dict[Path, ControlNetModel] = {}
    for component in inventory.controls.values():
        if component.place not in nets:
            net = cast(ControlNetModel, _read(component, ControlNetModel))
            _require_fit(net, unet, component.place)
            nets[component.place] = net
    return {control: nets[component.place] for control, component in inventory.controls.items()}


def _require_fit(net: ControlNetModel, unet: UNet2DConditionModel, place: Path) -> None:
    blocks = len(unet.config["block_out_channels"])
    for key in ("in_channels", "block_out_channels", "cross_attention_dim", "layers_per_block"):
        theirs, ours = net.config[key], unet.config[key]
        if _by_block(theirs, blocks) != _by_block(ours, blocks):
            raise WeightsUnsupported(
                f"this ControlNet is for another model: its {key} is {theirs}, the U-Net's is {ours}",
                where=place,
                remedy="Use a ControlNet that was trained with this model or its parent.",
            )


def _preview_autoencoder(family: Family, device: torch.device) -> AutoencoderTiny | None:
    """The tiny autoencoder of a family, if it is on this machine and whole; nothing is fetched for previews alone."""
    name = TINY_AUTOENCODERS.get(family)
    component = check_autoencoder(name) if name else None
    if component is None or component.problem is not None:
        return None
    vae = cast(AutoencoderTiny, _module(component, {}))
    _place(cast(nn.Module, vae), device, torch.float32)
    return vae


def _require_structure(unet: UNet2DConditionModel, vae: Any, place: Path) -> None:
    if unet.config["in_channels"] != vae.config["latent_channels"]:
        raise WeightsUnsupported(
            f"its U-Net takes {unet.config['in_channels']} channels, its autoencoder makes "
            f"{vae.config['latent_channels']}",
            where=place,
            remedy="Use a text-to-image model, not one for inpainting, depth or upscaling.",
        )
    foreign = [key for key in _FOREIGN if unet.config.get(key) is not None]
    if foreign:
        raise WeightsUnsupported(
            f"its U-Net wants to be told more than time and text ({foreign[0]})",
            where=place,
            remedy="Use a plain text-to-image model; for few steps, one of these with a LoRA and --sampler lcm.",
        )


def _require_schedule(schedule: Mapping[str, Any], place: Path) -> None:
    """Raise WeightsUnsupported for noise of another kind, which diffusers would take for the usual one."""
    if not any(schedule.get(key) for key in ("beta_schedule", "beta_start", "trained_betas")):
        raise WeightsUnsupported(
            f"its noise is not Stable Diffusion's, but that of {schedule.get('_class_name')}", where=place,
            remedy="Use a model whose scheduler states betas, as those of Stable Diffusion 1, 2 and XL do.",
        )  # fmt: skip
    known = [member.value for member in Prediction]
    found = schedule.get("prediction_type", known[0])
    if found not in known:
        raise WeightsUnsupported(
            f'it predicts "{found}"', where=place, remedy=f"Fresco drives models that predict {' or '.join(known)}."
        )


def _by_block(value: Any, blocks: int) -> list[Any]:
    """A field of a network's configuration for each of its blocks: one number stands for all of them."""
    return list(value) if isinstance(value, (list, tuple)) else [value] * blocks
