# SPDX-License-Identifier: Apache-2.0
"""The record: where it lies, what it says, and whose it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from shots import small_shot, with_delivery, with_look, with_plate, write_plate

from fresco_backend import __version__
from fresco_backend.engine.tones import Drift
from fresco_backend.render import record
from fresco_backend.render.job import Job, open_job
from fresco_protocol.errors import OutputDenied
from fresco_protocol.shot import Rate, Shot

MEASURES = record.Measures(
    keyframes=(1001, 1003), windows=((1001, 1003),), seconds={"deliver": 1.5}, warp_error=0.25,
    rendered=2, reused=1, device="cpu", precision="float32",
)  # fmt: skip


@pytest.fixture
def job(tiny_model: Path, tmp_path: Path) -> Job:
    shot = small_shot(write_plate(tmp_path / "plate", 3), tiny_model, tmp_path / "out" / "look.####.png")
    job = open_job(with_plate(shot, rate=Rate(numerator=24000, denominator=1001)))
    (tmp_path / "out").mkdir()
    job.close()
    return job


@pytest.mark.parametrize(("delivery", "name"), [
    ("look.####.exr", "look.exr"), ("look_%04d.png", "look.png"), ("look-@@@@.png", "look.png"),
    ("look.$F4.exr", "look.exr"), ("look.mov", "look.mov"), ("a.b.%d.tif", "a.b.tif"), ("look####.png", "look.png"),
    ("look_####.beauty.exr", "look.beauty.exr"),
])  # fmt: skip
def test_it_lies_beside_the_delivery_under_its_name(delivery: str, name: str) -> None:
    assert record.path_of(f"/out/{delivery}") == Path(f"/out/{name}.fresco.json")


def test_it_says_what_was_rendered_with_what(job: Job) -> None:
    document = json.loads(record.write(job, MEASURES).read_text())
    assert Shot.from_json(json.dumps(document["shot"])) == job.shot
    assert document["job"] == job.identity
    assert document["frames"] == "1001-1003"
    assert document["versions"]["fresco"] == __version__
    assert set(document["versions"]) >= {"python", "torch", "diffusers", "OpenImageIO"}
    assert document["weights"] == job.weights
    assert (document["plate"]["size"], document["plate"]["working_size"]) == ([64, 64], [64, 64])
    assert document["plate"]["rate"] == "24000/1001"
    assert document["plate"]["color_space"] == "sRGB Encoded Rec.709 (sRGB)"
    assert document["measures"]["warp_error"] == 0.25
    assert record.read(job) == document


def test_it_belongs_to_one_job(job: Job, tmp_path: Path) -> None:
    assert record.read(job) is None
    path = record.write(job, MEASURES)
    other = open_job(with_look(job.shot, seed=9))
    assert record.read(other) is None
    path.write_text("no document")
    assert record.read(job) is None
    path.write_text("[]")
    assert record.read(job) is None
    assert not record.has_movie(job)


def test_what_another_run_of_the_job_knew_stays(job: Job) -> None:
    """Two processes make a shot: the first to end writes the record and clears scratch, then the other writes it."""
    drift = Drift(colour=0.01, contrast=0.02, covered=0.5)
    first = replace(MEASURES, drift=drift, parts=((1001, 1002), (1001, 1003)), warnings=("halved",))
    record.write(job, first)
    second = replace(MEASURES, rendered=1, reused=2, device=None, precision=None, warnings=("clamped",))
    measures = json.loads(record.write(job, second).read_text())["measures"]
    assert (measures["rendered"], measures["reused"]) == (1, 2)
    assert measures["drift"] == {"colour": 0.01, "contrast": 0.02, "covered": 0.5}
    assert measures["parts"] == [[1001, 1002], [1001, 1003]]
    assert (measures["device"], measures["precision"]) == ("cpu", "float32")
    assert measures["warnings"] == ["halved", "clamped"]
    anew = replace(job, shot=with_delivery(job.shot, overwrite=True))
    assert json.loads(record.write(anew, second).read_text())["measures"]["warnings"] == ["clamped"]


def test_what_scratch_tells_while_another_process_clears_it_is_nothing(
        job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.scratch.save_warning("halved")
    assert record.kept(job, 1) == {"parts": (), "drift": None, "warnings": ("halved",)}

    def gone(_: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", lambda path, **_: gone(path))
    assert record.kept(job, 1) == {}


def test_a_place_that_cannot_be_written_is_named(job: Job, tmp_path: Path) -> None:
    (tmp_path / "out" / "look.png.fresco.json").mkdir()
    with pytest.raises(OutputDenied, match=r"look\.png\.fresco"):
        record.write(job, MEASURES)
