# SPDX-License-Identifier: Apache-2.0
"""Denoising of a window: any number of frames, the same bits again, no trace left, anchors carried on."""

from collections.abc import Generator
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from reference import HEIGHT, WIDTH, golden, golden_flow
from torch import Tensor, nn
from torch.nn import functional

import tiny
from fresco_backend.engine.coherence import (
    Coherence,
    FeatureGuidance,
    PixelSmoothing,
    SpatialGuidance,
    TemporalGuidance,
    WindowGuidance,
)
from fresco_backend.engine.correspondence import Correspondence
from fresco_backend.engine.denoise import (
    Anchors,
    Control,
    DiffusionModels,
    Sampling,
    StepResult,
    WindowInput,
    WindowResult,
    denoise_window,
)
from fresco_backend.engine.features import FeatureOptimisation
from fresco_backend.engine.flow import Flow
from fresco_backend.engine.latents import Encoding, NoiseSharing, Purpose, Seeds, draw, encode
from fresco_backend.engine.sampler import Sampler
from fresco_backend.engine.schedule import NoiseSchedule, Prediction

FAST = Sampling(steps=4, strength=0.75, seed=5)
PLAIN = Coherence(cross_frame=False, spatial=None, temporal=None, features=None, pixels=None)
FULL = Coherence(features=FeatureGuidance(optimisation=FeatureOptimisation(iterations=2)))


@pytest.fixture(scope="module")
def models() -> DiffusionModels:
    schedule = NoiseSchedule.of(tiny.tiny_scheduler())
    return DiffusionModels(unet=tiny.tiny_unet(), vae=tiny.tiny_vae(), schedule=schedule)


def text(count: int, seed: int) -> Tensor:
    one = torch.randn(1, 5, tiny.TEXT_WIDTH, generator=torch.Generator().manual_seed(seed))
    return one.expand(count, -1, -1)


def guidance_of(plate: tiny.MovingPlate, coherence: Coherence, *, background: bool = False) -> WindowGuidance:
    numbers = (plate.forward, plate.backward, plate.forward_occlusion, plate.backward_occlusion)
    forward, backward, forward_occlusion, backward_occlusion = (torch.from_numpy(array) for array in numbers)
    flow = Flow(
        forward=forward,
        backward=backward,
        forward_occlusion=forward_occlusion,
        backward_occlusion=backward_occlusion,
    )
    correspondence = Correspondence(frames=plate.images(), flow=flow)
    mask = torch.from_numpy(1 - plate.matte).unsqueeze(1) if background else None
    return WindowGuidance(coherence=coherence, correspondence=correspondence, background=mask)


def window_of(count: int, coherence: Coherence | None = None, *, background: bool = False) -> WindowInput:
    plate = tiny.moving_plate(count, 64)
    return WindowInput(
        frames=tuple(range(1001, 1001 + count)),
        images=plate.images(),
        prompt=text(count, 1),
        negative=text(count, 2),
        guidance=None if coherence is None else guidance_of(plate, coherence, background=background),
    )


def part(window: WindowInput, chosen: list[int]) -> WindowInput:
    """Some frames of a window as a window of their own, without guidance."""
    return WindowInput(
        frames=tuple(window.frames[index] for index in chosen),
        images=window.images[chosen],
        prompt=window.prompt[chosen],
        negative=window.negative[chosen],
        controls=tuple(replace(control, images=control.images[chosen]) for control in window.controls),
    )


def run(generator: Generator[StepResult, None, WindowResult]) -> tuple[list[StepResult], WindowResult]:
    seen = []
    while True:
        try:
            seen.append(next(generator))
        except StopIteration as stop:
            return seen, stop.value


def latents_of(models: DiffusionModels, window: WindowInput, settings: Sampling = FAST) -> Tensor:
    return run(denoise_window(models, window, settings))[1].latents


