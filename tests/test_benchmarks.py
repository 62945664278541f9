# SPDX-License-Identifier: Apache-2.0
"""The ablation's script: it runs on a synthetic plate, goes on where it stopped, and its measures measure."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import coherence
import numpy as np
import pytest
import results
import throughput
import torch
import what_decides
from plates import frame, with_pixels
from results import HEADINGS, Row, Store, laid_out, means
from steadiness import Ruler
from variants import PLAIN, VARIANTS, Part

import tiny
from fresco_backend.engine.latents import NoiseSharing
from fresco_backend.files.deliveries import DeliveryWriter, Encoding
from fresco_backend.render import windows
from fresco_protocol.errors import UsageError
from fresco_protocol.shot import BitDepth, Coherence

SIZE, FRAMES = 64, 4


@pytest.fixture
def demo(tmp_path: Path) -> coherence.Clip:
    """A moving plate of six frames with its matte, as PNG sequences."""
    plate = tiny.moving_plate(6, SIZE)
    blank = frame(SIZE, SIZE, depth=BitDepth.UINT16, file_type="png")
    for name, pixels in (("plate", plate.frames), ("matte", np.repeat(plate.matte[..., None], 3, axis=-1))):
        writer = DeliveryWriter(tmp_path / f"{name}.####.png", range(1, 7), like=blank, encoding=Encoding())
        for number, picture in enumerate(pixels, 1):
            writer.write(number, with_pixels(blank, picture), "0")
    return coherence.Clip(plate=str(tmp_path / "plate.####.png"), matte=str(tmp_path / "matte.####.png"))


def arguments(model: Path, store: Path, *more: str) -> list[str]:
    pytest.importorskip("fcntl", reason="processes share a store by its lock")
    return [
        "--model", str(model), "--store", str(store), "--working-size", str(SIZE), "--frames", str(FRAMES),
        "--steps", "4", "--markdown", *more,
    ]  # fmt: skip


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_the_table_has_a_line_for_the_plate_and_each_variant(
    demo: coherence.Clip, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ("per-frame", "fresco", "edit-mixed")
    coherence.main(arguments(tiny_model, tmp_path / "rows.json", "--variants", *wanted), demo)
    headings, rule, *lines = cells(capsys.readouterr().out)
    assert headings == ["variant", *HEADINGS]
    assert set("".join(rule)) == {"-", ":"}
    assert [line[0] for line in lines] == [
        coherence.THE_PLATE, "per-frame img2img", "full FRESCO", "edit, mixed"]  # fmt: skip
    plate, plain, full, edit = ([float(cell) for cell in line[1:] if cell != "–"] for line in lines)
    assert len(plate) == 4, "nothing is timed for the plate"
    assert plate[2] == 1, "the plate has its own edges"
    assert plate[0] < min(plain[0], full[0]), "its own warp error is the floor"
    assert plain[5] == 1, "the plain variant is the unit of time"
    assert full[4] > 0
    assert all(0 <= row[3] <= 100 for row in (plate, plain, full, edit))
    assert edit[0] not in (plain[0], full[0])


@pytest.mark.parametrize("more", [(), ("--alpha",)])
def test_throughput_tells_each_way_against_the_library_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "argv", ["throughput.py", "--frames", "2", "--size", "96x80", *more])
    throughput.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("  alone")[0].strip() for line in lines] == [
        "ingest", "delivery", "in and out", "delivery, proved"]  # fmt: skip
    shares = [float(share) for line in lines for share in re.findall(r"([\d.]+) % of its speed", line)]
    assert len(shares) == 8
    assert min(shares) > 0


def test_what_a_variant_says_reaches_the_engine(demo: coherence.Clip, tiny_model: Path, tmp_path: Path) -> None:
    steps = ("--steps", "8")  # so that one of them is late enough for smoothing in the picture
    wanted = ("--variants", *(variant.name for variant in VARIANTS))
    coherence.main(arguments(tiny_model, tmp_path / "rows.json", *steps, *wanted), demo)
    rows = {row.variant: row for row in Store.open(tmp_path / "rows.json").rows.values()}
    assert list(rows) == [coherence.THE_PLATE, *(variant.title for variant in VARIANTS)]
    assert len({row.warp_error for row in rows.values()}) == len(rows), "no two variants give the same picture"
    assert rows["per-frame, initial noise shared"].warp_error < rows[PLAIN.title].warp_error


def test_a_finished_row_is_not_computed_again(
    demo: coherence.Clip, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    options = arguments(tiny_model, tmp_path / "rows.json", "--variants", "cross-frame")
    coherence.main(options, demo)
    first = capsys.readouterr().out

    def refused(*_: object) -> None:
        raise AssertionError("rendered again")

    monkeypatch.setattr(coherence.Stretch, "render", refused)
    coherence.main(options, demo)
    assert capsys.readouterr().out == first
    for change in (["--fresh"], ["--prompt", "ink"], ["--variants", "shared-noise"]):
        with pytest.raises(AssertionError, match="rendered again"):
            coherence.main([*options, *change], demo)


def test_further_clips_get_a_column_each_and_pictures(
    demo: coherence.Clip, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = arguments(tiny_model, tmp_path / "rows.json", "--variants", "per-frame", "fresco")
    coherence.main([*options, "--pictures", str(tmp_path / "look"), "--clips", f"{demo.plate}=3-5"], demo)
    average, columns = (cells(text) for text in capsys.readouterr().out.split("\n\n"))
    assert columns[0] == ["variant", "plate 1-4", "plate 3-5"]
    assert [line[0] for line in average[2:]] == [coherence.THE_PLATE, PLAIN.title, "full FRESCO"]
    assert [line[0] for line in columns[2:]] == [line[0] for line in average[2:]]
    for clip in ("plate.1-4", "plate.3-5"):
        for sheet in ("frames.png", "differences-x4.png"):
            assert (tmp_path / "look" / clip / sheet).stat().st_size > 0


def test_two_processes_share_the_clips_and_the_rows(
    demo: coherence.Clip, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = arguments(tiny_model, tmp_path / "rows.json", "--variants", PLAIN.name)
    options += ["--clips", f"{demo.plate}=3-5"]
    stale = Store.open(tmp_path / "rows.json")
    for part in ("1/2", "2/2"):
        coherence.main([*options, "--part", part], demo)
    clips = {row.clip for row in Store.open(tmp_path / "rows.json").rows.values()}
    assert clips == {"plate 1-4", "plate 3-5"}
    stale.add("late", Row(clip="other", variant="other", warp_error=1, flicker=1, edges=1))
    assert len(Store.open(tmp_path / "rows.json").rows) == 5, "a process that started earlier loses nothing"
    capsys.readouterr()
    with pytest.raises(SystemExit):
        coherence.main([*options, "--part", "3/2"], demo)
    assert "a part is written as 1/2" in capsys.readouterr().err


def test_tables_are_laid_out_where_files_have_no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert runpy.run_path(results.__file__)["laid_out"]([["a", "b"], ["1", "22"]]) == "a   b\n1  22"


def test_a_model_that_is_not_there_ends_with_a_sentence(demo: coherence.Clip, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="nowhere"):
        coherence.main(arguments(tmp_path / "nowhere", tmp_path / "rows.json"), demo)


def test_each_variant_has_the_parts_that_it_says() -> None:
    full = windows.engine_coherence(Coherence())
    by_name = {variant.name: variant for variant in VARIANTS}
    assert by_name["fresco"].coherence(full) == full
    assert len({variant.identity for variant in VARIANTS}) == len(VARIANTS) == len(by_name)
    assert [variant.name for variant in VARIANTS if variant.sharing is NoiseSharing.NONE] == ["per-frame"]
    temporal, spatial = (by_name[name].coherence(full) for name in ("temporal-loss", "spatial-loss"))
    assert not temporal.cross_frame and temporal.spatial is None
    assert temporal.features and temporal.features.optimisation.temporal_weight == 2
    assert temporal.features.optimisation.spatial_weight is None
    assert spatial.features and spatial.features.optimisation.temporal_weight is None
    assert spatial.features.optimisation.spatial_weight is not None
    attention = by_name["attention"].coherence(full)
    assert attention.features is None and attention.spatial == full.spatial and attention.temporal == full.temporal
    assert by_name["cross-frame"].parts == {Part.CROSS_FRAME}
    along, alike = (by_name[f"{name}-attention"].coherence(full) for name in ("temporal", "spatial"))
    assert (along.temporal, along.spatial) == (full.temporal, None)
    assert (alike.temporal, alike.spatial) == (None, full.spatial)


@pytest.fixture(scope="module")
def plate() -> torch.Tensor:
    return tiny.moving_plate(8, SIZE).images()


def test_flicker_is_the_amplitude_of_what_alternates(plate: torch.Tensor) -> None:
    ruler, dimmed = Ruler(plate), plate * 0.5
    alternating = torch.tensor([1.0, -1.0] * 4)[:, None, None, None]
    steady = ruler.measure(dimmed).flicker
    # Half of the range [-1, 1] is 127.5 codes.
    assert ruler.measure(dimmed + alternating * 0.1).flicker == pytest.approx(12.75, abs=1)
    fade = torch.linspace(-0.1, 0.1, 8)[:, None, None, None]
    assert ruler.measure(dimmed + fade).flicker < steady + 0.5


def test_warp_error_of_a_brightness_step_is_its_square(plate: torch.Tensor) -> None:
    flat = torch.zeros_like(plate)
    flat[4:] = 0.2  # one of seven pairs differs, by 0.1 of [0, 1]
    measures = Ruler(plate).measure(flat)
    assert measures.warp_error == pytest.approx(1000 * 0.01 / 7, rel=1e-4)
    assert measures.edges < 0.1
    assert Ruler(plate).differences(flat)[3].max() == pytest.approx(0.1)


def test_frames_that_share_no_path_have_no_steadiness(plate: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="two frames"):
        Ruler(plate[:1])
    noise = torch.rand(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).round() * 2 - 1
    with pytest.raises(UsageError, match="no pixel can be followed"):
        Ruler(noise)


def test_a_table_reads_as_text_too() -> None:
    row = Row(clip="a", variant="plain", warp_error=1.5, flicker=2, edges=0.5, seconds=2)
    slower = Row(clip="a", variant="slow", warp_error=1, flicker=1, edges=0.5, seconds=5)
    text = laid_out(means([row, slower], "plain"))
    assert "|" not in text
    assert text.splitlines()[2].split() == ["slow", "1.00", "1.00", "0.500", "–", "5.00", "2.5"]


def test_what_decides_tells_the_share_of_each_exchange(
    demo: coherence.Clip, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what_decides.main(["--model", str(tiny_model), "--working-size", str(SIZE), "--steps", "2", "--clips",
                       f"{demo.plate}=1,4"])  # fmt: skip
    headings, row = (line.split(" | ") for line in capsys.readouterr().out.splitlines())
    assert headings[1:] == list(what_decides.EXCHANGES)
    assert row[0] == "plate 1,4"
    assert len({float(cell.removesuffix(" %")) for cell in row[1:]}) == 3, "every exchange changes something else"
