# SPDX-License-Identifier: Apache-2.0
"""Latents of frames: from images and back, and the noise that they start from.

Noise is a function of the seed and the frame's number alone. It never depends on the window that the frame falls in, on
the other frames, or on the device: it is drawn on the CPU.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any

import torch
from torch import Tensor

_WORD = 2**64 - 1


class NoiseSharing(Enum):
    """Which noise all frames have in common.

    INITIAL is the reference's choice: frames start from one noise, so that untouched regions come out alike, and part
    at each ancestral step. ALL is steadiest by far, and lets some texture stick to the screen where the picture moves.
    NONE is for comparison.
    """

    NONE = "none"
    INITIAL = "initial"
    ALL = "all"


class Encoding(Enum):
    """Which latents of the autoencoder's posterior stand for an image."""

    MODE = "mode"
    SAMPLE = "sample"


class Purpose(IntEnum):
    """What a frame's random numbers are for: each purpose has a stream of its own."""

    INITIAL = 1
    STEP = 2
    ENCODING = 3
    REFERENCE = 4


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """What a window's random numbers come from.

    seed: of the shot. frames: for each frame of the window its number in the plate, which may be negative.
    """

    seed: int
    frames: tuple[int, ...]
    sharing: NoiseSharing = NoiseSharing.INITIAL

    def generators(self, purpose: Purpose) -> list[torch.Generator]:
        """Give a generator per frame; of frames that share the purpose's noise each has its own, in the same state."""
        shared = self.sharing is NoiseSharing.ALL and purpose is Purpose.STEP
        shared |= self.sharing is not NoiseSharing.NONE and purpose is Purpose.INITIAL
        return [frame_generator(self.seed, None if shared else frame, purpose) for frame in self.frames]


def frame_generator(seed: int, frame: int | None, purpose: Purpose) -> torch.Generator:
    """Give a CPU generator for one frame and purpose, or, with no frame, for what all frames share.

    The numbers are absorbed one after the other by the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), so
    that neighbouring frames and seeds get unrelated streams. This mix is part of what a seed means: never change it.
    """
    state = 0
    for number in (seed, purpose, 0 if frame is None else 1, frame or 0):
        state = _splitmix(state ^ (number & _WORD))
    return torch.Generator().manual_seed(state)


def draw(generators: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """Give unit Gaussian noise of like's shape (N, ...), dtype and device, frame n drawn from generator n."""
    noise = [torch.randn(like.shape[1:], generator=generator) for generator in generators]
    return torch.stack(noise).to(like)


@torch.no_grad()
def encode(vae: Any, images: Tensor, seeds: Seeds | None = None, *, chunk: int = 4) -> Tensor:
    """Give the scaled latents of images, float32 (N, C, h, w): the posterior's mode, or with seeds a sample of it.

    vae: an autoencoder of diffusers; a tiny one has no posterior. images: (N, 3, H, W) in [-1, 1]. chunk: how many are
    encoded at once.
    """
    tiny = vae.config.get("latent_magnitude") is not None
    shown = (lambda output: output.latents) if tiny else (lambda output: output.latent_dist.mode())
    encoded = (_whole(vae, vae.encode, part, shown) for part in images.split(chunk))
    if tiny:
        return torch.cat([_scaled(vae, output.latents) for output in encoded])
    posteriors = (output.latent_dist for output in encoded)
    if seeds is None:
        return torch.cat([_scaled(vae, posterior.mode()) for posterior in posteriors])
    noise = iter(seeds.generators(Purpose.ENCODING))
    return torch.cat([_scaled(vae, _sample(posterior, noise)) for posterior in posteriors])


@torch.no_grad()
def decode(vae: Any, latents: Tensor, *, chunk: int = 4) -> Tensor:
    """Give the images of scaled latents, float32 (N, 3, H, W) in [-1, 1], clipped.

    vae: an autoencoder of diffusers. latents: (N, C, h, w). chunk: how many are decoded at once.
    """
    unscaled = latents / vae.config.scaling_factor + _shift(vae)
    decoded = (_whole(vae, vae.decode, part, lambda output: output.sample) for part in unscaled.split(chunk))
    return torch.cat([output.sample.float() for output in decoded]).clamp(-1, 1)


def _whole(vae: Any, work: Callable[[Tensor], Any], part: Tensor, shown: Callable[[Any], Tensor]) -> Any:
    """Give what an autoencoder makes of a part; in full precision where half of it overflows, as that of some does."""
    output = work(part.to(vae.dtype))
    if vae.dtype is not torch.float16 or bool(shown(output).isfinite().all()):
        return output
    vae.to(torch.float32)
    try:
        return work(part.float())
    finally:
        vae.to(torch.float16)


def _scaled(vae: Any, latents: Tensor) -> Tensor:
    scaled: Tensor = (latents.float() - _shift(vae)) * vae.config.scaling_factor
    return scaled


def _shift(vae: Any) -> float:
    """Give the mean that some autoencoders' latents have; the field is absent or None in the others."""
    return vae.config.get("shift_factor") or 0.0


def _sample(posterior: Any, generators: Iterator[torch.Generator]) -> Tensor:
    mean: Tensor = posterior.mode()
    deviation: Tensor = posterior.std
    return mean + deviation * draw([next(generators) for _ in mean], mean)


def _splitmix(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & _WORD
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _WORD
    return state ^ (state >> 31)
