# SPDX-License-Identifier: GPL-3.0-or-later
"""What the panel shows and the .blend keeps: the choices of a scene. The queue has its own place, see `jobs`."""
# Annotations are values here: Blender reads properties from them.
from dataclasses import fields
from typing import Any, Optional

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

from fresco_protocol.shot import Task

from .choices import Choices, Controls, FileFormat, Keyframes, Steadiness
from .jobs import queue
from .timeline import Extent, MatteSource

TASKS = (
    ("TRANSLATE", "Translate", "The whole picture takes on the look"),
    ("EDIT", "Edit", "The prompt changes what it names and leaves the rest"),
)
CONTROLS = (
    ("MODEL", "Model's Own", "What the model recommends"),
    ("SOFT_EDGE", "Soft Edge", "Soft outlines of the plate hold the structure"),
    ("CANNY", "Canny", "Thin edges of the plate hold the structure"),
    ("NONE", "None", "Nothing holds the structure but the strength"),
)
KEYFRAMES = (
    ("AUTO", "Automatic", "Where the motion asks for them"),
    ("INTERVAL", "Interval", "One every so many frames"),
    ("MARKERS", "Markers", "Your own: timeline markers whose names begin with fresco"),
)
STEADINESS = (
    ("FULL", "Full", "Everything that keeps the look steady"),
    ("QUICK", "Quick", "Without the optimisation of features: faster, less steady"),
    ("NONE", "Frame by Frame", "Each frame by itself: it flickers"),
    ("CUSTOM", "Custom", "Each part by hand"),
)
EXTENTS = (
    ("STRIP", "Strip", "The whole of each selected strip"),
    ("IN_OUT", "In to Out", "What lies in the preview range, or in the scene's frame range"),
)
MATTES = (
    ("NONE", "None", "The look covers the picture"),
    ("MASK", "Mask", "The look stays inside a mask"),
    ("STRIP", "Strip", "The brightness of a mask strip or an image strip tells where the look goes"),
)
FORMATS = (
    ("EXR", "OpenEXR", "Half float, scene-linear: highlights over white survive"),
    ("PNG", "PNG", "16 bits, sRGB"),
)
MODELS_OWN = ("strength", "guidance", "working_size")  # None where `own_...` is off
ENUMS = {"task": Task, "controls": Controls, "keyframes": Keyframes, "steadiness": Steadiness,
         "file_format": FileFormat}


def _models(_: Any, __: Any, typed: str) -> list[str]:
    """What the field offers while somebody types; another name may be typed."""
    known = queue.models.models if queue.models is not None else ("embedded",)
    return [name for name in known if typed.lower() in name.lower()]


