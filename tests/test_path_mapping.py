# SPDX-License-Identifier: Apache-2.0
"""Paths of one machine on another: the rules of Open Job Description."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from servers import serving

from fresco_backend.arguments.shot_arguments import shot_of_file
from fresco_backend.path_mapping import PathFormat, PathMapping, Rule
from fresco_protocol.errors import UsageError
from fresco_protocol.messages import ShowJob, Submit
from fresco_protocol.shot import Control, ControlKind, Delivery, Look, Lora, Matte, Plate, Shot

WINDOWS = Rule(format=PathFormat.WINDOWS, source="Z:\\show", destination="/mnt/show")


@pytest.mark.parametrize(("path", "mapped"), [
    ("Z:\\show\\sh010\\plate.####.exr", "/mnt/show/sh010/plate.####.exr"),
    ("z:/Show/sh010/Plate.%04d.exr", "/mnt/show/sh010/Plate.%04d.exr"),
    ("Z:\\show", "/mnt/show"),
    ("Z:\\shows\\plate.exr", None),
    ("Y:\\show\\plate.exr", None),
    ("/show/plate.exr", None),
    ("embedded", None),
])
def test_windows_paths_are_compared_as_windows_does(path: str, mapped: str | None) -> None:
    assert WINDOWS.apply(path) == mapped


def test_posix_paths_are_compared_letter_by_letter() -> None:
    rule = Rule(format=PathFormat.POSIX, source="/Volumes/show", destination="/mnt/show")
    assert rule.apply("/Volumes/show/a.exr") == "/mnt/show/a.exr"
    assert rule.apply("/volumes/show/a.exr") is None
    assert rule.apply("/Volumes/show/../secret") == "/mnt/show/../secret", "the roots judge what becomes of it"


def rules(path: Path, *sources: tuple[str, str, str]) -> Path:
    path.write_text(json.dumps({"version": "pathmapping-1.0", "path_mapping_rules": [
        {"source_path_format": kind, "source_path": source, "destination_path": destination}
        for kind, source, destination in sources]}))
    return path


def test_the_longest_source_wins(tmp_path: Path) -> None:
    mapping = PathMapping.of_file(rules(tmp_path / "m.json", ("POSIX", "/a", "/x"), ("POSIX", "/a/b", "/y")))
    assert (mapping.path("/a/b/c"), mapping.path("/a/c"), mapping.path("/d")) == ("/y/c", "/x/c", "/d")


@pytest.mark.parametrize("text", ["", "[]", '{"version": "pathmapping-2.0", "path_mapping_rules": []}',
                                  '{"version": "pathmapping-1.0", "path_mapping_rules": [{"source_path": "/a"}]}'])
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(UsageError):
        PathMapping.of_file(tmp_path / "m.json")


def test_a_session_that_maps_nothing_has_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text("{}")
    assert PathMapping.of_file(tmp_path / "m.json") == PathMapping()


def test_every_path_of_a_shot_is_mapped() -> None:
    shot = Shot(plate=Plate(sequence="Z:\\show\\p.####.exr"), matte=Matte(sequence="Z:\\show\\m.####.exr"),
                look=Look(prompt="ink", model="Z:\\show\\model", vae="Z:\\show\\vae",
                          loras=(Lora(model="Z:\\show\\lora.safetensors"),),
                          controls=(Control(kind=ControlKind.SEQUENCE, sequence="Z:\\show\\c.####.png",
                                            model="Z:\\show\\net"),)),
                delivery=Delivery(sequence="Z:\\show\\o.####.exr"))
    mapped = PathMapping(rules=(WINDOWS,)).shot(shot).to_json()
    assert "Z:" not in mapped
    assert mapped.count("/mnt/show/") == 8


def test_the_server_maps_what_it_is_given(tmp_path: Path) -> None:
    mapping = PathMapping(rules=(Rule(format=PathFormat.WINDOWS, source="Z:\\", destination=str(tmp_path)),))
    (tmp_path / "p.1001.exr").touch()
    shot = Shot(plate=Plate(sequence="Z:\\p.####.exr"), look=Look(prompt="ink"),
                delivery=Delivery(sequence="Z:\\o.####.exr"))
    with serving(tmp_path, mapping=mapping) as running, running.client() as client:
        submit = Submit(shot=shot, client_key="key")
        job = client.request(submit).record
        assert job.output == f"{tmp_path}/o.####.exr"
        assert client.request(ShowJob(job=job.id)).shot.plate.sequence == f"{tmp_path}/p.####.exr"
        assert not client.request(submit).created


def test_a_session_without_rules_maps_nothing(tmp_path: Path) -> None:
    (tmp_path / "rules.json").write_text("{}")
    assert PathMapping.of_file(tmp_path / "rules.json") == PathMapping()


def test_a_document_of_windows_is_mapped_before_its_paths_become_absolute(tmp_path: Path) -> None:
    there = Shot(plate=Plate(sequence="Z:\\show\\plate.####.exr"), look=Look(prompt="ink"),
                 delivery=Delivery(sequence="Z:\\show\\out\\look.####.exr"))
    (tmp_path / "shot.json").write_text(there.to_json())
    here = shot_of_file(tmp_path / "shot.json", rules(tmp_path / "m.json", ("WINDOWS", "Z:\\show", "/mnt/show")))
    assert (here.plate.sequence, here.delivery.sequence) == ("/mnt/show/plate.####.exr", "/mnt/show/out/look.####.exr")
