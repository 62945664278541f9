# SPDX-License-Identifier: GPL-3.0-or-later
"""The sea: one wave function for the water and for what floats on it, and the material of the water."""

import math
from typing import Any

import bpy
import numpy as np

from harbour.paint import Shader, Socket, linear

WAVES = [  # direction in degrees, length, height, metres and degrees
    (-20.0, 5.2, 0.050), (35.0, 3.1, 0.034), (-62.0, 2.2, 0.024), (12.0, 1.35, 0.017), (80.0, 0.95, 0.011),
    (-35.0, 0.62, 0.008),
]


def wave_height(x: Any, y: Any, seconds: float) -> Any:
    """Height of the sea in metres: a sum of sines that travel as deep water waves do (w^2 = g k), slowed by half."""
    height = 0.0 * x
    for degrees, length, amplitude in WAVES:
        k, angle = 2.0 * math.pi / length, math.radians(degrees)
        phase = k * (x * math.cos(angle) + y * math.sin(angle)) - 0.5 * math.sqrt(9.81 * k) * seconds + degrees
        height = height + amplitude * np.sin(phase)
    return height


def sea_points(seconds: float) -> np.ndarray:
    """A grid that is dense near the camera and reaches the horizon."""
    depth = 1.6 * np.geomspace(1.0, 190.0, 320)[:, None]
    across = np.linspace(-1.0, 1.0, 280)[None, :]
    x, y = across * (2.5 + 0.95 * depth), depth + 0.0 * across
    calm = np.exp(-depth / 30.0)
    return np.stack([x, y, wave_height(x, y, seconds) * calm], -1)


def _foam(shader: Shader, boat: Any) -> Socket:
    """How much foam the boat leaves: two arms that spread from the bow, and a wash behind the stern; 0 to 1."""
    place = shader.node("TexCoord", object=boat).outputs["Object"]
    behind = shader.math("SUBTRACT", 1.15, shader.axis(place, 0))
    aside = shader.math("ABSOLUTE", shader.axis(place, 1))
    fade = shader.math("MULTIPLY", shader.math("POWER", 0.62, behind), shader.math("GREATER_THAN", behind, 0.0))
    arm = shader.math("ADD", shader.math("MULTIPLY", behind, 0.26), 0.16)
    off = shader.math("ABSOLUTE", shader.math("SUBTRACT", aside, arm))
    arms = shader.math("SUBTRACT", 1.0, shader.math("MULTIPLY", off, 5.0))
    wash = shader.math("MULTIPLY", shader.math("LESS_THAN", aside, 0.42), shader.math("GREATER_THAN", behind, 2.3))
    streaks = shader.noise(shader.scaled(shader.position(), (2.5, 6.0, 1.0)), 1.6, 3.0)
    amount = shader.math("MULTIPLY", shader.math("MAXIMUM", arms, wash), shader.math("ADD", fade, 0.05))
    return shader.ramp(shader.math("MULTIPLY", amount, streaks), ((0.10, "000000"), (0.20, "ffffff")))


def sea_water(boat: Any) -> Any:
    """Water: deep teal where one looks down into it, the sky where one looks along it, with ripples and foam."""
    material = bpy.data.materials.new("sea")
    shader = Shader(material)
    place = shader.position()
    bump = shader.node("Bump")
    bump.inputs["Strength"].default_value, bump.inputs["Distance"].default_value = 0.35, 0.12
    shader.feed(bump.inputs["Height"], shader.noise(shader.scaled(place, (2.6, 5.2, 2.0)), 1.0, 2.0))
    drift = shader.noise(shader.scaled(place, (0.35, 0.8, 0.0)), 1.0, 3.0)
    colour = shader.ramp(drift, ((0.35, "0c4f63"), (0.55, "13778a"), (0.70, "2aa09c")))
    foam = _foam(shader, boat)
    water = shader.node("BsdfPrincipled", shader.mix(foam, colour, linear("f4f6f0")))
    shader.feed(water.inputs["Roughness"], shader.math("MULTIPLY_ADD", foam, 0.6, 0.12))
    shader.feed(water.inputs["Normal"], bump.outputs[0])
    shader.finish(water.outputs[0])
    return material
