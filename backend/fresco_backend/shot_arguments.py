# SPDX-License-Identifier: Apache-2.0
"""The options of `fresco render`, and the shot that they describe.

The `dest` of an option is the place of its value in a shot document ("look.strength"). So one strict reader checks both
documents and command lines, what nobody gives keeps the default of the nouns, and an option beside a document overrides
it. Options that are no single value have a plain `dest`, and a function here puts them into the document.
"""
from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from fresco_protocol.document import write
from fresco_protocol.errors import InputError, ShotError, UsageError
from fresco_protocol.shot import (
    SCHEMA,
    BitDepth,
    Coherence,
    Compat,
    ControlKind,
    Delivery,
    Keyframing,
    Look,
    Matte,
    Missing,
    Plate,
    Sampler,
    Shot,
    frame_numbers,
    parse_frames,
)

Document = dict[str, Any]

_NOUNS = {"plate": Plate, "matte": Matte, "look": Look, "keyframing": Keyframing, "coherence": Coherence,
          "delivery": Delivery}
# The options that speak for places of the document which are not their own `dest`.
_SPOKEN_FOR = {"plate.sequence": "PLATE", "plate.frames": "--frames", "keyframing.frames": "--keyframes",
               "look.controls": "--control", "look.cues": "--cue"}
_FRAMES = 'SPEC is "1001-1048", "1001-1048x2" or "1001-1010,1020"; write --frames=-5-0 when it begins with a minus'


def add_shot_options(command: argparse.ArgumentParser) -> None:
    """Gives a command an option for each thing that a shot says; `shot_of` reads them."""
    for add in (_add_plate, _add_look, _add_controls, _add_keyframing, _add_coherence, _add_delivery):
        add(command)
    flags = {action.dest: action.option_strings[0] for action in command._actions if "." in action.dest}
    command.set_defaults(flags={**flags, **_SPOKEN_FOR})


def shot_of(arguments: argparse.Namespace) -> tuple[Shot, tuple[int, ...] | None]:
    """The shot that a command line describes, with absolute paths, and the frames that it selects of a document's shot.

    Raises ShotError, which names the option or the place in the document; UsageError; InputError for an unreadable one.
    """
    given = vars(arguments)
    frames = _frames_text(given)
    if given["source"].endswith(".json"):
        base, selection = _document(Path(given["source"])), _selected(frames)
    else:
        base, selection = _document_of_plate(given["source"], frames), None
    try:
        shot = Shot.from_json(json.dumps(_merged(base, _overrides(given))))
    except ShotError as error:
        raise _as_option(error, given["flags"]) from None
    return shot.located(str(Path.cwd())), selection


