# SPDX-License-Identifier: Apache-2.0
"""The feature optimisation on CUDA: the losses of `engine.losses` with few launches and little traffic of memory.

The same gradient and the same Adam. Written as single tensor operations an iteration is some hundred launches, each of
which reads and writes all features, and takes several times the arithmetic; here it is a handful: signs of the
differences along the flow, and for a few frames at a time the signs of the self-similarities' difference, one product
with them, and one pass over the features that does everything else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from fresco_backend.engine import losses
from fresco_backend.engine.flow import Flow

AGREED = 0.1
"""How far it may lie from the plain losses, of what these move: a difference near 0 has its sign by rounding."""

_PROOF_RATE = 0.2

SIGNS_BYTES = 2**27
"""What the signs of the self-similarities' difference may take: of some frames, or of a band of one frame's rows."""

SMALL_BYTES = 2**26
"""Features (float32) of which all branches of guidance are optimised at once: small ones wait for launches."""

_PROOF_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class _Proof:
    """A small case. size: of the features. temporal, spatial: which losses there are. limits: of `Spatial`."""

    size: tuple[int, int]
    channels: int
    temporal: bool = True
    spatial: bool = True
    limits: Mapping[str, int] = field(default_factory=dict)


_PROOFS = (
    _Proof(size=(12, 13), channels=200),
    _Proof(size=(9, 16), channels=320),
    _Proof(size=(9, 16), channels=320, limits={"kept_bytes": 0}),
    _Proof(size=(9, 16), channels=320, limits={"kept_bytes": 0, "signs_bytes": 0}),
    _Proof(size=(9, 16), channels=640, temporal=False),
    _Proof(size=(5, 6), channels=1280, spatial=False),
)
"""With no limits, with the target computed anew, and in bands as well; a lone frame has no temporal loss, and an edit
no spatial one. Triton compiles each to programs of its own: channels that fill no vector, and those that do, as in real
networks, which are loaded by other instructions and take two or three times the shared memory. Where there are tiles
there is more than one, and more channels than a warp takes at once, the last of which are not full in the smaller ones.
"""


def usable(features: Tensor) -> bool:
    """Whether this way is open to features of that device and precision."""
    return problem(features.device, features.dtype) is None


@cache
def problem(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this way is not open to features of that device and precision; None if it is.

    Kernels are compiled for each card by whatever driver and compilers are there, so that they are used only where they
    did on a small case what the plain losses do.
    """
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return "it is for CUDA in half precision"
    try:
        apart = disagreement(device, dtype)
    except ImportError as error:
        return f"Triton is not installed ({error})"
    except Exception as error:  # noqa: BLE001 - of a compiler, a driver, a missing tool: the plain way stays open
        first = str(error).strip().partition("\n")[0]
        return f"Triton failed: {type(error).__name__}: {first}"
    return None if apart <= AGREED else f"it does not agree with the plain losses here ({apart:.0%} apart)"


def disagreement(device: torch.device, dtype: torch.dtype) -> float:
    """How far both ways lie apart after some steps of Adam on noise, as a share of what the plain one moved."""
    apart = [_apart(device, dtype, proof) for proof in _PROOFS]
    return float(torch.tensor(apart).max())  # unlike `max`, NaN where any of them is


@torch.no_grad()
def _apart(device: torch.device, dtype: torch.dtype, proof: _Proof) -> float:
    chance, frames, size = torch.Generator().manual_seed(0), 2, proof.size
    shape = (frames, size[0] * size[1], proof.channels)
    first, style = (torch.randn(shape, generator=chance).to(device) for _ in range(2))
    target = torch.nn.functional.normalize(first + style, dim=2).to(dtype)
    places = torch.meshgrid(*(torch.arange(side) - side / 2 for side in size), indexing="ij")
    inward = -0.7 * torch.stack(places[::-1])  # pixels in the middle are met by dozens of others
    motion = [(inward + torch.randn(frames, 2, *size, generator=chance)).to(device) for _ in range(2)]
    holes = [(torch.rand(frames, *size, generator=chance) < 0.2).float().to(device) for _ in range(2)]
    flow = Flow(forward=motion[0], backward=motion[1], forward_occlusion=holes[0], backward_occlusion=holes[1])
    plain, ours = first.clone(), first.clone()
    gradient = plain.grad = torch.zeros_like(plain)
    adam = torch.optim.Adam([plain], lr=_PROOF_RATE)
    terms: list[losses.Loss] = [losses.TemporalLoss(flow, 2.0)] if proof.temporal else []
    terms += [losses.SpatialLoss(target, 100.0)] if proof.spatial else []
    for _ in range(_PROOF_STEPS):
        gradient.zero_()
        for term in terms:
            term.add_gradient(plain, gradient, measured=False)
        adam.step()
    temporal = Temporal.of(flow, 2.0) if proof.temporal else None
    spatial = Spatial(target=target, weight=100.0, **proof.limits) if proof.spatial else None
    descend(ours, temporal, spatial, _PROOF_STEPS, _PROOF_RATE)
    return float((ours - plain).abs().mean() / (plain - first).abs().mean())


