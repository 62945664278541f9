# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from diffusers import EDMDPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from original_names import save_single_file
from safetensors.torch import load_file, save_file

import tiny
from fresco_backend.embedded.dct import DctAutoencoder
from fresco_backend.models import model_files, model_hub, model_store, single_file, weights
from fresco_protocol.errors import WeightsError, WeightsMissing, WeightsRefused, WeightsUnsupported
from fresco_protocol.shot import Control, ControlKind, Prediction

CPU = torch.device("cpu")
CANNY = Control(kind=ControlKind.CANNY)
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache of the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def load(name: Path | str, *controls: Control, vae: str | None = None) -> weights.Models:
    return weights.load(
        str(name), device=CPU, dtype=torch.float32, controls=controls, changes=model_store.Changes(vae=vae)
    )


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cache_on_hub(cache: Path, name: str, folder: Path) -> Path:
    """Lays a folder into the hub's cache as the hub's library does; gives its snapshot."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    return Path(shutil.copytree(folder, repository / "snapshots" / ("0" * 40)))


# A folder


def test_a_folder_gives_the_models_that_were_saved(tiny_model: Path) -> None:
    models = load(tiny_model, CANNY)
    for loaded, built in (
        (models.unet, tiny.tiny_unet()),
        (models.vae, tiny.tiny_vae()),
        (models.text_encoder, tiny.tiny_text_encoder()),
        (models.controlnets[CANNY], tiny.tiny_controlnet()),
    ):
        expected = built.state_dict()
        assert loaded.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())
        assert not loaded.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert models.scheduler_config["beta_schedule"] == "scaled_linear"


def test_prompts_become_text_states(tiny_model: Path) -> None:
    models = load(tiny_model)
    states = models.encode_prompts(["a photo", "", "a photo"])
    assert states.shape == (3, 77, tiny.TEXT_WIDTH)
    assert torch.equal(states[0], states[2])
    assert not torch.equal(states[0], states[1])
    tokens = tiny.tiny_tokenizer()("a photo", padding="max_length", max_length=77, return_tensors="pt").input_ids
    assert torch.equal(states[:1], tiny.tiny_text_encoder()(tokens)[0])


def test_the_end_of_a_long_prompt_is_reported(tiny_model: Path) -> None:
    models = load(tiny_model)
    assert models.unseen_text("a" * 75) == ""
    assert models.unseen_text("a" * 75 + " tree") == "tree"


def test_dtype_applies_to_all_but_the_autoencoder_in_bfloat16(tiny_model: Path) -> None:
    models = weights.load(str(tiny_model), device=CPU, dtype=torch.bfloat16, controls=(CANNY,))
    assert {m.dtype for m in (models.unet, models.text_encoder, models.controlnets[CANNY])} == {torch.bfloat16}
    assert models.vae.dtype == torch.float32
    assert models.encode_prompts(["a"]).dtype == torch.bfloat16


def test_half_precision_weights_serve_where_there_are_no_others(model: Path) -> None:
    (model / UNET_FILE).rename(model / "unet/diffusion_pytorch_model.fp16.safetensors")
    assert torch.equal(load(model).unet.conv_in.weight, tiny.tiny_unet().conv_in.weight)


def test_sharded_weights_are_read_and_hashed(model: Path) -> None:
    unet = tiny.tiny_unet()
    (model / UNET_FILE).unlink()
    unet.save_pretrained(model / "unet", max_shard_size="3MB")
    models = load(model)
    shards = [file for file in models.hashes if file.startswith("unet/")]
    assert len(shards) > 1
    assert torch.equal(models.unet.conv_out.weight, unet.conv_out.weight)


def test_an_index_cannot_lead_out_of_its_folder(model: Path) -> None:
    (model / UNET_FILE).rename(model / "elsewhere.safetensors")
    index = {"metadata": {}, "weight_map": {"conv_in.weight": "../elsewhere.safetensors"}}
    (model / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsRefused, match="own folder"):
        load(model)


@pytest.mark.parametrize("stated", [{}, {"weight_map": [1]}, {"weight_map": {"a": 1}},
                                    {"weight_map": {"a": None, "b": "c"}}])
def test_an_index_of_other_things_is_refused(stated: dict[str, Any], model: Path) -> None:
    (model / UNET_FILE).unlink()
    (model / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(stated))
    with pytest.raises(WeightsRefused, match="own folder"):
        load(model)


# Words


def test_a_tokenizer_of_whole_words_names_the_words_it_does_not_know(tmp_path: Path) -> None:
    models = load(tiny.save_pipeline(tmp_path / "words", tiny.tiny_word_tokenizer()))
    assert models.vocabulary == tuple(sorted(tiny.WORDS))
    assert models.unknown_words("A zebra, ink of a ZEBRA") == ["zebra"]
    assert models.unknown_words("a photo of winter") == []
    assert models.encode_prompts(["a photo of a zebra"]).shape == (1, 77, tiny.TEXT_WIDTH)


def test_a_tokenizer_of_any_text_knows_every_word(tiny_model: Path) -> None:
    models = load(tiny_model)
    assert models.vocabulary == ()
    assert models.unknown_words("zebra") == []


# The embedded model's autoencoder


def test_the_embedded_autoencoder_loads_by_name_in_full_precision(model: Path) -> None:
    shutil.rmtree(model / "vae")
    DctAutoencoder(luma=2, chroma=1, latent_channels=4, width=8, depth=1).save_pretrained(model / "vae")
    edit_json(model / "model_index.json", vae=["fresco_backend.embedded.dct", "DctAutoencoder"])
    models = weights.load(str(model), device=CPU, dtype=torch.bfloat16)
    assert isinstance(models.vae, DctAutoencoder)
    assert models.vae.dtype == torch.float32
    flat = torch.full((1, 3, 16, 16), 0.25)
    assert models.vae.encode(flat).latent_dist.mode().shape == (1, 4, 2, 2)
    assert torch.allclose(models.vae.decode(models.vae.encode(flat).latent_dist.mode()).sample, flat, atol=1e-5)


def test_a_class_that_a_file_names_is_never_imported(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model / "evil.py").write_text("raise SystemExit('code of a checkpoint ran')")
    monkeypatch.syspath_prepend(str(model))
    edit_json(model / "model_index.json", unet=["evil", "UNet2DConditionModel"])
    with pytest.raises(WeightsUnsupported, match=r"evil\.UNet2DConditionModel is no unet"):
        load(model)


def test_code_beside_a_tokenizer_does_not_run(model: Path) -> None:
    (model / "tokenizer/evil.py").write_text("raise SystemExit('code of a checkpoint ran')")
    edit_json(
        model / "tokenizer/tokenizer_config.json",
        tokenizer_class="EvilTokenizer",
        auto_map={"AutoTokenizer": [None, "evil.EvilTokenizer"]},
    )
    with pytest.raises(WeightsRefused, match="tokenizer"):
        load(model)


# What is missing or damaged


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_component_is_named_with_its_place(model: Path, part: str) -> None:
    shutil.rmtree(model / part)
    problems = {c.name for c in weights.check(str(model)).components if c.problem}
    assert problems == {part}
    with pytest.raises(WeightsMissing, match=f"the {part} is missing") as caught:
        load(model)
    assert str(model / part) in str(caught.value)


def test_a_folder_without_an_index_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"model_index\.json"):
        load(tmp_path)


def test_a_name_that_leads_nowhere_lists_where_it_looked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FRESCO_MODELS", str(tmp_path / "known"))
    with pytest.raises(WeightsMissing) as caught:
        load("no-such-model")
    assert str(tmp_path / "known" / "no-such-model") in str(caught.value)


def test_a_name_alone_is_found_in_the_models_folder(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    monkeypatch.setenv("FRESCO_MODELS", str(tiny_model.parent))
    assert weights.check("tiny").place == tiny_model


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def overwrite_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 16 + path.read_bytes()[16:])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, overwrite_header, empty])
def test_damaged_weights_are_refused_before_loading(model: Path, damage: Callable[[Path], None]) -> None:
    damage(model / UNET_FILE)
    with pytest.raises(WeightsRefused, match="damaged"):
        weights.check(str(model)).require()


@pytest.mark.parametrize("file", [UNET_FILE, "text_encoder/model.safetensors"])
def test_a_model_that_lacks_one_tensor_is_refused(model: Path, file: str) -> None:
    tensors = load_file(model / file)
    del tensors[sorted(tensors)[0]]
    save_file(tensors, model / file, metadata={"format": "pt"})
    with pytest.raises(WeightsRefused, match="lacks 1 tensors"):
        load(model)


def test_weights_of_another_shape_than_the_configuration_are_refused(model: Path) -> None:
    edit_json(model / "unet/config.json", cross_attention_dim=48)
    with pytest.raises(WeightsRefused, match="unet"):
        load(model)


def test_a_damaged_configuration_is_refused(model: Path) -> None:
    (model / "scheduler/scheduler_config.json").write_text("{")
    with pytest.raises(WeightsRefused, match="scheduler_config"):
        load(model)


@pytest.mark.parametrize(("key", "value"), [("transformer", ["diffusers", "SD3Transformer2DModel"]),
                                            ("text_encoder", [None, None])])
def test_other_families_are_not_supported(model: Path, key: str, value: list[str | None]) -> None:
    edit_json(model / "model_index.json", **{key: value})
    with pytest.raises(WeightsUnsupported, match="no Stable Diffusion 1, 2 or XL"):
        load(model)


@pytest.mark.parametrize(("key", "value", "error"), [
    ("unet", ["diffusers"], WeightsUnsupported), ("unet", "UNet2DConditionModel", WeightsUnsupported),
    ("vae", {"a": 1}, WeightsUnsupported), ("text_encoder", {"a": 1}, WeightsUnsupported),
    ("text_encoder_2", {"a": 1}, WeightsMissing),
])
def test_an_index_that_names_no_class_is_refused(
    key: str, value: object, error: type[WeightsError], model: Path
) -> None:
    edit_json(model / "model_index.json", **{key: value})
    with pytest.raises(error, match=key):
        load(model)


@pytest.mark.parametrize(("config", "message"), [
    ({"in_channels": 9}, "takes 9 channels"),
    ({"time_cond_proj_dim": 32}, "told more than time and text"),
])
def test_a_u_net_of_another_task_is_not_supported(model: Path, config: dict[str, int], message: str) -> None:
    edit_json(model / "unet/config.json", **config)
    unet = UNet2DConditionModel.from_config(json.loads((model / "unet/config.json").read_text()))
    unet.save_pretrained(model / "unet")
    with pytest.raises(WeightsUnsupported, match=message):
        load(model)


def test_a_prediction_that_no_schedule_knows_is_not_supported(model: Path) -> None:
    edit_json(model / "scheduler/scheduler_config.json", prediction_type="flow_prediction")
    with pytest.raises(WeightsUnsupported, match="epsilon or v_prediction"):
        load(model)


@pytest.mark.parametrize("scheduler", [
    EDMDPMSolverMultistepScheduler(sigma_max=80.0, sigma_data=0.5), FlowMatchEulerDiscreteScheduler(shift=3.0)])
def test_noise_of_another_kind_is_not_supported(scheduler: Any, model: Path) -> None:
    """As of Playground 2.5, whose U-Net and text encoders are Stable Diffusion XL's."""
    scheduler.save_pretrained(model / "scheduler")
    with pytest.raises(WeightsUnsupported, match=type(scheduler).__name__):
        load(model)