def bits(model: nn.Module) -> list[Tensor]:
    latents = torch.linspace(-1, 1, 2 * 4 * 8 * 8).view(2, 4, 8, 8)
    with torch.no_grad():
        output = model(latents, 500, encoder_hidden_states=text(2, 1)).sample
    return [output, *(value.clone() for value in model.state_dict().values())]


def same(before: list[Tensor], after: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_full_guidance_runs_with_any_number_of_frames(models: DiffusionModels, count: int) -> None:
    before = bits(models.unet)
    seen, result = run(denoise_window(models, window_of(count, FULL, background=True), FAST))
    assert [(one.step.index, one.step.count, one.step.timestep) for one in seen] == [
        (0, 3, 501),
        (1, 3, 251),
        (2, 3, 1),
    ]
    assert all(one.clean.shape == (count, 4, 8, 8) for one in seen)
    assert result.latents.shape == (count, 4, 8, 8)
    assert result.latents.isfinite().all()
    assert result.anchors.latents.shape == (3, 2, 4, 8, 8)
    assert same(before, bits(models.unet))


def test_same_seed_gives_the_same_bits_and_another_seed_does_not(models: DiffusionModels) -> None:
    window = window_of(3, FULL, background=True)
    first = latents_of(models, window)
    assert torch.equal(first, latents_of(models, window))
    assert not torch.allclose(first, latents_of(models, window, replace(FAST, seed=6)), atol=1e-2)


@pytest.mark.parametrize("sharing", list(NoiseSharing))
def test_windows_of_3_and_of_8_start_from_the_same_noise_per_frame(
    models: DiffusionModels, sharing: NoiseSharing
) -> None:
    settings = replace(FAST, sharing=sharing)
    eight, chosen = window_of(8), [0, 3, 7]
    starts = [run(denoise_window(models, part(eight, [index]), settings))[1].anchors.latents[0, 0] for index in chosen]
    three = run(denoise_window(models, part(eight, chosen), settings))[1].anchors.latents[0]
    whole = run(denoise_window(models, eight, settings))[1].anchors.latents[0]
    for window in (three, whole):
        assert torch.allclose(window[0], starts[0], atol=1e-6)
        assert torch.allclose(window[1], starts[2], atol=1e-6)


def test_without_guidance_a_frame_does_not_depend_on_its_window(models: DiffusionModels) -> None:
    eight = window_of(8)
    assert torch.allclose(latents_of(models, part(eight, [2, 5, 6])), latents_of(models, eight)[[2, 5, 6]], atol=1e-4)


def test_guidance_that_is_all_off_changes_nothing(models: DiffusionModels) -> None:
    assert torch.equal(latents_of(models, window_of(3, PLAIN)), latents_of(models, window_of(3)))


@pytest.mark.parametrize(
    "coherence",
    [
        replace(PLAIN, cross_frame=True),
        replace(PLAIN, spatial=SpatialGuidance()),
        replace(PLAIN, temporal=TemporalGuidance()),
        replace(PLAIN, features=FULL.features),
    ],
    ids=["cross-frame", "spatial", "temporal", "features"],
)
def test_each_constraint_acts(models: DiffusionModels, coherence: Coherence) -> None:
    assert (latents_of(models, window_of(3, coherence)) - latents_of(models, window_of(3))).abs().max() > 1e-3


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_cancelling_in_the_middle_restores_the_models(models: DiffusionModels, steps: int) -> None:
    window = window_of(3, FULL)
    unet_before, vae_before = bits(models.unet), [value.clone() for value in models.vae.state_dict().values()]
    generator = denoise_window(models, window, FAST)
    for _ in range(steps):
        next(generator)
    generator.close()
    assert same(unet_before, bits(models.unet))
    assert same(vae_before, list(models.vae.state_dict().values()))
    assert torch.is_grad_enabled()


def test_gradients_stay_the_callers_business_between_steps(models: DiffusionModels) -> None:
    generator = denoise_window(models, window_of(2), FAST)
    next(generator)
    assert torch.is_grad_enabled()
    assert not next(generator).clean.requires_grad
    generator.close()


def test_an_error_in_a_step_restores_the_models(models: DiffusionModels) -> None:
    window = window_of(2, FULL)
    before = bits(models.unet)
    with pytest.raises((RuntimeError, ValueError)):
        latents_of(models, replace(window, prompt=window.prompt[..., :3], negative=window.negative[..., :3]))
    assert same(before, bits(models.unet))


def test_anchors_replace_the_first_latents_before_every_step(models: DiffusionModels) -> None:
    first = window_of(3, FULL)
    _, before = run(denoise_window(models, first, FAST))
    second = replace(window_of(4, FULL), anchored=2, frames=(1001, 1003, 1004, 1005))
    _, after = run(denoise_window(models, second, FAST, before.anchors))
    assert torch.equal(after.anchors.latents[:, 0], before.anchors.latents[:, 0])
    assert not torch.equal(after.anchors.latents[:, 1], before.anchors.latents[:, 1])
    third = replace(window_of(2), anchored=2, frames=(1001, 1005))
    _, held = run(denoise_window(models, third, FAST, after.anchors))
    assert torch.equal(held.anchors.latents, after.anchors.latents)


def test_a_single_anchor_is_the_clips_first_keyframe(models: DiffusionModels) -> None:
    _, before = run(denoise_window(models, window_of(1), FAST))
    _, after = run(denoise_window(models, replace(window_of(3), anchored=1), FAST, before.anchors))
    assert torch.equal(after.anchors.latents[:, 0], before.anchors.latents[:, 0])


def test_anchors_that_are_missing_or_of_another_run_are_refused(models: DiffusionModels) -> None:
    window = replace(window_of(3), anchored=2)
    with pytest.raises(ValueError, match="no anchors"):
        next(denoise_window(models, window, FAST))
    with pytest.raises(ValueError, match="another run"):
        next(denoise_window(models, window, FAST, Anchors(latents=torch.zeros(2, 2, 4, 8, 8))))


def test_strength_zero_gives_the_plate_back(models: DiffusionModels) -> None:
    window = window_of(2, FULL)
    seen, result = run(denoise_window(models, window, replace(FAST, strength=0.0)))
    assert seen == []
    assert torch.equal(result.latents, encode(models.vae, window.images))


def test_guidance_of_one_is_the_prompt_alone(models: DiffusionModels) -> None:
    window = window_of(2, FULL)
    alone = latents_of(models, window, replace(FAST, guidance=1))
    mixed = latents_of(models, replace(window, negative=window.prompt), replace(FAST, guidance=3))
    assert (alone - mixed).abs().mean() < 0.05 * alone.abs().mean()
    assert torch.equal(alone, latents_of(models, replace(window, negative=text(2, 9)), replace(FAST, guidance=1)))
    assert not torch.allclose(alone, latents_of(models, window, replace(FAST, guidance=3)), atol=1e-2)


def test_prompts_belong_to_their_frames(models: DiffusionModels) -> None:
    window = window_of(3)
    cue = window.prompt.clone()
    cue[1] = text(1, 7)[0]
    changed = (latents_of(models, replace(window, prompt=cue)) - latents_of(models, window)).abs().amax(dim=(1, 2, 3))
    assert changed[1] > 1e-2
    assert changed[[0, 2]].max() < 1e-4


def control(window: WindowInput, **settings: float) -> Control:
    images = torch.rand(window.images.shape, generator=torch.Generator().manual_seed(4))
    return Control(network=tiny.tiny_controlnet(), images=images, **settings)


def test_a_control_acts_between_its_start_and_its_end_only(models: DiffusionModels) -> None:
    window = window_of(2)
    plain, _ = run(denoise_window(models, window, FAST))
    for start, end, first in [(0.0, 1.0, 0), (0.0, 0.3, 0), (0.6, 1.0, 2)]:
        controlled = replace(window, controls=(control(window, start=start, end=end),))
        seen, _ = run(denoise_window(models, controlled, FAST))
        differs = [not torch.equal(one.clean, other.clean) for one, other in zip(seen, plain, strict=True)]
        assert differs.index(True) == first
    calls: list[int] = []
    early = control(window, start=0.0, end=0.5)
    early.network.register_forward_pre_hook(lambda module, args: calls.append(args[1]))
    run(denoise_window(models, replace(window, controls=(early,)), FAST))
    assert calls == [501, 251]


def test_two_controls_add_up(models: DiffusionModels) -> None:
    window = window_of(2)
    once = latents_of(models, replace(window, controls=(control(window, strength=1.0),)))
    halves = (control(window, strength=0.5), control(window, strength=0.5))
    assert torch.allclose(once, latents_of(models, replace(window, controls=halves)), atol=1e-4)
    assert not torch.allclose(once, latents_of(models, window), atol=1e-3)


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (0.6, 0.2), (-0.1, 1.0), (0.0, 1.1)])
def test_a_control_that_never_acts_is_refused(start: float, end: float) -> None:
    with pytest.raises(ValueError, match="start to end"):
        control(window_of(1), start=start, end=end)


