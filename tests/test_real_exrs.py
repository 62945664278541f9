# SPDX-License-Identifier: Apache-2.0
"""EXR files of other programs (tests/exr/README.md says whose): delivered bit for bit, or refused with a word."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest
from test_round_trip import OWN

from fresco_backend.files.deliveries import DeliveryWriter
from fresco_backend.files.frames import FloatArray, as_rgb, cleaned, read_channels, read_frame
from fresco_backend.pixels.mattes import channel_samples, composite
from fresco_protocol.errors import FrameUnreadable, FrescoError
from fresco_protocol.shot import Matte

HERE = Path(__file__).parent / "exr"
GOOD = ("GammaChart", "GrayRampsHorizontal", "multipart", "scanline_with_deepscanline_type",
        "tiled_with_scanlineimage_type", "v1.7.test.1")  # fmt: skip
REFUSED = {
    "11.deep": "deep samples", "manifest_id": "channel id is of type uint", "tiled": "tiles were missing",
    "unfinished_multipart": "no colour, only Z", "invalid": "not an OpenEXR file",
    "invalid_shared_attrs_multipart": "TYPE_MISMATCH", "comp_bad_bounds_piz": "SIZE_MISMATCH",
    "comp_bad_neg_bounds_pxr24": "SIZE_MISMATCH", "comp_early_eof_piz": "damaged",
    "comp_invalid_unknown": "displayWindow", "comp_short_decode_piz": "SIZE_MISMATCH",
}  # fmt: skip
WHOLE = sorted(Path(os.environ["FRESCO_EXRS"]).rglob("*.exr")) if "FRESCO_EXRS" in os.environ else []
MULTILAYER = HERE / "blender" / "multilayer.exr"
ELSEWHERE = {"oiio:SourcePath", "oiio:miplevels", "openexr:roundingmode", "openexr:dwaCompressionLevel"}
"""Where the file lies, its smaller levels, since the delivery is the picture alone, and the level of a lossy codec."""


def redelivered(path: Path, folder: Path) -> Path:
    frame = read_frame(path)
    return DeliveryWriter(folder / "out.####.exr", [1], like=frame).write(1, frame, "0").path


def parts(path: Path) -> list[oiio.ImageBuf]:
    first = oiio.ImageBuf(str(path))
    return [first, *(oiio.ImageBuf(str(path), place, 0) for place in range(1, first.nsubimages))]


def channel(buf: oiio.ImageBuf, name: str) -> FloatArray:
    return np.asarray(buf.get_pixels(oiio.FLOAT), np.float32)[:, :, buf.spec().channelnames.index(name)]


def facts(spec: oiio.ImageSpec) -> dict[str, object]:
    """Windows, attributes, and how each channel is stored: what `oiiotool --diff` and `--info -v` would show."""
    windows = (spec.x, spec.y, spec.width, spec.height, spec.full_x, spec.full_y, spec.full_width, spec.full_height)
    channels = {name: str(spec.channelformat(place)) for place, name in enumerate(spec.channelnames)}
    # OpenImageIO passes attributes of unknown types on as bytes when it reads, and writes none of them.
    known = [each for each in spec.extra_attribs if not str(each.type).startswith("uint8")]
    stated = {each.name: str(each.value) for each in known if each.name not in OWN | ELSEWHERE and each.value != ""}
    return {"windows": windows, "channels": channels, **stated}


def assert_same(path: Path, delivered: Path) -> None:
    """Every sample of every part, non-finite colour replaced as said, and every attribute."""
    before, after = parts(path), parts(delivered)
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        wanted, found = facts(one.spec()), facts(other.spec())
        if one.spec().get_string_attribute("compression").startswith(("dwa", "b44")):
            assert found.pop("compression") == "zip"
            wanted.pop("compression")
        assert {key: found.get(key) for key in wanted} == wanted
        for name in one.spec().channelnames:
            samples, kept = (channel(buf, name) for buf in (one, other))
            same = np.array_equal(samples, kept, equal_nan=True)
            assert same or np.array_equal(cleaned(samples).samples, kept), name


@pytest.mark.parametrize("name", GOOD)
def test_a_file_of_openexr_is_delivered_as_it_was(tmp_path: Path, name: str) -> None:
    path = HERE / "openexr" / f"{name}.exr"
    assert_same(path, redelivered(path, tmp_path))


@pytest.mark.parametrize(("name", "word"), REFUSED.items())
def test_a_file_of_openexr_that_is_damaged_or_deep_is_refused_with_a_word(name: str, word: str) -> None:
    with pytest.raises(FrameUnreadable, match=word):
        read_frame(HERE / "openexr" / f"{name}.exr")


@pytest.mark.skipif(not WHOLE, reason="FRESCO_EXRS names no folder of EXR files")
@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.name)
def test_any_file_is_delivered_as_it_was_or_refused(tmp_path: Path, path: Path) -> None:
    try:
        delivered = redelivered(path, tmp_path)
    except FrescoError as refusal:
        assert str(refusal)
        return
    assert_same(path, delivered)


def test_a_render_of_blender_keeps_its_layers(tmp_path: Path) -> None:
    frame = read_frame(MULTILAYER)
    assert frame.channels == tuple(f"ViewLayer.Combined.{letter}" for letter in "RGB")
    assert len(frame.extra) == 14
    assert_same(MULTILAYER, redelivered(MULTILAYER, tmp_path))


def test_objects_of_blenders_cryptomatte_are_found_by_name_and_by_id() -> None:
    image, frame = read_channels(MULTILAYER), read_frame(MULTILAYER)
    hero, by_id, floor = (
        channel_samples(image, Matte(sequence=str(MULTILAYER), channel=name))
        for name in ("hero", "0x82ce30b4", "floor")
    )
    assert np.array_equal(hero, by_id)
    assert 0.05 < hero.mean() < 0.4 and floor.mean() > hero.mean()
    assert (hero + floor).max() <= 1 + 1e-6
    depth = image.by_name["ViewLayer.Depth.Z"]
    assert depth[hero == 1].max() < depth[floor == 1].max(), "the cube stands before the far end of the floor"
    black = np.zeros_like(as_rgb(frame.pixels))
    painted = composite(replace(frame, pixels=black), frame, hero)
    assert np.array_equal(painted.pixels[hero == 0], frame.pixels[hero == 0])
    assert not painted.pixels[hero == 1].any()
