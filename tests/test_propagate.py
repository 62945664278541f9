# SPDX-License-Identifier: Apache-2.0
"""In-betweens against truths: a clip of known motion whose every frame is stylised by one function of colour."""

from collections import Counter
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import tiny
from fresco_backend.engine.flow import warp
from fresco_backend.engine.propagate import StyledKey, propagate


@dataclass(frozen=True)
class Clip:
    """Plates and their motion between any two frames, as `propagate` asks for them."""

    plates: Tensor
    mattes: Tensor
    pan: tuple[float, float] = (0.0, 0.0)
    disc: tuple[float, float] = (0.0, 0.0)

    def plate(self, frame: int) -> Tensor:
        return self.plates[frame]

    def motion(self, frame: int, other: int) -> Tensor:
        pan, disc = (torch.tensor(velocity).view(2, 1, 1) * (other - frame) for velocity in (self.pan, self.disc))
        return torch.where(self.mattes[frame] > 0, disc, pan)

    def flow(self, frame: int, other: int) -> tuple[Tensor, Tensor]:
        return self.motion(frame, other), self.motion(other, frame)


def moving(count: int = 9, size: tuple[int, int] = (96, 128)) -> Clip:
    disc, pan = (4.0, 1.0), (-1.5, 0.5)
    plate = tiny.moving_plate(count, size, disc_velocity=disc, pan=pan)
    return Clip(plates=plate.images(), mattes=torch.from_numpy(plate.matte), pan=pan, disc=disc)


def still(count: int = 9, size: tuple[int, int] = (48, 64)) -> Clip:
    plates = tiny.moving_plate(1, size).images().expand(count, -1, -1, -1)
    return Clip(plates=plates, mattes=torch.zeros(count, *size))


def stylised(plates: Tensor) -> Tensor:
    """A look that is no linear function of colour: swapped channels, steep contrast."""
    return torch.tanh(3 * plates.flip(-3))


def keys(styles: Tensor, *frames: int) -> list[StyledKey]:
    return [StyledKey(frame=frame, image=styles[frame]) for frame in frames]


def carried(clip: Clip, styles: Tensor, frame: int, key: int) -> Tensor:
    return warp(styles[key : key + 1], clip.motion(frame, key)[None])[0]


def psnr(image: Tensor, truth: Tensor) -> float:
    return float(10 * torch.log10(4 / (image - truth).square().mean()))


def texture(seed: int, size: tuple[int, int] = (48, 64)) -> Tensor:
    return torch.randn(3, *size, generator=torch.Generator().manual_seed(seed)) * 0.2


def test_a_keyframe_is_given_exactly_as_it_is() -> None:
    clip = moving()
    styles = stylised(clip.plates)
    frames = list(propagate(range(9), keys(styles, 0, 8), clip.plate, clip.flow))
    assert len(frames) == 9
    assert torch.equal(frames[0], styles[0])
    assert torch.equal(frames[8], styles[8])


@pytest.mark.parametrize("frame", [1, 2, 4, 6, 7])
def test_in_betweens_are_near_the_truth_and_beat_plain_warping_and_blending(frame: int) -> None:
    clip = moving()
    styles = stylised(clip.plates)
    (image,) = propagate([frame], keys(styles, 0, 8), clip.plate, clip.flow)
    first, last = carried(clip, styles, frame, 0), carried(clip, styles, frame, 8)
    blend = torch.lerp(first, last, frame / 8)
    assert psnr(image, styles[frame]) > 30
    assert psnr(image, styles[frame]) > psnr(blend, styles[frame]) + 6
    assert psnr(image, styles[frame]) > psnr(first if frame < 4 else last, styles[frame]) + 6


