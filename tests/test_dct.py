# SPDX-License-Identifier: Apache-2.0
"""The autoencoder of block cosines: an exact transform, and a network after it that begins as nothing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from fresco_backend.embedded.dct import DctAutoencoder, cosine_basis, lowest_frequencies, transform_kernel

GAINS = tuple(0.5 + 0.1 * channel for channel in range(32))


def encode(vae: DctAutoencoder, images: Tensor) -> Tensor:
    latents: Tensor = vae.encode(images, return_dict=False)[0].mode()
    return latents


def decode(vae: DctAutoencoder, latents: Tensor) -> Tensor:
    picture: Tensor = vae.decode(latents, return_dict=False)[0]
    return picture


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(2, 32, 3, 5, generator=torch.Generator().manual_seed(0)) * 0.3


def test_the_basis_is_orthonormal() -> None:
    basis = cosine_basis()
    torch.testing.assert_close(basis @ basis.T, torch.eye(8, dtype=torch.float64), atol=1e-12, rtol=0)


def test_frequencies_come_by_radius_then_row() -> None:
    assert lowest_frequencies(6) == [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0)]
    assert len(set(lowest_frequencies(64))) == 64


def test_luma_is_opencvs_transform_of_the_block() -> None:
    block = np.random.default_rng(1).uniform(-1, 1, (8, 8)).astype(np.float32)
    images = torch.from_numpy(block).expand(1, 3, 8, 8)  # grey: luma is the picture
    found = encode(DctAutoencoder(), images)[0, :, 0, 0]
    expected = cv2.dct(block)
    np.testing.assert_allclose(found[:26], [expected[place] for place in lowest_frequencies(26)], atol=1e-5)
    np.testing.assert_allclose(found[26:], 0, atol=1e-6)


@pytest.mark.parametrize("gains", [None, GAINS])
def test_what_lies_within_the_band_comes_back_exactly(latents: Tensor, gains: tuple[float, ...] | None) -> None:
    vae = DctAutoencoder(gains=gains)
    picture = decode(vae, latents)
    assert picture.shape == (2, 3, 24, 40)
    torch.testing.assert_close(encode(vae, picture), latents, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(decode(vae, encode(vae, picture)), picture, atol=1e-5, rtol=1e-4)


def test_a_plain_colour_comes_back_exactly() -> None:
    picture = torch.tensor([0.8, -0.4, 0.1])[None, :, None, None].expand(1, 3, 16, 16)
    vae = DctAutoencoder(gains=GAINS)
    torch.testing.assert_close(decode(vae, encode(vae, picture)), picture, atol=1e-5, rtol=0)


def test_what_is_lost_is_orthogonal_to_what_is_kept() -> None:
    """The error of a picture is what lies outside the band: a second pass through the transform loses nothing more."""
    vae = DctAutoencoder()
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    once = decode(vae, encode(vae, picture))
    assert (once - picture).square().mean() > 0.01
    torch.testing.assert_close(decode(vae, encode(vae, once)), once, atol=1e-5, rtol=1e-4)


def test_gains_scale_the_latents_alone(latents: Tensor) -> None:
    plain, scaled = DctAutoencoder(), DctAutoencoder(gains=GAINS)
    picture = decode(plain, latents)
    expected = encode(plain, picture) * torch.tensor(GAINS)[:, None, None]
    torch.testing.assert_close(encode(scaled, picture), expected, atol=1e-5, rtol=1e-4)


def test_its_transform_is_exact_in_whatever_precision_its_files_are() -> None:
    gains = (0.3, 0.7, 1.1)
    exact = DctAutoencoder(luma=1, chroma=1, latent_channels=3, gains=gains)
    torch.set_default_dtype(torch.float16)  # as diffusers does where it reads such files
    try:
        read = DctAutoencoder(luma=1, chroma=1, latent_channels=3, gains=gains)
    finally:
        torch.set_default_dtype(torch.float32)
    for name, value in exact.named_buffers():
        assert torch.equal(read.get_buffer(name), value), name


def test_sizes_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="gains has 3 values for 32"):
        DctAutoencoder(gains=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="latent_channels is 32, but luma \\+ 2 chroma is 12"):
        DctAutoencoder(luma=6, chroma=3)


def test_a_latent_is_not_random(latents: Tensor) -> None:
    vae = DctAutoencoder()
    posterior = vae.encode(decode(vae, latents), return_dict=False)[0]
    assert torch.equal(posterior.sample(), posterior.mode())


def test_restoration_begins_as_nothing_and_changes_the_picture_once_trained(latents: Tensor) -> None:
    vae = DctAutoencoder()
    assert torch.equal(decode(vae, latents), vae.inverse_transform(latents))
    torch.nn.init.normal_(vae.restoration.leave.weight, std=0.1)
    assert not torch.equal(decode(vae, latents), vae.inverse_transform(latents))


def test_it_is_saved_and_loaded_whole(latents: Tensor, tmp_path: Path) -> None:
    vae = DctAutoencoder(gains=GAINS, width=8, depth=1)
    torch.nn.init.normal_(vae.restoration.leave.weight, std=0.1)
    vae.save_pretrained(tmp_path)
    loaded = DctAutoencoder.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    assert tuple(loaded.config.gains) == GAINS
    assert torch.equal(decode(loaded, latents), decode(vae, latents))
    assert torch.equal(encode(loaded, decode(vae, latents)), encode(vae, decode(vae, latents)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 4e-3), (torch.bfloat16, 4e-2)])
def test_half_precision_is_as_exact_as_its_bits(latents: Tensor, dtype: torch.dtype, tolerance: float) -> None:
    vae = DctAutoencoder()
    picture, exact = decode(vae, latents), latents
    half = DctAutoencoder().to(dtype)
    found = encode(half, picture.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), exact, atol=tolerance, rtol=tolerance)
    assert decode(half, found).dtype == dtype


def test_the_kernel_holds_luma_then_both_chromas() -> None:
    kernel = transform_kernel(26, 3)
    assert kernel.shape == (32, 3, 8, 8)
    torch.testing.assert_close(kernel[0].sum(dim=(1, 2)), 8 * torch.tensor([0.299, 0.587, 0.114]))
    torch.testing.assert_close(kernel[26:].sum(dim=1), torch.zeros(6, 8, 8), atol=1e-6, rtol=0)  # of grey: nothing