def test_a_look_can_say_what_a_model_predicts(model: Path) -> None:
    changes = model_store.Changes(prediction=Prediction.VELOCITY)
    models = weights.load(str(model), device=CPU, dtype=torch.float32, changes=changes)
    assert models.scheduler_config["prediction_type"] == "v_prediction"


# Pickles


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pt", ".CKPT"])
def test_a_pickle_is_refused_by_its_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"never opened")
    with pytest.raises(WeightsRefused, match="pickle"):
        load(path)


def test_the_printed_command_converts_a_pickle(model: Path) -> None:
    expected = load_file(model / UNET_FILE)
    torch.save(expected, model / "unet/diffusion_pytorch_model.bin")
    (model / UNET_FILE).unlink()
    with pytest.raises(WeightsRefused) as caught:
        load(model)
    assert caught.value.remedy is not None
    command = shlex.split(caught.value.remedy.removeprefix("Convert it with: "))
    subprocess.run(command, check=True, timeout=120)
    assert torch.equal(load(model).unet.conv_in.weight, expected["conv_in.weight"])


# Hashes


def test_hashes_are_those_of_the_files_and_stable(tiny_model: Path, model: Path) -> None:
    hashes = load(tiny_model, CANNY).hashes
    assert set(hashes) == {
        UNET_FILE,
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "controlnet/canny/diffusion_pytorch_model.safetensors",
    }
    assert hashes == load(model, CANNY).hashes
    (model / "SHA256SUMS").write_text(f"{hashes[UNET_FILE]}  {UNET_FILE}\n")
    assert load(model).hashes[UNET_FILE] == hashes[UNET_FILE]


