# SPDX-License-Identifier: Apache-2.0
"""Edits and propagated features over a tiny U-Net: what comes back, what is computed, and how much at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from test_denoise import FAST, FULL, PLAIN, bits, guidance_of, latents_of, models, same, text, window_of
from torch import Tensor

import tiny
from fresco_backend.engine.coherence import Coherence, WindowGuidance
from fresco_backend.engine.correspondence import Correspondence
from fresco_backend.engine.denoise import Control, DiffusionModels, Sampling, WindowInput, invert_window
from fresco_backend.engine.flow import Flow
from fresco_backend.engine.invert import Injection, PlateFeatures, Source, inversion_steps
from fresco_backend.engine.latents import NoiseSharing, encode
from fresco_backend.engine.sampler import Sampler
from fresco_backend.engine.tokenflow import Blend, Propagation

__all__ = ["models"]  # a fixture

EDIT = Sampling(steps=4, strength=1.0, guidance=1, sampler=Sampler.DDIM)
STEADY = replace(FAST, sharing=NoiseSharing.ALL)


def source_of(models: DiffusionModels, window: WindowInput, injection: Injection | None, *, steps: int = 50) -> Source:
    """The window's plate inverted with the words of its prompt."""
    sampled = models.schedule.timesteps(EDIT.steps)
    way = dict(invert_window(models, replace(window, guidance=None), EDIT,
                             inversion_steps(models.schedule, steps, sampled)))
    return Source(latents=lambda timestep: way[timestep], caption=window.prompt, injection=injection)


def subset(guidance: WindowGuidance, images: Tensor, places: Sequence[int]) -> WindowGuidance:
    """The guidance of some frames, as if they did not move."""
    frames = images[list(places)]
    still = torch.zeros_like(frames[:, :2])
    correspondence = Correspondence(frames=frames, flow=Flow.between(frames, still, still))
    return replace(guidance, correspondence=correspondence)


def propagating(
    window: WindowInput, source: Source, radix: int, coherence: Coherence | None = None, blend: Blend = Blend.LINEAR
) -> WindowInput:
    """The window with its features propagated. Radix 1, with which all are pivots, has the window's own guidance."""

    def guidance(places: tuple[int, ...]) -> WindowGuidance | None:
        if coherence is None:
            return None
        whole = guidance_of(tiny.moving_plate(len(window.frames), 64), coherence)
        return whole if radix == 1 else subset(whole, window.images, places)

    propagation = Propagation(radix=radix, blend=blend, guidance=guidance)
    return replace(window, guidance=None, source=source, propagation=propagation)


@contextmanager
def rows_seen(models: DiffusionModels) -> Iterator[list[int]]:
    """How many rows each call of the U-Net has."""
    seen: list[int] = []
    hook = models.unet.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    try:
        yield seen
    finally:
        hook.remove()


def test_an_edit_with_the_words_of_the_plate_gives_the_plate_back(models: DiffusionModels) -> None:
    window = window_of(2, PLAIN)
    edit = replace(window, source=source_of(models, window, Injection()))
    plate = encode(models.vae, window.images)
    again = latents_of(models, edit, EDIT)
    noise = latents_of(models, replace(window, guidance=None), replace(EDIT, sharing=NoiseSharing.NONE))
    assert (again - plate).square().mean() < 0.05 * (noise - plate).square().mean()


def test_injection_keeps_the_plate_and_another_prompt_changes_it(models: DiffusionModels) -> None:
    window, settings = window_of(2, PLAIN), replace(EDIT, guidance=5.0)
    other = replace(window, prompt=text(2, 7))
    free, held = (
        latents_of(models, replace(other, source=source_of(models, window, injection)), settings)
        for injection in (Injection(attention=0, convolution=0), Injection(attention=1, convolution=1))
    )
    plate = encode(models.vae, window.images)
    assert not torch.allclose(free, held, atol=1e-3)
    assert (held - plate).abs().max() > 1e-3


@pytest.mark.parametrize("guidance", [1, 5.0])
def test_the_plates_branch_is_computed_while_it_is_needed(guidance: float, models: DiffusionModels) -> None:
    window = window_of(3, FULL)
    coherence = replace(FULL, spatial=None, features=None)
    window = replace(window, guidance=replace(window.guidance, coherence=coherence), source=None)  # type: ignore[type-var]
    branches = 1 if guidance == 1 else 2
    edit = replace(window, source=source_of(models, window, Injection(attention=0.25, convolution=0.5)))
    with rows_seen(models) as rows:
        latents_of(models, edit, replace(EDIT, guidance=guidance))
    plate, edited = 3, 3 * branches
    assert rows == [plate, edited, plate, edited, edited, edited]


class Remembered:
    """Keeps the plate's features in memory."""

    def __init__(self) -> None:
        self.features: dict[int, PlateFeatures] = {}

    def load(self, timestep: int, _device: torch.device) -> PlateFeatures | None:
        return self.features.get(timestep)

    def save(self, timestep: int, features: PlateFeatures) -> None:
        assert timestep not in self.features
        self.features[timestep] = features


