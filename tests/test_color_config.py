# SPDX-License-Identifier: Apache-2.0
"""Colour spaces by their OpenColorIO names: what is found, what is refused, and what the numbers mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from plates import noise

from fresco_backend.pixels.color_config import (
    BUILT_IN,
    ColorSpace,
    color_space,
    configuration,
    from_aces,
    interop_name,
    is_linear,
    is_picture,
    nearly_equal,
    to_aces,
)
from fresco_backend.pixels.transfer import srgb_decode
from fresco_protocol.errors import ColorError

OWN = """
ocio_profile_version: 2.1
roles: {aces_interchange: ap0, default: ap0, scene_linear: house}
file_rules: [!<Rule> {name: Default, colorspace: default}]
displays: {none: [!<View> {name: raw, colorspace: ap0}]}
colorspaces:
  - !<ColorSpace> {name: ap0}
  - !<ColorSpace> {name: numbers, isdata: true}
  - !<ColorSpace>
    name: house
    aliases: [house_linear]
    to_scene_reference: !<MatrixTransform> {matrix: [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1]}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A studio's own configuration in $OCIO."""
    path = tmp_path / "own.ocio"
    path.write_text(OWN.lstrip())
    monkeypatch.setenv("OCIO", str(path))
    return str(path)


def test_names_aliases_and_roles_are_found_in_any_case() -> None:
    assert configuration() == BUILT_IN
    assert {str(color_space(name)) for name in ("ACEScg", "acescg", "lin_ap1", "lin_ap1_scene", "scene_linear")} == {
        "ACEScg"}  # fmt: skip
    assert interop_name(color_space("ACEScg")) == "lin_ap1_scene"


def test_an_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(ColorError, match="'ACEScg', 'ACEScc'") as caught:
        color_space("ACESgc")
    assert caught.value.exit_code == 6
    with pytest.raises(ColorError, match="LogC3"):
        color_space("arri log c3")
    with pytest.raises(ColorError, match="no colour"):
        color_space("Raw")


def test_numbers_mean_what_the_standards_say() -> None:
    """ST 2065-1 white is white; LogC3 EI 800 has middle grey at 0.391007 (ARRI, 2017); ACEScct at 0.4135884."""
    white = np.ones((1, 1, 3), np.float32)
    for name in ("ACEScg", "lin_rec709_scene", "ACES2065-1"):
        assert to_aces(white, color_space(name)) == pytest.approx(1, abs=1e-4)
    grey = np.full((1, 1, 3), 0.18, np.float32)
    assert from_aces(grey, color_space("ARRI LogC3 (EI800)")) == pytest.approx(0.391007, abs=1e-4)
    assert from_aces(grey, color_space("ACEScct")) == pytest.approx(0.4135884, abs=1e-4)


@pytest.mark.parametrize(("name", "linear", "picture"), [
    ("ACEScg", True, False), ("lin_rec709_scene", True, False), ("ACEScct", False, False),
    ("ARRI LogC3 (EI800)", False, False), ("srgb_rec709_scene", False, True),
    ("Rec.1886 Rec.709 - Display", False, True),
])  # fmt: skip
def test_a_space_is_light_a_picture_or_a_log_curve(name: str, linear: bool, picture: bool) -> None:
    space = color_space(name)
    assert (is_linear(space), is_picture(space)) == (linear, picture)
    colour = noise(4, 5, 3) * 0.9 + 0.05
    assert from_aces(to_aces(colour, space), space) == pytest.approx(colour, abs=2e-5)


def test_wide_colours_of_television_are_those_of_linear_rec_2020_under_the_curve_of_srgb() -> None:
    codes = np.random.default_rng(0).uniform(-0.2, 1.2, (8, 8, 3)).astype(np.float32)
    wide = color_space("srgb_rec2020_scene")
    light = to_aces(srgb_decode(codes), color_space("Linear Rec.2020"))
    assert to_aces(codes, wide) == pytest.approx(light, rel=3e-5, abs=2e-6)
    assert from_aces(light, wide) == pytest.approx(codes, abs=2e-5)
    assert is_picture(wide)


def test_spaces_of_one_meaning_are_equal() -> None:
    assert nearly_equal(color_space("sRGB - Display"), color_space("srgb"))
    assert not nearly_equal(color_space("Gamma 2.2 Encoded Rec.709"), color_space("srgb"))


def test_a_configuration_of_ones_own_is_first_and_the_files_own_words_are_understood(own: str) -> None:
    assert color_space("House_Linear") == ColorSpace(own, "house")
    assert color_space("scene_linear") == ColorSpace(own, "house")
    assert color_space("lin_ap1_scene") == ColorSpace(BUILT_IN, "ACEScg")
    assert to_aces(np.ones((1, 1, 3), np.float32), color_space("house")) == pytest.approx(2)
    with pytest.raises(ColorError, match="no colour"):
        color_space("numbers")


@pytest.mark.parametrize("named", ["/nope/config.ocio", "ocio://bogus"])
def test_a_configuration_that_cannot_be_loaded_is_no_other_one(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCIO", named)
    with pytest.raises(ColorError, match=r"cannot be loaded.*unset it"):
        color_space("ACEScg")


def test_a_configuration_must_say_which_space_is_aces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.ocio"
    path.write_text(OWN.lstrip().replace("aces_interchange: ap0, ", ""))
    monkeypatch.setenv("OCIO", str(path))
    with pytest.raises(ColorError, match="aces_interchange"):
        to_aces(np.ones((1, 1, 3), np.float32), color_space("house"))