def test_weights_that_are_not_those_of_the_checksums_are_refused(model: Path) -> None:
    digest = model_files.sha256(model / UNET_FILE)
    (model / "SHA256SUMS").write_text(f"{digest}  {UNET_FILE}\n")
    content = bytearray((model / UNET_FILE).read_bytes())
    content[-1] ^= 1
    (model / UNET_FILE).write_bytes(content)
    with pytest.raises(WeightsRefused, match="SHA256SUMS"):
        load(model)


@pytest.mark.parametrize("sums", [b"abc\n", b"abc  \xff\xfe\n"])
def test_checksums_that_cannot_be_read_are_refused(sums: bytes, model: Path) -> None:
    (model / "SHA256SUMS").write_bytes(sums)
    with pytest.raises(WeightsRefused, match="unreadable"):
        load(model)


# The hub


def test_a_hub_model_that_is_not_here_says_how_to_get_it(hub_cache: Path) -> None:
    with pytest.raises(WeightsMissing) as caught:
        load("owner/model-1.5")
    text = str(caught.value)
    assert str(hub_cache) in text
    assert "fresco models pull owner/model-1.5" in text


def test_a_hub_model_loads_from_the_cache(hub_cache: Path, tiny_model: Path) -> None:
    snapshot = cache_on_hub(hub_cache, "owner/model", tiny_model)
    models = load("owner/model")
    assert models.hashes[UNET_FILE] == model_files.sha256(snapshot / UNET_FILE)


