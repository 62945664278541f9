# SPDX-License-Identifier: GPL-3.0-or-later
"""The far shore: hills and mountains, the village on its quay, trees, and the lighthouse on its rocks."""

import math
import random
from typing import Any

import numpy as np
from mathutils import noise

from harbour.paint import glow, paint
from harbour.shapes import Point, ball, box, cone, rod, roof, surface


def _land_height(x: Any, y: Any) -> Any:
    """Hills behind the quay on the left, a saddle, and a long slope on the right."""
    left = 5.2 * np.exp(-((x + 11) / 9.0) ** 2 - ((y - 37) / 9.0) ** 2)
    middle = 3.3 * np.exp(-((x - 1.5) / 6.0) ** 2 - ((y - 40) / 8.0) ** 2)
    right = 4.2 * np.exp(-((x - 21) / 7.5) ** 2 - ((y - 41) / 8.0) ** 2)
    ripple = 0.18 * np.sin(1.3 * x + 0.7 * y) + 0.12 * np.sin(2.3 * x - 1.9 * y)
    return -0.55 + left + middle + right + ripple


def _hills() -> None:
    x, y = np.meshgrid(np.linspace(-40, 42, 150), np.linspace(25, 62, 80))
    fields = paint("fields", "8fae4a", patches=("d8b852", "6f9c45", "b9bd56", "3f7d4a"), roughness=0.9)
    surface(np.stack([x, y, _land_height(x, y)], -1), fields)


def _mountains() -> None:
    x, y = np.meshgrid(np.linspace(-150, 150, 260), np.linspace(95, 150, 60))
    ridge = np.vectorize(lambda a, b: noise.ridged_multi_fractal((a / 42, b / 42, 0.3), 0.9, 2.1, 6, 1.0, 2.0))(x, y)
    slope = np.exp(-((y - 122) / 16) ** 2) * (0.55 + 0.45 * np.exp(-((x + 14) / 42) ** 2))
    snow = paint("mountains", "f6efee", second="7f93bd", roughness=1.0, grain=(0.10, 0.10, 0.22), grain_amount=0.08)
    surface(np.stack([x, y, -3.5 + 21.0 * ridge * slope], -1), snow)


