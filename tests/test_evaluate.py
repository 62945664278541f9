# SPDX-License-Identifier: Apache-2.0
"""The figures of the model card: each measure on pictures of known figure, and the whole stage on a tiny model."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import miniature
import numpy as np
import pytest
import torch
from torch import Tensor

from fresco_backend.embedded import evaluate, looks_classifier, photos, sheet
from fresco_backend.embedded.dct import DctAutoencoder
from fresco_backend.embedded.figures import CLOSING, OPENING, Fidelity, Figures, LookFigures, write_card
from fresco_backend.embedded.looks import LookName
from fresco_backend.embedded.looks_classifier import train_classifier
from fresco_protocol.errors import UsageError

FIGURES = Figures(
    weights="0" * 64,
    samples=12345,
    side=256,
    fidelity_side=512,
    strength=0.75,
    guidance=4.0,
    fidelity=(Fidelity(source="held-out photographs", pictures=20, psnr=33.26, ssim=0.9412),),
    looks=(
        LookFigures(
            look="oil", named={"oil": 15, "photo": 4, "ink": 1}, teacher_named=20,
            edges=0.5, teacher_edges=0.7, chance_edges=0.2,
        ),
        LookFigures(
            look="ink", named={"ink": 20}, teacher_named=18, edges=0.7, teacher_edges=0.9, chance_edges=0.3
        ),
    ),
)


def pictures(count: int, side: int = 64, seed: int = 0) -> Tensor:
    """Smooth random pictures in [-1, 1]."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(-1, 1)


# Figures


def test_accuracy_is_over_all_pictures_and_edges_over_looks() -> None:
    assert FIGURES.accuracy == pytest.approx(35 / 40)
    assert FIGURES.teacher_accuracy == pytest.approx(38 / 40)
    assert FIGURES.edges == pytest.approx(0.6)
    assert FIGURES.looks[0].mistaken == "photo 4, ink 1"
    assert replace(FIGURES.looks[0], look="night").right == 0


def test_figures_survive_their_document() -> None:
    assert Figures.from_json(FIGURES.to_json()) == FIGURES


def test_the_tables_state_each_figure() -> None:
    text = FIGURES.to_markdown()
    assert "| held-out photographs | 20 | 33.3 dB | 0.941 |" in text
    assert "| oil | 15 of 20 (20) | photo 4, ink 1 | 0.50 (0.70) | 0.20 |" in text
    assert "| **all** | **88%** (95%) | | **0.60** | |" in text
    assert "12,345 samples" in text


