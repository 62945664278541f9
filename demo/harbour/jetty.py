# SPDX-License-Identifier: GPL-3.0-or-later
"""The foreground: a jetty with a lamp-post that passes in front of the boat, and what a fisher left there."""

import itertools
import math
import random

import bpy
import numpy as np

from harbour.paint import glow, paint
from harbour.shapes import Point, ball, box, cone, rod


def build_jetty(dice: random.Random) -> None:
    """Planks on piles at the right, a lamp-post that passes in front of the boat, and a fisher's things."""
    planks = [paint(f"plank {k}", colour, second="5b3b28", grain=(26.0, 2.0, 26.0), roughness=0.75)
              for k, colour in enumerate(("9a6a44", "86583a", "a87850"))]
    for k in range(34):
        at = (1.05 + 0.20 * k, 4.25 + dice.uniform(-0.02, 0.02), 0.34)
        box(at, (0.185, 1.45, 0.06), dice.choice(planks), turn=dice.uniform(-0.012, 0.012))
    timber = paint("timber", "8a5a3a", second="5b3823", grain=(1.5, 14.0, 14.0), roughness=0.8)
    box((4.4, 3.58, 0.25), (6.9, 0.12, 0.16), timber)
    for x in (1.12, 2.75, 4.4):
        cone((x, 3.50, -0.6), (0.095, 1.42), timber, taper=0.92, sides=18)
        ball((x, 3.50, 0.82), (0.105, 0.105, 0.05), paint("cap white", "efe6d0"))
    _rope((1.12, 3.50, 0.70), (2.75, 3.50, 0.70), 0.26)
    _rope((2.75, 3.50, 0.70), (4.4, 3.50, 0.70), 0.26)
    _lamp_post((1.22, 4.72, 0.36))
    _catch(dice)


def _rope(start: Point, end: Point, sag: float) -> None:
    hemp = paint("hemp", "d8b57a", second="a27c48", grain=(40.0, 40.0, 40.0))
    t = np.linspace(0.0, 1.0, 15)[:, None]
    points = np.array(start) * (1 - t) + np.array(end) * t - np.array([0, 0, 4 * sag]) * t * (1 - t)
    for a, b in itertools.pairwise(points):
        rod(tuple(a), tuple(b), 0.024, hemp)


def _lamp_post(foot: Point) -> None:
    x, y, z = foot
    iron = paint("lamp iron", "1f3a3a", roughness=0.3, metallic=0.3)
    cone(foot, (0.13, 0.20), iron, taper=0.6)
    cone(foot, (0.055, 1.72), iron)
    cone((x, y, z + 1.66), (0.05, 0.14), iron, taper=2.6)
    bulb = (x, y, z + 1.98)
    ball(bulb, (0.075, 0.075, 0.105), glow("bulb", "ffc873", 30.0))
    for step in range(4):
        angle = math.tau * (step + 0.5) / 4
        dx, dy = math.cos(angle), math.sin(angle)
        rod((x + 0.12 * dx, y + 0.12 * dy, z + 1.80), (x + 0.17 * dx, y + 0.17 * dy, z + 2.16), 0.014, iron)
    cone((x, y, z + 2.15), (0.25, 0.17), iron, taper=0.2, sides=8)
    ball((x, y, z + 2.35), (0.04, 0.04, 0.05), iron)
    lamp = bpy.data.lights.new("lamp light", "POINT")
    lamp.energy, lamp.color, lamp.shadow_soft_size = 22.0, (1.0, 0.62, 0.26), 0.1
    light = bpy.data.objects.new("lamp light", lamp)
    light.location = (x, y - 0.12, z + 1.74)
    bpy.context.scene.collection.objects.link(light)


def _catch(dice: random.Random) -> None:
    """Crates of oranges, geraniums, a barrel and floats."""
    slat = paint("slat", "d9b27a", second="b5854c", grain=(2.0, 20.0, 20.0))
    for row in range(3):
        box((2.05, 3.98, 0.44 + 0.11 * row), (0.72, 0.03, 0.085), slat)
        for side in (1.70, 2.40):
            box((side, 4.22, 0.44 + 0.11 * row), (0.03, 0.48, 0.085), slat)
    orange = [paint(f"orange {c}", c, roughness=0.35) for c in ("f5871f", "ee6c16", "f9a02b")]
    for _ in range(34):
        at = (dice.uniform(1.78, 2.32), dice.uniform(4.09, 4.39), 0.66 + dice.uniform(-0.04, 0.09))
        ball(at, (0.085, 0.085, 0.085), dice.choice(orange))
    barrel = paint("barrel", "9b5d34", second="6e3d20", grain=(30.0, 30.0, 1.0))
    ball((3.35, 4.45, 0.72), (0.32, 0.32, 0.52), barrel)
    for z in (0.52, 0.72, 0.92):
        cone((3.35, 4.45, z), (0.315, 0.035), paint("hoop", "3b3f48", roughness=0.35, metallic=0.8))
    for k, (x, colour) in enumerate(((2.72, "2b6fb3"), (2.92, "f2b01e"), (2.80, "d3161b"))):
        at = (x, 3.95 + 0.06 * k, 0.47 + 0.16 * (k == 2))
        ball(at, (0.13, 0.13, 0.13), paint(f"float {k}", colour, roughness=0.2))
    _geraniums(dice)


def _geraniums(dice: random.Random) -> None:
    box((1.25, 3.86, 0.46), (0.52, 0.22, 0.18), paint("trough", "2f8f9a", roughness=0.5))
    leaf, petals = paint("geranium leaf", "3f8a3c"), [paint(f"petal {c}", c) for c in ("e5203a", "f45b7a", "f7c9cf")]
    for _ in range(46):
        at = (dice.uniform(1.0, 1.5), dice.uniform(3.76, 3.96), 0.57 + dice.uniform(0.0, 0.10))
        ball(at, (0.065, 0.05, 0.035), leaf)
    for _ in range(22):
        at = (dice.uniform(1.0, 1.5), dice.uniform(3.74, 3.94), 0.69 + dice.uniform(-0.03, 0.10))
        ball(at, (0.055, 0.055, 0.05), dice.choice(petals), rough=0.28)
