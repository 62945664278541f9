# SPDX-License-Identifier: Apache-2.0
"""What a render warns of: before it reads a weight, so that a dry run can say it too; and of the device it is on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from textwrap import shorten

import torch

from fresco_backend.engine import fused
from fresco_backend.events import Warned
from fresco_backend.files.frame_pattern import frames_text
from fresco_backend.files.frames import orientation
from fresco_backend.files.layers import alike
from fresco_backend.files.movies import MovieReader
from fresco_backend.models.vocabulary import unknown_text
from fresco_backend.models.weights import tokenizer_of
from fresco_backend.pixels.color import unknown_colours
from fresco_backend.render import prompts
from fresco_backend.render.inversions import needs_inversion
from fresco_backend.render.job import Job
from fresco_protocol.shot import frame_numbers

QUOTED = 80  # characters of a text that a warning quotes at most


def texts(job: Job) -> set[str]:
    """Every text that the model will read for a job."""
    caption = {job.shot.editing.caption} if needs_inversion(job.shot) else set()
    return prompts.texts_of(job.shot.look, job.frames) | caption


def remarks(job: Job, keyframes: Sequence[int], *, denoises: bool) -> Iterator[Warned]:
    """The warnings about a job that has something left to do.

    keyframes: of the whole shot. denoises: whether the model will be asked.
    """
    look, tiles = job.shot.look, job.tiles
    yield from _of_plate(job)
    meant = None if job.matte is None else job.matte.overlooked()
    if meant is not None:
        yield Warned(code="matte-opaque", text="the matte's alpha, which is taken where no channel is named, is opaque "
                     f"everywhere: all of the picture changes, or none of it. If its channel {meant} was meant, name "
                     f"it: --matte-channel {meant}")
    if look.strength and not job.strength:
        yield Warned(code="no-step", text=f"strength {look.strength:g} of {look.steps} steps is less than half a step: "
                     "the delivery is the plate. Take more steps or a higher strength")
    if not denoises:
        return
    if isinstance(job.plate, MovieReader) and job.plate.interlaced:
        yield Warned(code="interlaced", text="the movie is interlaced: each frame holds two moments, which the model "
                     "sees as a comb. Deinterlace it first")
    if len(tiles) > 1:
        yield Warned(code="tiles", text=f"the picture is denoised in {len(tiles)} overlapping tiles of {tiles[0]}, "
                     "since it is larger than the model likes; each tile sees the whole prompt")
    yield from _cues_unseen(job, keyframes)
    tokenizer = tokenizer_of(job.inventory)
    unknown = unknown_text(tokenizer, texts(job), look.model) if tokenizer is not None else None
    if unknown:
        yield Warned(code="unknown-words", text=unknown)


def _of_plate(job: Job) -> Iterator[Warned]:
    """What is said of a plate whatever becomes of it: when, in which colours and which way up its frames are shown."""
    plate = job.plate
    if isinstance(plate, MovieReader) and plate.straying > 1 / plate.rate:
        yield Warned(code="uneven", text="the movie's frames are not evenly spaced in time: delivered at "
                     f"{float(plate.rate):.5g} a second, they lie up to {float(plate.straying):.2f} seconds from where "
                     "the plate shows them, and from its sound. Give the plate a constant rate first")
    yield from _of_views(job)
    stated = None if job.shot.plate.color_space else unknown_colours(job.like)
    if stated:
        yield Warned(code="unknown-colours", text=f"the plate states colours that have no name here ({stated}), and "
                     "they are taken as sRGB. Name their space (--color-space NAME), or convert the plate first")
    if orientation(job.like) != 1:
        yield Warned(code="turned", text="the plate's pictures are stored lying or mirrored, and a tag (Orientation "
                     f"{orientation(job.like)}) tells viewers to turn them: the model sees them as they are stored. "
                     "Turn the files first, for example with oiiotool --autoorient")


def _of_views(job: Job) -> Iterator[Warned]:
    """The warning of a plate with several pictures, none of which the shot names: of a stereo plate its views."""
    if job.shot.plate.layer or job.like.file_type == "movie":
        return
    headers = [part.metadata for part in job.like.parts]
    headers.insert(job.like.place, job.like.metadata)
    taken, *others = alike(headers, job.like.place, job.like.channels)
    if not others:
        return
    rest = "the movie holds nothing else" if job.is_movie else "all else is delivered as the plate has it"
    yield Warned(code="several-pictures", text=f"the plate's files hold several pictures ({', '.join([taken, *others])}"
                 f"): {taken} is stylised, and {rest}. To stylise another one name it, for example --layer {others[0]}")


def _cues_unseen(job: Job, keyframes: Sequence[int]) -> Iterator[Warned]:
    """Cues that change nothing, since only keyframes read them. A still is one frame, and has the shot's other cues."""
    for cue in job.shot.look.cues if len(job.frames) > 1 else ():
        frames = frame_numbers(cue.frames)
        if set(frames) & set(keyframes):
            continue
        why = (f"keyframes are {frames_text(keyframes)}. Widen it, or name keyframes" if set(frames) & set(job.frames)
               else f"the shot has frames {frames_text(job.frames)} only. Give it frames of the shot")
        yield Warned(code="cue-unseen", text=f'no keyframe is on the frames of the cue "{cue.prompt}" '
                     f"({frames_text(frames)}), so that nothing shows it; {why}")


def remark_on_length(unseen: str) -> Warned:
    """What is said of a text that is longer than the model reads. unseen: its end."""
    begun = shorten(unseen, QUOTED, placeholder=" …")
    return Warned(code="prompt-too-long", text=f'the model does not see the end of the prompt: "{begun}"; say it in '
                  "fewer words, or put first what matters")


def remark_on_precision(here: str, others: Collection[str]) -> Warned:
    """The warning of a shot whose other windows were denoised in something else: a seam may show between them."""
    return Warned(code="mixed-precision", text=f"windows of this shot are denoised in {here}, and others were in "
                  f"{', '.join(sorted(others))}: the same prompt and seed give slightly other pixels there, and a step "
                  "may show between two windows. Render all of it on one kind of machine (--overwrite)")


def remarks_on_device(job: Job, device: torch.device, dtype: torch.dtype) -> Iterator[Warned]:
    """The warning of a GPU that optimises features in the plain way. device, dtype: of the U-Net.

    Its pixels differ a little from those of one that does it in the fused way: a farm with both shall find that out.
    """
    optimisation = job.shot.coherence and job.shot.coherence.optimisation
    if device.type != "cuda" or not optimisation or optimisation.spatial_squared:
        return
    problem = fused.problem(device, dtype)
    if problem is not None:
        yield Warned(code="not-fused", text=f"the feature optimisation is not fused on {device}, which takes several "
                     f"times as long, with slightly other pixels than where it is: {problem}")