def _house(dice: random.Random, at: Point, size: Point, wall: Any, tiles: Any) -> None:
    (x, y, z), (width, depth, height) = at, size
    box((x, y, z + height / 2), size, wall)
    across = dice.random() < 0.45
    span = (depth + 0.3, width + 0.35) if across else (width + 0.3, depth + 0.35)
    roof((x, y, z + height), (*span, 0.42 * span[1]), tiles, math.pi / 2 if across else 0.0)
    box((x + 0.27 * width, y + 0.2, z + height + 0.55), (0.28, 0.28, 0.9), paint("brick", "8c4a38"))
    front = y - depth / 2
    for column in range(2 if width < 2.3 else 3):
        for row in range(int(height // 1.05)):
            at_x = x + (column - (0.5 if width < 2.3 else 1.0)) * 0.82
            _window((at_x, front, z + 0.62 + 1.02 * row), dice.random() < 0.24)


def _window(at: Point, lit: bool) -> None:
    x, y, z = at
    box((x, y, z), (0.46, 0.06, 0.62), paint("frame", "fbf4e4"))
    pane = glow("lit window", "ff9f45", 2.2) if lit else paint("dark pane", "27405c", roughness=0.1)
    for side in (-0.10, 0.10):
        box((x + side, y - 0.03, z), (0.16, 0.04, 0.50), pane)


def _village(dice: random.Random) -> None:
    walls = [paint(f"wall {c}", c, roughness=0.9, grain_amount=0.14) for c in
             ("f2d06b", "e9795d", "f7f0df", "6fb7b7", "f0a7a0", "d9532f", "f4e2b8", "7fa6cf", "e8a33d")]
    roofs = [paint(f"tiles {c}", c, tiles=7.0, roughness=0.8) for c in ("b5482f", "8f3d34", "4b5a78")]
    x = -17.5
    while x < 3.4:
        width = dice.uniform(1.7, 2.8)
        height = dice.choice((2.1, 2.2, 3.2, 3.3, 2.6))
        wall = walls.pop(0)
        walls.append(wall)
        at = (x + width / 2, 24.6 + dice.uniform(-0.3, 0.3), 0.7)
        _house(dice, at, (width, 2.4, height), wall, dice.choice(roofs))
        if dice.random() < 0.75:
            above = (x + width / 2 + 0.8, 29.5, 1.9 + dice.uniform(0.0, 0.9))
            _house(dice, above, (2.2, 2.2, 2.4), dice.choice(walls), dice.choice(roofs))
        x += width + dice.choice((0.0, 0.0, 0.5))
    box((-6.0, 31.5, 4.0), (1.7, 1.7, 6.4), paint("church", "f6ead0"))
    cone((-6.0, 31.5, 7.2), (1.35, 3.4), paint("copper", "3f9a86", roughness=0.5), taper=0.0, sides=4)
    box((-9.0, 25.0, 0.30), (27.0, 5.2, 0.9), paint("quay", "b9a58a", second="8d7a66", roughness=0.9))


def _trees(dice: random.Random) -> None:
    leaves = [paint(f"leaf {c}", c, roughness=0.9, grain_amount=0.3)
              for c in ("2f6b3f", "3f7f3a", "5f8f35", "c98a2b", "b9532a")]
    bark = paint("bark", "5a3d2b")
    for _ in range(120):
        x, y = dice.uniform(-26, 32), dice.uniform(29.5, 44)
        z = float(_land_height(x, y))
        if z < 0.5:
            continue
        height, leaf = dice.uniform(1.1, 2.1), dice.choice(leaves)
        if dice.random() < 0.5:
            for tier in range(3):
                skirt = (0.42 * height * (1 - 0.24 * tier), 0.55 * height)
                needles = leaves[0] if dice.random() < 0.6 else leaves[1]
                cone((x, y, z + 0.25 + 0.28 * tier * height), skirt, needles, taper=0.0, sides=9)
        else:
            cone((x, y, z - 0.2), (0.10, 0.9), bark, sides=8)
            crown = (0.5 * height, 0.5 * height, 0.55 * height)
            ball((x, y, z + 0.55 * height + 0.3), crown, leaf, rough=0.28, variant=dice.randrange(4))


def _lighthouse(dice: random.Random) -> None:
    x, y = 8.6, 23.0
    rock = paint("rock", "8c7b74", second="5d5560", roughness=0.9, grain_amount=0.35)
    for _ in range(26):
        angle, reach, size = dice.uniform(0, math.tau), dice.uniform(0.2, 1.0) ** 0.6, dice.uniform(0.5, 1.25)
        at = (x + 4.4 * reach * math.cos(angle), y + 1.9 * reach * math.sin(angle), 0.9 * (1 - reach) + 0.1)
        ball(at, (1.25 * size, size, 0.8 * size), rock, rough=0.55, variant=dice.randrange(6))
    tower = paint("tower", "f7f0e0", roughness=0.5, bands=(
        (2.6, "f7f0e0"), (3.8, "d0252a"), (5.0, "f7f0e0"), (6.2, "d0252a"), (9.0, "f7f0e0")))
    ball((x, y, 0.0), (3.4, 2.0, 1.25), rock, rough=0.25, variant=2)
    cone((x, y, 0.8), (1.04, 6.4), tower, taper=0.62, sides=40)
    iron = paint("iron", "2e3645", roughness=0.4)
    cone((x, y, 7.2), (0.98, 0.16), iron, sides=40)
    for step in range(14):
        post = (x + 0.92 * math.cos(math.tau * step / 14), y + 0.92 * math.sin(math.tau * step / 14))
        rod((*post, 7.3), (*post, 7.75), 0.03, iron)
    cone((x, y, 7.36), (0.52, 0.14), iron, sides=24)
    ball((x, y, 7.84), (0.25, 0.25, 0.34), glow("lighthouse lamp", "ffd890", 40.0))
    for step in range(8):
        post = (x + 0.53 * math.cos(math.tau * step / 8), y + 0.53 * math.sin(math.tau * step / 8))
        rod((*post, 7.36), (*post, 8.3), 0.035, iron)
    cone((x, y, 8.28), (0.74, 0.75), paint("cap", "b51d22", roughness=0.3), taper=0.08)
    ball((x, y, 9.1), (0.12, 0.12, 0.12), iron)
    tiles = paint("keeper roof", "b5482f", tiles=7.0)
    _house(dice, (x + 2.6, y + 0.6, 0.9), (2.2, 1.8, 1.5), paint("keeper", "f7f0e0"), tiles)


def build_shore(dice: random.Random) -> None:
    _hills()
    _mountains()
    _village(dice)
    _trees(dice)
    _lighthouse(dice)
