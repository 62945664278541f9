# SPDX-License-Identifier: Apache-2.0
"""The background that motion tells: what the camera moves, and not what moves by itself."""

import pytest
import torch

from fresco_backend.engine.flow import Flow
from fresco_backend.guides.background import moving_background

HEIGHT, WIDTH = 96, 128
SUBJECT = (slice(30, 60), slice(40, 80))


def flow_of(camera: tuple[float, float], subject: tuple[float, float], frames: int = 3) -> Flow:
    """A pan with one subject that moves otherwise; nothing is hidden."""
    forward = torch.tensor(camera)[None, :, None, None].repeat(frames, 1, HEIGHT, WIDTH)
    forward[(..., *SUBJECT)] = torch.tensor(subject)[:, None, None]
    hidden = torch.zeros(frames, HEIGHT, WIDTH)
    return Flow(forward=forward, backward=-forward, forward_occlusion=hidden, backward_occlusion=hidden)


@pytest.mark.parametrize("camera", [(0.0, 0.0), (6.0, -3.0)])
def test_a_subject_that_moves_by_itself_is_no_background(camera: tuple[float, float]) -> None:
    background = moving_background(flow_of(camera, (camera[0] + 8, camera[1])))
    assert background.shape == (3, 1, HEIGHT, WIDTH)
    assert background[(..., *SUBJECT)].mean() < 0.02
    outside = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    outside[SUBJECT] = False
    assert background[..., outside].min() > 0.98


def test_a_subject_that_stops_in_one_pair_stays_foreground() -> None:
    flow = flow_of((0.0, 0.0), (8.0, 0.0))
    flow.forward[1] = flow.backward[1] = 0
    background = moving_background(flow)
    assert background[(1, 0, *SUBJECT)].mean() < 0.02, "it moved from frame 0 to frame 1"


def test_a_zoom_is_the_cameras() -> None:
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    zoom = 0.1 * torch.stack((columns - WIDTH / 2, rows - HEIGHT / 2))[None].float().repeat(3, 1, 1, 1)
    hidden = torch.zeros(3, HEIGHT, WIDTH)
    flow = Flow(forward=zoom, backward=-zoom / 1.1, forward_occlusion=hidden, backward_occlusion=hidden)
    assert moving_background(flow).min() > 0.9


def test_motion_without_order_has_no_background() -> None:
    noise = 30 * torch.randn(3, 2, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    hidden = torch.zeros(3, HEIGHT, WIDTH)
    flow = Flow(forward=noise, backward=-noise, forward_occlusion=hidden, backward_occlusion=hidden)
    assert moving_background(flow).max() == 0


def test_hidden_pixels_have_no_say() -> None:
    flow = flow_of((2.0, 0.0), (2.0, 0.0))
    flow.forward[:, :, :, :90] = 40.0
    flow.forward_occlusion[:, :, :90] = 1
    assert moving_background(flow)[0, 0, :, 100:].min() > 0.98


def test_a_lone_frame_is_background_altogether() -> None:
    assert moving_background(flow_of((0.0, 0.0), (0.0, 0.0), frames=1)).min() == 1


def test_the_same_flow_gives_the_same_bits() -> None:
    flow = flow_of((3.0, 1.0), (9.0, 1.0))
    assert torch.equal(moving_background(flow), moving_background(flow))
