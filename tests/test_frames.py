# SPDX-License-Identifier: Apache-2.0
"""Reading: exact samples, every channel, and a clear word for every damaged file."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest
from numpy.typing import NDArray
from plates import frame, header, noise, with_pixels, write_sequence

from fresco_backend.files.deliveries import DeliveryWriter
from fresco_backend.files.frames import (
    ExtraChannel,
    FloatArray,
    Frame,
    cleaned,
    read_channels,
    read_frame,
)
from fresco_protocol.errors import FrameUnreadable, InputError, OutputPattern
from fresco_protocol.shot import BitDepth


def written(folder: Path, source: Frame, name: str) -> Frame:
    """The frame after a way through a file."""
    return read_frame(DeliveryWriter(folder / name, [1], like=source).write(1, source, "0").path)


def stored(source: Frame) -> FloatArray:
    """Samples as the file's own numbers: integer codes, or the floats."""
    top = {BitDepth.UINT8: 255, BitDepth.UINT16: 65535}.get(source.format)
    return source.pixels if top is None else np.round(source.pixels * top)


@pytest.mark.parametrize(
    ("name", "depth", "file_type"),
    [
        ("a.exr", BitDepth.HALF, "openexr"),
        ("a.exr", BitDepth.FLOAT, "openexr"),
        ("a.png", BitDepth.UINT8, "png"),
        ("a.png", BitDepth.UINT16, "png"),
        ("a.tif", BitDepth.UINT8, "tiff"),
        ("a.tif", BitDepth.UINT16, "tiff"),
        ("a.tif", BitDepth.FLOAT, "tiff"),
        ("a.dpx", BitDepth.UINT16, "dpx"),
    ],
)
def test_samples_survive_a_file_exactly(tmp_path: Path, name: str, depth: BitDepth, file_type: str) -> None:
    source = frame(depth=depth, file_type=file_type)
    back = written(tmp_path, source, name)
    assert back.format is depth
    assert back.file_type == file_type
    assert np.array_equal(stored(back), stored(source))
    again = written(tmp_path, back, f"again{Path(name).suffix}")
    assert np.array_equal(again.pixels, back.pixels)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_colour_under_unassociated_alpha_is_exact(tmp_path: Path, name: str) -> None:
    alpha = (np.round(noise(16, 24, seed=7) * 3) / 3).astype(np.float32)  # a third of it is fully transparent
    source = frame(depth=BitDepth.UINT8, alpha=alpha, file_type="png" if name == "a.png" else "tiff")
    back = written(tmp_path, source, name)
    assert not back.associated
    assert back.alpha is not None
    assert np.array_equal(stored(back), stored(source))
    assert np.array_equal(np.round(back.alpha * 255), np.round(alpha * 255))


def test_extra_channels_keep_their_type_and_their_bits(tmp_path: Path) -> None:
    ids = np.random.default_rng(3).integers(0, 2**32, (16, 24), np.uint32).view(np.float32)  # any bits, NaN too
    extra = (
        ExtraChannel(name="crypto00.r", samples=ids, format=BitDepth.FLOAT),
        ExtraChannel(name="depth.Z", samples=noise(16, 24) * 1e6, format=BitDepth.FLOAT),
        ExtraChannel(name="mask", samples=np.full((16, 24), 0.25, np.float32), format=BitDepth.HALF),
    )
    back = written(tmp_path, replace(frame(), extra=extra), "a.exr")
    assert back.format is BitDepth.HALF
    found = {channel.name: channel for channel in back.extra}
    for channel in extra:
        assert found[channel.name].format is channel.format
        assert found[channel.name].samples.tobytes() == channel.samples.tobytes()


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_further_channels_of_a_tiff_become_floats_in_an_exr(tmp_path: Path, depth: str) -> None:
    spec = oiio.ImageSpec(24, 16, 5, depth)
    spec.channelnames = ("R", "G", "B", "A", "mask")
    image = oiio.ImageOutput.create(str(tmp_path / "a.tif"))
    assert image is not None
    assert image.open(str(tmp_path / "a.tif"), spec)
    assert image.write_image(noise(16, 24, 5))
    assert image.close()
    source = read_frame(tmp_path / "a.tif")
    back = written(tmp_path, source, "a.exr")
    assert [channel.name for channel in back.extra] == [channel.name for channel in source.extra]
    assert back.extra[0].samples.tobytes() == source.extra[0].samples.tobytes()


def test_windows_and_attributes_pass_through_and_the_aces_flag_does_not(tmp_path: Path) -> None:
    source = header(frame(), owner="studio", camera__lens="50 mm", acesImageContainerFlag=1, PixelAspectRatio=2.0)
    source.metadata.x, source.metadata.y = -3, 5
    source.metadata.full_width, source.metadata.full_height = 100, 50
    spec = written(tmp_path, source, "a.exr").metadata
    assert (spec.x, spec.y, spec.full_width, spec.full_height) == (-3, 5, 100, 50)
    assert spec.get_string_attribute("camera:lens") == "50 mm"
    assert spec.get_float_attribute("PixelAspectRatio") == 2.0
    assert spec.getattribute("acesImageContainerFlag") is None


