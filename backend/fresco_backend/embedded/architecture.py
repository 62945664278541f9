# SPDX-License-Identifier: Apache-2.0
"""The embedded model's networks before training: sizes chosen for two CPU cores, Stable Diffusion 1.5's structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusers import ControlNetModel, DDPMScheduler, UNet2DConditionModel
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

LATENT_CHANNELS = 32
CHANNELS = (64, 128, 192, 256)
TEXT_WIDTH = 128
TEXT_LENGTH = 24
DOWN_BLOCKS = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
UP_BLOCKS = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3


def tokenizer_of(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of whole lower-case words; words that it does not know become <unk>."""
    specials = ["<pad>", "<start>", "<end>", "<unk>"]
    vocabulary = {word: index for index, word in enumerate([*specials, *sorted(set(words) - set(specials))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[a-z0-9]+"), "removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[(word, vocabulary[word]) for word in ("<start>", "<end>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=TEXT_LENGTH,
        pad_token="<pad>", bos_token="<start>", eos_token="<end>", unk_token="<unk>",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The trainable parts of the embedded model, apart from its autoencoder."""

    unet: UNet2DConditionModel
    controlnet: ControlNetModel
    text_encoder: CLIPTextModel
    tokenizer: PreTrainedTokenizerFast
    scheduler: DDPMScheduler

    def save(self, folder: Path) -> None:
        """Write the parts as folders of diffusers in float16, in files below 20 MB."""
        for name in ("unet", "controlnet", "text_encoder"):
            getattr(self, name).half().save_pretrained(folder / name, max_shard_size="18MB", safe_serialization=True)
        self.tokenizer.save_pretrained(folder / "tokenizer")
        self.scheduler.save_pretrained(folder / "scheduler")


def build(words: Sequence[str]) -> Networks:
    """Untrained networks; about 27 million weights, of which 19 are the U-Net's and 8 the ControlNet's."""
    tokenizer = tokenizer_of(words)
    shared = {
        "in_channels": LATENT_CHANNELS, "block_out_channels": CHANNELS, "layers_per_block": 1,
        "down_block_types": DOWN_BLOCKS, "cross_attention_dim": TEXT_WIDTH, "norm_num_groups": 16,
        # diffusers names the number of heads so; heads of 32 channels
        "attention_head_dim": tuple(channels // 32 for channels in CHANNELS),
    }  # fmt: skip
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=TEXT_LENGTH, projection_dim=TEXT_WIDTH,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return Networks(
        unet=UNet2DConditionModel(out_channels=LATENT_CHANNELS, sample_size=64, up_block_types=UP_BLOCKS, **shared),
        controlnet=ControlNetModel(conditioning_embedding_out_channels=(8, 16, 32, 64), **shared),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        scheduler=DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
            steps_offset=1, clip_sample=False, timestep_spacing="leading",
        ),
    )  # fmt: skip
