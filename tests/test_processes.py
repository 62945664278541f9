# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks read of other processes."""

import os
import subprocess
import sys
import time

import pytest
from processes import memory, processor

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's /proc")


def test_the_processor_time_of_a_process_is_what_it_has_used() -> None:
    before, began = processor(os.getpid()), time.process_time()
    while time.process_time() - began < 0.3:
        pass
    assert processor(os.getpid()) - before == pytest.approx(0.3, abs=0.1)


def test_the_memory_of_a_process_grows_with_what_it_holds() -> None:
    before = memory(os.getpid())
    held = b"x" * 2**26
    grown = memory(os.getpid())["VmRSS"] - before["VmRSS"]
    assert len(held) * 0.9 < grown < len(held) * 1.5
    assert 0 < before["RssAnon"] <= before["VmRSS"]


def test_a_process_that_has_ended_holds_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    assert memory(ended.pid) == {}
