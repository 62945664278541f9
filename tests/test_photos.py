# SPDX-License-Identifier: Apache-2.0
"""Training pairs: which photographs, which crops of them, in which looks, and what a shard holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import miniature
import numpy as np
import pytest
import torch

from fresco_backend.embedded import photos
from fresco_backend.embedded.dct import DctAutoencoder
from fresco_backend.embedded.looks import LookName, split_combination
from fresco_backend.guides.controls import soft_edges


def test_one_photograph_in_25_is_held_out_wherever_its_folder_lies() -> None:
    paths = [Path("photos", "ant", f"image_{number:04d}.webp") for number in range(5000)]
    share = sum(map(photos.is_held_out, paths)) / len(paths)
    assert 0.03 < share < 0.05
    assert all(photos.is_held_out(path) == photos.is_held_out("elsewhere" / path) for path in paths[:100])


@pytest.mark.parametrize(("folder", "noun"), [
    ("wild_cat", "wild cat"), ("Faces_easy", "face"), ("Motorbikes", "motorbike"), ("airplanes", "airplane"),
    ("BACKGROUND_Google", None), ("images", None), ("nature", None),
])
def test_a_folder_names_what_is_on_its_photographs(folder: str, noun: str | None) -> None:
    assert photos.noun_of(Path("photos", folder, "image_0001.webp")) == noun


def test_photographs_are_listed_by_name_and_nothing_else_is(tmp_path: Path) -> None:
    folder = miniature.write_photos(tmp_path, trained=1, held_out=1)
    (folder / "notes.txt").write_text("no picture")
    found = photos.list_photos([folder])
    assert len(found) == 4
    assert found == sorted(found)


def test_a_small_photograph_gives_one_crop_and_a_large_one_many(tmp_path: Path) -> None:
    small = miniature.write_photo(tmp_path / "pagoda" / "small.png")
    large = miniature.write_photo(tmp_path / "images" / "large.png", size=(1200, 1600))
    assert [crop.noun for crop in photos.crops_of(small)] == ["pagoda"]
    crops = list(photos.crops_of(large))
    assert 5 < len(crops) <= 40
    assert len({crop.seed for crop in crops}) == len(crops)


def test_a_crop_is_the_same_each_time_and_its_own_for_each_seed(tmp_path: Path) -> None:
    first, second, *_ = photos.crops_of(miniature.write_photo(tmp_path / "images" / "large.png", size=(1200, 1600)))
    picture = photos.read_crop(first, side=64)
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.float32
    assert 0 <= picture.min() < picture.max() <= 1
    assert np.array_equal(picture, photos.read_crop(first, side=64))
    assert not np.array_equal(picture, photos.read_crop(second, side=64))


def test_what_is_no_picture_gives_no_crop_and_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    assert list(photos.crops_of(path)) == []
    with pytest.raises(ValueError, match=r"broken\.png cannot be decoded; remove it"):
        photos.read_crop(photos.Crop(path=path, noun=None, seed=0))


def test_looks_are_drawn_in_all_their_kinds() -> None:
    rng = np.random.default_rng(0)
    drawn = [photos.draw_looks(rng) for _ in range(2000)]
    for names in drawn:
        split_combination(names)  # raises for looks that do not combine
    singles = Counter(names[0] for names in drawn if len(names) == 1)
    assert set(singles) == set(LookName)
    assert 0.05 < singles[LookName.PHOTO] / len(drawn) < 0.11
    assert 0.18 < sum(len(names) == 2 for names in drawn) / len(drawn) < 0.26


def test_a_shard_holds_plates_their_edges_and_their_looks(tmp_path: Path) -> None:
    crops = [crop for path in photos.list_photos([miniature.write_photos(tmp_path / "photos")])
             for crop in photos.crops_of(path)][:2]
    vae = DctAutoencoder()
    photos.make_shard(crops, dict(vae.config), tmp_path / "shard_0000")
    (shard,) = photos.load_shards(tmp_path)
    assert shard.edges.shape == (2, 3, 256, 256)
    assert shard.targets.shape == (2, photos.LOOKS_PER_CROP, 32, 32, 32)
    assert shard.nouns == [crop.noun for crop in crops]
    image = torch.from_numpy(photos.read_crop(crops[0])).permute(2, 0, 1)[None] * 2 - 1
    expected = vae.encode(image, return_dict=False)[0].mode()[0].half()
    assert torch.equal(torch.from_numpy(np.array(shard.plate_latents[0])), expected)
    np.testing.assert_allclose(shard.edges[0] / 255, soft_edges(image)[0], atol=0.5 / 255 + 1e-6)
    for target, names in zip(shard.targets[0], shard.names[0], strict=True):
        same = np.allclose(target, shard.plate_latents[0], atol=1e-3)
        assert same == (names == (LookName.PHOTO,))


def test_finished_shards_stay_and_held_out_photographs_are_in_none(tmp_path: Path) -> None:
    folder, work = miniature.write_photos(tmp_path / "photos", trained=2, held_out=3), tmp_path / "work"
    work.mkdir()
    with miniature.narrow():
        photos.make_shards([folder], DctAutoencoder(), work, size=3)
        assert [len(shard.nouns) for shard in photos.load_shards(work)] == [3, 1]
        before = (work / "shard_0000" / "targets.npy").stat().st_mtime_ns
        (work / "shard_0001" / "labels.json").unlink()
        (work / "shard_0001").rename(work / "shard_0001.part")  # as an interrupted shard lies there
        photos.make_shards([folder], DctAutoencoder(), work, size=3)
    assert [len(shard.nouns) for shard in photos.load_shards(work)] == [3, 1]
    assert (work / "shard_0000" / "targets.npy").stat().st_mtime_ns == before
