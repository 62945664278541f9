# SPDX-License-Identifier: GPL-3.0-or-later
"""Scenarios of the panel: what its choices become, presets, models, words."""
from __future__ import annotations

import json
import types
from pathlib import Path

import bpy
from blender.stage import Stage, refused, take_time


def edits(stage: Stage) -> None:
    """An edit carries what the plate shows; the prompt is trimmed, numbers are the ones that were typed."""
    strip = stage.sequence("png")
    stage.select(strip)
    settings = stage.settings
    settings.task, settings.caption, settings.prompt = "EDIT", "a man on a boat", "  a robot on a boat "
    settings.strength, settings.controls, settings.control_strength = 0.6, "SOFT_EDGE", 0.8
    settings.keyframes, settings.interval, settings.steadiness, settings.optimisation = "INTERVAL", 6, "CUSTOM", False
    settings.file_format = "PNG"
    clip, = stage.module("timeline").collect(bpy.context, stage.module("timeline").Extent.STRIP, handles=0, matte=None)
    row = stage.queue.add(clip, stage.module("properties").choices_of(settings), str(stage.work / "shots"))
    shot = row.shot
    assert (shot.task.value, shot.editing.caption, shot.look.prompt) == ("edit", "a man on a boat", "a robot on a boat")
    assert shot.look.strength == 0.6 and shot.look.controls[0].strength == 0.8
    assert (shot.keyframing.minimum_gap, shot.keyframing.maximum_gap) == (6, 6)
    assert shot.coherence.optimisation is None and shot.coherence.temporal is not None
    assert shot.delivery.sequence.endswith(".####.png") and shot.delivery.color_space == "srgb"
    stage.queue.cancel(row)
    assert row.state == "stopped" and row.is_ended
    stage.module("compat").trim(strip, 0, 20)
    take_time(stage, steps=2)
    settings.file_format = "EXR"
    row, = stage.stylise()
    assert row.state == "delivered", row.problem
    record = json.loads(next(Path(row.folder).glob("*.fresco.json")).read_text())
    assert record["shot"]["task"] == "edit" and record["shot"]["editing"]["caption"] == "a man on a boat", record
    plain, edited = stage.seen(1, 1, muted=(stage.result(row),))[0], stage.seen(1, 1, muted=(strip,))[0]
    assert plain.shape == edited.shape and 0.001 < abs(plain - edited).mean() < 0.3


def two_strips_that_add_up(stage: Stage) -> None:
    """A light leak and its result would both be added: the row says so, and a strip that covers has nothing to say."""
    for blend, told in (("ADD", "blends by Add too: mute that one"), ("ALPHA_OVER", None)):
        strip = stage.sequence("png", trim=(0, 22))
        strip.blend_type = blend
        stage.select(strip)
        row, = stage.stylise()
        assert stage.result(row).blend_type == blend
        assert row.warning is None if told is None else told in row.warning, row.warning


def models_and_presets(stage: Stage) -> None:
    """The models of the server are offered; a model with its numbers is a preset of its own, beside the looks."""
    settings = stage.settings
    bpy.ops.fresco.models_refresh()
    assert "embedded" in stage.queue.models.models
    assert stage.module("properties")._models(None, None, "EMB") == ["embedded"]
    bpy.ops.fresco.model_choose(name="embedded")
    settings.steps, settings.own_guidance, settings.guidance, settings.controls = 7, True, 4.5, "CANNY"
    bpy.ops.fresco.preset_save(preset="Fast", kind="MODEL")
    file = Path(stage.module("preferences").preset_folder()) / "Fast.fresco-model.json"
    kept = json.loads(file.read_text())
    assert (kept["model"], kept["steps"], kept["guidance"]) == ("embedded", 7, 4.5) and "prompt" not in kept
    settings.prompt, settings.steps, settings.model = "a mosaic", 30, "other"
    bpy.ops.fresco.preset_load(preset="Fast", kind="MODEL")
    assert (settings.prompt, settings.steps, settings.model, settings.controls) == ("a mosaic", 7, "embedded", "CANNY")
    bpy.ops.fresco.preset_load(preset="Comes with Fresco", kind="MODEL")
    assert settings.steps == 20 and not settings.own_guidance and settings.prompt == "a mosaic"
    given = stage.work / "given.fresco-model.json"
    given.write_text(json.dumps({**kept, "prompt": "smuggled"}))
    refused(lambda: bpy.ops.fresco.preset_import(filepath=str(given)), "a preset of a model does not keep prompt")
    bpy.ops.fresco.preset_delete(preset="Fast", kind="MODEL")
    refused(lambda: bpy.ops.fresco.preset_load(preset="Fast", kind="MODEL"), "the preset cannot be read")


def progress_says_what_it_counts(stage: Stage) -> None:
    """Steps of denoising are no keyframes: a shot of nine keyframes counts 180 of them."""
    panels, jobs = stage.module("panels"), stage.module("jobs")
    advanced, work = jobs.Advanced, stage.module("fresco_protocol.job").Stage

    def told(what: str, done: int, total: int, left: float | None) -> str:
        event = advanced(number=1, time=0.0, job="0123456789", stage=work(what), done=done, total=total,
                         seconds_left=left)
        return str(panels._phase(types.SimpleNamespace(step=None, state="running", stage=event)))

    assert told("keyframes", 3, 180, 95.0) == "Denoising, step 3 of 180, 2 min left"
    assert told("invert", 1, 20, None) == "Inversion, step 1 of 20"
    assert told("deliver", 2, 24, 4.0) == "Writing, frame 2 of 24, 4 s left"


def every_operator_is_whole(stage: Stage) -> None:
    """Each says why it is grey, can be called from a script, and has a tooltip; no translation is left over."""
    rooms = ("operators", "queue_operators", "server_operators", "preset_operators")
    kinds = [kind for room in rooms for kind in stage.module(room).CLASSES]
    assert len(kinds) > 20
    for kind in kinds:
        assert callable(kind.execute) and kind.__doc__ and kind.bl_label, kind
        assert kind.bl_idname == "fresco.tell" or hasattr(kind, "poll"), kind  # that one tells, unasked
        assert not kind.__doc__.rstrip().endswith("."), f"{kind}: Blender puts a full stop itself"
    sources = "".join(path.read_text() for path in Path(str(stage.module("panels").__file__)).parent.glob("*.py")
                      if path.name != "translations.py")
    table = stage.module("translations").GERMAN
    assert not [text for text in table if f'"{text}"' not in sources], "texts that nobody shows any more"
