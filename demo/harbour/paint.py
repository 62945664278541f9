# SPDX-License-Identifier: GPL-3.0-or-later
"""Materials of the demo scene: procedural shaders, written as expressions over node sockets. No image textures."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import bpy

Socket = Any
Bands = Sequence[tuple[float, str]]


def linear(colour: str) -> tuple[float, float, float, float]:
    """A six-digit sRGB hex colour as scene-linear RGBA (IEC 61966-2-1)."""
    values = [int(colour[k:k + 2], 16) / 255.0 for k in (0, 2, 4)]
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return r, g, b, 1.0


class Shader:
    """A node tree; every method adds a node and gives its output socket."""

    def __init__(self, owner: Any, anchor: Any = None) -> None:
        owner.use_nodes = True
        self.tree = owner.node_tree
        self.tree.nodes.clear()
        self.anchor = anchor

    def node(self, kind: str, *inputs: Any, **settings: Any) -> Any:
        """A node whose inputs, in order, are sockets to link, plain values, or None for the default."""
        node = self.tree.nodes.new(f"ShaderNode{kind}")
        for key, value in settings.items():
            setattr(node, key, value)
        for slot, value in zip(node.inputs, inputs, strict=False):
            self.feed(slot, value)
        return node

    def feed(self, slot: Any, value: Any) -> None:
        if isinstance(value, bpy.types.NodeSocket):
            self.tree.links.new(value, slot)
        elif value is not None:
            slot.default_value = value

    def position(self) -> Socket:
        """Where a shaded point lies: in the world, or in the frame of the anchor that carries it."""
        if self.anchor is None:
            return self.node("NewGeometry").outputs["Position"]
        return self.node("TexCoord", object=self.anchor).outputs["Object"]

    def axis(self, vector: Socket, index: int) -> Socket:
        return self.node("SeparateXYZ", vector).outputs[index]

    def math(self, operation: str, *values: Any) -> Socket:
        return self.node("Math", *values, operation=operation).outputs[0]

    def scaled(self, vector: Socket, scale: Sequence[float]) -> Socket:
        return self.node("VectorMath", vector, scale, operation="MULTIPLY").outputs[0]

    def noise(self, vector: Socket, scale: float, detail: float = 3.0) -> Socket:
        node = self.node("TexNoise", vector)
        node.inputs["Scale"].default_value, node.inputs["Detail"].default_value = scale, detail
        return node.outputs[0]

    def mix(self, amount: Any, a: Any, b: Any, blend: str = "MIX") -> Socket:
        node = self.node("Mix", data_type="RGBA", blend_type=blend)
        for slot, value in zip((0, 6, 7), (amount, a, b), strict=True):
            self.feed(node.inputs[slot], value)
        return node.outputs[2]

    def ramp(self, value: Socket, stops: Bands, smooth: bool = True) -> Socket:
        """A colour ramp over [0, 1]; `smooth` false holds each colour from its stop to the next."""
        node = self.node("ValToRGB", value)
        ramp = node.color_ramp
        ramp.interpolation = "LINEAR" if smooth else "CONSTANT"
        while len(ramp.elements) < len(stops):
            ramp.elements.new(1.0)
        for element, (place, colour) in zip(ramp.elements, stops, strict=True):
            element.position, element.color = place, linear(colour)
        return node.outputs[0]

    def finish(self, shader: Socket, kind: str = "Material") -> None:
        self.node(f"Output{kind}", shader)


@dataclass(frozen=True, kw_only=True)
class Surface:
    """How a painted, woven or wooden surface looks. Lengths in metres, frequencies per metre."""

    colour: str
    second: str | None = None  # the other colour of the grain
    roughness: float = 0.6
    metallic: float = 0.0
    grain: tuple[float, float, float] = (4.0, 4.0, 4.0)  # frequency along each axis
    grain_amount: float = 0.16
    bands: Bands = ()  # (limit, colour): each reaches up to its limit; `colour` lies above the last
    patches: tuple[str, ...] = ()  # colours of fields
    tiles: float | None = None  # courses of tiles
    disc: tuple[float, float, float, str] | None = None  # an upright emblem: x, z, radius, colour
    translucent: float = 0.0  # share of the light that passes through cloth


def _tone(shader: Shader, place: Socket, look: Surface) -> Any:
    """The colour before the grain: plain, in patches, in bands, with an emblem."""
    tone: Any = linear(look.colour)
    if look.patches:
        cell = shader.node("TexVoronoi", shader.scaled(place, (0.38, 0.30, 0.0))).outputs["Color"]
        stops = [(k / len(look.patches), colour) for k, colour in enumerate(look.patches)]
        tone = shader.ramp(shader.axis(cell, 0), stops, smooth=False)
    for limit, colour in reversed(look.bands):
        below = shader.math("LESS_THAN", shader.axis(place, 2), limit)
        tone = shader.mix(below, tone, linear(colour))
    if look.disc is not None:
        x, z, radius, colour = look.disc
        upright = shader.scaled(place, (1.0, 0.0, 1.0))
        centre = shader.node("VectorMath", upright, (x, 0.0, z), operation="DISTANCE").outputs["Value"]
        tone = shader.mix(shader.math("LESS_THAN", centre, radius), tone, linear(colour))
    return tone


def _weathered(shader: Shader, place: Socket, look: Surface, tone: Any) -> Socket:
    """The tone under its grain, and the shadow lines of tiles."""
    texture = shader.noise(shader.scaled(place, look.grain), 1.0)
    if look.second is not None:
        share = shader.ramp(texture, ((0.35, "000000"), (0.65, "ffffff")))
        tone = shader.mix(share, linear(look.second), tone)
    shade = shader.math("MULTIPLY_ADD", texture, 4.0 * look.grain_amount, 1.0 - 2.0 * look.grain_amount)
    tone = shader.mix(1.0, tone, shade, "MULTIPLY")
    if look.tiles is not None:
        course = shader.math("FRACT", shader.math("MULTIPLY", shader.axis(place, 2), look.tiles))
        shadow = shader.math("MULTIPLY", shader.math("LESS_THAN", course, 0.3), 0.3)
        tone = shader.mix(shadow, tone, (0.05, 0.02, 0.02, 1.0))
    return tone


@functools.cache
def _material(name: str, look: Surface, anchor: Any) -> Any:
    material = bpy.data.materials.new(name)
    shader = Shader(material, anchor)
    place = shader.position()
    tone = _weathered(shader, place, look, _tone(shader, place, look))
    principled = shader.node("BsdfPrincipled", tone)
    principled.inputs["Roughness"].default_value = look.roughness
    principled.inputs["Metallic"].default_value = look.metallic
    result = principled.outputs[0]
    if look.translucent:
        behind = shader.node("BsdfTranslucent", tone).outputs[0]
        result = shader.node("MixShader", look.translucent, result, behind).outputs[0]
    shader.finish(result)
    return material


def paint(name: str, colour: str, *, anchor: Any = None, **look: Any) -> Any:
    """The material `name`, a `Surface` of `colour`; `anchor` is the object that carries it, None for the world."""
    return _material(name, Surface(colour=colour, **look), anchor)


@functools.cache
def glow(name: str, colour: str, strength: float) -> Any:
    """A material that shows `strength` times the colour, scene-linear; it lights nothing directly, for the lamps do."""
    material = bpy.data.materials.new(name)
    material.cycles.emission_sampling = "NONE"
    shader = Shader(material)
    shader.finish(shader.node("Emission", linear(colour), strength).outputs[0])
    return material


def sky() -> Any:
    """An evening sky: peach at the horizon, blue above, with clouds that are lit from below."""
    world = bpy.data.worlds.new("evening")
    shader = Shader(world)
    direction = shader.node("TexCoord").outputs["Generated"]
    height = shader.math("MAXIMUM", shader.axis(direction, 2), 0.0)
    air = shader.ramp(height, ((0.0, "ffd9a0"), (0.07, "f9c6a0"), (0.20, "b9cfe0"), (0.42, "6fa9d8"), (1.0, "2f63a8")))
    away = shader.math("ADD", height, 0.16)
    flat = shader.node("VectorMath", direction, away, operation="DIVIDE")
    shader.feed(flat.inputs[1], shader.node("CombineXYZ", away, away, away).outputs[0])
    plane = shader.scaled(flat.outputs[0], (1.0, 1.7, 0.0))
    cover = shader.ramp(shader.noise(plane, 1.15, 5.0), ((0.50, "000000"), (0.66, "ffffff")))
    body = shader.ramp(shader.noise(plane, 2.4, 4.0), ((0.35, "e9a9a0"), (0.55, "ffe6cf"), (0.75, "fffaf0")))
    clouds = shader.mix(cover, air, body)
    shader.finish(shader.node("Background", clouds, 0.85).outputs[0], "World")
    return world