@pytest.mark.parametrize("sampler", list(Sampler))
@pytest.mark.parametrize("prediction", list(Prediction))
@pytest.mark.parametrize("encoding", list(Encoding))
def test_every_sampler_prediction_and_encoding_runs_and_makes_a_difference(
    models: DiffusionModels, sampler: Sampler, prediction: Prediction, encoding: Encoding
) -> None:
    variant = replace(models, schedule=replace(models.schedule, prediction=prediction))
    latents = latents_of(variant, window_of(2), replace(FAST, sampler=sampler, encoding=encoding))
    assert latents.isfinite().all()
    standard = sampler is Sampler.DDPM and prediction is Prediction.EPSILON and encoding is Encoding.MODE
    assert torch.equal(latents, latents_of(models, window_of(2))) == standard


def test_half_precision_models_keep_their_latents_in_full(models: DiffusionModels) -> None:
    half = replace(models, unet=tiny.tiny_unet().bfloat16(), vae=tiny.tiny_vae().bfloat16())
    window = window_of(2, replace(FULL, features=None))
    latents = latents_of(
        half, replace(window, controls=(replace(control(window), network=tiny.tiny_controlnet().bfloat16()),))
    )
    assert latents.dtype == torch.float32
    assert latents.isfinite().all()


def test_a_window_of_unequal_parts_is_refused() -> None:
    window = window_of(2)
    with pytest.raises(ValueError, match="as many"):
        replace(window, prompt=text(3, 1))
    with pytest.raises(ValueError, match="anchored"):
        replace(window, anchored=3)