def test_half_a_hub_model_says_which_part_and_how_to_get_it(hub_cache: Path, tiny_model: Path) -> None:
    snapshot = cache_on_hub(hub_cache, "owner/model", tiny_model)
    (snapshot / UNET_FILE).unlink()
    with pytest.raises(WeightsMissing, match="the unet is missing") as caught:
        load("owner/model")
    assert "fresco models pull owner/model" in str(caught.value)


def test_a_failed_download_says_how_to_go_on(hub_cache: Path) -> None:
    with pytest.raises(WeightsMissing, match="could not be downloaded") as caught:
        weights.load("owner/model", offline=False)
    assert "hf download owner/model --include" in str(caught.value) and f'"{UNET_FILE}"' in str(caught.value)


@pytest.mark.parametrize("name", ["owner/model", "owner/model/ink.safetensors"])
def test_a_machine_without_a_network_is_told_so(hub_cache: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between its tries
        with pytest.raises(WeightsMissing, match="could not be downloaded") as caught:
            model_hub.fetch(name, offline=False)
    assert "hf download owner/model" in str(caught.value)


def test_a_download_takes_half_precision_where_there_is_no_other(
    hub_cache: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    def snapshot_download(name: str, allow_patterns: list[str] | None = None, local_files_only: bool = False) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not here")
        fetched.extend(allow_patterns or [])
        return str(tiny_model)

    files = ["model_index.json", *(file for file in model_hub.pipeline_files("fp16") if "*" not in file)]
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, name: files)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert weights.check("owner/model", offline=False).place == tiny_model
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in fetched
    assert UNET_FILE not in fetched


# ControlNets


def test_a_control_can_name_its_own_controlnet(tiny_model: Path, model: Path) -> None:
    named = Control(kind=ControlKind.SOFT_EDGE, model=str(model / "controlnet"))
    models = load(tiny_model, CANNY, named)
    assert models.controlnets[CANNY] is not models.controlnets[named]


def test_controls_that_share_a_folder_share_the_network(tiny_model: Path) -> None:
    again = Control(kind=ControlKind.CANNY, strength=0.5, end=0.5)
    models = load(tiny_model, CANNY, again)
    assert models.controlnets[CANNY] is models.controlnets[again]


def test_a_model_without_a_controlnet_asks_for_one(model: Path) -> None:
    shutil.rmtree(model / "controlnet")
    with pytest.raises(WeightsMissing, match="no ControlNet for canny"):
        load(model, CANNY)


def test_stable_diffusion_1_has_default_controlnets(model: Path, hub_cache: Path) -> None:
    shutil.rmtree(model / "controlnet")
    edit_json(model / "unet/config.json", cross_attention_dim=768)
    with pytest.raises(WeightsMissing, match="fresco models pull lllyasviel/sd-controlnet-canny"):
        weights.check(str(model), controls=(CANNY,)).require()


def test_a_model_can_say_which_controls_it_was_trained_on(model: Path) -> None:
    edit_json(model / "model_index.json", _fresco_controls=["soft-edge"])
    assert load(model, Control(kind=ControlKind.SOFT_EDGE)).controlnets
    assert load(model, Control(kind=ControlKind.SEQUENCE, sequence="lines.%04d.png")).controlnets
    with pytest.raises(WeightsUnsupported, match="knows soft-edge, not canny"):
        load(model, CANNY)


def test_a_controlnet_of_another_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    other = tiny.tiny_controlnet(tiny.tiny_unet(text_width=48))
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(WeightsUnsupported, match="cross_attention_dim is 48"):
        load(tiny_model, Control(kind=ControlKind.CANNY, model=str(tmp_path / "other")))


def test_one_number_of_layers_is_that_of_every_block(model: Path) -> None:
    path = model / "unet" / "config.json"
    facts = json.loads(path.read_text())
    blocks = len(facts["block_out_channels"])
    facts.update(layers_per_block=[facts["layers_per_block"]] * blocks,
                 cross_attention_dim=[facts["cross_attention_dim"]] * blocks)
    path.write_text(json.dumps(facts))
    assert CANNY in load(model, CANNY).controlnets


def test_another_autoencoder_can_take_the_place_of_the_models_own(tiny_model: Path, tmp_path: Path) -> None:
    other = tiny.tiny_vae(seed=9)
    other.save_pretrained(tmp_path / "other")
    models = load(tiny_model, vae=str(tmp_path / "other"))
    assert torch.equal(models.vae.decoder.conv_in.weight, other.decoder.conv_in.weight)


# A single file


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with Stable Diffusion 1.x's original names and CLIP's whole vocabulary."""
    unet = tiny.tiny_unet(layers=2, heads=8, groups=32, text_width=64)
    vae = tiny.tiny_vae(channels=(32, 32, 32, 32), groups=32)
    text_encoder = tiny.tiny_text_encoder(single_file.clip_tokenizer(), width=64, heads=1)
    return save_single_file(tmp_path_factory.mktemp("checkpoint") / "sd1.safetensors", unet, vae, text_encoder)


def test_the_checkpoint_has_the_released_names(checkpoint: Path) -> None:
    assert model_files.tensor_names(checkpoint) >= {
        "model.diffusion_model.time_embed.0.weight",
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight",
        "model.diffusion_model.input_blocks.3.0.op.weight",
        "model.diffusion_model.middle_block.1.proj_in.weight",
        "model.diffusion_model.output_blocks.2.1.conv.weight",
        "model.diffusion_model.output_blocks.5.2.conv.weight",
        "model.diffusion_model.out.2.weight",
        "first_stage_model.encoder.down.0.block.0.norm1.weight",
        "first_stage_model.decoder.up.3.upsample.conv.weight",
        "first_stage_model.encoder.mid.attn_1.proj_out.weight",
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    }


@torch.no_grad()
def test_a_single_file_gives_the_same_models_without_a_network(checkpoint: Path) -> None:
    models = load(checkpoint)
    unet = tiny.tiny_unet(layers=2, heads=8, groups=32, text_width=64)
    noise, states = torch.randn(1, 4, 8, 8), models.encode_prompts(["a cat"])
    assert torch.equal(models.unet(noise, 500, states).sample, unet(noise, 500, states).sample)
    vae = tiny.tiny_vae(channels=(32, 32, 32, 32), groups=32)
    assert torch.equal(models.vae.decode(noise).sample, vae.decode(noise).sample)
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(models.vae.encode(image).latent_dist.mode(), vae.encode(image).latent_dist.mode())
    encoder = tiny.tiny_text_encoder(single_file.clip_tokenizer(), width=64, heads=1)
    ids = models.tokenizer("a cat", padding="max_length", max_length=77, return_tensors="pt").input_ids
    assert torch.equal(states, encoder(ids)[0])
    assert models.hashes["unet/sd1.safetensors"] == model_files.sha256(checkpoint)


@pytest.mark.parametrize("single", [False, True])
def test_tensors_stay_in_the_precision_of_their_file_until_they_are_placed(
    single: bool, checkpoint: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / ("half.safetensors" if single else "half")
    for file in [checkpoint] if single else tiny_model.rglob("*"):
        new = place if single else place / file.relative_to(tiny_model)
        new.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".safetensors":
            save_file({name: value.half() for name, value in load_file(file).items()}, new)
        elif file.is_file():
            shutil.copy(file, new)
    placed: list[tuple[torch.dtype, ...]] = []
    place_it = weights._place

    def watched(module: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        before = tuple({value.dtype for value in module.parameters()})
        place_it(module, device, dtype)
        placed.append((*before, *{value.dtype for value in module.parameters()}))

    monkeypatch.setattr(weights, "_place", watched)
    models = load(place)
    assert placed == [(torch.float16, torch.float32)] * 3  # U-Net, text encoder, autoencoder
    source = load_file(place if single else place / "unet" / "diffusion_pytorch_model.safetensors")
    name = "model.diffusion_model.out.2.weight" if single else "conv_out.weight"
    assert torch.equal(models.unet.conv_out.weight, source[name].float())


def test_clips_tokens_are_the_published_ones() -> None:
    tokenizer = single_file.clip_tokenizer()
    assert len(tokenizer) == 49408
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("A Photo  of a CAT").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer.pad_token_id == 49407


@pytest.mark.parametrize(
    "lost",
    [
        "model.diffusion_model.out.2.bias",
        "first_stage_model.quant_conv.bias",
        "cond_stage_model.transformer.text_model.final_layer_norm.bias",
    ],
)
def test_a_single_file_that_lacks_one_tensor_is_refused(checkpoint: Path, tmp_path: Path, lost: str) -> None:
    tensors = load_file(checkpoint)
    del tensors[lost]
    save_file(tensors, tmp_path / "part.safetensors")
    with pytest.raises(WeightsRefused, match="not a whole Stable Diffusion"):
        load(tmp_path / "part.safetensors")


def test_a_single_file_without_a_component_names_it(checkpoint: Path, tmp_path: Path) -> None:
    tensors = {key: value for key, value in load_file(checkpoint).items() if not key.startswith("first_stage")}
    save_file(tensors, tmp_path / "no-vae.safetensors")
    with pytest.raises(WeightsMissing, match="the vae is missing"):
        load(tmp_path / "no-vae.safetensors")


def test_a_refiner_is_not_supported(tmp_path: Path) -> None:
    save_file({"conditioner.embedders.0.model.ln_final.weight": torch.zeros(1)}, tmp_path / "refiner.safetensors")
    with pytest.raises(WeightsUnsupported, match="refiner"):
        load(tmp_path / "refiner.safetensors")


# For people


def test_a_description_holds_card_words_sizes_and_hashes(tmp_path: Path) -> None:
    folder = tiny.save_pipeline(tmp_path / "words", tiny.tiny_word_tokenizer())
    assert "no model card" in weights.describe(str(folder))
    (folder / "README.md").write_text("# A small model\nLicence: CC0")
    text = weights.describe(str(folder))
    assert text.startswith("# A small model")
    assert "watercolour" in text
    assert model_files.sha256(folder / UNET_FILE) in text
    assert "unet: 6.6 MB" in text


def test_a_description_names_what_is_missing(model: Path) -> None:
    shutil.rmtree(model / "vae")
    assert "the vae is missing" in weights.describe(str(model))
