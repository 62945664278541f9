# SPDX-License-Identifier: Apache-2.0
"""Named choices of what a render spends."""

from __future__ import annotations

import argparse

import pytest

from fresco_backend.arguments.quality import PRESETS
from fresco_backend.arguments.shot_arguments import add_shot_options, shot_of
from fresco_protocol.shot import FeatureOptimisation, Shot


def shot(*words: str) -> Shot:
    command = argparse.ArgumentParser()
    command.add_argument("source")
    add_shot_options(command)
    return shot_of(command.parse_args(["plate.####.png", "-o", "out.####.png", "--prompt", "ink", *words]))[0]


def test_standard_is_the_full_method_of_the_nouns() -> None:
    assert shot("--quality", "standard") == shot()


def test_a_draft_spends_a_quarter_of_the_optimisation() -> None:
    coherence = shot("--quality", "draft").coherence
    assert coherence is not None
    assert coherence.optimisation == FeatureOptimisation(iterations=10, learning_rate=0.4, conditional_only=True)


def test_the_best_has_keyframes_close_together() -> None:
    keyframing = shot("--quality", "best").keyframing
    assert (keyframing.minimum_gap, keyframing.maximum_gap) == (2, 4)


@pytest.mark.parametrize("quality", PRESETS)
def test_other_options_override_a_quality(quality: str) -> None:
    found = shot("--quality", quality, "--no-optimisation", "--keyframes", "every:3")
    assert found.coherence is not None
    assert found.coherence.optimisation is None
    assert found.keyframing.maximum_gap == 3
    assert shot("--quality", quality, "--per-frame").coherence is None
