# SPDX-License-Identifier: Apache-2.0
"""Tiles of a picture that is larger than the model likes: they cover it, agree where they overlap, and bound memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.vae import Encoder
from original_names import save_single_file
from shots import delivered, rendered, small_shot, with_delivery, with_look, write_plate
from test_denoise import FAST, FULL, bits, guidance_of, latents_of, models, same, text, window_of
from test_predictors import EDIT, propagating, source_of

import tiny
from fresco_backend.engine.denoise import Control, DiffusionModels, WindowInput
from fresco_backend.engine.flow import Flow
from fresco_backend.engine.invert import Injection
from fresco_backend.engine.keyframes import Window
from fresco_backend.engine.schedule import Step
from fresco_backend.engine.tiles import TiledPredictor, Tiling, autoencoder_in_tiles
from fresco_backend.events import Planned, Warned
from fresco_backend.models.single_file import clip_tokenizer
from fresco_backend.render.estimate import device_memory, loaded
from fresco_backend.render.job import open_job
from fresco_backend.terminal.plan_text import plan_lines

__all__ = ["models"]  # a fixture

SMALL = Tiling(side=8, overlap=2)


def large(count: int, *, guided: bool = False, height: int = 64, width: int = 128) -> WindowInput:
    """A window of several tiles of SMALL."""
    plate = tiny.moving_plate(count, (height, width))
    return WindowInput(
        frames=tuple(range(1001, 1001 + count)), images=plate.images(), prompt=text(count, 1), negative=text(count, 2),
        guidance=guidance_of(plate, FULL, background=True) if guided else None,
    )  # fmt: skip


@contextmanager
def shapes_seen(unet: Any) -> Iterator[set[tuple[int, ...]]]:
    seen: set[tuple[int, ...]] = set()
    hook = unet.register_forward_pre_hook(lambda _, args: seen.add(tuple(args[0].shape)))
    try:
        yield seen
    finally:
        hook.remove()


@pytest.mark.parametrize("whole", [(8, 8), (8, 40), (64, 114), (17, 9)])
def test_tiles_are_of_one_size_and_their_weights_sum_to_one(whole: tuple[int, int]) -> None:
    tiles, total = SMALL.tiles(whole), torch.zeros(whole)
    for tile, weight in zip(tiles, SMALL.weights(whole), strict=True):
        assert tile[2:] == (8, 8) and tuple(weight.shape) == (8, 8)
        tile.of(total, whole).add_(weight)
    assert total.sub(1).abs().max() < 1e-6
    assert tiles[0][:2] == (0, 0) and tiles[-1][:2] == (whole[0] - 8, whole[1] - 8)


def test_neighbours_share_what_was_asked_for_and_fade_into_each_other() -> None:
    tiling, whole = Tiling(side=64, overlap=16), (64, 232)
    lefts = [tile.left for tile in tiling.tiles(whole)]
    assert all(64 - (after - before) >= 16 for before, after in pairwise(lefts))
    steps = [weight[0].diff().abs().max().item() for weight in tiling.weights(whole)]
    assert max(steps) <= 1 / 16 + 1e-6, "no tile ends at once"


def test_a_picture_within_one_tile_is_the_same_bits(models: DiffusionModels) -> None:
    window = window_of(2, FULL)
    assert torch.equal(latents_of(models, window), latents_of(models, window, replace(FAST, tiling=SMALL)))


def test_what_is_said_of_each_position_alone_does_not_depend_on_tiles() -> None:
    class Pointwise:
        """Branches that say of each position what it alone decides."""

        unet = None

        def plate_features(self, *_: Any) -> None:
            return None

        def predict(self, latents: torch.Tensor, step: Step, *_: Any, **__: Any) -> torch.Tensor:
            return torch.sin(latents * step.timestep)

    latents = torch.randn(2, 4, 24, 40, generator=torch.Generator().manual_seed(0))
    window = replace(large(2, width=320), images=torch.zeros(2, 3, 192, 320))
    tiled: Any = TiledPredictor(lambda _: Pointwise(), window, lambda: None, SMALL, (24, 40))  # type: ignore[arg-type, return-value]
    step = Step(index=0, count=1, timestep=3, following=None, beginning=3)
    assert (tiled(latents, step) - torch.sin(latents * 3)).abs().max() < 1e-6


def test_the_network_sees_tiles_only_and_is_left_as_it_was(models: DiffusionModels) -> None:
    before = bits(models.unet)
    with shapes_seen(models.unet) as seen:
        latents = latents_of(models, large(3, guided=True), replace(FAST, tiling=SMALL))
    assert {shape[2:] for shape in seen} == {(8, 8)}
    assert latents.shape[2:] == (8, 16) and latents.isfinite().all()
    assert same(before, bits(models.unet))


def test_controls_and_texts_act_in_every_tile(models: DiffusionModels) -> None:
    window, tiled = large(2), replace(FAST, tiling=SMALL)
    edges = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(1))
    control = Control(network=tiny.tiny_controlnet(models.unet), images=edges)
    plain, controlled = (latents_of(models, each, tiled) for each in (window, replace(window, controls=(control,))))
    moved = (plain - controlled).abs().mean(dim=(0, 1))
    assert (moved > 0).all()


@pytest.mark.parametrize("propagated", [False, True])
def test_edits_and_propagated_features_work_in_tiles(models: DiffusionModels, propagated: bool) -> None:
    window = large(3)
    given = replace(window, source=source_of(models, window, None if propagated else Injection()))
    if propagated:
        given = propagating(window, source_of(models, window, None), 3)
    with shapes_seen(models.unet) as seen:
        latents = latents_of(models, given, replace(EDIT, tiling=SMALL))
    assert {shape[2:] for shape in seen} == {(8, 8)} and latents.isfinite().all()


def test_no_edge_shows_where_tiles_meet(models: DiffusionModels) -> None:
    """A still grey plate: what a tile's edge does would stand at the same place in every frame."""
    window = replace(large(1, width=256), images=torch.zeros(1, 3, 64, 256))
    latents = latents_of(models, window, replace(FAST, tiling=SMALL))
    steps = latents.diff(dim=-1).abs().mean(dim=(0, 1, 2))
    edges = {tile.left for tile in SMALL.tiles((8, 32))} | {tile.left + 8 for tile in SMALL.tiles((8, 32))}
    inner = [place - 1 for place in sorted(edges) if 0 < place < 32]
    elsewhere = [place for place in range(31) if place not in inner]
    assert steps[inner].mean() < 1.25 * steps[elsewhere].mean()


