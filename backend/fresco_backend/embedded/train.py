# SPDX-License-Identifier: Apache-2.0
"""Train the embedded model from scratch: `python -m fresco_backend.embedded.train STAGE --photos DIR ... --work DIR`.

Stages, in order: data, autoencoder, diffusion, export, evaluate. The first three resume from what they find in the work
folder; a stage that is killed loses at most the minutes since its last checkpoint. Seeded; bfloat16 on CPU and CUDA.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from . import architecture, captions, evaluate, photos
from .dct import DctAutoencoder
from .looks import LookName
from .samples import Batch, Pairs

CHECKPOINT_SECONDS = 180
LOG_STEPS = 25
# A channel of deviation d becomes one of deviation d**0.3: low frequencies still outlive the noise longest.
WHITENING = 0.7
SPOILT_SHARE = 0.6  # of the autoencoder's samples
LATENT_ERROR = 0.3  # at most, where a latent channel of natural pictures has a deviation of about 1
PLATE_START_SHARE = 0.75
STRENGTH = 0.6
GUIDANCE = 3.0
EDIT_GUIDANCE = 2.5  # BENCHMARKS.md, "Editing": from 4 on colours burn out


def log(work: Path, stage: str, **figures: float) -> None:
    """One JSON line of figures, to the work folder and to the terminal."""
    line = json.dumps({"stage": stage, **{name: round(value, 5) for name, value in figures.items()}})
    with (work / f"{stage}.jsonl").open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def save_atomically(state: object, path: Path) -> None:
    partial = path.with_suffix(".part")
    torch.save(state, partial)
    partial.rename(path)


# Stage: autoencoder ---------------------------------------------------------------------------------------------------


def measured_gains(images: Tensor) -> tuple[float, ...]:
    """Factors per latent channel that whiten natural pictures part of the way; mean variance 1."""
    plain = DctAutoencoder()
    deviations: Tensor = plain.encode(images).latent_dist.mode().std(dim=(0, 2, 3))
    gains = deviations ** -WHITENING
    gains /= ((gains * deviations) ** 2).mean().sqrt()
    return tuple(round(value, 5) for value in gains.tolist())


def picture_batches(folders: list[Path], side: int, batch: int) -> Iterator[Tensor]:
    """Endless batches (batch, 3, side, side) in [-1, 1]: random crops, kept for a few uses as decoding is slow.

    Half of them are stylised, for the decoder must restore ink lines and brush strokes as well as photographs.
    """
    crops = [c for path in photos.list_photos(folders) if not photos.is_held_out(path) for c in photos.crops_of(path)]
    rng = np.random.default_rng(1)
    pool: list[Tensor] = []
    while True:
        for _ in range(batch // 4 or 1):
            image = photos.read_crop(crops[rng.integers(len(crops))])
            if rng.random() < 0.5:
                image = photos.stylise(photos.draw_looks(rng), image, rng)
            pool.append(torch.from_numpy(image).permute(2, 0, 1) * 2 - 1)
        pool = pool[-512:]
        batch_of = [pool[i] for i in rng.integers(len(pool), size=batch)]
        corners = rng.integers(0, (photos.SIDE - side) // 8 + 1, size=(batch, 2)) * 8
        yield torch.stack([x[:, y : y + side, z : z + side] for x, (y, z) in zip(batch_of, corners, strict=True)])


def spoilt(latents: Tensor, rng: np.random.Generator) -> Tensor:
    """Latents (N, C, h, w) of which most carry the errors that denoised ones have, each its own share of them.

    Neighbouring blocks of a diffusion do not fit each other as those of a photograph do: a decoder that saw only
    photographs leaves their edges as a grid.
    """
    share = torch.from_numpy(rng.uniform(0, LATENT_ERROR, len(latents)) * (rng.random(len(latents)) < SPOILT_SHARE))
    noise = torch.from_numpy(rng.standard_normal(latents.shape, dtype=np.float32))
    return latents + share.float()[:, None, None, None] * noise


def train_autoencoder(options: argparse.Namespace) -> None:
    """Measure the gains, then train the restoration network on the transform's errors and on those of a diffusion."""
    path = options.work / "autoencoder.pt"
    batches, rng = picture_batches(options.photos, side=96, batch=16), np.random.default_rng(2)
    if path.exists():
        state = torch.load(path, weights_only=True)
    elif options.init is not None:
        exported: DctAutoencoder = DctAutoencoder.from_pretrained(options.init / "vae")
        state = {"step": 0, "gains": exported.config["gains"], "model": exported.restoration.float().state_dict()}
    else:
        state = {"step": 0, "gains": measured_gains(torch.cat([next(batches) for _ in range(12)]))}
    autoencoder = DctAutoencoder(gains=state["gains"])
    optimiser = torch.optim.AdamW(autoencoder.restoration.parameters(), lr=1e-3, betas=(0.9, 0.99))
    if "model" in state:
        autoencoder.restoration.load_state_dict(state["model"])
    if "optimiser" in state:
        optimiser.load_state_dict(state["optimiser"])
    saved, running = time.monotonic(), 0.0
    for step in range(state["step"], options.steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 100, max(0.02, (options.steps - step) / (0.5 * options.steps)))
        images = next(batches)
        with torch.no_grad():
            degraded = autoencoder.inverse_transform(spoilt(autoencoder.encode(images).latent_dist.mode(), rng))
        with torch.autocast(images.device.type, torch.bfloat16):
            correction = autoencoder.restoration(degraded)
        error = degraded + correction.float() - images
        loss = error.square().mean() + 0.05 * error.abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        running = 0.98 * running + 0.02 * float(error.detach().square().mean())
        if step % 50 == 0 or time.monotonic() - saved > CHECKPOINT_SECONDS or step == options.steps:
            before = (degraded - images).square().mean()
            psnr = [10 * math.log10(4 / float(value)) for value in (before, error.detach().square().mean())]
            log(options.work, "autoencoder", step=step, psnr_before=psnr[0], psnr_after=psnr[1])
        if time.monotonic() - saved > CHECKPOINT_SECONDS or step in (0, options.steps):
            state = {"step": step, "gains": state["gains"], "model": autoencoder.restoration.state_dict()}
            save_atomically(state | {"optimiser": optimiser.state_dict()}, path)
            saved = time.monotonic()


