# SPDX-License-Identifier: Apache-2.0
"""What all tests share: no network, one thread, and a tiny model on disk."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# The hub's library reads this when it is imported: a test that reaches for the network fails at once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is: there is no GPU that its kernels could run on
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that tests start; see `_one_thread`

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny tensors gain nothing from threads, and on a busy machine each operation would wait for the slowest one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell starts its background jobs deaf to Ctrl-C, and the children of the tests would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own FRESCO_ variables must not decide what a test sees."""
    for variable in [name for name in os.environ if name.startswith("FRESCO_")]:
        monkeypatch.delenv(variable)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `tiny.save_pipeline`'s model, ControlNet included. Read only: a test that changes it copies it."""
    import tiny

    return tiny.save_pipeline(tmp_path_factory.mktemp("models") / "tiny")
