# SPDX-License-Identifier: GPL-3.0-or-later
"""Keyframes and drivers of strips. They lie in the scene, by the strip's name: a copy of a scene shares its action.

Opacity is the composite's affair, as fades are: an export goes without it, and a result takes it along.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Optional

import bpy

OPACITY = ".blend_alpha"
HANDLED = ("interpolation", "easing", "handle_left_type", "handle_right_type", "handle_left", "handle_right")


def is_animated(scene: Any, strip: Any) -> bool:
    """Whether keyframes or drivers change a strip's pictures, its opacity left out."""
    return any(not curve.data_path.endswith((OPACITY, ".volume")) for _, curve in _curves_of(scene, strip))


def _curves_of(scene: Any, strip: Any) -> list[tuple[Any, Any]]:
    """The curves and drivers that belong to a strip, each with the collection that it can be removed from."""
    owner = f'["{bpy.utils.escape_identifier(strip.name)}"]'
    return [(home, curve) for home in _homes(scene.animation_data) for curve in home if owner in curve.data_path]


def _homes(animation: Optional[Any]) -> Iterator[Any]:
    """The collections of curves of a scene: its drivers, and its own of an action, in layers (4.4 and later) or not."""
    if animation is None:
        return
    yield animation.drivers
    if animation.action is None:
        return
    layers = getattr(animation.action, "layers", ())
    if not layers:
        yield getattr(animation.action, "fcurves", ())
    for layer in layers:
        for part in layer.strips:
            yield from (bag.fcurves for bag in part.channelbags if bag.slot_handle == animation.action_slot_handle)


def own_action(scene: Any) -> Optional[Any]:
    """Gives the copy of a scene an action of its own, to be removed after it; None where it has none.

    Who removes a strip removes its curves: in an action that is shared, those of the user's own strip.
    """
    animation = scene.animation_data
    if animation is not None and animation.use_tweak_mode:
        animation.use_tweak_mode = False  # in it no action can be chosen
    if animation is None or animation.action is None:
        return None
    slot = getattr(animation, "action_slot", None)  # 4.4 and later
    animation.action = animation.action.copy()
    if slot is not None:
        animation.action_slot = next(own for own in animation.action.slots if own.identifier == slot.identifier)
    return animation.action


def drop_opacity(scene: Any, strip: Any) -> None:
    """Leaves a strip as opaque as it is now; the scene has an action of its own."""
    for home, curve in _curves_of(scene, strip):
        if curve.data_path.endswith(OPACITY):
            home.remove(curve)


def drop_drivers(scene: Any, strip: Any) -> None:
    """Blender removes keyframes with their strip, and drivers not."""
    for home, curve in _curves_of(scene, strip):
        if home == scene.animation_data.drivers:
            home.remove(curve)


def copy_opacity(scene: Any, source: Any, strip: Any) -> None:
    """The opacity of a strip for another one of the same scene: as it is now, its fades and its driver."""
    for home, curve in _curves_of(scene, source):
        if home == scene.animation_data.drivers and curve.data_path.endswith(OPACITY):
            home.from_existing(src_driver=curve).data_path = strip.path_from_id("blend_alpha")
    now, fade = source.blend_alpha, _fade(scene, source)
    for point in fade.keyframe_points if fade is not None else ():
        strip.blend_alpha = point.co[1]
        strip.keyframe_insert("blend_alpha", frame=point.co[0])
    strip.blend_alpha = now
    made = _fade(scene, strip)
    if fade is None or made is None:
        return
    for point, new in zip(fade.keyframe_points, made.keyframe_points):
        for name in HANDLED:
            setattr(new, name, getattr(point, name))
    made.extrapolation = fade.extrapolation


def _fade(scene: Any, strip: Any) -> Optional[Any]:
    """The keyframes of a strip's opacity."""
    return next((curve for home, curve in _curves_of(scene, strip) if home != scene.animation_data.drivers
                 and curve.data_path.endswith(OPACITY) and len(curve.keyframe_points)), None)
