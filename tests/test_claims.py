# SPDX-License-Identifier: Apache-2.0
"""Claims on products of a job: one process has each, dead ones lose theirs, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from fresco_backend.events import Waited
from fresco_backend.render import claims
from fresco_backend.render.claims import Claims
from fresco_protocol.errors import DiskFull, OutputDenied

ROOT = Path(__file__).parents[1]


class Clock:
    """Monotonic seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ours(tmp_path: Path, clock: Clock) -> Iterator[Claims]:
    with Claims(tmp_path / "claims", expiry=60, clock=clock) as made:
        yield made


def foreign(folder: Path, product: str, pid: int = 1, host: str = "another") -> Path:
    """The claim of a process elsewhere."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{product}.0"
    path.write_text(json.dumps({"host": host, "pid": pid}), encoding="utf-8")
    return path


def dead_process() -> int:
    """The id of a process of this machine that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_a_product_has_one_claimant_until_it_is_released(ours: Claims, tmp_path: Path) -> None:
    with Claims(tmp_path / "claims") as others:
        assert ours.take("window.0")
        assert not others.take("window.0")
        assert others.take("window.1")
        assert others.owner("window.0").startswith(f"process {os.getpid()} on ")
        ours.release("window.0")
        assert others.take("window.0")
    assert ours.take("window.0")


def test_names_that_begin_alike_are_not_taken_for_each_other(ours: Claims) -> None:
    assert all(ours.take(product) for product in ("frame.1", "frame.10", "frame.-1", "frame"))


def test_nothing_is_left_at_the_end(ours: Claims, tmp_path: Path) -> None:
    ours.take("window.0")
    ours.take("frame.1001")
    ours.close()
    assert not (tmp_path / "claims").exists()
    ours.release("frame.1001")  # twice does no harm


def test_the_end_of_one_process_leaves_the_claims_of_others(ours: Claims, tmp_path: Path) -> None:
    theirs = foreign(tmp_path / "claims", "window.1")
    ours.take("window.0")
    ours.close()
    assert list((tmp_path / "claims").iterdir()) == [theirs]


def test_a_claim_that_nobody_touches_is_superseded(ours: Claims, clock: Clock, tmp_path: Path) -> None:
    theirs = foreign(tmp_path / "claims", "window.0")
    assert not ours.take("window.0")
    clock.now = 60
    assert not ours.take("window.0")
    clock.now = 61
    assert ours.take("window.0")
    ours.release("window.0")
    assert not theirs.exists()


def test_a_touch_keeps_a_claim(ours: Claims, clock: Clock, tmp_path: Path) -> None:
    theirs = foreign(tmp_path / "claims", "window.0")
    for clock.now in (0, 50, 100, 150):
        os.utime(theirs, (clock.now, clock.now))
        assert not ours.take("window.0")


def test_a_sleeper_that_wakes_up_does_not_end_the_claim_of_its_successor(clock: Clock, tmp_path: Path) -> None:
    sleeper, successor, third = (Claims(tmp_path / "claims", expiry=60, clock=clock) for _ in range(3))
    assert sleeper.take("window.0")
    assert not successor.take("window.0")
    clock.now = 61
    assert successor.take("window.0")
    sleeper.release("window.0")
    assert not third.take("window.0")
    successor.close()
    assert third.take("window.0")
    third.close()


def test_of_two_that_see_a_stale_claim_one_gets_it(clock: Clock, tmp_path: Path) -> None:
    foreign(tmp_path / "claims", "window.0")
    first, second = (Claims(tmp_path / "claims", expiry=60, clock=clock) for _ in range(2))
    assert not first.take("window.0")
    assert not second.take("window.0")
    clock.now = 61
    assert [first.take("window.0"), second.take("window.0")] == [True, False]
    first.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there a dead process is known by its silence alone")
def test_a_dead_process_of_this_machine_is_known_at_once(ours: Claims, tmp_path: Path) -> None:
    gone = dead_process()
    foreign(tmp_path / "claims", "window.0", pid=gone, host=claims._host())
    foreign(tmp_path / "claims", "window.1", pid=gone)
    foreign(tmp_path / "claims", "window.2", pid=os.getpid(), host=claims._host())
    assert [ours.take(f"window.{place}") for place in range(3)] == [True, False, False]


def test_a_claim_without_words_is_somebodys(ours: Claims, tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "window.0.0").touch()
    assert not ours.take("window.0")
    assert ours.owner("window.0") == "another process"