DDPM = golden("ddpm_step")


class StubAutoencoder:
    """The autoencoder of the reference's numbers: 8 x 8 means and a matrix each way. First it gives `plate`."""

    dtype = torch.float32
    config = SimpleNamespace(scaling_factor=0.18215, get=lambda name: None)

    def __init__(self, plate: Tensor) -> None:
        self._plates = [plate / self.config.scaling_factor]

    def encode(self, images: Tensor) -> SimpleNamespace:
        latents = torch.einsum("oc,nchw->nohw", DDPM["A"], functional.avg_pool2d(images, 8))
        latents = self._plates.pop() if self._plates else latents
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))

    def decode(self, latents: Tensor) -> SimpleNamespace:
        small = torch.tanh(torch.einsum("oc,nchw->nohw", DDPM["B"], latents))
        return SimpleNamespace(sample=functional.interpolate(small, scale_factor=8, mode="nearest"))


def reference_window(pixels: PixelSmoothing) -> WindowInput:
    images = torch.zeros(3, 3, HEIGHT, WIDTH)
    guidance = WindowGuidance(
        coherence=replace(PLAIN, pixels=pixels),
        correspondence=Correspondence(frames=images, flow=golden_flow(DDPM)),
        background=DDPM["saliency"],
    )
    return WindowInput(frames=(1, 2, 3), images=images, prompt=text(3, 1), negative=text(3, 2), guidance=guidance)


