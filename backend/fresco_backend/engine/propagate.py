# SPDX-License-Identifier: Apache-2.0
"""In-betweens: stylised frames made from the one or two stylised keyframes beside them and the plate's motion.

A keyframe is carried to the frame along the flow (`long_flow`). Two of them are mixed by how near each is in time and
how much better its plate fits than the other's, with the contrast of their fine detail kept and seams closed (`seams`).
They are believed where the plate looks alike and where going there and back returns. What changed in the plate since
(light, small shifts) is added through the local relation of style to plate, and that relation alone paints what no
keyframe shows: no patches are searched for.
Images are float32 (3, H, W) in [-1, 1], display-referred sRGB.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import exp

import torch
from torch import Tensor
from torch.nn import functional

from fresco_backend.engine.flow import warp
from fresco_backend.engine.long_flow import FlowBetween, Plate, clamped
from fresco_backend.engine.seams import closed

COLOUR_TOLERANCE = 0.1
"""Mean difference of plate colours, in units of [-1, 1], at which a match is worth 1/e."""

RETURN_TOLERANCE = 10.0
"""Distance in pixels, beyond 5 % of the motion, by which going there and back may miss at the same worth."""

DOUBT = 0.06
"""Worth at which a carried style gives way to a painted one, which is right in colour and poor in detail."""

PREFERENCE = 4
"""Power of the plate's unlikeness by which one side is preferred. Its ratio counts: of two bad matches the less bad one
is mostly taken, and two of a kind are mixed by distance, however good or bad they are."""

NOISE = 0.2
"""Unlikeness of the plate, colours and gradients together in units of [-1, 1], below which a preference fades: that
of a grain or a codec would mottle even ground."""

DETAIL_OF_CHANGE = 0.3
"""How much of the plate's change in fine detail is taken over. Most of it is noise, and flow that misses by a pixel;
the change of what is wider than the local relation, which is light, is taken over as a whole."""

LARGEST_GAIN = 1.6
"""Two unlike textures in equal parts lose a factor of sqrt(2); more gain would lift noise."""

REDUCTION = 4
"""Scale below which structure is detail, and at which what is smooth is computed, sixteen times quicker."""

NEAR, WIDE = 4, 16
"""Half sides, in reduced pixels, of the squares in which it is fitted; the wide one serves where none near is valid."""

_REGULARISATION = 0.005
_LEAST_WORTH = 1e-3


@dataclass(frozen=True, kw_only=True)
class StyledKey:
    """A stylised keyframe: its number, and its image (3, H, W) in [-1, 1]."""

    frame: int
    image: Tensor


def propagate(frames: Iterable[int], keys: Sequence[StyledKey], plate: Plate, flow: FlowBetween) -> Iterator[Tensor]:
    """Give the stylised frames of one interval in the order of `frames`, each (3, H, W) in [-1, 1].

    keys: the two keyframes around the interval, or the one beside frames before the first or after the last. A keyframe
    among the frames is given as it is. One frame is worked on at a time; flow is asked once for a frame and a key.
    Raises ValueError for more or fewer keys. Compare FRESCO, section 4.4, which leaves this to EbSynth.
    """
    if not 1 <= len(keys) <= 2:
        raise ValueError(f"an interval has one or two keyframes, not {len(keys)}")
    images = {key.frame: key.image for key in keys}
    plates = {key.frame: plate(key.frame) for key in keys}
    for frame in frames:
        if frame in images:
            yield images[frame]
        else:
            here = plate(frame)
            carried = [_carry(here, plates[key.frame], key.image, *flow(frame, key.frame)) for key in keys]
            yield _rebuild(here, carried, _nearness(frame, keys))


@dataclass(frozen=True, kw_only=True)
class _Carried:
    """A keyframe seen from another frame: style and plate (3, H, W), worth (1, H, W) in (0, 1].

    claim: its part of a mixture against that of another side, (1, H, W), of any scale.
    """

    style: Tensor
    plate: Tensor
    worth: Tensor
    claim: Tensor


@dataclass(frozen=True, kw_only=True)
class _Relation:
    """Style as a local function of the plate: its mean (3, H, W), plus slope (3, 3, H, W) times plate less its mean."""

    style: Tensor
    plate: Tensor
    slope: Tensor

    def change(self, difference: Tensor) -> Tensor:
        """Give the change of style that goes with a difference of the plate, (3, H, W)."""
        return torch.einsum("ijhw,ihw->jhw", self.slope, difference)

    def paint(self, plate: Tensor) -> Tensor:
        """Give the style of a plate, (3, H, W)."""
        return self.style + self.change(plate - self.plate)


@torch.no_grad()
def _rebuild(here: Tensor, carried: Sequence[_Carried], nearness: Sequence[float]) -> Tensor:
    claims = torch.stack([side.claim for side in carried]) * here.new_tensor(nearness).view(-1, 1, 1, 1)
    shares = claims / claims.sum(0)
    style = _mix([side.style for side in carried], shares)
    plate = (torch.stack([side.plate for side in carried]) * shares).sum(0)
    trust = 1 - torch.stack([1 - side.worth for side in carried]).prod(0)
    near, wide = (_fit(plate, style, trust, radius) for radius in (NEAR, WIDE))
    moved = style + near.change(_believed(_blur(here - plate, 0.7)))
    support = _enlarge(_box(_reduce(trust), NEAR), here)
    painted = wide.paint(here).lerp(near.paint(here), support / (support + 0.05))
    return painted.lerp(moved, trust / (trust + DOUBT) * (1 + DOUBT)).clamp(-1, 1)


def _believed(change: Tensor) -> Tensor:
    """Give what of a change of the plate is believed: all of what is wide, a part of its detail."""
    wide = _enlarge(_box(_reduce(change), NEAR), change)
    return wide.lerp(change, DETAIL_OF_CHANGE)


def _carry(here: Tensor, plate: Tensor, style: Tensor, there: Tensor, back: Tensor) -> _Carried:
    """Give a keyframe as the frame sees it along the flow `there`; `back` tells how far that can be believed."""
    inside = clamped(there)
    carried_plate, carried_style, returning = (_warp(image, inside) for image in (plate, style, back))
    difference = here - carried_plate
    colour = _blur(_mean(difference), 1.5)
    unlike = colour + _blur(_gradient(difference), 1.5)
    miss = _length(there + returning) / (1 + 0.05 * _length(there))
    outside = _length(inside - there) > 1
    worth = torch.exp(-((colour / COLOUR_TOLERANCE) ** 2) - (miss / RETURN_TOLERANCE) ** 2)
    claim = (1 - (1 - _LEAST_WORTH) * outside) / ((unlike + NOISE) ** PREFERENCE * (1 + miss))
    return _Carried(
        style=carried_style,
        plate=carried_plate,
        worth=worth.masked_fill(outside, 0).clamp(min=_LEAST_WORTH),
        claim=claim,
    )


def _nearness(frame: int, keys: Sequence[StyledKey]) -> list[float]:
    """Give each keyframe's part by distance alone, 1 at the keyframe and 0 at the other one."""
    distances = [abs(frame - key.frame) for key in keys]
    return [1 - distance / sum(distances) for distance in distances] if len(keys) > 1 else [1.0]


