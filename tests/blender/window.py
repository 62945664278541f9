# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on in a real Blender with its window, on a machine without a screen: Debian's Blender under Xvfb.

    sudo .venv/bin/python tests/blender/window.py --out out/window

Needs Debian, root, 3 GB of disk, and some ten minutes the first time: it fills a folder with Debian sid, whose Blender
is newer than that of stable (debootstrap, xvfb and imagemagick are installed when they are missing). Then `screen.py`
plays in there, a server renders out here, and pictures of the screen and measured.json end up in OUT. Exit code 0: all
went well.
"""
from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
DISPLAY = ":77"
SUITE = "sid"
PACKAGES = ("blender", "libgl1", "libegl1", "libgl1-mesa-dri", "libxi6", "libxrender1")
TOOLS = {"debootstrap": "debootstrap", "Xvfb": "xvfb", "import": "imagemagick"}
STAGE = Path("/tmp/fresco-window")  # the same path in there and out here, so that host and server mean the same files
LIMIT = 1800  # seconds for the whole play


def run(*words: str, **options: object) -> None:
    """Runs a command that must go well."""
    subprocess.run(words, check=True, **options)  # type: ignore[call-overload]


def install_tools() -> None:
    """What makes folders of Debian, screens, and pictures of screens."""
    missing = [package for program, package in TOOLS.items() if shutil.which(program) is None]
    if missing:
        run("apt-get", "update", "-qq")
        run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)


def make_house(house: Path) -> None:
    """A folder with Debian sid and its Blender; nothing to do when it is there."""
    if (house / ".ready").exists():
        return
    run("debootstrap", "--variant=minbase", SUITE, str(house))
    # A machine whose clock is ahead of the mirror's last signature still gets its packages.
    (house / "etc/apt/apt.conf.d/99valid").write_text('Acquire::Check-Valid-Until "false";\n')
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("chroot", str(house), "apt-get", "update", "-qq")
    run("chroot", str(house), "apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES, env=environment)
    (house / ".ready").touch()


def set_stage() -> None:
    """The built add-on, the demo's plate, the play."""
    shutil.rmtree(STAGE, ignore_errors=True)
    (STAGE / "state").mkdir(parents=True)
    run(sys.executable, str(ROOT / "host_plugins/package.py"), "--host", "blender", "--out", str(STAGE / "dist"))
    next((STAGE / "dist").glob("*.zip")).rename(STAGE / "fresco.zip")
    shutil.copytree(ROOT / "demo/plate", STAGE / "plate")
    shutil.copy(ROOT / "tests/blender/screen.py", STAGE / "screen.py")
    (STAGE / "connection.txt").write_text(str(STAGE / "state/connection.json"))


@contextmanager
def mounted(house: Path) -> Iterator[None]:
    """The stage, /proc and /dev inside the house; gone afterwards, before anybody deletes it."""
    places = [("--bind", str(STAGE), str(house) + str(STAGE)), ("-t", "proc", "proc", str(house / "proc")),
              ("--bind", "/dev", str(house / "dev"))]
    with ExitStack() as stack:
        for place in places:
            Path(place[-1]).mkdir(parents=True, exist_ok=True)
            run("mount", *place)
            stack.callback(run, "umount", "-l", place[-1])
        yield


@contextmanager
def process(*words: str, log: str, **extra: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process beside us; ended afterwards."""
    with (STAGE / log).open("wb") as file:
        child = subprocess.Popen(words, stdout=file, stderr=file, env={**os.environ, **extra})
    try:
        yield child
    finally:
        child.terminate()
        child.wait(60)


def watch(blender: subprocess.Popen[bytes], out: Path) -> int:
    """Takes the pictures that the play asks for; the exit code of Blender."""
    deadline = time.monotonic() + LIMIT
    while blender.poll() is None and time.monotonic() < deadline:
        for wanted in STAGE.glob("*.wanted"):
            run("import", "-display", DISPLAY, "-window", "root", str(out / f"{wanted.stem}.png"))
            wanted.unlink()
        time.sleep(0.1)
    return 1 if blender.poll() is None else blender.returncode


def play(house: Path, out: Path) -> int:
    """Server, screen, Blender."""
    server = [sys.executable, "-m", "fresco_backend.cli", "serve", "--root", str(STAGE), "--device", "cpu", "--queue",
              str(STAGE / "state/queue.sqlite")]
    blender = ["chroot", str(house), "env", f"DISPLAY={DISPLAY}", "LIBGL_ALWAYS_SOFTWARE=1", "HOME=/root", "blender",
               "--enable-event-simulate", "--app-template", "Video_Editing",
               "--window-geometry", "0", "0", "1600", "900",
               "--python", str(STAGE / "screen.py"), "--", str(STAGE)]
    screen = ["Xvfb", DISPLAY, "-screen", "0", "1600x900x24", "+extension", "GLX"]
    connection = str(STAGE / "state/connection.json")
    with process(*server, log="server.log", FRESCO_CONNECTION=connection), process(*screen, log="screen.log"):
        time.sleep(2)
        with process(*blender, log="blender.log") as child:
            return watch(child, out)


def main(words: Sequence[str]) -> int:
    """Plays; the exit code tells how it went."""
    parser = argparse.ArgumentParser(description="Plays the add-on in a real Blender under Xvfb.")
    parser.add_argument("--out", type=Path, default=ROOT / "out/window", help="folder of the pictures")
    parser.add_argument("--house", type=Path, default=Path("/tmp/fresco-debian"), help="folder of Debian with Blender")
    arguments = parser.parse_args(words)
    arguments.out.mkdir(parents=True, exist_ok=True)
    install_tools()
    make_house(arguments.house)
    set_stage()
    with mounted(arguments.house):
        code = play(arguments.house, arguments.out)
    for name in ("measured.json", "failure.txt", "blender.log"):
        if (STAGE / name).exists():
            shutil.copy(STAGE / name, arguments.out / name)
    sys.stdout.write((STAGE / ("measured.json" if code == 0 else "blender.log")).read_text()[-3000:] + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
