# SPDX-License-Identifier: Apache-2.0
"""A standard benchmark of this machine: what a keyframe costs by stage, and FRESCO against the plain step.

The plate is synthetic and moves; every stage is the code that renders. On a CPU the ratio is of CPU seconds, which
other work on the machine hardly changes; all other seconds are of wall time. Calls of the networks take so little of it
on other devices that each is made five times there, and the median counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from fresco_backend import kept_memory
from fresco_backend.commands.bench_models import Shape, Subject, subject
from fresco_backend.engine.coherence import Coherence, Guide, WindowGuidance, guided
from fresco_backend.engine.correspondence import Correspondence
from fresco_backend.engine.latents import decode, encode
from fresco_backend.engine.long_flow import FlowPair, LongFlow
from fresco_backend.engine.propagate import StyledKey, propagate
from fresco_backend.engine.sampler import run_steps
from fresco_backend.engine.schedule import NoiseSchedule, Step
from fresco_backend.guides import motion
from fresco_backend.models.device import choose_device, choose_dtype
from fresco_backend.render.record import peak_memory

STEPS, STRENGTH = 20, 0.75  # the reference's run: 15 steps of 20
SPEED = 3.0  # pixels a frame
GAP = 4  # frames from one keyframe to the next
REPEATS = 5  # of each call of the networks where the device is not a CPU


class Stage(Enum):
    """What is timed. REFERENCE: the plate's own features, once a window. FIRST_STEP, STEP, LATE_STEP: steps of a window
    with all constraints, without spatial guidance, and without the feature optimisation."""

    FLOW = "flow"
    PATHS = "paths"
    ENCODE = "encode"
    REFERENCE = "reference"
    PLAIN_STEP = "plain_step"
    FIRST_STEP = "first_step"
    STEP = "step"
    LATE_STEP = "late_step"
    DECODE = "decode"
    IN_BETWEEN = "in_between"


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is benchmarked: keyframes of height x width pixels in one window, with guidance or without."""

    shape: Shape = Shape.EMBEDDED
    keyframes: int = 4
    height: int = 512
    width: int = 512
    guidance: bool = True


@dataclass(kw_only=True)
class Measured:
    """seconds_per_keyframe: of wall time, by stage; an in-between is one frame. peak_memory: bytes, with plain steps
    and with FRESCO's, without the decoder. ratio_to_plain: a step with the feature optimisation over a plain one;
    run_ratio: of 15 steps.
    """

    load: Load
    device: str
    precision: str
    seconds_per_keyframe: dict[Stage, float] = field(default_factory=dict)
    peak_memory_plain: int | None = None
    peak_memory: int | None = None
    ratio_to_plain: float = 0.0
    run_ratio: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The figures as a JSON object."""
        load = self.load
        return {
            "shape": load.shape.value, "keyframes": load.keyframes, "size": [load.width, load.height],
            "guidance": load.guidance, "device": self.device, "precision": self.precision,
            "threads": torch.get_num_threads(), "torch": torch.__version__,
            "seconds_per_keyframe": {stage.value: each for stage, each in self.seconds_per_keyframe.items()},
            "peak_memory_plain_bytes": self.peak_memory_plain, "peak_memory_bytes": self.peak_memory,
            "ratio_to_plain": self.ratio_to_plain, "run_ratio": self.run_ratio,
        }  # fmt: skip


@torch.no_grad()
def measure(load: Load, told: Callable[[Stage], None] = lambda stage: None) -> Measured:
    """Measure a load on this machine's device. told: is called as each stage begins."""
    device = choose_device()
    dtype = choose_dtype(device)
    measured = Measured(load=load, device=str(device), precision=str(dtype).removeprefix("torch."))
    bench = _Bench(subject(load.shape, device, dtype), load, measured, told)
    bench.plain()
    measured.peak_memory_plain = _peak(device)
    kept_memory.give_back()  # as between the windows of a render
    bench.fresco()
    measured.peak_memory = _peak(device)
    bench.rest()
    return measured