def test_what_one_keyframe_hides_comes_from_the_other_without_double_exposure() -> None:
    clip = moving()
    styles = stylised(clip.plates)
    (image,) = propagate([4], keys(styles, 0, 8), clip.plate, clip.flow)
    ghost = (clip.mattes[4] == 0) & (warp(clip.mattes[None, :1], clip.motion(4, 0)[None])[0, 0] > 0)
    assert ghost.sum() > 100
    error = (image - styles[4]).abs().mean(0)[ghost].mean()
    blend = torch.lerp(carried(clip, styles, 4, 0), carried(clip, styles, 4, 8), 0.5)
    assert error < 0.2 * (blend - styles[4]).abs().mean(0)[ghost].mean()
    assert error < 0.05


def test_a_still_plate_with_equal_keyframes_does_not_flicker() -> None:
    clip = still()
    style = stylised(clip.plates[0]) + texture(1)
    held = style.clamp(-1, 1)
    pair = [StyledKey(frame=0, image=held), StyledKey(frame=8, image=held)]
    for image in propagate(range(9), pair, clip.plate, clip.flow):
        assert (image - held).abs().max() < 1e-4


def test_colours_of_unlike_keyframes_change_evenly_over_time() -> None:
    clip = still()
    first, last = torch.full((3, 48, 64), -0.5), torch.full((3, 48, 64), 0.3)
    pair = [StyledKey(frame=0, image=first), StyledKey(frame=8, image=last)]
    means = torch.stack([image.mean() for image in propagate(range(9), pair, clip.plate, clip.flow)])
    assert torch.allclose(means.diff(), torch.full((8,), 0.1), atol=1e-3)


def test_detail_of_unlike_keyframes_keeps_its_contrast_in_the_middle() -> None:
    clip = still()
    pair = [StyledKey(frame=0, image=texture(1)), StyledKey(frame=8, image=texture(2))]
    contrast = [float(image.std()) for image in propagate(range(9), pair, clip.plate, clip.flow)]
    assert min(contrast) > 0.9 * contrast[0]
    assert float(torch.lerp(texture(1), texture(2), 0.5).std()) < 0.75 * contrast[0]


def test_light_that_changes_in_the_plate_changes_the_style() -> None:
    clip = still()
    brighter = Clip(plates=clip.plates * 0.6 + torch.linspace(0, 0.08, 9).view(9, 1, 1, 1), mattes=clip.mattes)
    styles = -0.7 * brighter.plates
    (image,) = propagate([6], keys(styles, 0), brighter.plate, brighter.flow)
    assert (image - styles[6]).abs().mean() < 0.25 * (styles[0] - styles[6]).abs().mean()


@pytest.mark.parametrize(("key", "frames"), [(8, [0, 3, 7]), (0, [1, 5, 8])])
def test_one_keyframe_serves_the_frames_before_or_after_it(key: int, frames: list[int]) -> None:
    clip = moving()
    styles = stylised(clip.plates)
    for frame, image in zip(frames, propagate(frames, keys(styles, key), clip.plate, clip.flow), strict=True):
        assert psnr(image, styles[frame]) > psnr(carried(clip, styles, frame, key), styles[frame]) + 3


def test_what_no_keyframe_shows_is_painted_in_the_colours_of_the_style() -> None:
    plate = tiny.moving_plate(5, (96, 128), disc_velocity=(9.0, 0.0), pan=(9.0, 0.0))
    clip = Clip(plates=plate.images(), mattes=torch.from_numpy(plate.matte) * 0, pan=(9.0, 0.0))
    styles = stylised(clip.plates)
    (image,) = propagate([4], keys(styles, 0), clip.plate, clip.flow)
    uncovered = slice(0, 34)
    error = (image - styles[4])[..., uncovered].abs().mean()
    assert error < 0.5 * (styles[4] - styles[4].mean((1, 2), keepdim=True))[..., uncovered].abs().mean()
    assert image.abs().max() <= 1


