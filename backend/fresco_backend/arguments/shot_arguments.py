# SPDX-License-Identifier: Apache-2.0
"""The options of `fresco render`, and the shot that they describe.

The `dest` of an option is the place of its value in a shot document ("look.strength"). So one strict reader checks both
documents and command lines, what nobody gives keeps the default of the nouns, and an option beside a document overrides
it. Options that are no single value have a plain `dest`, and a function here puts them into the document.
"""
from __future__ import annotations

import argparse
import difflib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fresco_backend.arguments import look_arguments
from fresco_backend.arguments.edit_arguments import add_editing, add_synthesis
from fresco_backend.arguments.fidelity_arguments import add_layer, add_matte, add_pixels, add_rendering
from fresco_backend.arguments.look_arguments import add_controls, add_look, look_overrides
from fresco_backend.arguments.option import add_option as _option
from fresco_backend.arguments.option import values
from fresco_backend.arguments.quality import add_quality, with_quality
from fresco_backend.path_mapping import PathMapping
from fresco_protocol.errors import InputError, ShotError, UsageError
from fresco_protocol.shot import SCHEMA, BitDepth, Compat, Missing, Shot, frame_numbers, parse_frames

Document = dict[str, Any]

# The options that speak for places of the document which are not their own `dest`.
_SPOKEN_FOR = {"plate.sequence": "PLATE", "plate.frames": "--frames", "keyframing.frames": "--keyframes",
               **look_arguments.SPOKEN_FOR}
_EXAMPLES = {"look.prompt": 'Say the look in words, as in --prompt "a watercolour".',
             "delivery.sequence": "Say where the result goes, as in -o out/look.####.exr or -o out/look.mov."}
_FRAMES = 'SPEC is "1001-1048", "1001-1048x2" or "1001-1010,1020"; write --frames=-5-0 when it begins with a minus'


def add_shot_options(command: argparse.ArgumentParser) -> None:
    """Gives a command an option for each thing that a shot says; `shot_of` reads them."""
    for add in (_add_plate, add_look, add_controls, add_editing, _add_keyframing, _add_coherence, _add_delivery):
        add(command)
    flags = {action.dest: action.option_strings[0] for action in command._actions if "." in action.dest}
    command.set_defaults(flags={**flags, **_SPOKEN_FOR})


def shot_of(arguments: argparse.Namespace) -> tuple[Shot, tuple[int, ...] | None]:
    """The shot that a command line describes, with absolute paths, and the frames that it selects of a document's shot.

    Raises ShotError, which names the option or the place in the document; UsageError; InputError for an unreadable one.
    """
    given = vars(arguments)
    frames, source = _frames_text(given), _at_home(given["source"])
    _refuse_typo(Path(source))
    if source.endswith(".json"):
        base, selection = _document(Path(source), given.get("path_mapping")), _selected(frames)
    else:
        base, selection = _document_of_plate(source, frames), None
    try:
        document = _merged(base, _overrides(given))
        shot = Shot.from_json(json.dumps({**document, "task": given["task"]} if "task" in given else document))
    except ShotError as error:
        raise _as_option(error, _flags(given)) from None
    return shot.located(str(Path.cwd())), selection


def shot_of_file(path: Path, rules: Path | None = None) -> Shot:
    """The shot of a document, with absolute paths. rules: a file of a farm's path mapping.

    Raises InputError, ShotError, UsageError.
    """
    return Shot.from_json(json.dumps(_document(path, rules)))


