# SPDX-License-Identifier: Apache-2.0
"""Feature propagation: the reference's numbers, which frames are made from which, and a search of bounded memory."""

from __future__ import annotations

from itertools import chain, pairwise

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from largest import Largest
from reference import golden
from torch import Tensor, nn

import tiny
from fresco_backend.engine.tokenflow import (
    TILE,
    Blend,
    PivotFeatures,
    Segment,
    largest_window,
    nearest,
    pivots,
    segments,
    unit,
)

PIVOTS = 3


@pytest.fixture(scope="module")
def numbers() -> dict[str, Tensor]:
    return golden("tokenflow_block")


@pytest.fixture(scope="module")
def unet(numbers: dict[str, Tensor]) -> nn.Sequential:
    heads = int(numbers["heads"])
    block = BasicTransformerBlock(dim=32, num_attention_heads=heads, attention_head_dim=32 // heads,
                                  cross_attention_dim=20)  # fmt: skip
    block.load_state_dict({name[2:]: values for name, values in numbers.items() if name.startswith("w/")}, strict=False)
    return nn.Sequential(block).requires_grad_(False).eval()


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("frames", [2, 3])
def test_a_block_agrees_with_the_reference(
    place: int, frames: int, numbers: dict[str, Tensor], unet: nn.Sequential
) -> None:
    found = segments((0, frames), 2 * frames, 0, Blend.REFERENCE)[place]
    assert found.pivots == ((0,), (0, 1))[place]
    features, block = PivotFeatures(), unet[0]
    with features.stored(unet, PIVOTS):
        output = block(numbers["x_pivot"], encoder_hidden_states=numbers["ctx_pivot"])
    torch.testing.assert_close(output, numbers["y_pivot"], rtol=0, atol=2e-5)
    name = f"seg_b{place}_n{frames}_"
    with features.propagated(unet, found):
        output = block(numbers[name + "x"], encoder_hidden_states=numbers[name + "ctx"])
    torch.testing.assert_close(output, numbers[name + "y"], rtol=0, atol=2e-5)


def test_a_frame_that_is_its_pivot_gets_the_pivots_own_result(numbers: dict[str, Tensor], unet: nn.Sequential) -> None:
    features, block = PivotFeatures(), unet[0]
    with features.stored(unet, PIVOTS):
        whole = block(numbers["x_pivot"], encoder_hidden_states=numbers["ctx_pivot"])
    with features.propagated(unet, Segment(frames=(0, 1, 2), pivots=(1, 2), weights=(0.0, 0.0, 1.0))):
        again = block(numbers["x_pivot"], encoder_hidden_states=numbers["ctx_pivot"])
    ours, theirs = again.unflatten(0, (3, 3)), whole.unflatten(0, (3, 3))
    torch.testing.assert_close(ours[:, 1:], theirs[:, 1:], rtol=0, atol=2e-5)
    assert not torch.allclose(ours[:, 0], theirs[:, 0], atol=1e-2)


def test_propagation_leaves_no_trace_and_needs_pivots() -> None:
    unet = tiny.tiny_unet()
    layers = [module for module in unet.modules() if hasattr(module, "set_processor")]
    before = [layer.processor for layer in layers]
    latents, text = torch.zeros(2, 4, 8, 8), torch.zeros(2, 5, tiny.TEXT_WIDTH)
    features, segment = PivotFeatures(), Segment(frames=(0, 1), pivots=(0,), weights=(1.0, 1.0))
    with pytest.raises(RuntimeError, match="no pivots"), features.propagated(unet, segment):
        unet(latents, 1, encoder_hidden_states=text)
    assert [layer.processor for layer in layers] == before


def test_the_whole_unet_makes_a_frame_again_from_itself() -> None:
    unet, generator = tiny.tiny_unet(), torch.Generator().manual_seed(1)
    latents, text = (torch.randn(3, *shape, generator=generator) for shape in ((4, 8, 8), (5, tiny.TEXT_WIDTH)))
    features = PivotFeatures()
    with torch.no_grad(), features.stored(unet, 3):
        expected = unet(latents, 500, encoder_hidden_states=text).sample
    segment = Segment(frames=(0, 1), pivots=(1, 2), weights=(0.0, 1.0))
    with torch.no_grad(), features.propagated(unet, segment):
        found = unet(latents[1:], 500, encoder_hidden_states=text[1:]).sample
    torch.testing.assert_close(found, expected[1:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("blend", list(Blend))
@pytest.mark.parametrize(("count", "anchored", "radix"), [(1, 0, 4), (9, 0, 3), (14, 2, 4), (3, 2, 5), (8, 1, 3)])
def test_every_frame_is_made_once_and_lies_between_its_pivots(
    count: int, anchored: int, radix: int, blend: Blend
) -> None:
    for turn in range(2 * radix):
        keys = pivots(count, anchored, radix, turn)
        found = segments(keys, count, anchored, blend)
        made = list(chain.from_iterable(segment.frames for segment in found))
        again = [] if blend is Blend.LINEAR else [key for key in keys if key >= anchored]
        assert sorted({*made, *keys}) == list(range(count))
        assert len(made) == len(set(made)) == count - len(keys) + len(again)
        assert set(range(anchored)) <= set(keys)
        for segment in found:
            assert len(segment.frames) == len(segment.weights)
            assert all(0 <= weight <= 1 for weight in segment.weights)
            if blend is Blend.LINEAR and len(segment.pivots) == 2:
                before, after = (keys[place] for place in segment.pivots)
                expected = [(frame - before) / (after - before) for frame in segment.frames]
                assert list(segment.weights) == pytest.approx(expected)


def test_every_frame_is_a_pivot_in_its_turn() -> None:
    keys = [pivots(14, 2, 4, turn) for turn in range(4)]
    assert set(chain.from_iterable(keys)) == set(range(14))
    assert all(first != second for first, second in pairwise(keys))
    assert pivots(14, 2, 4, 4) == keys[0]


@pytest.mark.parametrize("radix", [1, 3, 5])
@pytest.mark.parametrize("size", [3, 8])
def test_a_window_never_has_more_pivots_than_it_may(size: int, radix: int) -> None:
    count = largest_window(size, radix)
    for anchored in range(3):
        assert max(len(pivots(count, anchored, radix, turn)) for turn in range(radix)) <= size
    assert len(pivots(count + 1, 2, radix, 0)) > size


def test_the_nearest_is_the_most_similar_in_direction() -> None:
    others = unit(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    tokens = unit(torch.tensor([[[9.0, 1.0], [0.1, 5.0]], [[3.0, 3.1], [-1.0, 0.0]]]))
    assert nearest(tokens, others).tolist() == [[0, 1], [2, 1]]


def test_the_search_takes_memory_for_one_tile() -> None:
    tokens = unit(torch.randn(3, 2 * TILE, 4, generator=torch.Generator().manual_seed(0)))
    with Largest() as largest:
        index = nearest(tokens, tokens[0])
    assert largest.numel <= TILE * 2 * TILE
    assert index[0].tolist() == list(range(2 * TILE))