def test_a_keyframe_beyond_a_cut_leaves_no_trace() -> None:
    clip = still(6)
    plates = clip.plates.clone()
    plates[5] = -plates[5].flip(1)
    cut = Clip(plates=plates, mattes=clip.mattes)
    styles = stylised(plates)
    images = list(propagate(range(1, 5), keys(styles, 0, 5), cut.plate, cut.flow))
    for image in images[:-1]:
        assert (image - styles[0]).abs().mean() < 0.02
    assert (images[-1] - styles[0]).abs().mean() < 0.05


def test_a_flow_that_does_not_return_is_not_believed_even_where_colours_agree() -> None:
    flat = Clip(plates=torch.zeros(9, 3, 48, 64), mattes=torch.zeros(9, 48, 64))
    pair = [StyledKey(frame=0, image=torch.full((3, 48, 64), 0.5)), StyledKey(frame=8, image=torch.zeros(3, 48, 64))]

    def flow(frame: int, other: int) -> tuple[Tensor, Tensor]:
        there, back = flat.flow(frame, other)
        return (there + 20, back) if other == 0 else (there, back)

    (image,) = propagate([2], pair, flat.plate, flow)
    assert image.abs().max() < 0.1  # believed, it would be 0.375


def test_where_neither_keyframe_is_believed_they_are_mixed_by_distance_and_not_by_chance() -> None:
    flat = Clip(plates=torch.zeros(9, 3, 48, 64), mattes=torch.zeros(9, 48, 64))
    pair = [StyledKey(frame=0, image=torch.full((3, 48, 64), 0.5)), StyledKey(frame=8, image=torch.zeros(3, 48, 64))]

    def flow(frame: int, other: int) -> tuple[Tensor, Tensor]:
        there, back = flat.flow(frame, other)
        return there + (10 if other == 0 else 14), back  # both miss by far, one a little less

    (image,) = propagate([4], pair, flat.plate, flow)
    middle = image[:, 16:32, 16:48]
    assert middle.min() > 0.25
    assert middle.max() < 0.36


def test_noise_of_the_plate_is_no_change_of_the_style() -> None:
    clip = still()
    noise = 0.06 * torch.randn(clip.plates.shape, generator=torch.Generator().manual_seed(3))
    noise[[0, 8]] = 0
    noisy = Clip(plates=clip.plates * 0.6 + noise, mattes=clip.mattes)
    styles = -0.7 * 0.6 * clip.plates
    (image,) = propagate([4], keys(styles, 0, 8), noisy.plate, noisy.flow)
    assert (image - styles[4]).std() < 0.15 * 0.7 * noise[4].std()


def test_one_frame_is_worked_on_at_a_time_and_nothing_is_asked_for_twice() -> None:
    clip, asked = moving(5, (33, 47)), Counter[tuple[int, ...]]()

    def plate(frame: int) -> Tensor:
        asked[frame,] += 1
        return clip.plate(frame)

    def flow(frame: int, other: int) -> tuple[Tensor, Tensor]:
        asked[frame, other] += 1
        return clip.flow(frame, other)

    frames = propagate(range(5), keys(clip.plates, 0, 4), plate, flow)
    next(frames)
    assert set(asked) == {(0,), (4,)}
    next(frames)
    assert set(asked) == {(0,), (4,), (1,), (1, 0), (1, 4)}
    assert all(image.shape == (3, 33, 47) for image in frames)
    assert max(asked.values()) == 1


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 40)])
def test_the_smallest_frames_work(size: tuple[int, int]) -> None:
    clip = still(3, size)
    (image,) = propagate([1], keys(clip.plates, 0, 2), clip.plate, clip.flow)
    assert torch.allclose(image, clip.plates[0], atol=1e-4)


@pytest.mark.parametrize("frames", [(), (0, 4, 8)])
def test_an_interval_has_one_or_two_keyframes(frames: tuple[int, ...]) -> None:
    clip = moving()
    with pytest.raises(ValueError, match="one or two keyframes"):
        next(propagate([1], keys(clip.plates, *frames), clip.plate, clip.flow))
