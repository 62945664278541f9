# SPDX-License-Identifier: GPL-3.0-or-later
"""The subject: a toy boat with two sails, a sailor in oilskins and a pennant. It has its own axes: x forward."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harbour.paint import glow, paint
from harbour.sea import wave_height
from harbour.shapes import Point, ball, box, cone, empty, reshape, rod, surface


def _hull(anchor: Any) -> None:
    """Frames along the boat: full at the stern, fine at the bow, with a rising sheer."""
    t = np.linspace(0.0, 1.0, 33)
    beam = 0.52 * (0.80 + 0.20 * np.minimum(t / 0.35, 1)) * (1 - np.clip((t - 0.42) / 0.58, 0, 1) ** 2.3)
    sheer = 0.50 + 0.34 * t ** 2.6 + 0.05 * (1 - t) ** 3
    keel = -0.22 + 0.62 * t ** 7
    u = np.linspace(-1.0, 1.0, 29)
    side = np.sign(u) * np.abs(u) ** 0.55
    length = -1.35 + 2.75 * t
    z = keel[:, None] + (sheer - keel)[:, None] * np.abs(u)[None, :] ** 1.5
    x = length[:, None] + 0.10 * t[:, None] ** 4 * np.abs(u)[None, :]
    hull = np.stack([x, beam[:, None] * side[None, :], z], -1)
    surface(hull, paint("hull", "d3161b", roughness=0.16, bands=((0.10, "16284f"), (0.145, "f4ead2")),
                                anchor=anchor, grain_amount=0.06), anchor)
    transom = np.stack([hull[0], np.repeat(np.array([[-1.35, 0.0, 0.53]]), len(u), 0)], 0)
    surface(transom, paint("transom", "a81016", roughness=0.25, anchor=anchor), anchor)
    deck = np.stack([hull[:, 0], hull[:, -1]], 1) - np.array([0, 0, 0.07])
    surface(deck, paint("deck", "d9a566", second="b47a40", grain=(2.0, 26.0, 2.0), anchor=anchor), anchor)
    rail = paint("rail", "f6efdc", roughness=0.3, anchor=anchor)
    for edge in (hull[:, 0], hull[:, -1]):
        for start, end in itertools.pairwise(edge):
            rod(tuple(start), tuple(end), 0.032, rail, anchor)


def _sail(tack: Point, head: Point, clew: Point, belly: float) -> np.ndarray:
    """A three-cornered sail that bellies to leeward: luff from tack to head, foot from tack to clew."""
    up, along = np.linspace(0.0, 1.0, 30)[:, None, None], np.linspace(0.0, 1.0, 20)[None, :, None]
    a, b, c = np.array(tack), np.array(head), np.array(clew)
    points: np.ndarray = a + (b - a) * up + (c - a) * along * (1 - up)
    curve = belly * np.sin(np.pi * along) * (1 - up) ** 0.6 * np.sin(np.pi * (0.12 + 0.88 * up)) ** 0.5
    leech = 0.10 * np.sin(np.pi * up) * along
    points += np.concatenate([-leech * np.sign(a[0] - c[0]), -curve, 0 * curve], -1)
    return points


def _rig(anchor: Any) -> None:
    wood = paint("spar", "c98a4b", second="9c6330", grain=(12.0, 12.0, 1.0), anchor=anchor)
    cone((0.12, 0, 0.4), (0.042, 3.25), wood, anchor, taper=0.6)
    rod((0.12, 0, 1.02), (-1.42, 0.16, 1.10), 0.032, wood, anchor)
    canvas = paint("mainsail", "f7ecd0", roughness=0.8, anchor=anchor, translucent=0.45, grain_amount=0.07,
                   bands=((1.55, "f7ecd0"), (1.80, "e8772e"), (2.02, "f7ecd0"), (2.18, "e8772e"), (9.0, "f7ecd0")),
                   disc=(-0.27, 2.50, 0.17, "d3161b"))
    surface(_sail((0.06, 0, 1.08), (0.08, 0, 3.52), (-1.38, 0.15, 1.16), 0.26), canvas, anchor)
    jib = paint("jib", "1f7f8c", roughness=0.8, anchor=anchor, translucent=0.4, grain_amount=0.08,
                bands=((1.05, "f7ecd0"), (1.35, "1f7f8c"), (1.65, "f7ecd0"), (1.95, "1f7f8c"), (2.25, "f7ecd0"),
                       (2.55, "1f7f8c"), (9.0, "f7ecd0")))
    surface(_sail((1.42, 0, 0.88), (0.18, 0, 3.15), (0.22, 0.12, 0.84), 0.22), jib, anchor)
    rope = paint("rope", "4a3a2c", anchor=anchor)
    rod((1.46, 0, 0.86), (0.13, 0, 3.3), 0.011, rope, anchor)
    rod((-1.34, 0, 0.55), (0.11, 0, 3.6), 0.011, rope, anchor)


def _crew(anchor: Any) -> None:
    """A sailor in yellow oilskins at the tiller, a cabin with brass portholes, and a stern lantern."""
    yellow = paint("oilskin", "f5b916", roughness=0.35, anchor=anchor)
    cone((-0.95, -0.05, 0.42), (0.21, 0.52), yellow, anchor, taper=0.45)
    ball((-0.94, -0.06, 1.02), (0.125, 0.125, 0.135), paint("skin", "e8a986", anchor=anchor), anchor)
    cone((-0.95, -0.06, 1.06), (0.20, 0.05), yellow, anchor, taper=0.65)
    ball((-0.95, -0.06, 1.10), (0.135, 0.135, 0.10), yellow, anchor)
    rod((-0.90, -0.20, 0.82), (-0.66, -0.24, 0.66), 0.055, yellow, anchor)
    box((0.42, 0, 0.62), (0.78, 0.52, 0.30), paint("cabin", "f1e6cb", roughness=0.4, anchor=anchor), anchor)
    box((0.42, 0, 0.79), (0.88, 0.62, 0.05), paint("roof", "1f6f7d", roughness=0.3, anchor=anchor), anchor)
    brass = paint("brass", "e0a83a", roughness=0.18, metallic=1.0, anchor=anchor)
    for x in (0.2, 0.45, 0.68):
        ball((x, -0.262, 0.64), (0.075, 0.015, 0.075), brass, anchor)
        ball((x, -0.275, 0.64), (0.050, 0.012, 0.050), glow("pane", "ffc56b", 3.0), anchor)
    ball((-1.30, -0.12, 0.80), (0.06, 0.06, 0.075), glow("stern lantern", "ffb04d", 18.0), anchor)
    rod((-1.30, -0.12, 0.5), (-1.30, -0.12, 0.75), 0.018, brass, anchor)


def _pennant_points(seconds: float) -> np.ndarray:
    along, across = np.linspace(0.0, 1.0, 16)[:, None], np.linspace(-1.0, 1.0, 5)[None, :]
    sway = 0.09 * along * np.sin(7.0 * along - 9.0 * seconds)
    x = 0.10 - 0.62 * along + 0.0 * across
    return np.stack([x, sway + 0.0 * across, 3.62 + 0.11 * across * (1 - along) + 0.3 * sway], -1)


@dataclass(frozen=True, kw_only=True)
class Boat:
    """The boat: the anchor that carries all its parts, and the pennant, which moves by itself."""

    anchor: Any
    pennant: Any

    @property
    def parts(self) -> Sequence[Any]:
        return tuple(self.anchor.children_recursive)

    def pose(self, seconds: float) -> None:
        """The boat rides the waves: it takes its height, pitch and roll from the sea under it."""
        reshape(self.pennant, _pennant_points(seconds))
        x, y = -2.05 + 2.75 * seconds, 8.6 - 0.30 * seconds
        bow, stern = wave_height(x + 1.1, y, seconds), wave_height(x - 1.1, y, seconds)
        port, starboard = wave_height(x, y + 0.4, seconds), wave_height(x, y - 0.4, seconds)
        self.anchor.location = (x, y, 0.5 * (bow + stern) - 0.02)
        self.anchor.rotation_euler = (0.5 * (port - starboard) + 0.06, -math.atan2(bow - stern, 2.2) - 0.02, -0.20)


def build_boat() -> Boat:
    anchor = empty("boat")
    _hull(anchor)
    _rig(anchor)
    _crew(anchor)
    cloth = paint("pennant", "f2b01e", anchor=anchor, translucent=0.4)
    return Boat(anchor=anchor, pennant=surface(_pennant_points(0.0), cloth, anchor))
