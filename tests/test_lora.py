# SPDX-License-Identifier: Apache-2.0
"""LoRAs: the sum of their paper, every naming, and off again to the last bit."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import lora_files
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from shots import rendered, small_shot, with_look, write_plate
from torch import Tensor, nn

import tiny
from fresco_backend.files.frames import read_frame
from fresco_backend.models import lora, model_files, model_store, weights
from fresco_backend.models.lora_names import original_names
from fresco_protocol.errors import WeightsMissing, WeightsRefused, WeightsUnsupported
from fresco_protocol.shot import Lora

CPU = torch.device("cpu")


@pytest.fixture
def networks() -> tuple[nn.Module, nn.Module]:
    return tiny.tiny_unet(), tiny.tiny_text_encoder()


def state(*networks: nn.Module) -> list[Tensor]:
    return [value.clone() for network in networks for value in network.state_dict().values()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def parts(unet: nn.Module, encoder: nn.Module) -> list[tuple[str, nn.Module]]:
    return [("unet", unet), ("text_encoder", encoder)]


@pytest.mark.parametrize("style", ["diffusers", "peft", "kohya"])
@pytest.mark.parametrize("alpha", [None, 4.0])
def test_every_naming_gives_the_sum_of_the_paper(
    style: str, alpha: float | None, networks: tuple[nn.Module, nn.Module], tmp_path: Path
) -> None:
    path = lora_files.save(tmp_path / "ink.safetensors", parts(*networks), style=style, alpha=alpha)
    layers = [pair for network in networks for pair in lora_files.layers_of(network).items()]
    before = {name: layer.weight.clone() for name, layer in layers}
    lora.fuse(lora.targets(*networks), path, 0.5)
    scale = 0.5 * (1.0 if alpha is None else alpha / lora_files.RANK)
    for network in networks:
        for seed, (name, layer) in enumerate(lora_files.layers_of(network).items()):
            down, up = lora_files.matrices(layer, seed)
            delta = torch.einsum("or...,ri...->oi...", up.expand(-1, -1, *down.shape[2:]), down)
            assert torch.allclose(layer.weight, before[name] + scale * delta, atol=1e-5)


def test_alpha_may_stand_beside_the_tensors(networks: tuple[nn.Module, nn.Module], tmp_path: Path) -> None:
    stated = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 6, "unet.r": 2, "unet.alpha_pattern": {}})}
    path = lora_files.save(tmp_path / "ink.safetensors", parts(*networks), style="peft", metadata=stated)
    changes = lora.read_changes(path)
    assert {change.alpha for name, change in changes.items() if name.startswith("unet")} == {6.0}
    assert {change.alpha for name, change in changes.items() if name.startswith("text")} == {None}


@pytest.mark.parametrize(("alpha", "scale"), [(6, 6 / 2**0.5), (None, 2**0.5)])
def test_a_file_may_ask_for_the_root_of_the_rank(
    alpha: int | None, scale: float, networks: tuple[nn.Module, nn.Module], tmp_path: Path
) -> None:
    """As PEFT has it: alpha over the root of the rank, which is 2 here, and alpha is the rank where none is stated."""
    stated = {"unet.use_rslora": True} | ({} if alpha is None else {"unet.lora_alpha": alpha})
    metadata = {"lora_adapter_metadata": json.dumps(stated | {"text_encoder.use_rslora": False})}
    path = lora_files.save(tmp_path / "ink.safetensors", parts(*networks), style="peft", metadata=metadata)
    for name, change in lora.read_changes(path).items():
        product = change.up.flatten(1) @ change.down.flatten(1)
        found = change.delta(1.0, product)
        assert torch.allclose(found, product * (scale if name.startswith("unet") else 1.0), rtol=1e-5)


@pytest.mark.parametrize("stated", ["{", "[1]", '"words"', '{"unet.lora_alpha": null}', '{"unet.lora_alpha": "much"}'])
def test_what_states_no_strength_is_refused_in_words(
    stated: str, networks: tuple[nn.Module, nn.Module], tmp_path: Path
) -> None:
    path = lora_files.save(tmp_path / "ink.safetensors", parts(*networks), metadata={"lora_adapter_metadata": stated})
    with pytest.raises(WeightsUnsupported, match="unreadable"):
        lora.read_changes(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_off_again_every_bit_is_as_before(
    dtype: torch.dtype, networks: tuple[nn.Module, nn.Module], tmp_path: Path
) -> None:
    path = lora_files.save(tmp_path / "ink.safetensors", parts(*networks))
    for network in networks:
        network.to(dtype)
    before = state(*networks)
    layers = lora.targets(*networks)
    with lora.fused(layers, path, 0.7), lora.fused(layers, path, -0.2):
        assert not same(state(*networks), before)
    assert same(state(*networks), before)
    with pytest.raises(KeyboardInterrupt), lora.fused(layers, path, 0.7):
        raise KeyboardInterrupt
    assert same(state(*networks), before)


def test_xl_is_changed_by_the_original_names_too(tmp_path: Path) -> None:
    """Kohya's scripts name XL's U-Net as Stability's code does: compared with diffusers' names of the same layers."""
    ours, theirs = families.sdxl_unet(), families.sdxl_unet()
    encoder = tiny.tiny_text_encoder()
    named = {id(layer): name for name, layer in original_names(ours).items()}
    tensors: dict[str, Tensor] = {}
    twin: dict[str, Tensor] = {}
    for seed, (name, layer) in enumerate(lora_files.layers_of(ours).items()):
        if id(layer) in named:
            original = "lora_unet_" + named[id(layer)].replace(".", "_")
            down, up = lora_files.matrices(layer, seed)
            tensors |= {f"{original}.lora_down.weight": down, f"{original}.lora_up.weight": up}
            twin |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    save_file(tensors, tmp_path / "original.safetensors")
    save_file(twin, tmp_path / "diffusers.safetensors")
    assert "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight" in tensors
    assert "lora_unet_output_blocks_0_1_transformer_blocks_1_attn1_to_q.lora_down.weight" in tensors
    lora.fuse(lora.targets(ours, encoder), tmp_path / "original.safetensors", 1.0)
    lora.fuse(lora.targets(theirs, encoder), tmp_path / "diffusers.safetensors", 1.0)
    assert same(state(ours), state(theirs))


def test_a_model_without_a_middle_is_changed(tmp_path: Path) -> None:
    unet = families.distilled_unet()
    layer = unet.up_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q
    before = layer.weight.detach().clone()
    down, up = lora_files.matrices(layer, 1)
    name = "lora_unet_up_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, tmp_path / "small.safetensors")
    lora.fuse(lora.targets(unet, tiny.tiny_text_encoder()), tmp_path / "small.safetensors", 1.0)
    assert torch.allclose(layer.weight, before + up @ down, atol=1e-6)


SD1_NAMES = """
down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q mid_block_attentions_0_proj_in time_embedding_linear_1
up_blocks_3_attentions_2_transformer_blocks_0_ff_net_0_proj
"""
SDXL_NAMES = """
input_blocks_4_1_transformer_blocks_0_attn1_to_k input_blocks_8_1_transformer_blocks_9_attn2_to_v input_blocks_3_0_op
middle_block_1_transformer_blocks_9_ff_net_0_proj output_blocks_5_1_transformer_blocks_1_attn2_to_out_0
output_blocks_2_1_proj_in output_blocks_2_2_conv output_blocks_8_0_in_layers_2 middle_block_0_emb_layers_1
label_emb_0_0 down_blocks_2_attentions_1_proj_out
"""


@pytest.mark.parametrize(("unet", "names"), [(families.SD1, SD1_NAMES), (families.SDXL, SDXL_NAMES)])
def test_the_layers_of_the_released_models_have_the_names_that_loras_use(unet: dict[str, Any], names: str) -> None:
    with torch.device("meta"):
        layers = lora.targets(UNet2DConditionModel(**unet), nn.Module())
    assert [name for name in names.split() if f"unet_{name}" not in layers] == []


def renamed(old: str, new: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {name.replace(old, new): value for name, value in tensors.items()}


def half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if "up" not in name}


def reshaped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[:, :-1].contiguous() if "down" in name else value for name, value in tensors.items()}


def emptied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value[:0].contiguous() if "down" in name else value for name, value in tensors.items()}


def flattened(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.flatten() for name, value in tensors.items()}


def of_many_strengths(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {name.replace("lora.down.weight", "alpha"): torch.ones(2) for name in tensors}


@pytest.mark.parametrize(("spoil", "words"), [
    (emptied, "matrices are empty"),
    (flattened, "matrices are empty"),
    (of_many_strengths, "its strength is no number"),
    (renamed("lora.down.weight", "hada_w1_a"), "hada_w1_a"),
    (renamed("lora.down.weight", "dora_scale"), "dora_scale"),
    (renamed("up_blocks", "joint_blocks"), "which this model does not have"),
    (half, "lacks one of its two matrices"),
    (reshaped, "do not fit this model"),
    (lambda _: {}, "it changes nothing"),
])
def test_a_file_of_another_kind_or_model_is_refused_and_changes_nothing(
    spoil: Callable[[Any], Any], words: str, networks: tuple[nn.Module, nn.Module], tmp_path: Path
) -> None:
    path = lora_files.save(tmp_path / "ink.safetensors", parts(*networks))
    save_file(spoil(load_file(path)), tmp_path / "odd.safetensors")
    before = state(*networks)
    with pytest.raises(WeightsUnsupported, match=words) as caught:
        lora.fused(lora.targets(*networks), tmp_path / "odd.safetensors", 1.0).__enter__()
    assert "odd.safetensors" in str(caught.value)
    assert same(state(*networks), before)


def test_a_strength_that_differs_between_layers_is_refused(
    networks: tuple[nn.Module, nn.Module], tmp_path: Path
) -> None:
    stated = {"lora_adapter_metadata": json.dumps({"unet.alpha_pattern": {"to_q": 8}})}
    path = lora_files.save(tmp_path / "ink.safetensors", parts(*networks), metadata=stated)
    with pytest.raises(WeightsUnsupported, match="from layer to layer"):
        lora.read_changes(path)


def test_a_model_is_loaded_with_its_loras(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lora_files.save(tmp_path / "ink.safetensors", [("unet", tiny.tiny_unet())])
    monkeypatch.setenv("FRESCO_MODELS", str(tmp_path))
    changes = model_store.Changes(loras=(Lora(model="ink", weight=0.5), Lora(model=str(path), weight=-0.25)))
    models = weights.load(str(tiny_model), device=CPU, dtype=torch.float32, changes=changes)
    truth = tiny.tiny_unet()
    lora.fuse(lora.targets(truth, tiny.tiny_text_encoder()), path, 0.5)
    lora.fuse(lora.targets(truth, tiny.tiny_text_encoder()), path, -0.25)
    assert same(state(models.unet), state(truth))
    digest = model_files.sha256(path)
    assert {name: value for name, value in models.hashes.items() if "lora" in name} == {
        "lora/0/ink.safetensors": digest, "lora/1/ink.safetensors": digest}


def test_nothing_is_rounded_between_one_lora_and_the_next(
    networks: tuple[nn.Module, nn.Module], tmp_path: Path
) -> None:
    path = lora_files.save(tmp_path / "ink.safetensors", parts(*networks))
    exact = tuple(copy.deepcopy(network).half().float() for network in networks)
    halves = tuple(network.half() for network in networks)
    for _ in range(3):
        lora.fuse(lora.targets(*halves), path, 0.1)
        lora.fuse(lora.targets(*exact), path, 0.1)
    assert same(state(*(network.float() for network in halves)), state(*exact))


@pytest.mark.parametrize(("name", "error", "words"), [
    ("no-such-lora", WeightsMissing, 'no LoRA "no-such-lora" .*"fresco models list"'),
    ("owner/lora", WeightsMissing, "fresco models pull owner/lora"),
    ("owner/lora/ink.safetensors", WeightsMissing, "fresco models pull owner/lora/ink.safetensors"),
    ("ink.pt", WeightsRefused, "pickle"),
])
def test_a_lora_that_is_not_there_says_how_to_get_it(
    name: str, error: type[Exception], words: str, tiny_model: Path
) -> None:
    changes = model_store.Changes(loras=(Lora(model=name),))
    with pytest.raises(error, match=words):
        model_store.check(str(tiny_model), changes=changes).require()


def test_a_damaged_lora_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "ink.safetensors").write_bytes(b"\xff" * 64)
    changes = model_store.Changes(loras=(Lora(model=str(tmp_path / "ink.safetensors")),))
    with pytest.raises(WeightsRefused, match="damaged"):
        model_store.check(str(tiny_model), changes=changes).require()


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_shot_with_a_lora_differs_and_without_it_is_as_it_was(
    family: str, tiny_model: Path, tmp_path: Path
) -> None:
    """On and off, through the whole pipeline, for the shapes of Stable Diffusion 1, 2 and XL."""
    makers = {"sd1": lambda _: tiny_model, "sd2": families.save_sd2, "sdxl": families.save_sdxl}
    unets = {"sd1": tiny.tiny_unet, "sd2": families.sd2_unet, "sdxl": families.sdxl_unet}
    model, plate = makers[family](tmp_path / "model"), write_plate(tmp_path / "plate", 3)
    path = lora_files.save(tmp_path / "ink.safetensors", [("unet", unets[family]())])

    def pixels(folder: str, *loras: Lora) -> np.ndarray:
        shot = small_shot(plate, model, tmp_path / folder / "look.####.png")
        rendered(with_look(shot, loras=loras, controls=()))
        return np.stack([read_frame(file).pixels for file in sorted((tmp_path / folder).glob("*.png"))])

    without = pixels("without")
    assert (pixels("with", Lora(model=str(path), weight=0.5)) != without).any(axis=(1, 2, 3)).all()
    assert np.array_equal(pixels("off", Lora(model=str(path), weight=0.0)), without)
