# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of one file, of Stable Diffusion 2 and XL, and autoencoders of one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import families
import original_names
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors.torch import load_file, save_file
from shots import bits, rendered, small_shot, with_delivery, with_look, write_plate
from transformers import CLIPTextModel, CLIPTextModelWithProjection

import tiny
from fresco_backend.models import model_files, model_store, single_file, weights
from fresco_backend.models.model_family import Family
from fresco_backend.models.unet_shape import unet_shape
from fresco_backend.render.recommendation import recommendation
from fresco_protocol.errors import WeightsRefused, WeightsUnsupported
from fresco_protocol.shot import Prediction

CPU = torch.device("cpu")
NOISE = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))


def vae(maker: Any = tiny.tiny_vae) -> Any:
    return maker(channels=(32, 32, 32, 32), groups=32)


def encoder(kind: Any, seed: int, act: str) -> Any:
    return families.text_encoder(kind, single_file.clip_tokenizer(padding="!"), seed, act=act)


@pytest.fixture(scope="module")
def sd2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sd2") / "sd2.safetensors"
    return original_names.save_sd2(path, families.sd2_unet(), vae(), encoder(CLIPTextModel, 3, "gelu"))


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sdxl") / "sdxl.safetensors"
    first, second = encoder(CLIPTextModel, 3, "quick_gelu"), encoder(CLIPTextModelWithProjection, 4, "gelu")
    return original_names.save_sdxl(path, families.sdxl_unet(), vae(families.xl_vae), first, second)


def load(path: Path, **changes: Any) -> weights.Models:
    return weights.load(str(path), device=CPU, dtype=torch.float32, changes=model_store.Changes(**changes))


def with_mark(path: Path, target: Path, *marks: str) -> Path:
    save_file({**load_file(path), **{mark: torch.zeros(1) for mark in marks}}, target)
    return target


@pytest.mark.parametrize("released", [families.SD1, families.SD2, families.SDXL])
def test_the_shape_of_the_released_u_nets_is_read_off_their_tensors(released: dict[str, Any]) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**released)
    weights_of_file = original_names._unet(unet)
    found = unet_shape(weights_of_file)
    depths = found.pop("transformer_layers_per_block")
    assert depths == released.get("transformer_layers_per_block", [1] * 4)
    assert {key: found[key] for key in released if key in found} == {
        key: value for key, value in released.items() if key != "transformer_layers_per_block"}
    assert (found["in_channels"], found["out_channels"], found["layers_per_block"]) == (4, 4, 2)
    converted = convert_ldm_unet_checkpoint(weights_of_file, unet.config)
    assert {key: value.shape for key, value in converted.items()} == {
        key: value.shape for key, value in unet.state_dict().items()}


@torch.no_grad()
def test_a_file_of_2_gives_the_same_models(sd2: Path) -> None:
    models = load(sd2, prediction=Prediction.VELOCITY)
    text = encoder(CLIPTextModel, 3, "gelu")
    tokens = single_file.clip_tokenizer(padding="!")("a cat", padding="max_length", max_length=77, return_tensors="pt")
    assert tokens.input_ids[0, -1] == 0  # OpenCLIP pads with the first token
    states = models.encode_prompts(["a cat"] * 2)
    assert torch.allclose(states[:1], text(tokens.input_ids)[0], atol=1e-5)
    truth = families.sd2_unet()(NOISE, 500, states).sample
    assert torch.allclose(models.unet(NOISE, 500, states).sample, truth, atol=1e-4)
    assert torch.allclose(models.vae.decode(NOISE).sample, vae().decode(NOISE).sample, atol=1e-5)
    assert models.vae.config.scaling_factor == 0.18215


def test_a_file_of_2_has_to_be_told_what_it_predicts(sd2: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsUnsupported, match="--prediction v_prediction"):
        load(sd2)
    assert load(sd2, prediction=Prediction.EPSILON).scheduler_config["prediction_type"] == "epsilon"
    marked = load(with_mark(sd2, tmp_path / "marked.safetensors", "v_pred"))
    assert marked.scheduler_config["prediction_type"] == "v_prediction"


