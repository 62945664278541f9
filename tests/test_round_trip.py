# SPDX-License-Identifier: Apache-2.0
"""Whole shots against their plates: at strength 0, and outside a matte, every bit is the plate's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest
from plates import noise
from shots import rendered, small_shot, with_delivery, with_look, with_plate

import tiny
from fresco_backend.files.frames import FloatArray, read_frame
from fresco_backend.render.job import open_job
from fresco_protocol.errors import FrescoError, InputError
from fresco_protocol.shot import Delivery, Grain, Highlights, Look, Matte, Plate, Shot

SIDE, COUNT = 64, 3
# Written by the delivery for itself, so that it may differ from the plate.
OWN = {"fresco:job_hash", "DateTime", "Software", "oiio:subimages", "ImageDescription", "DocumentName",
       "oiio:RowsPerChunk", "png:compressionLevel", "png:filter", "openexr:chunkCount"}  # fmt: skip


LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # Rec. ITU-R BT.709-6, item 3.2


def test_light_up_to_64_keeps_its_order_and_its_energy_through_the_whole_loop(tmp_path: Path) -> None:
    """A ramp, painted by the embedded model at its own strength: what the model cannot see comes back.

    Order: of stretches of half a stop, since a brush stroke is as wide. Energy: sum of squares of stops over middle
    grey, where the plate is over white.
    """
    ramp = np.exp2(np.linspace(-6, 6, 192))[None, :, None] * np.ones((128, 1, 3))
    plate = np.asarray(ramp.astype(np.float16), np.float32)
    pattern = write(tmp_path / "plate", "exr", "half", plate[None])
    shot = Shot(plate=Plate(sequence=pattern), look=Look(prompt="an oil painting", steps=8),
                delivery=Delivery(sequence=str(tmp_path / "out" / "look.####.exr"), working_size=128))  # fmt: skip
    rendered(shot)
    painted = read_frame(tmp_path / "out" / "look.1001.exr").pixels
    assert np.abs(painted - plate).max() > 1, "it was painted"
    before, after = (np.log2(np.maximum(picture @ LUMINANCE, 1e-6)) for picture in (plate, painted))
    over = before[0] > 0
    stretches = np.median(after[:, over], axis=0).reshape(-1, 8).mean(axis=1)
    assert np.all(np.diff(stretches) > 0)
    energy = [np.square(light[:, over] - np.log2(0.18)).sum() for light in (before, after)]
    assert energy[1] >= 0.95 * energy[0]
    assert after.max() > 5.9


def stops(low: float, high: float, seed: int) -> FloatArray:
    """Moving light from 2^low to 2^high with negative samples, (COUNT, H, W, 3) that halves hold."""
    moving = tiny.moving_plate(COUNT, SIDE).frames
    light = np.exp2(moving * (high - low) + low)
    light[:, :4] = -0.02 * noise(4, SIDE, 3, seed=seed)
    return np.asarray(light.astype(np.float16), np.float32)


def write(folder: Path, name: str, kind: str, pixels: FloatArray, **attributes: object) -> str:
    """A sequence from frame 1001 on; gives its pattern. windows: x, y, and the extent of the display window."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pixels, 1001):
        path = str(folder / f"plate.{number}.{name}")
        spec = oiio.ImageSpec(picture.shape[1], picture.shape[0], 3, kind)
        for key, value in attributes.items():
            if key == "windows" and isinstance(value, tuple):
                spec.x, spec.y, spec.full_width, spec.full_height = value
            elif isinstance(value, tuple):
                spec.attribute(key.replace("__", ":"), oiio.TypeDesc(value[0]), value[1])
            else:
                spec.attribute(key.replace("__", ":"), value)
        image = oiio.ImageOutput.create(path)
        assert image is not None
        assert image.open(path, spec) and image.write_image(picture) and image.close()
    return str(folder / f"plate.####.{name}")


def shot(plate: str, model: Path, delivery: Path, strength: float = 0.0) -> Shot:
    return with_look(small_shot(plate, model, delivery), strength=strength)


def numbers(path: Path) -> Iterator[Path]:
    return iter(sorted(found for found in path.iterdir() if found.suffix in (".exr", ".png", ".dpx")))


