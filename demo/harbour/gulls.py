# SPDX-License-Identifier: GPL-3.0-or-later
"""Gulls on straight courses, with beating wings."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from harbour.paint import paint
from harbour.shapes import Point, ball, cone, empty, surface


@dataclass(frozen=True, kw_only=True)
class Gull:
    """A gull on a straight course: its parts, where it is at time 0, its speed, and the phase of its wings."""

    body: Any
    wings: tuple[Any, Any]
    start: Point
    speed: Point
    phase: float

    def pose(self, seconds: float) -> None:
        self.body.location = [a + v * seconds for a, v in zip(self.start, self.speed, strict=True)]
        flap = 0.15 + 0.55 * math.sin(8.0 * seconds + self.phase)
        for wing, side in zip(self.wings, (1.0, -1.0), strict=True):
            wing.rotation_euler = (side * flap, 0.0, 0.0)


def build_gull(start: Point, speed: Point, phase: float, size: float) -> Gull:
    white, grey = paint("gull", "fbf8f2"), paint("gull wing", "d5d9e2")
    body = empty("gull")
    body.scale, body.rotation_euler = (size, size, size), (0.25, 0.0, math.atan2(speed[1], speed[0]))
    ball((0, 0, 0), (0.34, 0.10, 0.10), white, body)
    cone((0.32, 0, -0.02), (0.03, 0.05), paint("beak", "f0a020"), body)
    along, out = np.linspace(-0.16, 0.14, 4)[:, None], np.linspace(0.0, 1.0, 8)[None, :]
    wings = []
    for side in (1.0, -1.0):
        x = along * (1 - 0.85 * out) - 0.22 * out ** 2
        sheet = np.stack([x, side * 0.95 * out + 0 * along, 0.12 * np.sin(np.pi * out) + 0 * along], -1)
        wings.append(surface(sheet, grey, body))
    return Gull(body=body, wings=(wings[0], wings[1]), start=start, speed=speed, phase=phase)
