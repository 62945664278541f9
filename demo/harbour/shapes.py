# SPDX-License-Identifier: GPL-3.0-or-later
"""Shapes of the demo scene: shared unit meshes that are placed and scaled, rods, and smooth sheets. Metres, z up."""

import functools
from collections.abc import Callable
from typing import Any

import bmesh
import bpy
import numpy as np
from mathutils import Matrix, Vector, noise

Point = tuple[float, float, float]


def empty(name: str) -> Any:
    """An anchor that carries other objects."""
    anchor = bpy.data.objects.new(name, None)
    bpy.context.scene.collection.objects.link(anchor)
    return anchor


def _object(mesh: Any, material: Any, parent: Any = None) -> Any:
    """An object of `mesh` in the scene; the material sits on the object, so that meshes are shared."""
    thing = bpy.data.objects.new(material.name, mesh)
    bpy.context.scene.collection.objects.link(thing)
    if not mesh.materials:
        mesh.materials.append(None)
    thing.material_slots[0].link = "OBJECT"
    thing.material_slots[0].material = material
    thing.parent = parent
    return thing


def _mesh(name: str, shape: Callable[[Any], Any], smooth: bool = False) -> Any:
    mesh, edit = bpy.data.meshes.new(name), bmesh.new()
    shape(edit)
    for face in edit.faces:
        face.smooth = smooth
    edit.to_mesh(mesh)
    edit.free()
    return mesh


@functools.cache
def _cube() -> Any:
    return _mesh("cube", lambda edit: bmesh.ops.create_cube(edit, size=1.0))


@functools.cache
def _cone(taper: float, sides: int) -> Any:
    """A cone of unit height and base radius whose top radius is `taper`; 1 gives a cylinder."""
    return _mesh("cone", lambda edit: bmesh.ops.create_cone(
        edit, cap_ends=True, segments=sides, radius1=1.0, radius2=taper, depth=1.0), smooth=sides > 12)


@functools.cache
def _ball(roughness: float = 0.0, variant: int = 0, detail: int = 3) -> Any:
    """A unit ball, roughened by noise: rocks, tree crowns, fruit."""
    def shape(edit: Any) -> None:
        bmesh.ops.create_icosphere(edit, subdivisions=detail, radius=1.0)
        for vertex in edit.verts:
            lump = noise.fractal(vertex.co * 1.6 + Vector((variant * 9.0, 0, 0)), 1.0, 2.0, 4)
            vertex.co *= 1.0 + roughness * lump
    return _mesh("ball", shape, smooth=roughness < 0.3)


@functools.cache
def _gable() -> Any:
    """A unit roof: a triangular prism with its ridge along x."""
    def shape(edit: Any) -> None:
        ends = [[edit.verts.new(p) for p in ((x, -0.5, 0), (x, 0.5, 0), (x, 0, 1))] for x in (-0.5, 0.5)]
        (a, b, c), (d, e, f) = ends
        for face in ((c, b, a), (d, e, f), (a, b, e, d), (b, c, f, e), (c, a, d, f)):
            edit.faces.new(face)
    return _mesh("gable", shape)


def box(at: Point, size: Point, material: Any, parent: Any = None, turn: float = 0.0) -> Any:
    return _placed(_object(_cube(), material, parent), at, size, turn)


def roof(at: Point, size: Point, material: Any, turn: float) -> Any:
    return _placed(_object(_gable(), material), at, size, turn)


def cone(at: Point, size: tuple[float, float], material: Any, parent: Any = None, taper: float = 1.0,
         sides: int = 24) -> Any:
    """A cylinder or cone of a radius and a height that stands on `at`; its top has `taper` times the radius."""
    (x, y, z), (radius, height) = at, size
    return _placed(_object(_cone(taper, sides), material, parent), (x, y, z + height / 2), (radius, radius, height))


def ball(at: Point, size: Point, material: Any, parent: Any = None, rough: float = 0.0, variant: int = 0) -> Any:
    return _placed(_object(_ball(rough, variant), material, parent), at, size)


def rod(start: Point, end: Point, radius: float, material: Any, parent: Any = None) -> Any:
    """A thin cylinder from `start` to `end`: rope, spar, rail."""
    a, b = Vector(start), Vector(end)
    thing = _object(_cone(1.0, 8), material, parent)
    turn = (b - a).to_track_quat("Z", "Y").to_matrix().to_4x4()
    stretch = Matrix.Diagonal((radius, radius, (b - a).length, 1.0))
    thing.matrix_local = Matrix.Translation((a + b) / 2) @ turn @ stretch
    return thing


def _placed(thing: Any, at: Point, size: Point, turn: float = 0.0) -> Any:
    thing.location, thing.scale, thing.rotation_euler = at, size, (0.0, 0.0, turn)
    return thing


def surface(points: np.ndarray, material: Any, parent: Any = None) -> Any:
    """A smooth sheet through a (rows, columns, 3) array of points."""
    rows, columns = points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    quads = np.stack([index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]], -1).reshape(-1, 4)
    mesh = bpy.data.meshes.new(material.name)
    mesh.from_pydata(points.reshape(-1, 3).tolist(), [], quads.tolist())
    mesh.polygons.foreach_set("use_smooth", [True] * len(quads))
    return _object(mesh, material, parent)


def reshape(thing: Any, points: np.ndarray) -> None:
    """Move a sheet made by `surface` to new points of the same number."""
    thing.data.vertices.foreach_set("co", points.astype(np.float32).ravel())
    thing.data.update()
