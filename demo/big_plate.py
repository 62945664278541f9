# SPDX-License-Identifier: GPL-3.0-or-later
"""Render the demo shot: the plate as scene-linear EXR and the matte of the boat as PNG.

Run it in an environment of its own, for Blender's Python module is GPL and wants an older NumPy:

    python3.11 -m venv blender && blender/bin/pip install bpy==5.0.1 "OpenImageIO<3.1" "numpy<2"
    blender/bin/python demo/make_plate.py

Frames that exist are kept, so that a stopped run goes on. `--samples 8 --frames 1001 -o DIR` gives a quick look.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import OpenImageIO as oiio  # noqa: N813, the name in its own manual
from harbour.scene import build

FIRST, COUNT, RATE = 1001, 24, 24
WIDTH, HEIGHT = 2048, 1280


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one run renders, where to, and how finely."""

    output: Path
    frames: Sequence[int]
    samples: int

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples: {self.samples} given, 1 or more is needed")


def _engine() -> None:
    """Cycles on one CPU thread: the machine stays usable, and the bits do not depend on the core count."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    scene.render.use_persistent_data = True
    scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = WIDTH, HEIGHT, 100
    scene.render.image_settings.file_format = "OPEN_EXR"
    scene.render.image_settings.color_mode, scene.render.image_settings.color_depth = "RGBA", "32"
    cycles = scene.cycles
    cycles.use_adaptive_sampling = False
    cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces = 3, 2, 2
    cycles.transmission_bounces = 2
    cycles.caustics_reflective = cycles.caustics_refractive = False
    cycles.sample_clamp_indirect = 4.0
    cycles.denoiser, cycles.denoising_input_passes = "OPENIMAGEDENOISE", "RGB_ALBEDO_NORMAL"


def _pixels() -> np.ndarray:
    """Render the scene as it stands; gives (height, width, 4) float32, premultiplied, scene-linear."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "render.exr")
        bpy.context.scene.render.filepath = str(path)
        bpy.ops.render.render(write_still=True)
        return np.asarray(oiio.ImageBuf(str(path)).get_pixels(oiio.FLOAT))


def render_plate(frame: int, samples: int) -> np.ndarray:
    scene = bpy.context.scene
    scene.render.film_transparent = False
    scene.cycles.samples, scene.cycles.use_denoising, scene.cycles.seed = samples, True, frame
    return _pixels()


def render_matte(subject: Sequence[Any]) -> np.ndarray:
    """The subject's coverage: everything else is held out, so that what passes in front cuts the matte."""
    scene, ours = bpy.context.scene, set(subject)
    others = [thing for thing in scene.objects if thing.type == "MESH" and thing not in ours]
    for thing in others:
        thing.is_holdout = True
    scene.render.film_transparent = True
    scene.cycles.samples, scene.cycles.use_denoising, scene.cycles.seed = 32, False, 0
    bounces, scene.cycles.max_bounces = scene.cycles.max_bounces, 0
    alpha = _pixels()[..., 3:]
    scene.cycles.max_bounces = bounces
    for thing in others:
        thing.is_holdout = False
    return alpha


def write_plate(path: Path, pixels: np.ndarray) -> None:
    if not np.isfinite(pixels).all():
        raise ValueError(f"{path.name}: the render has pixels that are not finite")
    spec = oiio.ImageSpec(pixels.shape[1], pixels.shape[0], 4, oiio.HALF)
    spec.attribute("compression", "dwaa:150")
    spec.attribute("FramesPerSecond", oiio.TypeDesc("rational"), (RATE, 1))
    spec.attribute("oiio:ColorSpace", "lin_rec709_scene")
    spec.attribute("Copyright", "CC0-1.0")
    _write(path, spec, pixels)


def write_matte(path: Path, alpha: np.ndarray) -> None:
    spec = oiio.ImageSpec(alpha.shape[1], alpha.shape[0], 1, oiio.UINT8)
    _write(path, spec, np.clip(alpha, 0.0, 1.0))


def _write(path: Path, spec: Any, pixels: np.ndarray) -> None:
    """Write beside the target and rename, so that a stopped run leaves only whole frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part{path.suffix}")
    image = oiio.ImageBuf(spec)
    image.set_pixels(image.roi, np.ascontiguousarray(pixels, dtype=np.float32))
    if not image.write(str(part)):
        raise OSError(f"{path}: {image.geterror()}")
    part.replace(path)


def make(job: Job) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    _engine()
    shot = build()
    for frame in job.frames:
        plate, matte = job.output / f"plate/boat.{frame}.exr", job.output / f"matte/boat.{frame}.png"
        if plate.exists() and matte.exists():
            continue
        shot.pose((frame - FIRST) / RATE)
        write_plate(plate, render_plate(frame, job.samples))
        write_matte(matte, render_matte(shot.boat.parts))


def _arguments() -> Job:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent)
    parser.add_argument("--frames", type=int, nargs="+", default=range(FIRST, FIRST + COUNT))
    parser.add_argument("--samples", type=int, default=32)
    given = parser.parse_args()
    return Job(output=given.output, frames=given.frames, samples=given.samples)


if __name__ == "__main__":
    make(_arguments())
    sys.stdout.flush()
    os._exit(0)  # the module's teardown crashes at a normal exit
