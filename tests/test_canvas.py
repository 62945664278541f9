# SPDX-License-Identifier: Apache-2.0
"""Data windows: frames of different ones on one canvas and back, mattes laid where they belong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest
from plates import frame, noise
from test_frames import in_parts

from fresco_backend.files.canvas import cut, laid_on, matte_on, union
from fresco_backend.files.deliveries import DeliveryWriter
from fresco_backend.files.frames import Channels, ExtraChannel, Frame, Window, data_window, display_window, read_frame
from fresco_backend.files.sequences import FramePattern, SequenceReader
from fresco_protocol.errors import FrameSize, MatteError
from fresco_protocol.shot import BitDepth, Missing

DISPLAY = Window(0, 0, 40, 30)


def windowed(window: Window, display: Window = DISPLAY, seed: int = 0) -> Frame:
    """A frame with alpha and ids whose pixels lie in a window."""
    ids = np.arange(window.width * window.height, dtype=np.float32).reshape(window.height, window.width)
    source = replace(
        frame(window.width, window.height, seed=seed),
        alpha=np.ones((window.height, window.width), np.float32),
        extra=(ExtraChannel(name="id", samples=ids, format=BitDepth.FLOAT),),
    )
    spec = oiio.ImageSpec(source.metadata)
    spec.x, spec.y = window.x, window.y
    spec.full_x, spec.full_y, spec.full_width, spec.full_height = display
    return replace(source, metadata=spec)


def test_a_frame_on_the_canvas_is_black_around_and_comes_back_bit_for_bit() -> None:
    source = windowed(Window(5, -2, 10, 8))
    canvas = union([DISPLAY, data_window(source.metadata)])
    assert canvas == Window(0, -2, 40, 32)
    laid = laid_on(source, canvas)
    assert laid.size == (40, 32)
    assert laid.pixels[0:8, 5:15].tobytes() == source.pixels.tobytes()
    assert laid.alpha is not None
    assert (laid.pixels.sum(), laid.alpha.sum()) == (source.pixels[:].sum(), 80)
    back = cut(laid, "openexr")
    assert data_window(back.metadata) == Window(5, -2, 10, 8)
    assert back.pixels.tobytes() == source.pixels.tobytes()
    assert back.extra[0].samples.tobytes() == source.extra[0].samples.tobytes()


def test_the_canvas_is_that_of_the_picture_whatever_parts_stand_before_it(tmp_path: Path) -> None:
    """Parts that are not the picture have windows of their own, here a smaller one."""
    in_parts(tmp_path / "plate.1001.exr")
    reader = SequenceReader(FramePattern.parse(tmp_path / "plate.####.exr"), None, Missing.ERROR)
    assert reader.window == Window(0, 0, 24, 16)
    assert reader.read(1001).size == (24, 16)


def test_a_file_type_without_windows_holds_what_is_to_be_seen() -> None:
    overscan = windowed(Window(-4, -3, 48, 36))
    shown = cut(overscan, "png")
    assert shown.size == (40, 30)
    assert np.array_equal(shown.pixels, overscan.pixels[3:33, 4:44])
    assert cut(overscan, "openexr") is overscan


def test_a_tiff_holds_the_display_window_unless_the_plate_is_one(tmp_path: Path) -> None:
    """Its tags know no window left of 0, and most programs none at all: overscan would shift the picture."""
    overscan = replace(windowed(Window(-4, -3, 48, 36)), extra=())
    writer = DeliveryWriter(tmp_path / "a.tif", [1], like=overscan)
    shown = read_frame(writer.write(1, overscan, "0").path)
    assert data_window(shown.metadata) == display_window(shown.metadata) == DISPLAY
    assert np.abs(shown.pixels - overscan.pixels[3:33, 4:44]).max() < 1 / 65535
    cropped = replace(windowed(Window(4, 3, 20, 10)), extra=(), file_type="tiff")
    back = read_frame(DeliveryWriter(tmp_path / "b.tif", [1], like=cropped).write(1, cropped, "0").path)
    assert data_window(back.metadata) == Window(4, 3, 20, 10)


def test_a_plate_whose_data_windows_follow_its_subject_is_one_plate(tmp_path: Path) -> None:
    windows = {1: Window(0, 0, 10, 8), 2: Window(6, 4, 12, 9), 3: Window(-2, 1, 5, 5)}
    for number, window in windows.items():
        source = windowed(window, seed=number)
        DeliveryWriter(tmp_path / f"p.{number:04d}.exr", [number], like=source).write(number, source, "0")
    plate = SequenceReader(FramePattern.parse(tmp_path / "p.%04d.exr"), None, Missing.ERROR)
    assert plate.window == Window(-2, 0, 20, 13)
    writer = DeliveryWriter(tmp_path / "out.%04d.exr", [1, 2, 3], like=plate.read(1))
    for number, window in windows.items():
        assert plate.read(number).size == plate.size
        back = read_frame(writer.write(number, plate.read(number), "0").path)
        assert data_window(back.metadata) == window
        assert back.pixels.tobytes() == windowed(window, seed=number).pixels.tobytes()


def test_another_display_window_is_another_plate(tmp_path: Path) -> None:
    for number, display in ((1, DISPLAY), (2, Window(0, 0, 41, 30))):
        source = windowed(Window(0, 0, 10, 8), display)
        DeliveryWriter(tmp_path / f"p.{number:04d}.exr", [number], like=source).write(number, source, "0")
    with pytest.raises(FrameSize, match="frame 2 is 41x30, and frame 1 is 40x30"):
        SequenceReader(FramePattern.parse(tmp_path / "p.%04d.exr"), None, Missing.ERROR)


def test_a_matte_lies_where_its_window_says() -> None:
    canvas = Window(-4, -3, 48, 36)
    cropped = Channels(by_name={"A": noise(8, 10)}, metadata=windowed(Window(20, 10, 10, 8)).metadata)
    laid = matte_on(cropped, canvas, DISPLAY)["A"]
    assert laid.shape == (36, 48)
    assert np.array_equal(laid[13:21, 24:34], cropped.by_name["A"])
    assert laid.sum() == pytest.approx(cropped.by_name["A"].sum(), rel=1e-6)
    whole = Channels(by_name={"A": noise(36, 48)}, metadata=oiio.ImageSpec(48, 36, 1, "half"))
    assert matte_on(whole, canvas, DISPLAY)["A"] is whole.by_name["A"]
    with pytest.raises(MatteError, match="12x9"):
        matte_on(Channels(by_name={"A": noise(9, 12)}, metadata=oiio.ImageSpec(12, 9, 1, "half")), canvas, DISPLAY)
