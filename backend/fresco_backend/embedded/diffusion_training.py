# SPDX-License-Identifier: Apache-2.0
"""The stage `diffusion`: U-Net, ControlNet and text encoder learn together to say what a plate is in a look."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from . import architecture, captions, photos, training_files
from .samples import Batch, Pairs
from .training_files import log, save_atomically

LOG_STEPS = 25
PLATE_START_SHARE = 0.75


def draw_timesteps(rng: np.random.Generator, count: int) -> Tensor:
    """Train time steps, more of them where a translation of a plate spends its steps (below 750)."""
    low, high = rng.integers(0, 750, size=count), rng.integers(750, 1000, size=count)
    return torch.from_numpy(np.where(rng.random(count) < 0.88, low, high))


def noisy_start(batch: Batch, timesteps: Tensor, signal: Tensor, rng: np.random.Generator) -> Tensor:
    """The clean latents to which noise is added: the target, or (in most samples) a mix of its plate and the target.

    SDEdit starts from the plate at some time step and never sees the unknown result: an ancestral run that started at T
    and always predicted the target carries the plate with a share of SNR(T) / SNR(t) when it comes to t. `signal`:
    cumulative products of the schedule, (1000,). The start T is drawn between t (at least 300) and 900.
    """
    snr = signal / (1 - signal)
    lowest = timesteps.clamp(min=300)
    starts = lowest + (torch.from_numpy(rng.random(len(timesteps))) * (901 - lowest).clamp(min=1)).long()
    share = (snr[starts.clamp(max=999)] / snr[timesteps]).clamp(max=1)
    share[torch.from_numpy(rng.random(len(timesteps)) >= PLATE_START_SHARE)] = 0
    return torch.lerp(batch.target, batch.plate, share[:, None, None, None].to(batch.target))


def diffusion_loss(
    networks: architecture.Networks, batch: Batch, rng: np.random.Generator, unheard: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Loss per sample (N,) of the velocity and the time steps (N,); steps with little noise count less.

    unheard: share of the samples that the U-Net sees without its ControlNet.
    """
    timesteps = draw_timesteps(rng, len(batch.target))
    clean = noisy_start(batch, timesteps, networks.scheduler.alphas_cumprod, rng)
    device = batch.target.device
    chance = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    noise = torch.randn(batch.target.shape, generator=chance, device=device)
    cumulative = networks.scheduler.alphas_cumprod[timesteps].to(device)
    signal, sigma = (value.sqrt()[:, None, None, None] for value in (cumulative, 1 - cumulative))
    noisy = signal * clean + sigma * noise
    velocity = (signal * noisy - batch.target) / sigma  # the velocity whose x0 is the target, whatever the start was
    timesteps = timesteps.to(device)
    heard = torch.from_numpy(rng.random(len(noisy)) >= unheard).to(device)[:, None, None, None]
    with torch.autocast(device.type, torch.bfloat16):
        words = networks.text_encoder(batch.tokens).last_hidden_state
        down, middle = networks.controlnet(noisy, timesteps, words, batch.edges, return_dict=False)
        predicted = networks.unet(
            noisy, timesteps, words, down_block_additional_residuals=[each * heard for each in down],
            mid_block_additional_residual=middle * heard,
        ).sample  # fmt: skip
    weight = 5 / (cumulative / (1 - cumulative) + 5)
    return weight * (predicted.float() - velocity).square().mean(dim=(1, 2, 3)), timesteps


def read_weights(networks: architecture.Networks, folder: Path) -> None:
    """Give networks the weights of an exported model. Raises ValueError when it was trained on other words."""
    words = type(networks.tokenizer).from_pretrained(folder / "tokenizer").get_vocab()
    if words != networks.tokenizer.get_vocab():
        raise ValueError(f"{folder} knows other words than these shards: train from scratch, or on its own data")
    for name in ("unet", "controlnet", "text_encoder"):
        network = getattr(networks, name)
        network.load_state_dict(type(network).from_pretrained(folder / name).state_dict())


