# SPDX-License-Identifier: Apache-2.0
"""From a job's frames to what the engine takes for one window: images, motion, control images, texts, background."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fresco_backend.engine import coherence as engine
from fresco_backend.engine import denoise
from fresco_backend.engine.features import REFERENCE_ADAIN_EPSILON, FeatureOptimisation
from fresco_backend.engine.free_u import FreeU, free_u
from fresco_backend.engine.invert import Injection, Source
from fresco_backend.engine.keyframes import Window, adaptive_keys, cuts, regular_keys, split_windows
from fresco_backend.engine.latents import NoiseSharing
from fresco_backend.engine.sampler import Sampler
from fresco_backend.engine.tiles import Tiling
from fresco_backend.engine.tokenflow import Blend, Propagation, largest_window
from fresco_backend.files.sequences import frames_text
from fresco_backend.guides import motion
from fresco_backend.guides.background import moving_background
from fresco_backend.guides.guidances import Guidances
from fresco_backend.models.depth import sampled_frames
from fresco_backend.models.weights import Models
from fresco_backend.render import prompts
from fresco_backend.render.control_images import control_images
from fresco_backend.render.ingest import Ingested, ingested
from fresco_backend.render.job import Job
from fresco_protocol.errors import RangeOutside, WeightsUnsupported
from fresco_protocol.shot import Coherence, Compat, Control, Look, Shot, Task, frame_numbers

Inverted = Callable[[int], Tensor]


@dataclass(frozen=True, kw_only=True)
class Watched:
    """Frames of the plate as a window sees them. images: (N, 3, H, W) in [-1, 1], on the CPU.

    guidances: what holds them together, their background left out; None leaves each to itself.
    """

    images: Tensor
    guidances: Guidances | None


TEMPORAL_WEIGHT = 2.0  # the shot gives the spatial weight against it; the product is the reference's 100


def working_image(job: Job, number: int) -> Tensor:
    """A frame of the plate as the engine sees it: (3, H, W) in [-1, 1] at the working size."""
    return seen(job, ingested(job, job.plate.read(number)))


def seen(job: Job, frame: Ingested) -> Tensor:
    """What the engine sees of a frame of the plate that was read: (3, H, W) in [-1, 1] at the working size."""
    return job.working.of_part(frame.seen[None])[0]


def working_images(job: Job, numbers: Sequence[int]) -> Tensor:
    """Frames of the plate as the engine sees them: (N, 3, H, W) in [-1, 1] at the working size."""
    return torch.stack([working_image(job, number) for number in numbers])


def error_curve(job: Job) -> Iterator[float]:
    """How much each frame differs from the one before, read frame by frame; see `motion.error_curve`."""
    return motion.error_curve(ingested(job, job.plate.read(number)).seen for number in job.frames)


def needs_analysis(job: Job) -> bool:
    """Whether the keyframes depend on what the frames show."""
    keyframing = job.shot.keyframing
    chosen = keyframing.frames is not None or keyframing.synthesis.denoises_all
    return job.strength > 0 and not chosen and keyframing.minimum_gap != keyframing.maximum_gap


def choose_keyframes(job: Job, errors: Sequence[float] | None) -> tuple[int, ...]:
    """The plate numbers of the keyframes; none at strength 0, which keeps the plate.

    errors: the error curve, where `needs_analysis`. Raises RangeOutside.
    """
    keyframing = job.shot.keyframing
    if job.strength == 0:
        return ()
    if keyframing.synthesis.denoises_all:
        return job.frames
    if keyframing.frames is not None:
        return _artists_keyframes(job, frame_numbers(keyframing.frames))
    if errors is None:
        places = regular_keys(len(job.frames), keyframing.minimum_gap)
    else:
        places = adaptive_keys(errors, keyframing.minimum_gap, keyframing.maximum_gap)
        if not _is_reference(job):  # no frame is made of two scenes: each has keyframes of its own at its ends
            places = tuple(sorted({*places, *(place for cut in cuts(errors) for place in (cut - 1, cut))}))
    return tuple(job.frames[place] for place in places)


def _is_reference(job: Job) -> bool:
    return job.shot.coherence is not None and job.shot.coherence.compat is Compat.REFERENCE


def split(job: Job, keyframes: Sequence[int]) -> tuple[Window, ...]:
    """The windows of the keyframes, in plate numbers. Frame by frame (no coherence) they need no anchors.

    Where features are propagated a window holds more frames, of which as many as the shot says are pivots at a time.
    """
    keyframing = job.shot.keyframing
    size = keyframing.window
    if keyframing.synthesis.propagates:
        size = largest_window(size, keyframing.rotation)
    if not keyframes:
        return ()
    if job.shot.coherence is not None:
        return split_windows(keyframes, size)
    return tuple(Window(anchors=(), keys=tuple(keyframes[start : start + size]))
                 for start in range(0, len(keyframes), size))


def watched(job: Job, frames: Sequence[int], device: torch.device) -> Watched:
    """What a window begins with: images of its frames, and the motion between them where a constraint needs it."""
    images, constrained = working_images(job, frames), constraints(job.shot)
    if constrained is None:
        return Watched(images=images, guidances=None)
    cyclic = _is_reference(job)
    guidances = Guidances(images=images, coherence=constrained, background=None, cyclic=cyclic, device=device)
    if not job.shot.keyframing.synthesis.propagates:
        guidances.estimate(range(len(frames)))
    return Watched(images=images, guidances=guidances)


def window_input(
    job: Job, models: Models, window: Window, inverted: Inverted | None = None, *, seen: Watched | None = None
) -> denoise.WindowInput:
    """Everything that denoising needs of one window. inverted: gives the plate's inverted latents at a time step.

    seen: its frames, where they were `watched` before.
    """
    look = job.shot.look
    seen = seen or watched(job, window.frames, models.device)
    images = seen.images
    on_device = images.to(models.device)
    guidances = _with_background(job, window.frames, seen.guidances)
    everything = range(len(window.frames))
    smooths = guidances is not None and guidances.background is not None
    propagates = job.shot.keyframing.synthesis.propagates
    return denoise.WindowInput(
        frames=window.frames,
        images=on_device,
        prompt=prompts.encoded(models, look, window.frames),
        negative=models.encode_prompts([prompts.negative(job.shot)] * len(window.frames)),
        controls=_controls(job, models, images, window.frames),
        anchored=len(window.anchors),
        guidance=guidances.of(everything) if guidances and (smooths or not propagates) else None,
        source=_source(job.shot, models, len(window.frames), inverted),
        propagation=_propagation(job.shot, guidances) if propagates else None,
    )


def inverted_input(job: Job, models: Models, frames: Sequence[int], words: str) -> denoise.WindowInput:
    """What inverting frames of the plate needs: words in place of the prompt, and the shot's controls."""
    images, states = working_images(job, frames), models.encode_prompts([words] * len(frames))
    return denoise.WindowInput(frames=tuple(frames), images=images.to(models.device), prompt=states, negative=states,
                               controls=_controls(job, models, images, frames))


