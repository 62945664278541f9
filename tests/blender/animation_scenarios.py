# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenarios of keyframes: what a user animated stays, and a fade acts on the result as on its source."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
from blender.stage import Stage, read_picture

FADE = ((1, 0.0), (13, 1.0))  # frame, opacity


def fade_taken_along(stage: Stage) -> None:
    """A result fades in as its source does, wherever the playhead stood, and so does a new version."""
    strip = stage.sequence("png", at=1)
    _fade(strip)
    stage.scene.frame_set(1)
    for flipped in (False, True):  # sent, and exported
        strip.use_flip_x = flipped
        stage.select(strip)
        row, = stage.stylise()
        result = stage.result(row)
        assert _opacities(stage, result) == _opacities(stage, strip) != [1.0] * 4
        stage.check_result(row, strip, moves=False)  # near black at first
        stage.scene.frame_set(1)
        again = stage.queue.add_version(row, row.choices)
        assert _opacities(stage, stage.result(again)) == _opacities(stage, strip)
        stage.queue.cancel(again)
        for each in (row, again):
            stage.module("results").remove(each.key)
    plates = [read_picture(Path(row.shot_folder) / "plate" / f"plate.{number}.exr") for number in (1001, 1005)]
    assert all(plate.max() > 0.5 for plate in plates), "the plate itself does not fade"


def driven_opacity(stage: Stage) -> None:
    """The driver of an opacity is one of the result's too, and the curve of a driver is no fade."""
    strip = stage.sequence("png", at=1, trim=(0, 22))
    curve = strip.driver_add("blend_alpha")
    for modifier in list(curve.modifiers):
        curve.modifiers.remove(modifier)
    curve.keyframe_points.add(2)  # as the interface makes a driver
    curve.keyframe_points[0].co, curve.keyframe_points[1].co = (0, 0), (1, 1)
    curve.driver.expression = "0.5"
    stage.select(strip)
    row, = stage.stylise()
    assert _opacities(stage, stage.result(row)) == _opacities(stage, strip)
    assert len(stage.scene.animation_data.drivers) == 2 and stage.scene.animation_data.action is None
    stage.module("results").remove(row.key)
    assert [driver.data_path for driver in stage.scene.animation_data.drivers] == [strip.path_from_id("blend_alpha")]


def animation_of_others_stays(stage: Stage) -> None:
    """An export renders a copy of the scene without the other strips; their keyframes are the user's and stay."""
    strip, other = stage.sequence("png", at=1), stage.sequence("exr", at=1, channel=4)
    _fade(strip)
    _fade(other)
    driver = other.driver_add("color_saturation").driver
    driver.expression = "0.5"
    strip.use_flip_x = True
    stage.select(strip)
    before, actions = _opacities(stage, other), len(bpy.data.actions)
    stage.stylise()
    assert _opacities(stage, other) == before == _opacities(stage, strip) != [1.0] * 4
    assert [found.data_path.split(".")[-1] for found in stage.scene.animation_data.drivers] == ["color_saturation"]
    assert len(bpy.data.actions) == actions


def a_track_that_is_tweaked(stage: Stage) -> None:
    """A user works inside a strip of the nonlinear animation: an export goes on beside it, and leaves nothing."""
    strip = stage.sequence("png", at=1, trim=(0, 20))
    strip.use_flip_x = True
    _fade(strip)
    animation = stage.scene.animation_data
    action = animation.action
    animation.nla_tracks.new().strips.new("fades", 1, action)
    animation.use_tweak_mode = True
    stage.select(strip)
    row, = stage.stylise()
    assert row.state == "delivered", row.problem
    assert animation.use_tweak_mode and animation.action == action and list(bpy.data.actions) == [action]


def _fade(strip: Any) -> None:
    for frame, opacity in FADE:
        strip.blend_alpha = opacity
        strip.keyframe_insert("blend_alpha", frame=frame)


def _opacities(stage: Stage, strip: Any) -> list[float]:
    found = []
    for frame in (1, 4, 9, 20):
        stage.scene.frame_set(frame)
        found.append(round(float(strip.blend_alpha), 4))
    return found
