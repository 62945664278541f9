# SPDX-License-Identifier: Apache-2.0
"""The model that comes with Fresco, through the loader that every other model goes through."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler

from fresco_backend.embedded import figures
from fresco_backend.embedded.captions import vocabulary
from fresco_backend.embedded.dct import DctAutoencoder
from fresco_backend.embedded.looks import LOOKS
from fresco_backend.engine import denoise
from fresco_backend.engine.latents import decode
from fresco_backend.engine.schedule import NoiseSchedule
from fresco_backend.guides.controls import soft_edges
from fresco_backend.models import model_files, model_store, weights
from fresco_backend.models.weights import Models
from fresco_backend.render import recommendation
from fresco_protocol.shot import Control, ControlKind

SOFT_EDGE = Control(kind=ControlKind.SOFT_EDGE)
MEGABYTE = 10**6


@pytest.fixture(scope="module")
def folder() -> Path:
    return model_store.EMBEDDED_FOLDER


@pytest.fixture(scope="module")
def models() -> Models:
    return weights.load("embedded", device=torch.device("cpu"), dtype=torch.float32, controls=(SOFT_EDGE,))


@pytest.fixture(scope="module")
def text() -> str:
    """What `fresco models show embedded` prints."""
    return weights.describe("embedded")


# What lies in the package


def test_every_weight_file_is_the_one_that_was_released(folder: Path) -> None:
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    stated = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
    found = {path.relative_to(folder).as_posix(): model_files.sha256(path) for path in folder.rglob("*.safetensors")}
    assert stated == found
    assert {name.split("/")[0] for name in found} == {"unet", "controlnet", "text_encoder", "vae"}


def test_it_is_small_enough_for_the_repository(folder: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert total <= 60 * MEGABYTE
    assert max(sizes.values()) < 20 * MEGABYTE
    assert not [name for name in sizes if Path(name).suffix in (".pt", ".bin", ".ckpt", ".pkl", ".part")]


def test_the_loader_finds_nothing_wrong_and_reads_every_weight_file(folder: Path) -> None:
    inventory = model_store.check("embedded", controls=(SOFT_EDGE,))
    inventory.require()
    assert {file for part in inventory.all_components for file in part.files} == set(folder.rglob("*.safetensors"))
    assert {part.name for part in inventory.components} == {"unet", "vae", "text_encoder", "tokenizer", "scheduler"}


def test_licence_and_cards_are_there(folder: Path) -> None:
    licence = (folder / "LICENSE").read_text()
    assert "Apache License" in licence
    assert "Version 2.0" in licence
    card = (folder / "README.md").read_text()
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", card):
        assert (folder / link).exists(), f"the model card links to {link}, which does not exist"
    data = (folder.parent / "DATA.md").read_text()
    for source in ("Caltech-101", "CC BY 4.0", "mate-backgrounds", "plasma-workspace-wallpapers", "GPL-2+"):
        assert source in data


def test_every_file_of_the_room_stands_in_the_card(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    unnamed = [path.name for path in folder.parent.glob("*.py")
               if path.name != "__init__.py" and f"`{path.name}`" not in card]
    assert not unnamed


def test_every_look_stands_in_the_card_with_a_prompt_that_names_it(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    for name, style in LOOKS.items():
        assert re.search(rf"^\| {name.value}\b.*\| {re.escape(style.phrases[0])} \|$", card, re.MULTILINE), name


def test_the_figures_of_the_card_were_measured_on_these_weights(folder: Path) -> None:
    measured = figures.Figures.from_json((folder / "evaluation.json").read_text())
    assert measured.weights == model_files.sha256(folder / "SHA256SUMS")
    assert f"{figures.OPENING}\n{measured.to_markdown()}\n{figures.CLOSING}" in (folder / "README.md").read_text()
    assert {look.look for look in measured.looks} == {name.value for name in LOOKS}
    assert min(look.count for look in measured.looks) >= 20
    for picture in ("sheet.webp", "losses.webp"):
        assert (folder / picture).stat().st_size < 400_000


# Structure


def test_it_has_the_structure_that_the_method_needs(models: Models) -> None:
    unet = models.unet
    assert len(unet.up_blocks) == 4
    halvings = [sum(block.upsamplers is not None for block in unet.up_blocks[place:]) for place in range(4)]
    attended = {8 * 2**left for left, block in zip(halvings, unet.up_blocks, strict=True) if _attends(block)}
    assert {8, 16} <= attended
    assert unet.config["in_channels"] == models.vae.config.latent_channels == unet.config["out_channels"]
    assert isinstance(models.vae, DctAutoencoder)


def _attends(block: torch.nn.Module) -> bool:
    return any(name.endswith("attn1") for name, _ in block.named_modules())


def test_it_advises_its_own_control() -> None:
    advised = recommendation.recommendation(model_store.check("embedded"))
    assert advised.control is ControlKind.SOFT_EDGE
    assert advised.working_size == 384
    assert advised.guidance > 1


def test_all_weights_are_finite_and_the_output_layers_are_trained(models: Models) -> None:
    for module in (models.unet, models.vae, models.text_encoder, models.controlnets[SOFT_EDGE]):
        assert all(bool(torch.isfinite(value).all()) for value in module.state_dict().values())
    control = models.controlnets[SOFT_EDGE]
    assert bool(control.controlnet_mid_block.weight.any())
    assert bool(models.vae.restoration.leave.weight.any())


# At work


def denoised(models: Models, prompt: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Two steps on two small pictures, with control and guidance."""
    coarse = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(-1, 1)
    schedule = NoiseSchedule.of(DDPMScheduler.from_config(dict(models.scheduler_config)))
    window = denoise.WindowInput(
        frames=(1001, 1002),
        images=images,
        prompt=models.encode_prompts([prompt] * 2).to(dtype),
        negative=models.encode_prompts([""] * 2).to(dtype),
        controls=(denoise.Control(network=models.controlnets[SOFT_EDGE], images=soft_edges(images)),),
    )
    parts = denoise.DiffusionModels(unet=models.unet, vae=models.vae, schedule=schedule)
    steps = denoise.denoise_window(parts, window, denoise.Sampling(steps=3, strength=0.75, guidance=4.0))
    clean = [step.clean for step in steps]
    assert len(clean) == 2
    return decode(models.vae, clean[-1])