def test_others_are_those_that_live(ours: Claims, clock: Clock, tmp_path: Path) -> None:
    folder = tmp_path / "claims"
    assert ours.take("window.0") and not ours.others()
    foreign(folder, "frame.1", pid=dead_process(), host=claims._host())
    assert not ours.others()
    foreign(folder, "frame.2")
    assert ours.others() and ours.others("frame.") and not ours.others("window.")
    clock.now += 61
    assert not ours.others(), "nobody touched it while this process watched"


def test_a_folder_that_another_process_removes_meanwhile_is_no_error(
        ours: Claims, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one to give a claim up removes the folder: between any two calls of this process."""
    monkeypatch.setattr(Path, "is_dir", lambda _path: True)  # it was there a moment ago
    assert ours.take("window.0")
    ours.release("window.0")
    (tmp_path / "claims").rmdir()
    assert ours.owner("window.0") == "another process"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="this user may write anywhere")
def test_a_folder_that_refuses_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputDenied):
        Claims(tmp_path / "claims").take("window.0")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here is always full")
def test_a_full_disk_leaves_no_claim_that_others_would_wait_for(
        ours: Claims, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a file still fits on a full disk, and its words do not."""
    usual = Path.open

    def full(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        usual(path, mode, *rest, **options).close()
        return open("/dev/full", "w", encoding="utf-8")  # noqa: PTH123, closed by who asked for it

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(DiskFull):
            ours.take("window.0")
    assert list((tmp_path / "claims").iterdir()) == []
    assert ours.take("window.0")


RACE = """
import sys
from pathlib import Path
from fresco_backend.render.claims import Claims
with Claims(Path(sys.argv[1])) as claims:
    won = [product for product in range(200) if claims.take(f"frame.{product}")]
    print(*won)
    sys.stdout.flush()
    sys.stdin.read()
"""


def test_processes_that_race_share_the_products_out(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / room) for room in ("backend", "protocol"))}
    racers = [subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path / "claims")], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, env=environment) for _ in range(3)]
    won = [list(map(int, (racer.stdout.readline() if racer.stdout else "").split())) for racer in racers]
    for racer in racers:
        racer.communicate()
    assert sorted(product for products in won for product in products) == list(range(200))
    assert not (tmp_path / "claims").exists()


HOLDER = """
import sys, time
from pathlib import Path
from fresco_backend.render.claims import Claims
from fresco_backend.interruption import interruptible
with interruptible():
    try:
        with Claims(Path(sys.argv[1])) as claims:
            print(claims.take("window.0"), flush=True)
            time.sleep(60)
    except KeyboardInterrupt:
        raise SystemExit(143) from None
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(("sent", "code", "left"), [(signal.SIGTERM, 143, False), (signal.SIGKILL, -9, True)])
def test_a_process_that_is_ended_loses_its_claims(sent: signal.Signals, code: int, left: bool, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / room) for room in ("backend", "protocol"))}
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "claims")], stdout=subprocess.PIPE,
                              text=True, env=environment)
    with holder, Claims(tmp_path / "claims") as ours:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert not ours.take("window.0")
        holder.send_signal(sent)
        assert holder.wait() == code
        assert (tmp_path / "claims" / "window.0.0").exists() == left
        assert ours.take("window.0")


def test_what_ran_elsewhere_is_settled_by_a_touch_or_by_silence(
        ours: Claims, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "POLL", 0.0)
    theirs = foreign(tmp_path / "claims", "overwriting.1")
    foreign(tmp_path / "claims", "window.1", pid=os.getpid(), host=claims._host())  # which can be asked
    waiting = ours.settled()
    said = next(waiting)
    assert (said.product, said.owner, said.seconds) == ("shot", "process 1 on another", 60)
    clock.now = 20
    assert next(waiting).seconds == 40
    os.utime(theirs, (20, 20))
    assert ended(waiting) is True
    (tmp_path / "claims" / "window.1.0").unlink()
    with Claims(tmp_path / "claims", expiry=60, clock=clock) as others:
        waiting = others.settled()
        next(waiting)
        clock.now += 61
        assert ended(waiting) is False
        assert ended(others.settled()) is False, "at once"


def ended(waiting: Generator[Waited, None, bool]) -> bool:
    """What a generator gives at its end, which is now."""
    with pytest.raises(StopIteration) as end:
        next(waiting)
    return bool(end.value.value)
