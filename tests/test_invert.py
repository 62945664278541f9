# SPDX-License-Identifier: Apache-2.0
"""Inversion and injection: the reference's numbers, the way back, and no trace."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from reference import golden, golden_layer, golden_window
from torch import Tensor, nn

import tiny
from fresco_backend.engine.attention import AttentionGuides, guided_attention
from fresco_backend.engine.invert import (
    Injection,
    injected_convolution,
    injected_layer,
    inversion_steps,
    inversion_timesteps,
    invert,
    predicted_noise,
)
from fresco_backend.engine.schedule import NoiseSchedule, Prediction, Step, steps_of

SCHEDULE = NoiseSchedule.of(tiny.tiny_scheduler())


def steps_up(timesteps: Sequence[int]) -> list[Step]:
    """The steps of a run that samples these time steps, ascending as an inversion takes them."""
    return sorted(steps_of(sorted(timesteps, reverse=True)), key=lambda step: step.timestep)


def test_inversion_is_the_references() -> None:
    numbers = golden("ddim")

    def answer(latents: Tensor, step: Step) -> Tensor:
        return torch.tanh(torch.einsum("oc,nchw->nohw", numbers["inv_M"], latents)) * step.timestep / 1000

    found = dict(invert(answer, SCHEDULE, numbers["sample"], steps_up(numbers["inv_n20_t"].tolist())))
    assert list(found) == numbers["inv_n20_t"].tolist()
    for latents, expected in zip(found.values(), numbers["inv_n20_traj"], strict=True):
        assert (latents - expected).abs().max() < 2e-5
    assert (latents - numbers["inv_n20_final"]).abs().max() < 2e-5


@pytest.mark.parametrize("prediction", list(Prediction))
def test_sampling_leads_back_where_the_noise_is_the_same_at_every_step(prediction: Prediction) -> None:
    clean, noise = torch.randn(2, 2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    schedule = NoiseSchedule(
        signal=SCHEDULE.signal, prediction=prediction, spacing=SCHEDULE.spacing, offset=1,
        last_signal=SCHEDULE.last_signal,
    )  # fmt: skip

    def answer(latents: Tensor, step: Step) -> Tensor:
        """What a model says that knows the noise."""
        signal = schedule.signal[step.timestep]
        velocity: Tensor = (noise - sqrt(1 - signal) * latents) / sqrt(signal)
        return noise if prediction is Prediction.EPSILON else velocity

    steps = steps_of(schedule.timesteps(10))
    *_, (_, latents) = invert(answer, schedule, clean, steps[::-1])
    for step in steps:
        output = answer(latents, step)
        assert torch.allclose(predicted_noise(schedule, latents, output, step.timestep), noise, atol=1e-4)
        latents = schedule.ddim_step(latents, schedule.clean(latents, output, step.timestep), step)
    assert (latents - clean).abs().max() < 1e-3


def test_an_inversion_meets_every_step_that_is_sampled() -> None:
    sampled = SCHEDULE.timesteps(20)
    timesteps = inversion_timesteps(SCHEDULE, 50, sampled)
    assert set(timesteps) == {*sampled, *(step for step in SCHEDULE.timesteps(50) if step <= sampled[0])}
    assert list(timesteps) == sorted(timesteps)
    assert inversion_timesteps(SCHEDULE, 50, SCHEDULE.timesteps(50)) == SCHEDULE.timesteps(50)[::-1]
    assert inversion_timesteps(SCHEDULE, 1000, sampled[-3:])[-1] == sampled[-3]
    assert inversion_timesteps(SCHEDULE, 50, ()) == ()
    assert inversion_timesteps(SCHEDULE, 500, sampled, until=999)[-2:] == (997, 999)
    assert inversion_timesteps(SCHEDULE, 50, sampled, until=1) == timesteps


def test_what_is_inverted_has_the_place_of_the_step_that_passes_over_it_on_the_way_back() -> None:
    sampled = SCHEDULE.timesteps(4)
    assert sampled == (751, 501, 251, 1)
    steps = inversion_steps(SCHEDULE, 10, sampled)
    assert tuple(step.timestep for step in steps) == inversion_timesteps(SCHEDULE, 10, sampled)
    assert {step.timestep: step.index for step in steps} == {
        1: 3, 101: 2, 201: 2, 251: 2, 301: 1, 401: 1, 501: 1, 601: 0, 701: 0, 751: 0
    }  # fmt: skip
    assert {(step.count, step.beginning) for step in steps} == {(4, 751)}
    *before, last = inversion_steps(SCHEDULE, 10, sampled, until=901)[-3:]
    assert [step.index for step in (*before, last)] == [0, 0, 0] and last.timestep == 901


@pytest.mark.parametrize("injected", [False, True])
@pytest.mark.parametrize("guided", [False, True])
def test_injected_attention_is_the_references(injected: bool, guided: bool) -> None:
    numbers = golden("editing_attention")
    layer, window = golden_layer(numbers), golden_window(numbers)
    guides = AttentionGuides(cross_frame=guided, temporal=5.0 if guided else None, injected=injected)
    with guided_attention(layer, window, guides):
        output = layer(numbers["hidden_states"])
    expected = numbers[f"out_inj{int(injected)}_cf{int(guided)}_inter{int(guided)}"]
    torch.testing.assert_close(output, expected, rtol=0, atol=5e-6)


@pytest.fixture(scope="module")
def residual_block() -> tuple[Any, dict[str, Tensor]]:
    """The reference's residual block where a U-Net has the injected one."""
    numbers = golden("editing_attention")
    block = ResnetBlock2D(in_channels=16, temb_channels=8, groups=4).requires_grad_(False)
    block.load_state_dict({name[3:]: values for name, values in numbers.items() if name.startswith("rb/")})
    unet, up_block = nn.Module(), nn.Module()
    up_block.resnets = nn.ModuleList([nn.Identity(), block])
    unet.up_blocks = nn.ModuleList([nn.Identity(), up_block])
    return unet, numbers


def test_injected_convolution_is_the_references(residual_block: tuple[Any, dict[str, Tensor]]) -> None:
    unet, numbers = residual_block
    block = unet.up_blocks[1].resnets[1]
    with injected_convolution(unet, 4):
        injected = block(numbers["conv_h"], numbers["conv_temb"])
    plain = block(numbers["conv_h"], numbers["conv_temb"])
    torch.testing.assert_close(injected, numbers["conv_inj"], rtol=0, atol=2e-5)
    torch.testing.assert_close(plain, numbers["conv_noinj"], rtol=0, atol=2e-5)


def test_a_unet_has_the_layer_that_is_injected() -> None:
    unet = tiny.tiny_unet()
    assert injected_layer(unet) is unet.up_blocks[1].resnets[1].conv2
    with pytest.raises(ValueError, match="second residual block"):
        injected_layer(nn.Module())


def test_an_injection_ends_where_it_says() -> None:
    injection = Injection(attention=0.5, convolution=0.8)
    steps = steps_of(range(10, 0, -1))
    assert [injection.holds_attention(step) for step in steps] == [True] * 5 + [False] * 5
    assert [injection.holds_convolution(step) for step in steps] == [True] * 8 + [False] * 2
    assert [injection.acts(step) for step in steps] == [True] * 8 + [False] * 2
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Injection(attention=1.5)