@torch.no_grad()
def test_a_file_of_xl_gives_the_same_models(sdxl: Path) -> None:
    models = load(sdxl)
    first, second = encoder(CLIPTextModel, 3, "quick_gelu"), encoder(CLIPTextModelWithProjection, 4, "gelu")
    plain, padded = (
        tokenizer("a cat", padding="max_length", max_length=77, return_tensors="pt").input_ids
        for tokenizer in (single_file.clip_tokenizer(), single_file.clip_tokenizer(padding="!"))
    )
    pooled = second(padded).text_embeds
    states = torch.cat([first(plain, output_hidden_states=True).hidden_states[-2],
                        second(padded, output_hidden_states=True).hidden_states[-2]], dim=-1)
    found = models.encode_prompts(["a cat"])
    assert torch.allclose(found, families.states_of((states, pooled)), atol=1e-5)
    added = {"text_embeds": pooled.repeat(2, 1), "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)}
    truth = families.sdxl_unet()(NOISE, 500, states.repeat(2, 1, 1), added_cond_kwargs=added).sample
    assert torch.allclose(models.unet(NOISE, 500, encoder_hidden_states=found.repeat(2, 1, 1)).sample, truth, atol=1e-4)
    assert (models.vae.config.scaling_factor, models.vae.config.force_upcast) == (0.13025, True)


def test_marks_of_community_checkpoints_are_read(sdxl: Path, tmp_path: Path) -> None:
    config = load(with_mark(sdxl, tmp_path / "marked.safetensors", "v_pred", "ztsnr")).scheduler_config
    assert (config["prediction_type"], config["rescale_betas_zero_snr"]) == ("v_prediction", True)


def test_families_and_their_sizes_are_known(sd2: Path, sdxl: Path) -> None:
    found = [model_store.check(str(path)) for path in (sd2, sdxl)]
    assert [inventory.family for inventory in found] == [Family.SD2, Family.SDXL]
    assert [recommendation(inventory).working_size for inventory in found] == [768, 1024]
    assert recommendation(found[0]).control is None


@pytest.mark.parametrize("lost", [
    "model.diffusion_model.label_emb.0.0.bias",
    "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias",
    "conditioner.embedders.1.model.ln_final.bias",
    "conditioner.embedders.1.model.text_projection",
    "first_stage_model.quant_conv.bias",
])
def test_a_file_that_lacks_one_tensor_is_refused(lost: str, sdxl: Path, tmp_path: Path) -> None:
    tensors = load_file(sdxl)
    del tensors[lost]
    save_file(tensors, tmp_path / "part.safetensors")
    with pytest.raises(WeightsRefused, match="not a whole Stable Diffusion XL"):
        load(tmp_path / "part.safetensors")


@torch.no_grad()
def test_an_autoencoder_of_one_file_takes_the_place_of_the_models_own(tiny_model: Path, tmp_path: Path) -> None:
    other = tiny.tiny_vae(9, channels=(32, 32, 32, 32), groups=32)
    path = original_names.save_autoencoder(tmp_path / "vae.safetensors", other)
    models = load(tiny_model, vae=str(path))
    assert torch.allclose(models.vae.decode(NOISE).sample, other.decode(NOISE).sample, atol=1e-5)
    assert models.hashes["vae/vae.safetensors"] == model_files.sha256(path)


def test_the_scale_of_an_autoencoder_of_one_file_is_that_of_its_models_family(
    tiny_model: Path, sdxl: Path, tmp_path: Path
) -> None:
    path = original_names.save_autoencoder(tmp_path / "vae.safetensors", vae())
    configs = [load(model, vae=str(path)).vae.config for model in (tiny_model, sdxl)]
    assert [config.scaling_factor for config in configs] == [0.18215, 0.13025]
    assert [config.force_upcast for config in configs] == [False, True]


def test_a_file_without_an_autoencoder_is_none(tiny_model: Path, tmp_path: Path) -> None:
    save_file({"decoder.weight": torch.zeros(1)}, tmp_path / "odd.safetensors")
    with pytest.raises(WeightsUnsupported, match="holds no autoencoder"):
        load(tiny_model, vae=str(tmp_path / "odd.safetensors"))


def test_an_autoencoder_that_lacks_a_tensor_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    path = original_names.save_autoencoder(tmp_path / "vae.safetensors", vae())
    tensors = load_file(path)
    del tensors["quant_conv.bias"]
    save_file(tensors, path)
    with pytest.raises(WeightsRefused, match="not a whole autoencoder"):
        load(tiny_model, vae=str(path))


def test_a_shot_is_rendered_with_a_file_of_2(sd2: Path, tmp_path: Path) -> None:
    shot = small_shot(write_plate(tmp_path / "plate", 3), sd2, tmp_path / "out" / "look.####.png")
    rendered(with_delivery(with_look(shot, prediction=Prediction.VELOCITY), working_size=64))  # its own is 768
    assert len(bits(tmp_path / "out")) == 3
