# SPDX-License-Identifier: Apache-2.0
"""What a job is pinned to, and which machine may not render it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from shots import bits, rendered, small_shot, with_look, with_plate, write_plate

from fresco_backend.farm.plan import Site, plan_shot
from fresco_backend.render.farm_stage import FarmStage
from fresco_backend.render.job import open_job
from fresco_backend.render.pins import Pins
from fresco_protocol.errors import InputError, NodeDiffers
from fresco_protocol.shot import Shot


@pytest.fixture
def shot(tiny_model: Path, tmp_path: Path) -> Shot:
    """A small shot with its own plate and its own copy of the model, all choices made."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    open_ = small_shot(write_plate(tmp_path / "plate", 5), model, tmp_path / "out" / "look.####.png")
    return plan_shot(open_, Site()).shot


@pytest.fixture
def pins(shot: Shot) -> Iterator[Pins]:
    with closing(open_job(shot)) as job:
        yield Pins.of(job)


def test_a_file_keeps_the_pins(pins: Pins, tmp_path: Path) -> None:
    pins.write(tmp_path / "pins.json")
    assert Pins.read(tmp_path / "pins.json") == pins


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 9}', '{"schema": 1, "job": "a"}'])
def test_what_are_no_pins_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "pins.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="pins cannot be read"):
        Pins.read(tmp_path / "pins.json")


def test_a_machine_like_the_one_that_planned_renders(shot: Shot, pins: Pins) -> None:
    rendered(shot, pins=pins)
    assert len(bits(Path(shot.delivery.sequence).parent)) == 5


@pytest.mark.parametrize(("change", "sentence"), [
    ({"torch": "1.0"}, "torch is .*, planned 1.0"),
    ({"fresco": "0.0"}, "fresco is .*, planned 0.0"),
    ({"another": "2"}, "another is nothing, planned 2"),
])
def test_other_versions_are_refused_before_anything_is_read(shot: Shot, pins: Pins, change: dict[str, str],
                                                            sentence: str) -> None:
    other = replace(pins, versions={**pins.versions, **change})
    missing = with_plate(shot, sequence="/no/such/plate.####.exr")
    with pytest.raises(NodeDiffers, match=sentence):
        rendered(missing, pins=other)


@pytest.mark.parametrize("build", ["+cu128", "+cpu", ""])
def test_a_job_that_was_planned_without_a_device_renders_where_there_is_one(pins: Pins, build: str) -> None:
    version = pins.versions["torch"].partition("+")[0] + build
    replace(pins, versions={**pins.versions, "torch": version}).require_node()


def test_another_colour_configuration_is_refused(pins: Pins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCIO", "ocio://cg-config-v2.1.0_aces-v1.3_ocio-v2.3")
    with pytest.raises(NodeDiffers, match="colour configuration is ocio://cg-config, planned ocio://studio-co"):
        pins.require_node()


def test_a_configuration_is_known_by_its_content(monkeypatch: pytest.MonkeyPatch, shot: Shot, tmp_path: Path) -> None:
    source = Path(__file__).parents[1] / "backend" / "fresco_backend" / "pixels" / "rendering.ocio"
    for name in ("one.ocio", "two.ocio"):
        shutil.copy(source, tmp_path / name)
    monkeypatch.setenv("OCIO", str(tmp_path / "one.ocio"))
    with closing(open_job(shot)) as job:
        pins = Pins.of(job)
    monkeypatch.setenv("OCIO", str(tmp_path / "two.ocio"))
    pins.require_node()
    (tmp_path / "two.ocio").write_text(source.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    with pytest.raises(NodeDiffers):
        pins.require_node()


def test_other_weights_are_refused_by_name(shot: Shot, pins: Pins) -> None:
    weights = next(path for path in Path(shot.look.model).rglob("*.safetensors") if path.parent.name == "unet")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(NodeDiffers, match=r"model on this node.*unet/"):
        rendered(shot, pins=pins)


@pytest.mark.parametrize("stage", [None, FarmStage.IN_BETWEENS])
def test_a_plate_or_a_look_that_changed_since_is_refused(shot: Shot, pins: Pins, stage: FarmStage | None) -> None:
    with pytest.raises(NodeDiffers, match="not as it was planned"):
        rendered(with_look(shot, seed=7), pins=pins, stage=stage)


def test_frames_between_need_no_file_of_the_model(shot: Shot, pins: Pins) -> None:
    rendered(shot, pins=pins, stage=FarmStage.KEYFRAMES)
    shutil.rmtree(shot.look.model)
    rendered(shot, pins=pins, stage=FarmStage.IN_BETWEENS)
    rendered(shot, pins=pins, stage=FarmStage.VERIFY)
    out = Path(shot.delivery.sequence).parent
    assert len(bits(out)) == 5
    assert not (out / ".fresco").exists()
    sidecar = json.loads((out / "look.png.fresco.json").read_bytes())
    assert sidecar["weights"] == dict(pins.weights)
    assert sidecar["versions"].items() > pins.versions.items()
    assert sidecar["color"] == pins.color


def test_a_disk_may_have_another_path_on_every_machine(shot: Shot, pins: Pins, tmp_path: Path) -> None:
    (tmp_path / "mounted").symlink_to(tmp_path / "plate")
    seen = with_plate(shot, sequence=str(tmp_path / "mounted" / Path(shot.plate.sequence).name))
    with closing(open_job(seen)) as job:
        assert job.identity == pins.job