def _mix(styles: Sequence[Tensor], shares: Tensor) -> Tensor:
    """Give the weighted mean of styles without seams where shares change.

    Its detail has the energy that its parts have, not that of their overlap.
    """
    stacked = torch.stack(list(styles))
    detail = torch.stack([style - _enlarge(_reduce(style), style) for style in styles])
    mixed = (detail * shares).sum(0)
    wanted = _energy((detail.square() * shares).sum(0))
    present = _energy(mixed.square())
    gain = ((wanted + 1e-5) / (present + 1e-5)).sqrt().clamp(1, LARGEST_GAIN)
    return (stacked * shares).sum(0) + (_enlarge(gain, mixed) - 1) * mixed + closed(stacked, shares)


def _energy(squares: Tensor) -> Tensor:
    """Give the mean of all channels over a neighbourhood, (1, h, w) at the reduced scale."""
    return _box(_reduce(squares.mean(0, keepdim=True)), 1)


def _fit(plate: Tensor, style: Tensor, trust: Tensor, radius: int) -> _Relation:
    """Fit style to plate by weighted least squares in a square around each pixel.

    Source: He, Sun, Tang, "Guided Image Filtering", PAMI 2013, equations 11 to 13 with a colour guide, with weights,
    and solved at a reduced scale as in arXiv 1505.00996.
    """
    weight = _reduce(trust)
    x, y = _reduce(plate * trust) / weight, _reduce(style * trust) / weight
    products = torch.cat([weight, weight * x, weight * y, weight * _outer(x, x), weight * _outer(x, y)])
    sums = _box(products, radius)
    mean_x, mean_y, xx, xy = (sums[1:] / sums[:1]).split([3, 3, 9, 9])
    variance = (xx - _outer(mean_x, mean_x)).unflatten(0, (3, 3)).permute(2, 3, 0, 1)
    covariance = (xy - _outer(mean_x, mean_y)).unflatten(0, (3, 3)).permute(2, 3, 0, 1)
    slope = torch.linalg.solve(variance + _REGULARISATION * torch.eye(3).to(variance), covariance)
    slope = _enlarge(slope.permute(2, 3, 0, 1).flatten(0, 1), plate).unflatten(0, (3, 3))
    return _Relation(style=_enlarge(mean_y, plate), plate=_enlarge(mean_x, plate), slope=slope)


