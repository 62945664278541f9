# SPDX-License-Identifier: Apache-2.0
"""The comparison with EbSynth, without EbSynth: what it is asked, what is kept, what is counted."""

from __future__ import annotations

import struct
from pathlib import Path

import ebsynth
import numpy as np
import pytest
import torch
from ebsynth import EbSynth, Guide, carried, measure, place, request
from in_betweens import Picture, parser_of
from shots import write_plate


def noise(*shape: int) -> Picture:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_a_request_shares_a_weight_out_among_the_channels_of_its_guide() -> None:
    style, colour, grey = noise(512, 512, 3), noise(512, 512, 3), noise(512, 512, 1)
    asked = request(style, [(colour, 255 - colour, 6.0), (grey, grey, 0.5)])
    numbers = struct.unpack("<10i8f", asked[:72])
    assert numbers[:10] == (3, 4, 512, 512, 5, 6, 12, 6, 5, 0)
    assert numbers[10:] == pytest.approx((3500, 1 / 3, 1 / 3, 1 / 3, 2, 2, 2, 0.5))
    pixels = np.frombuffer(asked[72:], np.uint8)
    assert len(pixels) == 512 * 512 * (3 + 4 + 4)
    assert pixels[:3].tolist() == style[0, 0].tolist()
    source, target = pixels[style.size :].reshape(2, 512, 512, 4)
    assert source[7, 9].tolist() == [*colour[7, 9], *grey[7, 9]]
    assert target[7, 9].tolist() == [*(255 - colour[7, 9]), *grey[7, 9]]


def test_a_guide_is_carried_along_the_flow() -> None:
    picture, flow = place(32), torch.zeros(2, 32, 32)
    assert picture[0, 31].tolist() == [255, 0, 0] and picture[31, 0].tolist() == [0, 255, 0]
    assert np.array_equal(carried(picture, (flow, flow)), picture)
    flow[0] = 3
    moved = carried(picture, (flow, -flow))
    assert np.array_equal(moved[:, :29], picture[:, 3:])
    assert np.abs(moved[:, 29:, 0].astype(int) - picture[:, 31:, 0]).max() < 32, "filled from what is beside it"


def test_what_was_made_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ebsynth.dll").write_bytes(b"a library")
    style, runs = noise(32, 32, 3), list[bytes]()

    def run(_: EbSynth, asked: bytes) -> Picture:
        runs.append(asked)
        return np.frombuffer(asked[-3 * style.size : -2 * style.size], np.uint8)

    monkeypatch.setattr(EbSynth, "_run", run)
    for _ in range(2):
        found, _ = EbSynth.opened(tmp_path / "ebsynth.dll", tmp_path)(style, [(style, style, 1.0)])
        assert np.array_equal(found, style), "its channels stay in order"
    assert len(runs) == 1
    EbSynth.opened(tmp_path / "ebsynth.dll", tmp_path)(style, [(style, style, 2.0)])
    assert len(runs) == 2


@pytest.mark.parametrize(("rebuild", "measures"), [([3, 6], 2), ([*range(1, 9)], 3)])
def test_a_clip_has_a_row(rebuild: list[int], measures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of EbSynth stands what it gets as the result before: plain warping along the flow."""

    def warped(_: EbSynth, style: Picture, guides: list[Guide]) -> tuple[Picture, float]:
        assert [guide[2] for guide in guides] == [6, 0.5, 2, 0.5]
        assert all(source.shape == target.shape == style.shape for source, target, _ in guides)
        return guides[-1][1], 7.0

    monkeypatch.setattr(EbSynth, "__call__", warped)
    options = parser_of(None).parse_args(["--size", "64", "--pictures", str(tmp_path / "look")])
    options.rebuild = rebuild
    cells = measure(str(write_plate(tmp_path / "plate", 10)), options, EbSynth.opened(tmp_path / "none", tmp_path))
    assert len(cells) == len(ebsynth.HEADINGS)
    for cell in cells[1:4]:
        psnr, ssim, *error = map(float, cell.split(" / "))
        assert psnr > 15 and 0.3 < ssim <= 1 and len(error) == measures - 2
    assert cells[4] == "7.0", "of one side"
    assert len(list((tmp_path / "look").iterdir())) == 1
