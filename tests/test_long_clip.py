# SPDX-License-Identifier: Apache-2.0
"""The script for long clips: it renders, measures, draws, and its figures mean what they say."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import long_clip
import pytest
from shots import write_plate

from fresco_backend.render import record


def test_a_clip_is_rendered_and_measured(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plate = write_plate(tmp_path / "plate", 5)
    rest = ["--model", str(tiny_model), "--steps", "2", "--keyframes", "every:1", "--window", "3", "--no-optimisation"]
    words = [str(plate), "--frames=1001-1005", "--prompt", "a photo", "--out", str(tmp_path / "out"), *rest]
    long_clip.main(words)
    figures = json.loads(capsys.readouterr().out)
    assert figures == json.loads((tmp_path / "out" / "figures.json").read_text())
    assert figures["windows"] == 3
    assert figures["peak_mib"] > 200
    assert figures["ends_colour"] == 0, "of five frames head and tail are the same"
    assert 0 < figures["drift_colour"] <= figures["most_colour"] and 0 < figures["drift_covered"] < 1
    plot = cv2.imread(str(tmp_path / "out" / "memory.png"))
    assert plot is not None and plot.shape == (*long_clip.PLOT, 3)
    assert cv2.imread(str(tmp_path / "out" / "strip.png")) is not None


def test_a_failed_render_ends_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="fresco render ended with"):
        long_clip.main([str(tmp_path / "nothing.mp4"), "--out", str(tmp_path / "out")])


def test_a_window_has_the_frames_up_to_its_last_keyframe(tmp_path: Path) -> None:
    delivery = tmp_path / "f.####.png"
    text = json.dumps({"measures": {"windows": [[1, 5, 9], [1, 9, 13], [1, 13, 20]]}})
    record.path_of(str(delivery)).write_text(text)
    assert long_clip._windows(delivery, range(1, 23)) == [[*range(1, 10)], [*range(10, 14)], [*range(14, 23)]]


def test_growth_is_that_of_later_windows() -> None:
    flat = [(float(second), 100) for second in range(10)]
    memory = long_clip.Memory(samples=flat, windows={1: 0.0, 2: 5.0})
    assert memory.growth == 0
    memory.samples[7] = (7.0, 150)
    assert memory.peaks == [100, 150]
    assert memory.growth == pytest.approx(0.5)
