# SPDX-License-Identifier: Apache-2.0
"""The proof that an image file is whole: every sample decodes, whatever the type, the tiles and the parts."""

from __future__ import annotations

from pathlib import Path

import OpenImageIO as oiio  # noqa: N813
import pytest
from plates import noise

from fresco_backend.files.image_files import decoded
from fresco_protocol.errors import FrameUnreadable

PARTS = Path(__file__).parent / "exr" / "openexr" / "multipart.exr"
HEIGHT, WIDTH = 300, 40  # more rows than are read at once


def written(path: Path, *, tiled: bool = False, compression: str | None = None) -> Path:
    spec = oiio.ImageSpec(WIDTH, HEIGHT, 3, "half" if path.suffix == ".exr" else "uint8")
    spec.y = 7 if path.suffix == ".exr" else 0
    if tiled:
        spec.tile_width = spec.tile_height = 16
    if compression:
        spec["compression"] = compression
    image = oiio.ImageOutput.create(str(path))
    assert image is not None and image.open(str(path), spec)
    samples = noise(HEIGHT, WIDTH, 3)
    assert image.write_tiles(0, WIDTH, 7, 7 + HEIGHT, 0, 1, samples) if tiled else image.write_image(samples)
    assert image.close()
    return path


@pytest.mark.parametrize("name", ["a.exr", "a.png", "a.tif", "a.jpg", "a.dpx"])
def test_a_whole_file_gives_its_header(tmp_path: Path, name: str) -> None:
    (spec,) = decoded(written(tmp_path / name))
    assert (spec.width, spec.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("compression", ["none", "zip", "zips", "piz", "dwab"])
@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_a_file_that_ends_too_early_is_refused(tmp_path: Path, compression: str, tiled: bool, kept: float) -> None:
    path = written(tmp_path / "a.exr", tiled=tiled, compression=compression)
    assert len(decoded(path)) == 1
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(FrameUnreadable):
        decoded(path)


def test_all_parts_are_decoded_and_one_that_is_damaged_is_found(tmp_path: Path) -> None:
    assert [spec.nchannels for spec in decoded(PARTS)] == [1, 3]
    (tmp_path / "torn.exr").write_bytes(PARTS.read_bytes()[:-200])  # the end of the second part
    with pytest.raises(FrameUnreadable):
        decoded(tmp_path / "torn.exr")
