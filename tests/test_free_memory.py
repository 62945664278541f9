# SPDX-License-Identifier: Apache-2.0
"""What a device has to spare, by files as Linux writes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fresco_backend.render.free_memory import free_memory

CPU, GIB = torch.device("cpu"), 2**30


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def group(root: Path, path: str, limit: str, used: int, cached: int = 0) -> None:
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, proc__meminfo=f"MemTotal:  99999999 kB\nMemAvailable:   {8 * 2**20} kB\n",
          proc__self__cgroup="0::/farm/task\n")  # fmt: skip
    return tmp_path


def test_what_the_system_has_counts_where_no_group_limits(root: Path) -> None:
    group(root, "farm/task", "max", 3 * GIB)
    assert free_memory(CPU, root) == 8 * GIB


def test_the_tightest_group_above_the_process_counts(root: Path) -> None:
    group(root, "farm/task", str(16 * GIB), 3 * GIB)
    group(root, "farm", str(6 * GIB), 4 * GIB, cached=GIB)
    assert free_memory(CPU, root) == 3 * GIB


def test_a_full_group_has_nothing_to_spare(root: Path) -> None:
    group(root, "farm", str(GIB), 2 * GIB)
    assert free_memory(CPU, root) == 0


@pytest.mark.parametrize(("limit", "free"), [(2 * GIB, GIB), (0x7FFFFFFFFFFFF000, 8 * GIB)])
def test_groups_of_the_first_version_count_too(root: Path, limit: int, free: int) -> None:
    write(root, proc__self__cgroup="5:cpu:/other\n4:memory:/box\n")
    folder = root / "sys/fs/cgroup/memory/box"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(str(limit))
    (folder / "memory.usage_in_bytes").write_text(str(GIB))
    assert free_memory(CPU, root) == free


def test_where_nobody_tells_nothing_is_known(tmp_path: Path) -> None:
    assert free_memory(CPU, tmp_path) is None


def test_a_gpu_tells_and_what_torch_keeps_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2 * GIB, 9 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 3 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 2 * GIB)
    assert free_memory(torch.device("cuda:0")) == 3 * GIB