@dataclass(frozen=True, kw_only=True)
class Temporal:
    """The temporal loss (`losses.TemporalLoss`) of windows: what each pixel is compared with, and its transpose.

    taps, weights: (2, R, 4); valid: (2, R) uint8; R pixels, frame after frame of window after window, and the frame
    after and before.
    starts: (R + 1,), entries, shares: of each pixel the differences that it is in as a tap. weight: of the loss.
    """

    taps: Tensor
    weights: Tensor
    valid: Tensor
    starts: Tensor
    entries: Tensor
    shares: Tensor
    weight: float

    @classmethod
    def of(cls, flow: Flow, weight: float, windows: int = 1) -> Temporal:
        """Prepare it; flow: at the features' size. windows: how many follow each other that move the same way."""
        frames, length = flow.frames, flow.size[0] * flow.size[1]
        first = torch.arange(frames, device=flow.forward.device)[:, None, None] * length
        ahead, ahead_weights = losses.bilinear_taps(flow.forward)
        behind, behind_weights = losses.bilinear_taps(flow.backward)
        # A pair's backward flow lives on its second frame.
        taps = torch.stack([ahead + first.roll(-1, 0), (behind + first).roll(1, 0)]).view(2, -1, 4)
        weights = torch.stack([ahead_weights, behind_weights.roll(1, 0)]).view(2, -1, 4)
        valid = torch.stack([flow.forward_occlusion, flow.backward_occlusion.roll(1, 0)]).view(2, -1) == 0
        beyond = torch.arange(windows, device=taps.device)[:, None, None] * (frames * length)
        taps = (taps[:, None] + beyond).flatten(1, 2)
        weights, valid = weights.repeat(1, windows, 1), valid.repeat(1, windows)
        entries = torch.arange(valid.numel(), device=taps.device).view(2, -1, 1).expand_as(taps)
        used = valid[:, :, None] & (weights != 0)
        ordered, order = taps[used].sort(stable=True)
        pixels = torch.arange(windows * frames * length + 1, device=taps.device)
        return cls(
            taps=taps.int(), weights=weights.contiguous(), valid=valid.to(torch.uint8),
            starts=torch.searchsorted(ordered, pixels).int(), entries=entries[used][order].int(),
            shares=weights[used][order], weight=weight,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Spatial:
    """The spatial loss (`losses.SpatialLoss`). target: (N, L, C), unit rows in halves. weight: of the loss.

    signs_bytes, kept_bytes: what signs, and what is kept of the target, may take.
    """

    target: Tensor
    weight: float
    signs_bytes: int = SIGNS_BYTES
    kept_bytes: int = losses.KEPT_BYTES

    @cached_property
    def bands(self) -> list[_Band]:
        """The self-similarity as one piece, or as bands of rows, each from its first row's diagonal on."""
        length, device = self.target.shape[1], self.target.device
        kernels = _kernels()
        count = kernels.tiles_of(length)
        if length**2 * self.target.itemsize <= self.signs_bytes:
            rows, columns = torch.triu_indices(count, count, device=device).int()
            return [_Band(first=0, height=length, tiles=torch.stack([rows, columns], dim=1))]
        most = max(1, self.signs_bytes // (length * self.target.itemsize * kernels.BLOCK))
        bands = []
        for start in range(0, count, most):
            grid = torch.cartesian_prod(
                torch.arange(start, min(start + most, count), device=device), torch.arange(start, count, device=device)
            ).int()
            grid = grid[grid[:, 1] >= grid[:, 0]]
            first = start * kernels.BLOCK
            bands.append(_Band(first=first, height=min(most * kernels.BLOCK, length - first), tiles=grid))
        return bands

    def together(self) -> int:
        """How many frames are looked at at once."""
        frames, length, _ = self.target.shape
        return max(1, min(frames, self.signs_bytes // (length**2 * self.target.itemsize)))

    def kept(self) -> list[Tensor]:
        """The target's tiles by bands, (N, T, BLOCK, BLOCK) each: a third of the products. Empty if too large."""
        kernels, (frames, length, _) = _kernels(), self.target.shape
        entries = sum(len(band.tiles) for band in self.bands) * kernels.BLOCK**2
        room = min(self.kept_bytes // (frames * self.target.itemsize), length * losses.KEPT_PER_POSITION)
        if entries > room:
            return []
        kept = []
        for band in self.bands:
            kept.append(self.target.new_empty(frames, len(band.tiles), kernels.BLOCK, kernels.BLOCK))
            kernels.similarity(self.target, band.tiles, kept[-1])
        return kept


@dataclass(frozen=True, kw_only=True)
class _Band:
    """Rows first .. first + height of a self-similarity. tiles: (T, 2) int32, rows and columns of its tiles that are on
    the diagonal or right of it."""

    first: int
    height: int
    tiles: Tensor


@torch.no_grad()
def descend(
    rows: Tensor, temporal: Temporal | None, spatial: Spatial | None, iterations: int, learning_rate: float
) -> None:
    """Minimise the sum of the losses by Adam (0.9, 0.999, 1e-8), in place.

    rows: (N, L, C), float32, contiguous, on the losses' device.
    """
    kernels, (frames, length, channels) = _kernels(), rows.shape
    flat = rows.view(-1, channels)
    moments = torch.zeros_like(flat), torch.zeros_like(flat)
    signs = None if temporal is None else torch.empty(2, *flat.shape, dtype=torch.int8, device=rows.device)
    by_sums = 0.0 if spatial is None else 2 * spatial.weight / (frames * length**2)
    by_signs = 0.0 if temporal is None else temporal.weight / rows.numel()
    tapped = None if temporal is None else (signs, temporal.starts, temporal.entries, temporal.shares)
    unit = None if spatial is None else _unit(rows, spatial.target.dtype)
    with torch.cuda.device(rows.device) if rows.is_cuda else nullcontext():  # Triton launches on the current one
        kept = [] if spatial is None else spatial.kept()
        for iteration in range(1, iterations + 1):
            step_size = learning_rate / (1 - 0.9**iteration)
            correction = math.sqrt(1 - 0.999**iteration)
            if temporal is not None:
                kernels.warp_signs(flat, temporal.taps, temporal.weights, temporal.valid, signs)
            for some, sums in _sums(rows, unit, spatial, kept):
                kernels.update(
                    flat, moments, None if unit is None else unit.view_as(flat), sums, tapped, some.start * length,
                    (some.stop - some.start) * length, weights=(by_sums, by_signs), step_size=step_size,
                    correction=correction,
                )  # fmt: skip


def _sums(
    rows: Tensor, unit: Tensor | None, spatial: Spatial | None, kept: list[Tensor]
) -> Iterator[tuple[slice, Tensor | None]]:
    """Some frames at a time, and what the signs of their self-similarities' difference make of their unit rows."""
    if spatial is None or unit is None:
        yield slice(0, len(rows)), None
        return
    together = spatial.together()
    for start in range(0, len(rows), together):
        some = slice(start, min(start + together, len(rows)))
        others = [each[some] for each in kept] or [spatial.target[some]] * len(spatial.bands)
        yield some, _signed_sums(unit[some], others, spatial.bands, bool(kept)).flatten(0, 1)


def _signed_sums(unit: Tensor, others: list[Tensor], bands: list[_Band], kept: bool) -> Tensor:
    """S times unit rows (F, L, C), for S the signs of the difference of both self-similarities."""
    kernels, (frames, length, _) = _kernels(), unit.shape
    width = kernels.tiles_of(length) * kernels.BLOCK  # whole tiles, of which the rest means nothing
    if len(bands) == 1:
        signs = unit.new_empty(frames, width, width)
        kernels.similarity_signs(unit, others[0], bands[0].tiles, signs, 0, kept=kept)
        return torch.bmm(signs[:, :length, :length], unit)
    sums = torch.zeros_like(unit, dtype=torch.float32)
    for band, other in zip(bands, others, strict=True):
        onward, last = unit[:, band.first :], band.first + band.height
        whole = unit.new_empty(frames, kernels.tiles_of(band.height) * kernels.BLOCK, width - band.first)
        kernels.similarity_signs(unit, other, band.tiles, whole, band.first, kept=kept)
        signs = whole[:, : band.height, : length - band.first]
        sums[:, band.first : last] += torch.bmm(signs, onward)
        sums[:, last:] += torch.bmm(signs[:, :, band.height :].mT, onward[:, : band.height])
    return sums


def _unit(rows: Tensor, dtype: torch.dtype) -> Tensor:
    length = torch.linalg.vector_norm(rows, dim=2, keepdim=True).clamp_min_(1e-12)
    return torch.div(rows, length, out=torch.empty_like(rows, dtype=dtype))


def _kernels() -> Any:
    """The kernels; Triton is imported when the first features are optimised with it, and compiles them then."""
    from fresco_backend.engine import kernels

    return kernels
