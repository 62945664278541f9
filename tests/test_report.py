# SPDX-License-Identifier: Apache-2.0
"""The report of a delivery: what is measured, what a page holds, and that it says what is missing."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import OpenImageIO as oiio  # noqa: N813
import plates
import pytest
import torch
from PIL import Image
from shots import FRAMES, rendered, small_shot, with_delivery, with_look, write_plate

import tiny
from fresco_backend import cli
from fresco_backend.commands.report_command import report
from fresco_backend.files.deliveries import DeliveryWriter
from fresco_backend.files.frames import Size
from fresco_backend.render.record import path_of
from fresco_backend.report import plots
from fresco_backend.report.delivered import DeliveredShot, open_delivered
from fresco_backend.report.figures import Figures, Moment, measured
from fresco_backend.report.page import BUDGET, look, page, remarks
from fresco_backend.report.pictures import flow_pixels, spread
from fresco_protocol.errors import InputError, MatteError, PlateMissing, UsageError
from fresco_protocol.shot import Matte, Missing, Rate, Shot, parse_frames

KEYFRAMES = {1001, 1003, 1005, 1007, 1009}


@pytest.fixture(scope="module")
def shot(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Shot:
    """A delivered shot with a matte."""
    folder = tmp_path_factory.mktemp("report")
    matte = tiny.write_sequence(folder / "matte", tiny.moving_plate(len(FRAMES), 64).matte)
    made = small_shot(write_plate(folder / "plate"), tiny_model, folder / "out" / "look.####.png")
    made = replace(made, matte=Matte(sequence=str(matte)), name="a <b>harbour</b>")
    rendered(made)
    return made


def page_data(html: str) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    return cast(dict[str, Any], json.loads(found[1]))


def test_a_page_holds_every_figure_and_needs_nothing_from_elsewhere(shot: Shot, tmp_path: Path) -> None:
    path = tmp_path / "look.html"
    assert report([shot.delivery.sequence], path, tmp_path / "sheet.png") == [path, tmp_path / "sheet.png"]
    html = path.read_text(encoding="utf-8")
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", html)
    assert all(address.startswith(("data:", "#")) for address in addresses), "a page of one file"
    assert not re.findall(r"url\((?!#)", html) and "@import" not in html
    assert "a &lt;b&gt;harbour&lt;/b&gt;" in html and "<b>harbour" not in html, "names are text, not markup"
    version = page_data(html)["versions"][0]
    assert [figures["frame"] for figures in version["figures"]] == list(FRAMES)
    assert {figures["frame"] for figures in version["figures"] if figures["keyframe"]} == KEYFRAMES
    assert set(version["views"]["1002"]) == {"plate", "result", "flow", "occlusion", "matte"}
    assert set(version["views"]["1001"]) == {"plate", "result", "matte"}, "nothing moves into the first frame"
    assert html.count("<svg") == 5
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.width > 6 * 64 and np.asarray(sheet).std() > 10


def test_figures_tell_a_flash_from_a_steady_shot(shot: Shot) -> None:
    delivered = open_delivered(shot.delivery.sequence)
    steady = [moment.figures for moment in measured(cast(DeliveredShot, _Doctored(delivered, flash=None)))]
    flashed = [moment.figures for moment in measured(cast(DeliveredShot, _Doctored(delivered, flash=1005)))]
    delivered.close()
    assert steady[0].warp_error is None and steady[0].flicker is None and steady[0].occlusion is None
    assert all(abs(figures.flicker or 0) < 1e-3 for figures in steady), "the plate's own light is no flicker"
    assert all(figures.contrast == pytest.approx(1) and figures.colour == (0, 0, 0) for figures in steady)
    assert [figures.frame for figures in flashed if abs(figures.flicker or 0) > 2] == [1005, 1006]
    assert (flashed[4].flicker or 0) > 0 > (flashed[5].flicker or 0)
    assert (flashed[4].warp_error or 0) > 2 * (steady[4].warp_error or 0)
    assert all(part == pytest.approx(12.75, abs=1.5) for part in flashed[4].colour)


@pytest.mark.parametrize(("numbers", "compared"), [
    ((1001, 1003, 1005, 1007), [1003, 1005, 1007]), ((1001, 1003, 1007, 1009), [1003, 1009]),
    ((1001, 1002, 1004, 1005), [1002, 1005]), ((1004,), []),
])  # fmt: skip
def test_a_frame_of_a_stepped_range_is_compared_with_the_delivered_one_before_it(
    numbers: tuple[int, ...], compared: list[int], shot: Shot
) -> None:
    delivered = open_delivered(shot.delivery.sequence)
    stepped = _Doctored(delivered, flash=None)
    stepped.numbers = numbers
    figures = [moment.figures for moment in measured(cast(DeliveredShot, stepped))]
    delivered.close()
    assert [one.frame for one in figures if one.warp_error is not None] == compared


class _Doctored:
    """A delivery that gives the plate back, brighter by a twentieth of the range in one frame."""

    def __init__(self, delivered: DeliveredShot, flash: int | None) -> None:
        self.numbers, self.keyframes, self.shape = delivered.numbers, delivered.keyframes, delivered.shape
        self._delivered, self._flash = delivered, flash

    def plate_image(self, number: int, size: Size) -> torch.Tensor:
        return self._delivered.plate_image(number, size)

    def result_image(self, number: int, size: Size) -> torch.Tensor:
        return (self.plate_image(number, size) + 0.1 * (number == self._flash)).clamp(-1, 1)


def test_small_differences_look_small() -> None:
    def figures(number: int) -> Figures:
        tiny_step = number / 1e4
        return Figures(frame=number, keyframe=False, warp_error=tiny_step, flicker=tiny_step, occlusion=tiny_step,
                       colour=(tiny_step, tiny_step, tiny_step), contrast=1 + tiny_step)  # fmt: skip

    for plot in plots.PLOTS:
        svg = plots.drawn(plot, {"look": [figures(number) for number in range(1, 9)]})
        found = re.findall(r">([\N{MINUS SIGN}\d.]+)</text>", svg)[8:]  # behind the numbers of the frames
        ticks = [float(text.replace("\N{MINUS SIGN}", "-")) for text in found]
        assert max(ticks) - min(ticks) >= 0.5 * (plot.holds[1] - plot.holds[0]), plot.title


def test_a_plot_shows_all_frames_of_the_longer_one_of_two_deliveries() -> None:
    def figures(last: int) -> list[Figures]:
        return [Figures(frame=number, keyframe=True, warp_error=1.0, flicker=0.0, occlusion=0.0, colour=(0, 0, 0),
                        contrast=1.0) for number in range(1, last + 1)]  # fmt: skip

    labels = re.findall(r">(\d+)</text>", plots.drawn(plots.PLOTS[0], {"long": figures(20), "short": figures(4)}))
    assert max(map(int, labels)) > 15


def test_the_legend_of_a_plot_lies_where_the_lines_are_not() -> None:
    def legend_left(heights: range) -> float:
        frames = [Figures(frame=number, keyframe=True, warp_error=None, flicker=None, occlusion=0, contrast=1,
                          colour=(height, height, height)) for number, height in enumerate(heights)]  # fmt: skip
        svg = plots.drawn(plots.PLOTS[2], {"look": frames})
        found = re.search(r'<g id="legend_1">.*?d="M ([\d.]+)', svg, re.DOTALL)
        assert found
        return float(found[1])

    width = plots.SIZE[0] * 72  # points
    assert legend_left(range(24)) < width / 2 < legend_left(range(0, -24, -1))


def test_two_deliveries_are_compared(shot: Shot, tmp_path: Path) -> None:
    other = with_look(with_delivery(shot, sequence=str(tmp_path / "b.####.png")), seed=7, prompt="a photo at night")
    rendered(other)
    html = report([shot.delivery.sequence, other.delivery.sequence], tmp_path / "both.html")[0].read_text()
    first, second = page_data(html)["versions"]
    assert "a photo</p>" in html and "a photo at night</p>" in html
    assert (first["name"], second["name"]) == ("A: a <b>harbour</b>", "B: a <b>harbour</b>")
    assert first["views"]["1005"]["result"] != second["views"]["1005"]["result"]
    assert first["views"]["1005"]["plate"] == second["views"]["1005"]["plate"]
    short = with_delivery(other, sequence=str(tmp_path / "short.####.png"))
    rendered(replace(short, plate=replace(short.plate, frames=parse_frames("1001-1004"))))
    with pytest.raises(InputError, match="different frames: 1001-1009 and 1001-1004"):
        report([shot.delivery.sequence, short.delivery.sequence], tmp_path / "no.html")
    assert not (tmp_path / "no.html").exists()


def test_a_movie_is_reported_by_the_plates_frame_numbers(shot: Shot, tmp_path: Path) -> None:
    movie = with_delivery(shot, sequence=str(tmp_path / "look.mov"))
    rendered(replace(movie, plate=replace(movie.plate, rate=Rate(numerator=24, denominator=1))))
    delivered = open_delivered(str(tmp_path / "look.mov"))
    pictures = open_delivered(shot.delivery.sequence)
    size = Size(64, 64)
    distances = {number: (delivered.result_image(1005, size) - pictures.result_image(number, size)).abs().mean()
                 for number in FRAMES}
    assert min(distances, key=lambda number: float(distances[number])) == 1005
    delivered.close()
    pictures.close()


@pytest.mark.parametrize("name", ["look.####.png", "look.mov", "look.####.exr"])
def test_a_plate_with_overscan_is_compared_where_the_delivery_shows_it(name: str, tiny_model: Path,
                                                                       tmp_path: Path) -> None:
    """A delivery that is the plate is like the plate, whatever its type of file holds of the overscan."""
    for number in (1, 2):
        spec = oiio.ImageSpec(96, 80, 3, "half")
        spec.x, spec.y, spec.full_width, spec.full_height = -16, -8, 64, 64
        ramp = np.linspace(0.1, 0.8, 96, dtype=np.float32)[None, :, None] * np.ones((80, 1, 3), np.float32)
        overscan = replace(plates.frame(96, 80), pixels=ramp, metadata=spec)
        DeliveryWriter(tmp_path / f"p.{number}.exr", [number], like=overscan).write(number, overscan, "0")
    matte = tiny.write_sequence(tmp_path / "matte", tiny.moving_plate(2, 64).matte, first=1)
    made = small_shot(tmp_path / "p.#.exr", tiny_model, tmp_path / "out" / name)
    made = replace(with_look(made, strength=0.0), matte=Matte(sequence=str(matte)),
                   plate=replace(made.plate, rate=Rate(numerator=24), frames=parse_frames("1-2")))
    rendered(made)
    delivered = open_delivered(made.delivery.sequence)
    size = Size(96, 80) if name.endswith("exr") else Size(64, 64)
    assert delivered.size == size
    difference = delivered.plate_image(2, size) - delivered.result_image(2, size)
    assert float(difference.abs().mean()) < 0.02, "of 2"
    assert cast(torch.Tensor, delivered.matte_image(2, size)).shape == (1, size.height, size.width)
    delivered.close()


def test_a_squeezed_plate_is_shown_as_people_see_it(tiny_model: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        squeezed = plates.header(plates.frame(64, 64, seed=number), PixelAspectRatio=2.0)
        DeliveryWriter(tmp_path / f"p.{number}.exr", [number], like=squeezed).write(number, squeezed, "0")
    made = small_shot(tmp_path / "p.#.exr", tiny_model, tmp_path / "out" / "look.####.exr")
    made = replace(with_look(made, strength=0.0), plate=replace(made.plate, frames=parse_frames("1-2")))
    rendered(made)
    assert report([made.delivery.sequence], tmp_path / "look.html", tmp_path / "sheet.png")
    html = (tmp_path / "look.html").read_text(encoding="utf-8")
    assert "--aspect: 2.0000" in html
    assert "64x64" in html, "its pixels are told as they are"


def test_what_cannot_be_reported_says_why(shot: Shot, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no record"):
        report([str(tmp_path / "nothing.####.png")])
    (tmp_path / "nothing.still.0012.png.fresco.json").write_text("{}")
    with pytest.raises(InputError, match=r"only stills of .* fresco report .*nothing\.still\.0012\.png$"):
        report([str(tmp_path / "nothing.####.png")])
    broken = tmp_path / "broken.fresco.json"
    broken.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        report([str(broken)])
    broken.write_text('{"name": "something else"}')
    with pytest.raises(InputError, match="no record of a delivery"):
        report([str(broken)])
    parser = cli.parser()
    for words in (["report"], ["report", "a", "--compare", "a", "b"]):
        arguments = parser.parse_args(words)
        with pytest.raises(UsageError, match="of one delivery"):
            arguments.run(arguments)


def test_the_command_writes_beside_the_delivery_and_says_so(shot: Shot, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", shot.delivery.sequence, "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["written"]
    assert written == [str(Path(shot.delivery.sequence).with_name("look.png.report.html"))]
    assert Path(written[0]).read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_page_stays_small_by_showing_fewer_frames(shot: Shot, monkeypatch: pytest.MonkeyPatch) -> None:
    delivered = open_delivered(shot.delivery.sequence)
    looked = look(delivered)
    whole = looked.bytes
    monkeypatch.setattr("fresco_backend.report.page.BUDGET", whole // 2)
    html = page([looked])
    delivered.close()
    version = page_data(html)["versions"][0]
    assert whole < BUDGET
    assert len(version["shown"]) < len(version["figures"]) == len(FRAMES)
    assert f"Pictures of {len(version['shown'])} of {len(FRAMES)} frames" in html, "told on the page"


def test_a_page_of_three_hundred_noisy_frames_stays_below_ten_megabytes(
    shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)  # which no codec makes small
    Image.fromarray(noise).save(tmp_path / "noise.png")
    for name, number in itertools.product(("plate", "look"), range(1001, 1301)):
        (tmp_path / f"{name}.{number}.png").hardlink_to(tmp_path / "noise.png")
    long = replace(shot, matte=None, plate=replace(shot.plate, sequence=str(tmp_path / "plate.####.png")))
    long = with_delivery(long, sequence=str(tmp_path / "look.####.png"))
    document = json.loads(path_of(shot.delivery.sequence).read_text(encoding="utf-8"))
    document |= {"shot": json.loads(long.to_json()), "frames": "1001-1300"}
    path_of(long.delivery.sequence).write_text(json.dumps(document), encoding="utf-8")

    def unmeasured(delivered: DeliveredShot) -> Iterator[Moment]:  # what is measured does not depend on the length
        for number in delivered.numbers:
            figures = Figures(frame=number, keyframe=number in delivered.keyframes, warp_error=1.0, flicker=0.5,
                              occlusion=0.1, colour=(1.0, 2.0, 3.0), contrast=1.0)  # fmt: skip
            yield Moment(figures=figures, plate=torch.zeros(0), result=torch.zeros(0), flow=None)

    monkeypatch.setattr("fresco_backend.report.page.measured", unmeasured)
    written = report([long.delivery.sequence])[0]
    version = page_data(written.read_text(encoding="utf-8"))["versions"][0]
    assert 2e6 < written.stat().st_size < 10e6
    assert len(version["figures"]) == 300 and 10 < len(version["shown"]) < 40
    assert f"Pictures of {len(version['shown'])} of 300 frames" in written.read_text(encoding="utf-8")


def test_a_page_tells_of_held_frames_and_of_a_run_that_was_interrupted(shot: Shot, tmp_path: Path) -> None:
    plate = write_plate(tmp_path / "plate")
    Path(str(plate) % 1004).unlink()
    held = replace(shot, matte=None, plate=replace(shot.plate, sequence=str(plate), missing=Missing.HOLD))
    held = with_delivery(held, sequence=str(tmp_path / "out" / "look.####.png"))
    rendered(held)
    Path(held.delivery.sequence.replace("####", "1009")).unlink()
    rendered(held)
    delivered = open_delivered(held.delivery.sequence)
    said = remarks(delivered)
    delivered.close()
    assert said[-2:] == ["missing in the plate, and held from the frame before: 1004",
                         "8 frames were kept from an earlier run, and 1 rendered"]  # fmt: skip


def test_a_matte_that_was_propagated_is_shown_on_every_frame(shot: Shot, tmp_path: Path) -> None:
    assert shot.matte is not None
    drawn = tmp_path / "matte" / "matte.%04d.png"
    drawn.parent.mkdir()
    shutil.copy(shot.matte.sequence % 1001, str(drawn) % 1001)
    alone = replace(shot, matte=replace(shot.matte, sequence=str(drawn), propagate=True))
    alone = with_look(with_delivery(alone, sequence=str(tmp_path / "out" / "look.####.png")), strength=0.0)
    rendered(alone)
    delivered = open_delivered(alone.delivery.sequence)
    shown = [delivered.matte_image(number, Size(32, 32)) for number in FRAMES]
    delivered.close()
    assert all(image is not None and 0.01 < image.mean() < 0.99 for image in shown)


def test_a_document_tells_where_plate_and_delivery_lie_on_this_machine(shot: Shot, tmp_path: Path) -> None:
    """As of a delivery that was fetched from a box, whose record has the box's paths."""
    shutil.copytree(Path(shot.delivery.sequence).parents[1], tmp_path / "fetched")
    assert shot.matte is not None
    document = json.loads(shot.to_json())
    for noun, name in (("plate", "plate/plate"), ("matte", "matte/plate"), ("delivery", "out/look")):
        document[noun]["sequence"] = f"{name}.####.png"
    (tmp_path / "fetched" / "shot.json").write_text(json.dumps(document), encoding="utf-8")
    delivered = open_delivered(str(tmp_path / "fetched" / "shot.json"))
    delivered.close()
    assert delivered.matte is not None
    read = {reader.source(1004) for reader in (delivered.plate, delivered.result, delivered.matte.reader)}
    assert {path.parents[1] for path in read} == {tmp_path / "fetched"}
    by_pattern = open_delivered(str(tmp_path / "fetched" / "out" / "look.####.png"))
    by_pattern.close()
    assert by_pattern.result.source(1004).parents[1] == tmp_path / "fetched"


