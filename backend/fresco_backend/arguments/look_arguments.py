# SPDX-License-Identifier: Apache-2.0
"""The options of the look: prompt, cues, the model and what changes it, sampling, controls."""
from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fresco_backend.arguments.option import add_option, values
from fresco_protocol.errors import UsageError
from fresco_protocol.shot import ControlKind, Prediction, Sampler

Document = dict[str, Any]

# The options that speak for places of the document which are not their own `dest`.
SPOKEN_FOR = {"look.controls": "--control", "look.cues": "--cue", "look.loras": "--lora", "look.free_u": "--free-u"}
_FREE_U = ("backbone_1", "backbone_2", "skip_1", "skip_2")
_NUMBER = r"(\d+\.?\d*|\.\d+)"


def add_look(command: argparse.ArgumentParser) -> None:
    """The options of prompt, model and sampling."""
    group = command.add_argument_group("look")
    add_option(group, "--prompt", "look.prompt", 'what the result shall look like; "(words:1.2)" weighs words',
               metavar="TEXT")
    add_option(group, "--negative", "look.negative_prompt", "what it shall not look like", metavar="TEXT")
    group.add_argument("--cue", metavar='"FRAMES: WORDS"', action="append", type=_cue, default=argparse.SUPPRESS,
                       help='words added to the prompt on some frames, such as "1010-1020: eyes closed", or words '
                            'that become others, such as "1001-1040: dusk -> night"; only keyframes read them; may be '
                            'repeated')
    _add_model(group)
    add_option(group, "--strength", "look.strength", "0 keeps the plate, 1 leaves a trace of it (default: what the "
               "model recommends)", metavar="0-1", type=float)
    add_option(group, "--guidance", "look.guidance", "how closely the prompt is followed (default: what the model "
               "recommends)", metavar="SCALE", type=float)
    add_option(group, "--steps", "look.steps", "denoising steps", metavar="N", type=int)
    add_option(group, "--sampler", "look.sampler", "how a denoising step is taken; dpm++ is more exact than ddim in as "
               "many steps, lcm is for models or LoRAs of few steps", choices=values(Sampler))
    add_option(group, "--seed", "look.seed", "another seed is another take", metavar="N", type=int)


def _add_model(group: Any) -> None:
    add_option(group, "--model", "look.model", '"embedded", a diffusers folder, a .safetensors file or a hub id',
               metavar="MODEL", type=_model)
    add_option(group, "--prediction", "look.prediction", "what the model was trained to predict (default: what its "
               "files state; single files of Stable Diffusion 2 do not)", choices=values(Prediction))
    add_option(group, "--vae", "look.vae", "an autoencoder in place of the model's own, a tiny one too",
               metavar="MODEL", type=_model)
    group.add_argument("--lora", metavar="FILE[=WEIGHT]", action="append", type=_lora, default=argparse.SUPPRESS,
                       help="a .safetensors file, a name or a hub id; WEIGHT from -4 to 4 (default: 1); may be "
                            "repeated")
    group.add_argument("--free-u", metavar="B1,B2,S1,S2", nargs="?", const={}, type=_free_u, default=argparse.SUPPRESS,
                       help="FreeU, which strengthens the decoder's features; without numbers 1.2,1.5,1,1 "
                            "(default: off)")


def add_controls(command: argparse.ArgumentParser) -> None:
    """The options of the controls."""
    group = command.add_argument_group("controls, which hold the structure (default: what the model recommends)")
    group.add_argument("--control", metavar="KIND[=STRENGTH][:START-END]", action="append", type=_control,
                       default=argparse.SUPPRESS,
                       help=f"{', '.join(values(ControlKind))} or none; STRENGTH from 0 to 2, START and END as parts "
                            'of all steps, such as "soft-edge=0.8:0-0.6"; may be repeated')
    group.add_argument("--control-sequence", metavar="SEQ", action="append", default=argparse.SUPPRESS,
                       help="your own control images, for a control of kind sequence; may be repeated")
    group.add_argument("--control-model", metavar="KIND=MODEL", action="append", type=_of_kind,
                       default=argparse.SUPPRESS, help="the ControlNet for a kind (default: the one of the model)")
    group.add_argument("--control-detector", metavar="KIND=MODEL", action="append", type=_of_kind,
                       default=argparse.SUPPRESS,
                       help="the network that draws the images of kind depth (default: Depth Anything V2 Small)")


