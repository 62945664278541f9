# SPDX-License-Identifier: Apache-2.0
"""Plate space to engine space and back, highlights, alpha and the composite."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest
import torch
from PIL import ImageCms
from plates import frame, header, noise, with_pixels
from torch import Tensor

from fresco_backend.files.deliveries import DeliveryWriter
from fresco_backend.files.frame_pattern import file_type
from fresco_backend.files.frames import CHROMATICITIES, FloatArray, Frame, Part, read_frame
from fresco_backend.pixels.color import (
    for_file,
    from_engine,
    plate_space,
    showing_of,
    srgb_decode,
    srgb_encode,
    to_engine,
    unknown_colours,
)
from fresco_backend.pixels.color_config import color_space, is_linear
from fresco_backend.pixels.highlights import Showing
from fresco_backend.pixels.profile import space_of
from fresco_protocol.errors import ColorError
from fresco_protocol.shot import BitDepth, Highlights, Rendering

LINEAR, SRGB = color_space("lin_rec709_scene"), color_space("srgb_rec709_scene")


def array(*values: float) -> FloatArray:
    return np.array(values, np.float32)


def scene(top: float = 64.0, seed: int = 1) -> Frame:
    """A scene-linear frame with highlights up to `top` and a few negative samples, all of them halves."""
    values = np.exp2(noise(16, 24, 3, seed=seed) * (np.log2(top) + 8) - 8)
    values[:2] = -0.05 * values[:2] / top
    return with_pixels(frame(), values.astype(np.float16).astype(np.float32))


def painted(red: float, green: float, blue: float, like: Frame) -> Tensor:
    """One display colour in [0, 1] as a stylised frame."""
    colour = torch.tensor([red, green, blue]) * 2 - 1
    return colour[:, None, None].expand(3, like.size.height, like.size.width)


def test_the_srgb_curve_has_its_golden_values_and_its_inverse() -> None:
    assert srgb_encode(array(0, 0.0031308, 0.18, 0.5, 1)) == pytest.approx(
        [0, 0.04045, 0.46135613, 0.73535698, 1], abs=1e-6
    )
    assert srgb_decode(array(0, 0.04045, 0.46135613, 0.5, 1)) == pytest.approx(
        [0, 0.0031308, 0.18, 0.21404114, 1], abs=1e-6
    )
    values = np.linspace(-2, 40, 4001, dtype=np.float32)
    assert srgb_decode(srgb_encode(values)) == pytest.approx(values, rel=2e-6, abs=1e-7)


def test_the_engine_sees_display_referred_colour() -> None:
    linear = with_pixels(frame(1, 1), array(0.18, 1.0, 30.0)[None, None])
    seen = to_engine(linear, LINEAR)
    assert seen.shape == (3, 1, 1)
    assert seen.dtype == torch.float32
    grey = to_engine(with_pixels(frame(1, 1), array(0.18, 0.18, 0.18)[None, None]), LINEAR)
    assert grey.flatten().tolist() == pytest.approx([2 * 0.46135613 - 1] * 3, abs=1e-5)
    assert to_engine(linear, SRGB).flatten().tolist() == pytest.approx([2 * 0.18 - 1, 1, 1], abs=1e-6)


@pytest.mark.parametrize("depth", [BitDepth.UINT8, BitDepth.UINT16])
def test_a_display_plate_that_no_model_touched_comes_back_with_the_same_codes(tmp_path: Path, depth: BitDepth) -> None:
    source = frame(depth=depth, file_type="png")
    back = from_engine(to_engine(source, SRGB), source, SRGB)
    path = DeliveryWriter(tmp_path / "a.png", [1], like=source).write(1, back, "0").path
    top = 255 if depth is BitDepth.UINT8 else 65535
    assert np.array_equal(np.round(read_frame(path).pixels * top), np.round(source.pixels * top))


SPACES = ["ACEScg", "lin_rec709_scene", "ACES2065-1", "Linear Rec.2020", "ARRI LogC3 (EI800)", "ACEScct", "srgb",
          "Rec.1886 Rec.709 - Display", "sRGB Encoded Rec.2020"]


@pytest.mark.parametrize("rendering", Rendering)
@pytest.mark.parametrize("method", [Highlights.PRESERVE, Highlights.MODEL])
@pytest.mark.parametrize("name", SPACES)
def test_a_plate_that_no_model_touched_comes_back_with_highlights_and_negatives(
    name: str, method: Highlights, rendering: Rendering
) -> None:
    space = color_space(name)
    showing = Showing(method=method, rendering=rendering)
    source = scene() if is_linear(space) else with_pixels(scene(), (scene().pixels / 60).astype(np.float16).astype("f"))
    assert source.pixels.max() > (40 if is_linear(space) else 1)
    assert source.pixels.min() < 0
    back = from_engine(to_engine(source, space, showing), source, space, showing)
    ulp = np.spacing(np.abs(source.pixels).astype(np.float16)).astype(np.float32)
    assert np.all(np.abs(back.pixels - source.pixels) <= ulp)


def test_float_display_plates_keep_what_is_over_white() -> None:
    source = with_pixels(frame(file_type="tiff", depth=BitDepth.FLOAT), noise(16, 24, 3) * 3 - 0.2)
    back = from_engine(to_engine(source, SRGB), source, SRGB)
    assert back.pixels == pytest.approx(source.pixels, rel=1e-5, abs=1e-6)


def test_highlights_follow_a_style_but_not_into_the_dark() -> None:
    source = with_pixels(frame(), np.full((16, 24, 3), 16.0, np.float32))
    bright = from_engine(painted(1.0, 0.9, 0.8, source), source, LINEAR).pixels[0, 0]
    assert 8 < bright @ array(0.2126, 0.7152, 0.0722) < 16.5
    assert bright[0] > bright[1] > bright[2]
    dark = from_engine(painted(0.15, 0.15, 0.15, source), source, LINEAR).pixels[0, 0]
    shown = with_pixels(source, np.broadcast_to(dark, source.pixels.shape))
    assert ((to_engine(shown, LINEAR) + 1) / 2)[:, 0, 0].tolist() == pytest.approx([0.15] * 3, abs=1e-3)


def test_a_ramp_into_the_highlights_keeps_its_order() -> None:
    ramp = np.geomspace(0.01, 64, 240, dtype=np.float32).reshape(1, -1, 1).repeat(3, axis=2)
    source = with_pixels(frame(240, 1), ramp)
    stylised = to_engine(source, LINEAR) * 0.8 + 0.1
    delivered = from_engine(stylised, source, LINEAR).pixels[0, :, 1]
    assert np.all(np.diff(delivered) > 0)
    assert delivered[-1] > 40


def test_non_finite_samples_reach_neither_the_model_nor_the_result() -> None:
    pixels = scene().pixels.copy()
    pixels[3, 3] = [np.nan, np.inf, -np.inf]
    source = with_pixels(frame(), pixels)
    seen = to_engine(source, LINEAR)
    assert torch.isfinite(seen).all()
    assert np.isfinite(from_engine(seen, source, LINEAR).pixels).all()


@pytest.mark.parametrize("file_type", ["openexr", "png"])
def test_alpha_is_divided_out_before_the_curve_and_kept(file_type: str) -> None:
    alpha = noise(16, 24, seed=4)
    alpha[:4] = 0
    straight = scene().pixels
    source = replace(scene(), alpha=alpha, associated=file_type == "openexr", file_type=file_type)
    if source.associated:
        source = with_pixels(source, straight * alpha[..., None])
        source.pixels[:4] = 0.25  # light without coverage: fire, glows
    seen = to_engine(source, LINEAR)
    assert torch.all(seen[:, :4] == 0)
    assert torch.allclose(seen[:, 4:], to_engine(with_pixels(frame(), straight), LINEAR)[:, 4:], atol=1e-3)
    back = from_engine(seen, source, LINEAR)
    assert back.pixels == pytest.approx(source.pixels, rel=1e-4, abs=1e-6)
    assert np.array_equal(back.pixels[:4], source.pixels[:4])
    assert back.alpha is source.alpha


def test_a_grey_plate_becomes_colour() -> None:
    source = replace(frame(depth=BitDepth.UINT8, file_type="png"), pixels=noise(16, 24, 1), channels=("Y",))
    seen = to_engine(source, SRGB)
    assert torch.equal(seen[0], seen[2])
    back = from_engine(painted(1, 0.5, 0, source), source, SRGB)
    assert back.channels == ("R", "G", "B")
    assert back.pixels[0, 0] == pytest.approx([1, 0.5, 0])


def test_the_space_of_a_plate_is_declared_or_that_of_its_file_type() -> None:
    assert plate_space(frame()) == LINEAR
    assert plate_space(frame(file_type="png")) == SRGB
    assert plate_space(frame(file_type="movie")) == SRGB
    assert plate_space(header(frame(), oiio__ColorSpace="srgb_rec709_scene")) == SRGB
    assert plate_space(header(frame(file_type="png"), oiio__ColorSpace="lin_rec709_scene")) == LINEAR
    assert color_space("sRGB") == SRGB
    assert str(plate_space(header(frame(), oiio__ColorSpace="lin_ap1_scene"))) == "ACEScg"
    with pytest.raises(ColorError, match="the file says that its colour space is 'NoSuchLog'") as unknown:
        plate_space(header(frame(), oiio__ColorSpace="NoSuchLog"))
    assert "--color-space" in str(unknown.value.remedy), "as a log scan that says KodakLog"


@pytest.mark.parametrize("space", ["lin_rec709_scene", "ACEScg"])
@pytest.mark.parametrize("method", Highlights)
def test_the_largest_float_under_an_alpha_harms_no_other_pixel(space: str, method: Highlights) -> None:
    """To divide it by its alpha is infinity, which a model would spread over the whole window as NaN."""
    source = frame(alpha=np.full((16, 24), 0.25, np.float32))
    source.pixels[3, 4] = np.finfo(np.float32).max
    there = color_space(space)
    seen = to_engine(source, there, showing_of(there, method, None))
    assert bool(torch.isfinite(seen).all())


def test_chromaticities_tell_the_space_of_an_exr_that_names_none() -> None:
    source = frame()
    ap1 = (0.713, 0.293, 0.165, 0.83, 0.128, 0.044, 0.32168, 0.33767)
    source.metadata.attribute("chromaticities", oiio.TypeDesc("float[8]"), ap1)
    assert str(plate_space(source)) == "ACEScg"
    assert plate_space(header(source, oiio__ColorSpace="lin_rec709_scene")) == LINEAR
    adobe = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06, 0.3127, 0.329)
    source.metadata.attribute("chromaticities", oiio.TypeDesc("float[8]"), adobe)
    with pytest.raises(ColorError, match=r"0\.21 0\.71") as unknown:
        plate_space(source)
    assert "--color-space" in str(unknown.value.remedy), "no guess, which would shift its colours"


def test_a_delivery_in_the_plates_own_space_is_the_same_frame() -> None:
    source = frame()
    assert for_file(source, LINEAR, LINEAR, "openexr") is source


def test_a_display_plate_with_alpha_becomes_linear_and_multiplied_in_exr(tmp_path: Path) -> None:
    source = frame(depth=BitDepth.UINT8, alpha=noise(16, 24), file_type="png")
    ready = for_file(source, SRGB, LINEAR, "openexr")
    assert source.alpha is not None
    assert ready.pixels == pytest.approx(srgb_decode(source.pixels) * source.alpha[..., None], abs=1e-6)
    path = DeliveryWriter(tmp_path / "a.exr", [1], like=ready).write(1, ready, "0").path
    assert plate_space(read_frame(path)) == LINEAR
    assert read_frame(path).associated


@pytest.mark.parametrize(("before", "own", "after", "target"), [
    ("a.exr", "lin_rec709_scene", "b.exr", "ACES2065-1"), ("a.exr", "lin_ap0_scene", "b.exr", "ACEScg"),
    ("a.png", "srgb_rec709_scene", "b.exr", "ACEScg"), ("a.exr", "lin_ap1_scene", "b.png", "srgb_p3d65_scene"),
    ("a.png", "pq_rec2020_display", "b.png", "sRGB"), ("a.png", "srgb_p3d65_scene", "b.exr", "lin_rec709_scene")])
def test_a_delivery_in_another_space_states_that_space_and_no_other(before: str, own: str, after: str, target: str,
                                                                    tmp_path: Path) -> None:
    """By its name; what the plate says of its own space, by a name, chromaticities or codes, is not passed on."""
    kind = "openexr" if before.endswith("exr") else "png"
    source = header(frame(depth=BitDepth.UINT16 if kind == "png" else BitDepth.HALF, file_type=kind),
                    oiio__ColorSpace=own)
    if kind == "openexr":
        source.metadata.attribute("chromaticities", oiio.TypeDesc("float[8]"), (0.64, 0.33, 0.3, 0.6) * 2)
    plate = read_frame(DeliveryWriter(tmp_path / before, [1], like=source).write(1, source, "0").path)
    assert plate_space(plate) == color_space(own)
    ready = for_file(plate, color_space(own), color_space(target), file_type(after))
    made = read_frame(DeliveryWriter(tmp_path / after, [1], like=plate).write(1, ready, "0").path)
    assert plate_space(made) == color_space(target)
    primaries = {"ACES2065-1": [0.7347, 0.2653], "ACEScg": [0.713, 0.293], "lin_rec709_scene": [0.64, 0.33]}.get(target)
    stated = made.metadata.getattribute("chromaticities")
    assert stated is None if primaries is None else list(stated[:2]) == pytest.approx(primaries)


@pytest.mark.parametrize("target", ["ACEScg", "ACEScct"])
def test_parts_beside_the_picture_state_no_other_primaries_than_it(target: str, tmp_path: Path) -> None:
    """Which are those of a file: one whose parts state different ones cannot be written."""
    depth = oiio.ImageSpec(24, 16, 1, "float")
    depth.channelnames = ("Z",)
    depth.attribute("oiio:subimagename", "depth")
    source = replace(frame(), parts=(Part(metadata=depth, samples=noise(16, 24, 1)),))
    for spec in (source.metadata, depth):
        spec.attribute("chromaticities", oiio.TypeDesc("float[8]"), CHROMATICITIES["lin_ap0_scene"])
    plate = read_frame(DeliveryWriter(tmp_path / "a.exr", [1], like=source).write(1, source, "0").path)
    ready = for_file(plate, plate_space(plate), color_space(target), "openexr")
    made = read_frame(DeliveryWriter(tmp_path / "b.exr", [1], like=plate).write(1, ready, "0").path)
    assert plate_space(made) == color_space(target)
    assert np.array_equal(made.parts[0].samples, plate.parts[0].samples)


@pytest.mark.parametrize(("description", "space"), [
    ("Display P3", "sRGB Encoded P3-D65"), ("Adobe RGB", "Gamma 2.2 Encoded AdobeRGB"),
    ("sRGB built-in", "sRGB Encoded Rec.709 (sRGB)")])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_profile_tells_the_space_of_a_picture(name: str, description: str, space: str, tmp_path: Path) -> None:
    known = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = known.replace("sRGB built-in".encode("utf-16-be"), f"{description:13}".encode("utf-16-be"))
    source = frame(depth=BitDepth.UINT8, file_type=file_type(name))
    source.metadata.attribute("ICCProfile", oiio.TypeDesc(f"uint8[{len(profile)}]"), np.frombuffer(profile, np.uint8))
    plate = read_frame(DeliveryWriter(tmp_path / name, [1], like=source).write(1, source, "0").path)
    assert str(plate_space(plate)) == space


@pytest.mark.parametrize(("codes", "space"), [
    ((9, 14, 0, 1), "sRGB Encoded Rec.2020"), ((9, 13, 0, 1), "sRGB Encoded Rec.2020"),
    ((9, 16, 0, 1), "Rec.2100-PQ - Display"), ((12, 13, 0, 1), "sRGB Encoded P3-D65"),
    ((1, 13, 0, 1), "sRGB Encoded Rec.709 (sRGB)")])
def test_the_codes_of_a_png_tell_its_space(codes: tuple[int, ...], space: str, tmp_path: Path) -> None:
    """Of its chunk cICP (PNG, third edition), in the numbers of ITU-T H.273."""
    source = frame(depth=BitDepth.UINT16, file_type="png")
    source.metadata.attribute("CICP", oiio.TypeDesc("int[4]"), codes)
    plate = read_frame(DeliveryWriter(tmp_path / "a.png", [1], like=source).write(1, source, "0").path)
    assert (str(plate_space(plate)), unknown_colours(plate)) == (space, None)
    assert plate.metadata.getattribute("CICP") == codes


@pytest.mark.parametrize(("gamma", "space"), [(2.4, "Gamma 2.4 Encoded Rec.709"), (1.8, "Gamma 1.8 Encoded Rec.709")])
def test_the_gamma_of_a_png_tells_its_space(gamma: float, space: str, tmp_path: Path) -> None:
    source = frame(depth=BitDepth.UINT16, file_type="png")
    source.metadata.attribute("oiio:ColorSpace", f"g{round(10 * gamma)}_rec709_scene")
    path = DeliveryWriter(tmp_path / "a.png", [1], like=source).write(1, source, "0").path
    assert struct.pack(">4sI", b"gAMA", round(100_000 / gamma)) in path.read_bytes()
    assert str(plate_space(read_frame(path))) == space


def profile_of(primaries: tuple[tuple[float, ...], ...], gamma: float) -> bytes:
    """A profile of the kind that displays have, without a name."""
    tags = {name: b"XYZ " + bytes(4) + struct.pack(">3i", *(round(number * 65536) for number in numbers))
            for name, numbers in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)))
    head, body, start = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        head, body = head + name + struct.pack(">II", start + len(body), len(content)), body + content
    facts = struct.pack(">I", 132 + len(head) + len(body)) + bytes(8) + b"mntrRGB XYZ ".ljust(24, b"\0") + b"acsp"
    return facts + bytes(88) + struct.pack(">I", len(tags)) + head + body


# Of ICC profiles, under D50: Apple's Display P3; Rec. ITU-R BT.2020; sRGB of HP and Microsoft, of 1998.
P3 = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
REC2020 = ((0.67348, 0.27904, -0.00193), (0.16566, 0.67534, 0.02998), (0.12505, 0.04561, 0.79686))
WIDE = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03135, 0.00009, 0.82491))  # ProPhoto RGB
OLD_SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))


@pytest.mark.parametrize(("primaries", "gamma", "space", "unknown"), [
    (P3, 2.2, "sRGB Encoded P3-D65", False), (OLD_SRGB, 2.2, "sRGB Encoded Rec.709 (sRGB)", False),
    (REC2020, 2.2, "sRGB Encoded Rec.2020", False), (WIDE, 2.2, "sRGB Encoded Rec.709 (sRGB)", True),
    (OLD_SRGB, 1.0, "sRGB Encoded Rec.709 (sRGB)", True)])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_a_profile_is_known_by_its_numbers_and_an_unknown_one_is_told(
        name: str, primaries: tuple[tuple[float, ...], ...], gamma: float, space: str, unknown: bool,
        tmp_path: Path) -> None:
    profile = profile_of(primaries, gamma)
    source = frame(depth=BitDepth.UINT8, file_type=file_type(name))
    source.metadata.attribute("ICCProfile", oiio.TypeDesc(f"uint8[{len(profile)}]"), np.frombuffer(profile, np.uint8))
    plate = read_frame(DeliveryWriter(tmp_path / name, [1], like=source).write(1, source, "0").path)
    assert str(plate_space(plate)) == space
    assert unknown_colours(plate) == ("the ICC profile 'without a name'" if unknown else None)


def test_no_damage_to_a_profile_is_an_error() -> None:
    whole = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert space_of(whole) == "srgb_rec709_scene"
    random = np.random.default_rng(0)
    for place in range(0, len(whole), 3):
        space_of(whole[:place])
        damaged = bytearray(whole)
        damaged[place : place + 4] = random.bytes(4)
        space_of(bytes(damaged))


def test_a_profile_of_the_plates_space_is_not_passed_on_to_another(tmp_path: Path) -> None:
    source = frame(depth=BitDepth.UINT8, file_type="tiff")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source.metadata.attribute("ICCProfile", oiio.TypeDesc(f"uint8[{len(profile)}]"), np.frombuffer(profile, np.uint8))
    for target, kept in ((SRGB, True), (LINEAR, False)):
        ready = for_file(source, SRGB, target, "tiff")
        made = read_frame(DeliveryWriter(tmp_path / f"{kept}.tif", [1], like=source).write(1, ready, "0").path)
        assert (made.metadata.getattribute("ICCProfile") is not None) is kept


def test_light_under_no_alpha_is_kept_in_another_space() -> None:
    """Fire and glows: colour that is added without covering anything."""
    alpha = np.tile(np.linspace(0, 1, 24, dtype=np.float32), (16, 1))
    source, acescg = replace(scene(), alpha=alpha), color_space("lin_ap1_scene")
    ready = for_file(source, acescg, LINEAR, "openexr")
    plain = for_file(replace(source, alpha=None), acescg, LINEAR, "openexr")
    assert ready.pixels == pytest.approx(plain.pixels, rel=1e-4, abs=1e-5), "a matrix knows no alpha"


def test_a_linear_plate_becomes_display_referred_in_png(tmp_path: Path) -> None:
    ready = for_file(scene(1.0), LINEAR, SRGB, "png")
    path = DeliveryWriter(tmp_path / "a.png", [1], like=ready).write(1, ready, "0").path
    assert read_frame(path).pixels == pytest.approx(np.clip(srgb_encode(scene(1.0).pixels), 0, 1), abs=1e-5)
    assert plate_space(read_frame(path)) == SRGB


def test_a_picture_of_scene_light_is_made_by_the_plates_rendering() -> None:
    source, space = with_pixels(frame(), scene(8.0).pixels), color_space("ACEScg")
    ready = for_file(source, space, SRGB, "png")
    assert ready.pixels == pytest.approx((to_engine(source, space).permute(1, 2, 0).numpy() + 1) / 2, abs=1e-6)
    plain = for_file(source, space, SRGB, "png", Showing(method=Highlights.PRESERVE, rendering=Rendering.SRGB))
    assert plain.pixels.max() == 1
    assert not np.allclose(plain.pixels, ready.pixels, atol=0.02)
    assert for_file(source, space, color_space("ACEScct"), "openexr").pixels.max() < 1  # a log curve is no rendering