class _Bench:
    def __init__(self, models: Subject, load: Load, measured: Measured, told: Callable[[Stage], None]) -> None:
        self._models, self._load, self._measured, self._told = models, load, measured, told
        self._spent: dict[Stage, float] = {}
        self._plate = moving_plate(load.keyframes, load.height, load.width)
        self._images = self._plate.to(models.device)
        schedule = NoiseSchedule.of(
            DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
        )
        self._steps = run_steps(schedule, STEPS, STRENGTH)
        branches = 2 if load.guidance else 1
        latents = self._timed(Stage.ENCODE, lambda: encode(models.vae, self._images[:1]), frames=1)
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
        self._rows = noise.repeat(branches * load.keyframes, 1, 1, 1).to(models.device, models.dtype)
        self._control = (self._images / 2 + 0.5).repeat(branches, 1, 1, 1).to(models.dtype)
        self._text = models.text.repeat(branches * load.keyframes, 1, 1)

    def plain(self) -> None:
        """Steps of frames by themselves; the first one, a warm-up, would flatter FRESCO by some hundredths."""
        self._step(self._steps[1])
        self._timed(Stage.PLAIN_STEP, lambda: self._step(self._steps[1]), repeatedly=True)

    def fresco(self) -> None:
        """A window's constants, its reference, and its three kinds of steps."""
        flow = self._timed(Stage.FLOW, lambda: motion.window_flow(self._plate).to(self._models.device))
        correspondence = Correspondence(frames=self._images, flow=flow)
        size = tuple(self._rows.shape[2:])
        self._timed(Stage.PATHS, lambda: correspondence.paths(*size))
        coherence = Coherence()
        with guided(self._models.unet, WindowGuidance(coherence=coherence, correspondence=correspondence)) as guide:
            self._timed(Stage.REFERENCE, lambda: self._record(guide), repeatedly=True)
            for stage, step in self._kinds(coherence).items():
                guide.at(step)
                again = stage is not Stage.FIRST_STEP  # which pays for the window's constants
                self._timed(stage, lambda step=step: self._step(step), repeatedly=again)  # type: ignore[misc]
        self._compare(coherence)

    def rest(self) -> None:
        """The decoder, with one frame, and the in-betweens of two keyframes."""
        latents = self._rows[:1].float()
        self._timed(Stage.DECODE, lambda: decode(self._models.vae, latents), frames=1)
        plates = moving_plate(GAP + 1, self._load.height, self._load.width)
        keys = [StyledKey(frame=key, image=-plates[key]) for key in (0, GAP)]

        def estimate(first: int, second: int) -> FlowPair:
            there, back = motion.estimate_finely(plates[first][None], plates[second][None])
            return there[0], back[0]

        flow = LongFlow(range(GAP + 1), plates.__getitem__, estimate)
        between = propagate(range(1, GAP), keys, plates.__getitem__, flow)
        self._timed(Stage.IN_BETWEEN, lambda: list(between), frames=GAP - 1)

    def _kinds(self, coherence: Coherence) -> dict[Stage, Step]:
        """A step of each kind, the usual one after the first, which pays for constants."""
        late = next(step for step in self._steps if not coherence.optimises(step))
        return {Stage.FIRST_STEP: self._steps[0], Stage.STEP: self._steps[1], Stage.LATE_STEP: late}

    def _compare(self, coherence: Coherence) -> None:
        plain = self._spent[Stage.PLAIN_STEP]
        optimised = sum(coherence.optimises(step) for step in self._steps) - 1
        run = self._spent[Stage.REFERENCE] + self._spent[Stage.FIRST_STEP] + optimised * self._spent[Stage.STEP]
        run += (len(self._steps) - 1 - optimised) * self._spent[Stage.LATE_STEP]
        self._measured.ratio_to_plain = self._spent[Stage.STEP] / plain
        self._measured.run_ratio = run / (len(self._steps) * plain)

    def _record(self, guide: Guide) -> None:
        with guide.recording():
            self._models.unet(self._rows, self._steps[-1].timestep, encoder_hidden_states=self._text)

    def _step(self, step: Step) -> Tensor:
        """One call of the networks, as `engine.denoise` makes it."""
        down, middle = self._models.control(
            self._rows, step.timestep, encoder_hidden_states=self._text, controlnet_cond=self._control,
            return_dict=False,
        )  # fmt: skip
        output: Tensor = self._models.unet(
            self._rows, step.timestep, encoder_hidden_states=self._text, return_dict=False,
            down_block_additional_residuals=down, mid_block_additional_residual=middle,
        )[0]  # fmt: skip
        return output

    def _timed(
        self, stage: Stage, work: Callable[[], Any], frames: int | None = None, *, repeatedly: bool = False
    ) -> Any:
        """The result of the work; its seconds are noted."""
        self._told(stage)
        on_cpu = self._models.device.type == "cpu"
        spent: list[float] = []
        seconds: list[float] = []
        for _ in range(REPEATS if repeatedly and not on_cpu else 1):
            _synchronise(self._models.device)
            began, before = time.perf_counter(), time.process_time()
            result = work()
            _synchronise(self._models.device)
            seconds.append(time.perf_counter() - began)
            spent.append(time.process_time() - before)
        self._spent[stage] = statistics.median(spent if on_cpu else seconds)
        self._measured.seconds_per_keyframe[stage] = statistics.median(seconds) / (frames or self._load.keyframes)
        return result


def moving_plate(frames: int, height: int, width: int) -> Tensor:
    """A texture of several scales that pans by SPEED, (N, 3, height, width) in [-1, 1]."""
    margin = round(SPEED * frames)
    generator = torch.Generator().manual_seed(0)
    texture = torch.zeros(1, 3, height, width + margin)
    for cell in (4, 16, 64):
        coarse = torch.randn(1, 3, height // cell + 1, (width + margin) // cell + 1, generator=generator)
        texture += torch.nn.functional.interpolate(coarse, size=texture.shape[2:], mode="bicubic")
    steps = [round(SPEED * number) for number in range(frames)]
    return torch.cat([texture[..., step : step + width] for step in steps]).div(3).tanh()


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(device: torch.device) -> int | None:
    """Bytes: of the process on a CPU, where the system tells it, of the device on CUDA."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else peak_memory()
