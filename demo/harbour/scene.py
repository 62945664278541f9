# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole harbour: `build` makes it, `Harbour.pose` sets a moment of it.

Units are metres; x points right, y away from the camera, z up. Nothing is keyframed: the state of a frame depends on
its time only, so that frames render in any order.
"""

import math
import random
from dataclasses import dataclass
from typing import Any

import bpy
from mathutils import Vector

from harbour.boat import Boat, build_boat
from harbour.gulls import Gull, build_gull
from harbour.jetty import build_jetty
from harbour.paint import sky
from harbour.sea import sea_points, sea_water
from harbour.shapes import reshape, surface
from harbour.shore import build_shore

SEED = 7


@dataclass(frozen=True, kw_only=True)
class Harbour:
    """The built scene; the boat is what the matte covers."""

    camera: Any
    boat: Boat
    sea: Any
    gulls: tuple[Gull, ...]

    def pose(self, seconds: float) -> None:
        """Set the scene to a time: 0 is the first frame of the shot."""
        reshape(self.sea, sea_points(seconds))
        self.boat.pose(seconds)
        for gull in self.gulls:
            gull.pose(seconds)
        self._look(seconds)

    def _look(self, seconds: float) -> None:
        """A slow truck to the right with a little push in, panning with the boat."""
        self.camera.location = (-0.15 + 1.25 * seconds, -0.1 + 0.30 * seconds, 1.45)
        self.camera.rotation_euler = (math.pi / 2, 0.0, math.radians(1.6 - 3.2 * seconds))


def _camera() -> Any:
    lens = bpy.data.cameras.new("camera")
    lens.lens, lens.shift_y = 32.0, 0.055
    camera = bpy.data.objects.new("camera", lens)
    bpy.context.scene.collection.objects.link(camera)
    bpy.context.scene.camera = camera
    return camera


def _sun() -> None:
    light = bpy.data.lights.new("sun", "SUN")
    light.energy, light.color, light.angle = 6.0, (1.0, 0.72, 0.44), math.radians(1.5)
    sun = bpy.data.objects.new("sun", light)
    sun.rotation_euler = Vector((0.78, 0.50, -0.40)).to_track_quat("-Z", "Y").to_euler()
    bpy.context.scene.collection.objects.link(sun)


def _gulls() -> tuple[Gull, ...]:
    return (
        build_gull((-5.6, 12.0, 5.4), (2.9, 0.1, 0.10), phase=0.0, size=0.75),
        build_gull((-3.9, 13.5, 6.6), (2.6, 0.2, -0.15), phase=1.9, size=0.7),
        build_gull((4.6, 10.5, 4.5), (-1.5, 0.5, 0.25), phase=3.3, size=0.6),
        build_gull((6.2, 15.0, 6.9), (-1.9, 0.0, -0.3), phase=0.8, size=0.8),
    )


def build() -> Harbour:
    """Make the scene in an empty file; the same seed gives the same harbour."""
    dice = random.Random(SEED)
    bpy.context.scene.world = sky()
    _sun()
    build_shore(dice)
    build_jetty(dice)
    boat = build_boat()
    sea = surface(sea_points(0.0), sea_water(boat.anchor))
    return Harbour(camera=_camera(), boat=boat, sea=sea, gulls=_gulls())
