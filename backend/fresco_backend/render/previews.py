# SPDX-License-Identifier: Apache-2.0
"""Small pictures of a keyframe while it is denoised, for people who wait: latents -> RGB by one linear map.

The map is fitted to the window itself: the plate's first frame is encoded, and a least-squares fit says which mixture
of latent channels gives its colours. So it suits every autoencoder and needs no constants; decoding a step would take
as long as the step. Where a tiny autoencoder of the model's family is on this machine, it decodes them instead.
"""
from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from torch.nn import functional

from fresco_backend.engine.denoise import StepResult, WindowInput
from fresco_backend.engine.latents import decode, encode
from fresco_backend.events import Previewed

INTERVAL = 1.0  # seconds from one preview to the next, at least
LONGEST_SIDE = 256  # pixels
QUALITY = 80  # of JPEG


class Previews:
    """Makes previews of the steps of one window after the other, no more than one each `interval` seconds."""

    def __init__(self, *, interval: float = INTERVAL, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval, self._clock = interval, clock
        self._due = clock()
        self._window: WindowInput | None = None
        self._colors = torch.empty(0)

    @torch.no_grad()
    def of(self, vae: object, window: WindowInput, result: StepResult, *, steps: int) -> Previewed | None:
        """A preview of the window's first own keyframe after this step, if it is time for one."""
        if self._clock() < self._due:
            return None
        if self._window is not window and not isinstance(vae, AutoencoderTiny):
            self._window, self._colors = window, _colors_of(vae, window.images[:1])
        place = min(window.anchored, len(window.frames) - 1)
        image = self._picture(vae, result.clean[place : place + 1].float())
        jpeg, width, height = _jpeg(image[0])
        self._due = self._clock() + self._interval
        return Previewed(frame=window.frames[place], step=result.step.index + 1, steps=steps, width=width,
                         height=height, jpeg=jpeg)

    def _picture(self, vae: object, latents: Tensor) -> Tensor:
        """The picture (1, h, w, 3) in [-1, 1] of latents (1, C, h, w)."""
        if isinstance(vae, AutoencoderTiny):
            return decode(vae, latents).permute(0, 2, 3, 1)
        return _with_one(latents) @ self._colors


def _colors_of(vae: object, image: Tensor) -> Tensor:
    """(C + 1, 3): the least-squares map from latent channels and a constant to RGB in [-1, 1]."""
    latents = encode(vae, image, None, chunk=1).float().nan_to_num()  # float16 overflows, and no preview stops a render
    wanted = functional.interpolate(image.float(), size=latents.shape[-2:], mode="area")
    rows, colors = _with_one(latents).flatten(0, -2), wanted.permute(0, 2, 3, 1).flatten(0, -2)
    fitted: Tensor = torch.linalg.lstsq(rows.cpu().double(), colors.cpu().double(), driver="gelsd").solution
    return fitted.float().to(latents.device)


def _with_one(latents: Tensor) -> Tensor:
    """(N, h, w, C + 1): channels last, and a constant one."""
    rows = latents.permute(0, 2, 3, 1)
    return torch.cat([rows, torch.ones_like(rows[..., :1])], dim=-1)


def _jpeg(image: Tensor) -> tuple[bytes, int, int]:
    """A picture (h, w, 3) in [-1, 1] as JPEG, with its width and height."""
    pixels = ((image.clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()[..., ::-1]  # OpenCV wants BGR
    scale = LONGEST_SIDE / max(pixels.shape[:2])
    wanted = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    drawn = cv2.resize(pixels, wanted, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data.tobytes(), wanted[0], wanted[1]
