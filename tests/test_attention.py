# SPDX-License-Identifier: Apache-2.0
import copy
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from largest import Largest
from reference import OneLayer, Recorded, golden, golden_layer, golden_window
from torch import Tensor, nn

import tiny
from fresco_backend.engine.attention import AttentionGuides, guided_attention, guided_layers
from fresco_backend.engine.coherence import Coherence, WindowGuidance, guided
from fresco_backend.engine.correspondence import Correspondence
from fresco_backend.engine.flow import Flow
from fresco_backend.engine.sampler import run_steps
from fresco_backend.engine.schedule import NoiseSchedule

FRAMES = 3
ALL = AttentionGuides(cross_frame=True, spatial=5.0, temporal=5.0)
OFF = AttentionGuides(cross_frame=False)


@pytest.fixture(scope="module")
def numbers() -> dict[str, Tensor]:
    return golden("attention")


@pytest.fixture(scope="module")
def layer(numbers: dict[str, Tensor]) -> OneLayer:
    return golden_layer(numbers)


@pytest.fixture(scope="module")
def recorded(numbers: dict[str, Tensor]) -> Recorded:
    return golden_window(numbers)


@pytest.mark.parametrize(
    ("name", "guides"),
    [
        ("out_plain", OFF),
        ("out_cf", AttentionGuides(cross_frame=True)),
        ("out_intra", AttentionGuides(cross_frame=False, spatial=5.0)),
        ("out_inter", AttentionGuides(cross_frame=False, temporal=5.0)),
        ("out_full", ALL),
    ],
)
def test_each_guide_agrees_with_the_reference(
    name: str, guides: AttentionGuides, numbers: dict[str, Tensor], layer: OneLayer, recorded: Recorded
) -> None:
    with guided_attention(layer, recorded, guides) as attention:
        with attention.recording():
            layer(numbers["ref_hidden_states"])
        output = layer(numbers["hidden_states"])
    torch.testing.assert_close(output, numbers[name], rtol=0, atol=5e-6)


@pytest.mark.parametrize("branches", [1, 3])
def test_branches_do_not_see_each_other(
    branches: int, numbers: dict[str, Tensor], layer: OneLayer, recorded: Recorded
) -> None:
    guides = AttentionGuides(cross_frame=True, temporal=5.0)
    alone = numbers["hidden_states"][:4]
    with guided_attention(layer, recorded, guides):
        together = layer(torch.cat([alone * (1 + n) for n in range(branches)]))
        last = layer(alone * branches)
    torch.testing.assert_close(together[-4:], last, rtol=0, atol=5e-6)


def test_memory_is_linear_in_the_tokens() -> None:
    tokens, channels = 2048, 16
    unet = OneLayer(Attention(query_dim=channels, heads=2, dim_head=8)).requires_grad_(False)
    frames, still = torch.zeros(2, 3, 256, 512), torch.zeros(2, 2, 256, 512)
    correspondence = Correspondence(frames=frames, flow=Flow.between(frames, still, still))
    correspondence.paths(32, 64)
    correspondence.keys(32, 64)
    states = torch.randn(2, tokens, channels)
    with guided_attention(unet, correspondence, ALL) as attention:
        with attention.recording():
            unet(states)
        with Largest() as largest:
            unet(states)
    assert 0 < largest.numel <= 4 * states.numel() < tokens * tokens


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return tiny.tiny_unet().requires_grad_(False)


@pytest.fixture
def window() -> Correspondence:
    generator = torch.Generator().manual_seed(5)
    frames = torch.rand(FRAMES, 3, 64, 128, generator=generator)
    forward, backward = 6 * torch.randn(2, FRAMES, 2, 64, 128, generator=generator)
    hidden = (torch.rand(FRAMES, 64, 128, generator=generator) > 0.7).float()
    flow = Flow(forward=forward, backward=backward, forward_occlusion=hidden, backward_occlusion=hidden)
    return Correspondence(frames=frames, flow=flow)