def load_autoencoder(work: Path, init: Path | None = None) -> DctAutoencoder:
    """The autoencoder as trained so far; where no stage trained it, that of the exported model `init`."""
    path = work / "autoencoder.pt"
    if init is not None and not path.exists():
        autoencoder: DctAutoencoder = DctAutoencoder.from_pretrained(init / "vae")
        autoencoder.float().eval()
        return autoencoder
    state = torch.load(path, weights_only=True)
    autoencoder = DctAutoencoder(gains=state["gains"])
    if "model" in state:
        autoencoder.restoration.load_state_dict(state["model"])
    autoencoder.eval()
    return autoencoder


# Stage: diffusion and control -----------------------------------------------------------------------------------------


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

    Written once, so that the vocabulary never changes under a checkpoint.
    """
    path = work / "nouns.json"
    if not path.exists():
        nouns = {noun for shard in photos.load_shards(work) for noun in shard.nouns if noun}
        if init is not None:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(init / "tokenizer")
            nouns |= set(tokenizer.get_vocab()) - {*tokenizer.all_special_tokens, *captions.vocabulary()}
        path.write_text(json.dumps(sorted(nouns)))
    nouns_kept: list[str] = json.loads(path.read_text())
    return nouns_kept


def train_diffusion(options: argparse.Namespace) -> None:
    """Train U-Net, ControlNet and text encoder together by `--phases PIXELS:BATCH:SAMPLES,...`; the last cools down.

    With `--minutes` the whole run has cooled down and ends when they are over, however far the phases are.
    """
    began = time.monotonic()
    trainer = Trainer(options.work, options.device, options.rate, options.init)
    emphasis = dict(options.emphasise)
    pairs = Pairs(options.work, trainer.networks.tokenizer, emphasis, options.device)
    phases = [tuple(map(int, phase.split(":"))) for phase in options.phases.split(",")]
    ends = np.cumsum([samples for _, _, samples in phases])
    saved, figures = time.monotonic(), LossByTime(options.device)
    while trainer.samples < ends[-1]:
        phase = int(np.searchsorted(ends, trainer.samples, side="right"))
        pixels, size, length = phases[phase]
        left = int(ends[-1] - trainer.samples) / length if phase == len(phases) - 1 else 1.0
        if options.minutes is not None:
            left = min(left, 1 - (time.monotonic() - began) / (60 * options.minutes))
            if left <= 0:
                break
        rng = np.random.default_rng((1, trainer.step))
        losses, timesteps = diffusion_loss(trainer.networks, pairs.draw(rng, pixels, size), rng, options.unheard)
        trainer.update(losses.mean(), 0.05 + 0.95 * left, size)
        figures.add(losses.detach(), timesteps)
        if trainer.step % LOG_STEPS == 0:
            seconds = time.monotonic() - began
            log(options.work, "diffusion", step=trainer.step, samples=trainer.samples, pixels=pixels, seconds=seconds,
                **figures.taken())  # fmt: skip
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            trainer.save()
            saved = time.monotonic()
            if len(photos.list_shards(options.work)) > pairs.shards:  # made meanwhile
                del pairs  # the device need not have room for both
                pairs = Pairs(options.work, trainer.networks.tokenizer, emphasis, options.device)
    trainer.save()


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


def export(options: argparse.Namespace) -> None:
    """Write the model folder: the moving average in float16, configs, and the index that names the parts."""
    folder: Path = options.output
    Trainer(options.work, torch.device("cpu"), options.rate).averaged().save(folder)
    load_autoencoder(options.work, options.init).half().save_pretrained(folder / "vae", safe_serialization=True)
    index = {
        "_class_name": "StableDiffusionControlNetPipeline",
        "_fresco_controls": ["soft-edge"],
        "_fresco_strength": STRENGTH,
        "_fresco_guidance": GUIDANCE,
        "_fresco_edit_controls": ["soft-edge"],
        "_fresco_edit_strength": STRENGTH,
        "_fresco_edit_guidance": EDIT_GUIDANCE,
        "_fresco_working_size": 384,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "controlnet": ["diffusers", "ControlNetModel"],
        "vae": ["fresco_backend.embedded.dct", "DctAutoencoder"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    weights = sorted(folder.rglob("*.safetensors"))
    names = [path.relative_to(folder).as_posix() for path in weights]
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in weights]
    sums = [f"{digest}  {name}" for digest, name in zip(hashes, names, strict=True)]
    (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n")


def look_weight(text: str) -> tuple[LookName, float]:
    """A look and how much more often than others it is drawn: "charcoal:2". Raises ValueError."""
    name, weight = text.split(":")
    return LookName(name), float(weight)


def parser() -> argparse.ArgumentParser:
    """The command line of the training."""
    result = argparse.ArgumentParser(prog="python -m fresco_backend.embedded.train", description=__doc__)
    result.add_argument("stage", choices=["data", "autoencoder", "diffusion", "export", "evaluate"])
    result.add_argument("--photos", type=Path, nargs="+", default=[], help="folders of photographs")
    result.add_argument("--work", type=Path, required=True, help="folder of shards and checkpoints")
    result.add_argument("--looks-per-crop", type=int, default=photos.LOOKS_PER_CROP, help="of the data stage")
    result.add_argument("--processes", type=int, default=2, help="of the data stage")
    result.add_argument("--steps", type=int, default=6000, help="steps of the autoencoder")
    result.add_argument("--phases", default="128:32:200000,256:16:100000", help="PIXELS:BATCH:SAMPLES,...")
    result.add_argument("--minutes", type=float, help="of the diffusion stage, cooled down at their end")
    result.add_argument("--unheard", type=float, default=0.0,
                        help="share of the diffusion stage's samples that the U-Net sees without its ControlNet")
    result.add_argument("--rate", type=float, default=5e-4, help="learning rate of the diffusion stage")
    result.add_argument("--emphasise", type=look_weight, nargs="*", default=[], metavar="LOOK:WEIGHT",
                        help="looks that are drawn more often in the diffusion stage")
    result.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    result.add_argument("--output", type=Path, default=Path(__file__).with_name("model"), help="folder for export")
    result.add_argument("--init", type=Path,
                        help="exported model from which a stage without checkpoint starts; its autoencoder, too")
    evaluate.add_options(result)
    return result


def main() -> None:
    """Run one stage."""
    options = parser().parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.stage == "data":
        photos.make_shards(
            options.photos, load_autoencoder(options.work, options.init), options.work,
            looks=options.looks_per_crop, processes=options.processes,
        )  # fmt: skip
    else:
        stages: dict[str, Callable[[argparse.Namespace], object]] = {
            "autoencoder": train_autoencoder, "diffusion": train_diffusion, "export": export,
            "evaluate": evaluate.evaluate,
        }  # fmt: skip
        stages[options.stage](options)


if __name__ == "__main__":
    main()
