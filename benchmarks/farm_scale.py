# SPDX-License-Identifier: Apache-2.0
"""How a shot scales over the nodes of a farm: stages measured on this machine, the farm simulated.

    python benchmarks/farm_scale.py                  measures the demo shot's first 12 frames, then simulates
    python benchmarks/farm_scale.py --measured 9.1 6.5 0.41
    python benchmarks/farm_scale.py --measured 9 60 0.4 --node-hour 2.5

The simulation gives each free node the next task that may run, as a farm does, with the steps of `fresco farm bundle`:
one task for the keyframes of a shot, chunks of frames after it, one verification after those. Transfers, queues and
failures are left out: real farms are slower, never faster.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COSTS = ("start", "keyframe", "frame")
NODES = (1, 2, 4, 8, 16, 32, 64)
PROGRAM = (sys.executable, "-c", "from fresco_backend.cli import main; raise SystemExit(main())")
MEASURED_FRAMES, MEASURED_KEYFRAMES = "1001-1012", "1001-1009x4,1012"


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of one node. start: of every task (imports, opening the shot). keyframe, frame: of each one."""

    start: float
    keyframe: float
    frame: float


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A shot as a farm sees it. gap: frames from one keyframe to the next. chunk: frames of one task."""

    frames: int = 2000
    gap: int = 6
    chunk: int = 48


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """makespan: seconds until the last shot is verified. busy: node-seconds of all tasks together."""

    makespan: float
    busy: float


def steps(costs: Costs, shape: Shape) -> list[list[float]]:
    """Seconds of every task of each step of a shot; a step begins when the one before it has ended."""
    whole, rest = divmod(shape.frames, shape.chunk)
    chunks = [shape.chunk] * whole + ([rest] if rest else [])
    keyframes = costs.start + costs.keyframe * -(-shape.frames // shape.gap)
    verify = costs.start + 0.1 * costs.frame * shape.frames  # decoding is about a tenth of making a frame
    return [[keyframes], [costs.start + costs.frame * chunk for chunk in chunks], [verify]]


def simulate(shots: Sequence[list[list[float]]], nodes: int) -> Outcome:
    """List scheduling: whenever a node is free it takes the first task that may run, shots in their order."""
    waiting = [(0.0, shot, 0) for shot in range(len(shots))]  # a step and the time from which its tasks may run
    free = [0.0] * nodes
    makespan = busy = 0.0
    while waiting:
        ready, shot, step = heapq.heappop(waiting)
        ends = []
        for seconds in shots[shot][step]:
            end = max(ready, heapq.heappop(free)) + seconds
            heapq.heappush(free, end)
            ends.append(end)
            busy += seconds
        makespan = max(makespan, *ends)
        if step + 1 < len(shots[shot]):
            heapq.heappush(waiting, (max(ends), shot, step + 1))
    return Outcome(makespan=makespan, busy=busy)


def table(costs: Costs, shape: Shape, node_hour: float) -> list[str]:
    """The rows of BENCHMARKS.md: one shot, and twenty shots at once."""
    one, twenty = [steps(costs, shape)], [steps(costs, shape)] * 20
    alone = {count: simulate(shots, 1).makespan for count, shots in ((1, one), (20, twenty))}
    rows = ["| nodes | one shot, h | speed-up | node-seconds a frame | cost a frame | 20 shots: speed-up |",
            "|---|---|---|---|---|---|"]
    for nodes in NODES:
        single, many = simulate(one, nodes), simulate(twenty, nodes)
        each = single.busy / shape.frames
        rows.append(f"| {nodes} | {single.makespan / 3600:.2f} | {alone[1] / single.makespan:.2f} | {each:.2f} | "
                    f"{each / 3600 * node_hour:.5f} | {alone[20] / many.makespan:.1f} |")
    chain = steps(costs, shape)[0][0]
    rows.append(f"\nThe chain of the windows alone takes {chain / 3600:.2f} h: no number of nodes makes one shot more "
                f"than {alone[1] / chain:.2f} times as fast.")
    return rows


def measure() -> Costs:
    """The costs here, in CPU-seconds of one thread, which other work on the machine does not change."""
    os.environ["PYTHONPATH"] = os.pathsep.join(str(ROOT / room) for room in ("backend", "protocol"))
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        shot, bundle = f"{folder}/shot.json", f"{folder}/bundle"
        run("render", f"{ROOT}/demo/plate/boat.####.exr", f"--frames={MEASURED_FRAMES}", "--prompt", "a watercolour",
            "--keyframes", MEASURED_KEYFRAMES, "-o", f"{folder}/out/look.####.png", "--working-size=320",
            "--save-shot", shot, "--dry-run")
        run("farm", "bundle", shot, "-o", bundle)
        common = ("render", f"{bundle}/shot.json", f"--pins={bundle}/pins.json")
        keyframes = run(*common, "--stage=keyframes")
        one, all_of_them = (run(*common, "--stage=in-betweens", f"--frames={frames}")
                            for frames in ("1002", MEASURED_FRAMES))
    frame = (all_of_them - one) / 11
    start = one - frame
    return Costs(start=start, keyframe=(keyframes - start) / 4, frame=frame)


def run(*words: str) -> float:
    """CPU-seconds of a command of Fresco."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*PROGRAM, *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(words: Sequence[str] | None = None) -> None:
    """Print the costs and the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--measured", nargs=3, type=float, metavar=tuple(map(str.upper, COSTS)),
                         help="seconds of a task's start, of a keyframe, of a frame (default: measured here)")
    options.add_argument("--node-hour", type=float, default=1.0, help="price of a node for an hour (default: 1)")
    options.add_argument("--frames", type=int, default=2000)
    options.add_argument("--gap", type=int, default=6, help="frames from one keyframe to the next (default: 6)")
    options.add_argument("--chunk", type=int, default=48)
    given = options.parse_args(words)
    costs = measure() if given.measured is None else Costs(**dict(zip(COSTS, given.measured, strict=True)))
    print(json.dumps({"start": round(costs.start, 2), "keyframe": round(costs.keyframe, 2),
                      "frame": round(costs.frame, 3)}))
    print("\n".join(table(costs, Shape(frames=given.frames, gap=given.gap, chunk=given.chunk), given.node_hour)))


if __name__ == "__main__":
    main()
