# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for Blender's program, which Blender as a module lacks: takes the words of an export, in their order.

Between two frames other threads of Python run, as they do all the time in the program itself.
"""
from __future__ import annotations

import os
import sys
import time

import bpy

PAUSE = 0.1  # seconds


def render_animation(scene: bpy.types.Scene) -> None:
    """As --render-anim."""
    for frame in range(scene.frame_start, scene.frame_end + 1):
        time.sleep(PAUSE)
        scene.frame_start = scene.frame_end = frame
        bpy.ops.render.render(animation=True, scene=scene.name)


def main(words: list[str]) -> None:
    """Does what each word says."""
    scene = bpy.context.scene
    while words:
        word = words.pop(0)
        if word.endswith(".blend"):
            bpy.ops.wm.open_mainfile(filepath=word)
        elif word == "--python-expr":
            exec(words.pop(0), {})
        elif word == "--scene":
            scene = bpy.data.scenes[words.pop(0)]
        elif word == "--render-anim":
            render_animation(scene)
        else:
            assert word in ("--background", "--factory-startup"), word


main(sys.argv[1:])
os._exit(0)
