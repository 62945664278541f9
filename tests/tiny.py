# SPDX-License-Identifier: Apache-2.0
"""Small random models of the true structure, and synthetic plates whose motion is known.

Everything is built on the spot from a seed: no file, no network. The models have Stable Diffusion 1.5's structure
(four down-blocks and up-blocks, attention at the three finest, cross-attention to a CLIP text encoder, an autoencoder
of factor 8) with so few channels that a picture of 64 x 64 pixels takes milliseconds. Tests say `import tiny`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import OpenImageIO
import torch
from diffusers import AutoencoderKL, ControlNetModel, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerFast

Array = npt.NDArray[np.float32]

TEXT_WIDTH = 32
TEXT_LENGTH = 77
WORDS = ("a", "photo", "painting", "drawing", "of", "watercolour", "ink", "night", "winter", "man", "tree")

_CHANNELS = (32, 32, 64, 64)
_DOWN = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
_UP = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")


def tiny_unet(
    seed: int = 0,
    *,
    channels: Sequence[int] = _CHANNELS,
    layers: int = 1,
    heads: int = 4,
    groups: int = 8,
    text_width: int = TEXT_WIDTH,
) -> UNet2DConditionModel:
    """A random U-Net of Stable Diffusion 1.5's structure, in evaluation mode.

    It takes latents (N, 4, h, w), h and w multiples of 8, and text states (N, T, text_width). `layers` is the number of
    residual blocks a down-block, `heads` that of attention at every resolution, `groups` that of group normalisation.
    """
    with _seeded(seed):
        return UNet2DConditionModel(
            sample_size=8,
            down_block_types=_DOWN,
            up_block_types=_UP,
            block_out_channels=tuple(channels),
            layers_per_block=layers,
            cross_attention_dim=text_width,
            attention_head_dim=heads,
            norm_num_groups=groups,
        ).eval()


def tiny_controlnet(unet: UNet2DConditionModel | None = None, seed: int = 1) -> ControlNetModel:
    """A random ControlNet for `unet` (or for `tiny_unet()`) that takes an image (N, 3, H, W) in [0, 1].

    A new ControlNet's output layers are zero and would hide a forgotten residual; here they are random as well.
    """
    with _seeded(seed):
        control = ControlNetModel.from_unet(
            unet or tiny_unet(), conditioning_embedding_out_channels=(4, 8, 8, 16), load_weights_from_unet=False
        )
        outputs = [*control.controlnet_down_blocks, control.controlnet_mid_block]
        outputs.append(control.controlnet_cond_embedding.conv_out)  # the image's own layer is zero too
        for parameter in (p for layer in outputs for p in layer.parameters()):
            torch.nn.init.normal_(parameter, std=0.05)
        return control.eval()


def tiny_vae(seed: int = 2, *, channels: Sequence[int] = (8, 8, 16, 16), groups: int = 4) -> AutoencoderKL:
    """A random autoencoder of factor 8: images (N, 3, H, W) in [-1, 1] to latents (N, 4, H/8, W/8)."""
    with _seeded(seed):
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=tuple(channels),
            layers_per_block=1,
            norm_num_groups=groups,
            latent_channels=4,
            sample_size=64,
        ).eval()


def tiny_text_encoder(
    tokenizer: PreTrainedTokenizerFast | CLIPTokenizer | None = None,
    seed: int = 3,
    *,
    width: int = TEXT_WIDTH,
    heads: int = 4,
) -> CLIPTextModel:
    """A random CLIP text encoder for `tokenizer` (or for `tiny_tokenizer()`): ids (N, 77) to states (N, 77, width)."""
    tokenizer = tokenizer or tiny_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=64,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=heads,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with _seeded(seed):
        return CLIPTextModel(config).eval()


def tiny_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-level tokenizer with the bytes alone as vocabulary: it takes any text, a token a character."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TEXT_LENGTH)


def tiny_word_tokenizer(words: Sequence[str] = WORDS) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, as the embedded model has: a word outside `words` becomes the unknown token."""
    special = ["<pad>", "<start>", "<end>", "<unk>"]
    vocabulary = {token: index for index, token in enumerate([*special, *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", vocabulary["<start>"]), ("<end>", vocabulary["<end>"])]
    )
    names = {"pad_token": "<pad>", "bos_token": "<start>", "eos_token": "<end>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=TEXT_LENGTH, **names)


def tiny_scheduler() -> DDPMScheduler:
    """Stable Diffusion 1.5's noise schedule: 1000 training steps, scaled-linear betas, epsilon prediction."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
    )


def save_pipeline(
    folder: Path, tokenizer: PreTrainedTokenizerFast | CLIPTokenizer | None = None, *, control: bool = True
) -> Path:
    """Writes a tiny Stable Diffusion in diffusers' layout to `folder` and gives `folder`.

    With `control`, a ControlNet lies beside it in `controlnet/`, as in the embedded model.
    """
    tokenizer = tokenizer or tiny_tokenizer()
    unet = tiny_unet()
    pipeline = StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=tiny_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    if control:
        tiny_controlnet(unet).save_pretrained(folder / "controlnet", safe_serialization=True)
    return folder


@dataclass(frozen=True, kw_only=True)
class MovingPlate:
    """A clip of a textured disc before a textured background, each moving at its own constant velocity.

    frames (N, H, W, 3) in [0, 1], display-referred sRGB; matte (N, H, W), 1 on the disc. Pair k is the frames k and
    k + 1 modulo N: forward (N, 2, H, W) lives on frame k and points into the next one, backward (N, 2, H, W) lives on
    the next one and points into frame k; channel 0 is x, in pixels. An occlusion (N, H, W) is 1 where the pixel of the
    frame that carries the flow is covered or outside the picture in the other frame.
    """

    frames: Array
    matte: Array
    forward: Array
    backward: Array
    forward_occlusion: Array
    backward_occlusion: Array

    def images(self) -> torch.Tensor:
        """The frames as the engine takes them: (N, 3, H, W), float32 in [-1, 1]."""
        return torch.from_numpy(self.frames).permute(0, 3, 1, 2).contiguous() * 2 - 1


def moving_plate(
    count: int = 4,
    size: int | tuple[int, int] = 64,
    *,
    disc_velocity: tuple[float, float] = (3.0, 1.0),
    pan: tuple[float, float] = (1.0, 0.0),
    seed: int = 0,
) -> MovingPlate:
    """A `MovingPlate` of `count` frames; `size` is the side or (height, width), velocities are (x, y) pixels a frame.

    The textures are functions of continuous coordinates, so the flow is exact at any velocity.
    """
    height, width = (size, size) if isinstance(size, int) else size
    scene = _Scene(height, width, np.asarray([pan, disc_velocity], dtype=np.float32), np.random.default_rng(seed))
    pairs = [(k, (k + 1) % count) for k in range(count)]
    forward = [scene.motion(a, b) for a, b in pairs]
    backward = [scene.motion(b, a) for a, b in pairs]
    return MovingPlate(
        frames=np.stack([scene.picture(k) for k in range(count)]),
        matte=np.stack([scene.disc(scene.grid, k) for k in range(count)]),
        forward=np.stack([flow for flow, _ in forward]),
        backward=np.stack([flow for flow, _ in backward]),
        forward_occlusion=np.stack([occlusion for _, occlusion in forward]),
        backward_occlusion=np.stack([occlusion for _, occlusion in backward]),
    )


class _Scene:
    """The moving disc and background at any time; `velocities` (2, 2) are the background's and the disc's."""

    def __init__(self, height: int, width: int, velocities: Array, random: np.random.Generator) -> None:
        self.grid = np.stack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)  # (2, H, W), x first
        self._velocities = velocities[:, :, None, None]
        self._start = np.asarray([width * 0.35, height * 0.45], dtype=np.float32)[:, None, None]
        self._limit = np.asarray([width - 1, height - 1], dtype=np.float32)[:, None, None]
        self._radius = 0.22 * min(height, width)
        self._textures = (_Texture(random), _Texture(random))

    def disc(self, points: Array, frame: int) -> Array:
        """1 where a point (2, H, W) lies on the disc."""
        offset = points - self._start - frame * self._velocities[1]
        inside: Array = ((offset**2).sum(0) < self._radius**2).astype(np.float32)
        return inside

    def picture(self, frame: int) -> Array:
        """Frame (H, W, 3)."""
        shifted = [self.grid - frame * velocity for velocity in self._velocities]
        background, disc = (texture(points) for texture, points in zip(self._textures, shifted, strict=True))
        return np.where(self.disc(self.grid, frame)[..., None] > 0, disc, background)

    def motion(self, frame: int, other: int) -> tuple[Array, Array]:
        """Flow (2, H, W) on `frame` into `other`, and its occlusion (H, W)."""
        here = self.disc(self.grid, frame)
        flow = np.where(here > 0, self._velocities[1], self._velocities[0]) * np.float32(other - frame)
        target = self.grid + flow
        outside = ((target < 0) | (target > self._limit)).any(0)
        covered = (here == 0) & (self.disc(target, other) > 0)
        return flow, (outside | covered).astype(np.float32)


def write_sequence(
    folder: Path, frames: Array, *, first: int = 1001, name: str = "plate", suffix: str = "png", bits: str = "uint8"
) -> Path:
    """Writes frames (N, H, W, C) or mattes (N, H, W) as `name.1001.suffix` and on; gives the path with `%04d` in it.

    `bits` is OpenImageIO's name of the sample type: uint8 and uint16 for PNG and TIFF, half and float for EXR. The
    numbers are written as they are: no colour is converted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, start=first):
        pixels = frame if frame.ndim == 3 else frame[..., None]
        spec = OpenImageIO.ImageSpec(pixels.shape[1], pixels.shape[0], pixels.shape[2], bits)
        image = OpenImageIO.ImageBuf(spec)
        image.set_pixels(OpenImageIO.ROI(), np.ascontiguousarray(pixels, dtype=np.float32))
        path = folder / f"{name}.{number:04d}.{suffix}"
        if not image.write(str(path)):
            raise OSError(f"{path}: {image.geterror()}")
    return folder / f"{name}.%04d.{suffix}"


class _Texture:
    """Colours in [0, 1] of a sum of waves of many directions and lengths, at any points (2, H, W) in pixels."""

    def __init__(self, random: np.random.Generator) -> None:
        angle = random.uniform(0, np.pi, (3, 12))
        frequency = 2 * np.pi / random.uniform(5.0, 40.0, (3, 12))
        self._x, self._y = np.cos(angle) * frequency, np.sin(angle) * frequency
        self._phase = random.uniform(0, 2 * np.pi, (3, 12))
        self._colour = random.uniform(0.35, 0.65, 3)

    def __call__(self, points: Array) -> Array:
        x, y = points[0, ..., None, None], points[1, ..., None, None]
        waves = np.sin(x * self._x + y * self._y + self._phase).mean(-1)  # (H, W, 3)
        colours: Array = np.clip(self._colour + waves, 0, 1).astype(np.float32)
        return colours


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds torch's global generator, which module initialisers use, and leaves it untouched for the caller."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
