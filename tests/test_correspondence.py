# SPDX-License-Identifier: Apache-2.0
import time

import pytest
import torch
import torch.nn.functional as F
from reference import golden
from torch import Tensor

from fresco_backend.engine.correspondence import Correspondence
from fresco_backend.engine.flow import Flow, resize_flow


def window(frames: Tensor, backward: Tensor, occlusion: Tensor) -> Correspondence:
    flow = Flow(
        forward=torch.zeros_like(backward),
        backward=backward,
        forward_occlusion=torch.zeros_like(occlusion),
        backward_occlusion=occlusion,
    )
    return Correspondence(frames=frames, flow=flow)


def random_window(frames: int, height: int, width: int, seed: int = 0) -> Correspondence:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(frames, 3, height, width, generator=generator) * 2 - 1
    backward = 12 * torch.randn(frames, 2, height, width, generator=generator)
    occlusion = (torch.rand(frames, height, width, generator=generator) > 0.6).float()
    return window(image, backward, occlusion)


def sequential_links(frames: Tensor, backward: Tensor, occlusion: Tensor, height: int, width: int) -> list[list[int]]:
    """The partners that a loop over all cells finds; -1 for none."""
    colour = F.interpolate(frames, size=(height, width), mode="bilinear")
    hidden = F.interpolate(occlusion[:, None], size=(height, width), mode="bilinear")[:, 0] > 0.5
    flow = resize_flow(backward, height, width)
    partners = []
    for k in range(len(frames) - 1):
        best: dict[int, tuple[float, int]] = {}
        for q in range(height * width):
            y, x = divmod(q, width)
            to_x, to_y = round(x + flow[k, 0, y, x].item()), round(y + flow[k, 1, y, x].item())
            if hidden[k, y, x] or not (0 <= to_x < width and 0 <= to_y < height):
                continue
            error = (colour[k + 1, :, y, x] - colour[k, :, to_y, to_x]).square().mean().item()
            p = to_y * width + to_x
            best[p] = min(best.get(p, (float("inf"), -1)), (error, q))
        partners.append([best[p][1] if p in best else -1 for p in range(height * width)])
    return partners


@pytest.mark.parametrize("factor", [8, 16])
def test_paths_equal_the_reference(factor: int) -> None:
    numbers = golden("paths")
    frames = numbers["a_frames"].permute(0, 3, 1, 2) / 127.5 - 1
    paths = window(frames, numbers["a_bwd_flows"], numbers["a_bwd_occ"]).paths(64 // factor, 96 // factor)
    assert torch.equal(paths.index, numbers[f"a_s{factor}_fwd_mappings"][:, 0])
    assert torch.equal(paths.index[1], numbers[f"a_s{factor}_mapping_ind"])
    assert torch.equal(paths.inverse, numbers[f"a_s{factor}_bwd_mappings"][:, 0])
    assert torch.equal(paths.linked, numbers[f"a_s{factor}_interattn_mask"][:, 0])


@pytest.mark.parametrize("seed", range(3))
def test_paths_follow_what_a_loop_over_cells_finds(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 3, (3, 3, 48, 64), generator=generator).float() - 1  # few colours: many equal errors
    backward = 12 * torch.randn(3, 2, 48, 64, generator=generator)
    occlusion = (torch.rand(3, 48, 64, generator=generator) > 0.6).float()
    paths = window(frames, backward, occlusion).paths(6, 8)
    for k, partners in enumerate(sequential_links(frames, backward, occlusion, 6, 8)):
        step = paths.index[k + 1][paths.inverse[k]].tolist()
        joined = paths.linked[:, k, k + 1][paths.inverse[k]].tolist()
        assert [q if is_joined else -1 for q, is_joined in zip(step, joined, strict=True)] == partners
        left = [q for q, is_joined in zip(step, joined, strict=True) if not is_joined]
        assert left == sorted(set(range(48)) - set(partners)) and left


def test_a_break_separates_all_earlier_frames_from_all_later_ones() -> None:
    occlusion = torch.zeros(4, 16, 16)
    occlusion[1] = 1  # frame 1 shows nothing of frame 2
    paths = window(torch.zeros(4, 3, 16, 16), torch.zeros(4, 2, 16, 16), occlusion).paths(2, 2)
    expected = torch.eye(2).repeat_interleave(2, 0).repeat_interleave(2, 1).bool()
    assert torch.equal(paths.linked, expected.expand(4, 4, 4))


def test_keys_are_the_first_frame_and_what_appears_later() -> None:
    occlusion = torch.zeros(3, 16, 32)
    occlusion[0, 11:13, 19:21] = 1  # the four middle pixels of cell (1, 2) of frame 1
    occlusion[1, 0:8, 0:3] = 1  # less than half of the middle of a cell of frame 2
    occlusion[2] = 1  # the pair (2, 0) does not count
    correspondence = window(torch.zeros(3, 3, 16, 32), torch.zeros(3, 2, 16, 32), occlusion)
    expected = torch.zeros(3, 8, dtype=torch.bool)
    expected[0] = True
    expected[1, 6] = True
    assert torch.equal(correspondence.key_mask(2, 4), expected)
    assert correspondence.keys(2, 4).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 14]