def test_a_card_keeps_all_but_what_stands_between_its_marks(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text(f"# Model\n\n{OPENING}\nold\n{CLOSING}\n\nLimits.\n")
    write_card(card, FIGURES)
    write_card(card, FIGURES)
    assert card.read_text() == f"# Model\n\n{OPENING}\n{FIGURES.to_markdown()}\n{CLOSING}\n\nLimits.\n"


@pytest.mark.parametrize("text", ["no marks", OPENING, f"{CLOSING} {OPENING}"])
def test_a_card_without_its_marks_is_left_alone(tmp_path: Path, text: str) -> None:
    card = tmp_path / "README.md"
    card.write_text(text)
    with pytest.raises(UsageError, match="lacks the marks"):
        write_card(card, FIGURES)
    assert card.read_text() == text


# Pictures


def test_held_out_photographs_are_those_that_training_leaves_out(tmp_path: Path) -> None:
    folder = miniature.write_photos(tmp_path, trained=4, held_out=3)
    chosen = evaluate.held_out_photos([folder], 4)
    assert len(set(chosen)) == 4
    assert all(map(photos.is_held_out, chosen))
    assert {path.parent.name for path in chosen} == {"wild_cat", "pagoda"}
    with pytest.raises(UsageError, match="6 held-out photographs, not 7"):
        evaluate.held_out_photos([folder], 7)


def test_a_square_is_the_middle_of_the_picture(tmp_path: Path) -> None:
    picture = np.zeros((40, 100, 3), np.uint8)
    picture[:, 30:70] = (0, 128, 255)  # BGR
    path = tmp_path / "middle.png"
    cv2.imwrite(str(path), picture)
    (found,) = evaluate.photo_squares([path], 16)
    expected = torch.tensor([1.0, 128 / 127.5 - 1, -1.0])[:, None, None].expand(3, 16, 16)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_frames_of_a_clip_are_taken_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    for number in range(9):
        cv2.imwrite(str(tmp_path / f"clip.{number + 1:04d}.png"), np.full((20, 30, 3), 10 * number, np.uint8))
    found = evaluate.clip_squares(tmp_path / "clip.####.png", 16, 3)
    assert found.shape == (3, 3, 16, 16)
    codes = (found.mean(dim=(1, 2, 3)) + 1) * 127.5
    torch.testing.assert_close(codes, torch.tensor([0.0, 40.0, 80.0]), atol=1e-2, rtol=0)


# Measures


class _Shift:
    """An autoencoder that returns the picture brighter by a constant."""

    def __init__(self, by: float) -> None:
        self.by, self.dtype = by, torch.float32
        self.config = _Config()

    def encode(self, images: Tensor) -> _Latent:
        return _Latent(images)

    def decode(self, latents: Tensor) -> _Latent:
        return _Latent(latents + self.by)


class _Config(dict[str, float]):
    scaling_factor = 1.0


class _Latent:
    def __init__(self, sample: Tensor) -> None:
        self.sample, self.latent_dist = sample, self

    def mode(self) -> Tensor:
        return self.sample


def test_fidelity_of_a_known_error() -> None:
    images = pictures(3) * 0.5
    found = evaluate.fidelity("shifted", _Shift(0.2), images)
    assert found.psnr == pytest.approx(20 * math.log10(1 / 0.1), abs=0.01)
    assert 0.5 < found.ssim < 0.999
    assert found.pictures == 3


def test_fidelity_of_the_transform_is_high_where_the_picture_is_smooth() -> None:
    vae = DctAutoencoder()
    smooth = evaluate.fidelity("smooth", vae, pictures(2) * 0.9)
    noise = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    rough = evaluate.fidelity("rough", vae, noise)
    assert smooth.psnr > 35 > 20 > rough.psnr
    assert smooth.ssim > 0.95 > 0.9 > rough.ssim


def test_figures_of_a_look_come_from_the_names_of_results_and_of_the_stylisers_pictures() -> None:
    plates = pictures(3)

    def naming(images: Tensor) -> list[LookName]:
        return [LookName.COMIC if torch.allclose(image, plate, atol=1e-5) else LookName.PHOTO
                for image, plate in zip(images, plates, strict=True)]

    found = evaluate.measure_look(LookName.PHOTO, plates, -plates, naming)
    assert found.named == {"photo": 3}
    assert found.teacher_named == 0  # of a photo the styliser's picture is the plate, which was named a comic
    assert found.teacher_edges == pytest.approx(1)
    assert found.edges == pytest.approx(1)  # a negative has its edges where the picture has them
    assert found.chance_edges < 0.9


# The classifier


def stripes(count: int, seed: int) -> tuple[Tensor, list[LookName]]:
    """Latents whose look shows in one channel's sign."""
    generator = torch.Generator().manual_seed(seed)
    looks = [LookName.OIL if index % 2 else LookName.INK for index in range(count)]
    latents = torch.randn(count, 4, 8, 8, generator=generator)
    latents[:, 0] += torch.tensor([1.0 if look is LookName.OIL else -1.0 for look in looks])[:, None, None]
    return latents.half(), looks


def test_the_classifier_learns_and_is_the_same_for_the_same_seed() -> None:
    first, second, other = (train_classifier(*stripes(128, 0), epochs=4, seed=seed) for seed in (0, 0, 1))
    latents, looks = stripes(40, 1)
    assert first.name(latents) == looks
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())
    assert not torch.equal(first.leave.weight, other.leave.weight)