def overflow(job: Job, models: Models) -> WeightsUnsupported:
    """What is raised where a network's numbers overflow on the way, so that it gives no picture."""
    precision = str(models.dtype).removeprefix("torch.")
    return WeightsUnsupported(
        f"the model gives no picture: its numbers overflow in {precision}", where=job.shot.look.model,
        remedy="Leave its LoRAs or FreeU out, lower --guidance, or compute it where the precision is another: "
               "FRESCO_DEVICE=cpu.",
    )  # fmt: skip


def strengthened(look: Look, unet: Any) -> AbstractContextManager[None]:
    """The U-Net with FreeU while the context is open, where the look asks for it."""
    if look.free_u is None:
        return nullcontext()
    asked = look.free_u
    scales = FreeU(backbone=(asked.backbone_1, asked.backbone_2), skip=(asked.skip_1, asked.skip_2))
    return free_u(unet, scales)


def sampling(look: Look, coherence: Coherence | None = None, tiling: Tiling | None = None) -> denoise.Sampling:
    """How the engine samples a look whose choices are all made. tiling: None takes pictures as a whole.

    All noise is shared by all frames: fresh noise of each frame's own at each ancestral step, as the reference has it,
    is by far the largest part of its flicker (BENCHMARKS.md). `Compat.REFERENCE` brings it back.
    """
    if look.guidance is None or look.strength is None:
        raise ValueError("the look's strength or guidance is still open; `job.open_job` fills them in")
    as_reference = coherence is not None and coherence.compat is Compat.REFERENCE
    return denoise.Sampling(
        sharing=NoiseSharing.INITIAL if as_reference else NoiseSharing.ALL,
        steps=look.steps, strength=look.strength, guidance=look.guidance,
        sampler=Sampler(look.sampler.value), seed=look.seed, tiling=tiling,
    )  # fmt: skip


def _source(shot: Shot, models: Models, count: int, inverted: Inverted | None) -> Source | None:
    """The plate on its way to noise, for `count` frames."""
    if inverted is None:
        return None
    editing = shot.editing
    injection = Injection(attention=editing.attention, convolution=editing.convolution)
    return Source(
        latents=inverted, caption=models.encode_prompts([editing.caption] * count),
        injection=injection if shot.task is Task.EDIT else None,
    )  # fmt: skip


