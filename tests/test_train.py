# SPDX-License-Identifier: Apache-2.0
"""A whole training in miniature: it resumes to the bit, exports what `weights.load` takes, and starts from that."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import miniature
import numpy as np
import pytest
import torch
from torch import Tensor

from fresco_backend.embedded import (
    architecture,
    autoencoder_training,
    captions,
    diffusion_training,
    export,
    photos,
    samples,
    train,
)
from fresco_backend.embedded.autoencoder_training import load_autoencoder, train_autoencoder
from fresco_backend.embedded.dct import DctAutoencoder
from fresco_backend.models import model_files, model_store, weights
from fresco_protocol.shot import Control, ControlKind

SOFT_EDGE = Control(kind=ControlKind.SOFT_EDGE)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with autoencoder and shards. Read only."""
    return miniature.prepare(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder whose training went through in one go. Read only."""
    work = Path(shutil.copytree(prepared, tmp_path_factory.mktemp("trained") / "work"))
    with miniature.narrow():
        diffusion_training.train_diffusion(miniature.options("diffusion", work))
    return work


@pytest.fixture(scope="module")
def model(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported folder. Read only."""
    folder = tmp_path_factory.mktemp("exported")
    with miniature.narrow():
        export.export(miniature.options("export", trained, "--output", folder))
    return folder


def state(work: Path, name: str) -> dict[str, Tensor]:
    values: dict[str, Tensor] = torch.load(work / "diffusion.pt", weights_only=True)[name]
    return values


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


# Stages


def test_most_latents_are_spoilt_each_by_its_own_share() -> None:
    latents = torch.zeros(400, 4, 6, 6)
    deviations = autoencoder_training.spoilt(latents, np.random.default_rng(0)).std(dim=(1, 2, 3))
    assert float((deviations > 0).float().mean()) == pytest.approx(autoencoder_training.SPOILT_SHARE, abs=0.06)
    assert 0.85 * autoencoder_training.LATENT_ERROR < float(deviations.max()) < 1.2 * autoencoder_training.LATENT_ERROR
    assert float(deviations[deviations > 0].min()) < 0.05 * autoencoder_training.LATENT_ERROR


def test_the_autoencoder_stage_can_begin_with_an_exported_one(prepared: Path, tmp_path: Path) -> None:
    trained = load_autoencoder(prepared)
    trained.save_pretrained(tmp_path / "model" / "vae")
    shutil.copytree(prepared.parent, tmp_path, dirs_exist_ok=True)
    work = tmp_path / prepared.name
    (work / "autoencoder.pt").unlink()
    train_autoencoder(miniature.options("autoencoder", work, "--steps", "1", "--init", str(tmp_path / "model")))
    begun = torch.load(work / "autoencoder.pt", weights_only=True)
    assert tuple(begun["gains"]) == tuple(trained.config["gains"])
    for name, value in trained.restoration.state_dict().items():
        torch.testing.assert_close(begun["model"][name], value, rtol=0, atol=2e-3)  # two steps at a low rate


def test_the_autoencoder_stage_whitens_and_goes_on_where_it_stopped(prepared: Path, tmp_path: Path) -> None:
    saved = torch.load(prepared / "autoencoder.pt", weights_only=True)
    assert saved["step"] == miniature.STEPS
    assert len(saved["gains"]) == architecture.LATENT_CHANNELS
    assert min(saved["gains"]) > 0
    shutil.copytree(prepared.parent, tmp_path, dirs_exist_ok=True)
    work = tmp_path / prepared.name
    train_autoencoder(miniature.options("autoencoder", work, "--steps", str(miniature.STEPS + 2)))
    again = torch.load(work / "autoencoder.pt", weights_only=True)
    assert again["step"] == miniature.STEPS + 2
    assert again["gains"] == saved["gains"]
    assert not same(again["model"], saved["model"])


def test_the_autoencoder_stage_gives_the_same_bits_each_time(prepared: Path, tmp_path: Path) -> None:
    found = []
    for name in ("first", "second"):
        shutil.copytree(prepared.parent / "photos", tmp_path / name / "photos")
        work = tmp_path / name / "work"
        work.mkdir()
        train_autoencoder(miniature.options("autoencoder", work, "--steps", "1"))
        found.append(torch.load(work / "autoencoder.pt", weights_only=True)["model"])
    assert same(*found)


def test_an_autoencoder_stage_that_goes_on_sees_other_pictures(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(prepared.parent, tmp_path, dirs_exist_ok=True)
    options = miniature.options("autoencoder", tmp_path / prepared.name, "--steps", str(miniature.STEPS + 1))
    batches, seen = autoencoder_training.picture_batches, list[torch.Tensor]()

    def watched(*folders: Any, **how: Any) -> Iterator[torch.Tensor]:
        for images in batches(*folders, **how):
            seen.append(images)
            yield images

    monkeypatch.setattr(autoencoder_training, "picture_batches", watched)
    train_autoencoder(options)
    first = next(batches(options.photos, side=96, batch=16))
    assert torch.equal(first, next(batches(options.photos, side=96, batch=16))), "a training can be repeated"
    assert not torch.equal(seen[0], first)


def test_gains_bring_the_channels_of_pictures_nearer_to_each_other() -> None:
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)).cumsum(-1) / 32 - 1
    deviations = [DctAutoencoder(gains=gains).encode(images, return_dict=False)[0].mode().std(dim=(0, 2, 3))
                  for gains in (None, autoencoder_training.measured_gains(images))]
    plain, whitened = (float(values.max() / values.min()) for values in deviations)
    assert whitened < plain ** 0.5
    assert float(deviations[1].square().mean()) == pytest.approx(1, rel=1e-3)