def test_motion_that_leaves_a_part_is_occluded_there() -> None:
    still = torch.zeros(1, 2, 8, 8)
    right = still.clone()
    right[:, 0] = 3
    flow = Flow(forward=right, backward=-right, forward_occlusion=still[:, 0], backward_occlusion=still[:, 0])
    part = flow.cropped(0, 0, 8, 6)
    assert part.size == (8, 6)
    assert part.forward_occlusion[0, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert part.backward_occlusion[0, 0].tolist() == [1, 1, 1, 0, 0, 0]


def test_an_autoencoder_works_in_tiles_while_it_is_asked_to() -> None:
    vae = tiny.tiny_vae()
    before = (vae.use_tiling, vae.tile_sample_min_size, vae.tile_latent_min_size)
    with autoencoder_in_tiles(vae, 128):
        assert (vae.use_tiling, vae.tile_sample_min_size, vae.tile_latent_min_size) == (True, 128, 16)
    assert (vae.use_tiling, vae.tile_sample_min_size, vae.tile_latent_min_size) == before


def test_an_autoencoder_of_one_file_works_in_the_models_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a file does not say how large its pictures are, and diffusers takes them for 32 pixels."""
    networks = tiny.tiny_unet(layers=2), tiny.tiny_vae(), tiny.tiny_text_encoder(clip_tokenizer())
    model = save_single_file(tmp_path / "m.safetensors", *networks)
    plate = write_plate(tmp_path / "plate", 1)
    shot = with_delivery(small_shot(plate, model, tmp_path / "out" / "l.####.png"), working_size=192, tile_size=128)
    sizes: set[tuple[int, ...]] = set()
    whole = Encoder.forward

    def noted(encoder: Encoder, picture: torch.Tensor) -> torch.Tensor:
        sizes.add(tuple(picture.shape[-2:]))
        result: torch.Tensor = whole(encoder, picture)
        return result

    monkeypatch.setattr(Encoder, "forward", noted)
    rendered(with_look(shot, controls=()))
    assert max(sizes) == (128, 128)


def test_tiles_that_share_as_much_as_they_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot share"):
        Tiling(side=8, overlap=8)


def test_frame_by_frame_is_tiled_too(models: DiffusionModels) -> None:
    assert latents_of(models, replace(large(2), guidance=None), replace(FAST, tiling=SMALL)).shape == (2, 4, 8, 16)


def test_a_shot_larger_than_its_model_likes_is_tiled_and_says_so(tmp_path: Path, tiny_model: Path) -> None:
    shot = with_delivery(small_shot(write_plate(tmp_path / "plate", 3), tiny_model, tmp_path / "out" / "look.####.png"),
                         working_size=128)  # fmt: skip
    events = rendered(shot)
    planned = next(event for event in events if isinstance(event, Planned))
    assert (planned.working_size, planned.tiles) == ((128, 128), 9)
    assert "in 9 tiles" in "\n".join(plan_lines(planned))
    said = [event.text for event in events if isinstance(event, Warned) and event.code == "tiles"]
    assert len(said) == 1 and "9 overlapping tiles of 64x64" in said[0]
    assert delivered(events) == [1001, 1002, 1003]
    document = json.loads((tmp_path / "out" / "look.png.fresco.json").read_text(encoding="utf-8"))
    assert (document["plate"]["tiles"], document["shot"]["delivery"]["tile_size"]) == (9, 64)


def test_tiles_are_left_out_on_request_and_cost_less_memory(tmp_path: Path, tiny_model: Path) -> None:
    shot = with_delivery(small_shot(write_plate(tmp_path / "plate", 3), tiny_model, tmp_path / "out" / "look.####.png"),
                         working_size=128)  # fmt: skip
    window = Window(anchors=(), keys=(1001, 1003))
    with closing(open_job(shot)) as tiled, closing(open_job(with_delivery(shot, tile_size=8192))) as whole:
        assert whole.tiling is None and len(whole.tiles) == 1
        memory = [device_memory(job, [window], torch.float32) - loaded(job, torch.float32) for job in (tiled, whole)]
        assert memory[0] < 0.3 * memory[1]
        assert tiled.identity != whole.identity