def _outer(first: Tensor, second: Tensor) -> Tensor:
    """Give all products of channels, (9, h, w)."""
    return (first[:, None] * second[None]).flatten(0, 1)


def _mean(difference: Tensor) -> Tensor:
    """Give the mean size of all channels, (1, H, W)."""
    return difference.abs().mean(0, keepdim=True)


def _gradient(difference: Tensor) -> Tensor:
    """Give the mean size of the steps to the right and down, (1, H, W)."""
    across = functional.pad(_mean(difference.diff(dim=2)), (0, 1))
    return across + functional.pad(_mean(difference.diff(dim=1)), (0, 0, 0, 1))


def _length(vectors: Tensor) -> Tensor:
    """Give the length of vectors (2, H, W), (1, H, W); several times quicker than norm along the outermost axis."""
    return vectors.square().sum(0, keepdim=True).sqrt()


def _warp(image: Tensor, flow: Tensor) -> Tensor:
    return warp(image[None], flow[None])[0]


def _reduce(image: Tensor) -> Tensor:
    height, width = (max(1, side // REDUCTION) for side in image.shape[1:])
    return functional.interpolate(image[None], size=(height, width), mode="area")[0]


def _enlarge(image: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(image[None], size=like.shape[1:], mode="bilinear", align_corners=False)[0]


def _box(image: Tensor, radius: int) -> Tensor:
    """Give the mean over a square of 2 radius + 1 pixels; outside the image nothing is counted."""
    side = 2 * radius + 1
    rows = functional.avg_pool2d(image[None], (1, side), 1, (0, radius), count_include_pad=False)
    return functional.avg_pool2d(rows, (side, 1), 1, (radius, 0), count_include_pad=False)[0]


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Give the image (C, H, W) under a Gaussian of sigma pixels, its border repeated.

    Shifted sums: for so few taps and channels several times quicker on a CPU than a convolution.
    """
    reach = int(3 * sigma + 0.5)
    heights = [exp(-(position**2) / (2 * sigma**2)) for position in range(-reach, reach + 1)]
    taps = [height / sum(heights) for height in heights]
    padded = functional.pad(image[None], (reach, reach, reach, reach), mode="replicate")[0]
    rows = torch.zeros_like(padded[:, :, : image.shape[2]])
    for position, tap in enumerate(taps):
        rows.add_(padded.narrow(2, position, image.shape[2]), alpha=tap)
    blurred = torch.zeros_like(image)
    for position, tap in enumerate(taps):
        blurred.add_(rows.narrow(1, position, image.shape[1]), alpha=tap)
    return blurred