def look_overrides(given: Mapping[str, Any]) -> Document:
    """The fields of the look that options set which are no single value."""
    found: Document = {}
    for option, field in (("cue", "cues"), ("lora", "loras"), ("free_u", "free_u")):
        if option in given:
            found[field] = given[option]
    if {"control", "control_sequence", "control_model", "control_detector"} & given.keys():
        found["controls"] = _controls(given)
    return found


def _cue(text: str) -> Document:
    # The words begin after the first colon, unless a step stands there: "1001-1020:2: rain".
    match = re.fullmatch(r"([-0-9,x\s]+(?::\d+(?=\s*:))?)\s*:\s*(.+)", text, re.DOTALL)
    if match is None:
        raise argparse.ArgumentTypeError(f'found "{text}"; allowed: frames, a colon and words, as in "1001-1010: rain"')
    words, arrow, later = match[2].partition("->")
    return {"frames": match[1].strip(), "prompt": words.strip(), **({"to": later.strip()} if arrow else {})}


def _model(text: str) -> str:
    """A path that exists becomes absolute, so that a saved shot finds it from every folder."""
    known = text in ("", "embedded")
    return str(Path(text).absolute()) if not known and Path(text).exists() else text


def _lora(text: str) -> Document:
    match = re.fullmatch(rf"(.+?)(?:=(-?{_NUMBER}))?", text)
    if match is None:
        raise argparse.ArgumentTypeError('found ""; allowed: FILE[=WEIGHT], as in "ink.safetensors=0.8"')
    return {"model": _model(match[1]), **({"weight": float(match[2])} if match[2] else {})}


def _free_u(text: str) -> Document:
    numbers = text.split(",")
    if len(numbers) != len(_FREE_U) or not all(re.fullmatch(_NUMBER, number.strip()) for number in numbers):
        raise argparse.ArgumentTypeError(f'found "{text}"; allowed: four numbers, as in "1.2,1.5,1,1"')
    return {name: float(number) for name, number in zip(_FREE_U, numbers, strict=True)}


def _control(text: str) -> Document:
    match = re.fullmatch(rf"([a-z-]+)(?:={_NUMBER})?(?::{_NUMBER}-{_NUMBER})?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f'found "{text}"; allowed: KIND[=STRENGTH][:START-END], as in '
                                         '"soft-edge", "canny=0.8" or "soft-edge=0.8:0-0.6"')
    numbers = zip(("strength", "start", "end"), match.groups()[1:], strict=True)
    return {"kind": match[1], **{name: float(found) for name, found in numbers if found is not None}}


def _of_kind(text: str) -> tuple[str, str]:
    kind, mark, model = text.partition("=")
    if not (kind and mark and model):
        raise argparse.ArgumentTypeError(f'found "{text}"; allowed: KIND=MODEL, as in "canny=models/my-canny"')
    return kind, _model(model)


def _controls(given: Mapping[str, Any]) -> list[Document]:
    """The controls in the order of their options, each with its own images and networks."""
    sequences = given.get("control_sequence", [])
    named = {part: dict(given.get(f"control_{part}", [])) for part in ("model", "detector")}
    controls = [dict(control) for control in given.get("control", [{"kind": "sequence"}] * len(sequences))]
    kinds = [control["kind"] for control in controls]
    if "none" in kinds:
        if len(kinds) > 1 or sequences or any(named.values()):
            raise UsageError("--control none leaves no other control", remedy="Give it alone.")
        return []
    wanted = kinds.count("sequence")
    if wanted != len(sequences):
        raise UsageError(f"{wanted} controls are of kind sequence, and {len(sequences)} --control-sequence are given",
                         remedy="Give one --control-sequence for each --control sequence.")
    for part, by_kind in named.items():
        if by_kind.keys() - set(kinds):
            raise UsageError(f"--control-{part} for {', '.join(by_kind.keys() - set(kinds))}, which is no --control "
                             "here", remedy="Give that --control as well.")
    waiting = iter(sequences)
    for control in controls:
        for part, by_kind in named.items():
            if control["kind"] in by_kind:
                control[part] = by_kind[control["kind"]]
        if control["kind"] == "sequence":
            control["sequence"] = next(waiting)
    return controls