def test_a_single_frame_attends_to_itself_alone() -> None:
    correspondence = random_window(1, 64, 64)
    paths = correspondence.paths(8, 8)
    assert correspondence.keys(8, 8).tolist() == list(range(64))
    assert paths.index.tolist() == [list(range(64))] == paths.inverse.tolist()
    assert paths.linked.shape == (64, 1, 1) and paths.linked.all()


@pytest.mark.parametrize("frames", [2, 5])
def test_paths_are_permutations_with_their_inverses(frames: int) -> None:
    paths = random_window(frames, 64, 96).paths(4, 6)
    cells = torch.arange(24).expand(frames, -1)
    assert torch.equal(paths.index.sort(1).values, cells)
    assert torch.equal(paths.index.gather(1, paths.inverse), cells)


def test_constants_are_computed_once_for_each_size() -> None:
    correspondence = random_window(2, 64, 96)
    for constant in (correspondence.flow, correspondence.key_mask, correspondence.keys, correspondence.paths):
        assert constant(8, 12) is constant(8, 12)
        assert constant(8, 12) is not constant(4, 6)


def test_constants_fit_feature_sizes_of_any_factor() -> None:
    correspondence = random_window(2, 60, 90)
    assert correspondence.feature_size(4 * 6) == (4, 6)
    assert correspondence.feature_size(60 * 90) == (60, 90)
    assert correspondence.flow(4, 6).size == (4, 6)
    assert correspondence.paths(20, 30).index.shape == (2, 600)


@pytest.mark.parametrize("tokens", [0, 95, 97, 384 * 9, 64 * 96 * 4])
def test_tokens_that_are_no_reduction_are_refused(tokens: int) -> None:
    with pytest.raises(ValueError, match=f"{tokens} tokens are not a whole reduction of 96x64 pixels"):
        random_window(2, 64, 96).feature_size(tokens)


@pytest.mark.parametrize("constant", ["flow", "key_mask", "keys", "paths"])
def test_sizes_that_do_not_divide_are_refused(constant: str) -> None:
    correspondence = random_window(2, 72, 96)
    with pytest.raises(ValueError, match="features of 6x4 are not a whole fraction of 96x72 pixels"):
        getattr(correspondence, constant)(4, 6)


def test_frames_must_fit_their_flow() -> None:
    with pytest.raises(ValueError, match="frames must be"):
        window(torch.zeros(3, 3, 16, 16), torch.zeros(2, 2, 16, 16), torch.zeros(2, 16, 16))


def test_paths_of_a_full_window_take_milliseconds() -> None:
    best = float("inf")
    for seed in range(3):
        correspondence = random_window(8, 512, 512, seed)
        start = time.process_time()
        correspondence.paths(64, 64)
        best = min(best, time.process_time() - start)
    assert best < 0.1  # 0.012 s where it was measured; a loop over cells takes seconds
