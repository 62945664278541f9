# SPDX-License-Identifier: Apache-2.0
"""`fresco models`: what is listed, put in, fetched and taken out; and that nothing else is ever touched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import lora_files
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file
from transformers import DPTConfig, DPTForDepthEstimation

import tiny
from fresco_backend import cli
from fresco_backend.models import model_library, model_store
from fresco_backend.models.model_library import Kind
from fresco_protocol.errors import InputError, UsageError, WeightsMissing, WeightsRefused, WeightsUnsupported


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty models folder and an empty cache of the hub."""
    monkeypatch.setenv("FRESCO_MODELS", str(tmp_path / "library"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "library"


@pytest.fixture
def ink(tmp_path: Path) -> Path:
    tags = {"modelspec.trigger_phrase": "inkwash", "ss_base_model_version": "sd_v1"}
    return lora_files.save(tmp_path / "ink.safetensors", [("unet", tiny.tiny_unet())], metadata=tags)


def cached(tmp_path: Path, name: str, folder: Path) -> Path:
    """A folder as the hub's library keeps it; gives its snapshot."""
    repository = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "blobs").mkdir()
    return Path(shutil.copytree(folder, repository / "snapshots" / ("0" * 40)))


def told(words: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    """What `fresco models` says to a program."""
    assert cli.main(["models", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_model_is_copied_listed_and_removed(
    tiny_model: Path, library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    added = told(["add", str(tiny_model), "--name", "mine"], capsys)
    assert (added["name"], added["kind"], added["place"]) == ("mine", "model", str(library / "mine"))
    assert {part["component"] for part in added["components"]} >= {"unet", "vae", "text_encoder", "tokenizer"}
    listed = {model["name"]: model for model in told(["list"], capsys)}
    assert listed["mine"]["problem"] is None
    assert listed["mine"]["bytes"] > 1_000_000
    assert told(["remove", "mine"], capsys)["bytes"] > 1_000_000
    assert list(library.iterdir()) == []
    assert (tiny_model / "model_index.json").is_file()


def test_a_link_is_removed_and_never_what_it_leads_to(tiny_model: Path, library: Path) -> None:
    entry = model_library.add(tiny_model, "linked", link=True)
    assert entry.place.is_symlink()
    assert entry.problem is None
    assert model_library.remove("linked") == 0
    assert (tiny_model / "unet").is_dir()


def test_a_lora_is_found_by_its_name_and_says_what_it_is(ink: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert model_library.add(ink).kind is Kind.LORA
    assert model_library.find("ink") == model_library.find("ink.safetensors")
    assert cli.main(["models", "show", "ink"]) == 0
    said = capsys.readouterr().out
    assert "ink: LoRA" in said
    assert "modelspec.trigger_phrase: inkwash" in said
    assert cli.main(["models", "list"]) == 0
    assert "LoRA" in capsys.readouterr().out
    assert told(["remove", "ink"], capsys)["bytes"] == ink.stat().st_size


def test_every_kind_is_told_apart(tmp_path: Path, tiny_model: Path, ink: Path) -> None:
    tiny.tiny_vae().save_pretrained(tmp_path / "vae")
    config = DPTConfig(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=32,
                       backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[16, 16, 16, 16], fusion_hidden_size=16)
    DPTForDepthEstimation(config).save_pretrained(tmp_path / "depth")
    (tmp_path / "lora").mkdir()
    shutil.copy(ink, tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    for place, kind in ((tiny_model, Kind.MODEL), (tiny_model / "controlnet", Kind.CONTROLNET), (ink, Kind.LORA),
                        (tmp_path / "vae", Kind.AUTOENCODER), (tmp_path / "depth", Kind.DETECTOR),
                        (tmp_path / "lora", Kind.LORA)):
        entry = model_library.inspect("x", place)
        assert (entry.kind, entry.problem) == (kind, None)


def test_names_are_told_by_kind(tmp_path: Path, library: Path, tiny_model: Path, ink: Path) -> None:
    model_library.add(tiny_model, "mine")
    model_library.add(ink)
    (library / "notes").mkdir()
    (library / "broken.safetensors").write_bytes(b"no weights")
    shutil.rmtree(library / "mine" / "unet")
    cached(tmp_path, "owner/edges", tiny_model / "controlnet")
    found = model_library.named()
    assert found[Kind.MODEL] == ("embedded", "mine")
    assert (found[Kind.LORA], found[Kind.CONTROLNET]) == (("ink.safetensors",), ("owner/edges",))


def without_unet(folder: Path) -> Path:
    shutil.rmtree(folder / "unet")
    return folder


def pickled(folder: Path) -> Path:
    (folder / "model.ckpt").write_bytes(b"never opened")
    return folder / "model.ckpt"


def strange(folder: Path) -> Path:
    save_file({"x": torch.zeros(1)}, folder / "x.safetensors")
    return folder / "x.safetensors"


@pytest.mark.parametrize(("spoil", "error", "words"), [
    (without_unet, WeightsMissing, "the unet is missing"),
    (pickled, WeightsRefused, "pickle"),
    (strange, WeightsUnsupported, "no model, LoRA or autoencoder"),
    (lambda folder: folder / "tokenizer", WeightsUnsupported, "no model, LoRA, ControlNet"),
    (lambda folder: folder / "nothing", InputError, "there is no such model"),
    (lambda folder: folder / "model_index.json", WeightsUnsupported, "no file of weights"),
])
def test_what_is_not_whole_is_not_put_in(
    spoil: Callable[[Path], Path], error: type[Exception], words: str, tiny_model: Path, tmp_path: Path, library: Path
) -> None:
    source = spoil(Path(shutil.copytree(tiny_model, tmp_path / "copy")))
    with pytest.raises(error, match=words):
        model_library.add(source, "name")
    assert not library.exists() or list(library.iterdir()) == []


@pytest.mark.parametrize("name", ["embedded", "../outside", "a/b", ".hidden"])
def test_a_name_that_is_none_is_refused(name: str, ink: Path) -> None:
    with pytest.raises(UsageError, match="no name for a model"):
        model_library.add(ink, name)


def test_a_name_that_is_taken_keeps_what_is_there(ink: Path, tiny_model: Path) -> None:
    model_library.add(ink, "one")
    with pytest.raises(UsageError, match="already"):
        model_library.add(ink, "one")
    assert model_library.inspect("one", model_library.find("one")).problem is None


def test_an_interrupted_copy_has_no_name(
    ink: Path, library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    assert cli.main(["models", "add", str(ink)]) == 4
    assert "No space left" in capsys.readouterr().err
    assert list(library.iterdir()) == []


def test_a_folder_that_cannot_be_copied_whole_says_why_and_has_no_name(
    tiny_model: Path, tmp_path: Path, library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    for name in ("note.txt", "other.txt"):
        (source / name).symlink_to(tmp_path / "gone")
    assert cli.main(["models", "add", str(source)]) == 4
    said = capsys.readouterr().err
    assert f"{source}/" in said
    assert "No such file" in said
    assert "and 1 more" in said
    assert list(library.iterdir()) == []


@pytest.mark.parametrize(("name", "error", "words"), [
    ("embedded", UsageError, "part of Fresco"),
    ("..", UsageError, "no name of a model"),
    ("/etc", UsageError, "no name of a model"),
    ("unknown", WeightsMissing, "models list"),
    ("owner/unknown", WeightsMissing, "not in the hub's cache"),
])
def test_nothing_else_is_removed(name: str, error: type[Exception], words: str, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    with pytest.raises(error, match=words):
        model_library.remove(name)


def test_a_model_of_the_hubs_cache_is_listed_checked_and_removed(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = cached(tmp_path, "owner/model", tiny_model)
    assert "owner/model" in {model["name"] for model in told(["list"], capsys)}
    assert told(["check", "owner/model"], capsys)["place"] == str(snapshot)
    assert told(["remove", "owner/model"], capsys)["bytes"] > 1_000_000
    assert "owner/model" not in {model["name"] for model in told(["list"], capsys)}


def test_a_lora_of_the_hub_is_fetched_by_its_usual_file(
    ink: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted: list[str] = []

    def snapshot_download(name: str, allow_patterns: list[str] | None = None, local_files_only: bool = False) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not here")
        wanted.extend(allow_patterns or [])
        (tmp_path / "snapshot").mkdir()
        shutil.copy(ink, tmp_path / "snapshot" / "pytorch_lora_weights.safetensors")
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files",
                        lambda self, name: ["README.md", "pytorch_lora_weights.safetensors"])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert told(["pull", "owner/lora"], capsys)["kind"] == "LoRA"
    assert wanted == ["pytorch_lora_weights.safetensors"]


def test_a_name_that_is_nearly_one_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "show", "embeded"]) == 7
    assert "(this machine has embedded" in (said := capsys.readouterr().err) and "Did you mean embedded? See" in said
    assert cli.main(["models", "check", "xyzzy"]) == 7
    assert "Did you mean" not in capsys.readouterr().err
    with pytest.raises(WeightsMissing, match='Did you mean "embedded"'):
        model_store.check("embeded")


def test_a_fetch_says_what_stands_in_its_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["models", "pull", "no-hub-id"]) == 2
    assert '"owner/name"' in capsys.readouterr().err
    monkeypatch.setenv("FRESCO_OFFLINE", "1")
    assert cli.main(["models", "pull", "owner/model"]) == 7
    assert "fresco models pull owner/model, without FRESCO_OFFLINE=1" in capsys.readouterr().err
    monkeypatch.delenv("FRESCO_OFFLINE")
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, name: ["model_index.json", "x.bin"])
    assert cli.main(["models", "pull", "owner/model"]) == 7
    assert ".safetensors" in capsys.readouterr().err


def test_a_check_names_the_first_problem(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = without_unet(Path(shutil.copytree(tiny_model, tmp_path / "copy")))
    assert cli.main(["models", "check", str(copy)]) == 7
    said = capsys.readouterr()
    assert "fail  unet" in said.out
    assert "ok    vae" in said.out
    assert "the unet is missing" in said.err