def _propagation(shot: Shot, guidances: Guidances | None) -> Propagation:
    as_reference = shot.coherence is not None and shot.coherence.compat is Compat.REFERENCE
    return Propagation(
        radix=shot.keyframing.rotation, blend=Blend.REFERENCE if as_reference else Blend.LINEAR,
        guidance=lambda places: None if guidances is None else guidances.of(places),
    )  # fmt: skip


def constraints(shot: Shot) -> engine.Coherence | None:
    """The constraints of a shot in the engine's terms; None is frame by frame.

    An edit has its structure from the plate's own features, so that nothing else compares with them, and steps that
    are deterministic, beside which smoothing distorts the background (arXiv 2512.03905).
    """
    if shot.task is Task.TRANSLATE:
        return engine_coherence(shot.coherence) if shot.coherence else None
    if shot.coherence is None:  # injection needs to know the window, and nothing of its motion
        return engine.Coherence(cross_frame=False, spatial=None, temporal=None, features=None, pixels=None)
    optimisation = shot.coherence.optimisation and replace(shot.coherence.optimisation, spatial_weight=0)
    return engine_coherence(replace(shot.coherence, spatial=None, optimisation=optimisation, background=None))


def engine_coherence(shot: Coherence) -> engine.Coherence:
    """The constraints of a translation in the engine's terms."""
    features = None
    if shot.optimisation is not None:
        features = engine.FeatureGuidance(
            optimisation=FeatureOptimisation(
                iterations=shot.optimisation.iterations,
                learning_rate=shot.optimisation.learning_rate,
                temporal_weight=TEMPORAL_WEIGHT,
                spatial_weight=shot.optimisation.spatial_weight * TEMPORAL_WEIGHT or None,
                spatial_squared=shot.optimisation.spatial_squared,
                conditional_only=shot.optimisation.conditional_only,
            ),
            until_timestep=shot.optimisation.until_timestep,
        )
        if shot.compat is Compat.REFERENCE:
            exact = replace(features.optimisation, adain_epsilon=REFERENCE_ADAIN_EPSILON)
            features = replace(features, optimisation=exact)
    spatial = temporal = None
    if shot.spatial is not None:
        spatial = engine.SpatialGuidance(temperature=shot.spatial.temperature, steps=shot.spatial.steps)
    if shot.temporal is not None:
        temporal = engine.TemporalGuidance(
            temperature=shot.temporal.temperature, until_timestep=shot.temporal.until_timestep
        )
    pixels = None
    if shot.background is not None:
        pixels = engine.PixelSmoothing(sharp=shot.compat is not Compat.REFERENCE)
    return engine.Coherence(
        cross_frame=shot.cross_frame,
        spatial=spatial,
        temporal=temporal,
        features=features,
        pixels=pixels,
    )


def _artists_keyframes(job: Job, numbers: Sequence[int]) -> tuple[int, ...]:
    outside = sorted(set(numbers) - set(job.frames))
    if outside:
        raise RangeOutside(f"keyframe {outside[0]} is not a frame of the shot", where="keyframing.frames",
                           remedy=f"Choose keyframes among its frames, {frames_text(job.frames)}")
    return tuple(sorted(numbers))


def _controls(job: Job, models: Models, images: Tensor, frames: Sequence[int]) -> tuple[denoise.Control, ...]:
    return tuple(_control(job, models, control, images, frames) for control in job.shot.look.controls or ())


def _control(job: Job, models: Models, control: Control, images: Tensor, frames: Sequence[int]) -> denoise.Control:
    drawn = control_images(
        job, models, control, images, frames, lambda: working_images(job, sampled_frames(job.frames))
    )
    return denoise.Control(
        network=models.controlnets[control], images=drawn.to(models.device),
        strength=control.strength, start=control.start, end=control.end,
    )  # fmt: skip


def _with_background(job: Job, frames: Sequence[int], guidances: Guidances | None) -> Guidances | None:
    """What holds the frames together, with the background where that is smoothed; None leaves each to itself."""
    if guidances is None or guidances.coherence.pixels is None:
        return guidances
    return replace(guidances, background=_background(job, frames, guidances))


def _background(job: Job, frames: Sequence[int], guidances: Guidances) -> Tensor:
    """What is not the artist's foreground; without a matte what moves as the camera does: (N, 1, H, W) in [0, 1]."""
    if job.matte is None:
        return moving_background(guidances.motion)
    foreground = torch.stack([torch.from_numpy(job.matte_at(number)) for number in frames])[:, None]
    return 1 - job.working.to_working(foreground)