def pixels(path: Path) -> FloatArray:
    image = oiio.ImageInput.open(str(path))
    assert image is not None
    return np.asarray(image.read_image(0, 0, 0, image.spec().nchannels, oiio.FLOAT))


def attributes(path: Path) -> dict[str, object]:
    spec = read_frame(path).metadata
    kept = {found.name: found.value for found in spec.extra_attribs if found.name not in OWN}
    windows = (spec.x, spec.y, spec.width, spec.height, spec.full_x, spec.full_y, spec.full_width, spec.full_height)
    return {**kept, "windows": windows, "channels": spec.channelnames, "format": str(spec.format)}


@pytest.mark.parametrize(("name", "kind", "space"), [
    ("exr", "half", "ACEScg"), ("exr", "float", "ACEScg"), ("exr", "half", "lin_rec709_scene"),
    ("exr", "half", "ACES2065-1"), ("exr", "half", "ARRI LogC3 (EI800)"), ("png", "uint16", None),
    ("png", "uint8", None), ("dpx", "uint16", None), ("dpx", "uint16", "ACEScct"),
])  # fmt: skip
def test_strength_0_gives_the_plate(name: str, kind: str, space: str | None, tiny_model: Path, tmp_path: Path) -> None:
    """Greatest error: none, of every format, the whole frame."""
    light = stops(-8, 6, 1) if kind in ("half", "float") and "Log" not in str(space) else stops(-4, 0, 1)
    plate = write(tmp_path / "plate", name, kind, np.clip(light, 0, 1) if kind.startswith("uint") else light)
    rendered(with_plate(shot(plate, tiny_model, tmp_path / "out" / f"look.####.{name}"), color_space=space))
    for before, after in zip(numbers(tmp_path / "plate"), numbers(tmp_path / "out"), strict=True):
        assert pixels(after).tobytes() == pixels(before).tobytes()


def test_windows_and_metadata_are_the_plates(tiny_model: Path, tmp_path: Path) -> None:
    plate = write(
        tmp_path / "plate", "exr", "half", stops(-6, 4, 2), compression="piz", PixelAspectRatio=2.0,
        camera__lens="50 mm", owner="studio", cryptomatte__ab__manifest='{"a": "0"}',
        FramesPerSecond=("rational", (24000, 1001)), smpte__TimeCode=("timecode", (0x01020304, 0)),
        worldToCamera=("matrix", tuple(float(place) for place in range(16))),
        windows=(5, -3, 90, 70),
    )  # fmt: skip
    rendered(shot(plate, tiny_model, tmp_path / "out" / "look.####.exr", strength=0.5))
    for before, after in zip(numbers(tmp_path / "plate"), numbers(tmp_path / "out"), strict=True):
        assert attributes(after) == attributes(before)
        assert attributes(after)["windows"] == (5, -3, SIDE, SIDE, 0, 0, 90, 70)
        assert attributes(after)["FramesPerSecond"] == (24000, 1001)


def matte(folder: Path, count: int = COUNT) -> str:
    """A disc that moves with the plate."""
    return str(tiny.write_sequence(folder, tiny.moving_plate(COUNT, SIDE).matte[:count], name="matte", suffix="exr",
                                   bits="half"))


