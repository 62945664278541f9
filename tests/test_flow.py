# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from reference import golden

from fresco_backend.engine.flow import Flow, inconsistent, reduction, resize_flow, warp


@pytest.fixture(scope="module")
def geometry() -> dict[str, torch.Tensor]:
    return golden("geometry")


def still(frames: int = 2, height: int = 16, width: int = 24) -> Flow:
    image = torch.zeros(frames, 3, height, width)
    zero = torch.zeros(frames, 2, height, width)
    return Flow.between(image, zero, zero)


def test_warp_agrees_with_the_reference(geometry: dict[str, torch.Tensor]) -> None:
    torch.testing.assert_close(warp(geometry["feat"], geometry["flow"]), geometry["flow_warp"], rtol=0, atol=2e-5)


def test_warp_moves_whole_pixels_and_is_zero_outside() -> None:
    image = torch.arange(1.0, 13.0).reshape(1, 1, 3, 4)
    flow = torch.zeros(1, 2, 3, 4)
    flow[:, 0], flow[:, 1] = 1, -1
    expected = torch.tensor([[0.0, 0, 0, 0], [2, 3, 4, 0], [6, 7, 8, 0]])
    torch.testing.assert_close(warp(image, flow)[0, 0], expected, rtol=0, atol=1e-5)


def test_warp_keeps_the_dtype_of_the_features() -> None:
    assert warp(torch.ones(1, 2, 4, 4, dtype=torch.bfloat16), torch.zeros(1, 2, 4, 4)).dtype == torch.bfloat16


def test_inconsistent_agrees_with_the_reference(geometry: dict[str, torch.Tensor]) -> None:
    forward, backward = inconsistent(geometry["fwd_flows"], geometry["bwd_flows"])
    assert torch.equal(forward, geometry["fwd_occ"])
    assert torch.equal(backward, geometry["bwd_occ"])


def test_photometric_occlusion_lives_on_the_frame_of_its_flow() -> None:
    frames = torch.full((2, 3, 16, 24), -1.0)
    frames[1, :, 4:8, 5:10] = 1.0
    zero = torch.zeros(2, 2, 16, 24)
    flow = Flow.between(frames, zero, zero)
    patch = torch.zeros(2, 16, 24)
    patch[:, 4:8, 5:10] = 1.0
    assert torch.equal(flow.forward_occlusion, patch)
    assert torch.equal(flow.backward_occlusion, patch)


def test_photometric_test_follows_the_motion() -> None:
    frames = torch.full((2, 3, 16, 24), -1.0)
    frames[0, :, 4:8, 5:10] = 1.0
    frames[1, :, 4:8, 8:13] = 1.0
    forward, backward = torch.zeros(2, 2, 16, 24), torch.zeros(2, 2, 16, 24)
    forward[0, 0], backward[0, 0] = 3.0, -3.0
    forward[1, 0], backward[1, 0] = -3.0, 3.0
    flow = Flow.between(frames, forward, backward)
    assert not flow.forward_occlusion[0, :, :-3].any()
    assert not flow.backward_occlusion[0, :, 3:].any()


def test_resize_flow_is_measured_in_the_new_pixels() -> None:
    flow = torch.stack((torch.full((1, 16, 32), 8.0), torch.full((1, 16, 32), -4.0)), dim=1)
    small = resize_flow(flow, 4, 8)
    assert torch.equal(small[0, :, 0, 0], torch.tensor([2.0, -1.0]))


def test_one_occluded_pixel_occludes_its_feature() -> None:
    flow = still()
    flow.backward_occlusion[1, 9, 17] = 1
    small = flow.resized(2, 3)
    assert torch.equal(small.backward_occlusion[1], torch.tensor([[0.0, 0, 0], [0, 0, 1]]))
    assert small.backward_occlusion.sum() == 1 and small.forward_occlusion.sum() == 0


@pytest.mark.parametrize(("height", "width"), [(3, 4), (16, 12), (5, 7), (32, 48), (0, 0)])
def test_features_must_be_a_whole_fraction(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"features of {width}x{height} are not a whole fraction of 24x16 pixels"):
        reduction((16, 24), height, width)


@pytest.mark.parametrize("field", ["backward", "forward_occlusion", "backward_occlusion"])
def test_shapes_that_do_not_fit_are_refused(field: str) -> None:
    flow = still()
    shapes = {name: getattr(flow, name) for name in Flow.__dataclass_fields__}
    with pytest.raises(ValueError, match=field):
        Flow(**(shapes | {field: torch.zeros(2, 3, 3)}))


def test_a_single_frame_is_its_own_neighbour() -> None:
    flow = still(frames=1)
    assert flow.frames == 1 and flow.size == (16, 24)
    assert flow.forward_occlusion.sum() == 0
