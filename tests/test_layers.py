# SPDX-License-Identifier: Apache-2.0
"""Which picture of a file is meant: layers, parts, and the views of stereo plates as Nuke and Blender write them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest
from plates import noise
from shots import rendered, small_shot, with_delivery, with_plate

from fresco_backend import pipeline
from fresco_backend.events import Warned
from fresco_backend.files.frames import FloatArray, read_frame, read_header
from fresco_backend.files.layers import alike, picture
from fresco_backend.files.plate import open_plate
from fresco_backend.report.delivered import open_delivered
from fresco_protocol.errors import FrameUnreadable, InputError, UsageError
from fresco_protocol.shot import Rate, Shot

HERE = Path("x.exr")
SIDE = 64


def header(names: Sequence[str], *, part: str = "", view: str = "", views: Sequence[str] = ()) -> oiio.ImageSpec:
    spec = oiio.ImageSpec(SIDE, SIDE, len(names), "half")
    spec.channelnames = tuple(names)
    for name, text in (("oiio:subimagename", part), ("view", view)):
        if text:
            spec.attribute(name, text)
    if views:
        spec.attribute("multiView", oiio.TypeDesc(f"string[{len(views)}]"), tuple(views))
    return spec


def colours(*layers: str, letters: str = "RGB") -> list[str]:
    return [f"{layer}.{letter}" if layer else letter for layer in layers for letter in letters]


def test_the_layer_with_the_picture_is_found() -> None:
    def found(names: Sequence[str]) -> tuple[tuple[int, ...], int | None]:
        one = picture([header(names)], None, HERE)
        return one.colour, one.alpha

    assert found(["A", "B", "G", "R", *colours("diffuse")]) == ((3, 2, 1), 0)
    assert found([*colours("beauty"), "Z"]) == ((0, 1, 2), None)
    assert found(colours("ViewLayer.Combined", "ViewLayer.Glossy", letters="RGBA")) == ((0, 1, 2), 3)
    with pytest.raises(InputError, match="spec, diff") as caught:
        found(colours("spec", "diff", letters="rgb"))
    assert caught.value.remedy == "Name the one to stylise, for example --layer spec"
    with pytest.raises(FrameUnreadable, match="no colour"):
        found(["Z"])


def test_a_beauty_behind_other_parts_is_the_picture() -> None:
    """Parts may stand in the order of their names, and albedo comes before rgba."""
    parts = [header(colours("albedo"), part="albedo"), header(colours(""), part="rgba"), header(["Z"], part="depth")]
    assert picture(parts, None, HERE).place == 1
    assert alike(parts, 1, "RGB") == ("rgba",)
    with pytest.raises(InputError, match="albedo, beauty"):
        picture([header(colours("albedo"), part="albedo"), header(colours("beauty"), part="beauty")], None, HERE)


def test_a_cryptomatte_is_no_picture() -> None:
    """Ids lie in R, G, B and A too: of a layer with a number, or of a part; its preview bears the name alone."""
    names = [*colours("beauty"), *colours("crypto_asset00", "crypto_asset01", "Id", "Id00", letters="RGBA")]
    one = header(names)
    one.attribute("cryptomatte/b5d1c0e/name", "Id")
    assert picture([one], None, HERE).layer == "beauty"
    parts = [header(colours("", letters="RGBA"), part=name) for name in ("crypto_asset00", "rgba", "crypto_asset01")]
    assert picture(parts, None, HERE).part == "rgba"
    assert alike(parts, 1, "RGB") == ("rgba",)
    with pytest.raises(FrameUnreadable, match="no colour"):
        picture([header(colours("crypto_asset00"))], None, HERE)


def stereo(kind: str) -> list[oiio.ImageSpec]:
    """The headers of a file with two views."""
    views = ("left", "right")
    if kind == "parts":
        return [header(colours(""), part="rgb.left", view="left"), header(["Z"], part="depth.left", view="left"),
                header(colours(""), part="rgb.right", view="right")]
    if kind == "blender":
        return [header([f"VL.{layer}.{letter}" for letter in letters], part=f"VL.{layer}-{view}", view=view)
                for layer, letters in (("Combined", "RGBA"), ("AO", "RGB")) for view in views]
    names = {"one part": [*colours("", "right"), "Z"], "named views": colours(*views),
             "layers of views": colours(*(f"VL.{layer}.{view}" for layer in ("Combined", "AO") for view in views))}
    return [header(names[kind], views=views)]


@pytest.mark.parametrize("kind", ["parts", "blender", "one part", "named views", "layers of views"])
def test_a_view_of_a_stereo_plate_is_chosen_by_its_name(kind: str) -> None:
    headers = stereo(kind)
    usual = picture(headers, None, HERE)
    assert (usual, usual.view) == (picture(headers, "LEFT", HERE), "left")
    right = picture(headers, "right", HERE)
    assert right.view == "right"
    assert (right.place, right.colour) != (usual.place, usual.colour)
    named = [headers[usual.place].channelnames[index] for index in usual.colour]
    assert alike(headers, usual.place, named) == ("left", "right")
    with pytest.raises(InputError, match="no layer 'middle'") as caught:
        picture(headers, "middle", HERE)
    assert "right" in (caught.value.remedy or "")


def test_a_layer_is_chosen_by_its_name_or_the_end_of_it_and_a_part_by_its_own() -> None:
    blender = stereo("blender")
    assert picture(blender, "VL.AO-right", HERE).place == 3
    assert picture(blender, "ao", HERE).place == 2
    layers = [header([*colours("", "diffuse"), "diffuse.A"])]
    assert picture(layers, "diffuse", HERE)[1:3] == ((3, 4, 5), 6)
    assert alike(layers, 0, "RGB") == ("R, G, B",)  # its layers are no rivals of the beauty


def write(path: Path, headers: Sequence[oiio.ImageSpec], seed: int = 0) -> dict[str, FloatArray]:
    """A file of random samples, and each channel by "place.name"."""
    samples = [noise(spec.height, spec.width, spec.nchannels, seed=seed + place).astype(np.float16).astype(np.float32)
               for place, spec in enumerate(headers)]
    image = oiio.ImageOutput.create(str(path))
    assert image is not None
    assert image.open(str(path), tuple(headers)) if len(headers) > 1 else image.open(str(path), headers[0])
    for place, (spec, pixels) in enumerate(zip(headers, samples, strict=True)):
        assert place == 0 or image.open(str(path), spec, "AppendSubimage")
        assert image.write_image(pixels)
    assert image.close()
    return channels(path)


def channels(path: Path) -> dict[str, FloatArray]:
    first = oiio.ImageBuf(str(path))
    parts = [oiio.ImageBuf(str(path), place, 0) for place in range(first.nsubimages)]
    return {f"{place}.{name}": np.asarray(part.get_pixels(oiio.FLOAT), np.float32)[:, :, number]
            for place, part in enumerate(parts) for number, name in enumerate(part.spec().channelnames)}


def stereo_shot(kind: str, model: Path, folder: Path, name: str = "look.%04d.exr") -> Shot:
    folder.mkdir(exist_ok=True)
    for number in (1, 2):
        write(folder / f"plate.{number:04d}.exr", stereo(kind), seed=10 * number)
    shot = small_shot(folder / "plate.%04d.exr", model, folder / "out" / name)
    return with_plate(shot, frames=None)


@pytest.mark.parametrize("kind", ["parts", "blender", "one part", "named views"])
@pytest.mark.parametrize("layer", [None, "right"])
def test_one_view_is_stylised_and_every_other_channel_is_the_plates(
        layer: str | None, kind: str, tiny_model: Path, tmp_path: Path) -> None:
    shot = with_plate(stereo_shot(kind, tiny_model, tmp_path / "shot"), layer=layer)
    warnings = [event for event in rendered(shot) if isinstance(event, Warned)]
    assert [warning.code for warning in warnings] == ([] if layer else ["several-pictures"])
    meant = picture(stereo(kind), layer, HERE)
    names = {f"{meant.place}.{stereo(kind)[meant.place].channelnames[index]}" for index in meant.colour}
    for number in (1, 2):
        before = channels(tmp_path / "shot" / f"plate.{number:04d}.exr")
        after = channels(tmp_path / "shot" / "out" / f"look.{number:04d}.exr")
        assert before.keys() == after.keys()
        assert {name for name in before if not np.array_equal(before[name], after[name])} == names
    with closing(open_delivered(shot.delivery.sequence)) as made:
        assert np.array_equal(made.result.read(1).pixels, read_frame(
            tmp_path / "shot" / "out" / "look.0001.exr", layer).pixels)


def test_the_warning_says_which_view_is_stylised_and_what_becomes_of_the_other(
        tiny_model: Path, tmp_path: Path) -> None:
    shot = stereo_shot("parts", tiny_model, tmp_path / "shot")
    (warning,) = pipeline.plan(shot).warnings
    assert "(left, right): left is stylised, and all else is delivered as the plate has it" in warning.text
    assert "--layer right" in warning.text
    movie = with_plate(with_delivery(shot, sequence=str(tmp_path / "out.mov")), rate=Rate(numerator=24))
    (warning,) = pipeline.plan(movie).warnings
    assert "the movie holds nothing else" in warning.text


def test_a_view_that_is_smaller_has_its_own_window(tmp_path: Path) -> None:
    left, right = (oiio.ImageSpec(spec) for spec in (stereo("parts")[0], stereo("parts")[2]))
    right.width, right.x = 32, 16
    write(tmp_path / "a.0001.exr", [left, right])
    assert (read_header(tmp_path / "a.0001.exr", "right").width, read_header(tmp_path / "a.0001.exr").width) == (32, 64)
    assert open_plate(tmp_path / "a.0001.exr", layer="right").size.width == 32


def test_a_movie_has_no_layers(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a movie has no layers"):
        open_plate(tmp_path / "a.mov", layer="right")
