# SPDX-License-Identifier: Apache-2.0
"""A shot on a real Slurm: controller and two nodes on this machine, as root, from Debian's packages.

    apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
    python tests/slurm/run.py

It renders twelve frames above number 1000 here, and again as three jobs of Slurm, kills one node with everything that
it runs while it makes frames, and fails unless every frame is the same to the bit and no finished one was made again.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
NODES = ("fresco1", "fresco2")
FRAMES, CHUNK = "1001-1012", 3
PATIENCE = 1800.0  # seconds for all of it
PROGRAM = (sys.executable, "-c", "from fresco_backend.cli import main; raise SystemExit(main())")


def configuration(folder: Path, ports: tuple[int, ...]) -> str:
    """The slurm.conf of two nodes on one machine. MaxArraySize stays at its default of 1001, below the frames."""
    host = socket.gethostname()
    nodes = "\n".join(f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 State=UNKNOWN"
                      for node, port in zip(NODES, ports[1:], strict=True))
    return f"""\
ClusterName=fresco
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=30
MinJobAge=100000
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP
"""


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """A running Slurm; gives its node daemons by name, each at the head of a process group."""
    (folder / "state").mkdir()
    sockets = [socket.socket() for _ in range(3)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = tuple(int(opened.getsockname()[1]) for opened in sockets)
    for opened in sockets:
        opened.close()
    conf = folder / "slurm.conf"
    conf.write_text(configuration(folder, ports), encoding="utf-8")
    os.environ["SLURM_CONF"] = str(conf)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    munge = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
             f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"]
    with ExitStack() as running:
        daemon(running, munge)
        wait_for(lambda: (folder / "munge.socket").exists(), "munged")
        daemon(running, ["slurmctld", "-D", "-f", str(conf)])
        nodes = {node: daemon(running, ["slurmd", "-D", "-N", node, "-f", str(conf)]) for node in NODES}
        wait_for(lambda: idle_nodes() == len(NODES), "both nodes")
        yield nodes


def daemon(running: ExitStack, words: list[str]) -> subprocess.Popen[bytes]:
    """A daemon that ends with the stack."""
    started = subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    running.callback(stopped, started)
    return started


def stopped(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()


def wait_for(holds: Callable[[], bool], what: str, patience: float = 120.0) -> None:
    """Return when it holds; fail when it does not in time."""
    end = time.monotonic() + patience
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"Slurm: {what} did not come")
        time.sleep(0.5)


def said(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def idle_nodes() -> int:
    counts = re.findall(r"^idle\S* (\d+)$", said("sinfo", "--noheader", "--format=%T %D"), re.MULTILINE)
    return sum(map(int, counts))


def states(job: str) -> list[dict[str, str]]:
    """What the controller says of a job: its elements, each with JobState, BatchHost, Restarts and the like."""
    text = said("scontrol", "--oneliner", "show", "job", job)
    return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in text.splitlines() if "JobState=" in line]


def kill_a_node(nodes: Mapping[str, subprocess.Popen[bytes]], array: str, out: Path) -> str:
    """Kill, like a power cut, the node of a running element once a frame of the array is there; gives the node."""
    wait_for(lambda: bool(frames(out)) and any(one["JobState"] == "RUNNING" for one in states(array)),
             "the first frame between", PATIENCE)
    node = next(one["NodeList"] for one in states(array) if one["JobState"] == "RUNNING")
    nodes[node].kill()
    for process in descendants(node):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return node


def descendants(node: str) -> list[int]:
    """The processes that a node runs, by the variable that Slurm gives to all of them; first their supervisors.

    A supervisor (slurmstepd) that survived its task would report its end, as no machine without power does.
    """
    tasks, supervisors = [], set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[1])
            above = (folder.parent / str(parent) / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile, or is none of ours
            continue
        if f"SLURMD_NODENAME={node}".encode() in variables:
            tasks.append(int(folder.name))
            if above.startswith(b"slurmstepd"):
                supervisors.add(parent)
    return [*supervisors, *tasks]


def frames(out: Path) -> dict[str, int]:
    """The delivered frames and when each was written, in nanoseconds."""
    return {path.name: path.stat().st_mtime_ns for path in sorted(out.glob("look.*.png"))}


def fresco(*words: str) -> str:
    run = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"fresco {' '.join(words)} ended with {run.returncode}:\n{run.stderr}")
    return run.stdout


def main() -> None:
    """Render here and on Slurm, and compare."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--keep", action="store_true", help="keep the folder with Slurm's logs")
    keep = options.parse_args().keep
    missing = [tool for tool in ("slurmctld", "slurmd", "sbatch", "munged") if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        raise SystemExit(f"it needs root, and: {', '.join(missing) or 'nothing else'}")
    os.environ["PYTHONPATH"] = os.pathsep.join(str(ROOT / room) for room in ("backend", "protocol"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = Path(tempfile.mkdtemp(prefix="fresco-slurm-"))
    try:
        compare(folder)
    finally:
        if keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def compare(folder: Path) -> None:
    plate = ROOT / "demo" / "plate" / "boat.####.exr"
    fresco("render", str(plate), f"--frames={FRAMES}", "-o", str(folder / "slurm" / "look.####.png"), "--prompt",
           "a watercolour", "--steps=4", "--per-frame", "--working-size=128", "--keyframes=1001-1009x4,1012",
           "--save-shot", str(folder / "shot.json"), "--dry-run")
    command = " ".join(f"'{word}'" for word in PROGRAM)
    shot, bundle = str(folder / "shot.json"), str(folder / "bundle")
    fresco("farm", "bundle", shot, "-o", bundle, f"--chunk={CHUNK}", f"--command={command}")
    fresco("render", f"{bundle}/shot.json", "-o", str(folder / "here" / "look.####.png"))
    with cluster(folder) as nodes:
        told = fresco("farm", "submit", shot, "-o", bundle, "--engine=slurm", f"--chunk={CHUNK}",
                      f"--command={command}", f"--option=--output={folder}/job.%A.%a.log")
        jobs = dict(re.findall(r"^(\S+) (\d+)$", told, re.MULTILINE))
        node = kill_a_node(nodes, jobs["in-betweens"], folder / "slurm")
        before = frames(folder / "slurm")
        print(f"killed {node} when {len(before)} frames were there")
        wait_for(lambda: ended(jobs["verify"]), "the end of the job", PATIENCE)
        report(folder, jobs, before)


def ended(job: str) -> bool:
    return all(one["JobState"] not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING") for one in states(job))


def report(folder: Path, jobs: Mapping[str, str], before: Mapping[str, int]) -> None:
    """Print what became of the jobs; fail unless all is as it must be."""
    for step, job in jobs.items():
        for one in states(job):
            print(f"{step} {one.get('ArrayTaskId', '')} {one['JobState']} on {one.get('NodeList')}, "
                  f"restarts {one['Restarts']}")
    bad = [step for step, job in jobs.items() for one in states(job) if one["JobState"] != "COMPLETED"]
    here, there = ({path.name: path.read_bytes() for path in (folder / name).glob("look.*.png")}
                   for name in ("here", "slurm"))
    same = [name for name, pixels in here.items() if there.get(name) == pixels]
    again = [name for name, written in frames(folder / "slurm").items() if before.get(name, written) != written]
    restarts = sum(int(one["Restarts"]) for one in states(jobs["in-betweens"]))
    print(f"{len(same)} of {len(here)} frames are the same to the bit; made again: {again or 'none'}; "
          f"requeued: {restarts}")
    if bad or again or len(same) != len(here) or not restarts:
        raise SystemExit("it is not as it must be")


if __name__ == "__main__":
    main()