def test_the_classifier_learns_from_single_looks_only(tmp_path: Path) -> None:
    work = miniature.prepare(tmp_path)
    latents, looks = looks_classifier.single_looks(work, 1000)
    drawn = [names for shard in photos.load_shards(work) for crop in shard.names for names in crop]
    assert looks == [names[0] for names in drawn if len(names) == 1]
    assert latents.shape == (len(looks), 32, 32, 32)
    assert len(looks_classifier.single_looks(work, 2)[1]) == 2
    with pytest.raises(ValueError, match="holds no training pairs"):
        looks_classifier.single_looks(tmp_path / "elsewhere", 2)


# Sheet and curves


def test_the_sheet_has_a_row_for_each_look_and_a_column_for_each_plate() -> None:
    plates = torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 3, 64, 64)
    image = sheet.results_sheet([("plate", plates), ("oil", -plates)], 32)
    assert image.shape == (64, sheet.LABEL + 64, 3)
    cells = image[:, sheet.LABEL:].reshape(2, 32, 2, 32, 3).mean(axis=(1, 3, 4))
    assert cells.tolist() == [[0, 255], [255, 0]]
    assert not (image[:32, :sheet.LABEL] == image[32:, :sheet.LABEL]).all()


def test_a_picture_is_written_as_small_as_asked_or_not_at_all(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    path = sheet.write_small(noise, tmp_path / "noise.webp", limit=20_000)
    assert path.stat().st_size <= 20_000
    written = cv2.imread(str(path))
    assert written is not None
    assert written.shape == noise.shape
    with pytest.raises(ValueError, match=r"tiny\.webp does not fit into 100 bytes"):
        sheet.write_small(noise, tmp_path / "tiny.webp", limit=100)
    assert not (tmp_path / "tiny.webp").exists()


def test_of_repeated_steps_the_last_record_counts(tmp_path: Path) -> None:
    log = tmp_path / "diffusion.jsonl"
    records = [(1, 9.0), (3, 8.0), (2, 5.0), (3, 4.0), (4, 0)]
    log.write_text("\n".join(json.dumps({"samples": x, "loss_0": y}) for x, y in records))
    found = sheet.read_curves(log, "samples", ["loss_0", "loss_1"])
    assert found == {"loss_0": [(1, 9.0), (2, 5.0), (3, 4.0)], "loss_1": []}


def test_a_falling_curve_is_drawn_from_the_upper_left_to_the_lower_right() -> None:
    image = sheet.plot("loss", {"loss": [(x, 10.0 - x) for x in range(10)]})
    colour = np.array(sheet.COLOURS[0])
    rows, columns = np.nonzero((np.abs(image[30:220].astype(int) - colour) < 30).all(axis=2))
    assert len(rows) > 50
    assert np.corrcoef(rows, columns)[0, 1] > 0.99
    with pytest.raises(ValueError, match="no figures"):
        sheet.plot("loss", {"loss": []})


# The stage


def test_the_stage_measures_an_exported_model_and_fills_its_card(tmp_path: Path) -> None:
    work, model = miniature.train_and_export(tmp_path)
    (model / "README.md").write_text(f"# Tiny\n{OPENING}{CLOSING}\n")
    sizes = ["--images", "2", "--side", "64", "--fidelity-side", "64", "--targets", "8", "--looks", "photo", "comic"]
    figures = evaluate.evaluate(miniature.options("evaluate", work, "--output", model, "--card", *sizes))
    assert [look.look for look in figures.looks] == ["photo", "comic"]
    assert {look.count for look in figures.looks} == {2}
    assert figures.samples == 8
    assert figures.fidelity[0].pictures == 2
    assert Figures.from_json((model / "evaluation.json").read_text()) == figures
    assert figures.to_markdown() in (model / "README.md").read_text()
    for picture in ("sheet.webp", "losses.webp"):
        assert cv2.imread(str(model / picture)) is not None