def test_a_plate_that_lies_elsewhere_can_be_named(
    shot: Shot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where only the delivery was fetched from the machine that made it."""
    delivery, plate = Path(shot.delivery.sequence), Path(shot.plate.sequence)
    shutil.copytree(delivery.parent, tmp_path / "fetched")
    fetched = str(tmp_path / "fetched" / delivery.name)
    record = path_of(fetched)
    record.write_text(record.read_text("utf-8").replace(str(plate.parent), str(tmp_path / "the box")), "utf-8")
    with pytest.raises(PlateMissing, match="--plate"):
        open_delivered(fetched)
    for target in (fetched, str(record)):
        assert cli.main(["report", target, "--plate", str(plate)]) == 0
        assert Path(capsys.readouterr().err.strip()).parent == tmp_path / "fetched"
    shutil.rmtree(tmp_path / "fetched")
    shutil.copytree(delivery.parent, tmp_path / "fetched")
    assert shot.matte is not None
    record.write_text(record.read_text("utf-8").replace(str(Path(shot.matte.sequence).parent), "/the box"), "utf-8")
    with pytest.raises(MatteError, match="shot document"):
        open_delivered(fetched)


def test_a_shot_document_that_is_not_there_is_no_bug(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(tmp_path / "none.json")]) == 3
    assert "none.json" in capsys.readouterr().err


def test_a_report_at_the_end_of_a_render(shot: Shot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["render", shot.plate.sequence, "-o", str(tmp_path / "look.####.png"), "--prompt", "a photo",
             "--strength", "0", "--progress=none", "--report"]  # fmt: skip
    assert cli.main(words) == 0
    assert f"report: {tmp_path / 'look.png.report.html'}" in capsys.readouterr().err
    assert (tmp_path / "look.png.report.html").stat().st_size > 10_000
    assert cli.main([*words, "--stage=verify"]) == 2
    assert "a report is of a whole shot" in capsys.readouterr().err


@pytest.mark.parametrize("step", [1, 10])
@pytest.mark.parametrize("count", [2, 3, 10, 40])
def test_shown_frames_are_spread_and_prefer_keyframes(count: int, step: int) -> None:
    numbers = list(range(1001, 1001 + 300 * step, step))
    shown = spread(numbers, count, wanted=numbers[::8])
    assert shown[0] == 1001 and shown[-1] == numbers[-1]
    assert list(shown) == sorted(set(shown)) and len(shown) <= count
    preferred = [number for number in shown[1:-1] if (number - 1001) % (8 * step) == 0]
    assert len(preferred) >= 0.8 * len(shown[1:-1])
    assert spread(numbers[:3], 40) == tuple(numbers[:3])


def test_flow_is_white_where_nothing_moves_and_its_hue_tells_the_direction() -> None:
    motion = torch.zeros(2, 1, 3)
    motion[0, 0, 1], motion[0, 0, 2] = 5, -5
    still, right, left = flow_pixels(motion, longest=5)[0]
    assert still.tolist() == [255, 255, 255]
    assert right.tolist() == [255, 0, 0] and left.tolist() == [0, 255, 255]



def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What the command says of a delivery that it cannot report."""
    assert cli.main(["report", *map(str, words)]) == InputError.exit_code
    return capsys.readouterr().err


def test_a_frame_a_folder_and_a_slip_of_the_pen_are_told_the_delivery_that_was_meant(
        shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(Path(shot.delivery.sequence).parent, tmp_path / "out")
    (tmp_path / "shot.json").write_text(shot.to_json())
    monkeypatch.chdir(tmp_path)
    assert 'fresco report "out/look.####.png"' in refusal(capsys, "out/look.1003.png")
    assert 'fresco report "out/look.####.png"' in refusal(capsys, "out")
    assert "Did you mean shot.json?" in refusal(capsys, "shot.jsn")
    assert "Did you mean shot.json?" in refusal(capsys, "shto.json")
    assert "Did you mean" not in refusal(capsys, "other.####.png")


def test_a_delivery_that_lacks_frames_is_not_called_a_plate(
        shot: Shot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(Path(shot.delivery.sequence).parent, tmp_path / "out")
    (tmp_path / "out" / "look.1003.png").unlink()
    said = refusal(capsys, tmp_path / "out" / "look.####.png")
    assert "frames 1003 are missing" in said and "Render the shot again" in said and "--missing" not in said
    for path in (tmp_path / "out").glob("look.*.png"):
        path.unlink()
    said = refusal(capsys, tmp_path / "out" / "look.####.png")
    assert "the delivery is not there" in said and "plate" not in said.replace(str(tmp_path), "")