@pytest.mark.parametrize(("timestep", "strength"), [(951, 1.0), (151, 0.2)])
@pytest.mark.parametrize("smoothed", [0, 1])
def test_smoothing_in_the_decoded_picture_is_the_references(timestep: int, strength: float, smoothed: int) -> None:
    schedule, unet = NoiseSchedule.of(tiny.tiny_scheduler()), tiny.tiny_unet()
    unet.register_forward_hook(lambda module, args, output: (DDPM["model_output"],))
    sample = DDPM["sample"]
    noise = draw(Seeds(seed=0, frames=(1, 2, 3)).generators(Purpose.INITIAL), sample)
    signal = schedule.signal[timestep]
    plate = (sample - (1 - signal) ** 0.5 * noise) / signal**0.5
    models = DiffusionModels(unet=unet, vae=StubAutoencoder(plate), schedule=schedule)
    band = PixelSmoothing(from_timestep=timestep, until_timestep=timestep if smoothed else timestep + 1, sharp=False)
    settings = Sampling(steps=20, strength=strength, guidance=1)
    first = next(denoise_window(models, reference_window(band), settings))
    expected = DDPM[f"t{timestep}_bg{smoothed}_rep0_x0"]
    assert first.step.timestep == timestep
    assert (first.clean - expected).abs().max() < 2e-5


@pytest.mark.parametrize("sharp", [False, True])
def test_a_carried_background_leaves_nothing_of_the_picture_that_it_covers(sharp: bool) -> None:
    """Two different pictures under the same noise, which a still camera makes one, are one in the next step as well."""
    schedule, unet = NoiseSchedule.of(tiny.tiny_scheduler()), tiny.tiny_unet()
    plate = DDPM["sample"][:2]
    noise = draw(Seeds(seed=0, frames=(1, 2), sharing=NoiseSharing.ALL).generators(Purpose.INITIAL), plate)
    unet.register_forward_hook(lambda module, args, output: (noise,))
    images = torch.zeros(2, 3, 64, 96)
    still = Flow.between(images, images[:, :2], images[:, :2])
    guidance = WindowGuidance(
        coherence=replace(PLAIN, pixels=PixelSmoothing(from_timestep=151, until_timestep=151, sharp=sharp)),
        correspondence=Correspondence(frames=images, flow=still),
        background=torch.ones(2, 1, 64, 96),
    )
    window = WindowInput(frames=(1, 2), images=images, prompt=text(2, 1), negative=text(2, 2), guidance=guidance)
    models = DiffusionModels(unet=unet, vae=StubAutoencoder(plate), schedule=schedule)
    settings = Sampling(steps=20, strength=0.2, guidance=1, sharing=NoiseSharing.ALL)
    first, second = (result.clean for result in islice(denoise_window(models, window, settings), 2))
    assert (plate[0] - plate[1]).abs().max() > 1
    assert (first[0] - first[1]).abs().max() < 1e-4
    assert ((second[0] - second[1]).abs().max() < 1e-4) == sharp


@pytest.mark.parametrize("nothing", ["lone frame", "mere foreground", "cut"])
def test_a_picture_that_nothing_is_carried_into_does_not_go_through_the_autoencoder(
    models: DiffusionModels, nothing: str
) -> None:
    """Decoding and encoding takes detail away, so it is only done for what it brings."""
    coherence = replace(PLAIN, pixels=PixelSmoothing(from_timestep=999, until_timestep=0))
    window = window_of(1 if nothing == "lone frame" else 2, coherence, background=True)
    assert window.guidance is not None
    guidance = window.guidance
    if nothing == "mere foreground":
        guidance = replace(guidance, background=torch.zeros(2, 1, 64, 64))
    elif nothing == "cut":
        apart = Flow.joined([Flow.closed(window.images[:1])] * 2)
        guidance = replace(guidance, correspondence=Correspondence(frames=window.images, flow=apart))
    smoothed = latents_of(models, replace(window, guidance=guidance))
    assert torch.equal(smoothed, latents_of(models, replace(window, guidance=replace(guidance, background=None))))