def call(unet: UNet2DConditionModel, branches: int = 2, frames: int = FRAMES, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(branches * frames, 4, 8, 16, generator=generator).to(unet.dtype)
    text = torch.randn(branches * frames, 7, tiny.TEXT_WIDTH, generator=generator).to(unet.dtype)
    output: Tensor = unet(latents, 500, text).sample
    return output


@pytest.fixture
def before(unet: UNet2DConditionModel) -> Iterator[Tensor]:
    """The U-Net's output, which it must still give, to the bit, after the test."""
    output, processors = call(unet), copy.copy(unet.attn_processors)
    yield output
    assert unet.attn_processors == processors
    assert torch.equal(call(unet), output)


def test_guides_act_can_be_changed_between_calls_and_leave_no_trace(
    unet: UNet2DConditionModel, window: Correspondence, before: Tensor
) -> None:
    with guided_attention(unet, window, OFF) as attention:
        assert torch.equal(call(unet), before)
        with attention.recording():
            assert torch.equal(call(unet), before)
        outputs = [before]
        for guides in (
            ALL,
            AttentionGuides(cross_frame=True),
            AttentionGuides(cross_frame=False, spatial=5.0),
            AttentionGuides(cross_frame=False, temporal=5.0),
            AttentionGuides(cross_frame=False, temporal=1.0),
        ):
            attention.guides = guides
            outputs.append(call(unet))
            assert torch.equal(call(unet), outputs[-1])
        assert all(not torch.equal(a, b) for i, a in enumerate(outputs) for b in outputs[:i])


def test_a_reference_in_eight_bits_guides_like_a_whole_one(
    unet: UNet2DConditionModel, window: Correspondence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are compared with float32: what eight bits add is lost in what bfloat16 rounds anyway."""
    half = copy.deepcopy(unet).to(torch.bfloat16)
    with guided_attention(unet, window, ALL) as attention:
        with attention.recording():
            call(unet)
        exact = call(unet)
    outputs = []
    for kept in (None, lambda hidden: SimpleNamespace(values=hidden, restored=hidden.__getitem__)):
        with monkeypatch.context() as patch, guided_attention(half, window, ALL) as attention:
            if kept is not None:
                patch.setattr("fresco_backend.engine.attention._Kept.of", kept)
            with attention.recording():
                call(half)
            outputs.append(call(half))
    rounded, whole = outputs
    assert not torch.equal(rounded, whole)
    assert (rounded - exact).norm() < 1.3 * (whole - exact).norm()


def test_an_error_inside_leaves_no_trace(unet: UNet2DConditionModel, window: Correspondence, before: Tensor) -> None:
    with pytest.raises(KeyError), guided_attention(unet, window, ALL) as attention, attention.recording():
        call(unet)
        raise KeyError


def test_the_two_finest_attention_blocks_of_the_decoder_are_guided(unet: UNet2DConditionModel) -> None:
    layers = guided_layers(unet)
    names = [name for name, module in unet.named_modules() if any(module is layer for layer in layers)]
    assert names and {name.split(".attentions")[0] for name in names} == {"up_blocks.2", "up_blocks.3"}
    assert all(name.endswith("attn1") for name in names)
    shallow = UNet2DConditionModel(
        block_out_channels=(8, 8, 8),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=8,
    )
    assert len(guided_layers(shallow)) == 4


def test_a_unet_without_attention_is_refused(window: Correspondence) -> None:
    with pytest.raises(ValueError, match="no self-attention"), guided_attention(nn.Module(), window, OFF):
        pass


@pytest.mark.parametrize("branches", [1, 2, 3])
def test_any_number_of_branches_fits(unet: UNet2DConditionModel, window: Correspondence, branches: int) -> None:
    with guided_attention(unet, window, ALL) as attention:
        with attention.recording():
            call(unet, branches)
        assert call(unet, branches).isfinite().all()


def test_a_window_of_one_frame_is_plain_but_for_spatial_guidance(unet: UNet2DConditionModel) -> None:
    frame, still = torch.zeros(1, 3, 64, 128), torch.zeros(1, 2, 64, 128)
    window = Correspondence(frames=frame, flow=Flow.between(frame, still, still))
    plain = call(unet, frames=1)
    with guided_attention(unet, window, AttentionGuides(cross_frame=True, temporal=5.0)):
        torch.testing.assert_close(call(unet, frames=1), plain, rtol=0, atol=1e-5)


def test_a_batch_that_is_not_whole_windows_is_refused(unet: UNet2DConditionModel, window: Correspondence) -> None:
    with guided_attention(unet, window, ALL), pytest.raises(ValueError, match="multiple of the window's 3 frames"):
        call(unet, frames=4)


def test_a_size_that_is_not_the_windows_is_refused(unet: UNet2DConditionModel, window: Correspondence) -> None:
    with guided_attention(unet, window, AttentionGuides()), pytest.raises(ValueError, match="tokens are not a whole"):
        unet(torch.zeros(3, 4, 8, 8 * 3), 1, torch.zeros(3, 7, tiny.TEXT_WIDTH))


def test_spatial_guidance_needs_a_fitting_reference(unet: UNet2DConditionModel, window: Correspondence) -> None:
    with guided_attention(unet, window, ALL) as attention:
        with pytest.raises(RuntimeError, match=r"attention\.recording"):
            call(unet)
        with attention.recording():
            call(unet, branches=1)
        with pytest.raises(ValueError, match="record them with the same window"):
            call(unet, branches=2)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperatures_are_above_zero(temperature: float) -> None:
    with pytest.raises(ValueError, match="spatial must be a temperature above 0"):
        AttentionGuides(spatial=temperature)
    with pytest.raises(ValueError, match="temporal must be a temperature above 0"):
        AttentionGuides(temporal=temperature)


def test_what_was_recorded_is_let_go_when_no_later_step_compares(
    unet: UNet2DConditionModel, window: Correspondence
) -> None:
    first, second, *_ = run_steps(NoiseSchedule.of(tiny.tiny_scheduler()), 20, 0.75)
    with guided(unet, WindowGuidance(coherence=Coherence(features=None), correspondence=window)) as guide:
        with guide.recording():
            call(unet)
        for step in (first, second):
            guide.at(step)
            call(unet)
        guide.at(first)
        with pytest.raises(RuntimeError, match=r"attention\.recording"):
            call(unet)