def _add_plate(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("plate and matte")
    only = argparse.SUPPRESS
    group.add_argument("--frames", metavar="SPEC", default=only,
                       help=f"the frames to render; with a document, only these of its frames (for a farm). {_FRAMES}")
    group.add_argument("--frame-start", metavar="N", type=int, default=only, help="in place of --frames: first frame")
    group.add_argument("--frame-end", metavar="N", type=int, default=only, help="last frame, inclusive")
    group.add_argument("--frame-step", metavar="N", type=int, default=only, help="render every Nth frame (default: 1)")
    _option(group, "--missing", "plate.missing", "what to do at a frame that the plate lacks: stop, repeat the frame "
            "before, leave it out", choices=_values(Missing))
    _option(group, "--rate", "plate.rate", "frames per second, such as 24 or 24000/1001 (default: the plate's own)",
            metavar="RATE")
    _option(group, "--color-space", "plate.color_space", "of the plate (default: what its files declare)",
            metavar="NAME")
    _option(group, "--matte", "matte.sequence", "where the look applies: white stylises, black keeps the plate",
            metavar="SEQ")
    _option(group, "--matte-channel", "matte.channel", "channel of the matte (default: alpha, else the first)",
            metavar="NAME")
    _option(group, "--matte-invert", "matte.invert", "black stylises, white keeps the plate", action="store_true")
    group.add_argument("--no-matte", action="store_true", help="without the matte of the document")


def _add_look(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("look")
    _option(group, "--prompt", "look.prompt", "what the result shall look like", metavar="TEXT")
    _option(group, "--negative", "look.negative_prompt", "what it shall not look like", metavar="TEXT")
    group.add_argument("--cue", metavar='"FRAMES: WORDS"', action="append", type=_cue, default=argparse.SUPPRESS,
                       help='words added to the prompt on some frames, such as "1001-1010: rain"; may be repeated')
    _option(group, "--model", "look.model", '"embedded", a diffusers folder, a .safetensors file or a hub id',
            metavar="MODEL", type=_model)
    _option(group, "--strength", "look.strength", "0 keeps the plate, 1 leaves a trace of it (default: what the model "
            "recommends)", metavar="0-1", type=float)
    _option(group, "--guidance", "look.guidance", "how closely the prompt is followed (default: what the model "
            "recommends)", metavar="SCALE", type=float)
    _option(group, "--steps", "look.steps", "denoising steps", metavar="N", type=int)
    _option(group, "--sampler", "look.sampler", "how a denoising step is taken", choices=_values(Sampler))
    _option(group, "--seed", "look.seed", "another seed is another take", metavar="N", type=int)


def _add_controls(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("controls, which hold the structure (default: what the model recommends)")
    group.add_argument("--control", metavar="KIND[=STRENGTH][:START-END]", action="append", type=_control,
                       default=argparse.SUPPRESS,
                       help=f"{', '.join(_values(ControlKind))} or none; STRENGTH from 0 to 2, START and END as parts "
                            'of all steps, such as "soft-edge=0.8:0-0.6"; may be repeated')
    group.add_argument("--control-sequence", metavar="SEQ", action="append", default=argparse.SUPPRESS,
                       help="your own control images, for a control of kind sequence; may be repeated")
    group.add_argument("--control-model", metavar="KIND=MODEL", action="append", type=_control_model,
                       default=argparse.SUPPRESS, help="the ControlNet for a kind (default: the one of the model)")


def _add_keyframing(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("keyframes, which are denoised; the frames between are made from them")
    group.add_argument("--keyframes", metavar="CHOICE", type=_keyframing, default=argparse.SUPPRESS,
                       help='"auto" (by the motion), "every:N", or frames such as "1001,1010,1020" (default: auto)')
    _option(group, "--min-gap", "keyframing.minimum_gap", "least frames from one keyframe to the next", metavar="N",
            type=int)
    _option(group, "--max-gap", "keyframing.maximum_gap", "most frames from one keyframe to the next", metavar="N",
            type=int)
    _option(group, "--window", "keyframing.window", "keyframes denoised together; more are steadier and take more "
            "memory", metavar="N", type=int)


def _add_coherence(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("coherence (all of it is on; its strengths are set in a shot document)")
    _option(group, "--no-cross-frame", "coherence.cross_frame", "keyframes of a window do not see each other",
            action="store_const", const=False)
    for flag, field, sentence in (
        ("--no-spatial", "spatial", "attention is not kept to the plate's self-similarity"),
        ("--no-temporal", "temporal", "attention does not follow the motion"),
        ("--no-optimisation", "optimisation", "features are not optimised (much faster, less steady)"),
        ("--no-background", "background", "the background is not carried along (acts with a matte only)"),
    ):
        _option(group, flag, f"coherence.{field}", sentence, action="store_const", const=None)
    _option(group, "--compat", "coherence.compat", "whose arithmetic, where the authors' program departs from their "
            "paper", choices=_values(Compat))
    group.add_argument("--per-frame", action="store_true", help="no coherence at all: each frame by itself")


def _add_delivery(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("delivery")
    _option(group, "-o --output", "delivery.sequence", 'where the result goes: "out/name.####.exr" or a movie file',
            metavar="OUT")
    _option(group, "--output-color-space", "delivery.color_space", "of the result (default: the plate's)",
            metavar="NAME")
    _option(group, "--bit-depth", "delivery.bit_depth", "(default: the plate's)", choices=_values(BitDepth))
    _option(group, "--compression", "delivery.compression", "such as zip, dwaa:45, jpeg:95 (default: the plate's)",
            metavar="NAME")
    _option(group, "--handles", "delivery.handles", "extra frames at head and tail", metavar="N", type=int)
    _option(group, "--working-size", "delivery.working_size", "short side in pixels at which the model works (default: "
            "the model's own)", metavar="PIXELS", type=int)
    _option(group, "--overwrite", "delivery.overwrite", "render delivered frames again (else they are kept if the shot "
            "is the same)", action="store_true")


def _option(group: Any, names: str, place: str, sentence: str, **rest: Any) -> None:
    shown = sentence if "(default: " in sentence or "action" in rest else sentence + _default(place)
    group.add_argument(*names.split(), dest=place, default=argparse.SUPPRESS, help=shown, **rest)


def _default(place: str) -> str:
    """The default of a noun's field as the end of a help text; nothing when there is none to name."""
    noun, name = place.split(".")
    default = next(field.default for field in dataclasses.fields(_NOUNS[noun]) if field.name == name)
    return "" if default in (dataclasses.MISSING, None, "") else f" (default: {write(default)})"


def _values(kind: type[Enum]) -> list[str]:
    return [member.value for member in kind]


def _cue(text: str) -> Document:
    # The words begin after the first colon, unless a step stands there: "1001-1020:2: rain".
    match = re.fullmatch(r"([-0-9,x\s]+(?::\d+(?=\s*:))?)\s*:\s*(.+)", text, re.DOTALL)
    if match is None:
        raise argparse.ArgumentTypeError(f'found "{text}"; allowed: frames, a colon and words, as in "1001-1010: rain"')
    return {"frames": match[1].strip(), "prompt": match[2]}


def _model(text: str) -> str:
    """A path that exists becomes absolute, so that a saved shot finds it from every folder."""
    return str(Path(text).absolute()) if text != "embedded" and Path(text).exists() else text


def _control(text: str) -> Document:
    number = r"(\d+\.?\d*|\.\d+)"
    match = re.fullmatch(rf"([a-z-]+)(?:={number})?(?::{number}-{number})?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f'found "{text}"; allowed: KIND[=STRENGTH][:START-END], as in '
                                         '"soft-edge", "canny=0.8" or "soft-edge=0.8:0-0.6"')
    numbers = zip(("strength", "start", "end"), match.groups()[1:], strict=True)
    return {"kind": match[1], **{name: float(found) for name, found in numbers if found is not None}}


def _control_model(text: str) -> tuple[str, str]:
    kind, mark, model = text.partition("=")
    if not (kind and mark and model):
        raise argparse.ArgumentTypeError(f'found "{text}"; allowed: KIND=MODEL, as in "canny=models/my-canny"')
    return kind, _model(model)


def _keyframing(text: str) -> Document:
    """The fields of `Keyframing` that a choice of keyframes sets."""
    if text == "auto":
        return {"frames": None}
    if text.startswith("every:"):
        number = text.removeprefix("every:")
        if not number.isdecimal():
            raise argparse.ArgumentTypeError(f'found "{text}"; allowed: every:N with a whole number, as in every:6')
        return {"frames": None, "minimum_gap": int(number), "maximum_gap": int(number)}
    return {"frames": text}


def _frames_text(given: Mapping[str, Any]) -> str | None:
    """The frames that are asked for, in the notation of a document."""
    parts = [given.get(f"frame_{part}") for part in ("start", "end", "step")]
    if parts == [None, None, None]:
        return given.get("frames")
    if "frames" in given:
        raise UsageError("--frames and --frame-start, --frame-end, --frame-step say the same thing",
                         remedy="Give one or the other.")
    first, last, step = parts
    if first is None or last is None:
        raise UsageError("--frame-start and --frame-end belong together", remedy="Give both, or --frames.")
    return f"{first}-{last}x{1 if step is None else step}"


def _selected(frames: str | None) -> tuple[int, ...] | None:
    if frames is None:
        return None
    try:
        return frame_numbers(parse_frames(frames))
    except ShotError as error:
        raise UsageError(f"--frames is {error.found}", remedy=f"Allowed: {error.allowed}") from None


def _document(path: Path) -> Document:
    """The document of a file, every path in it absolute."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InputError(f"the shot document cannot be read: {reason}", where=path, remedy="Check the path.") from error
    try:
        shot = Shot.from_json(text)
    except ShotError as error:
        raise ShotError(f"{path}: {error.path or 'the whole'}", error.found, error.allowed) from None
    document: Document = json.loads(shot.located(os.path.abspath(path.parent)).to_json())  # noqa: PTH100, no symlinks
    return document


def _document_of_plate(plate: str, frames: str | None) -> Document:
    return {"schema": SCHEMA, "plate": {"sequence": plate, **({"frames": frames} if frames is not None else {})},
            "look": {}, "delivery": {}}


def _overrides(given: Mapping[str, Any]) -> Document:
    """What the options say, as the part of a document."""
    found: Document = {}
    for place, value in given.items():
        noun, dot, field = place.partition(".")
        if dot:
            found.setdefault(noun, {})[field] = value
    if "keyframes" in given:
        found["keyframing"] = _with_choice(found.get("keyframing", {}), given["keyframes"])
    look = found.setdefault("look", {})
    if "cue" in given:
        look["cues"] = given["cue"]
    if {"control", "control_sequence", "control_model"} & given.keys():
        look["controls"] = _controls(given)
    return {**found, **_switched_off(given, found)}


def _switched_off(given: Mapping[str, Any], found: Document) -> Document:
    """The nouns that are absent because an option says so."""
    off: Document = {}
    for option, noun in (("per_frame", "coherence"), ("no_matte", "matte")):
        if given[option]:
            if noun in found:
                extra = ", ".join(given["flags"][f"{noun}.{field}"] for field in found[noun])
                raise UsageError(f"--{option.replace('_', '-')} leaves no {noun} for {extra}",
                                 remedy="Give one or the other.")
            off[noun] = None
    return off


def _with_choice(gaps: Document, choice: Document) -> Document:
    if gaps.keys() & choice.keys():
        raise UsageError("--keyframes every:N sets both gaps", remedy="Leave out --min-gap and --max-gap.")
    return {**gaps, **choice}


def _controls(given: Mapping[str, Any]) -> list[Document]:
    """The controls in the order of their options, each with its own images and network."""
    sequences, models = given.get("control_sequence", []), dict(given.get("control_model", []))
    controls = [dict(control) for control in given.get("control", [{"kind": "sequence"}] * len(sequences))]
    kinds = [control["kind"] for control in controls]
    if "none" in kinds:
        if len(kinds) > 1 or sequences or models:
            raise UsageError("--control none leaves no other control", remedy="Give it alone.")
        return []
    wanted = kinds.count("sequence")
    if wanted != len(sequences):
        raise UsageError(f"{wanted} controls are of kind sequence, and {len(sequences)} --control-sequence are given",
                         remedy="Give one --control-sequence for each --control sequence.")
    if models.keys() - set(kinds):
        raise UsageError(f"--control-model for {', '.join(models.keys() - set(kinds))}, which is no --control here",
                         remedy="Give that --control as well.")
    waiting = iter(sequences)
    for control in controls:
        if control["kind"] in models:
            control["model"] = models[control["kind"]]
        if control["kind"] == "sequence":
            control["sequence"] = next(waiting)
    return controls


def _merged(base: Document, overrides: Document) -> Document:
    merged = dict(base)
    for noun, fields in overrides.items():
        if noun == "coherence" and fields is not None and base.get(noun, {}) is None:
            raise UsageError("the document has no coherence that an option could change",
                             remedy='Leave the coherence options out, or set "coherence" in the document.')
        merged[noun] = None if fields is None else {**(base.get(noun) or {}), **fields}
    return merged


def _as_option(error: ShotError, flags: Mapping[str, str]) -> UsageError:
    """The same error about the option that a user sees, in place of the document that he does not."""
    place = next((place for place in flags if re.match(re.escape(place) + r"(?![a-z_])", error.path)), None)
    if place is None:
        return error
    if error.found == "nothing":
        return UsageError(f"{flags[place]} is missing", remedy=f"It takes {error.allowed}.")
    part = re.search(r"[a-z_]+$", error.path[len(place):])
    return UsageError(f"{flags[place]}{f' ({part[0]})' if part else ''} is {error.found}",
                      remedy=f"Allowed: {error.allowed}")
