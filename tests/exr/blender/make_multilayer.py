# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders multilayer.exr, in an environment with bpy 4.2: `python make_multilayer.py multilayer.exr`."""

import os
import sys
from pathlib import Path

import bpy

bpy.ops.wm.read_factory_settings(use_empty=False)
scene = bpy.context.scene
scene.render.engine = "CYCLES"
scene.render.threads_mode, scene.render.threads = "FIXED", 1
scene.cycles.samples, scene.cycles.use_denoising = 8, False
scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = 48, 32, 100
bpy.data.objects["Cube"].name = "hero"
bpy.ops.mesh.primitive_plane_add(size=20, location=(0, 0, -1))
bpy.context.object.name = "floor"
layer = scene.view_layers[0]
layer.use_pass_z = layer.use_pass_object_index = layer.use_pass_vector = layer.use_pass_cryptomatte_object = True
layer.pass_cryptomatte_depth = 4
settings = scene.render.image_settings
settings.file_format, settings.color_depth, settings.exr_codec = "OPEN_EXR_MULTILAYER", "32", "ZIP"
scene.render.filepath = str(Path(sys.argv[-1]).resolve())
scene.frame_set(1001)
bpy.ops.render.render(write_still=True)
sys.stdout.flush()
os._exit(0)  # the module's teardown crashes at a normal exit