def _add_plate(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("plate and matte")
    only = argparse.SUPPRESS
    group.add_argument("--frames", metavar="SPEC", default=only,
                       help=f"the frames to render; with a document, only these of its frames (for a farm). {_FRAMES}")
    group.add_argument("--frame-start", metavar="N", type=int, default=only, help="in place of --frames: first frame")
    group.add_argument("--frame-end", metavar="N", type=int, default=only, help="last frame, inclusive")
    group.add_argument("--frame-step", metavar="N", type=int, default=only, help="render every Nth frame (default: 1)")
    group.add_argument("--still", metavar="N", type=int, help="only this frame, to judge the look: made alone, without "
                       "the shot's keyframes, beside the delivery as NAME.still.N")
    _option(group, "--missing", "plate.missing", "what to do at a frame that the plate lacks: stop, repeat the frame "
            "before, leave it out", choices=values(Missing))
    _option(group, "--rate", "plate.rate", "frames per second, such as 24 or 24000/1001 (default: the plate's own)",
            metavar="RATE")
    _option(group, "--color-space", "plate.color_space", "of the plate, by its OpenColorIO name (default: what its "
            "files declare)", metavar="NAME")
    add_layer(group)
    add_rendering(group)
    add_matte(group)
    group.add_argument("--no-matte", action="store_true", help="without the matte of the document")


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
    add_synthesis(group)


def _add_coherence(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("coherence (all of it is on; its strengths are set in a shot document)")
    add_quality(group)
    _option(group, "--no-cross-frame", "coherence.cross_frame", "keyframes of a window do not see each other",
            action="store_const", const=False)
    for flag, field, sentence in (
        ("--no-spatial", "spatial", "attention is not kept to the plate's self-similarity"),
        ("--no-temporal", "temporal", "attention does not follow the motion"),
        ("--no-optimisation", "optimisation", "features are not optimised (much faster, less steady)"),
        ("--no-background", "background", "the background is not carried along the flow"),
    ):
        _option(group, flag, f"coherence.{field}", sentence, action="store_const", const=None)
    _option(group, "--no-tone", "coherence.tone", "later windows are not graded to the first one's tones",
            action="store_const", const=False)
    _option(group, "--compat", "coherence.compat", "whose arithmetic, where the authors' program departs from their "
            "paper", choices=values(Compat))
    group.add_argument("--per-frame", action="store_true", help="no coherence at all: each frame by itself")


def _add_delivery(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("delivery")
    _option(group, "-o --output", "delivery.sequence", 'where the result goes: "out/name.####.exr" or a movie file',
            metavar="OUT")
    _option(group, "--output-color-space", "delivery.color_space", "of the result (default: the plate's)",
            metavar="NAME")
    _option(group, "--bit-depth", "delivery.bit_depth", "number format of the samples (default: the plate's, "
            "10 or 12 bits of a DPX or TIFF included)", choices=values(BitDepth))
    _option(group, "--compression", "delivery.compression", "such as zip, dwaa:45, jpeg:95 (default: the plate's)",
            metavar="NAME")
    add_pixels(group)
    _option(group, "--handles", "delivery.handles", "extra frames at head and tail", metavar="N", type=int)
    _option(group, "--working-size", "delivery.working_size", "short side in pixels at which the model works (default: "
            "the model's own)", metavar="PIXELS", type=int)
    _option(group, "--tile-size", "delivery.tile_size", "side of the tiles in which a larger picture is denoised, for "
            "less memory; one that holds the picture leaves it whole (default: the model's own where the working size "
            "is 1.5 times that or more)", metavar="PIXELS", type=int)
    _option(group, "--overwrite", "delivery.overwrite", "render delivered frames again (else they are kept if the shot "
            "is the same)", action="store_true")


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


def _refuse_typo(source: Path) -> None:
    """A document whose name is mistyped looks like a plate; said before it is asked for what a plate would need."""
    from fresco_backend.files.frame_pattern import FRAME_FIELD  # not above: `--help` shall not wait for it

    plate = source.suffix == ".json" or FRAME_FIELD.search(source.name) or source.exists()
    if not plate and (meant := _meant_document(source)):
        raise InputError("no plate and no shot document is there", where=source, remedy=f"{meant}Check the path.")


def _meant_document(path: Path) -> str:
    """The document in its folder that was probably meant."""
    near = difflib.get_close_matches(path.name, [found.name for found in path.parent.glob("*")], n=1)
    return f"Did you mean {near[0]}? " if near and near[0].endswith(".json") else ""


def _document(path: Path, rules: Path | None) -> Document:
    """The document of a file, every path in it absolute. rules: a file of a farm's path mapping."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InputError(f"the shot document cannot be read: {reason}", where=path,
                         remedy=f"{_meant_document(path)}Check the path.") from error
    try:
        shot = Shot.from_json(text)
    except ShotError as error:
        raise ShotError(f"{path}: {error.path or 'the whole'}", error.found, error.allowed) from None
    if rules is not None:  # before relative paths become absolute: one of Windows looks relative elsewhere
        shot = PathMapping.of_file(rules).shot(shot)
    document: Document = json.loads(shot.located(os.path.abspath(path.parent)).to_json())  # noqa: PTH100, no symlinks
    return document


def _document_of_plate(plate: str, frames: str | None) -> Document:
    return {"schema": SCHEMA, "plate": {"sequence": plate, **({"frames": frames} if frames is not None else {})},
            "look": {}, "delivery": {}}


def _at_home(path: str) -> str:
    """A path of the command line whose "~" the shell left as it was, as in "~/clip.mov" and --output=~/look.mov.

    Taken as a name it would make a folder "~", which nobody removes without fear.
    """
    return os.path.expanduser(path)  # noqa: PTH111, a pattern, and "~/" at its start alone


def _overrides(given: Mapping[str, Any]) -> Document:
    """What the options say, as the part of a document."""
    found: Document = {}
    for place, value in given.items():
        noun, dot, field = place.partition(".")
        if dot:
            found.setdefault(noun, {})[field] = _at_home(value) if field in ("sequence", "upscaler") else value
    if "keyframes" in given:
        found["keyframing"] = _with_choice(found.get("keyframing", {}), given["keyframes"])
    found["look"] = {**found.get("look", {}), **look_overrides(given)}
    return with_quality({**found, **_switched_off(given, found)}, given)


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


def _merged(base: Document, overrides: Document) -> Document:
    merged = dict(base)
    for noun, fields in overrides.items():
        if noun == "coherence" and fields is not None and base.get(noun, {}) is None:
            raise UsageError("the document has no coherence that an option could change",
                             remedy='Leave the coherence options out, or set "coherence" in the document.')
        merged[noun] = None if fields is None else {**(base.get(noun) or {}), **fields}
    return merged


def _flags(given: Mapping[str, Any]) -> dict[str, str]:
    """The option that speaks for each place of the document; --keyframes for the gaps where it sets them."""
    set_by_choice = (f"keyframing.{field}" for field in given.get("keyframes", {}) if field != "frames")
    return {**given["flags"], **dict.fromkeys(set_by_choice, "N of --keyframes every:N")}


def _as_option(error: ShotError, flags: Mapping[str, str]) -> UsageError:
    """The same error about the option that a user sees, in place of the document that he does not."""
    place = next((place for place in flags if re.match(re.escape(place) + r"(?![a-z_])", error.path)), None)
    if place is None:
        return error
    allowed = error.allowed.removesuffix(" or null")  # which a document says, and leaving the option out
    if error.found == "nothing":
        return UsageError(f"{flags[place]} is missing", remedy=_EXAMPLES.get(place, f"It takes {allowed}."))
    part = re.search(r"[a-z_0-9]+$", error.path[len(place):])
    return UsageError(f"{flags[place]}{f' ({part[0]})' if part else ''} is {error.found}",
                      remedy=f"Allowed: {allowed}")
