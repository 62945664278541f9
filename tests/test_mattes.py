# SPDX-License-Identifier: Apache-2.0
"""Mattes: channels, layers and Cryptomatte objects, their edges, and the composite over the plate."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest
import torch
from plates import frame, noise, with_pixels

from fresco_backend.files.frames import Channels, FloatArray
from fresco_backend.pixels.color import from_engine
from fresco_backend.pixels.color_config import color_space
from fresco_backend.pixels.cryptomatte import _name_hash, coverage, objects
from fresco_backend.pixels.mattes import channel_samples, composite, overlooked, shaped
from fresco_protocol.errors import MatteError
from fresco_protocol.shot import Matte

# Known values of MurmurHash3 x86 32 with seed 0.
HASHES = {"hello": 0x248BFA47, "hello, world": 0x149BBB7F, "The quick brown fox jumps over the lazy dog": 0x2E4FF723}
SPARE = Matte(sequence="m.####.exr")


def image(channels: Mapping[str, FloatArray], manifest: Mapping[str, int] | None = None) -> Channels:
    height, width = next(iter(channels.values())).shape
    spec = oiio.ImageSpec(width, height, len(channels), "float")
    if manifest is not None:
        spec.attribute("cryptomatte/ab12cd3/name", "CryptoObject")
        spec.attribute("cryptomatte/ab12cd3/hash", "MurmurHash3_32")
        text = json.dumps({name: f"{value:08x}" for name, value in manifest.items()})
        spec.attribute("cryptomatte/ab12cd3/manifest", text)
    return Channels(by_name=channels, metadata=spec)


def named(channel: str | None = None, *, invert: bool = False) -> Matte:
    return Matte(sequence="m.####.exr", channel=channel, invert=invert)


def ids(value: int) -> FloatArray:
    return np.full((2, 2), value, np.uint32).view(np.float32)


def crypto(*, with_manifest: bool = True) -> Channels:
    """Two ranks: hero covers 3/4 of every pixel, villain the rest; in one pixel the ranks are the other way round."""
    hero, villain = _name_hash("hero"), _name_hash("villain")
    first, second = ids(hero).copy(), ids(villain).copy()
    shares = np.full((2, 2), 0.75, np.float32)
    first[0, 0], second[0, 0] = second[0, 0], first[0, 0]
    channels = {"R": noise(2, 2), "CryptoObject00.R": first, "CryptoObject00.G": shares, "CryptoObject00.B": second,
                "CryptoObject00.A": 1 - shares}
    return image(channels, {"hero": hero, "villain": villain} if with_manifest else {})


def test_a_matte_is_a_channel_of_its_file_and_may_be_inverted() -> None:
    channels = {name: np.full((2, 2), value, np.float32) for name, value in {"R": 0.25, "A": 0.5, "hero": 2.0}.items()}
    assert channel_samples(image(channels), named())[0, 0] == 0.5
    assert channel_samples(image({"R": channels["R"], "hero": channels["hero"]}), named())[0, 0] == 0.25
    assert channel_samples(image(channels), named("r", invert=True))[0, 0] == 0.75
    assert channel_samples(image(channels), named("Hero"))[0, 0] == 1
    channels["hero"][0, 0] = np.nan
    assert channel_samples(image(channels), named("hero"))[0, 0] == 0
    with pytest.raises(MatteError, match="R, A, hero"):
        channel_samples(image(channels), named("villain"))


def test_a_layer_is_its_first_channel() -> None:
    channels = {"R": noise(2, 2), "roto.R": np.full((2, 2), 0.5, np.float32)}
    assert channel_samples(image(channels), named("roto"))[0, 0] == 0.5


@pytest.mark.parametrize(("text", "value"), HASHES.items())
def test_names_hash_as_murmur3_does(text: str, value: int) -> None:
    assert _name_hash(text) == value


@pytest.mark.parametrize("with_manifest", [True, False])
def test_an_object_of_a_cryptomatte_is_found_by_its_name(with_manifest: bool) -> None:
    matte = channel_samples(crypto(with_manifest=with_manifest), named("hero"))
    assert np.array_equal(matte, [[0.25, 0.75], [0.75, 0.75]])
    assert channel_samples(crypto(with_manifest=with_manifest), named("CryptoObject/villain"))[0, 0] == 0.75


def test_an_object_without_a_name_is_found_by_its_id() -> None:
    image, value = crypto(with_manifest=False), _name_hash("hero")
    number = np.uint32(value).view(np.float32)
    for name in (f"0x{value:08x}", f"0x{value:08X}", f"<{number}>", f"CryptoObject/<{number:.9g}>"):
        assert np.array_equal(channel_samples(image, named(name)), [[0.25, 0.75], [0.75, 0.75]])
    for wrong in ("0x00000001", "<nothing>", "<1e99>", "0x12"):
        with pytest.raises(MatteError, match="no channel"):
            channel_samples(image, named(wrong))


def test_an_unknown_object_names_the_nearest_ones() -> None:
    assert objects(crypto().metadata) == ["hero", "villain"]
    assert coverage(crypto().by_name, crypto().metadata, "nobody") is None
    with pytest.raises(MatteError, match="object: hero"):
        channel_samples(crypto(), named("heros"))


def test_a_channel_beside_an_opaque_alpha_is_overlooked_unless_somebody_names_one() -> None:
    opaque, white = np.ones((2, 2), np.float32), np.eye(2, dtype=np.float32)
    drawn, full = (image({"R": red, "G": red, "B": red, "A": opaque}) for red in (white, opaque))
    assert overlooked([full, drawn, full], named()) == "R"
    assert overlooked([full, drawn], named("A")) is None
    assert overlooked([full, full], named()) is None, "white everywhere, by whichever channel"
    assert overlooked([drawn, image({"R": white, "A": white})], named()) is None, "this alpha says something"
    assert overlooked([image({"Y": white})], named()) is None


def test_a_matte_is_widened_narrowed_and_softened() -> None:
    dot = np.zeros((41, 41), np.float32)
    dot[15:26, 15:26] = 1
    wide = shaped(dot, Matte(sequence="m", grow=5))
    assert (wide[20].sum(), wide[20, 10], wide[20, 9]) == (21, 1, 0)
    assert wide[10, 10] == 0  # a disc rounds the corner off
    assert shaped(dot, Matte(sequence="m", grow=-3))[20].sum() == 5
    soft = shaped(dot, Matte(sequence="m", feather=6))
    assert soft[20, 20] == 1
    assert np.all(np.diff(soft[20, :21]) >= 0)
    assert soft[20, 14] + soft[20, 15] == pytest.approx(1, abs=1e-4)  # the edge stays where it was
    assert soft[20, 10] == 0  # and outside of it the plate's own bits


def test_outside_the_matte_every_sample_is_the_plates_own_bit_for_bit() -> None:
    pixels = np.exp2(noise(16, 24, 3) * 12 - 6).astype(np.float16).astype(np.float32)
    pixels[0, 0] = [np.nan, np.inf, -0.0]
    pixels[9, 9] = [np.nan, np.inf, -0.0]
    source = with_pixels(frame(), pixels)
    painted = torch.tensor([0.1, 0.9, 0.4])[:, None, None].expand(3, 16, 24) * 2 - 1
    stylised = from_engine(painted, source, color_space("ACEScg"))
    matte = np.zeros((16, 24), np.float32)
    matte[8:12] = 1
    matte[12:] = 0.25
    mixed = composite(stylised, source, matte).pixels
    assert mixed[:8].tobytes() == pixels[:8].tobytes()
    assert mixed[8:12].tobytes() == stylised.pixels[8:12].tobytes()
    assert mixed[12:] == pytest.approx(0.75 * pixels[12:] + 0.25 * stylised.pixels[12:], rel=1e-5)
    assert np.isfinite(mixed[8:]).all()


def test_a_matte_of_another_size_is_refused() -> None:
    with pytest.raises(MatteError, match=r"12x16.*24x16"):
        composite(frame(), frame(), np.zeros((16, 12), np.float32))