class FrescoSettings(bpy.types.PropertyGroup):
    """The choices of a scene."""

    prompt: StringProperty(
        name="Prompt", description="What the result shall look like, such as: a watercolour painting",
        options={"TEXTEDIT_UPDATE"})
    negative_prompt: StringProperty(name="Negative", description="What the result shall not look like")
    model: StringProperty(
        name="Model", default="embedded", search=_models,
        description='"embedded", a diffusers folder, a .safetensors file or the name of a model of the server')
    task: EnumProperty(name="Task", items=TASKS, description="What becomes of the plate")
    caption: StringProperty(name="Caption", description="For an edit: what the plate shows, such as: a man on a boat")
    own_strength: BoolProperty(name="Set Strength", description="Otherwise the model's own strength")
    strength: FloatProperty(
        name="Strength", default=0.6, min=0, max=1, subtype="FACTOR",
        description="0 keeps the plate, 1 leaves a trace of it")
    own_guidance: BoolProperty(name="Set Guidance", description="Otherwise the model's own guidance")
    guidance: FloatProperty(name="Guidance", default=3, min=0, max=100, soft_max=15,
                            description="How strongly the prompt pulls")
    steps: IntProperty(name="Steps", default=20, min=1, max=1000, soft_max=50,
                       description="Denoising steps: more are finer and slower")
    seed: IntProperty(name="Seed", default=0, min=0, description="Another seed, another picture of the same look")
    controls: EnumProperty(name="Control", items=CONTROLS, description="What holds the structure of the plate")
    control_strength: FloatProperty(name="Control Strength", default=1, min=0, max=2, subtype="FACTOR",
                                    description="How firmly the structure is held")
    keyframes: EnumProperty(name="Keyframes", items=KEYFRAMES,
                            description="Frames that are denoised; those between are made from them")
    interval: IntProperty(name="Interval", default=8, min=1, max=1000,
                          description="Frames from one keyframe to the next")
    window: IntProperty(name="Window", default=8, min=3, max=64,
                        description="Keyframes denoised together: more are steadier and take more memory")
    steadiness: EnumProperty(name="Coherence", items=STEADINESS, description="What keeps the look steady")
    cross_frame: BoolProperty(name="Cross-Frame Attention", default=True,
                              description="The keyframes of a window see one another")
    spatial: BoolProperty(name="Spatial Guidance", default=True,
                          description="What is alike in the plate stays alike")
    temporal: BoolProperty(name="Temporal Guidance", default=True, description="Attention follows the motion")
    optimisation: BoolProperty(name="Feature Optimisation", default=True,
                               description="Features are optimised for steadiness; takes most of the time")
    background: BoolProperty(name="Background Smoothing", default=True,
                             description="The background is carried along; acts with a matte only")
    extent: EnumProperty(name="Range", items=EXTENTS, description="Which part of a strip is stylised")
    handles: IntProperty(name="Handles", default=0, min=0, max=1000, soft_max=48,
                         description="Extra frames at head and tail, hidden by the trims of the result")
    matte: EnumProperty(name="Matte", items=MATTES, description="Where the look applies")
    matte_mask: PointerProperty(name="Mask", type=bpy.types.Mask, description="White takes the look")
    matte_strip: StringProperty(name="Matte Strip", description="Its brightness tells where the look goes")
    matte_invert: BoolProperty(name="Invert", description="The look goes where the matte is black")
    matte_grow: IntProperty(name="Grow", min=-1000, max=1000, soft_min=-50, soft_max=50, subtype="PIXEL",
                            description="The matte is widened; below 0 it is narrowed")
    matte_feather: FloatProperty(name="Feather", min=0, max=1000, soft_max=50, subtype="PIXEL",
                                 description="The edge of the matte is softened over so many pixels")
    matte_propagate: BoolProperty(
        name="From the Playhead",
        description="Paint the matte on one frame: only the playhead's is taken, and the plate's motion carries it on")
    file_format: EnumProperty(name="Format", items=FORMATS, description="What the result is written as")
    folder: StringProperty(
        name="Folder", subtype="DIR_PATH", default="//fresco",
        description="Where plates and results go. A .blend that was never saved has no folder: "
                    "then they go to the user folder of the add-on")
    own_working_size: BoolProperty(name="Set Working Size", description="Otherwise the model's own size")
    working_size: IntProperty(name="Working Size", default=512, min=64, max=8192, subtype="PIXEL",
                              description="Short side of the picture at which the model works")


def settings_of(scene: Any) -> Any:
    """The choices of a scene."""
    return scene.fresco


def choices_of(settings: Any) -> Choices:
    """What the panel shows, as one document."""
    return Choices(**{field.name: _read(settings, field.name) for field in fields(Choices)})


def _read(settings: Any, name: str) -> Any:
    value = getattr(settings, name)
    if name in MODELS_OWN and not getattr(settings, f"own_{name}"):
        return None
    if isinstance(value, float):
        return round(value, 4)  # Blender keeps 32 bits: 0.6 would be 0.6000000238
    if name not in ENUMS:
        return value
    return next(member for member in ENUMS[name] if member.name == value)


def show(choices: Choices, settings: Any) -> None:
    """Puts choices on the panel."""
    for field in fields(Choices):
        value = getattr(choices, field.name)
        if field.name in MODELS_OWN:
            setattr(settings, f"own_{field.name}", value is not None)
        if value is not None:
            setattr(settings, field.name, value.name if field.name in ENUMS else value)


def matte_of(settings: Any) -> Optional[MatteSource]:
    """The matte that the panel shows; None when there is none, or none is chosen yet."""
    frame = settings.id_data.frame_current if settings.matte_propagate else None
    if settings.matte == "MASK" and settings.matte_mask is not None:
        return MatteSource(mask=settings.matte_mask.name, frame=frame)
    if settings.matte == "STRIP" and settings.matte_strip:
        return MatteSource(strip=settings.matte_strip, frame=frame)
    return None


def lacks_matte(settings: Any) -> bool:
    """Whether a matte is wanted and none is chosen."""
    return settings.matte != "NONE" and matte_of(settings) is None


def extent_of(settings: Any) -> Extent:
    """The part of a strip that the panel asks for."""
    return Extent[settings.extent]


CLASSES = (FrescoSettings,)


def register() -> None:
    """Gives every scene its choices."""
    for kind in CLASSES:
        bpy.utils.register_class(kind)
    bpy.types.Scene.fresco = PointerProperty(type=FrescoSettings)


def unregister() -> None:
    """Takes them away; what the .blend keeps of them stays."""
    del bpy.types.Scene.fresco
    for kind in reversed(CLASSES):
        bpy.utils.unregister_class(kind)
