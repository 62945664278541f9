# SPDX-License-Identifier: Apache-2.0
"""A plan as a job bundle of Open Job Description: a folder that any engine of the standard runs.

    shot.json  pins.json  template.json  parameter_values.json  asset_references.json

Source: Open Job Description, Template Schemas 2023-09 with the extension TASK_CHUNKING (RFC 0001); the two files beside
the template are those of AWS Deadline Cloud's job bundles.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fresco_backend.farm.environment import environment, submission
from fresco_backend.farm.plan import PINS_FILE, SHOT_FILE, FarmPlan
from fresco_backend.files.deliveries import make_writable, refused
from fresco_backend.files.sequences import frames_text
from fresco_backend.render.farm_stage import FarmStage
from fresco_backend.render.scratch import write_atomically

TEMPLATE, VALUES, ASSETS = "template.json", "parameter_values.json", "asset_references.json"
NOTICE = 15  # seconds from SIGTERM to SIGKILL; Fresco needs ten at most
_STEPS = {FarmStage.KEYFRAMES: "Keyframes", FarmStage.IN_BETWEENS: "InBetweens", FarmStage.VERIFY: "Verify"}
_FRAMES = "--frames={{Param.Frames}}"  # those that a submitter chose

Document = dict[str, Any]


def write_bundle(plan: FarmPlan, folder: Path) -> Path:
    """Write the bundle of a plan into a folder, and give the folder. Raises OutputError."""
    make_writable(folder)
    files = {TEMPLATE: template(plan), VALUES: parameter_values(plan), ASSETS: asset_references(plan, folder)}
    try:
        _write(folder / SHOT_FILE, plan.shot.to_json() + "\n")
        plan.pins.write(folder / PINS_FILE)
        for name, document in files.items():
            _write(folder / name, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise refused(folder, error) from error
    return folder


def template(plan: FarmPlan) -> Document:
    """The job template. Its defaults are the plan's; a submitter's dialogue may change frames, chunk and command."""
    return {
        "specificationVersion": "jobtemplate-2023-09",
        "extensions": ["TASK_CHUNKING"],
        "name": plan.name,
        "description": f"{len(plan.frames)} frames, {plan.windows} windows of keyframes, by Fresco.",
        "parameterDefinitions": [
            {"name": "Shot", "type": "PATH", "objectType": "FILE", "dataFlow": "IN", "default": SHOT_FILE},
            {"name": "Pins", "type": "PATH", "objectType": "FILE", "dataFlow": "IN", "default": PINS_FILE},
            {"name": "Frames", "type": "STRING", "default": openjd_frames(plan), "description": "frames to deliver"},
            {"name": "ChunkSize", "type": "INT", "minValue": 1, "default": plan.site.chunk,
             "description": "frames of one task between the keyframes"},
        ],
        **({"jobEnvironments": [environment(plan)]} if plan.site.server else {}),
        "steps": [_keyframes(plan), _in_betweens(plan), _verify(plan)],
    }


def parameter_values(plan: FarmPlan) -> Document:
    """The values with which the job is submitted."""
    values = {"Shot": SHOT_FILE, "Pins": PINS_FILE, "Frames": openjd_frames(plan), "ChunkSize": plan.site.chunk}
    return {"parameterValues": [{"name": name, "value": value} for name, value in values.items()]}


def asset_references(plan: FarmPlan, folder: Path) -> Document:
    """Where the job reads and writes. A folder that does not exist yet is made by the job."""
    return {"assetReferences": {
        "inputs": {"filenames": [str(folder / SHOT_FILE), str(folder / PINS_FILE)],
                   "directories": [str(path) for path in plan.inputs]},
        "outputs": {"directories": [str(plan.output)]},
        "referencedPaths": [],
    }}


def openjd_frames(plan: FarmPlan) -> str:
    """The frames of the plan as the standard writes them: a colon before the step."""
    return frames_text(plan.frames).replace("x", ":")


def _keyframes(plan: FarmPlan) -> Document:
    step = _step(plan, FarmStage.KEYFRAMES, _FRAMES)
    if plan.site.server:
        step["script"]["actions"]["onRun"] |= submission(plan)
    if plan.site.device:
        amounts = [{"name": "amount.worker.gpu", "min": 1}, {"name": "amount.worker.gpu.memory", "min": plan.memory}]
        step["hostRequirements"] = {"amounts": amounts}
    return step


def _in_betweens(plan: FarmPlan) -> Document:
    step = _step(plan, FarmStage.IN_BETWEENS, "--frames={{Task.Param.Frame}}")
    whole = range(plan.frames[0], plan.frames[-1] + 1)
    # Contiguous chunks of frames with a step would hold one frame each.
    constraint = "CONTIGUOUS" if plan.frames == tuple(whole) else "NONCONTIGUOUS"
    chunks = {"defaultTaskCount": "{{Param.ChunkSize}}", "rangeConstraint": constraint}
    step["parameterSpace"] = {"taskParameterDefinitions": [
        {"name": "Frame", "type": "CHUNK[INT]", "range": "{{Param.Frames}}", "chunks": chunks}]}
    step["dependencies"] = [{"dependsOn": _STEPS[FarmStage.KEYFRAMES]}]
    return step


def _verify(plan: FarmPlan) -> Document:
    return {**_step(plan, FarmStage.VERIFY, _FRAMES), "dependencies": [{"dependsOn": _STEPS[FarmStage.IN_BETWEENS]}]}


def _step(plan: FarmPlan, stage: FarmStage, *options: str) -> Document:
    program, *words = plan.site.command
    action: Mapping[str, Any] = {
        "command": program,
        "args": [*words, "render", "{{Param.Shot}}", f"--stage={stage.value}", "--pins={{Param.Pins}}", *options,
                 "--path-mapping={{Session.PathMappingRulesFile}}", "--progress=openjd"],
        "cancelation": {"mode": "NOTIFY_THEN_TERMINATE", "notifyPeriodInSeconds": NOTICE},
    }
    return {"name": _STEPS[stage], "script": {"actions": {"onRun": action}}}


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "surrogateescape")))