def test_two_steps_give_a_finite_picture_that_the_words_decide(models: Models) -> None:
    winter, night = denoised(models, "a winter scene"), denoised(models, "a neon night scene")
    assert winter.shape == (2, 3, 64, 64)
    assert bool(torch.isfinite(winter).all())
    assert float(winter.std()) > 0.05
    assert float(winter.mean()) > float(night.mean()) + 0.2  # snow is brighter than night


def test_it_works_in_bfloat16_too() -> None:
    half = weights.load("embedded", device=torch.device("cpu"), dtype=torch.bfloat16, controls=(SOFT_EDGE,))
    assert half.vae.dtype == torch.float32
    assert bool(torch.isfinite(denoised(half, "an oil painting", torch.bfloat16)).all())


# Words


def test_it_knows_the_words_of_its_captions_and_names_those_it_does_not_know(models: Models) -> None:
    assert set(vocabulary()) <= set(models.vocabulary)
    for style in LOOKS.values():
        assert models.unknown_words(" ".join((*style.phrases, *style.manners))) == []
    assert models.unknown_words("a cubist drawing of a narwhal in Ink!") == ["cubist", "narwhal"]


def test_what_it_says_of_itself(text: str, models: Models) -> None:
    for heading in ("## Words", "## Limits", "## Training data", "## Licence", "## Figures"):
        assert heading in text
    assert "Apache-2.0" in text
    assert f"Words ({len(models.vocabulary)}): " in text
    assert ", ".join(models.vocabulary) in text
    assert all(digest in text for name, digest in models.hashes.items() if name.startswith("unet/"))


def test_the_weights_hold_no_name_of_the_machine_they_were_made_on(folder: Path) -> None:
    for path in folder.rglob("*.json"):
        content = path.read_text()
        assert "_name_or_path" not in json.loads(content) or not json.loads(content)["_name_or_path"], path.name
        assert not re.search(r"/(tmp|home|root|work)/", content), path.name
