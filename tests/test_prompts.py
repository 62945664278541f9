# SPDX-License-Identifier: Apache-2.0
"""What each frame is told: cues on their frames, and words that become others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fresco_backend.models import weights
from fresco_backend.render import prompts
from fresco_protocol.shot import (
    Coherence,
    Compat,
    Cue,
    Delivery,
    Editing,
    Look,
    Plate,
    Shot,
    Task,
    parse_frames,
)


def look(*cues: Cue) -> Look:
    return Look(prompt="a photo", negative_prompt="blur", cues=cues)


def cue(frames: str, prompt: str, to: str | None = None) -> Cue:
    return Cue(frames=parse_frames(frames), prompt=prompt, to=to)


def test_cues_are_added_on_their_frames() -> None:
    asked = look(cue("3-5x2", "rain"), cue("5", "night"))
    assert [prompts.prompts_at(asked, frame) for frame in (3, 4, 5)] == [
        {"a photo, rain": 1.0}, {"a photo": 1.0}, {"a photo, rain, night": 1.0}]


def test_words_become_others_from_the_first_frame_to_the_last() -> None:
    asked = look(cue("1001-1041", "dusk", "night"))
    assert prompts.prompts_at(asked, 1001) == {"a photo, dusk": 1.0}
    assert prompts.prompts_at(asked, 1011) == {"a photo, dusk": 0.75, "a photo, night": 0.25}
    assert prompts.prompts_at(asked, 1041) == {"a photo, night": 1.0}
    assert prompts.prompts_at(asked, 1042) == {"a photo": 1.0}
    assert prompts.prompts_at(look(cue("7", "dusk", "night")), 7) == {"a photo, night": 1.0}


def test_several_changes_at_once_have_shares_that_sum_to_one() -> None:
    asked = look(cue("1-5", "dusk", "night"), cue("1-3", "rain", "snow"), cue("2", "wind"))
    found = prompts.prompts_at(asked, 2)
    assert found == {
        "a photo, dusk, rain, wind": 0.375, "a photo, dusk, snow, wind": 0.375,
        "a photo, night, rain, wind": 0.125, "a photo, night, snow, wind": 0.125}


def test_readings_are_mixed_by_their_shares(tiny_model: Path) -> None:
    models = weights.load(str(tiny_model), device=torch.device("cpu"), dtype=torch.float32)
    found = prompts.encoded(models, look(cue("1-5", "dusk", "night")), (1, 2, 5, 6))
    dusk, night, plain = models.encode_prompts(["a photo, dusk", "a photo, night", "a photo"])
    assert torch.allclose(found, torch.stack([dusk, 0.75 * dusk + 0.25 * night, night, plain]), atol=1e-5)


def test_an_edit_leads_away_from_what_its_plate_shows_unless_the_shot_says_from_what() -> None:
    plate, editing = Plate(sequence="a.####.png"), Editing(caption="a photo")
    shot = Shot(plate=plate, look=Look(prompt="ink"), editing=editing, delivery=Delivery(sequence="b.####.png"))
    edit = replace(shot, task=Task.EDIT)
    assert (prompts.negative(shot), prompts.negative(edit)) == ("", "a photo")
    assert prompts.negative(replace(edit, look=replace(edit.look, negative_prompt="blur"))) == "blur"
    assert prompts.negative(replace(edit, coherence=Coherence(compat=Compat.REFERENCE))) == ""
    assert prompts.negative(replace(edit, coherence=None)) == "a photo"


def test_every_text_that_is_read_is_known_before() -> None:
    assert prompts.texts_of(look(cue("1-3", "dusk", "night")), range(1, 5)) == {
        "blur", "a photo", "a photo, dusk", "a photo, night"}


@pytest.mark.parametrize("frames", ["1-2", "1-2,5"])
def test_a_change_takes_as_long_as_its_frames(frames: str) -> None:
    asked = look(cue(frames, "dusk", "night"))
    assert prompts.prompts_at(asked, 2)["a photo, night"] == {"1-2": 1.0, "1-2,5": 0.25}[frames]
