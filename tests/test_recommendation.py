# SPDX-License-Identifier: Apache-2.0
"""What a model recommends, and what stands in where it is silent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fresco_backend.models.model_store import check
from fresco_backend.render.recommendation import Recommendation, recommendation
from fresco_protocol.errors import WeightsRefused
from fresco_protocol.shot import ControlKind, Sampler


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def advise(model: Path, **keys: Any) -> Recommendation:
    """What the model recommends with these keys in its index."""
    index = model / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), **keys}))
    return recommendation(check(str(model)))


def test_a_silent_model_gets_what_suits_stable_diffusion(model: Path) -> None:
    assert advise(model) == Recommendation(control=ControlKind.CANNY, strength=0.75, guidance=7.5, working_size=64)


def test_models_of_few_steps_want_no_guidance(model: Path) -> None:
    found = advise(model)
    assert [found.guidance_of(sampler) for sampler in (Sampler.DDPM, Sampler.DPM, Sampler.LCM)] == [7.5, 7.5, 1.0]


def test_the_index_decides(model: Path) -> None:
    keys = {"_fresco_controls": ["soft-edge"], "_fresco_strength": 0.5, "_fresco_guidance": 4}
    found = advise(model, **keys, _fresco_working_size=384)
    assert found == Recommendation(control=ControlKind.SOFT_EDGE, strength=0.5, guidance=4.0, working_size=384,
                                   edit_guidance=4.0)
    assert found.edit_control is None and found.edit_strength == 1.0
    edits = advise(model, _fresco_edit_guidance=2, _fresco_edit_strength=0.5, _fresco_edit_controls=["canny"])
    assert (edits.edit_guidance, edits.edit_strength, edits.edit_control) == (2.0, 0.5, ControlKind.CANNY)
    assert advise(model, _fresco_controls=[]).control is None


@pytest.mark.parametrize("keys", [
    {"_fresco_controls": ["smell"]}, {"_fresco_edit_controls": ["smell"]}, {"_fresco_guidance": "much"}])
def test_an_index_that_makes_no_sense_is_refused(keys: dict[str, Any], model: Path) -> None:
    with pytest.raises(WeightsRefused, match="index"):
        advise(model, **keys)
