# SPDX-License-Identifier: Apache-2.0
"""Stable Diffusion 2 and XL: loaded, read as diffusers reads them, guided where FRESCO finds its layers, rendered."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import families
import pytest
import torch
from shots import bits, rendered, small_shot, with_look, write_plate

import tiny
from fresco_backend.engine.attention import guided_layers
from fresco_backend.models import model_store, weights
from fresco_backend.models.model_family import Family
from fresco_protocol.errors import WeightsMissing, WeightsUnsupported
from fresco_protocol.shot import Control, ControlKind, Editing, Synthesis, Task

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sd2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.save_sd2(tmp_path_factory.mktemp("models") / "sd2")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.save_sdxl(tmp_path_factory.mktemp("models") / "sdxl", control=True)


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plate(tmp_path_factory.mktemp("plate"), 5)


def load(folder: Path, *controls: Control) -> weights.Models:
    return weights.load(str(folder), device=CPU, dtype=torch.float32, controls=controls)


@torch.no_grad()
def test_xl_reads_prompts_as_diffusers_does(sdxl: Path) -> None:
    pipeline = families.xl_pipeline(force_zeros_for_empty_prompt=True)
    texts = ["a photo", "ink of a tree"]
    embeds, nothing, pooled, none_pooled = pipeline.encode_prompt(texts, device=CPU, do_classifier_free_guidance=True)
    models = load(sdxl)
    found = models.encode_prompts([*texts, ""])
    assert found.shape == (3, tiny.TEXT_LENGTH + 1, 128)
    assert torch.allclose(found[:2], families.states_of((embeds, pooled)), atol=1e-5)
    assert torch.equal(found[2:], families.states_of((nothing[:1], none_pooled[:1])))
    assert found[2:].count_nonzero() == 0


@torch.no_grad()
def test_xl_is_told_text_and_size(sdxl: Path) -> None:
    models, latents = load(sdxl), torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(1))
    states = models.encode_prompts(["a photo"])
    added = {"text_embeds": states[:, -1, :64], "time_ids": torch.tensor([[64.0, 128, 0, 0, 64, 128]])}
    truth = families.sdxl_unet()(latents, 500, states[:, :-1], added_cond_kwargs=added).sample
    assert torch.allclose(models.unet(latents, 500, encoder_hidden_states=states).sample, truth, atol=1e-5)
    other = models.encode_prompts(["ink"])
    other[:, :-1] = states[:, :-1]
    assert not torch.allclose(models.unet(latents, 500, encoder_hidden_states=other).sample, truth, atol=1e-3)


def test_fresco_finds_its_layers_in_xl_by_structure() -> None:
    layers = guided_layers(families.sdxl_unet())
    assert len(layers) == 3 * 2 + 3 * 1  # three attentions a level, of two transformer blocks and of one
    assert [layer.to_q.in_features for layer in layers] == [128] * 6 + [64] * 3


def test_xl_has_an_exact_autoencoder(sdxl: Path) -> None:
    models = weights.load(str(sdxl), device=CPU, dtype=torch.float16)
    assert (models.vae.dtype, models.unet.dtype) == (torch.float32, torch.float16)


def test_families_are_told_apart(sd2: Path, sdxl: Path, tiny_model: Path, tmp_path: Path) -> None:
    for place, width, family in ((sd2, 1024, Family.SD2), (sdxl, 2048, Family.SDXL), (tiny_model, 768, Family.SD1),
                                 (sd2, 96, Family.OTHER)):
        copy = Path(shutil.copytree(place, tmp_path / f"{width}"))
        config = json.loads((copy / "unet/config.json").read_text())
        (copy / "unet/config.json").write_text(json.dumps({**config, "cross_attention_dim": width}))
        assert model_store.check(str(copy)).family is family


def test_a_family_without_a_usual_controlnet_asks_for_one(sd2: Path) -> None:
    with pytest.raises(WeightsMissing, match="--control none"):
        load(sd2, Control(kind=ControlKind.CANNY))


@pytest.mark.parametrize("part", ["text_encoder_2", "tokenizer_2"])
def test_what_xl_lacks_is_named(sdxl: Path, part: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(sdxl, tmp_path / "copy"))
    shutil.rmtree(copy / part)
    with pytest.raises(WeightsMissing, match=f"the {part} is missing"):
        load(copy)


def test_the_refiner_is_not_supported(sdxl: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(sdxl, tmp_path / "copy"))
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "text_encoder": [None, None]}))
    with pytest.raises(WeightsUnsupported, match="not the refiner"):
        load(copy)


@pytest.mark.parametrize("name", ["sd2", "sdxl"])
def test_a_shot_is_rendered_with_all_constraints(
    name: str, plate: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    shot = small_shot(plate, request.getfixturevalue(name), tmp_path / "out" / "look.####.png")
    rendered(shot)
    assert len(bits(tmp_path / "out")) == 5
    other = small_shot(plate, request.getfixturevalue(name), tmp_path / "b" / "look.####.png")
    rendered(with_look(other, prompt="ink"))
    assert bits(tmp_path / "out") != bits(tmp_path / "b")


@pytest.mark.parametrize("name", ["sd2", "sdxl"])
def test_a_plate_is_edited_and_features_are_propagated(
    name: str, plate: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    shot = small_shot(plate, request.getfixturevalue(name), tmp_path / "out" / "look.####.png")
    shot = replace(shot, task=Task.EDIT, editing=Editing(caption="a photo", inversion_steps=4),
                   keyframing=replace(shot.keyframing, synthesis=Synthesis.FEATURES))
    rendered(with_look(shot, prompt="ink", strength=1.0))
    assert len(bits(tmp_path / "out")) == 5