def test_grey_is_one_channel(tmp_path: Path) -> None:
    source = replace(
        frame(depth=BitDepth.UINT8, file_type="png"), pixels=np.zeros((16, 24, 1), np.float32), channels=("Y",)
    )
    assert written(tmp_path, source, "a.png").pixels.shape == (16, 24, 1)


def test_non_finite_samples_are_replaced_and_counted() -> None:
    samples = np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)
    assert cleaned(samples).samples.tolist() == [0.0, 65504.0, -65504.0, 1.0]
    assert cleaned(samples).replaced == 3
    plain = noise(4)
    assert cleaned(plain).samples is plain


def damaged(kind: str, content: bytes) -> bytes:
    middle = len(content) // 2
    return {
        "empty": b"",
        "text": b"not a picture",
        "cut": content[:middle],
        "header only": content[:200],
        "flipped": content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :],
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "header only", "flipped"])
@pytest.mark.parametrize("name", ["a.exr", "a.png"])
def test_a_damaged_file_is_unreadable_and_named(tmp_path: Path, kind: str, name: str) -> None:
    source = frame(
        64,
        64,
        depth=BitDepth.HALF if name == "a.exr" else BitDepth.UINT8,
        file_type="openexr" if name == "a.exr" else "png",
    )
    path = DeliveryWriter(tmp_path / name, [1], like=source).write(1, source, "0").path
    path.write_bytes(damaged(kind, path.read_bytes()))
    with pytest.raises(FrameUnreadable) as caught:
        read_frame(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy


def test_random_damage_to_a_header_never_ends_in_another_exception(tmp_path: Path) -> None:
    content = bytearray(write_sequence(tmp_path, [1], "a.exr").read_bytes())
    choose = np.random.default_rng(5)
    for _ in range(150):
        broken = bytearray(content)
        broken[choose.integers(0, 400)] = choose.integers(0, 256)
        (tmp_path / "b.exr").write_bytes(broken)
        with suppress(InputError):
            assert read_frame(tmp_path / "b.exr").pixels.ndim == 3


def test_a_file_without_colour_is_read_by_its_channels(tmp_path: Path) -> None:
    path = str(tmp_path / "matte.exr")
    spec = oiio.ImageSpec(24, 16, 2, "float")
    spec.channelnames = ("hero", "villain")
    image = oiio.ImageOutput.create(path)
    assert image is not None
    image.open(path, spec)
    image.write_image(noise(16, 24, 2))
    image.close()
    channels = read_channels(Path(path))
    assert list(channels.by_name) == ["hero", "villain"]
    assert np.array_equal(channels.by_name["villain"], noise(16, 24, 2)[:, :, 1])
    with pytest.raises(FrameUnreadable, match="no colour, only hero, villain"):
        read_frame(Path(path))


def test_a_matte_in_a_part_of_its_own_is_found(tmp_path: Path) -> None:
    path = str(tmp_path / "parts.exr")
    picture, masks = oiio.ImageSpec(24, 16, 3, "half"), oiio.ImageSpec(24, 16, 1, "half")
    masks.channelnames = ("hero",)
    for name, spec in (("picture", picture), ("masks", masks)):
        spec.attribute("oiio:subimagename", name)
    image = oiio.ImageOutput.create(path)
    assert image is not None
    assert image.open(path, (picture, masks))
    assert image.write_image(noise(16, 24, 3))
    assert image.open(path, masks, "AppendSubimage")
    assert image.write_image(np.full((16, 24, 1), 0.5, np.float32))
    assert image.close()
    found = read_channels(Path(path)).by_name
    assert list(found) == ["R", "G", "B", "hero"], "one channel, where the picture has three"
    assert np.all(found["hero"] == 0.5)


def test_tiles_are_kept(tmp_path: Path) -> None:
    source = frame(100, 70)
    source.metadata.tile_width = source.metadata.tile_height = 32
    back = written(tmp_path, source, "a.exr")
    assert (back.metadata.tile_width, back.metadata.tile_height) == (32, 32)
    assert np.array_equal(back.pixels, source.pixels)


def ids() -> NDArray[np.uint32]:
    """Ids of any bits, as an integer part holds them."""
    return np.random.default_rng(9).integers(0, 2**32, (5, 7, 1), np.uint32)


def in_parts(path: Path) -> Path:
    """A file of three parts: float masks in a window of their own, the picture, and integer ids."""
    masks, picture, integer = oiio.ImageSpec(10, 6, 2, "float"), oiio.ImageSpec(24, 16, 3, "half"), oiio.ImageSpec(
        7, 5, 1, "uint")
    masks.channelnames, integer.channelnames = ("hero", "villain"), ("id",)
    masks.x, masks.y = 3, 4
    parts = [masks, picture, integer]
    for name, spec in zip(("masks", "beauty", "ids"), parts, strict=True):
        spec.attribute("oiio:subimagename", name)
        spec.full_width, spec.full_height = 24, 16
    samples = [noise(6, 10, 2), frame().pixels, ids()]
    image = oiio.ImageOutput.create(str(path))
    assert image is not None
    assert image.open(str(path), tuple(parts))
    for place, (spec, written) in enumerate(zip(parts, samples, strict=True)):
        assert place == 0 or image.open(str(path), spec, "AppendSubimage")
        assert image.write_image(written)
    assert image.close()
    return path


def test_parts_pass_through_around_the_picture(tmp_path: Path) -> None:
    source = read_frame(in_parts(tmp_path / "a.exr"))
    assert source.place == 1
    assert source.channels == ("R", "G", "B")
    back = written(tmp_path, with_pixels(source, source.pixels * 0.5), "b.exr")
    assert np.array_equal(back.pixels, source.pixels * 0.5)
    for before, after in zip(source.parts, back.parts, strict=True):
        assert after.samples.tobytes() == before.samples.tobytes()
        assert (after.metadata.x, after.metadata.channelnames) == (before.metadata.x, before.metadata.channelnames)
    assert np.array_equal(back.parts[1].samples, ids())
    with pytest.raises(OutputPattern, match="masks, ids"):
        DeliveryWriter(tmp_path / "a.png", [1], like=source)


def test_parts_under_a_lossy_codec_are_not_coded_by_it_once_more(tmp_path: Path) -> None:
    """DWA loses some of R, G and B, and some more of what it gave back."""
    path = tmp_path / "a.exr"
    specs = []
    for name in ("beauty", "diffuse"):
        specs.append(oiio.ImageSpec(64, 64, 3, "half"))
        specs[-1].attribute("oiio:subimagename", name)
        specs[-1].attribute("compression", "dwaa")
    image = oiio.ImageOutput.create(str(path))
    assert image is not None
    assert image.open(str(path), tuple(specs))
    assert image.write_image(noise(64, 64, 3))
    assert image.open(str(path), specs[1], "AppendSubimage")
    assert image.write_image(noise(64, 64, 3, seed=1))
    assert image.close()
    source = read_frame(path)
    back = written(tmp_path, source, "b.exr")
    assert back.pixels.tobytes() == source.pixels.tobytes()
    assert back.parts[0].samples.tobytes() == source.parts[0].samples.tobytes()


def test_a_float_alpha_beside_half_colour_keeps_its_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.exr"
    spec = oiio.ImageSpec(24, 16, 4, "half")
    spec.channelformats = (*(oiio.TypeDesc("half"),) * 3, oiio.TypeDesc("float"))
    image = oiio.ImageOutput.create(str(path))
    assert image is not None
    assert image.open(str(path), spec)
    assert image.write_image(noise(16, 24, 4))
    assert image.close()
    source = read_frame(path)
    back = written(tmp_path, source, "b.exr")
    assert source.alpha is not None
    assert back.alpha is not None
    assert back.alpha.tobytes() == source.alpha.tobytes() == np.ascontiguousarray(noise(16, 24, 4)[:, :, 3]).tobytes()
    assert back.pixels.tobytes() == source.pixels.tobytes()


def test_a_damaged_part_is_damage(tmp_path: Path) -> None:
    path = in_parts(tmp_path / "a.exr")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FrameUnreadable):
        read_frame(path)


def test_deep_and_mixed_integer_channels_are_refused_with_a_word(tmp_path: Path) -> None:
    path = str(tmp_path / "a.exr")
    image = oiio.ImageOutput.create(path)
    assert image is not None
    spec = oiio.ImageSpec(4, 4, 4, "half")
    spec.channelnames = ("R", "G", "B", "id")
    spec.channelformats = (*(oiio.TypeDesc("half"),) * 3, oiio.TypeDesc("uint"))
    image.open(path, spec)
    image.write_image(noise(4, 4, 4))
    image.close()
    with pytest.raises(FrameUnreadable, match="channel id is of type uint"):
        read_frame(Path(path))
    spec = oiio.ImageSpec(2, 2, 3, "float")
    spec.deep = True
    image.open(path, spec)
    samples = oiio.DeepData()
    samples.init(4, 3, [oiio.TypeDesc("float")] * 3, spec.channelnames)
    image.write_deep_image(samples)
    image.close()
    with pytest.raises(FrameUnreadable, match="deep"):
        read_frame(Path(path))
