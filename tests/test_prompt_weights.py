# SPDX-License-Identifier: Apache-2.0
"""Weights of words in a prompt: how they are read, and what they do to what a model reads."""

from __future__ import annotations

from pathlib import Path

import families
import pytest
import torch

import tiny
from fresco_backend.models import weights
from fresco_backend.models.prompt_weights import check_weights, weighed
from fresco_protocol.errors import UsageError
from fresco_protocol.shot import Cue, Look, parse_frames

CPU = torch.device("cpu")


def test_a_weight_is_taken_out_of_the_text_and_counts_for_its_words() -> None:
    found = weighed("a castle, (thick fog:1.3), (people: .5)")
    assert found.plain == "a castle, thick fog, people"
    assert [(found.plain[span.first : span.last], span.weight) for span in found.spans] == [
        ("thick fog", 1.3), ("people", 0.5)]
    assert (found.weight_at(10, 15), found.weight_at(0, 1), found.weight_at(8, 12), found.weight_at(0, 0)) == (
        1.3, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("prompt", ["a (small) castle", "a castle (12: noon)", "a: castle", "(:1.2)", "( a (b) :c)"])
def test_other_parentheses_are_words(prompt: str) -> None:
    assert weighed(prompt).plain == prompt
    assert not weighed(prompt).spans


@pytest.mark.parametrize("text", ["-1", "5", "1.2.3", "1e3", "+1"])
def test_a_weight_that_is_no_number_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"no weight of words .*\(fog:.*from 0 to 4"):
        weighed(f"a castle, (fog:{text})")


@pytest.mark.parametrize("look", [
    Look(prompt="(a:9)"),
    Look(prompt="a", negative_prompt="(b:9)"),
    Look(prompt="a", cues=(Cue(frames=parse_frames("1"), prompt="(c:9)"),)),
    Look(prompt="a", cues=(Cue(frames=parse_frames("1"), prompt="c", to="(d:9)"),)),
])
def test_every_text_of_a_look_is_checked(look: Look) -> None:
    with pytest.raises(UsageError, match="no weight of words"):
        check_weights(look)


def test_weights_of_one_change_no_bit(tiny_model: Path) -> None:
    models = weights.load(str(tiny_model), device=CPU, dtype=torch.float32)
    assert torch.equal(models.encode_prompts(["a (red:1.0) tree"]), models.encode_prompts(["a red tree"]))


def test_states_move_from_those_of_no_words(tiny_model: Path) -> None:
    models = weights.load(str(tiny_model), device=CPU, dtype=torch.float32)
    plain, heavy, empty = models.encode_prompts(["a red tree", "a (red:1.5) tree", ""])
    letters = slice(2, 5)  # a token a letter, after the start and the a
    assert torch.allclose(heavy[letters], empty[letters] + 1.5 * (plain[letters] - empty[letters]), atol=1e-5)
    assert torch.equal(heavy[:2], plain[:2])
    assert torch.equal(heavy[5:], plain[5:])
    lighter = models.encode_prompts(["a (red:0) tree"])[0]
    assert torch.allclose(lighter[letters], empty[letters], atol=1e-5)


def test_whole_words_weigh_too(tmp_path: Path) -> None:
    folder = tiny.save_pipeline(tmp_path / "words", tiny.tiny_word_tokenizer())
    models = weights.load(str(folder), device=CPU, dtype=torch.float32)
    plain, heavy = models.encode_prompts(["a photo of winter", "a (photo:2) of winter"])
    changed = (plain != heavy).any(dim=1).nonzero().flatten().tolist()
    assert changed == [2]
    assert models.unknown_words("a (photo:2) of (zebra:1.2)") == ["zebra"]


def test_weights_reach_both_encoders_of_xl_and_not_the_pooled_state(tmp_path: Path) -> None:
    models = weights.load(str(families.save_sdxl(tmp_path / "xl")), device=CPU, dtype=torch.float32)
    plain, heavy = models.encode_prompts(["a red tree", "a (red:2) tree"])
    assert (plain != heavy)[2:5].any(dim=0).all()
    assert torch.equal(plain[5:], heavy[5:])


def test_the_end_of_a_long_prompt_is_told_without_weights(tiny_model: Path) -> None:
    models = weights.load(str(tiny_model), device=CPU, dtype=torch.float32)
    assert models.unseen_text("a" * 75 + " (tree:1.2)") == "tree"