@pytest.mark.parametrize("options", [
    {}, {"grow": 3, "feather": 6.0}, {"propagate": True}, {"invert": True},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("name", ["exr", "png"])
def test_outside_the_matte_the_result_is_the_plate_bit_for_bit(
    name: str, options: dict[str, object], tiny_model: Path, tmp_path: Path
) -> None:
    kind, light = ("half", stops(-8, 6, 3)) if name == "exr" else ("uint16", np.clip(stops(-4, 0, 3), 0, 1))
    plate = write(tmp_path / "plate", name, kind, light)
    sequence = matte(tmp_path / "matte", 1 if "propagate" in options else COUNT)
    masked = replace(shot(plate, tiny_model, tmp_path / "out" / f"look.####.{name}", strength=0.75),
                     matte=_matte(sequence, options))
    rendered(masked)
    reach = 14 if "feather" in options else 6  # counted in steps along rows and columns
    truth = tiny.moving_plate(COUNT, SIDE).matte > 0
    for place, (before, after) in enumerate(
            zip(numbers(tmp_path / "plate"), numbers(tmp_path / "out"), strict=True)):  # fmt: skip
        far = _far(truth[place] ^ ("invert" in options), reach)
        assert far.sum() > 200
        assert pixels(after)[far].tobytes() == pixels(before)[far].tobytes()
        assert not np.array_equal(pixels(after), pixels(before))


def _matte(sequence: str, options: dict[str, object]) -> Matte:
    return replace(Matte(sequence=sequence), **options)  # type: ignore[arg-type]


def _far(inside: np.ndarray, reach: int) -> np.ndarray:
    """Pixels that are further than `reach` from everything inside."""
    near = inside.copy()
    for _ in range(reach):
        grown = near.copy()
        grown[1:] |= near[:-1]
        grown[:-1] |= near[1:]
        grown[:, 1:] |= near[:, :-1]
        grown[:, :-1] |= near[:, 1:]
        near = grown
    return ~near


def test_a_small_matte_is_rendered_alone(tiny_model: Path, tmp_path: Path) -> None:
    plate = write(tmp_path / "plate", "exr", "half", stops(-8, 0, 3))
    spot = np.zeros((COUNT, SIDE, SIDE), np.float32)
    spot[:, 30:34, 20:24] = 1
    sequence = str(tiny.write_sequence(tmp_path / "matte", spot, name="matte", suffix="exr", bits="half"))
    masked = replace(shot(plate, tiny_model, tmp_path / "out" / "a.####.exr"), matte=Matte(sequence=sequence))
    assert open_job(masked).working.region.size == (SIDE, SIDE)  # a side has 64 pixels at least
    assert open_job(replace(masked, matte=replace(Matte(sequence=sequence), crop=False))).working.region.x == 0


@pytest.mark.parametrize("method", Highlights)
@pytest.mark.parametrize("grain", [None, *Grain])
def test_every_choice_delivers_finite_frames_with_their_highlights(
    method: Highlights, grain: Grain | None, tiny_model: Path, tmp_path: Path
) -> None:
    plate = write(tmp_path / "plate", "exr", "half", stops(-8, 6, 4) * (1 + 0.05 * (noise(COUNT, SIDE, SIDE, 3) - 0.5)))
    asked = with_delivery(shot(plate, tiny_model, tmp_path / "out" / "a.####.exr", 0.5), highlights=method, grain=grain)
    rendered(with_plate(asked, color_space="ACEScg"))
    for path in numbers(tmp_path / "out"):
        assert np.isfinite(pixels(path)).all()
        assert method is not Highlights.PRESERVE or pixels(path).max() > 16


def test_garbage_in_the_matte_stops_the_shot_before_anything_is_written(tiny_model: Path, tmp_path: Path) -> None:
    plate = write(tmp_path / "plate", "exr", "half", stops(-8, 0, 3))
    good = shot(plate, tiny_model, tmp_path / "out" / "a.####.exr", strength=0.5)
    cases = {
        "other size": str(tiny.write_sequence(tmp_path / "b", np.ones((COUNT, 32, 32), np.float32), suffix="exr",
                                              bits="half")),
        "missing frame": matte(tmp_path / "c", 2),
        "no picture": str(tmp_path / "d" / "matte.####.exr"),
    }
    (tmp_path / "d").mkdir()
    for number in (1001, 1002, 1003):
        (tmp_path / "d" / f"matte.{number}.exr").write_bytes(b"garbage")
    for sequence in cases.values():
        with pytest.raises(InputError) as caught:
            rendered(replace(good, matte=Matte(sequence=sequence)))
        assert caught.value.remedy
    with pytest.raises(InputError, match="no channel"):
        rendered(replace(good, matte=Matte(sequence=matte(tmp_path / "e"), channel="hero")))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*.exr"))


def test_a_damaged_plate_leaves_no_half_frame(tiny_model: Path, tmp_path: Path) -> None:
    plate = write(tmp_path / "plate", "exr", "half", stops(-8, 0, 3), compression="zip")
    last = tmp_path / "plate" / "plate.1003.exr"
    last.write_bytes(last.read_bytes()[:-500])
    with pytest.raises(FrescoError, match="cannot be read"):
        rendered(shot(plate, tiny_model, tmp_path / "out" / "a.####.exr"))
    for path in (tmp_path / "out").glob("*.exr"):
        assert np.isfinite(pixels(path)).all()
    assert not list((tmp_path / "out").glob("*.part"))
