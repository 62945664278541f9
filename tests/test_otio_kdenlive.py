# SPDX-License-Identifier: Apache-2.0
"""A project as Kdenlive's own adapter writes and reads it: into .otio, through Fresco, and back, frame by frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_otio import EXPECTED, arguments, movie, shown, span, there_and_back

from fresco_backend import cli
from fresco_protocol.shot import Shot

otio = pytest.importorskip("opentimelineio")
pytest.importorskip("otio_kdenlive_adapter", reason="Kdenlive's adapter is not installed")

from fresco_backend.otio import formats  # noqa: E402


def project(path: Path, rate: float) -> Any:
    """A project file, read: a (24 frames from 10), a gap of 12, b (20 from 5), a again (8 from 40)."""
    made = otio.schema.Timeline("cut")
    track = otio.schema.Track("V1", kind=otio.schema.TrackKind.Video)
    made.tracks.append(track)
    for name, start, count in (("a", 10, 24), ("b", 5, 20), ("a", 40, 8)):
        if name == "b":
            track.append(otio.schema.Gap(source_range=span(0, 12, rate)))
        track.append(otio.schema.Clip(name, movie(name, rate, start=0), span(start, count, rate)))
    otio.adapters.write_to_file(made, str(path))
    assert "<mlt" in path.read_text(encoding="utf-8")
    found = otio.adapters.read_from_file(str(path))
    assert shown(found.video_tracks()[0]) == shown(track)
    return found


@pytest.mark.parametrize("rate", [24000 / 1001, 25.0, 30000 / 1001])
def test_a_project_of_kdenlive_comes_back_with_its_results(rate: float, tmp_path: Path,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    before = project(tmp_path / "cut.kdenlive", rate)
    plates = shown(before.video_tracks()[0])
    formats.write_timeline(before, tmp_path / "cut.otio")
    words = arguments(tmp_path / "cut.otio", tmp_path / "out.otio", "--clips", "*", "--handles=4", "--json")
    assert cli.main(words) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [clip["frames"] for clip in told["clips"]] == [[7, 38], [2, 29], [37, 52]]
    assert Shot.from_json((tmp_path / "b.json").read_text(encoding="utf-8")).plate.sequence == "/media/b.mov"
    came = there_and_back(formats.read_timeline(tmp_path / "out.otio"), tmp_path / "again.otio")
    assert [shown(track) for track in came.video_tracks()] == [plates, EXPECTED]
    otio.adapters.write_to_file(came, str(tmp_path / "out.kdenlive"))
    back = otio.adapters.read_from_file(str(tmp_path / "out.kdenlive"))
    assert [shown(track) for track in back.video_tracks()] == [plates, EXPECTED]
