# SPDX-License-Identifier: Apache-2.0
"""Noise depends on seed and frame alone; encoding and decoding do not depend on chunks and respect the config."""

import copy
from collections import Counter

import pytest
import torch
from diffusers import AutoencoderTiny

import tiny
from fresco_backend.engine.latents import (
    Encoding,
    NoiseSharing,
    Purpose,
    Seeds,
    decode,
    draw,
    encode,
    frame_generator,
)

LIKE = torch.zeros(8, 4, 6, 6)


def noise(frames: tuple[int, ...], purpose: Purpose, sharing: NoiseSharing, seed: int = 7) -> torch.Tensor:
    return draw(Seeds(seed=seed, frames=frames, sharing=sharing).generators(purpose), LIKE[: len(frames)])


@pytest.mark.parametrize("sharing", list(NoiseSharing))
@pytest.mark.parametrize("purpose", list(Purpose))
def test_a_frames_noise_does_not_depend_on_its_window(purpose: Purpose, sharing: NoiseSharing) -> None:
    eight = noise((1001, 1005, 1009, 1013, 1017, 1021, 1025, 1029), purpose, sharing)
    three = noise((1001, 1013, 1017), purpose, sharing)
    assert torch.equal(three, eight[[0, 3, 4]])


@pytest.mark.parametrize(
    ("sharing", "shared"),
    [
        (NoiseSharing.NONE, set()),
        (NoiseSharing.INITIAL, {Purpose.INITIAL}),
        (NoiseSharing.ALL, {Purpose.INITIAL, Purpose.STEP}),
    ],
)
def test_only_the_named_noise_is_shared(sharing: NoiseSharing, shared: set[Purpose]) -> None:
    for purpose in Purpose:
        first, second = noise((1, 2), purpose, sharing)
        assert torch.equal(first, second) == (purpose in shared)


def test_shared_noise_goes_on_from_step_to_step() -> None:
    generators = Seeds(seed=1, frames=(1, 2), sharing=NoiseSharing.ALL).generators(Purpose.STEP)
    before, after = draw(generators, LIKE[:2]), draw(generators, LIKE[:2])
    assert torch.equal(after[0], after[1])
    assert not torch.equal(before, after)


def test_streams_of_seeds_frames_and_purposes_differ() -> None:
    states = Counter(
        frame_generator(seed, frame, purpose).initial_seed()
        for seed in range(12)
        for frame in (None, *range(-12, 12))
        for purpose in Purpose
    )
    assert max(states.values()) == 1
    assert len({state & 0xFFFFFFFF for state in states}) == len(states)


def test_the_mix_of_seed_frame_and_purpose_never_changes() -> None:
    assert frame_generator(0, 1001, Purpose.INITIAL).initial_seed() == 2567703011329991389
    assert frame_generator(2**63 - 1, -5, Purpose.STEP).initial_seed() == 5316212000609873579
    assert frame_generator(0, None, Purpose.INITIAL).initial_seed() == 15114123258453576503


def test_noise_is_unit_gaussian_and_of_the_latents_type() -> None:
    drawn = draw([frame_generator(3, frame, Purpose.STEP) for frame in range(50)], torch.zeros(50, 4, 32, 32))
    assert abs(drawn.mean().item()) < 0.01
    assert abs(drawn.std().item() - 1) < 0.01
    assert draw([frame_generator(3, 1, Purpose.STEP)], torch.zeros(1, 4, 2, 2, dtype=torch.float16)).dtype == torch.half


@pytest.mark.parametrize("encoding", list(Encoding))
def test_chunks_do_not_change_latents_or_images(encoding: Encoding) -> None:
    vae, images = tiny.tiny_vae(), tiny.moving_plate(5, 64).images()
    seeds = Seeds(seed=1, frames=(1, 2, 3, 4, 5)) if encoding is Encoding.SAMPLE else None
    whole, parts = encode(vae, images, seeds, chunk=5), encode(vae, images, seeds, chunk=2)
    assert whole.shape == (5, 4, 8, 8)
    assert torch.allclose(whole, parts, atol=1e-6)
    assert torch.allclose(decode(vae, whole, chunk=5), decode(vae, whole, chunk=2), atol=1e-4)


def test_sampled_encoding_is_reproducible_and_belongs_to_the_frame() -> None:
    vae, images = tiny.tiny_vae(), tiny.moving_plate(3, 64).images()
    mode = encode(vae, images)
    sample = encode(vae, images, Seeds(seed=1, frames=(1, 2, 3)))
    assert torch.equal(sample, encode(vae, images, Seeds(seed=1, frames=(1, 2, 3))))
    assert torch.allclose(sample[2:], encode(vae, images[2:], Seeds(seed=1, frames=(3,))), atol=1e-6)
    assert not torch.allclose(sample, mode, atol=1e-3)
    assert not torch.allclose(sample, encode(vae, images, Seeds(seed=2, frames=(1, 2, 3))), atol=1e-3)


def test_scale_and_shift_of_the_autoencoder_are_respected() -> None:
    plain, scaled = tiny.tiny_vae(), tiny.tiny_vae()
    plain.register_to_config(scaling_factor=1.0, shift_factor=None)
    scaled.register_to_config(scaling_factor=0.4, shift_factor=0.25)
    images = tiny.moving_plate(1, 64).images()
    latents = encode(plain, images)
    assert torch.allclose(encode(scaled, images), (latents - 0.25) * 0.4, atol=1e-6)
    assert torch.allclose(decode(scaled, (latents - 0.25) * 0.4), decode(plain, latents), atol=1e-5)


def test_decoded_images_stay_in_their_range() -> None:
    images = decode(tiny.tiny_vae(), torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 50)
    assert images.abs().max() == 1


@torch.no_grad()
def test_a_tiny_autoencoder_serves_as_well() -> None:
    with tiny._seeded(1):
        vae = AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
            num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1),
        ).eval()  # fmt: skip
    images = torch.rand(3, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latents = encode(vae, images, Seeds(seed=1, frames=(1, 2, 3)))
    assert latents.shape == (3, 4, 4, 6)
    assert torch.equal(latents, vae.encode(images).latents)
    assert decode(vae, latents).shape == images.shape


@torch.no_grad()
def test_an_autoencoder_that_overflows_in_half_precision_is_computed_in_full() -> None:
    images, latents, exact = torch.rand(3, 3, 64, 64) * 2 - 1, torch.ones(3, 4, 8, 8), tiny.tiny_vae()
    for layer in (exact.encoder.conv_in, exact.decoder.conv_in):  # norms take the factor out again
        layer.weight *= 1e5
    half = copy.deepcopy(exact).half()
    before = {name: value.clone() for name, value in half.state_dict().items()}
    assert not half.encode(images.half()).latent_dist.mode().isfinite().all()
    assert not half.decode(latents.half()).sample.isfinite().all()
    assert torch.allclose(encode(half, images, chunk=2), encode(exact, images), atol=1e-2)
    assert torch.allclose(decode(half, latents, chunk=2), decode(exact, latents), atol=1e-2)
    assert all(torch.equal(value, before[name]) for name, value in half.state_dict().items())
    assert half.dtype is torch.float16