class Trainer:
    """Networks, their optimiser and moving average, and how far they have come."""

    def __init__(self, work: Path, device: torch.device, rate: float, init: Path | None = None) -> None:
        torch.manual_seed(0)
        nouns = {word for noun in nouns_of(work, init) for word in noun.split()}
        self.networks = architecture.build([*captions.vocabulary(), *nouns])
        if init is not None:
            read_weights(self.networks, init)
        self.modules = nn.ModuleDict(
            {"unet": self.networks.unet, "control": self.networks.controlnet, "text": self.networks.text_encoder}
        ).to(device)
        if device.type == "cuda":
            self.modules.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {name: value.detach().clone() for name, value in self.modules.named_parameters()}
        parameters = self.modules.parameters()
        self.optimiser = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self.path, self.rate, self.step, self.samples = work / "diffusion.pt", rate, 0, 0
        if self.path.exists():
            state = torch.load(self.path, weights_only=True, map_location=device)
            self.modules.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.average, self.step, self.samples = state["average"], state["step"], state["samples"]

    def update(self, loss: Tensor, scale: float, samples: int) -> None:
        """One step of Adam at `scale` times the learning rate, and of the moving average."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * scale * min(1, (self.step + 1) / 200)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
        self.optimiser.step()
        self.step, self.samples = self.step + 1, self.samples + samples
        decay = min(0.999, (self.step + 1) / (self.step + 10))
        parameters = dict(self.modules.named_parameters())
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in parameters.values()], 1 - decay)

    def save(self) -> None:
        state = {"model": self.modules.state_dict(), "optimiser": self.optimiser.state_dict(), "average": self.average}
        save_atomically(state | {"step": self.step, "samples": self.samples}, self.path)

    def averaged(self) -> architecture.Networks:
        """The networks with the moving average in place of the last weights."""
        self.modules.load_state_dict(self.average, strict=False)
        return self.networks


def nouns_of(work: Path, init: Path | None = None) -> list[str]:
    """All class names in the shards, sorted, and the words of the model that a training starts from.

    Written once, so that the vocabulary never changes under a checkpoint. Raises ValueError where no shards are yet.
    """
    path = work / "nouns.json"
    if not path.exists():
        shards = photos.load_shards(work)
        if not shards:
            raise ValueError(f"{work} holds no shard: run the data stage first")
        nouns = {noun for shard in shards for noun in shard.nouns if noun}
        if init is not None:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(init / "tokenizer")
            nouns |= set(tokenizer.get_vocab()) - {*tokenizer.all_special_tokens, *captions.vocabulary()}
        path.write_text(json.dumps(sorted(nouns)))
    nouns_kept: list[str] = json.loads(path.read_text())
    return nouns_kept


class Phase(NamedTuple):
    """A stretch of a training. pixels: side of its pictures. batch: samples a step. samples: of the whole phase."""

    pixels: int
    batch: int
    samples: int


class Timetable:
    """Which phase a training is in, and how far it has cooled down."""

    def __init__(self, phases: str, minutes: float | None = None) -> None:
        """phases: "PIXELS:BATCH:SAMPLES,...", of which the last one cools down. minutes: from now on, in which the
        whole training cools down and after which it ends, however far its phases are; None sets no such limit.
        """
        self._phases = [Phase(*map(int, phase.split(":"))) for phase in phases.split(",")]
        self._ends = np.cumsum([phase.samples for phase in self._phases])
        self._minutes, self._began = minutes, time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time since the training began."""
        return time.monotonic() - self._began

    def at(self, samples: int) -> tuple[Phase, float] | None:
        """The phase after so many samples, and what is left of the cool-down, in (0, 1]; None when it is all over."""
        if samples >= self._ends[-1]:
            return None
        place = int(np.searchsorted(self._ends, samples, side="right"))
        phase = self._phases[place]
        left = int(self._ends[-1] - samples) / phase.samples if place == len(self._phases) - 1 else 1.0
        if self._minutes is not None:
            left = min(left, 1 - self.seconds / (60 * self._minutes))
        return (phase, left) if left > 0 else None


def train_diffusion(options: argparse.Namespace) -> None:
    """Train U-Net, ControlNet and text encoder together, by the timetable of `--phases` and `--minutes`.

    It resumes from its checkpoint, and takes in shards that are made while it trains.
    """
    timetable = Timetable(options.phases, options.minutes)
    trainer = Trainer(options.work, options.device, options.rate, options.init)
    emphasis = dict(options.emphasise)
    pairs = Pairs(options.work, trainer.networks.tokenizer, emphasis, options.device)
    record = TrainingLog(options.work, options.device, trainer, timetable)
    saved = time.monotonic()
    while (now := timetable.at(trainer.samples)) is not None:
        phase, left = now
        rng = np.random.default_rng((1, trainer.step))
        batch = pairs.draw(rng, phase.pixels, phase.batch)
        losses, timesteps = diffusion_loss(trainer.networks, batch, rng, options.unheard)
        trainer.update(losses.mean(), 0.05 + 0.95 * left, phase.batch)
        record.add(losses.detach(), timesteps, phase)
        if time.monotonic() - saved > training_files.CHECKPOINT_SECONDS:
            trainer.save()
            saved = time.monotonic()
            if len(photos.list_shards(options.work)) > pairs.shards:  # made meanwhile
                del pairs  # the device need not have room for both
                pairs = Pairs(options.work, trainer.networks.tokenizer, emphasis, options.device)
    trainer.save()
    record.end()


class TrainingLog:
    """The log of a training: a line every LOG_STEPS steps, and one where the training ends."""

    def __init__(self, work: Path, device: torch.device, trainer: Trainer, timetable: Timetable) -> None:
        self._work, self._trainer, self._timetable = work, trainer, timetable
        self._losses = LossByTime(device)
        self._written = trainer.step  # the step of the last line
        self._pixels = 0

    def add(self, losses: Tensor, timesteps: Tensor, phase: Phase) -> None:
        """Take in the losses (N,) at time steps (N,) of the step that was trained just now."""
        self._losses.add(losses, timesteps)
        self._pixels = phase.pixels
        if self._trainer.step % LOG_STEPS == 0:
            self._write()

    def end(self) -> None:
        """Write what is not written yet."""
        if self._trainer.step > self._written:
            self._write()

    def _write(self) -> None:
        log(self._work, "diffusion", step=self._trainer.step, samples=self._trainer.samples, pixels=self._pixels,
            seconds=self._timetable.seconds, **self._losses.taken())  # fmt: skip
        self._written = self._trainer.step


class LossByTime:
    """Mean losses by quarters of the time steps, summed where they are: a device need not wait to be read."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, 4, device=device)

    def add(self, losses: Tensor, timesteps: Tensor) -> None:
        """Take in losses (N,) at time steps (N,)."""
        self._sums.index_add_(1, timesteps // 250, torch.stack([losses, torch.ones_like(losses)]))

    def taken(self) -> dict[str, float]:
        """Give the means since the last time, by name."""
        sums, counts = self._sums
        means = (sums / counts.clamp(min=1)).tolist()
        self._sums.zero_()
        return {f"loss_{250 * quarter}": value for quarter, value in enumerate(means)}
