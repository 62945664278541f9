# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the true size of Stable Diffusion 1.5, 2.1 and XL, with random weights, through the whole command.

    python benchmarks/full_size.py {sd15,sd21,sdxl} --work DIR [further options of fresco render]

Makes the checkpoint with a ControlNet below DIR in diffusers' layout (float16, kept for the next time), renders five
frames of the demo's plate with it by `fresco render` in a process of its own, and prints one JSON line: bytes of the
checkpoint, seconds, the highest anonymous and resident memory in MiB (Linux, sampled ten times a second), frames
delivered. Resident counts the files that are mapped, which the system takes back when it likes. Random weights paint
nothing: this shows that a model of that size is found, fits, runs and is delivered.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from processes import memory
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from fresco_backend.commands.bench_models import SD_AUTOENCODER, SD_NET, random_network

PLATE = Path(__file__).parents[1] / "demo" / "plate" / "boat.####.exr"
PROMPT = "a watercolour painting"
QUICK = ("--steps=2", "--strength=1", "--working-size=256", "--min-gap=4", "--max-gap=4")
MIB = 2**20
CPU, HALF = torch.device("cpu"), torch.float16
# What diffusers' configurations of the families say and its classes do not have as defaults.
SD21_NET: dict[str, Any] = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20),
                            "use_linear_projection": True}  # fmt: skip
SDXL_NET: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True, "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
NETS = {"sd15": SD_NET, "sd21": SD21_NET, "sdxl": SDXL_NET}
WIDTH_L, WIDTH_H, WIDTH_G = 768, 1024, 1280  # of the text encoders CLIP ViT-L, OpenCLIP ViT-H and ViT-bigG


def main(words: Sequence[str] | None = None) -> None:
    """Makes a checkpoint, renders with it, and prints what that took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoint and of the frames")
    options, further = parser.parse_known_args(words)
    folder = options.work / options.family
    if not (folder / "controlnet" / "config.json").exists():  # which is written last
        FAMILIES[options.family]().save_pretrained(folder, safe_serialization=True)
        net = {name: value for name, value in NETS[options.family].items() if name != "up_block_types"}
        control: Any = random_network(ControlNetModel, net, CPU, HALF)
        control.save_pretrained(folder / "controlnet")
    command = [sys.executable, "-m", "fresco_backend.cli", "render", str(PLATE), "--frames=1001-1005",
               "-o", str(options.work / f"{options.family}-frames" / "look.####.exr"), "--prompt", PROMPT,
               "--model", str(folder), "--json", "--progress", "none", "--overwrite", *QUICK, *further]  # fmt: skip
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(json.dumps({"family": options.family, "checkpoint_bytes": size, **rendered(command)}))


def rendered(command: Sequence[str]) -> dict[str, float | int]:
    """What a render took. Raises SystemExit with its exit code where it fails."""
    began, peaks = time.monotonic(), {"RssAnon": 0, "VmRSS": 0}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            held = memory(process.pid)
            for name in peaks.keys() & held.keys():
                peaks[name] = max(peaks[name], held[name])
            time.sleep(0.1)
        said = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(process.returncode)
    events = [json.loads(line) for line in said.splitlines()]
    return {"seconds": round(time.monotonic() - began, 1), "anonymous_mib": peaks["RssAnon"] // MIB,
            "resident_mib": peaks["VmRSS"] // MIB, "frames": events[-1]["rendered"]}  # fmt: skip


def _stable_diffusion(net: dict[str, Any], text: CLIPTextModel, prediction: str) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        unet=random_network(UNet2DConditionModel, net, CPU, HALF), text_encoder=text, tokenizer=_tokenizer(),
        vae=random_network(AutoencoderKL, SD_AUTOENCODER, CPU, HALF), scheduler=_schedule(prediction),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False)  # fmt: skip


def _stable_diffusion_xl() -> StableDiffusionXLPipeline:
    vae = {**SD_AUTOENCODER, "scaling_factor": 0.13025, "force_upcast": True}
    return StableDiffusionXLPipeline(
        unet=random_network(UNet2DConditionModel, SDXL_NET, CPU, HALF), scheduler=_schedule("epsilon"),
        text_encoder=_text(CLIPTextModel, WIDTH_L, 12), tokenizer=_tokenizer(), tokenizer_2=_tokenizer(),
        text_encoder_2=_text(CLIPTextModelWithProjection, WIDTH_G, 32),
        vae=random_network(AutoencoderKL, vae, CPU, HALF))  # fmt: skip


def _text(kind: Any, width: int, layers: int) -> Any:
    """A text encoder of random weights, with heads of 64 channels as all CLIPs have them."""
    tokenizer = _tokenizer()
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=width // 64, projection_dim=width, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)  # fmt: skip
    return kind(config).eval().to(HALF)


def _tokenizer() -> CLIPTokenizer:
    """CLIP's, with the bytes alone as vocabulary: it takes any text, a token a character."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[], model_max_length=77)


def _schedule(prediction: str) -> DDIMScheduler:
    return DDIMScheduler(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                         clip_sample=False, steps_offset=1, prediction_type=prediction)  # fmt: skip


FAMILIES: dict[str, Callable[[], Any]] = {
    "sd15": lambda: _stable_diffusion(SD_NET, _text(CLIPTextModel, WIDTH_L, 12), "epsilon"),
    "sd21": lambda: _stable_diffusion(SD21_NET, _text(CLIPTextModel, WIDTH_H, 23), "v_prediction"),
    "sdxl": _stable_diffusion_xl,
}

if __name__ == "__main__":
    main()