def test_a_killed_training_resumes_to_the_same_bits(
    prepared: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Path(shutil.copytree(prepared, tmp_path / "work"))
    draw, drawn = samples.Pairs.draw, iter(range(2))

    def killed_in_the_third_step(self: samples.Pairs, *arguments: object) -> samples.Batch:
        if next(drawn, None) is None:
            raise KeyboardInterrupt
        return draw(self, *arguments)  # type: ignore[arg-type]

    with miniature.narrow(), monkeypatch.context() as patch:
        patch.setattr(samples.Pairs, "draw", killed_in_the_third_step)
        with pytest.raises(KeyboardInterrupt):
            diffusion_training.train_diffusion(miniature.options("diffusion", work))
    assert torch.load(work / "diffusion.pt", weights_only=True)["step"] == 2
    assert not same(state(work, "model"), state(trained, "model"))
    with miniature.narrow():
        diffusion_training.train_diffusion(miniature.options("diffusion", work))
    assert torch.load(work / "diffusion.pt", weights_only=True)["samples"] == 8
    assert same(state(work, "model"), state(trained, "model"))
    assert same(state(work, "average"), state(trained, "average"))


def test_a_finished_training_has_nothing_to_do(trained: Path, tmp_path: Path) -> None:
    work = Path(shutil.copytree(trained, tmp_path / "work"))
    with miniature.narrow():
        diffusion_training.train_diffusion(miniature.options("diffusion", work))
    assert same(state(work, "model"), state(trained, "model"))


def test_every_network_learns(prepared: Path, trained: Path) -> None:
    with miniature.narrow():
        begun = diffusion_training.Trainer(prepared, CPU, 5e-4).modules.state_dict()
    model = state(trained, "model")
    changed = {key.split(".")[0] for key, value in model.items() if not torch.equal(value, begun[key])}
    assert changed == {"unet", "control", "text"}


def test_the_loss_of_a_perfect_prediction_is_zero(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a sample starts from, the velocity that is asked for leads to its target."""
    with miniature.narrow():
        networks = diffusion_training.Trainer(prepared, CPU, 5e-4).networks
    rng = np.random.default_rng(0)
    batch = samples.Pairs(prepared, networks.tokenizer).draw(rng, 64, 4)

    def perfect(noisy: Tensor, timesteps: Tensor, *_: object, **__: object) -> SimpleNamespace:
        signal = networks.scheduler.alphas_cumprod[timesteps].sqrt()[:, None, None, None]
        return SimpleNamespace(sample=(signal * noisy - batch.target) / (1 - signal.square()).sqrt())

    monkeypatch.setattr(networks.unet, "forward", perfect)
    losses, _ = diffusion_training.diffusion_loss(networks, batch, np.random.default_rng(5))
    assert losses.max() < 1e-9
    monkeypatch.setattr(networks.unet, "forward", lambda noisy, *_, **__: SimpleNamespace(sample=0 * noisy))
    losses, _ = diffusion_training.diffusion_loss(networks, batch, np.random.default_rng(5))
    assert losses.min() > 1e-3


def test_losses_are_told_by_quarters_of_the_time_steps_since_the_last_time() -> None:
    figures = diffusion_training.LossByTime(CPU)
    figures.add(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 249, 999]))
    figures.add(torch.tensor([6.0]), torch.tensor([500]))
    assert figures.taken() == {"loss_0": 2.0, "loss_250": 0.0, "loss_500": 6.0, "loss_750": 5.0}
    assert set(figures.taken().values()) == {0.0}


def test_a_share_of_samples_can_be_without_the_controlnet(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with miniature.narrow():
        networks = diffusion_training.Trainer(prepared, CPU, 5e-4).networks
    batch = samples.Pairs(prepared, networks.tokenizer).draw(np.random.default_rng(0), 64, 8)
    heard: list[Tensor] = []

    def listening(noisy: Tensor, *_: object, **inputs: Any) -> SimpleNamespace:
        heard.append(inputs["mid_block_additional_residual"].abs().sum(dim=(1, 2, 3)) > 0)
        return SimpleNamespace(sample=noisy)

    monkeypatch.setattr(networks.unet, "forward", listening)
    monkeypatch.setattr(networks.controlnet, "forward", lambda noisy, *_, **__: ([noisy], torch.ones_like(noisy)))
    for unheard in (0.0, 0.5, 1.0):
        diffusion_training.diffusion_loss(networks, batch, np.random.default_rng(5), unheard)
    assert [bool(each.all()) for each in heard] == [True, False, False]
    assert [bool(each.any()) for each in heard] == [True, True, False]


def test_samples_are_windows_of_the_shards_and_mirrored_as_a_whole(prepared: Path) -> None:
    with miniature.narrow():
        pairs = samples.Pairs(prepared, diffusion_training.Trainer(prepared, CPU, 5e-4).networks.tokenizer)
    pairs.plates = torch.randn(pairs.plates.shape)  # so that no two windows are alike
    pairs.edges = torch.randint(1, 256, pairs.edges.shape, dtype=torch.uint8)
    batch = pairs.draw(np.random.default_rng(1), 64, 40)
    windows = pairs.plates.unfold(2, 8, 1).unfold(3, 8, 1).permute(0, 2, 3, 1, 4, 5)
    turns = []
    for plate, edges in zip(batch.plate, batch.edges, strict=True):
        for turned, latents in enumerate((plate, plate.flip(-1) * pairs.mirror)):
            for crop, top, left in ((windows - latents).abs().amax(dim=(3, 4, 5)) < 1e-6).nonzero().tolist():
                part = pairs.edges[crop, :, 8 * top : 8 * top + 64, 8 * left : 8 * left + 64] / 255
                assert not edges.any() or torch.equal(edges, part.flip(-1) if turned else part)
                turns.append(turned)
    assert len(turns) == 40
    assert 8 < sum(turns) < 32
    autoencoder = load_autoencoder(prepared)
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    latents, mirrored = (autoencoder.encode(each, return_dict=False)[0].mode() for each in (picture, picture.flip(-1)))
    assert torch.allclose(mirrored, latents.flip(-1) * pairs.mirror, atol=1e-4)


def test_shards_of_other_numbers_of_looks_are_refused_in_words(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no shard"):
        samples.Pairs(tmp_path, lambda texts, **_: {})
    shard = sorted(prepared.glob("shard_????"))[0]
    for number in range(2):
        shutil.copytree(shard, tmp_path / f"shard_000{number}")
    targets = np.load(shard / "targets.npy")
    np.save(tmp_path / "shard_0001" / "targets.npy", np.concatenate([targets, targets], axis=1))
    with pytest.raises(ValueError, match="shards of 3 and 6 looks a crop"):
        samples.Pairs(tmp_path, lambda texts, **_: {})


def test_a_training_of_some_minutes_cools_down_and_ends_with_them(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, rates = tmp_path / "work", []
    shutil.copytree(prepared, work)
    update = diffusion_training.Trainer.update

    def noted(self: diffusion_training.Trainer, loss: Tensor, scale: float, count: int) -> None:
        rates.append(scale)
        update(self, loss, scale, count)

    monkeypatch.setattr(diffusion_training.Trainer, "update", noted)
    monkeypatch.setattr(diffusion_training, "time", SimpleNamespace(monotonic=lambda: float(len(rates))))
    with miniature.narrow():
        options = miniature.options("diffusion", work, "--phases", "64:2:1000000", "--minutes", "0.1")
        diffusion_training.train_diffusion(options)
    assert rates == pytest.approx([0.05 + 0.95 * (1 - second / 6) for second in range(6)])
    assert torch.load(work / "diffusion.pt", weights_only=True)["samples"] == 2 * len(rates)


def test_phases_follow_each_other_and_the_last_one_cools_down() -> None:
    timetable = diffusion_training.Timetable("64:4:100,128:2:50")
    found = [timetable.at(samples) for samples in (0, 99, 100, 125, 149, 150)]
    first, last = (64, 4, 100), (128, 2, 50)
    assert found == [(first, 1), (first, 1), (last, 1), (last, 0.5), (last, 0.02), None]


@pytest.mark.parametrize("every", [1, 3])
def test_the_log_ends_where_the_training_does(
    every: int, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Path(shutil.copytree(prepared, tmp_path / "work"))
    with miniature.narrow():
        monkeypatch.setattr(diffusion_training, "LOG_STEPS", every)
        for _ in range(2):  # the second one has nothing to do
            diffusion_training.train_diffusion(miniature.options("diffusion", work))
    lines = [json.loads(line) for line in (work / "diffusion.jsonl").read_text().splitlines()]
    assert [line["samples"] for line in lines] == {1: [2, 4, 6, 8], 3: [6, 8]}[every]


def test_a_training_before_its_shards_leaves_no_vocabulary(prepared: Path, tmp_path: Path) -> None:
    with miniature.narrow():
        with pytest.raises(ValueError, match="holds no shard"):
            diffusion_training.train_diffusion(miniature.options("diffusion", tmp_path))
        for shard in prepared.glob("shard_????"):
            shutil.copytree(shard, tmp_path / shard.name)
        assert diffusion_training.nouns_of(tmp_path) == sorted(miniature.NOUNS)


def test_stages_without_photographs_say_so(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no photograph to train on in .*nothing"):
        photos.make_shards([tmp_path / "nothing"], load_autoencoder(prepared), tmp_path)
    with pytest.raises(ValueError, match=r"no photograph to train on in .*photos"):
        train_autoencoder(miniature.options("autoencoder", tmp_path))


@pytest.mark.parametrize("weight", ["0", "-2", "nan", "inf", "much"])
def test_a_look_that_is_never_drawn_is_no_emphasis(weight: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        miniature.options("diffusion", tmp_path, "--emphasise", f"ink:{weight}")


# Export


@pytest.mark.parametrize(("lost", "words"), [
    ("autoencoder.pt", "run the autoencoder stage"), ("diffusion.pt", "run the diffusion stage")])
def test_an_export_of_what_was_not_trained_leaves_the_folder_as_it_is(
    lost: str, words: str, trained: Path, tmp_path: Path
) -> None:
    work, folder = Path(shutil.copytree(trained, tmp_path / "work")), tmp_path / "model"
    (work / lost).unlink()
    folder.mkdir()
    with miniature.narrow(), pytest.raises(ValueError, match=words):
        export.export(miniature.options("export", work, "--output", folder))
    assert list(folder.iterdir()) == []


def test_the_export_loads_as_any_model_with_its_control_and_words(model: Path) -> None:
    models = weights.load(str(model), device=CPU, dtype=torch.float32, controls=(SOFT_EDGE,))
    assert isinstance(models.vae, DctAutoencoder)
    assert models.unknown_words("an ink drawing of a wild pagoda, zebra") == ["zebra"]
    assert set(captions.vocabulary()) <= set(models.vocabulary)
    assert models.encode_prompts(["an ink drawing"]).shape == (1, architecture.TEXT_LENGTH, architecture.TEXT_WIDTH)


def test_the_export_is_the_moving_average(trained: Path, model: Path) -> None:
    models = weights.load(str(model), device=CPU, dtype=torch.float32)
    average = state(trained, "average")["unet.conv_in.weight"]
    assert torch.equal(models.unet.conv_in.weight, average.half().float())
    assert not torch.equal(average, state(trained, "model")["unet.conv_in.weight"])


def test_the_export_states_the_hashes_of_all_weights(model: Path) -> None:
    lines = (line.split(maxsplit=1) for line in (model / "SHA256SUMS").read_text().splitlines())
    stated = {name: digest for digest, name in lines}
    found = {path.relative_to(model).as_posix(): model_files.sha256(path) for path in model.rglob("*.safetensors")}
    assert stated == found
    assert len(found) == 4


# Starting from an exported model


def test_a_training_starts_from_an_exported_model(prepared: Path, model: Path) -> None:
    with miniature.narrow():
        trainer = diffusion_training.Trainer(prepared, CPU, 5e-4, model)
    exported = weights.load(str(model), device=CPU, dtype=torch.float32, controls=(SOFT_EDGE,))
    for ours, theirs in (
        (trainer.networks.unet, exported.unet),
        (trainer.networks.controlnet, exported.controlnets[SOFT_EDGE]),
        (trainer.networks.text_encoder, exported.text_encoder),
    ):
        assert same(ours.state_dict(), theirs.state_dict())
    assert torch.equal(trainer.average["unet.conv_in.weight"], exported.unet.conv_in.weight)
    assert trainer.step == 0


def test_a_training_goes_on_with_the_words_of_the_model_that_it_starts_from(
    prepared: Path, model: Path, tmp_path: Path
) -> None:
    """Shards made of fewer photographs, or by a newer rule for nouns, know fewer words."""
    work = Path(shutil.copytree(prepared, tmp_path / "work"))
    (work / "autoencoder.pt").unlink()
    assert same(load_autoencoder(work, model).state_dict(),
                {name: value.half().float() for name, value in load_autoencoder(prepared).state_dict().items()})
    (work / "nouns.json").unlink(missing_ok=True)
    for labels in work.glob("shard_????/labels.json"):
        content = json.loads(labels.read_text())
        labels.write_text(json.dumps(content | {"nouns": [None] * len(content["nouns"])}))
    with miniature.narrow():
        assert len(diffusion_training.Trainer(work, CPU, 5e-4, model).networks.tokenizer) == len(
            diffusion_training.Trainer(prepared, CPU, 5e-4).networks.tokenizer)  # fmt: skip


def test_a_checkpoint_goes_before_an_exported_model(trained: Path, model: Path) -> None:
    with miniature.narrow():
        trainer = diffusion_training.Trainer(trained, CPU, 5e-4, model)
    assert same(trainer.modules.state_dict(), state(trained, "model"))
    assert trainer.step == miniature.STEPS


def test_an_exported_model_of_other_words_is_refused(prepared: Path, model: Path, tmp_path: Path) -> None:
    work = Path(shutil.copytree(prepared, tmp_path / "work"))
    (work / "nouns.json").write_text(json.dumps(["narwhal"]))
    with miniature.narrow(), pytest.raises(ValueError, match="other words"):
        diffusion_training.Trainer(work, CPU, 5e-4, model)


def test_the_command_runs_the_stage_that_it_names(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["train", "export", "--work", str(trained), "--output", str(tmp_path)])
    with miniature.narrow():
        train.main()
    assert model_store.check(str(tmp_path)).component("unet").problem is None
