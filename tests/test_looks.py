# SPDX-License-Identifier: Apache-2.0
"""The parametric stylisers and their captions."""

import itertools

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from fresco_backend.embedded.captions import caption, vocabulary, words
from fresco_backend.embedded.lattice import Picture, blur, cells, dots, grain
from fresco_backend.embedded.looks import GRADES, LOOKS, MEDIA, LookName, all_combinations, render_combination
from fresco_backend.embedded.strokes import luma, tangents


def scene(height: int = 128, width: int = 160) -> Picture:
    """A sky, a textured meadow, a red house with a dark door, a sun."""
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = np.linspace((0.35, 0.55, 0.85), (0.75, 0.85, 0.95), height, dtype=np.float32)[:, None]
    meadow = np.random.default_rng(3).uniform(0.5, 1.3, (height, width, 1)).astype(np.float32)
    picture[height // 2 :] = ((0.25, 0.50, 0.15) * meadow)[height // 2 :]
    cv2.rectangle(picture, (40, 45), (90, 100), (0.75, 0.25, 0.20), -1)
    cv2.rectangle(picture, (58, 70), (72, 100), (0.12, 0.08, 0.06), -1)
    cv2.circle(picture, (125, 28), 14, (1.0, 0.92, 0.55), -1)
    return blur(np.clip(picture, 0, 1), 0.7)


def rendered(name: LookName, picture: Picture, amount: float = 1.0, seed: int = 0) -> Picture:
    return LOOKS[name].render(picture, amount, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def gallery() -> dict[LookName, Picture]:
    return {name: rendered(name, scene()) for name in LOOKS}


def test_there_are_seventeen_looks_in_two_kinds_and_the_identity() -> None:
    assert set(LOOKS) == set(LookName)
    assert (len(LOOKS), len(MEDIA), len(GRADES)) == (17, 10, 6)


@pytest.mark.parametrize("name", LookName)
@pytest.mark.parametrize("size", [(64, 64), (97, 131)])
def test_a_look_keeps_shape_and_range_and_its_input(name: LookName, size: tuple[int, int]) -> None:
    picture = np.asarray(cv2.resize(scene(), size[::-1], interpolation=cv2.INTER_AREA), np.float32)
    before = picture.copy()
    for amount in (0.6, 1.4):
        result = rendered(name, picture, amount)
        assert result.shape == picture.shape and result.dtype == np.float32
        assert np.isfinite(result).all() and result.min() >= 0 and result.max() <= 1
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize("name", LookName)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_look_of_an_even_picture_is_finite(name: LookName, value: float) -> None:
    assert np.isfinite(rendered(name, np.full((64, 80, 3), value, np.float32))).all()


@pytest.mark.parametrize("name", LookName)
def test_a_look_depends_on_its_generator_alone(name: LookName, gallery: dict[LookName, Picture]) -> None:
    np.testing.assert_array_equal(rendered(name, scene()), gallery[name])


@pytest.mark.parametrize("name", LookName)
def test_chance_changes_little(name: LookName, gallery: dict[LookName, Picture]) -> None:
    assert np.abs(rendered(name, scene(), seed=1) - gallery[name]).mean() < 0.04


@pytest.mark.parametrize("name", [name for name in LookName if name is not LookName.PHOTO])
def test_amount_changes_a_look(name: LookName) -> None:
    assert np.abs(rendered(name, scene(), 0.6) - rendered(name, scene(), 1.4)).mean() > 0.002


def test_the_identity_is_the_picture(gallery: dict[LookName, Picture]) -> None:
    np.testing.assert_array_equal(gallery[LookName.PHOTO], scene())


def test_looks_differ_from_the_picture_and_from_each_other(gallery: dict[LookName, Picture]) -> None:
    for one, other in itertools.combinations(LookName, 2):
        assert np.abs(gallery[one] - gallery[other]).mean() > 0.045, (one, other)


def outline() -> npt.NDArray[np.bool_]:
    """Where the upper half of the scene has its outlines, three pixels wide."""
    edge = np.zeros((128, 160), np.uint8)
    cv2.rectangle(edge, (40, 45), (90, 100), 255, 3)
    cv2.circle(edge, (125, 28), 14, 255, 3)
    edge[64:] = 0
    return edge > 0


SKY = (slice(5, 40), slice(5, 100))


def test_lead_lies_on_outlines(gallery: dict[LookName, Picture]) -> None:
    lead = gallery[LookName.STAINED_GLASS].max(-1) < 0.35
    assert lead[outline()].mean() > 2 * lead[SKY].mean() > 0


@pytest.mark.parametrize("name", [name for name in (*MEDIA, *GRADES)
                                  if name not in (LookName.STAINED_GLASS, LookName.WINTER)])
def test_outlines_of_the_picture_stay(name: LookName, gallery: dict[LookName, Picture]) -> None:
    """The gradient of a look is greater on the outlines of house, door and sun than in even sky."""
    result = gallery[name]
    slope = np.max([_slope(blur(result[..., c], 1.5)) for c in range(3)], axis=0)
    assert slope[outline()].mean() > 1.8 * slope[SKY].mean()


def _slope(plane: Picture) -> Picture:
    return np.hypot(cv2.Sobel(plane, cv2.CV_32F, 1, 0), cv2.Sobel(plane, cv2.CV_32F, 0, 1)).astype(np.float32)


def test_grades_have_their_colours(gallery: dict[LookName, Picture]) -> None:
    red, _, blue = gallery[LookName.CYANOTYPE].mean((0, 1))
    assert blue > red + 0.15
    red, _, blue = gallery[LookName.SEPIA].mean((0, 1))
    assert red > blue + 0.15
    assert gallery[LookName.NIGHT].mean() < 0.6 * scene().mean()
    meadow = (slice(105, 125), slice(None))
    assert gallery[LookName.WINTER][meadow].mean() > scene()[meadow].mean() + 0.2
    red, green, blue = gallery[LookName.AUTUMN][meadow].mean((0, 1))
    assert red > green + 0.15 > blue
    red, green, blue = gallery[LookName.INFRARED][meadow].mean((0, 1))
    assert red > blue > green
    assert gallery[LookName.INFRARED][:40, :100].mean() < 0.5 * scene()[:40, :100].mean()


def test_every_combination_renders_and_shows_both() -> None:
    picture = scene(64, 96)
    for names in all_combinations()[len(LOOKS) :]:
        result = render_combination(names, picture, 1.0, np.random.default_rng(0))
        assert result.shape == picture.shape and result.dtype == np.float32
        assert result.min() >= 0 and result.max() <= 1
        for name in names:
            assert np.abs(result - rendered(name, picture)).mean() > 0.02, names


def test_order_of_a_combination_does_not_matter() -> None:
    one, other = (
        render_combination(names, scene(), 1.0, np.random.default_rng(0))
        for names in ((LookName.INK, LookName.NIGHT), (LookName.NIGHT, LookName.INK))
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("names", [(), (LookName.INK, LookName.OIL), (LookName.NIGHT, LookName.WINTER)])
def test_looks_of_one_kind_do_not_combine(names: tuple[LookName, ...]) -> None:
    with pytest.raises(ValueError, match="do not combine"):
        render_combination(names, scene(), 1.0, np.random.default_rng(0))


def test_cells_follow_an_edge_between_lattice_lines() -> None:
    picture = np.zeros((64, 64, 3), np.float32)
    picture[:, 37:] = 1
    labels = cells(picture, 16, compactness=14.0, staggered=False).labels
    crossing = [label for label in np.unique(labels) if 0.1 < picture[labels == label].mean() < 0.9]
    assert not crossing


def test_dots_cover_what_they_are_asked_for_and_repeat_every_eight_pixels() -> None:
    for coverage in (0.1, 0.4, 0.8):
        screen = dots(np.full((64, 64), coverage, np.float32))
        np.testing.assert_allclose(screen[:, 8:], screen[:, :-8], atol=1e-4)
        assert abs(screen.mean() - coverage) < 0.2
    assert np.shape(grain((70, 90), 1.0)) == (70, 90)


def test_tangents_run_along_stripes() -> None:
    y, x = np.mgrid[:64, :64].astype(np.float32)
    along = tangents(np.sin((x + 2 * y) / 3).astype(np.float32), 4.0)[16:48, 16:48]
    np.testing.assert_allclose(np.abs(along @ np.array([2, -1]) / 5**0.5), 1, atol=0.02)
    assert luma(scene()).shape == (128, 160)


def test_captions_use_the_vocabulary_and_name_the_noun() -> None:
    known, rng = set(vocabulary()), np.random.default_rng(0)
    for names in all_combinations():
        for _ in range(20):
            text = caption(names, "sea_horse", rng)
            assert "sea horse" in text and "{" not in text
            assert set(words(text)) <= known | {"sea", "horse"}
            assert set(words(caption(names, None, rng))) <= known


def test_captions_vary_and_repeat_with_their_seed() -> None:
    def batch(seed: int) -> list[str]:
        rng = np.random.default_rng(seed)
        return [caption((LookName.INK, LookName.NIGHT), "crab", rng) for _ in range(40)]

    assert batch(0) == batch(0)
    assert len(set(batch(0))) > 15


def test_looks_share_no_phrase() -> None:
    texts = [text for style in LOOKS.values() for text in (*style.phrases, *style.manners)]
    assert len(texts) == len(set(texts))
    assert vocabulary() == sorted(set(vocabulary()))
