# SPDX-License-Identifier: GPL-3.0-or-later
"""The operators on presets: looks and models, kept as files and given to others."""
# Annotations are values here: Blender reads properties from them.
from typing import Any

import bpy
from bpy.props import EnumProperty, StringProperty

from fresco_protocol.errors import FrescoError

from . import compat, preferences, presets
from .operators import report, shows_scene
from .presets import Kind
from .properties import choices_of, settings_of, show

KINDS = (
    ("LOOK", "Look", "All that the panel shows"),
    ("MODEL", "Model", "The model and its numbers; prompt and range stay"),
)


class OnPreset:
    """What the operators on presets share."""

    kind: EnumProperty(items=KINDS, options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Grey, and why."""
        return shows_scene(cls, context)


class LoadPreset(OnPreset, bpy.types.Operator):
    """Put this preset on the panel"""

    bl_idname = "fresco.preset_load"
    bl_label = "Load Preset"

    preset: StringProperty(options={"HIDDEN"})

    def execute(self, context: Any) -> set[str]:
        """Shows its choices."""
        settings = settings_of(compat.sequencer_scene(context))
        try:
            found = presets.load(preferences.preset_folder(), Kind[self.kind], self.preset, choices_of(settings))
            show(found, settings)
        except FrescoError as error:
            return report(self, error)
        bpy.ops.ed.undo_push(message="Fresco: Load Preset")
        return {"FINISHED"}


class SavePreset(OnPreset, bpy.types.Operator):
    """Keep what the panel shows as a preset, a file that can be given to others"""

    bl_idname = "fresco.preset_save"
    bl_label = "Save Preset"

    preset: StringProperty(name="Name", description="Letters, digits and spaces")

    def invoke(self, context: Any, _: Any) -> set[str]:
        """Asks for the name."""
        return set(context.window_manager.invoke_props_dialog(self))

    def draw(self, _: Any) -> None:
        """The name alone."""
        self.layout.prop(self, "preset")

    def execute(self, context: Any) -> set[str]:
        """Writes the file."""
        settings = settings_of(compat.sequencer_scene(context))
        try:
            path = presets.save(preferences.preset_folder(), Kind[self.kind], self.preset, choices_of(settings))
        except FrescoError as error:
            return report(self, error)
        self.report({"INFO"}, f"Saved {path}")
        return {"FINISHED"}


class DeletePreset(OnPreset, bpy.types.Operator):
    """Delete this preset's file"""

    bl_idname = "fresco.preset_delete"
    bl_label = "Delete Preset"

    preset: StringProperty(options={"HIDDEN"})

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Asks first."""
        return set(context.window_manager.invoke_confirm(self, event))

    def execute(self, _: Any) -> set[str]:
        """Removes the file."""
        try:
            presets.delete(preferences.preset_folder(), Kind[self.kind], self.preset)
        except FrescoError as error:
            return report(self, error)
        return {"FINISHED"}


class ImportPreset(OnPreset, bpy.types.Operator):
    """Put a preset that somebody gave you on the panel"""

    bl_idname = "fresco.preset_import"
    bl_label = "Open Preset File"

    filepath: StringProperty(subtype="FILE_PATH", options={"SKIP_SAVE"})
    filter_glob: StringProperty(default=";".join(f"*{kind.value}" for kind in Kind), options={"HIDDEN"})

    def invoke(self, context: Any, _: Any) -> set[str]:
        """Asks for the file."""
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: Any) -> set[str]:
        """Shows its choices."""
        settings = settings_of(compat.sequencer_scene(context))
        try:
            show(presets.load_file(self.filepath, choices_of(settings)), settings)
        except FrescoError as error:
            return report(self, error)
        bpy.ops.ed.undo_push(message="Fresco: Open Preset File")
        return {"FINISHED"}


class ChooseModel(bpy.types.Operator):
    """Take this model of the server"""

    bl_idname = "fresco.model_choose"
    bl_label = "Choose Model"

    name: StringProperty(options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Grey, and why."""
        return shows_scene(cls, context)

    def execute(self, context: Any) -> set[str]:
        """Puts its name on the panel."""
        settings_of(compat.sequencer_scene(context)).model = self.name
        bpy.ops.ed.undo_push(message="Fresco: Choose Model")
        return {"FINISHED"}


CLASSES = (LoadPreset, SavePreset, DeletePreset, ImportPreset, ChooseModel)