def test_another_prompt_takes_the_plates_features_from_the_first_one(models: DiffusionModels) -> None:
    coherence, kept = replace(FULL, spatial=None), Remembered()
    window = window_of(3, coherence)
    source = source_of(models, window, Injection(attention=0.25, convolution=0.5))
    other = replace(window, prompt=text(3, 7), source=replace(source, kept=kept))
    alone = latents_of(models, replace(other, source=source), replace(EDIT, guidance=5.0))
    latents_of(models, replace(other, prompt=text(3, 9)), replace(EDIT, guidance=5.0))
    first, second = models.schedule.timesteps(EDIT.steps)[:2]
    assert sorted(kept.features) == [second, first]
    assert kept.features[first].tokens and kept.features[second].tokens is None
    with rows_seen(models) as rows:
        again = latents_of(models, other, replace(EDIT, guidance=5.0))
    assert 3 not in rows, "the plate's branch was computed again"
    assert torch.equal(again, alone), "what is kept decides nothing"


def test_pivots_that_are_all_frames_are_the_whole_window(models: DiffusionModels) -> None:
    window = window_of(3, FULL)
    source = source_of(models, window, None)
    expected, before = latents_of(models, window, STEADY), bits(models.unet)
    found = latents_of(models, propagating(window, source, 1, FULL), STEADY)
    # The features are optimised by the signs of gradients, so that rounding grows: see FRESCO's own numbers.
    assert (found - expected).abs().mean() < 0.02 * expected.abs().mean()
    alone = latents_of(models, propagating(window, source, 1), STEADY)
    torch.testing.assert_close(alone, latents_of(models, replace(window, guidance=None), STEADY), rtol=0, atol=1e-4)
    assert same(bits(models.unet), before)


@pytest.mark.parametrize("blend", list(Blend))
@pytest.mark.parametrize("injection", [None, Injection()])
def test_frames_that_are_alike_come_out_alike(
    blend: Blend, injection: Injection | None, models: DiffusionModels
) -> None:
    window = window_of(7)
    window = replace(window, images=window.images[:1].expand(7, -1, -1, -1).contiguous())
    settings = STEADY if injection is None else replace(EDIT, guidance=5.0)
    latents = latents_of(models, propagating(window, source_of(models, window, injection), 3, blend=blend), settings)
    assert (latents - latents[:1]).abs().max() < 1e-3 * latents.abs().max()
    assert latents.std() > 0.1


def test_a_long_window_takes_no_more_rows_at_once(models: DiffusionModels) -> None:
    window = window_of(14)
    with rows_seen(models) as rows:
        latents_of(models, propagating(window, source_of(models, window, None, steps=4), 4), replace(STEADY, steps=4))
    inverted = [count for count in rows if count == 14]
    assert inverted, "the inversion is seen as well"
    assert max(count for count in rows if count not in inverted) <= 3 * 5


def test_all_constraints_hold_pivots_and_what_lies_between(models: DiffusionModels) -> None:
    window = window_of(5)
    source = source_of(models, window, None)
    free = latents_of(models, propagating(window, source, 2), STEADY)
    held = latents_of(models, propagating(window, source, 2, FULL), STEADY)
    assert held.isfinite().all()
    assert not torch.allclose(free, held, atol=1e-2)


def controlled(models: DiffusionModels, window: WindowInput) -> WindowInput:
    """The window with a control, and its own words in place of the negative prompt."""
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    control = Control(network=tiny.tiny_controlnet(models.unet), images=images)
    return replace(window, negative=window.prompt, controls=(control,))


@pytest.mark.parametrize("propagated", [False, True])
def test_controls_act_on_the_plates_way_to_noise_as_on_the_way_back(propagated: bool, models: DiffusionModels) -> None:
    window = window_of(2, PLAIN)
    asked, plate = controlled(models, window), encode(models.vae, window.images)

    def error(inverted: WindowInput) -> float:
        source = source_of(models, inverted, Injection(attention=1, convolution=1))
        edit = propagating(asked, source, 1) if propagated else replace(asked, source=source)
        return float((latents_of(models, edit, replace(EDIT, guidance=5.0)) - plate).square().mean())

    assert error(asked) < 0.5 * error(window)


@pytest.mark.parametrize("propagated", [False, True])
def test_controls_act_in_the_plates_branch(propagated: bool, models: DiffusionModels) -> None:
    window = window_of(2, PLAIN)
    source = source_of(models, window, Injection(attention=1, convolution=1))
    outputs: list[Tensor] = []
    hook = models.unet.register_forward_hook(lambda _, __, output: outputs.append(output[0][:2]))
    try:
        for each in (window, controlled(models, window)):
            edit = propagating(each, source, 1) if propagated else replace(each, source=source)
            latents_of(models, edit, replace(EDIT, guidance=5.0))
    finally:
        hook.remove()
    plain, held = outputs[0], outputs[len(outputs) // 2]
    assert not torch.allclose(plain, held, atol=1e-3)


def test_words_of_the_plate_against_themselves_are_no_guidance(models: DiffusionModels) -> None:
    asked = controlled(models, window_of(2, PLAIN))
    asked = replace(asked, source=source_of(models, asked, Injection()))
    plain, guided = (latents_of(models, asked, replace(EDIT, guidance=guidance)) for guidance in (1, 9.0))
    torch.testing.assert_close(plain, guided, rtol=0, atol=1e-3)

def test_propagation_needs_the_plate(models: DiffusionModels) -> None:
    window = window_of(2)
    propagation = Propagation(radix=2, blend=Blend.LINEAR, guidance=lambda _: None)
    with pytest.raises(ValueError, match="give its source"):
        replace(window, propagation=propagation)
