# SPDX-License-Identifier: Apache-2.0
"""Frames from stylised keyframes in the scratch folder, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from burnt import write_movie
from shots import small_shot, write_plate

from fresco_backend.render import in_betweens
from fresco_backend.render.job import Job, open_job
from fresco_backend.render.windows import working_image

KEYS = (1003, 1007)


@pytest.fixture
def job(tiny_model: Path, tmp_path: Path) -> Iterator[Job]:
    """A job whose style is the negative of the plate."""
    shot = small_shot(write_plate(tmp_path / "plate"), tiny_model, tmp_path / "out" / "look.####.png")
    job = open_job(shot)
    for key in KEYS:
        job.scratch.save_key(key, -working_image(job, key))
    yield job
    job.close()


def test_every_frame_takes_the_style_of_the_keyframes_beside_it(job: Job) -> None:
    found = dict(in_betweens.stylised(job, job.frames, KEYS))
    assert list(found) == list(job.frames)
    for frame, image in found.items():
        assert (image + working_image(job, frame)).abs().mean() < 0.08
    for key in KEYS:
        assert torch.equal(found[key], job.scratch.load_key(key))


def test_a_frame_does_not_depend_on_which_others_are_wanted(job: Job) -> None:
    among = dict(in_betweens.stylised(job, job.frames, KEYS))
    for frame in (1001, 1005, 1009):
        ((_, alone),) = in_betweens.stylised(job, [frame], KEYS)
        assert torch.equal(alone, among[frame])


def test_frames_are_made_one_at_a_time(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counted(job: Job, number: int) -> torch.Tensor:
        read.append(number)
        return working_image(job, number)

    monkeypatch.setattr(in_betweens, "working_image", counted)
    frames = in_betweens.stylised(job, job.frames, KEYS)
    assert next(frames)[0] == 1001
    assert sorted(set(read)) == [1001, 1002, 1003]  # flow is composed from the keyframe on
    assert [number for number, _ in frames] == list(job.frames)[1:]
    assert sorted(set(read)) == list(job.frames)
    assert len(read) <= len(job.frames) + 2  # a keyframe is read once for each interval that it bounds


def test_intervals_side_by_side_give_the_same_bits(job: Job) -> None:
    alone = dict(in_betweens.stylised(job, job.frames, KEYS))
    threads = torch.get_num_threads()
    together = dict(in_betweens.stylised(job, job.frames, KEYS, workers=3))
    assert list(together) == list(alone)
    assert all(torch.equal(together[frame], alone[frame]) for frame in alone)
    assert torch.get_num_threads() == threads


def test_intervals_are_worked_on_side_by_side_where_there_are_threads_and_room(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def workers(threads: int, free: int | None) -> int:
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        monkeypatch.setattr(in_betweens, "free_memory", lambda _device: free)
        return in_betweens.workers_for(job)

    seen, plate = (width * height for width, height in (job.working.padded, job.plate.size))
    each = 4 * (in_betweens.BYTES_A_PIXEL * seen + in_betweens.BYTES_A_PLATE_PIXEL * plate)
    assert [workers(threads, None) for threads in (1, 2, 8, 16, 64)] == [1, 1, 2, 4, 4]
    assert [workers(64, free) for free in (0, each, 3 * each, 100 * each)] == [1, 1, 3, 4]


def test_a_movie_is_read_by_one_thread(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shot = small_shot(write_movie(tmp_path / "plate.mov", range(9)), tiny_model, tmp_path / "out" / "look.####.png")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    job = open_job(shot)
    assert in_betweens.workers_for(job) == 1
    job.close()
