# SPDX-License-Identifier: Apache-2.0
"""What `fresco edit` and the options of synthesis say reaches the shot, and what contradicts itself is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fresco_backend.arguments.shot_arguments import shot_of
from fresco_backend.cli import parser
from fresco_protocol.errors import UsageError
from fresco_protocol.shot import Editing, Shot, Synthesis, Task

WORDS = ("plate.####.png", "-o", "out.####.png", "--prompt", "an ink drawing")


def shot(*words: str, command: str = "edit") -> Shot:
    """The shot of a command line."""
    return shot_of(parser().parse_args([command, *WORDS, *words]))[0]


def test_an_edit_is_an_edit() -> None:
    held = ("--hold-attention", "0.2", "--hold-convolution", "0.4")
    found = shot("--caption", "a boat", "--inversion-steps", "30", *held)
    assert found.task is Task.EDIT
    assert found.editing == Editing(caption="a boat", inversion_steps=30, attention=0.2, convolution=0.4)
    assert shot().editing == Editing()
    assert shot(command="render").task is Task.TRANSLATE


def test_a_document_stays_what_it_is(tmp_path: Path) -> None:
    document = tmp_path / "shot.json"
    document.write_text(replace(shot(), editing=Editing(caption="a boat")).to_json())
    rendered = shot_of(parser().parse_args(["render", str(document), "--hold-attention", "0.1"]))[0]
    assert rendered.task is Task.EDIT
    assert rendered.editing == Editing(caption="a boat", attention=0.1)
    document.write_text(shot(command="render").to_json())
    assert shot_of(parser().parse_args(["edit", str(document)]))[0].task is Task.EDIT


@pytest.mark.parametrize("synthesis", list(Synthesis))
@pytest.mark.parametrize("command", ["render", "edit"])
def test_every_mode_of_synthesis_can_be_asked_for(synthesis: Synthesis, command: str) -> None:
    found = shot("--synthesis", synthesis.value, "--rotation", "5", command=command).keyframing
    assert (found.synthesis, found.rotation) == (synthesis, 5)


@pytest.mark.parametrize(("synthesis", "fits"), [("mixed", True), ("in-betweens", True), ("features", False),
                                                 ("every-frame", False)])  # fmt: skip
def test_an_artists_keyframes_need_in_betweens(synthesis: str, fits: bool) -> None:
    if fits:
        assert shot("--synthesis", synthesis, "--keyframes", "1,5").keyframing.frames is not None
    else:
        with pytest.raises(UsageError, match=f'because with "{synthesis}" the model makes every frame'):
            shot("--synthesis", synthesis, "--keyframes", "1,5")


def test_numbers_out_of_range_name_their_option() -> None:
    with pytest.raises(UsageError, match="--hold-attention"):
        shot("--hold-attention", "1.5")
    with pytest.raises(UsageError, match="--inversion-steps"):
        shot("--inversion-steps", "0")


def test_tone_can_be_let_go() -> None:
    coherence = shot("--no-tone").coherence
    assert coherence is not None and not coherence.tone
