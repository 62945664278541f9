# SPDX-License-Identifier: Apache-2.0
"""What decides the picture: the features that FRESCO acts on, or what goes around them.

    python benchmarks/what_decides.py [--clips PLATE=FIRST,SECOND ...] [--model MODEL]

Two frames of a plate are denoised side by side with the same noise, each by itself. Then it is done again while a part
of what runs through the U-Net is exchanged between the two, and nothing else. If that part decided everything, each
frame would become the other (100 %); if it decided nothing, each would stay as it was (0 %). Exchanged are, in turn,
the inner features at the entrance of the decoder's blocks, where FRESCO's optimisation acts, the output of
self-attention in its last two, where FRESCO's attention acts, and the skip connections. Percentages need not add up.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

from coherence import CAPTION, DEMO, PROMPT, Clip, Stretch, models_of
from diffusers.models.attention_processor import Attention
from torch import Tensor
from variants import Variant

Exchange = Callable[[Any], AbstractContextManager[None]]
ALONE = Variant(name="alone", title="each frame by itself, all noise shared")


def _exchanged(features: Tensor) -> Tensor:
    """Give the two frames of each branch of guidance in the other order: (branches * 2, ...)."""
    exchanged: Tensor = features.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    return exchanged


@contextmanager
def inner_features(unet: Any) -> Iterator[None]:
    """What comes into each block of the decoder from the block before it."""
    with _entrances(unet, lambda kwargs: {"hidden_states": _exchanged(kwargs["hidden_states"])}):
        yield


@contextmanager
def skip_connections(unet: Any) -> Iterator[None]:
    """What comes into each block of the decoder from the encoder (and the control)."""
    with _entrances(
        unet, lambda kwargs: {"res_hidden_states_tuple": tuple(map(_exchanged, kwargs["res_hidden_states_tuple"]))}
    ):
        yield


@contextmanager
def attention(unet: Any) -> Iterator[None]:
    """What self-attention adds in the decoder's last two blocks."""
    with ExitStack() as stack:
        for block in unet.up_blocks[-2:]:
            for module in block.modules():
                if isinstance(module, Attention) and not module.is_cross_attention:
                    hook = module.register_forward_hook(lambda _module, _inputs, output: _exchanged(output))
                    stack.callback(hook.remove)
        yield


@contextmanager
def _entrances(unet: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[None]:
    with ExitStack() as stack:
        for block in unet.up_blocks:
            hook = block.register_forward_pre_hook(
                lambda _block, inputs, kwargs: (inputs, kwargs | change(kwargs)), with_kwargs=True
            )
            stack.callback(hook.remove)
        yield


EXCHANGES: dict[str, Exchange] = {
    "inner features": inner_features, "self-attention": attention, "skip connections": skip_connections,
}  # fmt: skip


def shares(stretch: Stretch) -> Iterator[tuple[str, float]]:
    """Give each exchange and how far it took the pictures of two frames to each other: 0 not at all, 1 altogether.

    That is the component of the change along the difference of the frames, as a part of that difference.
    """
    own, _ = stretch.render(ALONE)
    apart = own.flip(0) - own
    for name, exchange in EXCHANGES.items():
        with exchange(models_of(stretch.job.shot.look).unet):
            changed, _ = stretch.render(ALONE)
        yield name, float(((changed - own) * apart).sum() / apart.square().sum())


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the clips and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    demo = replace(DEMO, frames="1001,1021")
    add("--clips", nargs="+", type=Clip.parse, default=[demo], metavar="PLATE=FIRST,SECOND")
    add("--model", default="embedded", help="as of fresco render (default: %(default)s)")
    add("--prompt", default=PROMPT, help="(default: %(default)s)")
    add("--strength", type=float, help="(default: what the model recommends)")
    add("--steps", type=int, default=20, help="(default: %(default)s)")
    add("--seed", type=int, default=0, help="(default: %(default)s)")
    add("--working-size", type=int, default=256, help="short side in pixels (default: %(default)s)")
    options = parser.parse_args(argv, argparse.Namespace(frames=2, caption=CAPTION))
    print("exchanged between two frames", *EXCHANGES, sep=" | ")
    for clip in options.clips:
        stretch = Stretch(clip, options)
        with closing(stretch.job):
            print(stretch.name, *(f"{100 * share:.1f} %" for _, share in shares(stretch)), sep=" | ", flush=True)


if __name__ == "__main__":
    main()
