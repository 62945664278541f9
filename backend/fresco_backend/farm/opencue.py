# SPDX-License-Identifier: Apache-2.0
"""A plan as an OpenCue job: the XML specification that Cuebot takes, three layers, each after the one before it.

RQD kills with SIGKILL and sets no CUDA_VISIBLE_DEVICES: the layer of the keyframes passes its GPUs on. Source: OpenCue,
cuebot's cjsl-1.15.dtd, and pyoutline's serialiser of it.
"""

from __future__ import annotations

import getpass
import os
import shlex
from pathlib import Path
from xml.etree import ElementTree

from fresco_backend.farm.plan import FarmPlan
from fresco_backend.files.sequences import frames_text
from fresco_backend.render.farm_stage import FarmStage

_TYPE = '<?xml version="1.0"?>\n<!DOCTYPE spec PUBLIC "SPI Cue Specification Language" ' \
        '"http://localhost:8080/spcue/dtd/cjsl-1.15.dtd">\n'
_MEMORY = 4096  # MiB of a task between keyframes, which loads no model
_GPU = 'CUDA_VISIBLE_DEVICES="$CUE_GPU_CORES" '


def specification(plan: FarmPlan, folder: Path, *, show: str, shot: str) -> str:
    """The job of the plan whose bundle lies in `folder`; show, shot: OpenCue's own, under which it is filed."""
    spec = ElementTree.Element("spec")
    for tag, text in (("facility", "local"), ("show", show), ("shot", shot), ("user", getpass.getuser()),
                      ("uid", str(os.getuid() if hasattr(os, "getuid") else 1000))):
        ElementTree.SubElement(spec, tag).text = text
    job = ElementTree.SubElement(spec, "job", name=plan.name)
    for tag, text in (("paused", "false"), ("maxretries", "2"), ("autoeat", "false")):
        ElementTree.SubElement(job, tag).text = text
    layers = ElementTree.SubElement(job, "layers")
    keyframes, verify = (shlex.join(plan.words(stage, folder)) for stage in (FarmStage.KEYFRAMES, FarmStage.VERIFY))
    chunks = shlex.join(plan.words(FarmStage.IN_BETWEENS, folder)) + " --frames=#FRAMESPEC#"
    _layer(layers, "keyframes", _GPU + keyframes if plan.site.device else keyframes, frames="1", plan=plan)
    _layer(layers, "in_betweens", chunks, frames=frames_text(plan.frames), chunk=plan.site.chunk)
    _layer(layers, "verify", verify, frames="1")
    depends = ElementTree.SubElement(spec, "depends")
    _after(depends, plan, "in_betweens", "keyframes")
    _after(depends, plan, "verify", "in_betweens")
    ElementTree.indent(spec)
    return _TYPE + ElementTree.tostring(spec, encoding="unicode") + "\n"


def _layer(layers: ElementTree.Element, name: str, command: str, *, frames: str, chunk: int = 1,
           plan: FarmPlan | None = None) -> None:
    """plan: of the layer that loads the model and asks for the device; its weights go through the host's memory."""
    layer = ElementTree.SubElement(layers, "layer", name=name, type="Render")
    values = {"cmd": command, "range": frames, "chunk": str(chunk), "cores": "1", "threadable": "true",
              "memory": f"{max(_MEMORY, plan.memory if plan else 0)}m"}  # in the order of the DTD
    if plan is not None and plan.site.device:
        values |= {"gpus": "1", "gpu_memory": f"{plan.memory}m"}
    for tag, text in values.items():
        ElementTree.SubElement(layer, tag).text = text


def _after(depends: ElementTree.Element, plan: FarmPlan, later: str, earlier: str) -> None:
    depend = ElementTree.SubElement(depends, "depend", type="LAYER_ON_LAYER", anyframe="False")
    for tag, text in (("depjob", plan.name), ("deplayer", later), ("onjob", plan.name), ("onlayer", earlier)):
        ElementTree.SubElement(depend, tag).text = text
